//! Chunks of a blob from the network's task to the threads that consume them, with bounded memory.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::limits::CHUNKS_IN_FLIGHT;

/// The sending half.
pub(crate) type ChunkSender = mpsc::Sender<Bytes>;

/// Bytes that are passed on together.
const GATHERED_BYTES: usize = 128 << 10;

/// Chunks as the network gives them are small: passed on one by one each would wake a thread.
#[derive(Debug, Default)]
pub(crate) struct Gathered(BytesMut);

impl Gathered {
    /// Takes a chunk; returns all there is once it is enough, or with `Now::Pass`.
    pub(crate) fn add(&mut self, chunk: Bytes, now: Now) -> Option<Bytes> {
        if self.0.is_empty() && chunk.len() >= GATHERED_BYTES {
            return Some(chunk);
        }
        self.0.extend_from_slice(&chunk);
        (now == Now::Pass || self.0.len() >= GATHERED_BYTES).then(|| self.take())
    }

    /// What is left at the end.
    pub(crate) fn take(&mut self) -> Bytes {
        self.0.split().freeze()
    }
}

/// Whether there is a reason to wait for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Now {
    Pass,
    Wait,
}

/// A bounded pipe. Dropping the sender is the end of the stream.
pub(crate) fn channel() -> (ChunkSender, ChunkReader) {
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    (
        sender,
        ChunkReader {
            receiver,
            chunk: Bytes::new(),
        },
    )
}

/// The reading half, for a thread that may block.
#[derive(Debug)]
pub(crate) struct ChunkReader {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl ChunkReader {
    /// The next chunk as it came; `None` at the end.
    pub(crate) fn next_chunk(&mut self) -> Option<Bytes> {
        if self.chunk.has_remaining() {
            Some(std::mem::take(&mut self.chunk))
        } else {
            self.receiver.blocking_recv()
        }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let read = available.len().min(buf.len());
        buf[..read].copy_from_slice(&available[..read]);
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while !self.chunk.has_remaining() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk.advance(amount);
    }
}
