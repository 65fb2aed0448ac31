//! Files into the guest and out of it, as streams of entries: what a build copies and what it changed.
//!
//! Paths are resolved beneath the guest's root with `openat2`, so that links lead where they would lead a
//! process of the guest and never out of it. Everything here blocks and runs on threads of its own.

pub(crate) mod beneath;
pub mod changes;
mod holes;
pub mod put;
mod read;
pub(crate) mod unfinished;
pub mod walk;

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::refusal::{Problem, Refusal};

/// Longest path of an entry: what the kernel takes, and so what a guest's programs can name.
pub const PATH_MAX_BYTES: usize = 4096;
/// Content of files is read and sent in pieces of this size.
pub const PIECE_BYTES: usize = 256 << 10;

/// How often a path is opened that is renamed each time.
const OPEN_TRIES: usize = 128;

/// A directory beneath which paths are resolved.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens the root.
    ///
    /// # Errors
    /// If it is no directory.
    pub fn open(path: &Path) -> Result<Self, Refusal> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .map(Self)
            .map_err(|error| failed("opening", path.as_os_str().as_bytes(), error))
    }

    /// The same root once more.
    pub(crate) fn try_clone(&self) -> Result<Self, Refusal> {
        let copy = self.0.try_clone();
        copy.map(Self)
            .map_err(|error| failed("opening", b"/", error))
    }

    /// Opens `path` as it is seen from the root.
    pub(crate) fn at(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = match path {
            b"" => OsStr::new("."),
            path => OsStr::from_bytes(path),
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something on the way was renamed meanwhile. Who does nothing else must not keep us at it.
        for _ in 0..OPEN_TRIES {
            match rustix::fs::openat2(
                self.0.as_fd(),
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The directory at `path`; none where there is something else or nothing.
    fn directory(&self, path: &[u8]) -> Result<Option<OwnedFd>, Refusal> {
        match self.at(path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(failed("opening", path, error)),
        }
    }
}

/// The refusal of a step on a path.
pub(crate) fn failed(step: &str, path: &[u8], error: impl Into<io::Error>) -> Refusal {
    let error = error.into();
    Refusal::Path {
        problem: Problem::of(&error),
        path: String::from_utf8_lossy(path).into_owned(),
        detail: format!("{step}: {}", crate::refusal::describe(&error)),
    }
}

/// Makes an open file or directory somebody's.
fn give(node: &OwnedFd, (uid, gid): (u32, u32), path: &[u8]) -> Result<(), Refusal> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(node, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        .map_err(|error| failed("changing the owner", path, error))
}

/// The path by which calls that take no descriptor reach an open file.
pub(crate) fn by_descriptor(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Directory and name of a path without a slash at its ends.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// The names of an absolute path; empty ones and `.` are dropped, `..` is refused.
///
/// # Errors
/// A path that is relative, too long, or holds `..` or a zero byte.
pub(crate) fn names(path: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    if path.first() != Some(&b'/') {
        return Err(Refusal::invalid("a path is not absolute"));
    }
    relative_names(&path[1..])
}

pub(crate) fn relative_names(path: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    if path.len() > PATH_MAX_BYTES || path.contains(&0) {
        return Err(Refusal::invalid("a path is too long or has a zero byte"));
    }
    let names: Vec<&[u8]> = path
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .collect();
    if names.contains(&&b".."[..]) {
        return Err(Refusal::invalid("a path leads upwards"));
    }
    Ok(names)
}
