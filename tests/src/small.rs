//! A small file system of a test's own.

use std::path::{Path, PathBuf};

use crate::Run;

/// A file system in memory, unmounted when dropped.
#[derive(Debug)]
pub struct Small(PathBuf);

impl Small {
    /// Mounts one of `size`, in the words of tmpfs(5), at `path`.
    ///
    /// # Errors
    /// With what mount(8) said, where it may not.
    pub fn mount(path: &Path, size: &str) -> Result<Self, String> {
        let options = format!("size={size},mode=0700");
        let done = Run::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(path)
            .done();
        if done.status.success() {
            Ok(Self(path.to_owned()))
        } else {
            Err(done.err())
        }
    }

    /// How many bytes are free.
    #[must_use]
    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Run::new("umount").arg(&self.0).done();
    }
}
