//! Tells how much was done in a workspace, without moving any of it.

use std::collections::BTreeSet;
use std::io::Write;

use bytes::Bytes;

use super::look::{self, Looking, Opened, SeenRepository, records};
use super::{Place, WorkError};
use crate::command::GitError;
use crate::wire::limits::STATUS_PATHS_MAX;
use crate::wire::{Base, EntryKind, RepositoryStatus, Status, path};

/// Commits that are counted.
const COUNT_MAX: i64 = 1_000_000;

/// What a workspace is compared with.
#[derive(Debug, Clone, Default)]
pub struct StatusRequest {
    /// What whoever asks has already.
    pub base: Base,
    /// The workspace was prepared with git.
    pub had_git: bool,
}

/// Compares a workspace with its base.
///
/// # Errors
/// If git fails. That there is no workspace is an answer.
pub fn status(place: &Place, request: &StatusRequest) -> Result<Status, WorkError> {
    let looking = Looking {
        base: &request.base,
        had_git: request.had_git,
        ignored: true,
    };
    let seen = match look::look(place, looking) {
        Ok(seen) => seen,
        Err(WorkError::NotFound { .. }) => return Ok(Status::default()),
        Err(error) => return Err(error),
    };
    let mut repositories = Vec::new();
    for repository in &seen.repositories {
        repositories.push(of(repository, &request.base)?);
    }
    Ok(Status {
        exists: true,
        repositories,
        notes: seen.notes.kept,
        notes_left_out: seen.notes.left_out,
    })
}

fn of(repository: &SeenRepository, base: &Base) -> Result<RepositoryStatus, WorkError> {
    let told = &repository.told;
    let base_head = base.repositories.iter().find(|base| base.path == told.path);
    let base_head = base_head.map_or("", |base| base.head_commit.as_str());
    let base_head = match &repository.opened {
        Some(opened) if has_commit(opened, base_head)? => Some(base_head),
        _ => None,
    };
    let (ahead, behind) = divergence(repository, base_head)?;
    let files = repository.drafts.iter();
    let file_bytes: u64 = files.map(|draft| draft.size).sum();
    let drafts = repository.drafts.len() as u64;
    let beneath = |path: &[u8]| match told.path.is_empty() {
        true => path.to_vec(),
        false => [&told.path, &b"/"[..], path].concat(),
    };
    let mut paths: BTreeSet<Vec<u8>> = repository
        .index
        .iter()
        .map(|entry| beneath(&entry.path))
        .collect();
    let staged = paths.len() as u64;
    let changed = repository
        .drafts
        .iter()
        .filter(|draft| draft.kind != EntryKind::Directory);
    paths.extend(changed.map(|draft| draft.path.clone()));
    let changed_paths = paths.into_iter().take(STATUS_PATHS_MAX).map(Bytes::from);
    let committed = committed(repository, base_head)?;
    let committed_paths = committed.iter().map(|path| beneath(path).into());
    Ok(RepositoryStatus {
        path: told.path.clone(),
        kind: told.kind,
        head_ref: told.head_ref.clone(),
        head_commit: told.head_commit.clone(),
        ahead_count: ahead,
        behind_count: behind,
        new_commit_count: number(repository, &["rev-list", "--count", "--ignore-missing"])?
            .min(COUNT_MAX),
        staged_count: signed(staged),
        conflicted_count: signed(repository.conflicted),
        changed_count: signed(drafts.saturating_sub(repository.untracked)),
        untracked_count: signed(repository.untracked),
        object_bytes: number(
            repository,
            &["rev-list", "--disk-usage", "--objects", "--ignore-missing"],
        )?,
        file_bytes: signed(file_bytes),
        unfinished: told.unfinished.clone(),
        changed_paths: changed_paths.collect(),
        committed_paths: committed_paths.collect(),
    })
}

/// A number about all that the base has not; 0 where this git does not tell.
fn number(repository: &SeenRepository, words: &[&str]) -> Result<i64, WorkError> {
    let Some(opened) = &repository.opened else {
        return Ok(0);
    };
    let words: Vec<&str> = words
        .iter()
        .copied()
        .chain(["--all", "--reflog", "--stdin"])
        .collect();
    let base = &repository.base;
    let input = |to: &mut dyn Write| base.iter().try_for_each(|id| writeln!(to, "^{id}"));
    match opened.git.feed(&words, input) {
        Ok(output) => Ok(String::from_utf8_lossy(&output).trim().parse().unwrap_or(0)),
        Err(GitError::Failed { .. }) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The paths in which HEAD's tree differs from the base's; none where there are not both. A name that is none is left out:
/// an export would be refused for it.
fn committed(repository: &SeenRepository, base: Option<&str>) -> Result<Vec<Vec<u8>>, WorkError> {
    let head = repository.told.head_commit.as_str();
    let (Some(opened), Some(base)) = (&repository.opened, base) else {
        return Ok(Vec::new());
    };
    if head.is_empty() {
        return Ok(Vec::new());
    }
    let words = [
        "diff-tree",
        "-r",
        "-z",
        "--name-only",
        "--no-renames",
        base,
        head,
    ];
    let mut found = Vec::new();
    let listed = records(&opened.git, &words, |name| {
        if path::check(name).is_ok() {
            found.push(name.to_vec());
        }
        found.len() < STATUS_PATHS_MAX
    });
    match listed {
        // Objects are missing: an export says which.
        Err(WorkError::Git(GitError::Failed { .. })) => Ok(Vec::new()),
        listed => listed.map(|()| found),
    }
}

fn has_commit(opened: &Opened, id: &str) -> Result<bool, WorkError> {
    let commit = format!("{id}^{{commit}}");
    Ok(!id.is_empty() && opened.git.test(&["cat-file", "-e", &commit])?)
}

/// How many commits HEAD has that `base`, which is there, has not, and the other way round.
fn divergence(repository: &SeenRepository, base: Option<&str>) -> Result<(i64, i64), WorkError> {
    let head = repository.told.head_commit.as_str();
    let Some(opened) = &repository.opened else {
        return Ok((0, 0));
    };
    if head.is_empty() {
        return Ok((0, 0));
    }
    let range = match base {
        Some(base) => format!("{base}...{head}"),
        None => head.to_owned(),
    };
    let counted = match opened
        .git
        .line(&["rev-list", "--count", "--left-right", &range, "--"])
    {
        Ok(counted) => counted,
        Err(GitError::Failed { .. }) => return Ok((0, 0)),
        Err(error) => return Err(error.into()),
    };
    let mut counts = counted
        .split_whitespace()
        .map(|count| count.parse().unwrap_or(0));
    let (left, right): (i64, i64) = (counts.next().unwrap_or(0), counts.next().unwrap_or(0));
    match base.is_some() {
        true => Ok((right.min(COUNT_MAX), left.min(COUNT_MAX))),
        // All of one history is on neither side of another.
        false => Ok(((left + right).min(COUNT_MAX), 0)),
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
