//! Puts entries beneath a directory of the guest.
//!
//! A directory over a directory, or over a link to one, keeps what is there, its mode and its owner; a file
//! replaces a file or a link; nothing replaces a directory but a directory.

use std::fs::File;
use std::io::Write;

use banger_proto::guest::v1::tree_entry::Kind;
use banger_proto::guest::v1::{PutTreeStart, TreeEntry};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Root, failed, names, relative_names};
use crate::refusal::Refusal;

/// Mode of directories that are made on the way.
const DIRECTORY_MODE: u32 = 0o755;

/// Takes entries, one after the other.
#[derive(Debug)]
pub struct Putter {
    root: Root,
    /// The directory that entries lie in, by its names.
    base: Vec<u8>,
    /// For the only entry: its name instead of its own.
    rename: Option<Vec<u8>>,
    owner: (u32, u32),
    /// The directory of the last entry, which the next one most likely shares.
    parent: Option<(Vec<u8>, OwnedFd)>,
    file: Option<OpenFile>,
    /// Directories that were made, whose times are set when nothing comes into them any more.
    times: Vec<(Vec<u8>, Timestamps)>,
}

#[derive(Debug)]
struct OpenFile {
    path: Vec<u8>,
    file: File,
    left: u64,
    entry: TreeEntry,
}

impl Putter {
    /// Opens the place where entries go, making its directory.
    ///
    /// # Errors
    /// A path that cannot be a directory.
    pub fn open(root: Root, start: &PutTreeStart) -> Result<Self, Refusal> {
        let names = names(&start.path)?;
        let mut putter = Self {
            root,
            base: Vec::new(),
            rename: None,
            owner: (start.uid, start.gid),
            parent: None,
            file: None,
            times: Vec::new(),
        };
        let whole = names.join(&b'/');
        match names.split_last() {
            Some((last, parents))
                if start.names_entry && putter.root.directory(&whole)?.is_none() =>
            {
                putter.base = parents.join(&b'/');
                putter.rename = Some(last.to_vec());
            }
            _ => putter.base = whole,
        }
        let base = putter.base.clone();
        putter.make(&base)?;
        Ok(putter)
    }

    /// The directory at `path`, made with all that is missing on the way.
    fn make(&mut self, path: &[u8]) -> Result<OwnedFd, Refusal> {
        if let Some(directory) = self.root.directory(path)? {
            return Ok(directory);
        }
        let (parent, name) = split(path);
        let parent = self.make(parent)?;
        let mode = Mode::from_raw_mode(DIRECTORY_MODE);
        match rustix::fs::mkdirat(&parent, name, mode) {
            Ok(()) => {
                let (uid, gid) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
                rustix::fs::chownat(
                    &parent,
                    name,
                    Some(uid),
                    Some(gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )
                .map_err(|error| failed("changing the owner", path, error))?;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("making the directory", path, error)),
        }
        self.root
            .directory(path)?
            .ok_or_else(|| failed("entering", path, Errno::NOTDIR))
    }

    /// The directory in which the entry at `path` lies.
    fn parent(&mut self, path: &[u8]) -> Result<OwnedFd, Refusal> {
        let wanted = split(path).0;
        if let Some((known, directory)) = &self.parent
            && known == wanted
        {
            return directory
                .try_clone()
                .map_err(|error| failed("opening", wanted, error));
        }
        let directory = self.make(wanted)?;
        let copy = directory
            .try_clone()
            .map_err(|error| failed("opening", wanted, error))?;
        self.parent = Some((wanted.to_vec(), copy));
        Ok(directory)
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// What is malformed or cannot be made.
    pub fn entry(&mut self, entry: TreeEntry) -> Result<(), Refusal> {
        self.end_file()?;
        let relative = match &self.rename {
            Some(name) if relative_names(&entry.path)?.len() <= 1 => name.clone(),
            Some(_) => return Err(Refusal::invalid("one entry was announced, and more came")),
            None => relative_names(&entry.path)?.join(&b'/'),
        };
        let path = join(&self.base, &relative);
        match entry.kind() {
            Kind::Directory => self.directory(&path, &entry),
            _ if relative.is_empty() => Err(Refusal::invalid("an entry has no name")),
            Kind::File => self.file(path, entry),
            Kind::Symlink => {
                let parent = self.replace(&path)?;
                rustix::fs::symlinkat(entry.link.as_ref(), &parent, split(&path).1)
                    .map_err(|error| failed("making the link", &path, error))?;
                describe(&parent, &path, &entry)
            }
            Kind::HardLink => self.hard_link(&path, &entry),
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => self.node(&path, &entry),
            Kind::Removed | Kind::Unspecified => {
                Err(Refusal::invalid("an entry has a kind that cannot be put"))
            }
        }
    }

    fn directory(&mut self, path: &[u8], entry: &TreeEntry) -> Result<(), Refusal> {
        if self.root.directory(path)?.is_some() {
            return Ok(());
        }
        let parent = self.parent(path)?;
        let name = split(path).1;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))
            .map_err(|error| failed("making the directory", path, error))?;
        describe(&parent, path, entry)?;
        self.times.push((path.to_vec(), times(entry)));
        Ok(())
    }

