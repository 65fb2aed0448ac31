//! Where a guest's agent dials in: two listening sockets of the host, which Firecracker connects to when the
//! guest connects to a port of the host's over vsock.
//!
//! ```text
//! guest: connect(host, 1024) ──► Firecracker ──► v.sock_1024   the agent's channel; the newest connection waits
//! guest: connect(host, 1025) ──► Firecracker ──► v.sock_1025   "I power off": nothing is read or answered
//! ```
//!
//! Firecracker ends with the same exit code whether its guest powers off or resets; the second port tells the
//! two apart. Connections are always taken at once, whether anybody wants them or not: Firecracker's one thread
//! waits in connect(2) while a queue is full. What is not wanted is closed.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::chown;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::jail::JailUser;
use crate::dir::{VmDir, remove_if_there};

/// The path that Firecracker is told; it makes a socket there for connections into the guest, which nobody makes.
pub(super) const VSOCK: &str = "v.sock";

/// The port of the agent's channel.
const CHANNEL_PORT: u32 = 1024;

/// The port to which a guest connects before it powers off.
const FAREWELL_PORT: u32 = 1025;

/// A pause after an error of accept(2), such as a lack of descriptors, which would otherwise repeat at once.
const PAUSE: Duration = Duration::from_millis(100);

fn socket(port: u32) -> String {
    format!("{VSOCK}_{port}")
}

/// The newest connection of the agent that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Caller(watch::Sender<Option<UnixStream>>);

impl Caller {
    fn arrive(&self, stream: UnixStream) {
        self.0.send_replace(Some(stream));
    }

    /// Takes the connection, waiting for one. Safe to drop.
    pub(super) async fn next(&self) -> UnixStream {
        let mut waiting = self.0.subscribe();
        loop {
            // The sender lives in `self`.
            let _ = waiting.wait_for(Option::is_some).await;
            let mut taken = None;
            self.0.send_if_modified(|stream| {
                taken = stream.take();
                false
            });
            // Another waiter may have been quicker.
            if let Some(stream) = taken {
                return stream;
            }
            waiting.mark_unchanged();
        }
    }
}

/// The two listeners.
#[derive(Debug)]
pub(super) struct Doorstep {
    channel: UnixListener,
    farewell: UnixListener,
    has_said_farewell: bool,
}

impl Doorstep {
    /// Listens in `dir`, and removes what an earlier Firecracker left there.
    pub(super) fn open(dir: &VmDir, user: Option<JailUser>) -> io::Result<Self> {
        let listen = |port| {
            let name = socket(port);
            let listener = dir.listen(&name)?;
            if let Some(JailUser(uid)) = user {
                chown(dir.path_of(&name), Some(uid), Some(uid))?;
            }
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        Ok(Self {
            channel: listen(CHANNEL_PORT)?,
            farewell: listen(FAREWELL_PORT)?,
            has_said_farewell: false,
        })
    }

    /// Takes connections for ever. Safe to drop.
    pub(super) async fn serve(&mut self, caller: &Caller) {
        loop {
            let failed = tokio::select! {
                // cancel-safe: `accept` takes a connection only when it resolves
                accepted = self.channel.accept() => match accepted {
                    Ok((stream, _)) => {
                        caller.arrive(stream);
                        continue;
                    }
                    Err(error) => error,
                },
                accepted = self.farewell.accept() => match accepted {
                    Ok(_) => {
                        self.has_said_farewell = true;
                        continue;
                    }
                    Err(error) => error,
                },
            };
            tracing::warn!(error = %failed, "a connection of a guest could not be taken");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether the guest said that it powers off; asked when its VMM is gone.
    pub(super) fn has_said_farewell(&self) -> bool {
        // The runtime may not know yet of a connection that the kernel has: the kernel is asked.
        self.has_said_farewell || rustix::net::accept(self.farewell.as_fd()).is_ok()
    }
}

/// Removes every socket of a Firecracker's, so that the next one can make them: it refuses to start otherwise.
pub(super) fn sweep(dir: &VmDir, api: &str) -> io::Result<()> {
    for name in [api, VSOCK, &socket(CHANNEL_PORT), &socket(FAREWELL_PORT)] {
        remove_if_there(&dir.path_of(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;

    use super::*;

    const GLIMPSE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn the_newest_caller_waits_and_older_ones_are_hung_up_on() {
        let dir = tempfile::tempdir().unwrap();
        let dir = VmDir::open(dir.path()).unwrap();
        let mut doorstep = Doorstep::open(&dir, None).unwrap();
        let caller = Caller::default();
        let guest = async {
            let mut first = dir.connect(&socket(CHANNEL_PORT)).await.unwrap();
            let second = dir.connect(&socket(CHANNEL_PORT)).await.unwrap();
            assert_eq!(first.read(&mut [0]).await.unwrap(), 0, "hung up on");
            let taken = caller.next().await;
            assert!(timeout(GLIMPSE, caller.next()).await.is_err(), "taken once");
            drop((second, taken));
        };
        tokio::select! {
            () = doorstep.serve(&caller) => unreachable!("it serves for ever"),
            () = guest => {}
        }
        assert!(!doorstep.has_said_farewell());
    }

    #[tokio::test]
    async fn a_farewell_counts_even_if_nobody_has_looked_yet() {
        let dir = tempfile::tempdir().unwrap();
        let dir = VmDir::open(dir.path()).unwrap();
        let doorstep = Doorstep::open(&dir, None).unwrap();
        assert!(!doorstep.has_said_farewell());
        drop(dir.connect(&socket(FAREWELL_PORT)).await.unwrap());
        assert!(doorstep.has_said_farewell());
    }

    #[tokio::test]
    async fn what_an_earlier_vmm_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let vm_dir = VmDir::open(dir.path()).unwrap();
        for name in ["api.sock", VSOCK] {
            drop(vm_dir.listen(name).unwrap());
        }
        sweep(&vm_dir, "api.sock").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        sweep(&vm_dir, "api.sock").unwrap();
    }
}
