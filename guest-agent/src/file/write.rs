//! Writes a file: at once when it is whole, or into what is there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use banger_proto::guest::v1::{FileInfo, FileKind, WriteFileStart, WriteMode};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Stat, Uid};
use rustix::io::Errno;

use super::change::{done, make_directories, mode, times};
use super::{Here, info, wrong};
use crate::refusal::{Problem, Refusal};
use crate::tree::unfinished::Unfinished;
use crate::tree::{failed, split, walk};

/// Permissions of new files about which nobody says anything.
const FILE_MODE: u32 = 0o644;
/// Mode of directories that are made on the way.
const DIRECTORY_MODE: u32 = 0o755;
/// What a file keeps of its mode when its content is another one: no setuid, no setgid.
const MODE_KEPT: u32 = 0o1777;

/// A file being written. Dropped before its end, a file that was to be replaced is as it was.
pub(super) struct Writer<'a> {
    here: &'a Here,
    start: &'a WriteFileStart,
    place: Place,
    /// Where the file ends, if it is to end after the last byte.
    end: Option<u64>,
    /// Of the file that was there.
    before: Option<Stat>,
}

/// Where the content goes.
enum Place {
    /// Into a file that takes its name at the end.
    Unfinished { file: Unfinished, name: Vec<u8> },
    /// Into the file itself.
    Itself(File),
}

impl<'a> Writer<'a> {
    pub(super) fn open(here: &'a Here, start: &'a WriteFileStart) -> Result<Self, Refusal> {
        // What cannot be is told before anything is made.
        start.permissions.map(mode).transpose()?;
        here.owner(&start.owner)?;
        match start.mode() {
            WriteMode::Replace | WriteMode::Create => Self::unfinished(here, start),
            WriteMode::Append => Self::itself(here, start, OFlags::APPEND),
            WriteMode::At => Self::itself(here, start, OFlags::empty()),
            WriteMode::Unspecified => Err(Refusal::invalid("it is not said how to write")),
        }
    }

    fn unfinished(here: &'a Here, start: &'a WriteFileStart) -> Result<Self, Refusal> {
        let path = &start.path[..];
        let (parent, name, before) = match present(here, start)? {
            Some((found, stat)) => {
                let (parent, name) = walk::resolved(&here.root, &found)?;
                (parent, name, Some(stat))
            }
            None => {
                let (parent, name) = vacant(here, start)?;
                (parent, name, None)
            }
        };
        let file =
            Unfinished::file(parent).map_err(|error| failed("making the file", path, error))?;
        Ok(Self {
            here,
            start,
            place: Place::Unfinished { file, name },
            end: None,
            before,
        })
    }

    fn itself(here: &'a Here, start: &'a WriteFileStart, flags: OFlags) -> Result<Self, Refusal> {
        let path = &start.path[..];
        // A pipe that nobody reads must not hold the thread.
        let flags = flags | OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let (opened, before) = match here.root.at(&here.inside(path)?, flags) {
            Ok(opened) => {
                let stat = regular(&opened, path)?;
                (opened, Some(stat))
            }
            Err(Errno::NOENT) => {
                let (parent, name) = vacant(here, start)?;
                let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let name = OsStr::from_bytes(&name);
                let made = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))
                    .map_err(|error| failed("making the file", path, error))?;
                (made, None)
            }
            Err(error) => return Err(failed("opening", path, error)),
        };
        let mut file = File::from(opened);
        let offset =
            u64::try_from(start.offset).map_err(|_| Refusal::invalid("an offset is negative"))?;
        let is_at = start.mode() == WriteMode::At;
        if is_at {
            file.seek(SeekFrom::Start(offset))
                .map_err(|error| failed("seeking", path, error))?;
        }
        Ok(Self {
            here,
            start,
            place: Place::Itself(file),
            end: (is_at && start.truncate).then_some(offset),
            before,
        })
    }

    /// Takes the next bytes.
    pub(super) fn data(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let mut file = match &self.place {
            Place::Unfinished { file, .. } => file.as_file(),
            Place::Itself(file) => file,
        };
        file.write_all(data)
            .map_err(|error| failed("writing", &self.start.path, error))?;
        if let Some(end) = &mut self.end {
            *end += data.len() as u64;
        }
        Ok(())
    }

    /// All of it has come.
    pub(super) fn finish(self) -> Result<FileInfo, Refusal> {
        let path = &self.start.path[..];
        let is_new = self.before.is_none();
        match self.place {
            Place::Itself(file) => {
                if let Some(end) = self.end {
                    file.set_len(end)
                        .map_err(|error| failed("shortening", path, error))?;
                }
                attribute(self.here, self.start, &file, is_new.then_some(FILE_MODE))?;
                self.here.describe(&file.into(), b"", path)
            }
            Place::Unfinished { file, name } => {
                let mode = self
                    .before
                    .as_ref()
                    .map_or(FILE_MODE, |stat| stat.st_mode & MODE_KEPT);
                if let Some(before) = &self.before {
                    keep_owner(file.as_file(), before);
                }
                attribute(self.here, self.start, file.as_file(), Some(mode))?;
                let flags = match self.start.mode() {
                    WriteMode::Create => RenameFlags::NOREPLACE,
                    _ => RenameFlags::empty(),
                };
                let published = file.publish(&name, flags);
                let file = published.map_err(|error| failed("giving it its name", path, error))?;
                done(self.here.describe(&file, b"", path))
            }
        }
    }
}

