//! A directory of sockets, held open.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

/// Between two tries to connect to a socket whose queue is full: at first, and at most.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A VM's directory, held open: socket paths are limited to 107 bytes, and this one is short.
#[derive(Debug)]
pub(crate) struct VmDir(OwnedFd);

impl VmDir {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }

    /// Connects to a socket in the directory. Waits while the queue of connections is full: QEMU keeps it at
    /// one, and empties it as soon as its main loop runs. Safe to drop.
    pub(crate) async fn connect(&self, name: &str) -> io::Result<UnixStream> {
        let mut pause = SHORTEST_PAUSE;
        loop {
            match UnixStream::connect(self.path_of(name)).await {
                // The kernel has no event that tells a non-blocking connect of a free place.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                connected => return connected,
            }
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Listens on a socket in the directory, which only its owner may connect to. One that is there goes: its
    /// listener is gone, or is to be replaced.
    pub(crate) fn listen(&self, name: &str) -> io::Result<UnixListener> {
        let path = self.path_of(name);
        remove_if_there(&path)?;
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(listener)
    }
}

/// Removes a file that may be missing.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_of_an_earlier_run_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let vm_dir = VmDir::open(dir.path()).unwrap();
        let first = vm_dir.listen("a.sock").unwrap();
        drop(first);
        let _second = vm_dir.listen("a.sock").unwrap();
        let mode = fs::metadata(dir.path().join("a.sock"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_directory_with_a_very_long_path_has_sockets_too() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(200)).join("y".repeat(200));
        fs::create_dir_all(&deep).unwrap();
        let vm_dir = VmDir::open(&deep).unwrap();
        let _listener = vm_dir.listen("a.sock").unwrap();
        vm_dir.connect("a.sock").await.unwrap();
    }
}
