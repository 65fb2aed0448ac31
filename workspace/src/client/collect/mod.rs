//! Collects a workspace here, to be sent into a VM.
//!
//! Nothing is written to the repository: no index is refreshed, no lock is taken, no hook runs, and a filter of the
//! repository's own configuration only where git cannot tell by its times whether a file has changed. Files that a filter
//! makes (LFS, git-crypt) are told as the repository has them. Of the configuration only what says how files are
//! made of objects goes along: no remotes, no credentials.

mod compare;
mod history;
mod send;
mod survey;
mod walk;

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::error::{Error, Result};
use super::repository::LocalRepository;
use crate::command::{Cancel, GitError};
use crate::wire::{
    Base, BaseRepository, Entry, IndexEntry, Note, Part, Ref, Repository, RepositoryKind,
};

/// What of a workspace is collected.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The tree of this revision, without anything uncommitted; none means the working tree as it is.
    pub revision: Option<String>,
    /// Only so many commits back from each tip; 0 means all.
    pub depth: u32,
    /// Only these branches, and what HEAD is; empty means all branches and tags. With `depth` it means none but HEAD.
    pub branches: Vec<String>,
    /// Ignored paths that go along all the same, as patterns beneath the workspace.
    pub include: Vec<String>,
    /// The directory as it is, though it may lie in a repository.
    pub plain: bool,
}

/// Takes parts on their way; an error means that nobody wants more.
pub type Sink<'a> = dyn FnMut(Part) -> Result<()> + Send + 'a;

/// A workspace that was looked through.
#[derive(Debug)]
pub struct Source {
    top: PathBuf,
    depth: u32,
    repositories: Vec<Surveyed>,
    notes: Vec<Note>,
}

/// One of its repositories.
#[derive(Debug)]
struct Surveyed {
    repository: Option<LocalRepository>,
    message: Repository,
    refs: Vec<Ref>,
    index: Vec<IndexEntry>,
    /// Objects that must be there: tips, and what only the index has.
    tips: Vec<String>,
    entries: Vec<Entry>,
}

impl Source {
    /// Looks through the workspace that `path` lies in.
    ///
    /// # Errors
    /// If it cannot be read, or `options` name what is not there.
    pub fn open(path: &Path, options: &Options, cancel: &Cancel) -> Result<Self> {
        let found = match options.plain {
            true => None,
            false => find(path, cancel)?,
        };
        let top = match &found {
            Some(repository) => repository.top().to_owned(),
            None => std::fs::canonicalize(path).map_err(Error::file("find", path))?,
        };
        let include = globs(&options.include)?;
        let mut survey = survey::Survey::new(options, &include, cancel);
        match found {
            Some(repository) => survey.repository(repository, b"", options.revision.as_deref())?,
            None => survey.plain(&top),
        }
        let (mut repositories, notes) = survey.end();
        repositories.sort_by(|one, other| one.message.path.cmp(&other.message.path));
        Ok(Self {
            top,
            depth: options.depth,
            repositories,
            notes,
        })
    }

    /// The top of the workspace.
    #[must_use]
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// Whether it is a repository.
    #[must_use]
    pub fn is_git(&self) -> bool {
        let first = self.repositories.first();
        first.is_some_and(|first| first.message.kind() == RepositoryKind::Git)
    }

    /// What is in a directory without git, as it is sent; none of a repository.
    #[must_use]
    pub fn plain_entries(&self) -> Option<&[Entry]> {
        let first = self.repositories.first();
        let first = first.filter(|first| first.message.kind() == RepositoryKind::Plain);
        first.map(|first| &first.entries[..])
    }

    /// What could not be collected, and what the receiver must know.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// What is sent, as a later export is to be told.
    #[must_use]
    pub fn base(&self) -> Base {
        let of = |surveyed: &Surveyed| BaseRepository {
            path: surveyed.message.path.clone(),
            commits: surveyed
                .refs
                .iter()
                .map(|found| found.object_id.clone())
                .collect(),
            head_commit: surveyed.message.head_commit.clone(),
            shallow: surveyed.message.shallow.clone(),
        };
        let git = self.repositories.iter();
        let git = git.filter(|surveyed| surveyed.message.kind() == RepositoryKind::Git);
        Base {
            repositories: git.map(of).collect(),
        }
    }
}

/// The repository of a workspace. A machine without git carries directories that are none.
fn find(path: &Path, cancel: &Cancel) -> Result<Option<LocalRepository>> {
    match LocalRepository::find(path, cancel) {
        Err(Error::Git {
            source: GitError::NotFound,
            ..
        }) if !path.ancestors().any(|above| above.join(".git").exists()) => Ok(None),
        found => found,
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet> {
    let bad = |pattern: &str| Error::Pattern {
        pattern: pattern.to_owned(),
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let trimmed = pattern.trim_end_matches('/').trim_start_matches("./");
        let glob = GlobBuilder::new(trimmed).literal_separator(true).build();
        set.add(glob.map_err(|_| bad(pattern))?);
    }
    set.build().map_err(|_| bad(&patterns.join(" ")))
}
