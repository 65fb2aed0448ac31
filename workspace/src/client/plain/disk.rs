//! The owner's directory: looked at and changed by descriptors, without following a link.
//!
//! What is replaced or removed is first moved aside and looked at once more: what somebody wrote since it was compared is
//! put back, and told.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat, fchmod, fstat, mkdirat, openat,
    readlinkat, renameat, renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::Leaf;
use crate::beneath;
use crate::client::error::{Error, Result};
use crate::client::lines::path;
use crate::wire::limits::DEPTH_MAX;

const WHAT_LOOK: &str = "look at";
const WHAT_CHANGE: &str = "change";
/// Permission bits that are compared and set.
const MODE_KEPT: u32 = 0o777;

/// What tells that somebody wrote to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64, u64, i64, i64, i64);

impl Mark {
    fn of(stat: &Stat) -> Self {
        let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
        Self(
            stat.st_dev,
            stat.st_ino,
            stat.st_size,
            stat.st_mtime,
            nanoseconds,
        )
    }
}

/// What is at a path here.
#[derive(Debug, Clone)]
pub(super) struct Here {
    pub(super) leaf: Leaf,
    pub(super) mark: Mark,
}

/// Whether something could be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    Yes,
    /// Somebody changed it since it was looked at: it is as they left it.
    Moved,
}

/// The directory.
#[derive(Debug)]
pub(super) struct Disk {
    top: PathBuf,
    root: OwnedFd,
}

impl Disk {
    pub(super) fn open(top: &Path) -> Result<Self> {
        let root = beneath::open(top).map_err(Error::file(WHAT_LOOK, top))?;
        Ok(Self {
            top: top.to_owned(),
            root,
        })
    }

    fn failed(&self, what: &'static str, at: &[u8]) -> impl FnOnce(Errno) -> Error + use<> {
        let failed = Error::file(what, self.top.join(path(at)));
        move |error| failed(error.into())
    }

