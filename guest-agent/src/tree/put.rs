//! Puts entries beneath a directory of the guest.
//!
//! A directory over a directory, or over a link to one, keeps what is there, its mode and its owner; a file
//! replaces a file or a link, at once when it is whole; nothing replaces a directory but a directory.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd;
use std::vec::IntoIter;

use banger_proto::guest::v1::tree_entry::Kind;
use banger_proto::guest::v1::{DataRange, PutTreeResponse, PutTreeStart, TreeEntry};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::beneath::{Beneath, TrustedLinks, just_made};
use super::unfinished::Unfinished;
use super::{Root, by_descriptor, failed, give, names, relative_names, split};
use crate::refusal::Refusal;

/// What a directory's owner needs to put something into it.
const OWNERS: u32 = 0o700;

/// Takes entries, one after the other.
#[derive(Debug)]
pub struct Putter {
    /// The directory that entries lie in.
    base: Beneath,
    /// Its path, for who reads an error.
    at: Vec<u8>,
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
    made: Vec<MadeDirectory>,
}

#[derive(Debug)]
struct MadeDirectory {
    path: Vec<u8>,
    mode: u32,
    times: Timestamps,
    /// Device and number: what has its path later need not be it.
    id: (u64, u64),
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

/// What the attributes begin with that users give as they like.
const NOTES: &str = "user.";

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
    pub fn open(
        root: Root,
        start: &PutTreeStart,
        owners: Owners,
        links: TrustedLinks,
    ) -> Result<Self, Refusal> {
        let names = names(&start.path)?;
        let whole = names.join(&b'/');
        let (at, rename) = match names.split_last() {
            Some((last, parents)) if start.names_entry && root.directory(&whole)?.is_none() => {
                (parents.join(&b'/'), Some(last.to_vec()))
            }
            _ => (whole, None),
        };
        let owner = (start.uid, start.gid);
        Ok(Self {
            base: Beneath::open(root, &at, links, owner)?,
            at,
            rename,
            top: None,
            owner,
            owners,
            moved: PutTreeResponse::default(),
            parent: None,
            file: None,
            made: Vec::new(),
        })
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
        let directory = self.base.make(wanted)?;
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
        self.put(entry)
            .map_err(|refusal| self.seen_from_root(refusal))
    }

    fn put(&mut self, mut entry: TreeEntry) -> Result<(), Refusal> {
        self.end_file()?;
        let path = self.relative(&entry.path)?;
        self.moved.entries += 1;
        if self.owners == Owners::One {
            (entry.uid, entry.gid) = self.owner;
            entry.mode &= !SET_ID;
            entry.xattrs.remove(CAPABILITY);
        }
        match entry.kind() {
            Kind::Directory => self.directory(&path, &entry),
            _ if path.is_empty() => Err(Refusal::invalid("an entry has no name")),
            Kind::File => self.file(path, entry),
            Kind::Symlink => {
                let link = Unfinished::symlink(self.place(&path)?, &entry.link)
                    .map_err(|error| failed("making the link", &path, error))?;
                publish(link, FileType::Symlink, &path, &entry)
            }
            Kind::HardLink => self.hard_link(&path, &entry),
            Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => self.node(&path, &entry),
            Kind::Removed | Kind::Unspecified => {
                Err(Refusal::invalid("an entry has a kind that cannot be put"))
            }
        }
    }

