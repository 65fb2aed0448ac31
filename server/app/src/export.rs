//! Exports: what a writer on a thread of its own makes, for a caller to read in chunks. Nothing is kept on disk: a
//! slow reader makes the writer wait, and one that hangs up ends it. Bounded in number, in all and of each owner: each
//! has a thread. One whose reader takes nothing for long ends, whether or not the reader is still there.

mod error;

use std::io::{self, Write};
use std::sync::{Arc, Weak};
use std::time::Duration;

use banger_core::{Digest, Owner};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::error::ExportError;
use crate::Context;
use crate::error::AppError;
use crate::turns::{Full, Turn, Turns};

/// Exports at the same time.
const EXPORTS_MAX: usize = 64;
/// Of these, the most of one owner.
const EXPORTS_PER_OWNER_MAX: usize = 16;

/// The length of a chunk: a quarter of what the API allows.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that are made ahead of the reader: a megabyte.
const CHUNKS_AHEAD: usize = 4;

/// What an export will send.
#[derive(Debug, Clone)]
pub struct ExportHead {
    /// Bytes that will be read, before compression.
    pub content_bytes: u64,
    /// A bundle's name; empty for a layout.
    pub name: String,
    /// A bundle's version; empty for a layout.
    pub version: String,
    /// A bundle's manifest; empty for a layout.
    pub manifest: Vec<u8>,
}

/// A piece of an export.
#[derive(Debug)]
pub enum ExportPart {
    /// What will come: the first part.
    Start(ExportHead),
    /// The next bytes.
    Chunk(Bytes),
    /// All of it has come.
    End {
        /// Bytes of all chunks.
        size_bytes: u64,
        /// Of all chunks.
        digest: Digest,
    },
}

/// The places of exports.
pub(crate) struct Exports(Turns);

impl Default for Exports {
    fn default() -> Self {
        Self(Turns::new(EXPORTS_MAX, EXPORTS_PER_OWNER_MAX))
    }
}

impl Exports {
    /// A place for an export of `owner`'s.
    ///
    /// # Errors
    /// If there are as many as may be.
    pub(crate) fn take(&self, owner: &Owner) -> Result<Turn, ExportError> {
        self.0.try_take(owner).map_err(|full| match full {
            Full::All => ExportError::TooMany { limit: EXPORTS_MAX },
            Full::Owner => ExportError::TooManyOfOwner {
                owner: owner.clone(),
                limit: EXPORTS_PER_OWNER_MAX,
            },
        })
    }
}

/// What the writer has made and the reader has not taken.
type Parts = Mutex<mpsc::Receiver<ExportPart>>;

/// An export under way.
#[derive(Debug)]
pub struct Export {
    parts: Arc<Parts>,
    /// How it ended; `None` once that was told.
    end: Option<oneshot::Receiver<Result<ExportPart, AppError>>>,
    /// The writer ends with this, also where it only reads.
    _cancel: DropGuard,
}

impl Export {
    /// Runs `work` on a thread of its own, which begins with [`Writer::start`]; its failure is the last that the reader
    /// gets.
    pub(crate) fn begin(
        context: &Context,
        turn: Turn,
        work: impl FnOnce(&mut Writer) -> Result<(), AppError> + Send + 'static,
    ) -> Self {
        let (sender, parts) = mpsc::channel(CHUNKS_AHEAD);
        let (told, end) = oneshot::channel();
        let cancel = context.shutdown.child_token();
        let parts = Arc::new(Mutex::new(parts));
        let mut out = Writer {
            parts: sender,
            unread: Arc::downgrade(&parts),
            stall_timeout: context.config.export_stall_timeout,
            has_stalled: false,
            buffer: Vec::with_capacity(CHUNK_BYTES),
            size_bytes: 0,
            sum: Sha256::new(),
            cancel: cancel.clone(),
        };
        context.tasks.spawn_blocking(move || {
            let done = work(&mut out);
            // Nobody waits for it any more where the reader is gone.
            let _ = told.send(out.end(done));
            drop(turn);
        });
        Self {
            parts,
            end: Some(end),
            _cancel: cancel.drop_guard(),
        }
    }

    /// The next part; `None` at the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<ExportPart, AppError>> {
        if let Some(part) = self.parts.lock().await.recv().await {
            return Some(Ok(part));
        }
        let ended = self.end.as_mut()?.await;
        self.end = None;
        Some(ended.unwrap_or(Err(AppError::Interrupted)))
    }
}

/// Collects what is written into chunks.
pub(crate) struct Writer {
    parts: mpsc::Sender<ExportPart>,
    unread: Weak<Parts>,
    stall_timeout: Duration,
    has_stalled: bool,
    buffer: Vec<u8>,
    size_bytes: u64,
    sum: Sha256,
    cancel: CancellationToken,
}

impl Writer {
    /// Is cancelled when the reader is gone.
    pub(crate) const fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Says what will come.
    pub(crate) fn start(&mut self, head: ExportHead) -> Result<(), AppError> {
        self.send(ExportPart::Start(head))
            .map_err(|_| self.unsent())
    }

    /// Waits for the reader as long as it may take.
    fn send(&mut self, part: ExportPart) -> io::Result<()> {
        let sending = self.parts.send_timeout(part, self.stall_timeout);
        match Handle::current().block_on(sending) {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Closed(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(SendTimeoutError::Timeout(_)) => {
                self.has_stalled = true;
                self.forget_unread();
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// Lets go of what nobody reads: the reader, if it comes back, gets the failure.
    fn forget_unread(&self) {
        // Where it is taken the reader has just come back.
        let unread = self.unread.upgrade();
        if let Some(mut unread) = unread.as_ref().and_then(|unread| unread.try_lock().ok()) {
            unread.close();
            while unread.try_recv().is_ok() {}
        }
    }

    fn unsent(&self) -> AppError {
        match self.has_stalled {
            true => ExportError::Stalled {
                silence: self.stall_timeout,
            }
            .into(),
            // Nobody reads any more.
            false => AppError::Interrupted,
        }
    }

    fn end(&mut self, done: Result<(), AppError>) -> Result<ExportPart, AppError> {
        let flushed = done.and_then(|()| self.flush().map_err(|_| self.unsent()));
        match flushed {
            Ok(()) => Ok(ExportPart::End {
                size_bytes: self.size_bytes,
                digest: Digest::from_sha256(self.sum.finalize_reset().into()),
            }),
            // Whoever wrote may have told it in its own words.
            Err(_) if self.has_stalled => Err(self.unsent()),
            Err(error) => Err(error),
        }
    }
}

impl Write for Writer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&data[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.sum.update(&chunk);
        self.size_bytes += chunk.len() as u64;
        self.send(ExportPart::Chunk(chunk.into()))
    }
}
