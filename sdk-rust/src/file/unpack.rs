//! Unpacks what came out of a VM, beneath one directory and nowhere else.
//!
//! The guest is hostile, and so is what it sends. Every directory on the way to an entry is opened by openat2(2) beneath
//! the handle of the one directory, with no symbolic link on the way; files are made under names of their own, by
//! handle, and take their names when they are whole. So `..`, absolute names, links that were planted before (by the
//! archive or by others), and names that repeat lead nowhere. Devices and pipes are not made. Owners, setuid, setgid and
//! sticky, and attributes that mean something to the system, are dropped. Hard links are made to what came in the same
//! archive only.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use banger_archive::{Budget, StreamInput, TarPieces, shown};
use banger_core::tree::{DataRange, TreeEntry, TreeKind, TreePiece};
use banger_proto::v1;
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT,
    XattrFlags,
};
use rustix::io::Errno;
use uuid::Uuid;

use crate::error::{Error, Result};

/// What is kept of a mode: no setuid, no setgid, no sticky.
const MODE_KEPT: u16 = 0o777;
/// What a directory's owner needs to put something into it.
const OWNERS: u16 = 0o700;
/// Attributes that are kept: those of users. The others mean something to the system.
const XATTRS_KEPT: &str = "user.";
/// Names of what was left out that are told.
const TOLD_MAX: usize = 20;

/// How a download is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpack {
    /// What is in the directory, into the target, instead of the directory itself.
    pub contents: bool,
    /// Refuses a directory: one file was asked for, whatever the guest says now.
    pub file_only: bool,
    /// Bounds on what comes.
    pub limits: UnpackLimits,
}

/// Bounds on what is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Files, directories and links.
    pub entries: u64,
    /// Lengths of all files together, holes included.
    pub bytes: u64,
}

impl Default for UnpackLimits {
    /// A million entries and a TiB.
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 1 << 40,
        }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unpacked {
    /// Files, directories and links that were made.
    pub entries: u64,
    /// Bytes of contents that were written.
    pub bytes: u64,
    /// Devices and pipes, which are not made.
    pub skipped: u64,
    /// The first names of those.
    pub skipped_names: Vec<String>,
    /// What did not come out of the VM, or not as it is there, as the VM tells it.
    pub omissions: v1::Omissions,
}

/// Where things go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Naming {
    /// The one directory.
    directory: PathBuf,
    /// Whether it may be missing.
    makes_directory: bool,
    /// What every name in the archive must begin with; empty for what is in a root or home directory.
    top: Vec<u8>,
    /// What it becomes; absent where only what is beneath counts.
    becomes: Option<Vec<u8>>,
}

impl Naming {
    /// As cp(1) has it: into `target` if it is a directory, and otherwise by that name. A link that is named is followed,
    /// and what is no file is not replaced by one.
    ///
    /// # Errors
    /// Where `target` ends with a slash and is no directory, is a link that leads nowhere, or a device, pipe or socket.
    pub(super) fn of(target: &Path, top: &str, contents: bool) -> Result<Self> {
        let failed = |source| Error::Unpack {
            path: target.to_owned(),
            source,
        };
        let is_content = contents || top.is_empty();
        let mut target = Cow::Borrowed(target);
        if !is_content && !target.is_dir() {
            if target.as_os_str().as_bytes().ends_with(b"/") {
                return Err(failed(io::ErrorKind::NotADirectory.into()));
            }
            if target.is_symlink() {
                target = Cow::Owned(std::fs::canonicalize(&target).map_err(failed)?);
            }
            if target.exists() && !target.is_file() {
                let problem = "it is a device, a pipe or a socket, and no file takes its place";
                return Err(failed(io::Error::other(problem)));
            }
        }
        Ok(Self::at(&target, top, is_content))
    }

    fn at(target: &Path, top: &str, is_content: bool) -> Self {
        let top = top.as_bytes().to_vec();
        let last = target.file_name().map(|name| name.as_bytes().to_vec());
        let naming = |directory: &Path, makes_directory, becomes| Self {
            directory: match directory.as_os_str().is_empty() {
                true => PathBuf::from("."),
                false => directory.to_owned(),
            },
            makes_directory,
            top: top.clone(),
            becomes,
        };
        match last {
            _ if is_content => naming(target, true, None),
            Some(name) if !target.is_dir() => {
                let parent = target.parent().unwrap_or(Path::new("."));
                naming(parent, false, Some(name))
            }
            _ => naming(target, false, Some(top.clone())),
        }
    }

    /// The path of an entry beneath the directory; `None` for the directory itself.
    fn path(&self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let inside = match &self.top[..] {
            b"" => path,
            top => match path.strip_prefix(top) {
                Some(b"") => b"",
                Some([b'/', inside @ ..]) => inside,
                _ => return Err(unsafe_entry(path, "is not beneath what was asked for")),
            },
        };
        Ok(match (&self.becomes, inside) {
            (None, b"") => None,
            (None, inside) => Some(inside.to_vec()),
            (Some(name), b"") => Some(name.clone()),
            (Some(name), inside) => Some([name, inside].join(&b'/')),
        })
    }
}