    /// Errors name the whole path.
    fn seen_from_root(&self, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::Path {
                problem,
                path,
                detail,
            } => {
                let path = join(&self.at, path.as_bytes());
                Refusal::Path {
                    problem,
                    path: String::from_utf8_lossy(&path).into_owned(),
                    detail,
                }
            }
            other => other,
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
        if self.base.directory(path)?.is_some() {
            return Ok(());
        }
        let parent = self.parent(path)?;
        let name = split(path).1;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(OWNERS))
            .map_err(|error| failed("making the directory", path, error))?;
        let (made, stat) = just_made(&parent, name, path, FileType::Directory)?;
        // Whoever puts files into it must be able to: its own mode comes last.
        describe(&made, path, entry, entry.mode | OWNERS)?;
        self.made.push(MadeDirectory {
            path: path.to_vec(),
            mode: entry.mode,
            times: times(entry),
            id: (stat.st_dev, stat.st_ino),
        });
        Ok(())
    }

    /// The directory for an entry that is no directory, in whose place there is none either.
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
        let (directory, name) = split(&target);
        let from = self
            .base
            .directory(directory)?
            .ok_or_else(|| failed("linking to", &target, Errno::NOENT))?;
        let failed = |error| failed("making the hard link", path, error);
        Unfinished::hard_link(self.place(path)?, &from, name)
            .map_err(failed)?
            .publish(split(path).1, RenameFlags::empty())
            .map(drop)
            .map_err(failed)
    }

    fn node(&mut self, path: &[u8], entry: &TreeEntry) -> Result<(), Refusal> {
        let kind = match entry.kind() {
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = rustix::fs::makedev(entry.major, entry.minor);
        let node = Unfinished::node(self.place(path)?, kind, device)
            .map_err(|error| failed("making the node", path, error))?;
        publish(node, kind, path, entry)
    }

    /// Takes content of the last entry.
    ///
    /// # Errors
    /// Content that no file waits for, or a disk that is full.
    pub fn data(&mut self, data: &[u8]) -> Result<(), Refusal> {
        self.write(data)
            .map_err(|refusal| self.seen_from_root(refusal))
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Refusal> {
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
        // After the owner, whose change takes setuid and capabilities away; before a mode that forbids to write.
        for (name, value) in &entry.xattrs {
            let set = rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty());
            attributed(name, set).map_err(|error| failed("setting an attribute", path, error))?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
            .map_err(|error| failed("changing the mode", path, error))?;
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
        self.end().map_err(|refusal| self.seen_from_root(refusal))?;
        Ok(self.moved)
    }

    fn end(&mut self) -> Result<(), Refusal> {
        self.end_file()?;
        // The deepest first: what is set in a directory does not change those above it, and needs the way to it.
        for made in self.made.iter().rev() {
            let path = &made.path[..];
            let Some(directory) = self.base.directory(path)? else {
                continue;
            };
            let stat =
                rustix::fs::fstat(&directory).map_err(|error| failed("entering", path, error))?;
            if (stat.st_dev, stat.st_ino) != made.id {
                continue;
            }
            if made.mode | OWNERS != made.mode {
                rustix::fs::chmod(by_descriptor(&directory), Mode::from_raw_mode(made.mode))
                    .map_err(|error| failed("changing the mode", path, error))?;
            }
            set_times(&directory, &made.times, path)?;
        }
        Ok(())
    }
}

/// Gives what is no regular file its attributes, and then its name.
fn publish(
    unfinished: Unfinished,
    kind: FileType,
    path: &[u8],
    entry: &TreeEntry,
) -> Result<(), Refusal> {
    let (parent, name) = unfinished.place();
    let (node, _) = just_made(parent, name, path, kind)?;
    describe(&node, path, entry, entry.mode)?;
    unfinished
        .publish(split(path).1, RenameFlags::empty())
        .map(drop)
        .map_err(|error| failed("giving it its name", path, error))
}

/// Owner, mode, attributes and time of what is no regular file.
fn describe(node: &OwnedFd, path: &[u8], entry: &TreeEntry, mode: u32) -> Result<(), Refusal> {
    give(node, (entry.uid, entry.gid), path)?;
    if entry.kind() != Kind::Symlink {
        let node = by_descriptor(node);
        for (name, value) in &entry.xattrs {
            let set = rustix::fs::setxattr(&node, name.as_str(), value, XattrFlags::empty());
            attributed(name, set).map_err(|error| failed("setting an attribute", path, error))?;
        }
        rustix::fs::chmod(&node, Mode::from_raw_mode(mode))
            .map_err(|error| failed("changing the mode", path, error))?;
    }
    set_times(node, &times(entry), path)
}

/// What became of an attribute. Notes of users are left out where the file system takes none, as cp(1) and tar(1) do: what a
/// file is does not hang on them.
fn attributed(name: &str, set: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match set {
        Err(Errno::OPNOTSUPP) if name.starts_with(NOTES) => Ok(()),
        set => set,
    }
}

fn set_times(node: &OwnedFd, times: &Timestamps, path: &[u8]) -> Result<(), Refusal> {
    rustix::fs::utimensat(node, "", times, AtFlags::EMPTY_PATH)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_notes_are_left_out_where_a_file_system_takes_none() {
        let set = |name, error| attributed(name, Err(error));
        assert_eq!(set("user.note", Errno::OPNOTSUPP), Ok(()));
        assert_eq!(set("user.note", Errno::NOSPC), Err(Errno::NOSPC));
        for name in [CAPABILITY, "system.posix_acl_access"] {
            assert_eq!(set(name, Errno::OPNOTSUPP), Err(Errno::OPNOTSUPP));
        }
    }
}
