//! Puts entries beneath a directory of the guest.
//!
//! A directory over a directory, or over a link to one, keeps what is there, its mode and its owner; a file
//! replaces a file or a link, at once when it is whole; nothing replaces a directory but a directory.

use std::ffi::OsStr;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::vec::IntoIter;

use banger_proto::guest::v1::tree_entry::Kind;
use banger_proto::guest::v1::{DataRange, PutTreeResponse, PutTreeStart, TreeEntry};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::unfinished::Unfinished;
use super::{Root, by_descriptor, failed, names, relative_names, split};
use crate::refusal::Refusal;

/// What a directory's owner needs to put something into it.
const OWNERS: u32 = 0o700;
/// Mode of directories that are made on the way.
const DIRECTORY_MODE: u32 = 0o755;

/// Takes entries, one after the other.
#[derive(Debug)]
pub struct Putter {
    root: Root,
    /// The directory that entries lie in, by its names.
    base: Vec<u8>,
    /// For the only entry at the top: its name instead of its own.
    rename: Option<Vec<u8>>,
    /// Its own name, once it has come.
    top: Option<Vec<u8>>,
    owner: (u32, u32),
    owners: Owners,
    moved: PutTreeResponse,
    /// The directory of the last entry, which the next one most likely shares.
    parent: Option<(Vec<u8>, OwnedFd)>,
    file: Option<OpenFile>,
    /// Directories that were made, whose modes and times are set when nothing comes into them any more.
    made: Vec<(Vec<u8>, u32, Timestamps)>,
}

/// Whose entries become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// As they say.
    Entries,
    /// All are the owner's of the directories that are made on the way. What only the owner who is told may have goes:
    /// setuid, setgid and capabilities.
    One,
}

/// Setuid and setgid.
const SET_ID: u32 = 0o6000;
/// The attribute that holds a file's capabilities.
const CAPABILITY: &str = "security.capability";

#[derive(Debug)]
struct OpenFile {
    path: Vec<u8>,
    file: Unfinished,
    /// Of the range that is being written.
    left: u64,
    /// The ranges after it.
    ranges: IntoIter<DataRange>,
    entry: TreeEntry,
}

