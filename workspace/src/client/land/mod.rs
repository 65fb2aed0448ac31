//! Takes a workspace that comes from a VM.
//!
//! ```text
//! parts ─► judged ─► quarantine: packs by index-pack, contents as numbered files
//!                        │ all of it is there: connected, of bounded size, states made into commits
//!                        ▼
//!        objects move into the stores ─► one transaction of references beneath refs/banger/<vm>/ each, all prepared
//!                                         before the first is committed
//! ```
//! Until the transactions nothing in a store leads to anything of it; what is left of a landing that was cut is removed
//! by the next one. The quarantine is a repository that banger writes: nothing of the VM's configuration, hooks or
//! attributes is in it. Names in references, indexes and trees are the VM's, and are judged; names of files on this
//! machine are never the VM's.
//!
//! | reference beneath `refs/banger/<vm>/` | is |
//! |---|---|
//! | `heads/…`, `tags/…`, `remotes/…`, `notes/…`, `other/…` | the VM's references that are not this repository's |
//! | `HEAD` | the commit that was checked out |
//! | `stash/N`, `lost/ID` | entries of its stash; commits that only its logs lead to |
//! | `state/index`, `state/worktree` | what was staged; what was changed, in the form of a stash |
//! | `state/tree` | every file as it was, untracked ones among them |
//! | `state/conflicts` | the sides of files in conflict: `1/` ancestor, `2/` ours, `3/` theirs |
//! | `state/landing` | what a tree cannot say: the branch, empty directories, permissions, notes |
//! | `earlier/TIME/…` | what an earlier export brought and this one does not lead to |
//! | `before/TIME/…` | the way back of an apply |

mod build;
mod deepen;
mod place;
pub(super) mod publish;
mod quarantine;
pub(super) mod script;
pub(super) mod transaction;

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::{Error, Result};
use super::lines::shown;
use super::plain::Carried;
use super::store::{Store, vm_prefix};
use crate::wire::path::is_beneath;
use crate::wire::{
    Base, Entry, EntryKind, Fault, IndexEntry, Judge, Note, NoteKind, Part, Piece, Ref, Repository,
    Unfinished,
};

use build::Built;
pub use place::Place;
use quarantine::{Contents, Incoming, PackInto};

/// What may come.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of packs and contents, as they come.
    pub bytes: u64,
    /// Bytes of one object when it is unpacked.
    pub object_bytes: u64,
    /// Bytes of all objects that come when they are unpacked.
    pub unpacked_bytes: u64,
}

impl Default for Limits {
    /// 64 GiB on the way, 16 GiB for one object, 256 GiB unpacked.
    fn default() -> Self {
        Self {
            bytes: crate::wire::limits::SNAPSHOT_MAX_BYTES,
            object_bytes: 16 << 30,
            unpacked_bytes: 256 << 30,
        }
    }
}

/// A workspace that is coming.
#[derive(Debug)]
pub struct Landing {
    place: Place,
    vm: String,
    prefix: String,
    base: Base,
    limits: Limits,
    judge: Judge,
    // Before `incoming`: what is at work in its directory ends first.
    repositories: Vec<Coming>,
    /// Paths of repositories inside that came and cannot land.
    refused: Vec<Vec<u8>>,
    entries: usize,
    contents: Contents,
    notes: Vec<Note>,
    state: Bytes,
    notes_left_out: u64,
    /// What is remembered of a directory without git.
    carried: Option<Vec<u8>>,
    incoming: Incoming,
}

/// One of its repositories.
#[derive(Debug)]
struct Coming {
    message: Repository,
    store: Store,
    /// It is one of banger's own.
    is_own_store: bool,
    quarantine: Store,
    refs: Vec<Ref>,
    index: Vec<IndexEntry>,
    entries: Vec<(usize, Entry)>,
    pack: Option<PackInto>,
    /// Why it cannot land, though the others may.
    failed: Option<Error>,
}

