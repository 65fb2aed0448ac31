//! What was done and not committed: where the index is not HEAD, and where files are not what the index says.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bytes::Bytes;
use rustix::fs::{FileType, Stat, readlinkat};

use super::super::WorkError;
use super::super::included;
use super::super::index_file;
use super::super::notes::Notes;
use super::super::tree::{self, DIRECTORY_MODE};
use super::repository::{Opened, is_nested, records, records_of};
use super::{Around, history};
use crate::command::{Git, GitError};
use crate::wire::limits::{ENTRIES_MAX, INDEX_ENTRIES_MAX};
use crate::wire::path::is_object_id;
use crate::wire::{EntryKind, IndexEntry, NoteKind, path};

/// A file that differs, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Draft {
    /// Beneath the workspace.
    pub(in super::super) path: Vec<u8>,
    pub(in super::super) kind: EntryKind,
    pub(in super::super) mode: u32,
    pub(in super::super) size: u64,
    pub(in super::super) link_target: Vec<u8>,
    /// What tells that a file was changed: inode, time of change.
    pub(in super::super) mark: (u64, i64, i64),
}

/// The work in a repository.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) index: Vec<IndexEntry>,
    pub(super) drafts: Vec<Draft>,
    pub(super) untracked: u64,
    pub(super) conflicted: u64,
}

/// A copy of an index, which goes with the value.
struct Copied(PathBuf);

impl Drop for Copied {
    fn drop(&mut self) {
        // Who cannot remove it could not make it.
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(self.0.with_extension("lock"));
    }
}

/// A side of a path in conflict, as git lists it.
#[derive(Debug)]
struct Unmerged {
    path: Vec<u8>,
    stage: u32,
    mode: Vec<u8>,
    id: Vec<u8>,
}

/// What an index says of itself.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Paths that git is to take for unchanged.
    assumed: Vec<Vec<u8>>,
    /// Paths that it is to skip.
    skipped: Vec<Vec<u8>>,
    unmerged: Vec<Unmerged>,
    submodules: BTreeSet<Vec<u8>>,
}

impl Index {
    /// Takes what git lists of an entry: `TAG MODE ID STAGE`, a tab, the path.
    pub(super) fn take(&mut self, record: &[u8]) {
        let Some(tab) = record.iter().position(|&byte| byte == b'\t') else {
            return;
        };
        let path = &record[tab + 1..];
        let words: Vec<&[u8]> = record[..tab].split(|&byte| byte == b' ').collect();
        let [tag, mode, id, stage] = words[..] else {
            return;
        };
        let tag = tag.first().copied().unwrap_or(b'H');
        if tag.is_ascii_lowercase() {
            self.assumed.push(path.to_vec());
        }
        if tag.eq_ignore_ascii_case(&b'S') {
            self.skipped.push(path.to_vec());
        }
        if mode == b"160000" {
            self.submodules.insert(path.to_vec());
        }
        if stage != b"0" {
            let stage = stage
                .first()
                .map_or(0, |digit| u32::from(digit.wrapping_sub(b'0')));
            self.unmerged.push(Unmerged {
                path: path.to_vec(),
                stage: stage.min(3),
                mode: mode.to_vec(),
                id: id.to_vec(),
            });
        }
    }
}

/// Looks at index and files. `listed` is what git says of the index.
pub(super) fn of(
    opened: &Opened,
    head: Option<&str>,
    listed: &Index,
    around: &Around<'_>,
    notes: &mut Notes,
) -> Result<Work, WorkError> {
    let (copied, git) = copy_index(opened)?;
    reveal(opened, &git, listed)?;
    let mut work = Work {
        index: index(opened, &git, head, listed, notes)?,
        ..Work::default()
    };
    let conflicts: BTreeSet<&[u8]> = work
        .index
        .iter()
        .filter(|entry| entry.stage > 0)
        .map(|entry| &entry.path[..])
        .collect();
    work.conflicted = conflicts.len() as u64;
    let mut drafts = BTreeMap::new();
    for path in changed(opened, &git)? {
        draft(&path, around, notes, &mut drafts, Missing::Removed);
    }
    let tracked_changes = drafts.len();
    let words = ["ls-files", "-z", "--others", "--exclude-standard"];
    let mut untracked = Vec::new();
    records(&git, &words, |path| {
        // With a slash at the end it is a repository, which is told as one.
        if path.last() != Some(&b'/') {
            untracked.push(opened.beneath(path));
        }
        untracked.len() <= ENTRIES_MAX
    })?;
    untracked.retain(|path| !is_inside(path, opened, around));
    for path in &untracked {
        draft(path, around, notes, &mut drafts, Missing::Passed);
    }
    for path in included::names(&opened.git_dir) {
        let path = opened.beneath(&path);
        if !drafts.contains_key(&path) && !is_inside(&path, opened, around) {
            draft(&path, around, notes, &mut drafts, Missing::Passed);
        }
    }
    work.untracked = (drafts.len() - tracked_changes) as u64;
    directories(opened, &git, listed, around, &mut drafts)?;
    drop(copied);
    work.drafts = bounded(drafts, &opened.path, notes);
    Ok(work)
}

