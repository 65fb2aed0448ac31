//! Ways to what lies beneath a directory, by descriptors: whatever is renamed meanwhile, they stay beneath it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat, openat, openat2, statat};
use rustix::io::Errno;

/// How a directory is opened to look into it, and never through a link.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// How often a path is opened that is renamed each time.
const OPEN_TRIES: usize = 128;

/// Opens a directory from its absolute path.
pub(crate) fn open(directory: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(directory, DIRECTORY, Mode::empty())?)
}

/// Opens what lies beneath `directory`; no link is followed.
pub(crate) fn open_beneath(
    directory: impl AsFd,
    name: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..OPEN_TRIES {
        match openat2(
            &directory,
            OsStr::from_bytes(name),
            flags,
            Mode::empty(),
            resolve,
        ) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens a symbolic link itself.
pub(crate) fn open_beneath_link(directory: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let (parent, name) = split(path);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let parent: &[u8] = if parent.is_empty() { b"." } else { parent };
    let parent = open_beneath(directory, parent, OFlags::PATH | OFlags::DIRECTORY)?;
    openat(parent, OsStr::from_bytes(name), flags, Mode::empty())
}

/// The directory and the name of a path beneath a tree; the directory is empty for the tree itself.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// What is at a path beneath a directory; none where there is nothing.
pub(crate) fn look(directory: &OwnedFd, path: &[u8]) -> rustix::io::Result<Option<Stat>> {
    let (parent, name) = split(path);
    let parent = match parent {
        b"" => directory.try_clone().map_err(|_| Errno::MFILE)?,
        parent => match open_beneath(directory, parent, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(parent) => parent,
            // A link on the way: what is behind it is no part of the tree.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error),
        },
    };
    match statat(parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}
