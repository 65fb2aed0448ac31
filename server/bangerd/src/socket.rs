//! The Unix socket on which the API is served: who may connect is decided before anybody can.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};

use crate::lock::StateLock;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Something answers on it: a daemon with another state directory.
    #[error("another process serves on `{}`", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// There is something that is no socket.
    #[error("`{}` exists and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A step failed.
    #[error("could not {step} the socket `{}`", path.display())]
    Make {
        /// What was tried.
        step: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A socket that is served; its file goes when this is dropped, unless another took its place.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    inode: u64,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Listens on `path`. What an earlier daemon left there is removed; that is why the state directory's lock
/// must be held. Root's socket belongs to `group`, if there is such a group.
///
/// # Errors
/// If something else is there, or a step fails.
pub async fn listen(
    path: &Path,
    group: &str,
    _held: &StateLock,
) -> Result<(UnixListener, Socket), SocketError> {
    let failed = |step: &'static str| {
        move |source: io::Error| SocketError::Make {
            step,
            path: path.to_owned(),
            source,
        }
    };
    make_directory(path).map_err(failed("make the directory of"))?;
    remove_stale(path).await?;
    let socket = bind(path).map_err(failed("bind"))?;
    give_away(path, group).map_err(failed("set the rights of"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(|errno| failed("listen on")(errno.into()))?;
    let inode = std::fs::symlink_metadata(path)
        .map_err(failed("look at"))?
        .ino();
    let listener = UnixListener::from_std(socket.into()).map_err(failed("listen on"))?;
    Ok((
        listener,
        Socket {
            path: path.to_owned(),
            inode,
        },
    ))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory that is there keeps its rights; a new one gets its own, whatever the umask.
fn make_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent().filter(|directory| !directory.exists()) else {
        return Ok(());
    };
    let mode = if is_root() { 0o755 } else { 0o700 };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(directory)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode))
}

async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(_) => return Ok(()),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket {
            path: path.to_owned(),
        });
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(SocketError::InUse {
            path: path.to_owned(),
        });
    }
    std::fs::remove_file(path).map_err(|source| SocketError::Make {
        step: "remove what is left of",
        path: path.to_owned(),
        source,
    })
}

/// Bound, and not yet listening: nobody can connect before the rights are set.
fn bind(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn give_away(path: &Path, group: &str) -> io::Result<()> {
    let group = if is_root() {
        nix::unistd::Group::from_name(group)?
    } else {
        None
    };
    if let Some(group) = &group {
        std::os::unix::fs::chown(path, None, Some(group.gid.as_raw()))?;
    }
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(dir: &Path) -> StateLock {
        StateLock::acquire(dir).unwrap()
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_gone_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lock) = (dir.path().join("run/s"), lock(dir.path()));
        std::fs::create_dir(dir.path().join("run")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (listener, socket) = listen(&path, "no-such-group", &lock).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).await.unwrap();
        drop((listener, socket));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_is_served_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lock) = (dir.path().join("s"), lock(dir.path()));
        let first = listen(&path, "", &lock).await.unwrap();
        assert!(matches!(
            listen(&path, "", &lock).await,
            Err(SocketError::InUse { .. })
        ));
        drop(first);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lock) = (dir.path().join("s"), lock(dir.path()));
        std::fs::write(&path, "precious").unwrap();
        let refused = listen(&path, "", &lock).await.unwrap_err();
        assert!(refused.to_string().ends_with("exists and is not a socket"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn the_socket_of_a_successor_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, lock) = (dir.path().join("s"), lock(dir.path()));
        let (first, socket) = listen(&path, "", &lock).await.unwrap();
        // Keeps the inode from being given to the second.
        std::fs::hard_link(&path, dir.path().join("kept")).unwrap();
        drop(first);
        let second = listen(&path, "", &lock).await.unwrap();
        drop(socket);
        assert!(path.exists());
        drop(second);
    }
}
