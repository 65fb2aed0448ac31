//! One connection of a caller, whatever carries it: its bytes, and who is at the other end.
//!
//! Whoever accepts it finds out who that is, once. Every call on the connection has its [`Peer`] among its extensions;
//! `grpc::admit` answers those who are refused, and gives all other calls the [`Identity`] as `Arc<Identity>`: no handler
//! is called without one.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use banger_core::Identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::listen::refusal::Refusal;
use crate::listen::windows::Share;

/// What carries bytes both ways.
trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

/// A peer that is refused is told so this often on one connection; then it is closed.
const REFUSED_CALLS_MAX: u32 = 8;

/// What was asked for by a connection.
#[derive(Debug, Default)]
pub struct Asked {
    served: AtomicBool,
    refused: AtomicU32,
}

impl Asked {
    /// Whether there was a request that is served.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether who is refused has been told so often enough.
    #[must_use]
    pub fn is_refused_enough(&self) -> bool {
        self.refused.load(Ordering::Relaxed) > REFUSED_CALLS_MAX
    }
}

/// Who is at the other end, and what it has asked for.
#[derive(Debug, Clone)]
pub struct Peer {
    known: Result<Arc<Identity>, Arc<Refusal>>,
    asked: Arc<Asked>,
}

impl Peer {
    /// Somebody, or who is refused and why; `asked` is what counts its requests.
    #[must_use]
    pub const fn new(known: Result<Arc<Identity>, Arc<Refusal>>, asked: Arc<Asked>) -> Self {
        Self { known, asked }
    }

    /// Who it is.
    ///
    /// # Errors
    /// If it is refused.
    pub fn known(&self) -> Result<&Arc<Identity>, &Arc<Refusal>> {
        self.known.as_ref()
    }

    /// A request came.
    pub fn hear(&self) {
        match &self.known {
            Ok(_) => self.asked.served.store(true, Ordering::Relaxed),
            Err(_) => {
                self.asked.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A connection whose peer is known.
pub struct Connection {
    carrier: Box<dyn Carrier>,
    peer: Peer,
    /// Given back when the connection has ended.
    share: Option<Share>,
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
            share: None,
        }
    }

    /// The same, which holds its share of what its caller may have under way.
    #[must_use]
    pub fn holding(self, share: Share) -> Self {
        Self {
            share: Some(share),
            ..self
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
            .field("share", &self.share)
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
