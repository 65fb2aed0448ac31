//! Makes a workspace of a snapshot.
//!
//! ```text
//! what is there ─► known ─► repositories, one after the other ─► needed ─► contents ─► the tree takes its place
//! ```
//! All of it happens in a [`Stage`]; a stream that is cut leaves what was there.

mod eol;
mod files;
mod repository;
mod stat;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;

use self::files::Files;
use self::repository::Making;
use super::look::{self, Looking, Seen};
use super::notes::Notes;
use super::stage::{self, Former, Stage};
use super::{Place, WorkError, included, state};
use crate::wire::limits::{KNOWN_COMMITS_MAX, MESSAGE_ITEMS};
use crate::wire::path::is_beneath;
use crate::wire::{
    Base, Entry, Fault, Judge, Known, KnownRepository, Needed, Note, Part, Piece, RefKind,
    RepositoryKind,
};

/// How often progress is told: after so many bytes.
const PROGRESS_BYTES: u64 = 4 << 20;

/// How a workspace is made.
#[derive(Debug, Clone, Default)]
pub struct Restore {
    /// What is there is replaced whatever it is.
    pub overwrite: bool,
    /// What is there is replaced if its state has one of these digests.
    pub replaceable_states: Vec<Bytes>,
    /// The name on commits; empty: as it is.
    pub author_name: String,
    /// The address on commits; empty: as it is.
    pub author_email: String,
}

/// What is answered meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// What is there already.
    Known(Known),
    /// Whose content is wanted.
    Needed(Needed),
    /// Bytes of packs and contents that were taken.
    Progress(u64),
}

/// The workspace is there.
#[derive(Debug)]
pub struct Restored {
    /// Digest of its state.
    pub state: [u8; 32],
    /// What whoever sent the snapshot must know.
    pub notes: Vec<Note>,
    /// What was there before: to be dropped after the answer.
    pub former: Former,
}

/// The parts of a snapshot as they come, judged, and the answers to them.
struct Incoming<'a> {
    parts: &'a mut (dyn FnMut() -> Option<Part> + Send),
    answer: &'a mut (dyn FnMut(Answer) -> bool + Send),
    judge: Judge,
    taken: u64,
    told: u64,
}

impl Incoming<'_> {
    fn next(&mut self) -> Result<Piece, WorkError> {
        let part = (self.parts)().ok_or(WorkError::Gone)?;
        self.judge.part(&part)?;
        part.part.ok_or(WorkError::Snapshot(Fault::Cut))
    }

    fn answer(&mut self, answer: Answer) -> Result<(), WorkError> {
        match (self.answer)(answer) {
            true => Ok(()),
            false => Err(WorkError::Gone),
        }
    }

    fn took(&mut self, bytes: usize) -> Result<(), WorkError> {
        self.taken += bytes as u64;
        if self.taken - self.told < PROGRESS_BYTES {
            return Ok(());
        }
        self.told = self.taken;
        self.answer(Answer::Progress(self.taken))
    }
}

/// Makes the workspace of the parts that `parts` gives, none of them at the end of the stream.
///
/// # Errors
/// Why it was not made; what was there is as it was.
pub fn restore(
    place: &Place,
    request: &Restore,
    parts: &mut (dyn FnMut() -> Option<Part> + Send),
    answer: &mut (dyn FnMut(Answer) -> bool + Send),
) -> Result<Restored, WorkError> {
    let mut incoming = Incoming {
        parts,
        answer,
        judge: Judge::default(),
        taken: 0,
        told: 0,
    };
    let stage = Stage::begin(place)?;
    let former = former(place, request)?;
    tell_known(former.as_ref().map(|former| &former.seen), &mut incoming)?;
    let first = incoming.next()?;
    // What is known was told: it must be there, whatever comes.
    let copied = match &former {
        Some(former) => {
            let repositories = former.seen.repositories.iter();
            let opened = repositories.filter_map(|one| one.opened.as_ref());
            Some(stage.copy(opened)?)
        }
        None => None,
    };
    let staged = Place {
        path: stage.path.clone(),
        ..place.clone()
    };
    let mut notes = Notes::default();
    let (places, entries) = manifest(&staged, request, first, &mut incoming, &mut notes)?;
    if let Some(former) = &former {
        remove_gone(&staged, &former.seen, &places)?;
    }
    let paths: HashSet<Bytes> = entries.iter().map(|entry| entry.path.clone()).collect();
    let files = Files::new(place, &staged, entries, former.is_some())?;
    for chunk in chunks(&files.needed()) {
        incoming.answer(Answer::Needed(chunk))?;
    }
    files.make(&mut incoming)?;
    included::keep(&staged, &places, files.entries())?;
    stat::look_anew(&staged, &places, &paths)?;
    let state = settled(&staged, &mut notes)?;
    stage.mark(&state);
    if let (Some(former), Some(copied)) = (&former, copied) {
        former.check(place, || Ok(stage.tally()? == copied))?;
    }
    let former = stage.publish()?;
    Ok(Restored {
        state,
        notes: notes.kept,
        former,
    })
}