/// What has landed.
#[derive(Debug, Clone)]
pub struct Landed {
    /// Repositories of the workspace, its own first.
    pub repositories: Vec<LandedRepository>,
    /// What the VM said about it.
    pub notes: Vec<Note>,
    /// Notes that were left out because there were too many.
    pub notes_left_out: u64,
    /// Digest of the VM's state; empty where files moved while they were read.
    pub state: Bytes,
}

impl Landed {
    /// Whether something was done in the VM that did not come.
    #[must_use]
    pub fn has_loss(&self) -> bool {
        self.notes_left_out > 0 || self.notes.iter().any(|note| note.is_loss)
    }
}

/// A repository that has landed.
#[derive(Debug, Clone, Default)]
pub struct LandedRepository {
    /// Beneath the workspace; empty for the workspace itself.
    pub path: Vec<u8>,
    /// The git directory that has it.
    pub store: PathBuf,
    /// That is one of banger's own, because there is no such repository here.
    pub is_own_store: bool,
    /// The branch that was checked out; empty for none.
    pub head_ref: Vec<u8>,
    /// The commit that was checked out; empty for none.
    pub head: String,
    /// References that are there now, with what they lead to.
    pub refs: Vec<(String, String)>,
    /// Where earlier values of references are kept that nothing leads to any more.
    pub kept: Vec<String>,
    /// Commits that came.
    pub new_commits: u64,
    /// Paths that were staged.
    pub staged: u64,
    /// Tracked files that were changed.
    pub changed: u64,
    /// Files that are not tracked.
    pub untracked: u64,
    /// Paths in conflict.
    pub conflicted: u64,
    /// Merges, rebases and the like that had not ended.
    pub unfinished: Vec<Unfinished>,
}

impl Coming {
    /// Remembers why a repository inside cannot land; of the workspace's own, and of what nobody wants any more, it is an
    /// error.
    fn or_fails(&mut self, done: Result<()>) -> Result<()> {
        match done {
            Err(error) if !self.message.path.is_empty() && !error.is_given_up() => {
                self.failed = Some(error);
                Ok(())
            }
            done => done,
        }
    }
}