/// As many as may be told.
fn bounded(drafts: BTreeMap<Vec<u8>, Draft>, at: &[u8], notes: &mut Notes) -> Vec<Draft> {
    if drafts.len() > ENTRIES_MAX {
        notes.lost(NoteKind::TooLarge, at, "too many files differ");
    }
    drafts.into_values().take(ENTRIES_MAX).collect()
}

/// Files that are not what the index says, beneath the workspace.
fn changed(opened: &Opened, git: &Git) -> Result<Vec<Vec<u8>>, WorkError> {
    let differing = differing(opened, git)?;
    if differing.is_empty() {
        return Ok(differing);
    }
    // Some may only have other times: then git reads them. It fails where they do differ, which is what is looked for.
    git.test(&["update-index", "-q", "--refresh"])?;
    self::differing(opened, git)
}

/// Files that are not what the index says, or whose times are not.
fn differing(opened: &Opened, git: &Git) -> Result<Vec<Vec<u8>>, WorkError> {
    let words = [
        "diff-files",
        "--raw",
        "-z",
        "--no-renames",
        "--ignore-submodules=all",
        "--ita-invisible-in-index",
    ];
    let mut differing = Vec::new();
    records(git, &words, |record| {
        if record.first() != Some(&b':') {
            differing.push(opened.beneath(record));
        }
        differing.len() <= ENTRIES_MAX
    })?;
    Ok(differing)
}

/// All files of a tree without git.
pub(super) fn plain(around: &Around<'_>, notes: &mut Notes) -> Vec<Draft> {
    let mut drafts = BTreeMap::new();
    for path in &around.walked.files {
        if !is_nested(path, around.nested) {
            draft(path, around, notes, &mut drafts, Missing::Passed);
        }
    }
    for (path, mode) in &around.walked.directories {
        if !is_nested(path, around.nested) {
            drafts.insert(path.clone(), directory(path, *mode));
        }
    }
    bounded(drafts, b"", notes)
}

/// A copy of the index beside it, and git with that.
fn copy_index(opened: &Opened) -> Result<(Copied, Git), WorkError> {
    let name = format!(
        "banger-index-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    let path = opened.git_dir.join(name);
    let copied = Copied(path.clone());
    match index_file::copy(&opened.git_dir.join("index"), &path) {
        Ok(()) => {}
        // There is none yet: git makes one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // What an earlier one left.
            let _ = fs::remove_file(&path);
        }
        Err(error) => {
            return Err(WorkError::file("copying the index of", &opened.git_dir)(
                error,
            ));
        }
    }
    // The copy is written to, so the locks are not optional.
    let git = opened
        .git
        .clone()
        .with_index(&path)
        .with_env("GIT_OPTIONAL_LOCKS", "1");
    Ok((copied, git))
}

/// Takes back what hides changes from git: files that it is to take for unchanged, and those that it is to skip though
/// they are there.
fn reveal(opened: &Opened, git: &Git, listed: &Index) -> Result<(), WorkError> {
    let is_there = |path: &&Vec<u8>| {
        let path = opened.git.directory().join(OsStr::from_bytes(path));
        fs::symlink_metadata(path).is_ok()
    };
    let assumed: Vec<&Vec<u8>> = listed.assumed.iter().collect();
    let skipped: Vec<&Vec<u8>> = listed.skipped.iter().filter(is_there).collect();
    for (flag, paths) in [
        ("--no-assume-unchanged", assumed),
        ("--no-skip-worktree", skipped),
    ] {
        if !paths.is_empty() {
            git.feed(&["update-index", "-z", flag, "--stdin"], |to| {
                terminated(to, &paths)
            })?;
        }
    }
    Ok(())
}

