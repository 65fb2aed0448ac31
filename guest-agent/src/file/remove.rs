//! Removes files, and trees of them.
//!
//! A tree is gone down by open directories, never by paths: what is a link is removed and not followed, however it
//! changes meanwhile.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use banger_proto::guest::v1::RemoveFileRequest;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::{Here, wrong};
use crate::refusal::{Problem, Refusal};
use crate::tree::{failed, walk};

/// Directories in each other that are gone down: each takes a descriptor.
const DEPTH_MAX: usize = 512;

pub(super) fn remove(here: &Here, request: &RemoveFileRequest) -> Result<i64, Refusal> {
    let path = &request.path[..];
    let mut removing = Removing { removed: 0 };
    let removed = here
        .entry(path)
        .and_then(|(parent, name)| match request.recursive {
            true => removing.tree(&parent, &name, path, 0),
            false => removing.one(&parent, &name, path),
        });
    match removed {
        Err(Refusal::Path {
            problem: Problem::NotFound,
            ..
        }) if request.allow_missing => Ok(removing.removed),
        removed => removed.map(|()| removing.removed),
    }
}

struct Removing {
    removed: i64,
}

impl Removing {
    fn unlink(&mut self, parent: &OwnedFd, name: &[u8], flags: AtFlags) -> rustix::io::Result<()> {
        rustix::fs::unlinkat(parent, OsStr::from_bytes(name), flags)?;
        self.removed += 1;
        Ok(())
    }

    /// A file, or a directory that is empty.
    fn one(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Refusal> {
        let removed = match self.unlink(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => self.unlink(parent, name, AtFlags::REMOVEDIR),
            other => other,
        };
        removed.map_err(|error| failed("removing", path, error))
    }

    /// A file, or a directory with all that is in it.
    fn tree(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), Refusal> {
        match self.unlink(parent, name, AtFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(failed("removing", path, error)),
        }
        if depth == DEPTH_MAX {
            return Err(wrong(
                Problem::TooDeep,
                path,
                "too many directories in each other",
            ));
        }
        self.content(parent, name, path, depth)?;
        self.unlink(parent, name, AtFlags::REMOVEDIR)
            .map_err(|error| failed("removing the directory", path, error))
    }

    fn content(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), Refusal> {
        let directory = walk::open(parent, name, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        for name in walk::list(&directory, path)? {
            let path = [path, &name].join(&b'/');
            match self.tree(&directory, &name, &path, depth + 1) {
                // Somebody else removes it too.
                Err(Refusal::Path {
                    problem: Problem::NotFound,
                    ..
                }) => {}
                other => other?,
            }
        }
        Ok(())
    }
}
