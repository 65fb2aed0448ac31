//! A connected stream socket of either kind. One that is dropped before its end was sent is reset.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// The longest read.
const READ_BYTES: usize = 64 << 10;
/// A read of less than this is copied, so that nothing holds a long buffer for a few bytes.
const SHORT_BYTES: usize = 16 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Socket {
    fd: AsyncFd<OwnedFd>,
    is_shut: bool,
}

impl Socket {
    /// A connected socket that does not block.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            fd: sys::watch(fd, Interest::READABLE | Interest::WRITABLE)?,
            is_shut: false,
        })
    }

    /// The next bytes, at most `limit`; none at the end. Cancel-safe.
    pub(super) async fn read(&self, limit: u64) -> io::Result<Bytes> {
        let length = usize::try_from(limit).map_or(READ_BYTES, |limit| limit.min(READ_BYTES));
        self.fd
            .async_io(Interest::READABLE, |fd| {
                let mut buffer = Vec::with_capacity(length);
                let spare = rustix::buffer::spare_capacity(&mut buffer);
                recv(fd, spare, RecvFlags::empty())?;
                if buffer.len() < SHORT_BYTES {
                    return Ok(Bytes::copy_from_slice(&buffer));
                }
                Ok(Bytes::from(buffer))
            })
            .await
    }

    /// Writes a part of `data`, which is not empty. Cancel-safe.
    pub(super) async fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.fd
            .async_io(Interest::WRITABLE, |fd| {
                Ok(send(fd, data, SendFlags::NOSIGNAL)?)
            })
            .await
    }

    /// Resolves when the connection has broken: a reset after the peer's end is no more to read. Cancel-safe.
    pub(super) async fn broken(&self) -> io::Error {
        if let Err(error) = self.fd.ready(Interest::ERROR).await {
            return error;
        }
        match sockopt::socket_error(&self.fd) {
            Ok(Err(error)) | Err(error) => error.into(),
            Ok(Ok(())) => io::ErrorKind::ConnectionReset.into(),
        }
    }

    /// Ends what we write, and leaves what we read as it is.
    pub(super) fn shut(&mut self) -> io::Result<()> {
        shutdown(&self.fd, Shutdown::Write)?;
        self.is_shut = true;
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.is_shut {
            // TCP tells a reset by it. A unix socket has no reset: its peer reads an end, and cannot write.
            let _ = sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
        }
    }
}