    /// What is at a path; none where nothing is, or a link or file is on the way.
    pub(super) fn look(&self, at: &[u8]) -> Result<Option<Here>> {
        let found = beneath::look(&self.root, at).map_err(self.failed(WHAT_LOOK, at))?;
        let Some(stat) = found else {
            return Ok(None);
        };
        let mode = stat.st_mode & MODE_KEPT;
        let (leaf, mark) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.look_into(at).map(Some),
            FileType::Symlink => {
                let target = beneath::open_beneath_link(&self.root, at)
                    .and_then(|link| readlinkat(link, "", Vec::new()));
                let target = target.map_err(self.failed(WHAT_LOOK, at))?;
                let target = target.into_bytes().into();
                (Leaf::Symlink { target }, Mark::of(&stat))
            }
            FileType::Directory => (Leaf::Directory { mode }, Mark::of(&stat)),
            _ => (Leaf::Unsure, Mark::of(&stat)),
        };
        Ok(Some(Here { leaf, mark }))
    }

    fn look_into(&self, at: &[u8]) -> Result<Here> {
        let mut file = self.read(at)?;
        let stat = fstat(&file).map_err(self.failed(WHAT_LOOK, at))?;
        let mut digest = Sha256::new();
        io::copy(&mut file, &mut digest)
            .map_err(Error::file(WHAT_LOOK, self.top.join(path(at))))?;
        let leaf = Leaf::File {
            mode: stat.st_mode & MODE_KEPT,
            sha256: digest.finalize().to_vec().into(),
        };
        Ok(Here {
            leaf,
            mark: Mark::of(&stat),
        })
    }

    /// A file, to be read.
    pub(super) fn read(&self, at: &[u8]) -> Result<File> {
        // A pipe that took the file's place is not waited for.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = beneath::open_beneath(&self.root, at, flags);
        Ok(opened.map_err(self.failed(WHAT_LOOK, at))?.into())
    }

    /// Whether there is anything but directories in a directory that is not in `going`.
    pub(super) fn has_others(&self, at: &[u8], going: &dyn Fn(&[u8]) -> bool) -> Result<bool> {
        let mut ahead = vec![at.to_vec()];
        while let Some(at) = ahead.pop() {
            for (name, kind) in self.names(&at)? {
                let inside = [&at[..], b"/", &name].concat();
                let depth = inside.iter().filter(|&&byte| byte == b'/').count();
                match kind {
                    FileType::Directory if depth < DEPTH_MAX => ahead.push(inside),
                    FileType::Directory => return Ok(true),
                    _ if going(&inside) => {}
                    _ => return Ok(true),
                }
            }
        }
        Ok(false)
    }

    fn names(&self, at: &[u8]) -> Result<Vec<(Vec<u8>, FileType)>> {
        let read = || -> rustix::io::Result<Vec<(Vec<u8>, FileType)>> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory = beneath::open_beneath(&self.root, at, flags)?;
            let mut names = Vec::new();
            let mut entries = Dir::read_from(&directory)?;
            while let Some(entry) = entries.read() {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let kind = FileType::from_raw_mode(stat.st_mode);
                names.push((name.to_bytes().to_vec(), kind));
            }
            Ok(names)
        };
        read().map_err(self.failed(WHAT_LOOK, at))
    }

    /// The directory that something at a path lies in.
    fn parent<'a>(&self, at: &'a [u8]) -> rustix::io::Result<(OwnedFd, &'a OsStr)> {
        let (parent, name) = beneath::split(at);
        let parent: &[u8] = if parent.is_empty() { b"." } else { parent };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = beneath::open_beneath(&self.root, parent, flags)?;
        Ok((parent, OsStr::from_bytes(name)))
    }

    /// Removes a file or link that is what was looked at.
    pub(super) fn remove(&self, at: &[u8], mark: Mark) -> Result<Done> {
        let removed = || {
            let (parent, name) = self.parent(at)?;
            let aside = aside();
            match move_new(&parent, name, &parent, OsStr::new(&aside)) {
                Err(Errno::NOENT) => return Ok(Done::Moved),
                moved => moved?,
            }
            if is_still(&parent, OsStr::new(&aside), mark) {
                unlinkat(&parent, &aside, AtFlags::empty())?;
                return Ok(Done::Yes);
            }
            move_new(&parent, OsStr::new(&aside), &parent, name)?;
            Ok(Done::Moved)
        };
        removed().map_err(self.failed(WHAT_CHANGE, at))
    }

    /// Puts a file there; `former` is what was looked at there, and none where nothing may be there.
    pub(super) fn put_file(
        &self,
        at: &[u8],
        mode: u32,
        content: &mut dyn Read,
        former: Option<Mark>,
    ) -> Result<Done> {
        let failed = || Error::file(WHAT_CHANGE, self.top.join(path(at)));
        let (parent, name) = self.parent(at).map_err(self.failed(WHAT_CHANGE, at))?;
        let aside = aside();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&parent, &aside, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.map_err(self.failed(WHAT_CHANGE, at))?);
        let written = io::copy(content, &mut file).and_then(|_| {
            file.flush()?;
            fchmod(&file, Mode::from_raw_mode(mode & MODE_KEPT))?;
            Ok(())
        });
        let placed = match written {
            Ok(()) => place(&parent, &aside, name, former).map_err(io::Error::from),
            Err(error) => Err(error),
        };
        if !matches!(placed, Ok(Done::Yes)) {
            let _ = unlinkat(&parent, &aside, AtFlags::empty());
        }
        placed.map_err(failed())
    }

    /// The same of a link.
    pub(super) fn put_link(&self, at: &[u8], target: &[u8], former: Option<Mark>) -> Result<Done> {
        let put = || {
            let (parent, name) = self.parent(at)?;
            let aside = aside();
            symlinkat(OsStr::from_bytes(target), &parent, &aside)?;
            let placed = place(&parent, &aside, name, former);
            if placed != Ok(Done::Yes) {
                let _ = unlinkat(&parent, &aside, AtFlags::empty());
            }
            placed
        };
        put().map_err(self.failed(WHAT_CHANGE, at))
    }

    /// Makes a directory and those on the way; one that is there stays. Whether it was made.
    pub(super) fn make_directory(&self, at: &[u8]) -> Result<bool> {
        let make = || {
            let mut is_new = false;
            let ends = at.iter().enumerate();
            let ends = ends.filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
            for end in ends.chain([at.len()]) {
                let (parent, name) = self.parent(&at[..end])?;
                is_new = match mkdirat(&parent, name, Mode::from_raw_mode(MODE_KEPT)) {
                    Ok(()) => true,
                    Err(Errno::EXIST) => false,
                    Err(error) => return Err(error),
                };
            }
            Ok(is_new)
        };
        make().map_err(self.failed(WHAT_CHANGE, at))
    }

    /// Sets a directory's permissions.
    pub(super) fn set_mode(&self, at: &[u8], mode: u32) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let set = beneath::open_beneath(&self.root, at, flags)
            .and_then(|directory| fchmod(&directory, Mode::from_raw_mode(mode & MODE_KEPT)));
        set.map_err(self.failed(WHAT_CHANGE, at))
    }

    /// Removes a directory, if nothing is in it. Whether it is gone.
    pub(super) fn remove_directory(&self, at: &[u8]) -> Result<bool> {
        let removed = self
            .parent(at)
            .and_then(|(parent, name)| unlinkat(&parent, name, AtFlags::REMOVEDIR));
        match removed {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::LOOP) => {
                Ok(false)
            }
            Err(error) => Err(self.failed(WHAT_CHANGE, at)(error)),
        }
    }

    /// Removes a directory in which there are only directories; that it is gone already is as good.
    pub(super) fn remove_directories(&self, at: &[u8]) -> Result<bool> {
        if matches!(beneath::look(&self.root, at), Ok(None)) {
            return Ok(true);
        }
        for (name, kind) in self.names(at)? {
            if kind == FileType::Directory {
                self.remove_directories(&[at, b"/", &name].concat())?;
            }
        }
        self.remove_directory(at)
    }
}