fn terminated(to: &mut dyn Write, paths: &[impl AsRef<[u8]>]) -> io::Result<()> {
    let mut to = io::BufWriter::new(to);
    for path in paths {
        to.write_all(path.as_ref())?;
        to.write_all(b"\0")?;
    }
    to.flush()
}

/// Where the index is not HEAD's tree.
fn index(
    opened: &Opened,
    git: &Git,
    head: Option<&str>,
    listed: &Index,
    notes: &mut Notes,
) -> Result<Vec<IndexEntry>, WorkError> {
    let tree = head.unwrap_or_else(|| history::empty_tree(opened.format));
    let mut entries: BTreeMap<(Vec<u8>, u32), IndexEntry> = BTreeMap::new();
    let mut bad = Vec::new();
    let mut add = |path: &[u8], mode: &[u8], id: &[u8], stage: u32| {
        let mode = std::str::from_utf8(mode).ok();
        let mode = mode.and_then(|mode| u32::from_str_radix(mode, 8).ok());
        let id = String::from_utf8_lossy(id).into_owned();
        let entry = match mode {
            Some(0) => (0, String::new(), 0),
            Some(mode) if is_object_id(&id) => (mode, id, stage),
            _ => return,
        };
        if path::check(path).is_err() {
            bad.push(path.to_vec());
            return;
        }
        let told = IndexEntry {
            path: Bytes::copy_from_slice(path),
            mode: entry.0,
            object_id: entry.1,
            stage: entry.2,
        };
        entries.insert((path.to_vec(), entry.2), told);
    };
    let words = [
        "diff-index",
        "--cached",
        "--raw",
        "-z",
        "--no-renames",
        "--no-abbrev",
        "--ignore-submodules=none",
        "--ita-invisible-in-index",
        tree,
        "--",
    ];
    let mut header: Option<Vec<u8>> = None;
    records(git, &words, |record| {
        match header.take() {
            None => header = Some(record.to_vec()),
            Some(header) => {
                // `:MODE MODE ID ID STATUS`; those in conflict are listed with their stages.
                let words: Vec<&[u8]> = header.split(|&byte| byte == b' ').collect();
                if let [_, mode, _, id, status] = words[..]
                    && status != b"U"
                {
                    add(record, mode, id, 0);
                }
            }
        }
        true
    })?;
    for side in &listed.unmerged {
        add(&side.path, &side.mode, &side.id, side.stage);
    }
    for path in bad {
        let detail = "the index has a name that no working tree may have";
        notes.lost(NoteKind::BadName, &opened.beneath(&path), detail);
    }
    if entries.len() > INDEX_ENTRIES_MAX {
        notes.lost(
            NoteKind::TooLarge,
            &opened.path,
            "too much of the index differs",
        );
    }
    Ok(entries.into_values().take(INDEX_ENTRIES_MAX).collect())
}

/// What a path means at which nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// It was removed.
    Removed,
    /// It is gone again.
    Passed,
}

/// Adds what is at a path.
fn draft(
    path: &[u8],
    around: &Around<'_>,
    notes: &mut Notes,
    drafts: &mut BTreeMap<Vec<u8>, Draft>,
    missing: Missing,
) {
    if let Err(bad) = path::check(path) {
        return notes.lost(NoteKind::BadName, path, &bad.to_string());
    }
    let stat = match tree::look(around.root, path) {
        Ok(stat) => stat,
        Err(error) => {
            return notes.lost(
                NoteKind::Unreadable,
                path,
                &io::Error::from(error).to_string(),
            );
        }
    };
    let removed = Draft {
        path: path.to_vec(),
        kind: EntryKind::Removed,
        mode: 0,
        size: 0,
        link_target: Vec::new(),
        mark: (0, 0, 0),
    };
    let found = stat.map(|stat| (FileType::from_raw_mode(stat.st_mode), stat));
    let draft = match found {
        None if missing == Missing::Removed => removed,
        None => return,
        Some((FileType::RegularFile, stat)) => Draft {
            kind: EntryKind::File,
            mode: stat.st_mode & 0o777,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mark: mark(&stat),
            ..removed
        },
        Some((FileType::Symlink, stat)) => match target(around, path) {
            Ok(target) if !target.is_empty() => Draft {
                kind: EntryKind::Symlink,
                link_target: target,
                mark: mark(&stat),
                ..removed
            },
            Ok(_) => return,
            Err(error) => {
                return notes.lost(NoteKind::Unreadable, path, &error.to_string());
            }
        },
        // Instead of a file: what is in it is untracked, and it is told itself where it is empty.
        Some((FileType::Directory, _)) if missing == Missing::Removed => removed,
        Some((FileType::Directory, _)) => return,
        Some(_) if missing == Missing::Removed => removed,
        Some(_) => return,
    };
    drafts.insert(path.to_vec(), draft);
}

