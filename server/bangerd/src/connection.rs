//! One connection of a caller, whatever carries it: its bytes, and who is at the other end.
//!
//! Whoever accepts it finds out who that is, once. Every call on the connection has its [`Peer`] among its extensions;
//! `grpc::admit` answers those who are refused, and gives all other calls the [`Identity`] as `Arc<Identity>`: no handler
//! is called without one.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use banger_core::Identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::listen::refusal::Refusal;

/// What carries bytes both ways.
trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

/// Who is at the other end, and whether it has asked for anything yet.
#[derive(Debug, Clone)]
pub struct Peer {
    known: Result<Arc<Identity>, Arc<Refusal>>,
    heard: Arc<AtomicBool>,
}

impl Peer {
    /// Somebody, or who is refused and why; `heard` is set by the first request that is not.
    #[must_use]
    pub const fn new(known: Result<Arc<Identity>, Arc<Refusal>>, heard: Arc<AtomicBool>) -> Self {
        Self { known, heard }
    }

    /// Who it is.
    ///
    /// # Errors
    /// If it is refused.
    pub fn known(&self) -> Result<&Arc<Identity>, &Arc<Refusal>> {
        self.known.as_ref()
    }

    /// A request came from a peer that is served.
    pub fn hear(&self) {
        if self.known.is_ok() {
            self.heard.store(true, Ordering::Relaxed);
        }
    }
}

/// A connection whose peer is known.
pub struct Connection {
    carrier: Box<dyn Carrier>,
    peer: Peer,
}

impl Connection {
    /// A connection by `carrier` to the caller `identity`.
    pub fn new(
        carrier: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        identity: Arc<Identity>,
    ) -> Self {
        Self::of(carrier, Peer::new(Ok(identity), Arc::default()))
    }

    /// A connection by `carrier` to a peer that may be refused.
    pub fn of(carrier: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, peer: Peer) -> Self {
        Self {
            carrier: Box::new(carrier),
            peer,
        }
    }

    /// Who is at the other end.
    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.carrier).poll_read(task, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.carrier).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.carrier).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.carrier).poll_shutdown(task)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.carrier).poll_write_vectored(task, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.carrier.is_write_vectored()
    }
}