/// The file at the path, if there is one and it may be replaced.
fn present(here: &Here, start: &WriteFileStart) -> Result<Option<(OwnedFd, Stat)>, Refusal> {
    let path = &start.path[..];
    match here.root.at(&here.inside(path)?, OFlags::PATH) {
        Ok(_) if start.mode() == WriteMode::Create => {
            Err(wrong(Problem::Exists, path, "File exists"))
        }
        Ok(found) => {
            let stat = regular(&found, path)?;
            Ok(Some((found, stat)))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failed("opening", path, error)),
    }
}

/// Where a new file goes, which nothing has the name of.
fn vacant(here: &Here, start: &WriteFileStart) -> Result<(OwnedFd, Vec<u8>), Refusal> {
    let path = &start.path[..];
    let (parent, name) = match start.make_parents {
        false => here.entry(path)?,
        true => {
            let inside = here.inside(path)?;
            let (parent, name) = split(&inside);
            let mode = Mode::from_raw_mode(DIRECTORY_MODE);
            let parent = make_directories(here, parent, path, mode)?;
            (parent, name.to_vec())
        }
    };
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::statat(&parent, OsStr::from_bytes(&name), nofollow) {
        Err(Errno::NOENT) => Ok((parent, name)),
        Err(error) => Err(failed("looking at", path, error)),
        Ok(_) if start.mode() == WriteMode::Create => {
            Err(wrong(Problem::Exists, path, "File exists"))
        }
        // Nothing was found by following it.
        Ok(_) => Err(wrong(Problem::NotFound, path, "a link that leads nowhere")),
    }
}

/// What is known of a file, if it is a regular one.
fn regular(file: &OwnedFd, path: &[u8]) -> Result<Stat, Refusal> {
    let stat = rustix::fs::fstat(file).map_err(|error| failed("reading", path, error))?;
    match info::kind(stat.st_mode) {
        FileKind::File => Ok(stat),
        FileKind::Directory => Err(wrong(Problem::IsDirectory, path, "Is a directory")),
        _ => Err(wrong(Problem::NotRegular, path, "is no regular file")),
    }
}

/// The owner of the file that was there, as far as the user may give it: the rest is the user's.
fn keep_owner(file: &File, before: &Stat) {
    let owner = (Uid::from_raw(before.st_uid), Gid::from_raw(before.st_gid));
    if rustix::fs::fchown(file, Some(owner.0), Some(owner.1)).is_err() {
        let _ = rustix::fs::fchown(file, None, Some(owner.1));
    }
}

/// Owner, permissions and time, as they were asked for, or `mode`.
fn attribute(
    here: &Here,
    start: &WriteFileStart,
    file: &File,
    mode: Option<u32>,
) -> Result<(), Refusal> {
    let path = &start.path[..];
    if let Some((uid, gid)) = here.owner(&start.owner)? {
        let owner = (Some(Uid::from_raw(uid)), gid.map(Gid::from_raw));
        rustix::fs::fchown(file, owner.0, owner.1)
            .map_err(|error| failed("changing the owner", path, error))?;
    }
    // After the owner: a change of owner takes setuid away.
    if let Some(mode) = start.permissions.or(mode) {
        rustix::fs::fchmod(file, self::mode(mode)?)
            .map_err(|error| failed("changing the mode", path, error))?;
    }
    if let Some(mtime) = start.mtime {
        rustix::fs::futimens(file.as_fd(), &times(mtime))
            .map_err(|error| failed("setting the time", path, error))?;
    }
    Ok(())
}
