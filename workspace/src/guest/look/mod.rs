//! Looks at a workspace: its repositories, and in which way each is not what its HEAD says.
//!
//! The index is looked at as a copy, so that nobody's lock is needed and what a user set to hide changes can be undone
//! in it. Files are what they are, not what the repository's settings make of them.

mod glance;
mod history;
mod repository;
mod work;

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use rustix::fd::OwnedFd;

pub(super) use history::{Behind, empty_tree, existing};
pub(super) use repository::{Opened, records, small};
pub(super) use work::{Draft, ignored_of, mark};

use super::notes::{Loss, Notes};
use super::tree::{self, Walked, Wanted};
use super::{Place, WorkError};
use crate::command::{Ending, GitError};
use crate::wire::limits::REPOSITORIES_MAX;
use crate::wire::{Base, NoteKind, Ref, Repository, RepositoryKind};

/// How often a workspace is looked at that is changed each time.
const LOOKS_MAX: usize = 4;

/// What is around a repository that is looked at.
#[derive(Debug)]
struct Around<'a> {
    root: &'a OwnedFd,
    walked: &'a Walked,
    /// Paths of the repositories inside, ascending.
    nested: &'a [&'a [u8]],
    base: &'a Base,
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looking<'a> {
    /// What whoever asks has already.
    pub(super) base: &'a Base,
    /// It was prepared with git.
    pub(super) had_git: bool,
    /// Repositories in directories that git ignores too.
    pub(super) ignored: bool,
}

/// A workspace at one instant.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) root: OwnedFd,
    /// The workspace's own first; ascending by path.
    pub(super) repositories: Vec<SeenRepository>,
    pub(super) notes: Notes,
}

/// A repository at one instant.
#[derive(Debug)]
pub(super) struct SeenRepository {
    /// As it is told.
    pub(super) told: Repository,
    /// None for a directory without git.
    pub(super) opened: Option<Opened>,
    /// It lies in a directory that git ignores: no part of the workspace's state, and never replaced.
    pub(super) is_ignored: bool,
    pub(super) refs: Vec<Ref>,
    pub(super) index: Vec<crate::wire::IndexEntry>,
    /// Ascending by path.
    pub(super) drafts: Vec<Draft>,
    pub(super) untracked: u64,
    pub(super) conflicted: u64,
    /// Which of the base's commits are there.
    pub(super) base: Vec<String>,
    /// What is there behind where the base was cut.
    pub(super) behind: Behind,
    /// What refs and index were when they were looked at, and before that at a glance.
    print: Vec<u8>,
    glance: [u8; 32],
}

impl Seen {
    /// Whether references and indexes still are what they were.
    pub(super) fn still_holds(&self) -> Result<bool, WorkError> {
        for repository in &self.repositories {
            if let Some(opened) = &repository.opened
                && glance::at(&opened.git_dir) != repository.glance
                && opened.print()?.digest != repository.print
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Looks at the workspace until it holds still for as long as that takes; one that does not is told with a note.
pub(super) fn look(place: &Place, looking: Looking<'_>) -> Result<Seen, WorkError> {
    let mut tries = 1;
    loop {
        let mut seen = match once(place, looking, None) {
            Err(Broken::Own(why)) => once(place, looking, Some(&why))?,
            other => other?,
        };
        if seen.still_holds()? {
            return Ok(seen);
        }
        if tries == LOOKS_MAX {
            let detail = "references or the index were changed again and again meanwhile";
            seen.notes.lost(NoteKind::RefsMoved, b"", detail);
            return Ok(seen);
        }
        tries += 1;
    }
}

/// Why a look failed.
enum Broken {
    /// git cannot read the workspace's own repository.
    Own(String),
    /// Anything else.
    Work(WorkError),
}

impl From<WorkError> for Broken {
    fn from(error: WorkError) -> Self {
        Self::Work(error)
    }
}

impl From<Broken> for WorkError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Own(complaint) => Self::Git(GitError::Failed {
                command: "status".to_owned(),
                ending: Ending::Code(128),
                complaint,
            }),
            Broken::Work(error) => error,
        }
    }
}

