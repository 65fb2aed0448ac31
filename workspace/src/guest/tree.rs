//! A walk over a tree, by descriptors: whatever is renamed meanwhile, it stays beneath the directory.

use std::collections::BTreeSet;
use std::io;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, OFlags, statat};
use rustix::io::Errno;

use super::notes::Notes;
pub(super) use crate::beneath::{look, open, open_beneath, open_beneath_link, split};
use crate::wire::limits::{DEPTH_MAX, ENTRIES_MAX};
use crate::wire::{NoteKind, path};

/// Permission bits of a directory that are not told.
pub(super) const DIRECTORY_MODE: u32 = 0o755;
/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Regular files and symbolic links, where they were wanted.
    pub(super) files: Vec<Vec<u8>>,
    /// Directories that are empty, or whose mode is not the usual one.
    pub(super) directories: Vec<(Vec<u8>, u32)>,
    /// Directories, below the first, with a `.git`.
    pub(super) repositories: Vec<Vec<u8>>,
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
}

/// Walks a tree. What cannot be entered, or is neither file, link nor directory, is noted.
pub(super) fn walk(
    root: &OwnedFd,
    wanted: &Wanted<'_>,
    notes: &mut Notes,
) -> rustix::io::Result<Walked> {
    let mut walked = Walked::default();
    let mut ahead = vec![Vec::new()];
    while let Some(at) = ahead.pop() {
        let name: &[u8] = if at.is_empty() { b"." } else { &at };
        let directory = match open_beneath(root, name, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(error) if at.is_empty() => return Err(error),
            // Gone since it was seen.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => {
                notes.lost(
                    NoteKind::Unreadable,
                    &at,
                    &io::Error::from(error).to_string(),
                );
                continue;
            }
        };
        if !visit(&directory, &at, wanted, notes, &mut walked, &mut ahead)? {
            break;
        }
    }
    walked.files.sort();
    walked.directories.sort();
    walked.repositories.sort();
    Ok(walked)
}

/// Looks into one directory. Whether the walk goes on.
fn visit(
    directory: &OwnedFd,
    at: &[u8],
    wanted: &Wanted<'_>,
    notes: &mut Notes,
    walked: &mut Walked,
    ahead: &mut Vec<Vec<u8>>,
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
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                stat.map_or(FileType::Unknown, |stat| {
                    FileType::from_raw_mode(stat.st_mode)
                })
            }
            kind => kind,
        };
        match kind {
            FileType::Directory if wanted.without.contains(&path) => {}
            FileType::Directory => {
                let depth = path.iter().filter(|&&byte| byte == b'/').count();
                match path::check(&path) {
                    Ok(()) if depth < DEPTH_MAX - 1 => ahead.push(path),
                    Ok(()) => notes.lost(NoteKind::TooLarge, &path, "it lies too deep"),
                    Err(bad) => notes.lost(NoteKind::BadName, &path, &bad.to_string()),
                }
            }
            FileType::RegularFile | FileType::Symlink if wanted.files => walked.files.push(path),
            FileType::RegularFile | FileType::Symlink | FileType::Unknown => {}
            _ if wanted.without.contains(&path) => {}
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