impl Putter {
    /// Opens the place where entries go, making its directory.
    ///
    /// # Errors
    /// A path that cannot be a directory.
    pub fn open(root: Root, start: &PutTreeStart, owners: Owners) -> Result<Self, Refusal> {
        let names = names(&start.path)?;
        let mut putter = Self {
            root,
            base: Vec::new(),
            rename: None,
            top: None,
            owner: (start.uid, start.gid),
            owners,
            moved: PutTreeResponse::default(),
            parent: None,
            file: None,
            made: Vec::new(),
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
    pub fn entry(&mut self, mut entry: TreeEntry) -> Result<(), Refusal> {
        self.end_file()?;
        let relative = self.relative(&entry.path)?;
        let path = join(&self.base, &relative);
        self.moved.entries += 1;
        if self.owners == Owners::One {
            (entry.uid, entry.gid) = self.owner;
            entry.mode &= !SET_ID;
            entry.xattrs.remove(CAPABILITY);
        }
        match entry.kind() {
            Kind::Directory => self.directory(&path, &entry),
            _ if relative.is_empty() => Err(Refusal::invalid("an entry has no name")),
            Kind::File => self.file(path, entry),
            Kind::Symlink => {
                let parent = self.replace(&path)?;
                rustix::fs::symlinkat(entry.link.as_ref(), &parent, split(&path).1)
                    .map_err(|error| failed("making the link", &path, error))?;
                describe(&parent, &path, &entry, entry.mode)
            }
            Kind::HardLink => self.hard_link(&path, &entry),
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => self.node(&path, &entry),
            Kind::Removed | Kind::Unspecified => {
                Err(Refusal::invalid("an entry has a kind that cannot be put"))
            }
        }
    }

    /// A path of an entry, beneath the base.
    fn relative(&mut self, path: &[u8]) -> Result<Vec<u8>, Refusal> {
        let names = relative_names(path)?;
        let Some(name) = &self.rename else {
            return Ok(names.join(&b'/'));
        };
        let (first, rest) = match names.split_first() {
            Some((first, rest)) => (*first, rest),
            None => (&b""[..], &[][..]),
        };
        if *self.top.get_or_insert_with(|| first.to_vec()) != *first {
            return Err(Refusal::invalid("one entry was announced, and more came"));
        }
        let mut renamed = vec![name.as_slice()];
        renamed.extend_from_slice(rest);
        Ok(renamed.join(&b'/'))
    }

    fn directory(&mut self, path: &[u8], entry: &TreeEntry) -> Result<(), Refusal> {
        if self.root.directory(path)?.is_some() {
            return Ok(());
        }
        let parent = self.parent(path)?;
        let name = split(path).1;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))
            .map_err(|error| failed("making the directory", path, error))?;
        // Whoever puts files into it must be able to: its own mode comes last.
        describe(&parent, path, entry, entry.mode | OWNERS)?;
        self.made.push((path.to_vec(), entry.mode, times(entry)));
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

    /// The directory for a file, in whose place there is no directory.
    fn place(&mut self, path: &[u8]) -> Result<OwnedFd, Refusal> {
        let parent = self.parent(path)?;
        match rustix::fs::statat(&parent, split(path).1, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                Err(failed("replacing a directory", path, Errno::ISDIR))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(parent),
            Err(error) => Err(failed("replacing", path, error)),
        }
    }

    fn file(&mut self, path: Vec<u8>, mut entry: TreeEntry) -> Result<(), Refusal> {
        let size = u64::try_from(entry.size)
            .map_err(|_| Refusal::invalid("a file's length is negative"))?;
        let parent = self.place(&path)?;
        let file =
            Unfinished::file(parent).map_err(|error| failed("making the file", &path, error))?;
        let ranges = std::mem::take(&mut entry.ranges).into_iter();
        let left = if entry.is_sparse { 0 } else { size };
        self.file = Some(OpenFile {
            path,
            file,
            left,
            ranges,
            entry,
        });
        self.next_range()
    }

    /// Goes on with the next range of the file, if this one is written; ends the file after the last.
    fn next_range(&mut self) -> Result<(), Refusal> {
        let Some(open) = &mut self.file else {
            return Ok(());
        };
        while open.left == 0 {
            let Some(range) = open.ranges.next() else {
                return self.end_file();
            };
            let within = range.offset >= 0
                && range.length > 0
                && range
                    .offset
                    .checked_add(range.length)
                    .is_some_and(|end| end <= open.entry.size);
            if !within {
                return Err(Refusal::invalid("a range is not within its file"));
            }
            open.left = range.length.unsigned_abs();
            open.file
                .as_file()
                .seek(SeekFrom::Start(range.offset.unsigned_abs()))
                .map_err(|error| failed("seeking", &open.path, error))?;
        }
        Ok(())
    }

    fn hard_link(&mut self, path: &[u8], entry: &TreeEntry) -> Result<(), Refusal> {
        let target = self.relative(&entry.link)?;
        let target = join(&self.base, &target);
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
        describe(&parent, path, entry, entry.mode)
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
            .as_file()
            .write_all(data)
            .map_err(|error| failed("writing", &open.path, error))?;
        self.moved.bytes += i64::try_from(data.len()).unwrap_or_default();
        self.next_range()
    }

    fn end_file(&mut self) -> Result<(), Refusal> {
        let Some(mut open) = self.file.take() else {
            return Ok(());
        };
        if open.left > 0 || open.ranges.next().is_some() {
            return Err(Refusal::invalid("a file is shorter than it was announced"));
        }
        let (file, path, entry) = (open.file.as_file(), &open.path, &open.entry);
        if entry.is_sparse {
            file.set_len(entry.size.unsigned_abs())
                .map_err(|error| failed("making it longer", path, error))?;
        }
        let fd = file.as_fd();
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
            .map_err(|error| failed("setting the time", path, error))?;
        let published = open.file.publish(split(path).1, RenameFlags::empty());
        published
            .map(drop)
            .map_err(|error| failed("giving it its name", path, error))
    }

    /// Ends the work.
    ///
    /// # Errors
    /// If the last file is not whole.
    pub fn finish(mut self) -> Result<PutTreeResponse, Refusal> {
        self.end_file()?;
        // The deepest first: what is set in a directory does not change those above it, and needs the way to it.
        for (path, mode, times) in self.made.iter().rev() {
            if let Some(directory) = self.root.directory(path)? {
                let node = by_descriptor(&directory);
                if mode | OWNERS != *mode {
                    rustix::fs::chmod(&node, Mode::from_raw_mode(*mode))
                        .map_err(|error| failed("changing the mode", path, error))?;
                }
                rustix::fs::utimensat(rustix::fs::CWD, &node, times, AtFlags::empty())
                    .map_err(|error| failed("setting the time", path, error))?;
            }
        }
        Ok(self.moved)
    }
}

/// Owner, mode, attributes and time of what is no regular file.
fn describe(parent: &OwnedFd, path: &[u8], entry: &TreeEntry, mode: u32) -> Result<(), Refusal> {
    let name = split(path).1;
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    // By a descriptor from here on: whatever takes the name meanwhile is not changed.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::openat(parent, OsStr::from_bytes(name), flags, Mode::empty())
        .map_err(|error| failed("opening", path, error))?;
    let owner = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::chownat(&node, "", Some(owner.0), Some(owner.1), AtFlags::EMPTY_PATH)
        .map_err(|error| failed("changing the owner", path, error))?;
    if entry.kind() != Kind::Symlink {
        let node = by_descriptor(&node);
        rustix::fs::chmod(&node, Mode::from_raw_mode(mode))
            .map_err(|error| failed("changing the mode", path, error))?;
        for (name, value) in &entry.xattrs {
            rustix::fs::setxattr(&node, name.as_str(), value, XattrFlags::empty())
                .map_err(|error| failed("setting an attribute", path, error))?;
        }
    }
    rustix::fs::utimensat(parent, OsStr::from_bytes(name), &times(entry), nofollow)
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
