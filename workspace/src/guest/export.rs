//! Tells all that was done in a workspace since its base, and changes nothing in it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};

use super::content::PIECE_BYTES;
use super::look::{self, Draft, Looking, Seen, SeenRepository, existing};
use super::notes::Notes;
use super::send::Sender;
use super::tally::Tally;
use super::{Place, WorkError, content, state, tree};
use crate::command::GitError;
use crate::wire::limits::SNAPSHOT_MAX_BYTES;
use crate::wire::{Base, Content, End, Entry, EntryKind, ManifestEnd, NoteKind, Part, Piece};

/// A pack's signature, version and count of objects: gitformat-pack(5).
const PACK_HEADER_BYTES: usize = 12;
/// Tips that are looked at one by one where not all can be told.
const TIPS_TRIED_MAX: usize = 2000;

/// Of the contents of files, in the order of the entries.
type Digests = Vec<Option<[u8; 32]>>;

/// What is to be told.
#[derive(Debug, Clone, Default)]
pub struct Export {
    /// What whoever asks has already.
    pub base: Base,
    /// The workspace was prepared with git.
    pub had_git: bool,
    /// The most bytes of packs and contents; 0 means as many as are allowed.
    pub max_bytes: u64,
}

/// Hands the snapshot of a workspace to `deliver`, which says whether more is wanted.
///
/// # Errors
/// If there is no workspace, git fails, or nobody wants more. A snapshot that was begun is then not whole.
pub fn export(
    place: &Place,
    request: &Export,
    deliver: &mut dyn FnMut(Part) -> bool,
) -> Result<(), WorkError> {
    let looking = Looking {
        base: &request.base,
        had_git: request.had_git,
        ignored: true,
    };
    let before = tally(place);
    let mut seen = look::look(place, looking)?;
    let limit = match request.max_bytes {
        0 => SNAPSHOT_MAX_BYTES,
        limit => limit.min(SNAPSHOT_MAX_BYTES),
    };
    let mut sender = Sender::new(deliver);
    let mut notes = std::mem::take(&mut seen.notes);
    let (mut promised, mut count) = (0, 0);
    for repository in &mut seen.repositories {
        sender.send(Piece::Repository(repository.told.clone()))?;
        sender.refs(repository.refs.clone())?;
        sender.index(repository.index.clone())?;
        pack(
            repository,
            limit.saturating_sub(promised),
            &mut sender,
            &mut notes,
        )?;
        fit(
            repository,
            limit.saturating_sub(sender.bytes),
            &mut promised,
            &mut notes,
        );
        let entries = repository.drafts.iter().map(|draft| Entry {
            path: Bytes::copy_from_slice(&draft.path),
            kind: draft.kind.into(),
            mode: draft.mode,
            size: i64::try_from(draft.size).unwrap_or(i64::MAX),
            sha256: Bytes::new(),
            link_target: Bytes::copy_from_slice(&draft.link_target),
        });
        sender.entries(entries.collect())?;
        count += repository.drafts.len();
    }
    let entry_count = i64::try_from(count).unwrap_or(i64::MAX);
    sender.send(Piece::ManifestEnd(ManifestEnd { entry_count }))?;
    let (digests, held_still) = contents(&seen, &mut sender, &mut notes)?;
    let is_same = tally(place) == before || holds(place, looking, &seen, &mut notes)?;
    let still_holds = seen.still_holds()?;
    if !still_holds {
        let detail = "references or the index were changed after they had been read";
        notes.lost(NoteKind::RefsMoved, b"", detail);
    }
    let state = match held_still && is_same && still_holds {
        true => Bytes::copy_from_slice(&state::of(&seen, &digests)),
        false => Bytes::new(),
    };
    for note in notes.kept {
        sender.send(Piece::Note(note))?;
    }
    sender.send(Piece::End(End {
        state,
        notes_left_out: notes.left_out,
    }))
}

/// What is in the tree, in one number; none where that cannot be had.
fn tally(place: &Place) -> Option<Tally> {
    Tally::of(&tree::open(&place.path).ok()?).ok()
}

