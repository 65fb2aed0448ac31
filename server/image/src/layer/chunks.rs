//! Chunks of a blob from the network's task to the threads that consume them, with bounded memory.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use crate::limits::CHUNKS_IN_FLIGHT;

/// The sending half.
pub(crate) type ChunkSender = mpsc::Sender<Bytes>;

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
