//! A tree that is made beside a workspace and takes its place by one rename.
//!
//! Where the workspace is there already, the new tree begins as a copy of it that shares its files by hard links:
//! nothing is ever written into a file that was there, so the old tree stays what it is until it is exchanged.
//!
//! ```text
//! work                    .work.banger-new        .work.banger-old
//! former   copied ──────▶ new, synced
//! new      ◀─ exchanged ─▶ former ── renamed ───▶ former, removed when the answer is given
//! ```

use std::ffi::{CStr, OsStr};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat, StatxAttributes,
    StatxFlags, XattrFlags, fchmod, fgetxattr, flock, fsetxattr, linkat, mkdirat, openat,
    readlinkat, renameat_with, statat, statx, symlinkat,
};
use rustix::io::Errno;

use super::index_file::{self, Relinked};
use super::look::Opened;
use super::tally::{self, At, Tally};
use super::tree::{DIRECTORY_MODE, open};
use super::{Place, WorkError};

/// Bytes of the workspace's name in the names beside it: what a file system takes, less what is added.
const NAME_BYTES: usize = 200;
/// The attribute of a tree that says in which state it was made.
const STATE_ATTRIBUTE: &str = "user.banger.state";
/// Bytes of a state.
const STATE_BYTES: usize = 32;
/// The longest wait for who prepared the same workspace before and was cut off.
const FORMER_GONE_WITHIN: Duration = Duration::from_secs(10);
/// Directories within each other that are copied: more than a path has room for.
const DEPTH_MAX: usize = 2048;

