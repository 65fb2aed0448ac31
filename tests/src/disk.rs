//! A disk of a test's own, which fills up and breaks when it is told to.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::command::until;
use crate::{Run, sys};

/// The smallest piece of space that is taken.
const BLOCK: u64 = 4096;
/// How long those who had files of it open may take to go.
const LET_GO: Duration = Duration::from_secs(30);

/// An ext4 file system in a file, mounted; unmounted when dropped.
#[derive(Debug)]
pub struct OwnDisk {
    image: PathBuf,
    at: PathBuf,
}

/// A file that takes all the space of a disk, until it is dropped.
#[derive(Debug)]
pub struct Ballast(PathBuf);

impl OwnDisk {
    /// Makes one of so many MiB in the file `image`, and mounts it at `at`.
    ///
    /// # Errors
    /// With what the programs said, where it may not be mounted.
    pub fn make(image: &Path, at: &Path, mib: u64) -> Result<Self, String> {
        File::create(image).unwrap().set_len(mib << 20).unwrap();
        Run::new("/usr/sbin/mkfs.ext4")
            .args(["-q", "-m", "0"])
            .arg(image)
            .ok();
        let disk = Self {
            image: image.to_owned(),
            at: at.to_owned(),
        };
        disk.mount()?;
        fs::set_permissions(at, Permissions::from_mode(0o700)).unwrap();
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        let words = [&self.image, &self.at];
        let done = Run::new("mount").args(["-o", "loop"]).args(words).done();
        match done.status.success() {
            true => Ok(()),
            false => Err(done.err()),
        }
    }

    /// Takes all space that is left.
    #[must_use]
    pub fn fill(&self) -> Ballast {
        let path = self.at.join("ballast");
        let file = File::create(&path).unwrap();
        let mut length = 0;
        let mut piece = {
            let stat = statvfs(&self.at).unwrap();
            stat.f_bavail * stat.f_frsize
        };
        while piece >= BLOCK {
            match fallocate(&file, FallocateFlags::empty(), length, piece) {
                Ok(()) => length += piece,
                Err(_) => piece /= 2,
            }
        }
        Ballast(path)
    }

    /// Breaks, as at a power failure: every call on its files fails with EIO, and what was not flushed is lost.
    pub fn die(&self) {
        sys::shut_down(&File::open(&self.at).unwrap()).unwrap();
    }

    /// Is there again as it was flushed. By then nobody may have files of it open.
    pub fn mend(&self) {
        until("nobody has files of the disk open", LET_GO, || {
            Run::new("umount").arg(&self.at).done().status.success()
        });
        self.mount().unwrap();
    }
}

impl Drop for OwnDisk {
    fn drop(&mut self) {
        // What still uses it is a failure that others tell.
        Run::new("umount").arg("--lazy").arg(&self.at).done();
        let _ = fs::remove_file(&self.image);
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
