//! A directory that is kept open, and what lies beneath it: whatever is renamed meanwhile, entries go into it.
//!
//! A user of the guest may own directories into which somebody with more rights puts entries, and may put a link where
//! a directory was expected. So a link on the way counts only if it is root's or the caller's own.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{OPEN_TRIES, Root, failed, split};
use crate::refusal::{Problem, Refusal};

/// Links on one way, as in the kernel.
const LINKS_MAX: usize = 40;
/// Mode of directories that are made on the way.
const DIRECTORY_MODE: u32 = 0o755;
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Whose links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedLinks {
    /// Everybody's: nobody else is at work.
    All,
    /// Those of root and of this user.
    Of(u32),
}

impl TrustedLinks {
    const fn trusts(self, owner: u32) -> bool {
        match self {
            Self::All => true,
            Self::Of(user) => owner == 0 || owner == user,
        }
    }
}

/// A directory and what lies beneath it.
#[derive(Debug)]
pub(super) struct Beneath {
    root: Root,
    directory: OwnedFd,
    links: TrustedLinks,
    /// Whose the directories become that are made on the way.
    owner: (u32, u32),
}

impl Beneath {
    /// The directory at `path` as it is seen from the root, made with all that is missing on the way.
    pub(super) fn open(
        root: Root,
        path: &[u8],
        links: TrustedLinks,
        owner: (u32, u32),
    ) -> Result<Self, Refusal> {
        // What is there is the caller's choice, links included.
        let mut there = path;
        let directory = loop {
            match root.directory(there)? {
                Some(directory) => break directory,
                None if there.is_empty() => return Err(failed("opening", b"/", Errno::NOENT)),
                None => there = split(there).0,
            }
        };
        let mut beneath = Self {
            root,
            directory,
            links,
            owner,
        };
        let missing = &path[there.len()..];
        let missing = missing.strip_prefix(b"/").unwrap_or(missing);
        beneath.directory = beneath.make(missing)?;
        Ok(beneath)
    }

    /// The directory at `path`; none where there is something else or nothing.
    pub(super) fn directory(&self, path: &[u8]) -> Result<Option<OwnedFd>, Refusal> {
        let name = OsStr::from_bytes(if path.is_empty() { b"." } else { path });
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        for _ in 0..OPEN_TRIES {
            match rustix::fs::openat2(&self.directory, name, DIRECTORY, Mode::empty(), resolve) {
                Ok(directory) => return Ok(Some(directory)),
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(Errno::LOOP) => return self.over_links(path),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(failed("opening", path, error)),
            }
        }
        Err(failed("opening", path, Errno::AGAIN))
    }

    /// The same, name by name, where there is a link among them.
    fn over_links(&self, path: &[u8]) -> Result<Option<OwnedFd>, Refusal> {
        let opening = |error| failed("opening", path, error);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = self.root.at(b"", DIRECTORY).map_err(opening)?;
        let mut here = at(&self.directory, b".", DIRECTORY).map_err(opening)?;
        let mut names: VecDeque<Vec<u8>> = path.split(is_slash).map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            let found = match &name[..] {
                b"" | b"." => continue,
                b".." if is_same(&here, &root).map_err(opening)? => continue,
                name => at(&here, name, flags),
            };
            let found = match found {
                Ok(found) => found,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(opening(error)),
            };
            let stat = rustix::fs::fstat(&found).map_err(opening)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => here = found,
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(opening(Errno::LOOP));
                    }
                    if !self.links.trusts(stat.st_uid) {
                        return Err(anothers(path, stat.st_uid));
                    }
                    let target = rustix::fs::readlinkat(&found, "", Vec::new()).map_err(opening)?;
                    let target = target.to_bytes();
                    if target.first() == Some(&b'/') {
                        here = at(&root, b".", DIRECTORY).map_err(opening)?;
                    }
                    for name in target.split(is_slash).rev() {
                        names.push_front(name.to_vec());
                    }
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(here))
    }

    /// The directory at `path`, made with all that is missing on the way.
    pub(super) fn make(&self, path: &[u8]) -> Result<OwnedFd, Refusal> {
        if let Some(directory) = self.directory(path)? {
            return Ok(directory);
        }
        let (parent, name) = split(path);
        let parent = self.make(parent)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
            Ok(()) => {
                let (made, _) = just_made(&parent, name, path, FileType::Directory)?;
                super::give(&made, self.owner, path)?;
                Ok(made)
            }
            Err(Errno::EXIST) => self
                .directory(path)?
                .ok_or_else(|| failed("entering", path, Errno::NOTDIR)),
            Err(error) => Err(failed("making the directory", path, error)),
        }
    }
}

/// What was made in `parent` under `name` a moment ago, by a descriptor from here on.
///
/// # Errors
/// If somebody put something else there meanwhile, which must not get owner or mode.
pub(crate) fn just_made(
    parent: &OwnedFd,
    name: &[u8],
    path: &[u8],
    kind: FileType,
) -> Result<(OwnedFd, Stat), Refusal> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = at(parent, name, flags).map_err(|error| failed("opening", path, error))?;
    let stat = rustix::fs::fstat(&made).map_err(|error| failed("opening", path, error))?;
    let is_ours = stat.st_uid == rustix::process::geteuid().as_raw()
        && FileType::from_raw_mode(stat.st_mode) == kind
        && (kind == FileType::Directory || stat.st_nlink == 1);
    match is_ours {
        true => Ok((made, stat)),
        false => Err(Refusal::Path {
            problem: Problem::Busy,
            path: String::from_utf8_lossy(path).into_owned(),
            detail: "something else was put in its place meanwhile".into(),
        }),
    }
}

fn anothers(path: &[u8], owner: u32) -> Refusal {
    Refusal::Path {
        problem: Problem::AccessDenied,
        path: String::from_utf8_lossy(path).into_owned(),
        detail: format!("a link of user {owner} is on the way, which is not followed"),
    }
}

fn at(directory: &OwnedFd, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(directory, OsStr::from_bytes(name), flags, Mode::empty())
}

fn is_slash(byte: &u8) -> bool {
    *byte == b'/'
}

fn is_same(a: &OwnedFd, b: &OwnedFd) -> rustix::io::Result<bool> {
    let (a, b) = (rustix::fs::fstat(a)?, rustix::fs::fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}
