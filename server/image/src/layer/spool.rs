//! A decompressed stream on its way to the tar reader, hashed and kept as it passes: by a thread of its own, because
//! decompressing alone takes a whole core.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use banger_core::Digest;
use sha2::{Digest as _, Sha256};

use crate::ext4::{Arriving, Cursor, Move, Placing};
use crate::limits::{RATIO_FREE_BYTES, RATIO_MAX, UNCOMPRESSED_BYTES_MAX};
use crate::tar::{Entry, TarInput};
use crate::writeback::Flush;

/// Moved in pieces of this size: large enough for the hash and the file, small enough for the cache.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces on their way to being kept.
const PIECES_IN_FLIGHT: usize = 4;

/// How many bytes a layer of `compressed_bytes` may become.
pub(super) fn bytes_max(compressed_bytes: u64) -> u64 {
    RATIO_FREE_BYTES
        .max(compressed_bytes.saturating_mul(RATIO_MAX))
        .min(UNCOMPRESSED_BYTES_MAX)
}

/// What is kept of the stream beside its hash.
#[derive(Debug)]
pub(super) enum Keep {
    /// Every byte, in this file.
    All(File),
    /// The files in it, on this disk from there on.
    Files(File, Cursor, Flush),
    /// Nothing: the source is a file with the same bytes.
    Nothing,
}

/// Reads a stream once, keeping it and its hash.
#[derive(Debug)]
pub(super) struct SpoolInput<R> {
    source: R,
    keeper: Keeper,
    /// Where its files go, if they go anywhere.
    placing: Option<Placing>,
    piece: Vec<u8>,
    at: usize,
    /// Bytes of the stream before `piece`.
    before: u64,
    bytes_max: u64,
}

/// The stream after its last byte.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) keep: Keep,
    pub(super) digest: Digest,
}

/// What the error of an oversized stream holds.
#[derive(Debug, thiserror::Error)]
#[error("the stream is larger than allowed")]
pub(super) struct TooLarge;

/// What the error of a failed write to the spool holds, to tell it from a failed read of the source.
#[derive(Debug, thiserror::Error)]
#[error("could not write the spool")]
pub(super) struct SpoolWrite(#[source] pub(super) io::Error);

impl<R: Read> SpoolInput<R> {
    /// Refuses a stream of more than `bytes_max` bytes.
    pub(super) fn new(source: R, keep: Keep, bytes_max: u64) -> Self {
        Self {
            source,
            placing: match &keep {
                Keep::Files(_, start, _) => Some(Placing::new(*start)),
                Keep::All(_) | Keep::Nothing => None,
            },
            keeper: Keeper::start(keep),
            piece: Vec::new(),
            at: 0,
            before: 0,
            bytes_max,
        }
    }

    /// Is told of an entry whose bytes come next, and take so many `blocks` of a disk.
    pub(super) fn comes(&mut self, entry: &Entry, blocks: u64) {
        if let Some(placing) = &mut self.placing {
            placing.add(entry, blocks);
        }
    }

    /// Reads what follows the archive's end mark too: it belongs to the hash.
    pub(super) fn finish(mut self) -> io::Result<Spooled> {
        while self.refill()? {}
        self.keeper.finish()
    }

    /// The next piece; false at the end.
    fn refill(&mut self) -> io::Result<bool> {
        let begin = self.before;
        self.before += self.piece.len() as u64;
        self.at = 0;
        let read = Piece {
            begin,
            bytes: std::mem::take(&mut self.piece),
            moves: match &mut self.placing {
                Some(placing) => placing.until(self.before),
                None => Vec::new(),
            },
        };
        let mut piece = self.keeper.exchange(read)?;
        piece.resize(PIECE_BYTES, 0);
        let read = crate::tar::read_up_to(&mut self.source, &mut piece)?;
        piece.truncate(read);
        if self.before + read as u64 > self.bytes_max {
            return Err(io::Error::other(TooLarge));
        }
        self.piece = piece;
        Ok(read > 0)
    }
}

/// A piece of the stream.
#[derive(Debug)]
struct Piece {
    /// Where in the stream it begins.
    begin: u64,
    bytes: Vec<u8>,
    /// What becomes of it, where files are kept.
    moves: Vec<Move>,
}

/// The thread that hashes and keeps. It is gone when this is.
#[derive(Debug)]
struct Keeper {
    /// Absent once there is nothing more to keep.
    pieces: Option<SyncSender<Piece>>,
    /// Buffers that can be used again.
    spare: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<io::Result<Spooled>>>,
}

impl Keeper {
    fn start(keep: Keep) -> Self {
        let (pieces, arriving) = sync_channel(PIECES_IN_FLIGHT);
        let (back, spare) = sync_channel(PIECES_IN_FLIGHT + 2);
        Self {
            pieces: Some(pieces),
            spare,
            thread: Some(thread::spawn(move || keep_all(keep, &arriving, &back))),
        }
    }

    /// Hands a piece over, for an empty one.
    fn exchange(&mut self, piece: Piece) -> io::Result<Vec<u8>> {
        if let Some(pieces) = &self.pieces
            && !piece.bytes.is_empty()
            && pieces.send(piece).is_err()
        {
            // It ended before its time: it says why.
            self.finish()?;
        }
        Ok(self.spare.try_recv().unwrap_or_default())
    }

    fn finish(&mut self) -> io::Result<Spooled> {
        self.pieces = None;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        match self.thread.take().ok_or_else(gone)?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.pieces = None;
        // Whoever drops it has a reason already, and a result nobody asked for is none.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn keep_all(
    keep: Keep,
    arriving: &Receiver<Piece>,
    back: &SyncSender<Vec<u8>>,
) -> io::Result<Spooled> {
    let spool = |error| io::Error::other(SpoolWrite(error));
    let mut hasher = Sha256::new();
    let mut each = |write: &mut dyn FnMut(&Piece) -> io::Result<()>| {
        for piece in arriving {
            hasher.update(&piece.bytes);
            write(&piece)?;
            // Whoever reads may have enough of them.
            let _ = back.try_send(piece.bytes);
        }
        Ok(())
    };
    match &keep {
        Keep::All(file) => each(&mut |piece| (&*file).write_all(&piece.bytes)),
        Keep::Files(disk, start, flush) => Arriving::run(disk, *start, *flush, |disk| {
            each(&mut |piece| disk.write(piece.begin, &piece.bytes, &piece.moves))
        }),
        Keep::Nothing => each(&mut |_| Ok(())),
    }
    .map_err(spool)?;
    Ok(Spooled {
        keep,
        digest: Digest::from_sha256(hasher.finalize().into()),
    })
}

impl<R: Read> TarInput for SpoolInput<R> {
    fn read_up_to(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            if self.at == self.piece.len() && !self.refill()? {
                break;
            }
            let step = (self.piece.len() - self.at).min(buf.len() - filled);
            buf[filled..filled + step].copy_from_slice(&self.piece[self.at..self.at + step]);
            self.at += step;
            filled += step;
        }
        Ok(filled)
    }

    fn skip(&mut self, mut len: u64) -> io::Result<bool> {
        while len > 0 {
            if self.at == self.piece.len() && !self.refill()? {
                return Ok(false);
            }
            let step = usize::try_from(len)
                .unwrap_or(usize::MAX)
                .min(self.piece.len() - self.at);
            self.at += step;
            len -= step as u64;
        }
        Ok(true)
    }

    fn position(&self) -> u64 {
        self.before + self.at as u64
    }
}