fn unsafe_entry(path: &[u8], problem: &'static str) -> Error {
    Error::UnsafeEntry {
        path: shown(path),
        problem,
    }
}

/// Unpacks one archive.
pub(super) struct Unpacker {
    naming: Naming,
    unpack: Unpack,
    root: OwnedFd,
    /// The directory of the last entry, which the next one most likely shares.
    parent: Option<(Vec<u8>, OwnedFd)>,
    file: Option<Unfinished>,
    /// Device and number of the files and links that came, and could be links of what comes.
    came: HashSet<(u64, u64)>,
    /// What was left out, and so could not.
    left_out: HashSet<Vec<u8>>,
    /// Directories that were made, whose modes and times come last.
    made: Vec<(Vec<u8>, u16, (i64, u32))>,
    seen: UnpackLimits,
    unpacked: Unpacked,
}

/// A file that goes again unless it gets its name.
struct Unfinished {
    parent: OwnedFd,
    /// Until it is whole.
    temporary: String,
    /// Then.
    path: Vec<u8>,
    file: File,
    entry: TreeEntry,
    ranges: IntoIter<DataRange>,
    /// Of the range that is being written.
    left: u64,
    is_published: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_published {
            // What cannot be removed, because the directory went, is gone with it.
            let _ = rustix::fs::unlinkat(&self.parent, &*self.temporary, AtFlags::empty());
        }
    }
}

impl Unpacker {
    /// Opens the one directory.
    pub(super) fn open(naming: Naming, unpack: Unpack) -> Result<Self> {
        let directory = naming.directory.clone();
        let failed = |source| Error::Unpack {
            path: directory.clone(),
            source,
        };
        if naming.makes_directory && !directory.is_dir() {
            std::fs::create_dir(&directory).map_err(failed)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&directory, flags, Mode::empty());
        Ok(Self {
            naming,
            unpack,
            root: root.map_err(|error| failed(error.into()))?,
            parent: None,
            file: None,
            came: HashSet::new(),
            left_out: HashSet::new(),
            made: Vec::new(),
            seen: UnpackLimits {
                entries: 0,
                bytes: 0,
            },
            unpacked: Unpacked::default(),
        })
    }

    /// Unpacks `archive` to its end.
    pub(super) fn run(mut self, archive: &mut dyn Read) -> Result<Unpacked> {
        let budget = Budget::default();
        let mut pieces = TarPieces::new(StreamInput::new(&mut *archive), &budget);
        while let Some(piece) = pieces.next_piece().map_err(Error::Archive)? {
            match piece {
                TreePiece::Entry(entry) => self.entry(*entry)?,
                TreePiece::Data(data) => self.data(&data)?,
            }
        }
        // The end of the stream says that it is whole, not the mark in the archive.
        io::copy(archive, &mut io::sink())
            .map_err(|error| Error::Archive(banger_archive::TarError::Read(error)))?;
        self.finish()
    }

    fn failed(&self, path: &[u8], error: impl Into<io::Error>) -> Error {
        Error::Unpack {
            path: self.naming.directory.join(OsStr::from_bytes(path)),
            source: error.into(),
        }
    }

    /// Opens what is at a path beneath the directory. No link is followed.
    fn at(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = OsStr::from_bytes(if path.is_empty() { b"." } else { path });
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::CLOEXEC;
        // EAGAIN: something on the way was renamed meanwhile. Asking again is what is left.
        loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
    }

    /// The directory that an entry lies in.
    fn parent(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let wanted = split(path).0;
        let copied = |directory: &OwnedFd| directory.try_clone();
        if let Some((known, directory)) = &self.parent
            && known == wanted
        {
            return copied(directory).map_err(|error| self.failed(path, error));
        }
        let opened = match self.at(wanted, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(opened) => opened,
            Err(Errno::LOOP | Errno::XDEV | Errno::NOTDIR) => {
                return Err(unsafe_entry(path, "lies behind a link or a file"));
            }
            Err(Errno::NOENT) => {
                return Err(unsafe_entry(path, "lies in a directory that did not come"));
            }
            Err(error) => return Err(self.failed(path, error)),
        };
        let copy = copied(&opened).map_err(|error| self.failed(path, error))?;
        self.parent = Some((wanted.to_vec(), copy));
        Ok(opened)
    }