pub(in super::super) fn mark(stat: &Stat) -> (u64, i64, i64) {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
    (stat.st_ino, stat.st_mtime, nanoseconds)
}

fn target(around: &Around<'_>, path: &[u8]) -> io::Result<Vec<u8>> {
    let link = tree::open_beneath_link(around.root, path)?;
    Ok(readlinkat(link, "", Vec::new())?.into_bytes())
}

fn directory(path: &[u8], mode: u32) -> Draft {
    Draft {
        path: path.to_vec(),
        kind: EntryKind::Directory,
        mode,
        size: 0,
        link_target: Vec::new(),
        mark: (0, 0, 0),
    }
}

/// Those of the paths that git ignores, and does not track.
pub(in super::super) fn ignored_of(
    git: &Git,
    paths: &[impl AsRef<[u8]> + Sync],
) -> Result<Vec<Vec<u8>>, WorkError> {
    let mut ignored = Vec::new();
    let mut each = |path: &[u8]| {
        ignored.push(path.to_vec());
        true
    };
    let words = ["check-ignore", "-z", "--stdin"];
    match records_of(git, &words, |to| terminated(to, paths), &mut each) {
        // It is how it says that none is.
        Ok(()) | Err(WorkError::Git(GitError::Failed { .. })) => Ok(ignored),
        Err(error) => Err(error),
    }
}

/// Whether a path lies in another repository inside this one.
fn is_inside(path: &[u8], opened: &Opened, around: &Around<'_>) -> bool {
    let deeper = around.nested.iter().copied();
    let deeper: Vec<&[u8]> = deeper
        .filter(|nested| path::is_beneath(nested, &opened.path))
        .collect();
    is_nested(path, &deeper)
}

/// Adds the directories that git knows nothing of: empty ones, and those whose permissions are not the usual ones.
fn directories(
    opened: &Opened,
    git: &Git,
    listed: &Index,
    around: &Around<'_>,
    drafts: &mut BTreeMap<Vec<u8>, Draft>,
) -> Result<(), WorkError> {
    let own =
        |path: &[u8]| path::is_beneath(path, &opened.path) && !is_inside(path, opened, around);
    let found: BTreeMap<Vec<u8>, u32> = around
        .walked
        .directories
        .iter()
        .filter(|(path, _)| own(path))
        .cloned()
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    let strip = |path: &[u8]| match opened.path.len() {
        0 => path.to_vec(),
        length => path[length + 1..].to_vec(),
    };
    let asked: Vec<Vec<u8>> = found
        .keys()
        .map(|path| [&strip(path)[..], b"/"].concat())
        .collect();
    let ignored = ignored_of(git, &asked)?.into_iter();
    let ignored: BTreeSet<Vec<u8>> = ignored
        .map(|path| opened.beneath(path.strip_suffix(b"/").unwrap_or(&path)))
        .collect();
    for (path, mode) in found {
        // A submodule that is not there is an empty directory.
        let is_usual_submodule =
            mode == DIRECTORY_MODE && listed.submodules.contains(&strip(&path));
        if !ignored.contains(&path) && !is_usual_submodule {
            drafts
                .entry(path.clone())
                .and_modify(|draft| {
                    if draft.kind == EntryKind::Removed {
                        *draft = directory(&path, mode);
                    }
                })
                .or_insert_with(|| directory(&path, mode));
        }
    }
    Ok(())
}