    /// The directory for an entry that is no directory, with its name free.
    fn replace(&mut self, path: &[u8]) -> Result<OwnedFd, Refusal> {
        let parent = self.parent(path)?;
        match rustix::fs::unlinkat(&parent, split(path).1, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(parent),
            Err(Errno::ISDIR) => Err(failed("replacing a directory", path, Errno::ISDIR)),
            Err(error) => Err(failed("replacing", path, error)),
        }
    }

    fn file(&mut self, path: Vec<u8>, entry: TreeEntry) -> Result<(), Refusal> {
        let parent = self.replace(&path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let file = rustix::fs::openat(&parent, split(&path).1, flags, mode)
            .map_err(|error| failed("making the file", &path, error))?;
        let left = u64::try_from(entry.size)
            .map_err(|_| Refusal::invalid("a file's length is negative"))?;
        self.file = Some(OpenFile {
            path,
            file: file.into(),
            left,
            entry,
        });
        if left == 0 { self.end_file() } else { Ok(()) }
    }

    fn hard_link(&mut self, path: &[u8], entry: &TreeEntry) -> Result<(), Refusal> {
        let target = join(&self.base, &relative_names(&entry.link)?.join(&b'/'));
        let from = self
            .root
            .directory(split(&target).0)?
            .ok_or_else(|| failed("linking to", &target, Errno::NOENT))?;
        let parent = self.replace(path)?;
        rustix::fs::linkat(
            &from,
            split(&target).1,
            &parent,
            split(path).1,
            AtFlags::empty(),
        )
        .map_err(|error| failed("making the hard link", path, error))
    }

    fn node(&mut self, path: &[u8], entry: &TreeEntry) -> Result<(), Refusal> {
        let parent = self.replace(path)?;
        let kind = match entry.kind() {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = rustix::fs::makedev(entry.major, entry.minor);
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(&parent, split(path).1, kind, mode, device)
            .map_err(|error| failed("making the node", path, error))?;
        describe(&parent, path, entry)
    }

    /// Takes content of the last entry.
    ///
    /// # Errors
    /// Content that no file waits for, or a disk that is full.
    pub fn data(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let Some(open) = &mut self.file else {
            return Err(Refusal::invalid("content came that belongs to no file"));
        };
        let length = data.len() as u64;
        open.left = open
            .left
            .checked_sub(length)
            .ok_or_else(|| Refusal::invalid("a file is longer than it was announced"))?;
        open.file
            .write_all(data)
            .map_err(|error| failed("writing", &open.path, error))?;
        if open.left == 0 {
            self.end_file()
        } else {
            Ok(())
        }
    }

    fn end_file(&mut self) -> Result<(), Refusal> {
        let Some(open) = self.file.take() else {
            return Ok(());
        };
        if open.left > 0 {
            return Err(Refusal::invalid("a file is shorter than it was announced"));
        }
        let (fd, path, entry) = (open.file.as_fd(), &open.path, &open.entry);
        let owner = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::fchown(fd, Some(owner.0), Some(owner.1))
            .map_err(|error| failed("changing the owner", path, error))?;
        // After the owner: a change of owner takes setuid away, and capabilities too.
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
            .map_err(|error| failed("changing the mode", path, error))?;
        for (name, value) in &entry.xattrs {
            rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty())
                .map_err(|error| failed("setting an attribute", path, error))?;
        }
        rustix::fs::futimens(fd, &times(entry))
            .map_err(|error| failed("setting the time", path, error))
    }

    /// Ends the work.
    ///
    /// # Errors
    /// If the last file is not whole.
    pub fn finish(mut self) -> Result<(), Refusal> {
        self.end_file()?;
        // The deepest first: setting a time in a directory does not change those above it.
        for (path, times) in self.times.iter().rev() {
            if let Some(directory) = self.root.directory(split(path).0)? {
                rustix::fs::utimensat(&directory, split(path).1, times, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| failed("setting the time", path, error))?;
            }
        }
        Ok(())
    }
}

/// Owner, mode, attributes and time of what is no regular file.
fn describe(parent: &OwnedFd, path: &[u8], entry: &TreeEntry) -> Result<(), Refusal> {
    let name = split(path).1;
    let owner = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, name, Some(owner.0), Some(owner.1), nofollow)
        .map_err(|error| failed("changing the owner", path, error))?;
    if entry.kind() != Kind::Symlink {
        let mode = Mode::from_raw_mode(entry.mode);
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
            .map_err(|error| failed("changing the mode", path, error))?;
        let node = super::read::through(parent, name);
        for (name, value) in &entry.xattrs {
            rustix::fs::lsetxattr(&node, name.as_str(), value, XattrFlags::empty())
                .map_err(|error| failed("setting an attribute", path, error))?;
        }
    }
    rustix::fs::utimensat(parent, name, &times(entry), nofollow)
        .map_err(|error| failed("setting the time", path, error))
}

fn times(entry: &TreeEntry) -> Timestamps {
    let time = entry.mtime.unwrap_or_default();
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanos.clamp(0, 999_999_999).into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn join(base: &[u8], relative: &[u8]) -> Vec<u8> {
    match (base, relative) {
        (b"", path) | (path, b"") => path.to_vec(),
        (base, relative) => [base, relative].join(&b'/'),
    }
}

/// Directory and name of a path without a slash at its ends.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
