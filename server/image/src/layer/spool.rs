//! A decompressed stream on its way to the tar reader, hashed and kept as it passes: by a thread of its own, because
//! decompressing alone takes a whole core.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use banger_core::Digest;
use sha2::{Digest as _, Sha256};

use super::decode::Destination;
use crate::ext4::{Arriving, Cursor};
use crate::limits::{AHEAD_BYTES_MAX, RATIO_FREE_BYTES, RATIO_MAX, UNCOMPRESSED_BYTES_MAX};
use crate::tar::{Content, Entry, EntryKind, TarInput};
use crate::watched::GivenUp;
use crate::writeback::Flush;

/// Moved in pieces of this size: large enough for the hash and the file, small enough for the cache.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces on their way to being kept.
const PIECES_IN_FLIGHT: usize = 4;

/// Pieces that wait until it is known where they are to be kept.
const PIECES_AHEAD: usize = AHEAD_BYTES_MAX / PIECE_BYTES;

/// How many bytes a layer of `compressed_bytes` may become.
pub(super) fn bytes_max(compressed_bytes: u64) -> u64 {
    RATIO_FREE_BYTES
        .max(compressed_bytes.saturating_mul(RATIO_MAX))
        .min(UNCOMPRESSED_BYTES_MAX)
}

/// What becomes of the stream beside its hash.
#[derive(Debug)]
pub(super) enum Keeping {
    /// This.
    Known(Keep),
    /// What is told once that is known. Until then pieces of it wait.
    Told(Receiver<Destination>),
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
    piece: Vec<u8>,
    /// The files that begin in `piece`, or behind it.
    files: Vec<ComingFile>,
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

/// What the error of a file of ours holds, to tell it from what is wrong with the stream.
#[derive(Debug, thiserror::Error)]
#[error("could not read or write a file of the store")]
pub(super) struct OwnFile(#[source] pub(super) io::Error);

impl<R: Read> SpoolInput<R> {
    /// Refuses a stream of more than `bytes_max` bytes.
    pub(super) fn new(source: R, keeping: Keeping, bytes_max: u64) -> Self {
        Self {
            source,
            keeper: Keeper::start(keeping),
            piece: Vec::new(),
            files: Vec::new(),
            at: 0,
            before: 0,
            bytes_max,
        }
    }

    /// Is told of an entry whose bytes come next, and take so many `blocks` of a disk.
    pub(super) fn comes(&mut self, entry: &Entry, blocks: u64) {
        if let EntryKind::File(content) = &entry.kind {
            self.files.push(ComingFile {
                content: content.clone(),
                blocks,
            });
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
            files: std::mem::take(&mut self.files),
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
    /// The files that begin in it.
    files: Vec<ComingFile>,
}

/// A file whose bytes come next.
#[derive(Debug)]
struct ComingFile {
    content: Content,
    /// What it takes of a disk.
    blocks: u64,
}

/// The thread that hashes and keeps. It is gone when this is.
#[derive(Debug)]
struct Keeper {
    /// Absent once there is nothing more to keep.
    pieces: Option<SyncSender<Piece>>,
    /// Buffers that can be used again.
    spare: Receiver<Vec<u8>>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It begins when it is told what to keep.
    Waiting(Receiver<Destination>, Hands),
    Running(JoinHandle<io::Result<Spooled>>),
    Ended,
}

/// What the thread is connected by.
#[derive(Debug)]
struct Hands {
    arriving: Receiver<Piece>,
    /// Takes few: what is used again soon is in the cache.
    back: SyncSender<Vec<u8>>,
}

impl State {
    fn run(keep: Keep, Hands { arriving, back }: Hands) -> Self {
        Self::Running(thread::spawn(move || keep_all(keep, &arriving, &back)))
    }

    /// Begins, if it waits and `told` says what to keep; it may say that nothing has been told yet.
    fn begin(
        &mut self,
        told: impl FnOnce(&Receiver<Destination>) -> Result<Destination, TryRecvError>,
    ) -> io::Result<()> {
        *self = match std::mem::replace(self, Self::Ended) {
            Self::Waiting(to, hands) => match told(&to) {
                Ok(to) => Self::run(to.keep(true).map_err(own_file)?, hands),
                Err(TryRecvError::Empty) => Self::Waiting(to, hands),
                // Nobody wants it any more.
                Err(TryRecvError::Disconnected) => return Err(io::Error::other(GivenUp)),
            },
            state => state,
        };
        Ok(())
    }
}

/// Waits for what is told.
fn wait(told: &Receiver<Destination>) -> Result<Destination, TryRecvError> {
    told.recv().map_err(|_| TryRecvError::Disconnected)
}

fn own_file(error: io::Error) -> io::Error {
    io::Error::other(OwnFile(error))
}

impl Keeper {
    fn start(keeping: Keeping) -> Self {
        let (pieces, arriving) = sync_channel(match keeping {
            Keeping::Known(_) => PIECES_IN_FLIGHT,
            Keeping::Told(_) => PIECES_AHEAD,
        });
        let (back, spare) = sync_channel(PIECES_IN_FLIGHT + 2);
        let hands = Hands { arriving, back };
        Self {
            pieces: Some(pieces),
            spare,
            state: match keeping {
                Keeping::Known(keep) => State::run(keep, hands),
                Keeping::Told(told) => State::Waiting(told, hands),
            },
        }
    }

    /// Hands a piece over, for an empty one.
    fn exchange(&mut self, piece: Piece) -> io::Result<Vec<u8>> {
        self.state.begin(Receiver::try_recv)?;
        if !piece.bytes.is_empty() {
            self.send(piece)?;
        }
        Ok(self.spare.try_recv().unwrap_or_default())
    }

    fn send(&mut self, piece: Piece) -> io::Result<()> {
        let Some(pieces) = &self.pieces else {
            return Ok(());
        };
        let piece = match pieces.try_send(piece) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(piece) | TrySendError::Disconnected(piece)) => piece,
        };
        self.state.begin(wait)?;
        if pieces.send(piece).is_err() {
            // It ended before its time: it says why.
            self.finish()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<Spooled> {
        self.state.begin(wait)?;
        self.pieces = None;
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Running(thread) => match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            },
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.pieces = None;
        if let State::Running(thread) = std::mem::replace(&mut self.state, State::Ended) {
            // Whoever drops it has a reason already, and a result nobody asked for is none.
            let _ = thread.join();
        }
    }
}

fn keep_all(
    keep: Keep,
    arriving: &Receiver<Piece>,
    back: &SyncSender<Vec<u8>>,
) -> io::Result<Spooled> {
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
            each(&mut |piece| {
                for file in &piece.files {
                    disk.comes(&file.content, file.blocks);
                }
                disk.write(piece.begin, &piece.bytes)
            })
        }),
        Keep::Nothing => each(&mut |_| Ok(())),
    }
    .map_err(own_file)?;
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