/// What is going to be replaced.
#[derive(Debug)]
struct There {
    seen: Seen,
    /// The digest of its state; none where it is replaced whatever it is.
    state: Option<[u8; 32]>,
}

impl There {
    /// Refuses to replace what something was done in since. `is_same` says whether its files are what they were, as far as
    /// that is known without reading them.
    fn check(
        &self,
        place: &Place,
        is_same: impl FnOnce() -> Result<bool, WorkError>,
    ) -> Result<(), WorkError> {
        let Some(state) = self.state else {
            return Ok(());
        };
        if is_same()? && self.seen.still_holds()? {
            return Ok(());
        }
        // It may be as it was all the same: files that git ignores are written all the time.
        match state::read(&look_whole(place)?)? == state {
            true => Ok(()),
            false => Err(occupied(place, "something was done in it meanwhile")),
        }
    }
}

/// Looks at all of a tree, whatever anybody has of it already.
fn look_whole(place: &Place) -> Result<Seen, WorkError> {
    let looking = Looking {
        base: &Base::default(),
        had_git: false,
        ignored: false,
    };
    look::look(place, looking)
}

fn occupied(place: &Place, detail: &str) -> WorkError {
    WorkError::Occupied {
        path: place.name(),
        detail: detail.to_owned(),
    }
}

