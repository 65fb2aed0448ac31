//! The agent channel on a virtio-serial port: one device, one host after the other.
//!
//! The kernel tells of a host that connects by letting a *blocking* write go on, so a thread waits in
//! one; and of a host that has gone by an end of file.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::agent::Agent;
use crate::handshake::{ANNOUNCEMENT, accept};
use crate::serve::serve;
use crate::sys;

/// The port's name, which the VMM gives it.
pub const NAME: &str = "banger.agent";
/// A pause after an error of the port itself, which would otherwise repeat at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves hosts on the port for ever.
pub async fn run(agent: &Arc<Agent>, port: OwnedFd) {
    let port = Arc::new(port);
    loop {
        match one_host(agent, &port).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => {
                eprintln!("banger-agent: the channel failed: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn one_host(agent: &Arc<Agent>, port: &Arc<OwnedFd>) -> io::Result<()> {
    let announced = Arc::clone(port);
    tokio::task::spawn_blocking(move || announce(&announced)).await??;
    let stream = accept(Port::new(Arc::clone(port))?).await?;
    // How a host ends its HTTP/2 is its own affair: the next one starts afresh.
    let _ = serve(agent, stream).await;
    Ok(())
}

/// Writes the announcement, waiting for a host in the kernel.
fn announce(port: &OwnedFd) -> io::Result<()> {
    let flags = fcntl_getfl(port)?;
    fcntl_setfl(port, flags - OFlags::NONBLOCK)?;
    let mut left = ANNOUNCEMENT;
    while !left.is_empty() {
        match rustix::io::write(port, left) {
            Ok(written) => left = &left[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(fcntl_setfl(port, flags | OFlags::NONBLOCK)?)
}

/// The port for as long as one host is connected.
#[derive(Debug)]
pub struct Port(AsyncFd<Arc<OwnedFd>>);

impl Port {
    /// Registers the port, which must not block, with the runtime.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub fn new(port: Arc<OwnedFd>) -> io::Result<Self> {
        Ok(Self(sys::watch(
            port,
            Interest::READABLE | Interest::WRITABLE,
        )?))
    }

    fn write(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match write(self.0.get_ref()) {
                // A host that was gone for a moment is another one.
                Err(Errno::AGAIN) if guard.ready().is_write_closed() => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                result => return Poll::Ready(result.map_err(Into::into)),
            }
        }
    }
}

impl AsyncRead for Port {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            if guard.ready().is_read_closed() {
                // The host has gone. What is there to read may be the next one's.
                return Poll::Ready(Ok(()));
            }
            match sys::read_into(self.0.get_ref().as_fd(), buffer) {
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                result => return Poll::Ready(result.map_err(Into::into)),
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |port| rustix::io::write(port, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |port| rustix::io::writev(port, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A port that was found, opened without blocking.
///
/// # Errors
/// Those of opening the device.
pub fn open(device: File) -> io::Result<OwnedFd> {
    let device = OwnedFd::from(device);
    let flags = fcntl_getfl(&device)?;
    fcntl_setfl(&device, flags | OFlags::NONBLOCK)?;
    Ok(device)
}