/// Whether all that differs is what was seen to differ. What was changed after that look, and so may have come or not, is told.
fn holds(
    place: &Place,
    looking: Looking<'_>,
    seen: &Seen,
    notes: &mut Notes,
) -> Result<bool, WorkError> {
    let again = look::look(place, looking)?;
    let drafts = |seen: &'_ Seen| -> BTreeMap<Vec<u8>, Draft> {
        let drafts = seen.repositories.iter().flat_map(|one| &one.drafts);
        drafts
            .map(|draft| (draft.path.clone(), draft.clone()))
            .collect()
    };
    let (told, now) = (drafts(seen), drafts(&again));
    let noted: HashSet<Bytes> = notes.kept.iter().map(|note| note.path.clone()).collect();
    let paths: BTreeSet<&Vec<u8>> = told.keys().chain(now.keys()).collect();
    let mut holds = true;
    for path in paths {
        if told.get(path) != now.get(path) && !noted.contains(&path[..]) {
            holds = false;
            let detail = "it was changed after it had been looked at";
            notes.lost(NoteKind::Moved, path, detail);
        }
    }
    Ok(holds)
}

/// Leaves out the files that do not fit.
fn fit(repository: &mut SeenRepository, limit: u64, promised: &mut u64, notes: &mut Notes) {
    repository.drafts.retain(|draft| {
        let fits = promised.saturating_add(draft.size) <= limit;
        if fits {
            *promised += draft.size;
        } else {
            let detail = format!("its {} bytes are more than the limit leaves", draft.size);
            notes.lost(NoteKind::TooLarge, &draft.path, &detail);
        }
        fits
    });
}

/// Sends the contents of all files. Their digests, and whether all held still.
fn contents(
    seen: &Seen,
    sender: &mut Sender<'_>,
    notes: &mut Notes,
) -> Result<(Digests, bool), WorkError> {
    let mut digests = Vec::new();
    let mut all_held_still = true;
    for draft in seen.repositories.iter().flat_map(|one| &one.drafts) {
        if draft.kind != EntryKind::File {
            digests.push(None);
            continue;
        }
        let entry = u32::try_from(digests.len()).unwrap_or(u32::MAX);
        let read = content::read(&seen.root, draft, |data| {
            sender.bytes += data.len() as u64;
            sender.send(Piece::Content(Content {
                entry,
                data,
                ..Content::default()
            }))
        })?;
        sender.send(Piece::Content(Content {
            entry,
            is_last: true,
            sha256: Bytes::copy_from_slice(&read.sha256),
            ..Content::default()
        }))?;
        if !read.held_still {
            all_held_still = false;
            let detail = "it was changed while it was read, or could not be read";
            notes.lost(NoteKind::Moved, &draft.path, detail);
        }
        digests.push(Some(read.sha256));
    }
    Ok((digests, all_held_still))
}

/// Sends the objects that the base has not.
fn pack(
    repository: &SeenRepository,
    limit: u64,
    sender: &mut Sender<'_>,
    notes: &mut Notes,
) -> Result<(), WorkError> {
    let Some(opened) = &repository.opened else {
        return Ok(());
    };
    let mut tips = tips(repository);
    let before = sender.bytes;
    let mut sent = send_pack(repository, &tips, limit, sender);
    if matches!(sent, Err(WorkError::Git(GitError::Failed { .. }))) && sender.bytes == before {
        // Something that is named is not there, as what a merge has left that was not ended.
        let there = existing(&opened.git, &tips)?;
        if there.len() < tips.len() {
            tips = there;
            sent = send_pack(repository, &tips, limit, sender);
        }
    }
    match sent {
        Err(WorkError::Git(GitError::Failed { complaint, .. })) if sender.bytes == before => {
            notes.lost(NoteKind::MissingObjects, &opened.path, &complaint);
            let whole = whole(repository, &tips, notes)?;
            match whole.is_empty() {
                true => Ok(()),
                false => send_pack(repository, &whole, limit, sender),
            }
        }
        result => result,
    }
}

