//! A walk over a tree, by descriptors: whatever is renamed meanwhile, it stays beneath the directory.

use std::collections::BTreeSet;
use std::io;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, DirEntry, FileType, OFlags, statat};
use rustix::io::Errno;

use super::notes::{Loss, Notes};
pub(super) use crate::beneath::{look, open, open_beneath, open_beneath_link, split};
use crate::wire::limits::{DEPTH_MAX, ENTRIES_MAX};
use crate::wire::{NoteKind, path};

/// Permission bits of a directory that are not told.
pub(super) const DIRECTORY_MODE: u32 = 0o755;
/// Entries of directories that are passed over that are searched for repositories.
const SEARCHED_MAX: usize = 200_000;

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Regular files and symbolic links, where they were wanted.
    pub(super) files: Vec<Vec<u8>>,
    /// Directories that are empty, or whose mode is not the usual one.
    pub(super) directories: Vec<(Vec<u8>, u32)>,
    /// Directories, below the first, with a `.git`.
    pub(super) repositories: Vec<Vec<u8>>,
    /// Those of them that lie in directories that are passed over.
    pub(super) passed: BTreeSet<Vec<u8>>,
    /// Entries of directories that are passed over that were searched for repositories.
    searched: usize,
    /// Entries that were seen.
    pub(super) seen: usize,
}

/// What a walk is to find.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// Files and links too.
    pub(super) files: bool,
    /// Directories that are passed over.
    pub(super) without: &'a BTreeSet<Vec<u8>>,
    /// The repositories in those all the same.
    pub(super) search: bool,
}

/// A directory to look into.
#[derive(Debug)]
struct Ahead {
    path: Vec<u8>,
    /// It is passed over: only a `.git` is looked for.
    passed: bool,
}

/// Walks a tree. What cannot be entered, or is neither file, link nor directory, is noted.
pub(super) fn walk(
    root: &OwnedFd,
    wanted: &Wanted<'_>,
    notes: &mut Notes,
) -> rustix::io::Result<Walked> {
    let mut walked = Walked::default();
    let mut ahead = vec![Ahead {
        path: Vec::new(),
        passed: false,
    }];
    while let Some(Ahead { path: at, passed }) = ahead.pop() {
        let name: &[u8] = if at.is_empty() { b"." } else { &at };
        let directory = match open_beneath(root, name, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(error) if at.is_empty() => return Err(error),
            // Gone since it was seen.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(_) if passed => continue,
            Err(error) => {
                notes.lost(
                    NoteKind::Unreadable,
                    &at,
                    &io::Error::from(error).to_string(),
                );
                continue;
            }
        };
        if passed && search(&directory, &at, notes, &mut walked, &mut ahead) {
            continue;
        }
        if !visit(&directory, &at, wanted, notes, &mut walked, &mut ahead)? {
            break;
        }
    }
    walked.files.sort();
    walked.directories.sort();
    walked.repositories.sort();
    Ok(walked)
}

/// Looks into a directory that is passed over. Whether that is all: a repository is looked into as any other.
fn search(
    directory: &OwnedFd,
    at: &[u8],
    notes: &mut Notes,
    walked: &mut Walked,
    ahead: &mut Vec<Ahead>,
) -> bool {
    if statat(directory, ".git", AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        walked.passed.insert(at.to_vec());
        return false;
    }
    let Ok(mut entries) = Dir::read_from(directory) else {
        return true;
    };
    while let Some(Ok(entry)) = entries.read() {
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        walked.searched += 1;
        if walked.searched > SEARCHED_MAX {
            let detail = "it is ignored, and has too much to be searched for repositories";
            notes.add(NoteKind::TooLarge, at, detail, Loss::No);
            ahead.retain(|ahead| !ahead.passed);
            return true;
        }
        let path = [at, b"/", name].concat();
        let depth = path.iter().filter(|&&byte| byte == b'/').count();
        let is_directory = kind(directory, &entry) == FileType::Directory;
        if is_directory && depth < DEPTH_MAX - 1 && path::check(&path).is_ok() {
            ahead.push(Ahead { path, passed: true });
        }
    }
    true
}

/// What an entry is, where the file system does not say it in the directory too.
fn kind(directory: &OwnedFd, entry: &DirEntry) -> FileType {
    match entry.file_type() {
        FileType::Unknown => {
            let stat = statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
            stat.map_or(FileType::Unknown, |stat| {
                FileType::from_raw_mode(stat.st_mode)
            })
        }
        kind => kind,
    }
}

/// Looks into one directory. Whether the walk goes on.
fn visit(
    directory: &OwnedFd,
    at: &[u8],
    wanted: &Wanted<'_>,
    notes: &mut Notes,
    walked: &mut Walked,
    ahead: &mut Vec<Ahead>,
) -> rustix::io::Result<bool> {
    let mut is_empty = true;
    let mut entries = Dir::read_from(directory)?;
    while let Some(entry) = entries.read() {
        let Ok(entry) = entry else {
            notes.lost(NoteKind::Unreadable, at, "the directory cannot be read");
            break;
        };
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if name == b".git" {
            is_empty = false;
            if !at.is_empty() {
                walked.repositories.push(at.to_vec());
            }
            continue;
        }
        is_empty = false;
        walked.seen += 1;
        if walked.seen > 2 * ENTRIES_MAX {
            notes.lost(NoteKind::TooLarge, at, "the tree has too many entries");
            return Ok(false);
        }
        let path = match at {
            b"" => name.to_vec(),
            at => [at, b"/", name].concat(),
        };
        let passed = wanted.without.contains(&path);
        match kind(directory, &entry) {
            FileType::Directory if passed && !wanted.search => {}
            FileType::Directory => {
                let depth = path.iter().filter(|&&byte| byte == b'/').count();
                match path::check(&path) {
                    Ok(()) if depth < DEPTH_MAX - 1 => ahead.push(Ahead { path, passed }),
                    _ if passed => {}
                    Ok(()) => notes.lost(NoteKind::TooLarge, &path, "it lies too deep"),
                    Err(bad) => notes.lost(NoteKind::BadName, &path, &bad.to_string()),
                }
            }
            FileType::RegularFile | FileType::Symlink if wanted.files => walked.files.push(path),
            FileType::RegularFile | FileType::Symlink | FileType::Unknown => {}
            _ if passed => {}
            _ => notes.lost(
                NoteKind::SpecialFile,
                &path,
                "it is a socket, pipe or device",
            ),
        }
    }
    if !at.is_empty() {
        let mode = rustix::fs::fstat(directory)?.st_mode & 0o777;
        if is_empty || mode != DIRECTORY_MODE {
            walked.directories.push((at.to_vec(), mode));
        }
    }
    Ok(true)
}