impl Landing {
    /// Begins; what is left of landings that were cut is removed. `base` is what was asked for.
    ///
    /// # Errors
    /// If nothing can be written to the store.
    pub fn begin(place: &Place, vm: &str, base: &Base, limits: Limits) -> Result<Self> {
        let prefix = vm_prefix(vm)?;
        let incoming = Incoming::begin(place.store())?;
        let carried = match place.repository() {
            Some(_) => None,
            None => Carried::in_store(place.store(), vm)?.bytes()?,
        };
        Ok(Self {
            carried,
            contents: Contents::new(&incoming)?,
            place: place.clone(),
            vm: vm.to_owned(),
            prefix,
            base: base.clone(),
            limits,
            judge: Judge::new(limits.bytes),
            incoming,
            repositories: Vec::new(),
            refused: Vec::new(),
            entries: 0,
            notes: Vec::new(),
            state: Bytes::new(),
            notes_left_out: 0,
        })
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// If it is not allowed, damaged, or cannot be written. Nothing of the landing is used then.
    pub fn part(&mut self, part: Part) -> Result<()> {
        self.judge.part(&part)?;
        match part.part {
            Some(Piece::Repository(message)) => self.repository(message)?,
            Some(Piece::Refs(refs)) => self.last()?.refs.extend(refs.refs),
            Some(Piece::Index(index)) => self.last()?.index.extend(index.entries),
            Some(Piece::Pack(pack)) => {
                let limits = self.limits;
                let coming = self.last()?;
                if coming.failed.is_none() {
                    let taken = coming.pack(pack.data, pack.is_last, limits);
                    coming.or_fails(taken)?;
                }
            }
            Some(Piece::Entries(entries)) => {
                let first = self.entries;
                self.entries += entries.entries.len();
                let numbered = (first..).zip(entries.entries);
                self.last()?.entries.extend(numbered);
            }
            Some(Piece::ManifestEnd(_)) => self.check_nesting()?,
            Some(Piece::Content(content)) => self.contents.write(&content)?,
            Some(Piece::Note(note)) => self.notes.push(note),
            Some(Piece::End(end)) => {
                self.state = end.state;
                self.notes_left_out = u64::try_from(end.notes_left_out).unwrap_or_default();
            }
            None => {}
        }
        Ok(())
    }

    fn last(&mut self) -> Result<&mut Coming> {
        let none = Fault::Order { what: "this part" };
        self.repositories.last_mut().ok_or(Error::Snapshot(none))
    }

    fn repository(&mut self, message: Repository) -> Result<()> {
        let found = self.stores(&message);
        let (found, failed) = match found {
            Err(error) if !message.path.is_empty() && !error.is_given_up() => {
                // What comes for it goes with the quarantine.
                let number = self.repositories.len();
                let cancel = self.place.store().git().cancel();
                let scrap = self.incoming.scrap(number, &message, cancel)?;
                ((scrap.clone(), true, scrap), Some(error))
            }
            found => (found?, None),
        };
        let (store, is_own_store, quarantine) = found;
        self.repositories.push(Coming {
            message,
            store,
            is_own_store,
            quarantine,
            refs: Vec::new(),
            index: Vec::new(),
            entries: Vec::new(),
            pack: None,
            failed,
        });
        Ok(())
    }

    /// Where a repository lands, whether that is a store of banger's own, and where it is kept until then.
    fn stores(&self, message: &Repository) -> Result<(Store, bool, Store)> {
        let taken = self.repositories.iter();
        let taken: Vec<&Path> = taken.map(|coming| coming.store.directory()).collect();
        let (store, is_own_store) = self.place.store_for(&self.vm, message, &taken)?;
        let number = self.repositories.len();
        // What the owner's history is cut at the owner says: that of a VM must go on from there.
        let shallow = match is_own_store {
            true => &message.shallow[..],
            false => &[],
        };
        let quarantine = self.incoming.quarantine(number, &store, shallow)?;
        Ok((store, is_own_store, quarantine))
    }

    /// A repository's entries lie in it and in none inside it: which tree they belong to is never in doubt.
    fn check_nesting(&self) -> Result<()> {
        let places = self.repositories.iter();
        let places: Vec<&[u8]> = places.map(|coming| &coming.message.path[..]).collect();
        for coming in &self.repositories {
            let inside = places
                .iter()
                .filter(|place| !place.is_empty() && is_beneath(place, &coming.message.path));
            let inside: Vec<&&[u8]> = inside.collect();
            let mut entries = coming.entries.iter();
            let astray = entries
                .find(|(_, entry)| inside.iter().any(|place| is_beneath(&entry.path, place)));
            if let Some((_, entry)) = astray {
                return Err(Error::Unsafe {
                    name: shown(&entry.path),
                    problem: "lies in another repository than it says",
                });
            }
        }
        Ok(())
    }

    /// Checks all of it, and puts it into the stores: all at once, or nothing. A repository inside that cannot land is
    /// left out, and told by a note.
    ///
    /// # Errors
    /// If the stream was cut, or anything of the workspace's own that came is damaged.
    pub fn finish(mut self) -> Result<Landed> {
        self.judge.end()?;
        self.contents.end()?;
        for coming in &mut self.repositories {
            let ended = coming.end_pack(self.limits);
            coming.or_fails(ended)?;
        }
        for number in (0..self.repositories.len()).rev() {
            if let Some(error) = self.repositories[number].failed.take() {
                self.refuse(number, error)?;
            }
        }
        let missing = self.take_missing();
        self.notes.extend(missing);
        let mut lock = None;
        loop {
            let landed = self.built().and_then(|built| {
                if lock.is_none() {
                    let held = publish::lock(self.place.store());
                    lock = Some(held.map_err(|error| (0, error))?);
                }
                publish::publish(&self.repositories, built, self.vacated(), &self.prefix)
            });
            match landed {
                Ok(repositories) => {
                    return Ok(Landed {
                        repositories,
                        notes: self.notes,
                        notes_left_out: self.notes_left_out,
                        state: self.state,
                    });
                }
                Err((number, error)) => self.refuse(number, error)?,
            }
        }
    }

    /// Leaves a repository inside out, with a note that says why; the workspace's own is not left out.
    fn refuse(&mut self, number: usize, error: Error) -> Result<()> {
        let is_inside = |coming: &Coming| !coming.message.path.is_empty();
        if error.is_given_up() || !self.repositories.get(number).is_some_and(is_inside) {
            return Err(error);
        }
        let path = self.repositories.remove(number).message.path.clone();
        self.notes.push(Note {
            kind: NoteKind::BrokenRepository.into(),
            path: path.clone(),
            detail: format!("it could not land here: {}", error.told()),
            is_loss: true,
        });
        self.refused.push(path.to_vec());
        Ok(())
    }

    /// All that came, checked and made into commits. An error comes with the number of the repository.
    fn built(&self) -> std::result::Result<Vec<Built>, (usize, Error)> {
        let is_whole = self.notes_left_out == 0 && self.notes.iter().all(|note| !note.is_loss);
        // What is in this state may be replaced in the VM: only if all of it is here.
        let state = match is_whole {
            true => &self.state[..],
            false => &[],
        };
        let refused = self.refused.iter().map(|path| &path[..]);
        let came = self.repositories.iter();
        let came = came.map(|coming| &coming.message.path[..]);
        let inside: Vec<&[u8]> = came.filter(|at| !at.is_empty()).chain(refused).collect();
        let around = build::Around {
            inside: &inside,
            state,
            notes: &self.notes,
            notes_left_out: self.notes_left_out,
            carried: self.carried.as_deref(),
            is_directory: self.place.repository().is_none(),
        };
        let mut built = Vec::new();
        // The workspace's own last: it tells of those inside that could not.
        for (number, coming) in self.repositories.iter().enumerate().rev() {
            let mut bases = self.base.repositories.iter();
            let base = bases.find(|base| base.path == coming.message.path);
            let head = base.map_or("", |base| &base.head_commit);
            let one = build::build(coming, &self.contents, head, &around);
            built.push(one.map_err(|error| (number, error))?);
        }
        built.reverse();
        Ok(built)
    }

    /// The directory's own store, where what comes does not go there: the directory is a repository in the VM by now, and
    /// what came before is not what is there.
    fn vacated(&self) -> Option<&Store> {
        let store = self.place.store();
        let mut taken = self.repositories.iter();
        let is_taken = taken.any(|coming| coming.store.directory() == store.directory());
        Some(store).filter(|_| self.place.repository().is_none() && !is_taken)
    }

    /// Takes the files out whose content did not come. Each must be told; those that are not are told here.
    fn take_missing(&mut self) -> Vec<Note> {
        let mut missing = Vec::new();
        let contents = &self.contents;
        for coming in &mut self.repositories {
            let has_come = |(number, entry): &(usize, Entry)| {
                entry.kind() != EntryKind::File || contents.has(*number)
            };
            let gone = coming.entries.extract_if(.., |entry| !has_come(entry));
            missing.extend(gone.map(|(_, entry)| entry.path));
        }
        missing.retain(|path| {
            let mut notes = self.notes.iter();
            !notes.any(|note| note.path == path && note.is_loss)
        });
        let told = missing.into_iter().map(|path| Note {
            kind: NoteKind::Moved.into(),
            path,
            detail: "its content did not come".to_owned(),
            is_loss: true,
        });
        told.collect()
    }
}