/// A tree in the making. Dropped, it is removed again.
#[derive(Debug)]
pub(super) struct Stage {
    /// Where it is made.
    pub(super) path: PathBuf,
    target: PathBuf,
    old: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Stage {
    /// Begins a tree for a workspace, alone; what an earlier one left is removed.
    pub(super) fn begin(place: &Place) -> Result<Self, WorkError> {
        if is_mounted(&place.path) {
            return Err(WorkError::MountPoint { path: place.name() });
        }
        let name = place.path.file_name().unwrap_or_default().as_bytes();
        let name = &name[..name.len().min(NAME_BYTES)];
        let beside = |suffix: &[u8]| {
            let name = [b".", name, suffix].concat();
            place.path.with_file_name(OsStr::from_bytes(&name))
        };
        let lock = beside(b".banger-lock");
        let held = hold(&lock, place)?;
        let path = beside(b".banger-new");
        let old = beside(b".banger-old");
        for left in [&path, &old] {
            remove(left).map_err(WorkError::file("removing", left))?;
        }
        let stage = Self {
            path,
            target: place.path.clone(),
            old,
            lock,
            _held: held,
        };
        fs::create_dir(&stage.path).map_err(WorkError::file("making", &stage.path))?;
        let mode = Permissions::from_mode(DIRECTORY_MODE);
        fs::set_permissions(&stage.path, mode).map_err(WorkError::file("making", &stage.path))?;
        Ok(stage)
    }

    /// Makes the tree a copy of the workspace, whose repositories are `repositories`, and tells what that was.
    pub(super) fn copy<'a>(
        &self,
        repositories: impl Iterator<Item = &'a Opened>,
    ) -> Result<Tally, WorkError> {
        let mut copying = Copying::default();
        let copied = open(&self.target).and_then(|from| {
            let to = open(&self.path)?;
            copying.copy(&from, &to, How::Link, At::default(), 0)
        });
        copied.map_err(WorkError::file("copying", &self.target))?;
        for repository in repositories {
            // One that lies elsewhere is no part of the tree.
            let Ok(inside) = repository.git_dir.strip_prefix(&self.target) else {
                continue;
            };
            let (index, former) = (
                self.path.join(inside).join("index"),
                repository.git_dir.join("index"),
            );
            let written = fs::symlink_metadata(&former).and_then(|found| found.modified());
            let retimed = match written {
                Ok(written) => {
                    index_file::retime(&index, repository.format, &copying.relinked, written)
                }
                // There is none.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
            retimed.map_err(WorkError::file("copying", &former))?;
        }
        Ok(copying.tally)
    }

    /// What the workspace is now.
    pub(super) fn tally(&self) -> Result<Tally, WorkError> {
        let tally = open(&self.target).and_then(|tree| Ok(Tally::of(&tree)?));
        tally.map_err(WorkError::file("looking at", &self.target))
    }

    /// Marks the tree with its state, so that a tree that is as it was made is known whatever became of who wanted it.
    pub(super) fn mark(&self, state: &[u8]) {
        // A file system without such attributes leaves it to the host to remember.
        let _ = open(&self.path)
            .map(|tree| fsetxattr(&tree, STATE_ATTRIBUTE, state, XattrFlags::empty()));
    }

    /// Puts the tree in the workspace's place, at once, and returns what was there.
    pub(super) fn publish(self) -> Result<Former, WorkError> {
        let synced = open(&self.path).and_then(|tree| Ok(rustix::fs::syncfs(tree)?));
        synced.map_err(WorkError::file("writing to the disk", &self.path))?;
        let renaming = WorkError::file("putting the new tree at", &self.target);
        match fs::rename(&self.path, &self.target) {
            Ok(()) => {}
            Err(error) if is_taken(&error) => {
                let flags = RenameFlags::EXCHANGE;
                renameat_with(CWD, &self.path, CWD, &self.target, flags)
                    .map_err(|error| renaming(error.into()))?;
            }
            Err(error) => return Err(renaming(error)),
        }
        let parent = self.target.parent().unwrap_or(Path::new("/"));
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(WorkError::file("writing to the disk", parent))?;
        // What was there has the stage's name now, and else goes with it.
        Ok(Former(
            fs::rename(&self.path, &self.old)
                .ok()
                .map(|()| self.old.clone()),
        ))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What cannot be removed now is when the next one begins.
        let _ = remove(&self.path);
        let _ = fs::remove_file(&self.lock);
    }
}

/// The tree that a new one took the place of. Dropped, it is removed, which takes as long as it has files: after all that
/// somebody waits for.
#[derive(Debug)]
pub struct Former(Option<PathBuf>);

impl Drop for Former {
    fn drop(&mut self) {
        // What cannot be removed now is when the next one begins.
        let _ = self.0.as_deref().map(remove);
    }
}

/// The state that a tree was marked with; empty where there is none.
pub(super) fn marked(tree: &OwnedFd) -> Vec<u8> {
    let mut state = vec![0; STATE_BYTES];
    match fgetxattr(tree, STATE_ATTRIBUTE, &mut state[..]) {
        Ok(STATE_BYTES) => state,
        _ => Vec::new(),
    }
}

/// Whether another file system, or another part of one, is mounted at a path: no rename takes its place. A kernel that does
/// not tell is older than Linux 5.8.
fn is_mounted(path: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(CWD, path, flags, StatxFlags::empty()).is_ok_and(|found| {
        found
            .stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT)
            && found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    })
}

/// Something is where the tree is to go.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory
    )
}

/// Holds the lock of a workspace. Who held it may be about to go, as a caller who was just killed: that is waited for.
fn hold(path: &Path, place: &Place) -> Result<File, WorkError> {
    let begin = Instant::now();
    loop {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(path);
        let file = file.map_err(WorkError::file("making", path))?;
        let left = FORMER_GONE_WITHIN.saturating_sub(begin.elapsed());
        let Some(file) = lock(file, left).map_err(WorkError::file("locking", path))? else {
            return Err(WorkError::Busy { path: place.name() });
        };
        let ours = file.metadata().map_err(WorkError::file("locking", path))?;
        // The former holder took the name along; then the next file is the lock.
        match fs::symlink_metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => return Ok(file),
            _ if begin.elapsed() >= FORMER_GONE_WITHIN => {
                return Err(WorkError::Busy { path: place.name() });
            }
            _ => {}
        }
    }
}