/// Looks once. Where git cannot read the workspace's own repository, `broken` says why, and all files are told.
fn once(place: &Place, looking: Looking<'_>, broken: Option<&str>) -> Result<Seen, Broken> {
    let root = tree::open(&place.path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            WorkError::NotFound { path: place.name() }
        }
        _ => WorkError::file("opening", &place.path)(error),
    })?;
    let mut notes = Notes::default();
    let own = match broken {
        Some(why) => {
            notes.lost(
                NoteKind::BrokenRepository,
                b"",
                &format!("{why}; all files are told"),
            );
            None
        }
        None => open_own(place, looking, &mut notes)?,
    };
    let ignored = match &own {
        Some(own) => own.ignored(&mut notes).map_err(of_own)?,
        None => BTreeSet::new(),
    };
    let wanted = Wanted {
        files: own.is_none(),
        without: &ignored,
        search: looking.ignored,
    };
    let walked = tree::walk(&root, &wanted, &mut notes)
        .map_err(|error| WorkError::file("reading", &place.path)(error.into()))?;
    let nested = open_nested(place, &walked, &mut notes)?;
    tell_missing(looking.base, &root, &walked, &mut notes);
    let paths: Vec<&[u8]> = nested.iter().map(|nested| &nested.path[..]).collect();
    let around = Around {
        root: &root,
        walked: &walked,
        nested: &paths,
        base: looking.base,
    };
    let mut repositories = vec![match own {
        Some(own) => repository::see(own, &around, &mut notes).map_err(of_own)?,
        None => plain(&around, &mut notes),
    }];
    for nested in &nested {
        match repository::see(nested.clone(), &around, &mut notes) {
            Ok(seen) => repositories.push(seen),
            Err(WorkError::Git(GitError::Failed { complaint, .. })) => {
                notes.lost(NoteKind::BrokenRepository, &nested.path, &complaint);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Seen {
        root,
        repositories,
        notes,
    })
}

/// What git itself fails at is the repository's fault.
fn of_own(error: WorkError) -> Broken {
    match error {
        WorkError::Git(GitError::Failed { complaint, .. }) => Broken::Own(complaint),
        error => Broken::Work(error),
    }
}

/// The workspace's own repository; none where it has none, or none that git can read.
fn open_own(
    place: &Place,
    looking: Looking<'_>,
    notes: &mut Notes,
) -> Result<Option<Opened>, WorkError> {
    if std::fs::symlink_metadata(place.path.join(".git")).is_ok() {
        return match Opened::open(place, b"")? {
            Ok(own) => Ok(Some(own)),
            Err(why) => {
                let detail = format!("{why}; all files are told");
                notes.lost(NoteKind::BrokenRepository, b"", &detail);
                Ok(None)
            }
        };
    }
    if looking.had_git {
        let detail = "`.git` is gone, and with it what was committed; all files are told";
        notes.lost(NoteKind::GitRemoved, b"", detail);
    }
    Ok(None)
}

/// The repositories inside, ascending by path. Where there are too many, those in ignored directories are left out first.
fn open_nested(
    place: &Place,
    walked: &Walked,
    notes: &mut Notes,
) -> Result<Vec<Opened>, WorkError> {
    let mut nested = Vec::new();
    let is_ignored = |path: &&Vec<u8>| walked.passed.contains(*path);
    let (ignored, own): (Vec<_>, Vec<_>) = walked.repositories.iter().partition(is_ignored);
    for path in own.into_iter().chain(ignored) {
        if nested.len() + 1 == REPOSITORIES_MAX {
            notes.lost(NoteKind::TooLarge, path, "there are too many repositories");
            continue;
        }
        match Opened::open(place, path)? {
            Ok(opened) => nested.push(opened),
            Err(why) => {
                let loss = match is_ignored(&path) {
                    true => Loss::No,
                    false => Loss::Yes,
                };
                notes.add(NoteKind::BrokenRepository, path, &why, loss);
            }
        }
    }
    nested.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(nested)
}

/// Repositories inside that were there when it was prepared, and are no more.
fn tell_missing(base: &Base, root: &OwnedFd, walked: &Walked, notes: &mut Notes) {
    let inside = base.repositories.iter().map(|base| &base.path[..]);
    for path in inside.filter(|path| !path.is_empty()) {
        if walked.repositories.iter().any(|found| found == path) {
            continue;
        }
        let (detail, loss) = match tree::look(root, path) {
            // Who removes all of it knows.
            Ok(None) => (
                "it was removed, and with it what was committed in it and not brought",
                Loss::No,
            ),
            _ => (
                "its `.git` is gone, and with it what was committed; what is left of its files is not told",
                Loss::Yes,
            ),
        };
        notes.add(NoteKind::GitRemoved, path, detail, loss);
    }
}

/// A tree without git: everything in it that is in no repository inside.
fn plain(around: &Around<'_>, notes: &mut Notes) -> SeenRepository {
    let drafts = work::plain(around, notes);
    SeenRepository {
        told: Repository {
            path: Bytes::new(),
            kind: RepositoryKind::Plain.into(),
            ..Repository::default()
        },
        opened: None,
        is_ignored: false,
        refs: Vec::new(),
        index: Vec::new(),
        untracked: drafts.len() as u64,
        drafts,
        conflicted: 0,
        base: Vec::new(),
        behind: Behind::default(),
        print: Vec::new(),
        glance: [0; 32],
    }
}