/// All objects that must be told: commits, tags, and what the index has.
fn tips(repository: &SeenRepository) -> Vec<String> {
    let mut tips: BTreeSet<&str> = BTreeSet::new();
    tips.extend(repository.refs.iter().map(|found| found.object_id.as_str()));
    tips.insert(&repository.told.head_commit);
    let unfinished = repository.told.unfinished.iter();
    tips.extend(unfinished.flat_map(|thing| thing.commits.iter().map(String::as_str)));
    let blobs = repository
        .index
        .iter()
        .filter(|entry| entry.mode != 0o160_000);
    tips.extend(blobs.map(|entry| entry.object_id.as_str()));
    tips.extend(repository.behind.parents.iter().map(String::as_str));
    tips.remove("");
    for known in &repository.base {
        tips.remove(known.as_str());
    }
    tips.into_iter().map(str::to_owned).collect()
}

/// The tips whose objects are all there.
fn whole(
    repository: &SeenRepository,
    tips: &[String],
    notes: &mut Notes,
) -> Result<Vec<String>, WorkError> {
    let Some(opened) = &repository.opened else {
        return Ok(Vec::new());
    };
    let mut whole = Vec::new();
    for tip in tips.iter().take(TIPS_TRIED_MAX) {
        let base = &repository.base;
        let input = |to: &mut dyn Write| revisions(to, std::slice::from_ref(tip), base);
        match opened
            .git
            .feed(&["rev-list", "--objects", "--quiet", "--stdin"], input)
        {
            Ok(_) => whole.push(tip.clone()),
            Err(GitError::Failed { complaint, .. }) => {
                notes.lost(NoteKind::MissingObjects, tip.as_bytes(), &complaint);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(whole)
}

fn revisions(to: &mut dyn Write, tips: &[String], base: &[String]) -> io::Result<()> {
    let mut to = io::BufWriter::new(to);
    tips.iter().try_for_each(|id| writeln!(to, "{id}"))?;
    base.iter().try_for_each(|id| writeln!(to, "^{id}"))?;
    to.flush()
}

fn send_pack(
    repository: &SeenRepository,
    tips: &[String],
    limit: u64,
    sender: &mut Sender<'_>,
) -> Result<(), WorkError> {
    let Some(opened) = repository.opened.as_ref().filter(|_| !tips.is_empty()) else {
        return Ok(());
    };
    let words = [
        "pack-objects",
        "--revs",
        "--stdout",
        "-q",
        "--thin",
        "--delta-base-offset",
    ];
    let base = &repository.base;
    let cut = &repository.behind.cut;
    let mut git = opened.git.clone();
    if !cut.is_empty() {
        // It was written by a git that saw no cut.
        git = git.with_setting("core.commitGraph=false");
    }
    let mut failure = None;
    let failed = &mut failure;
    let input = |to: &mut dyn Write| {
        // First: what the base has ends there, and so does what is walked from the tips. The parents are tips.
        cut.iter()
            .try_for_each(|id| writeln!(to, "--shallow {id}"))?;
        revisions(to, tips, base)
    };
    let result = git.pipe(&words, input, |output| {
        carry(output, limit, sender).map_err(|error| match error {
            Carried::Read(error) => error,
            Carried::Work(error) => {
                *failed = Some(error);
                io::Error::other("nobody takes it")
            }
        })
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(result?),
    }
}

enum Carried {
    Read(io::Error),
    Work(WorkError),
}

/// Hands on a pack as it is made; one without objects is none.
fn carry(output: &mut dyn Read, limit: u64, sender: &mut Sender<'_>) -> Result<(), Carried> {
    let mut ahead = filled(output, PIECE_BYTES).map_err(Carried::Read)?;
    let has_objects = |pack: &[u8]| {
        pack.get(8..PACK_HEADER_BYTES)
            .is_some_and(|count| count != [0; 4])
    };
    if !has_objects(&ahead) {
        return Ok(());
    }
    loop {
        let next = filled(output, PIECE_BYTES).map_err(Carried::Read)?;
        let is_last = next.is_empty();
        if sender.bytes + ahead.len() as u64 > limit {
            return Err(Carried::Work(WorkError::TooLarge { limit }));
        }
        sender.pack(ahead, is_last).map_err(Carried::Work)?;
        if is_last {
            return Ok(());
        }
        ahead = next;
    }
}

/// As many bytes as there are, up to `length`.
fn filled(output: &mut dyn Read, length: usize) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(length);
    let mut filled = 0;
    while filled < length {
        match output.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.freeze())
}