/// The file, locked; none if somebody else has it all the time.
fn lock(file: File, within: Duration) -> io::Result<Option<File>> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error.into()),
    }
    // The kernel knows no deadline for this: a thread waits, and lets go at once of what comes too late.
    let (tell, told) = mpsc::sync_channel(0);
    thread::Builder::new().spawn(move || {
        let locked = flock(&file, FlockOperation::LockExclusive);
        drop(tell.send(locked.map(|()| file)));
    })?;
    match told.recv_timeout(within) {
        Ok(locked) => Ok(Some(locked?)),
        Err(_) => Ok(None),
    }
}

/// Removes a tree, directories that may not be written to included. That there is none is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path, 0);
            fs::remove_dir_all(path)
        }
        other => other,
    }
}

fn make_writable(path: &Path, depth: usize) {
    // What cannot be changed is told by the removal that follows.
    let _ = fs::set_permissions(path, Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && depth < DEPTH_MAX {
            make_writable(&entry.path(), depth + 1);
        }
    }
}

/// How files are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// By a second name: nobody writes into them.
    Link,
    /// By their content: git writes into them.
    Content,
    /// By a second name, as git's objects: nobody writes into them either.
    Objects,
}

/// A copy in the making: what it was made of.
#[derive(Debug, Default)]
struct Copying {
    relinked: Relinked,
    tally: Tally,
}

impl Copying {
    fn copy(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        how: How,
        at: At,
        depth: usize,
    ) -> io::Result<()> {
        let mut entries = Dir::read_from(from)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match statat(from, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            let at = at.entry(name);
            // Of what git keeps nothing is counted.
            if how == How::Link && !tally::is_passed(name) {
                self.tally.add(at, &stat);
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    if depth == DEPTH_MAX {
                        return Err(Errno::NAMETOOLONG.into());
                    }
                    let flags = flags | OFlags::DIRECTORY;
                    mkdirat(to, name, Mode::RWXU)?;
                    let inner = openat(from, name, flags, Mode::empty())?;
                    let made = openat(to, name, flags, Mode::empty())?;
                    let how = match (name.to_bytes(), how) {
                        (b".git", How::Link) => How::Content,
                        (b"objects", How::Content) => How::Objects,
                        _ => how,
                    };
                    self.copy(&inner, &made, how, at, depth + 1)?;
                    fchmod(&made, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
                }
                FileType::Symlink => {
                    let target = readlinkat(from, name, Vec::new())?;
                    symlinkat(target, to, name)?;
                }
                FileType::RegularFile => self.file((from, to), name, &stat, how)?,
                _ => {
                    // A pipe or socket gets a second name too; one that may not have one is left behind.
                    let _ = linkat(from, name, to, name, AtFlags::empty());
                }
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        (from, to): (&OwnedFd, &OwnedFd),
        name: &CStr,
        stat: &Stat,
        how: How,
    ) -> io::Result<()> {
        let is_lock = how == How::Content && name.to_bytes().ends_with(b".lock");
        if is_lock {
            return Ok(());
        }
        if how != How::Content && linkat(from, name, to, name, AtFlags::empty()).is_ok() {
            let after = statat(to, name, AtFlags::SYMLINK_NOFOLLOW)?;
            self.relinked.insert(stat, &after);
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut content = File::from(openat(from, name, flags, Mode::empty())?);
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut made = File::from(openat(to, name, create, Mode::RUSR | Mode::WUSR)?);
        io::copy(&mut content, &mut made)?;
        fchmod(&made, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_as_long_as_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let open = || OpenOptions::new().create(true).append(true).open(&path);
        let former = lock(open().unwrap(), Duration::ZERO).unwrap().unwrap();
        let brief = Duration::from_millis(10);
        assert!(lock(open().unwrap(), brief).unwrap().is_none());
        let next = open().unwrap();
        let waiting = thread::spawn(|| lock(next, Duration::from_secs(120)));
        drop(former);
        assert!(waiting.join().unwrap().unwrap().is_some());
        // The one that gave up does not keep it.
        drop(
            lock(open().unwrap(), Duration::from_secs(120))
                .unwrap()
                .unwrap(),
        );
    }
}
