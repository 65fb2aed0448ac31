//! Buffers for the content of files that are used again once it was sent: on an emulated processor new memory, which the
//! kernel clears page by page, costs as much as what is read into it.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

use super::PIECE_BYTES;

/// Buffers that wait for their next use: as many as are on their way to the channel.
const SPARE_MAX: usize = 8;
/// What is shorter gets memory of its own, which costs little.
const SHORT_BYTES: usize = 32 << 10;

/// The buffers of one stream.
#[derive(Debug)]
pub(crate) struct Pieces {
    back: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
}

impl Pieces {
    /// None yet.
    pub(crate) fn new() -> Self {
        let (back, spare) = sync_channel(SPARE_MAX);
        Self { back, spare }
    }

    /// Reads the next `want` bytes, of which at most [`PIECE_BYTES`]; less at the end.
    pub(crate) fn read(&self, source: impl Read, want: u64) -> io::Result<Bytes> {
        let want = want.min(PIECE_BYTES as u64);
        let length = usize::try_from(want).unwrap_or(PIECE_BYTES);
        let mut source = source.take(want);
        if length < SHORT_BYTES {
            let mut bytes = Vec::with_capacity(length);
            source.read_to_end(&mut bytes)?;
            return Ok(bytes.into());
        }
        let spare = self.spare.try_recv();
        let mut lent = Lent {
            bytes: spare.unwrap_or_else(|_| Vec::with_capacity(PIECE_BYTES)),
            back: self.back.clone(),
        };
        source.read_to_end(&mut lent.bytes)?;
        Ok(Bytes::from_owner(lent))
    }
}

/// A buffer that goes back when nobody has it any more.
#[derive(Debug)]
struct Lent {
    bytes: Vec<u8>,
    back: SyncSender<Vec<u8>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        // With enough of them, or when the stream has ended, nobody needs it.
        let _ = self.back.try_send(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_its_content_is_gone_and_not_before() {
        let pieces = Pieces::new();
        let source = vec![7; 3 * PIECE_BYTES];
        let mut source = source.as_slice();
        let first = pieces.read(&mut source, u64::MAX).unwrap();
        let place = first.as_ptr();
        let second = pieces.read(&mut source, PIECE_BYTES as u64).unwrap();
        assert_ne!(second.as_ptr(), place);
        assert_eq!((first.len(), second.len()), (PIECE_BYTES, PIECE_BYTES));
        drop(first);
        let third = pieces.read(&mut source, u64::MAX).unwrap();
        assert_eq!((third.as_ptr(), third.len()), (place, PIECE_BYTES));
        assert!(third.iter().all(|byte| *byte == 7));
        // What comes after a stream's end goes nowhere.
        drop(pieces);
        drop((second, third));
    }

    #[test]
    fn what_is_short_is_what_was_there() {
        let pieces = Pieces::new();
        assert_eq!(pieces.read(&b"abc"[..], 2).unwrap(), "ab");
        assert_eq!(pieces.read(&b"abc"[..], u64::MAX).unwrap(), "abc");
        assert!(pieces.read(&b""[..], 1).unwrap().is_empty());
    }
}