    fn entry(&mut self, entry: TreeEntry) -> Result<()> {
        self.end_file()?;
        self.bound(&entry)?;
        if self.unpack.file_only && matches!(entry.kind, TreeKind::Directory) {
            return Err(unsafe_entry(
                &entry.path,
                "is a directory, where a file was asked for",
            ));
        }
        let Some(path) = self.naming.path(&entry.path)? else {
            return match entry.kind {
                TreeKind::Directory => Ok(()),
                _ => Err(unsafe_entry(&entry.path, "is no directory")),
            };
        };
        match &entry.kind {
            TreeKind::Directory => self.directory(&path, &entry)?,
            TreeKind::File { .. } | TreeKind::SparseFile { .. } => self.file(path, entry)?,
            TreeKind::Symlink { target } => self.symlink(&path, target)?,
            TreeKind::HardLink { target } => {
                if !self.hard_link(&path, target)? {
                    self.leave_out(path);
                    return Ok(());
                }
            }
            _ => {
                self.leave_out(path);
                return Ok(());
            }
        }
        self.unpacked.entries += 1;
        Ok(())
    }

    fn leave_out(&mut self, path: Vec<u8>) {
        self.unpacked.skipped += 1;
        if self.unpacked.skipped_names.len() < TOLD_MAX {
            self.unpacked.skipped_names.push(shown(&path));
        }
        self.left_out.insert(path);
    }

    fn bound(&mut self, entry: &TreeEntry) -> Result<()> {
        let size = match entry.kind {
            TreeKind::File { size } | TreeKind::SparseFile { size, .. } => size,
            _ => 0,
        };
        self.seen.entries += 1;
        self.seen.bytes = self.seen.bytes.saturating_add(size);
        if self.seen.entries > self.unpack.limits.entries {
            return Err(unsafe_entry(&entry.path, "is one more than may come"));
        }
        if self.seen.bytes > self.unpack.limits.bytes {
            return Err(unsafe_entry(&entry.path, "is larger than may come"));
        }
        Ok(())
    }