/// A name for something on its way.
fn aside() -> String {
    format!(".banger-{}", uuid::Uuid::new_v4())
}

fn is_still(parent: &OwnedFd, name: &OsStr, mark: Mark) -> bool {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| Mark::of(&stat) == mark)
}

/// Renames to a name that nothing has.
fn move_new(from: &OwnedFd, name: &OsStr, to: &OwnedFd, new: &OsStr) -> rustix::io::Result<()> {
    match renameat_with(from, name, to, new, RenameFlags::NOREPLACE) {
        // A file system that cannot look and rename at once.
        Err(Errno::INVAL | Errno::NOSYS) => match statat(to, new, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => renameat(from, name, to, new),
            Ok(_) => Err(Errno::EXIST),
            Err(error) => Err(error),
        },
        renamed => renamed,
    }
}

/// Gives what was made aside its name.
fn place(
    parent: &OwnedFd,
    aside: &str,
    name: &OsStr,
    former: Option<Mark>,
) -> rustix::io::Result<Done> {
    let aside = OsStr::new(aside);
    let Some(mark) = former else {
        return match move_new(parent, aside, parent, name) {
            Ok(()) => Ok(Done::Yes),
            Err(Errno::EXIST) => Ok(Done::Moved),
            Err(error) => Err(error),
        };
    };
    match renameat_with(parent, aside, parent, name, RenameFlags::EXCHANGE) {
        Ok(()) if is_still(parent, aside, mark) => {
            unlinkat(parent, aside, AtFlags::empty())?;
            Ok(Done::Yes)
        }
        Ok(()) => {
            renameat_with(parent, aside, parent, name, RenameFlags::EXCHANGE)?;
            Ok(Done::Moved)
        }
        Err(Errno::NOENT) => Ok(Done::Moved),
        // A file system that cannot exchange.
        Err(Errno::INVAL | Errno::NOSYS) => match is_still(parent, name, mark) {
            true => renameat(parent, aside, parent, name).map(|()| Done::Yes),
            false => Ok(Done::Moved),
        },
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in a directory, by names.
    fn names(top: &Path) -> Vec<String> {
        let names = std::fs::read_dir(top).unwrap().flatten();
        let mut names: Vec<String> = names
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_written_since_it_was_looked_at_is_left() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let disk = Disk::open(top.path()).unwrap();
        let mark = disk.look(b"file").unwrap().unwrap().mark;
        std::fs::write(&file, "later").unwrap();
        let put = |former| disk.put_file(b"file", 0o644, &mut &b"theirs"[..], former);
        assert_eq!(put(Some(mark)).unwrap(), Done::Moved);
        assert_eq!(put(None).unwrap(), Done::Moved);
        assert_eq!(
            disk.put_link(b"file", b"x", Some(mark)).unwrap(),
            Done::Moved
        );
        assert_eq!(disk.remove(b"file", mark).unwrap(), Done::Moved);
        assert_eq!(std::fs::read(&file).unwrap(), b"later");
        assert_eq!(names(top.path()), ["file"]);
        let mark = disk.look(b"file").unwrap().unwrap().mark;
        assert_eq!(put(Some(mark)).unwrap(), Done::Yes);
        assert_eq!(std::fs::read(&file).unwrap(), b"theirs");
        assert_eq!(names(top.path()), ["file"]);
        let mark = disk.look(b"file").unwrap().unwrap().mark;
        assert_eq!(disk.remove(b"file", mark).unwrap(), Done::Yes);
        assert!(names(top.path()).is_empty());
    }

    #[test]
    fn nothing_behind_a_link_is_looked_at_or_changed() {
        let top = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("sub")).unwrap();
        std::fs::write(outside.path().join("sub/file"), "one").unwrap();
        std::os::unix::fs::symlink(outside.path(), top.path().join("link")).unwrap();
        let disk = Disk::open(top.path()).unwrap();
        assert!(disk.look(b"link/sub/file").unwrap().is_none());
        assert!(disk.read(b"link/sub/file").is_err());
        let put = disk.put_file(b"link/sub/new", 0o644, &mut &b"theirs"[..], None);
        assert!(put.is_err());
        assert!(disk.put_link(b"link/sub/new", b"x", None).is_err());
        assert!(disk.make_directory(b"link/sub/new").is_err());
        assert!(!disk.remove_directory(b"link/sub").unwrap());
        assert_eq!(names(&outside.path().join("sub")), ["file"]);
    }
}