/// What is at the workspace's place and is going to be replaced; none where there is nothing.
fn former(place: &Place, request: &Restore) -> Result<Option<There>, WorkError> {
    let occupied = |detail: &str| occupied(place, detail);
    match fs::symlink_metadata(&place.path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(occupied("it is not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(WorkError::file("looking at", &place.path)(error)),
    }
    let is_empty = fs::read_dir(&place.path).map(|mut entries| entries.next().is_none());
    if is_empty.map_err(WorkError::file("looking at", &place.path))? {
        return Ok(None);
    }
    let seen = look_whole(place)?;
    if request.overwrite {
        return Ok(Some(There { seen, state: None }));
    }
    let marked = stage::marked(&seen.root);
    if request.replaceable_states.is_empty() && marked.is_empty() {
        return Err(occupied("it was not prepared by banger"));
    }
    let state = state::read(&seen)?;
    let mut known = request.replaceable_states.iter();
    let is_known = marked == state || known.any(|known| known[..] == state);
    match is_known && seen.still_holds()? {
        true => Ok(Some(There {
            seen,
            state: Some(state),
        })),
        false => Err(occupied("something was done in it since")),
    }
}

fn tell_known(former: Option<&Seen>, incoming: &mut Incoming<'_>) -> Result<(), WorkError> {
    let mut left = KNOWN_COMMITS_MAX;
    let mut repositories: Vec<KnownRepository> = Vec::new();
    let repositories_there = former.into_iter().flat_map(|former| &former.repositories);
    // Of a history that was cut not all is there that its commits lead to.
    let whole = repositories_there.filter(|repository| repository.told.shallow.is_empty());
    for repository in whole {
        let refs = repository
            .refs
            .iter()
            .filter(|found| found.kind() == RefKind::Ref);
        let ids = refs.map(|found| found.object_id.clone());
        let mut commits: Vec<String> = ids.chain([repository.told.head_commit.clone()]).collect();
        commits.retain(|id| !id.is_empty());
        commits.sort();
        commits.dedup();
        commits.truncate(left);
        left -= commits.len();
        for some in commits.chunks(MESSAGE_ITEMS) {
            repositories.push(KnownRepository {
                path: repository.told.path.clone(),
                commits: some.to_vec(),
            });
        }
    }
    for repository in repositories {
        incoming.answer(Answer::Known(Known {
            repositories: vec![repository],
            ..Known::default()
        }))?;
    }
    incoming.answer(Answer::Known(Known {
        is_last: true,
        ..Known::default()
    }))
}

/// Makes all repositories as they come, and returns where they are, and the entries of all.
fn manifest(
    staged: &Place,
    request: &Restore,
    first: Piece,
    incoming: &mut Incoming<'_>,
    notes: &mut Notes,
) -> Result<(Vec<Bytes>, Vec<Entry>), WorkError> {
    let (mut places, mut entries) = (Vec::new(), Vec::new());
    let mut making: Option<Making> = None;
    let mut next = Some(first);
    loop {
        let piece = match next.take() {
            Some(piece) => piece,
            None => incoming.next()?,
        };
        match (piece, &mut making) {
            (Piece::Repository(repository), _) => {
                if let Some(made) = making.take() {
                    made.finish(request, notes)?;
                }
                if repository.kind() == RepositoryKind::Plain {
                    let git_dir = staged.path.join(".git");
                    stage::remove(&git_dir).map_err(WorkError::file("removing", &git_dir))?;
                } else {
                    places.push(repository.path.clone());
                    let directory = match &repository.path[..] {
                        b"" => staged.path.clone(),
                        path => staged.path.join(OsStr::from_bytes(path)),
                    };
                    making = Some(Making::begin(staged, &directory, repository)?);
                }
            }
            (Piece::Refs(refs), Some(making)) => making.refs.extend(refs.refs),
            (Piece::Index(index), Some(making)) => making.index.extend(index.entries),
            (Piece::Pack(pack), Some(making)) => making.pack(pack, incoming)?,
            (Piece::Entries(some), _) => entries.extend(some.entries),
            (Piece::ManifestEnd(_), _) => {
                if let Some(made) = making.take() {
                    made.finish(request, notes)?;
                }
                return Ok((places, entries));
            }
            // The judge has let nothing else through.
            _ => return Err(WorkError::Snapshot(Fault::Order { what: "this part" })),
        }
    }
}

/// Removes repositories inside that were there and did not come again. What lies there now may be files of the repository
/// around it, so only what that does not track goes; what is ignored stays, as everywhere.
fn remove_gone(staged: &Place, former: &Seen, places: &[Bytes]) -> Result<(), WorkError> {
    let all = former.repositories.iter().map(|one| &one.told.path);
    let gone: Vec<&Bytes> = all
        .filter(|path| !path.is_empty() && !places.contains(path))
        .collect();
    let at = |path: &[u8]| staged.path.join(OsStr::from_bytes(path));
    for path in &gone {
        let git_dir = at(path).join(".git");
        match stage::remove(&git_dir) {
            // Something else has taken the directory's place.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            removed => removed.map_err(WorkError::file("removing", &git_dir))?,
        }
    }
    for path in gone {
        let around = places.iter().filter(|place| is_beneath(path, place));
        let Some(around) = around.max_by_key(|place| place.len()) else {
            continue;
        };
        let inside = match around.len() {
            0 => &path[..],
            length => &path[length + 1..],
        };
        let inside = OsStr::from_bytes(inside);
        let words: [&OsStr; 6] = [
            "clean".as_ref(),
            "-f".as_ref(),
            "-d".as_ref(),
            "-q".as_ref(),
            "--".as_ref(),
            inside,
        ];
        let git = staged.git(&at(around));
        git.with_env("GIT_LITERAL_PATHSPECS", "1").run(&words)?;
    }
    Ok(())
}

fn chunks(needed: &[u32]) -> Vec<Needed> {
    let mut chunks: Vec<Needed> = needed
        .chunks(16 * MESSAGE_ITEMS)
        .map(|entries| Needed {
            entries: entries.to_vec(),
            is_last: false,
        })
        .collect();
    match chunks.last_mut() {
        Some(last) => last.is_last = true,
        None => chunks.push(Needed {
            entries: Vec::new(),
            is_last: true,
        }),
    }
    chunks
}

/// The state of what was made.
fn settled(staged: &Place, notes: &mut Notes) -> Result<[u8; 32], WorkError> {
    let seen = look_whole(staged)?;
    let state = state::read(&seen)?;
    for note in seen.notes.kept {
        if note.is_loss {
            notes.lost(note.kind(), &note.path, &note.detail);
        }
    }
    Ok(state)
}