    /// A directory; one that is there stays as it is.
    fn directory(&mut self, path: &[u8], entry: &TreeEntry) -> Result<()> {
        let parent = self.parent(path)?;
        let name = OsStr::from_bytes(split(path).1);
        let mode = entry.mode & MODE_KEPT;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode((mode | OWNERS).into())) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW);
                let stat = stat.map_err(|error| self.failed(path, error))?;
                return match FileType::from_raw_mode(stat.st_mode).is_dir() {
                    true => Ok(()),
                    false => Err(self.failed(path, Errno::NOTDIR)),
                };
            }
            Err(error) => return Err(self.failed(path, error)),
        }
        let made = self.at(path, OFlags::RDONLY | OFlags::DIRECTORY);
        let made = made.map_err(|error| self.failed(path, error))?;
        set_xattrs(&made, entry);
        self.made.push((path.to_vec(), mode, entry.mtime));
        Ok(())
    }

    /// Refuses a directory that is in the way.
    fn free(&self, parent: &OwnedFd, path: &[u8]) -> Result<()> {
        let name = OsStr::from_bytes(split(path).1);
        match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {
                Err(self.failed(path, Errno::ISDIR))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed(path, error)),
        }
    }

    fn file(&mut self, path: Vec<u8>, mut entry: TreeEntry) -> Result<()> {
        let parent = self.parent(&path)?;
        self.free(&parent, &path)?;
        let temporary = temporary();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&parent, &*temporary, flags, mode)
            .map_err(|error| self.failed(&path, error))?;
        let (left, ranges) = match &mut entry.kind {
            TreeKind::File { size } => (*size, Vec::new()),
            TreeKind::SparseFile { ranges, .. } => (0, std::mem::take(ranges)),
            _ => (0, Vec::new()),
        };
        self.file = Some(Unfinished {
            parent,
            temporary,
            path,
            file: file.into(),
            entry,
            ranges: ranges.into_iter(),
            left,
            is_published: false,
        });
        self.next_range()
    }

    /// Goes on with the next range of the file, if this one is written; ends the file after the last.
    fn next_range(&mut self) -> Result<()> {
        let Some(open) = &mut self.file else {
            return Ok(());
        };
        while open.left == 0 {
            let Some(range) = open.ranges.next() else {
                return self.end_file();
            };
            open.left = range.length;
            if let Err(error) = open.file.seek(SeekFrom::Start(range.offset)) {
                let path = open.path.clone();
                return Err(self.failed(&path, error));
            }
        }
        Ok(())
    }

    fn data(&mut self, data: &[u8]) -> Result<()> {
        let Some(open) = &mut self.file else {
            return Err(unsafe_entry(b"", "is content of no file"));
        };
        let written = open.file.write_all(data);
        open.left = open.left.saturating_sub(data.len() as u64);
        if let Err(error) = written {
            let path = open.path.clone();
            return Err(self.failed(&path, error));
        }
        self.unpacked.bytes += data.len() as u64;
        self.next_range()
    }

    /// The last file is whole: it gets what it is to have, and its name.
    fn end_file(&mut self) -> Result<()> {
        let Some(mut open) = self.file.take() else {
            return Ok(());
        };
        let id = open
            .publish()
            .map_err(|error| self.failed(&open.path, error))?;
        self.came.insert(id);
        Ok(())
    }

    fn symlink(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let parent = self.parent(path)?;
        self.free(&parent, path)?;
        let temporary = temporary();
        let made = rustix::fs::symlinkat(OsStr::from_bytes(target), &parent, &*temporary);
        made.map_err(|error| self.failed(path, error))?;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statat(&parent, &*temporary, nofollow)
            .map_err(|error| self.failed(path, error))?;
        self.rename(&parent, &temporary, path)?;
        self.came.insert((stat.st_dev, stat.st_ino));
        Ok(())
    }

    /// False where it is another name of what was left out.
    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<bool> {
        let target = self
            .naming
            .path(target)?
            .ok_or_else(|| unsafe_entry(path, "is another name of a directory"))?;
        if self.left_out.contains(&target) {
            return Ok(false);
        }
        let unknown = || unsafe_entry(path, "is another name of what did not come");
        let found = self.at(split(&target).0, OFlags::PATH | OFlags::DIRECTORY);
        let found = found.map_err(|_| unknown())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = OsStr::from_bytes(split(&target).1);
        let found =
            rustix::fs::openat(&found, name, flags, Mode::empty()).map_err(|_| unknown())?;
        let stat = rustix::fs::fstat(&found).map_err(|error| self.failed(path, error))?;
        if !self.came.contains(&(stat.st_dev, stat.st_ino)) {
            return Err(unknown());
        }
        let parent = self.parent(path)?;
        self.free(&parent, path)?;
        let temporary = temporary();
        let by_descriptor = format!("/proc/self/fd/{}", found.as_raw_fd());
        let follow = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(
            rustix::fs::CWD,
            &*by_descriptor,
            &parent,
            &*temporary,
            follow,
        )
        .map_err(|error| self.failed(path, error))?;
        self.rename(&parent, &temporary, path)?;
        // Of two names of one file, rename(2) does nothing and leaves both.
        let _ = rustix::fs::unlinkat(&parent, &*temporary, AtFlags::empty());
        Ok(true)
    }

    /// Gives a link its name; it goes if that fails.
    fn rename(&self, parent: &OwnedFd, temporary: &str, path: &[u8]) -> Result<()> {
        let name = OsStr::from_bytes(split(path).1);
        let flags = RenameFlags::empty();
        rustix::fs::renameat_with(parent, temporary, parent, name, flags).map_err(|error| {
            let _ = rustix::fs::unlinkat(parent, temporary, AtFlags::empty());
            self.failed(path, error)
        })
    }

    fn finish(mut self) -> Result<Unpacked> {
        self.end_file()?;
        // The deepest first: what is set in a directory does not change those above it, and needs the way to it.
        for (path, mode, mtime) in std::mem::take(&mut self.made).iter().rev() {
            let opened = self.at(path, OFlags::RDONLY | OFlags::DIRECTORY);
            let directory = opened.map_err(|error| self.failed(path, error))?;
            rustix::fs::fchmod(&directory, Mode::from_raw_mode((*mode).into()))
                .and_then(|()| rustix::fs::futimens(&directory, &times(*mtime)))
                .map_err(|error| self.failed(path, error))?;
        }
        Ok(self.unpacked)
    }
}

impl Unfinished {
    /// Device and number of the file.
    fn publish(&mut self) -> io::Result<(u64, u64)> {
        if self.left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let TreeKind::SparseFile { size, .. } = self.entry.kind {
            self.file.set_len(size)?;
        }
        let mode = self.entry.mode & MODE_KEPT;
        // Before a mode that forbids to write.
        set_xattrs(&self.file, &self.entry);
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode.into()))?;
        rustix::fs::futimens(&self.file, &times(self.entry.mtime))?;
        let name = OsStr::from_bytes(split(&self.path).1);
        let (parent, flags) = (&self.parent, RenameFlags::empty());
        rustix::fs::renameat_with(parent, &*self.temporary, parent, name, flags)?;
        self.is_published = true;
        let stat = rustix::fs::fstat(&self.file)?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

/// Directory and name of a path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    banger_archive::parent_and_name(path)
}

/// A name that nothing has.
fn temporary() -> String {
    format!(".banger-{}.part", Uuid::new_v4().simple())
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanos.into(),
        },
    }
}

/// Attributes of users, where the file system here takes them.
fn set_xattrs(file: impl rustix::fd::AsFd, entry: &TreeEntry) {
    for (name, value) in &entry.xattrs {
        if name.starts_with(XATTRS_KEPT) {
            // A file system that takes none, or not as many, keeps the file without.
            let _ = rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests;
