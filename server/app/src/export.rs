//! Exports: what a writer on a thread of its own makes, for a caller to read in chunks. Nothing is kept on disk: a
//! slow reader makes the writer wait, and one that hangs up ends it.

use std::io::{self, Write};

use banger_core::Digest;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::Context;
use crate::error::AppError;

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

/// An export under way.
#[derive(Debug)]
pub struct Export {
    /// What it will send.
    pub head: ExportHead,
    parts: mpsc::Receiver<Result<ExportPart, AppError>>,
}

impl Export {
    /// Runs `write` on a thread of its own; its failure is the last that the reader gets.
    pub(crate) fn begin(
        context: &Context,
        head: ExportHead,
        write: impl FnOnce(&mut dyn Write) -> Result<(), AppError> + Send + 'static,
    ) -> Self {
        let (sender, parts) = mpsc::channel(CHUNKS_AHEAD);
        context.tasks.spawn_blocking(move || {
            let mut out = Chunks {
                parts: sender,
                buffer: Vec::with_capacity(CHUNK_BYTES),
                size_bytes: 0,
                sum: Sha256::new(),
            };
            let ended = write(&mut out).and_then(|()| {
                // Only where nobody reads any more.
                out.flush().map_err(|_| AppError::Interrupted)
            });
            out.end(ended);
        });
        Self { head, parts }
    }

    /// The next part; `None` at the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<ExportPart, AppError>> {
        self.parts.recv().await
    }
}

/// Collects what is written into chunks.
struct Chunks {
    parts: mpsc::Sender<Result<ExportPart, AppError>>,
    buffer: Vec<u8>,
    size_bytes: u64,
    sum: Sha256,
}

impl Chunks {
    fn end(self, ended: Result<(), AppError>) {
        let last = ended.map(|()| ExportPart::End {
            size_bytes: self.size_bytes,
            digest: Digest::from_sha256(self.sum.finalize().into()),
        });
        // A reader that is gone needs no end.
        let _ = self.parts.blocking_send(last);
    }
}

impl Write for Chunks {
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
        self.parts
            .blocking_send(Ok(ExportPart::Chunk(chunk.into())))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
