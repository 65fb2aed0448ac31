//! Files into the guest and out of it, as streams of entries: what a build copies and what it changed.
//!
//! Paths are resolved beneath the guest's root with `openat2`, so that links lead where they would lead a
//! process of the guest and never out of it. Everything here blocks and runs on threads of its own.

pub mod changes;
pub mod put;
mod read;
pub mod walk;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::refusal::Refusal;

/// Longest path of an entry: what the kernel takes, and so what a guest's programs can name.
pub const PATH_MAX_BYTES: usize = 4096;
/// Content of files is read and sent in pieces of this size.
pub const PIECE_BYTES: usize = 256 << 10;

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

    /// Opens `path` as it is seen from the root.
    fn at(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = match path {
            b"" => OsStr::new("."),
            path => OsStr::from_bytes(path),
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something on the way was renamed meanwhile. Asking again is what is left.
        loop {
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
fn failed(step: &str, path: &[u8], error: impl Into<io::Error>) -> Refusal {
    Refusal::File {
        path: String::from_utf8_lossy(path).into_owned(),
        detail: format!("{step}: {}", crate::refusal::describe(&error.into())),
    }
}

/// The names of an absolute path; empty ones and `.` are dropped, `..` is refused.
///
/// # Errors
/// A path that is relative, too long, or holds `..` or a zero byte.
fn names(path: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    if path.first() != Some(&b'/') {
        return Err(Refusal::invalid("a path is not absolute"));
    }
    relative_names(&path[1..])
}

fn relative_names(path: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
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
