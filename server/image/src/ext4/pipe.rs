//! What is read by one thread, written to the disk by another, and sent on by a third.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, ScopedJoinHandle};

use tokio_util::sync::CancellationToken;

use super::copy::{Run, copy_run};
use super::error::Ext4Error;
use super::room::BLOCK;
use super::sink::write_with_holes;
use crate::tar::Extent;
use crate::writeback::{Flush, WriteBack};

/// Bytes that are written with one call, neighbouring files together.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces between the thread that reads and the one that writes: enough that neither waits for the other's hiccups.
const PIECES_IN_FLIGHT: usize = 4;

/// What the writing thread is to do.
enum Piece {
    /// Write these bytes.
    Bytes { offset: u64, bytes: Vec<u8> },
    /// Let both disks have these blocks.
    Blocks { from: Arc<File>, run: Run },
}

/// The reading side: gathers what lies together.
#[derive(Debug)]
pub(crate) struct Pipe<'a> {
    to_writer: SyncSender<Piece>,
    /// Buffers that were written and can be used again.
    spare: Receiver<Vec<u8>>,
    /// Where `piece` begins on the disk.
    offset: u64,
    /// Always of its full length; what was read so far is at its beginning.
    piece: Vec<u8>,
    used: usize,
    cancel: &'a CancellationToken,
}

impl Pipe<'_> {
    /// Lets `work` put in what is to be written to `disk`, and waits until it is. If it cannot be written, `cancel` is
    /// cancelled at once, whatever `work` may wait for.
    pub(crate) fn run(
        disk: &File,
        flush: Flush,
        cancel: &CancellationToken,
        work: impl FnOnce(&mut Pipe<'_>) -> Result<(), Ext4Error>,
    ) -> Result<(), Ext4Error> {
        thread::scope(|scope| {
            let (to_writer, pieces) = sync_channel(PIECES_IN_FLIGHT);
            let (back, spare) = sync_channel(PIECES_IN_FLIGHT + 2);
            let (written, ends) = channel();
            scope.spawn(move || send_on(&ends, disk, flush));
            let write =
                move || write(&pieces, (&back, &written), disk).inspect_err(|_| cancel.cancel());
            let writer = scope.spawn(write);
            let mut pipe = Pipe {
                to_writer,
                spare,
                offset: 0,
                piece: vec![0; PIECE_BYTES],
                used: 0,
                cancel,
            };
            let read = work(&mut pipe).and_then(|()| pipe.flush());
            drop(pipe);
            // Who could not write explains why nobody could be handed more.
            let written = joined(writer).map_err(Ext4Error::Write);
            written.and(read)
        })
    }

    /// Fails once the work is given up.
    pub(crate) fn look(&self) -> Result<(), Ext4Error> {
        Ext4Error::unless(self.cancel)
    }

    /// Reads the bytes of a piece of the disk, which the reader gives next.
    pub(super) fn read(
        &mut self,
        reader: &mut impl Read,
        Extent {
            mut offset, len, ..
        }: Extent,
    ) -> Result<(), Ext4Error> {
        let end = offset + len;
        while offset < end {
            self.begin(offset)?;
            let room = (PIECE_BYTES - self.used) as u64;
            let len = usize::try_from(room.min(end - offset)).expect("a piece is small");
            reader
                .read_exact(&mut self.piece[self.used..self.used + len])
                .map_err(Ext4Error::Write)?;
            self.used += len;
            offset += len as u64;
        }
        Ok(())
    }

    /// Lets the disk have the blocks of another.
    pub(super) fn share(&self, from: &Arc<File>, run: Run) -> Result<(), Ext4Error> {
        let from = Arc::clone(from);
        self.send(Piece::Blocks { from, run })
    }

    /// Makes `offset` the place of the next byte. The padding behind a file's end joins it to the next file.
    fn begin(&mut self, offset: u64) -> Result<(), Ext4Error> {
        let gap = offset.checked_sub(self.offset + self.used as u64);
        let gap = gap
            .filter(|gap| *gap < BLOCK)
            .and_then(|gap| usize::try_from(gap).ok());
        match gap {
            Some(gap) if self.used + gap < PIECE_BYTES => {
                self.piece[self.used..self.used + gap].fill(0);
                self.used += gap;
            }
            _ => {
                self.flush()?;
                self.offset = offset;
            }
        }
        Ok(())
    }

    /// Hands over what was gathered.
    pub(crate) fn flush(&mut self) -> Result<(), Ext4Error> {
        if self.used == 0 {
            return Ok(());
        }
        let mut next = self.spare.try_recv().unwrap_or_default();
        next.resize(PIECE_BYTES, 0);
        let mut bytes = std::mem::replace(&mut self.piece, next);
        bytes.truncate(std::mem::take(&mut self.used));
        self.send(Piece::Bytes {
            offset: self.offset,
            bytes,
        })
    }

    fn send(&self, piece: Piece) -> Result<(), Ext4Error> {
        self.look()?;
        let gone = |_| Ext4Error::Write(io::ErrorKind::BrokenPipe.into());
        self.to_writer.send(piece).map_err(gone)
    }
}

pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The writing side, until no piece comes any more.
fn write(
    pieces: &Receiver<Piece>,
    (back, written): (&SyncSender<Vec<u8>>, &Sender<u64>),
    disk: &File,
) -> io::Result<()> {
    for piece in pieces {
        match piece {
            Piece::Bytes { offset, bytes } => {
                write_with_holes(disk, offset, &bytes)?;
                // It is there until this one is done.
                let _ = written.send(offset + bytes.len() as u64);
                // Whoever read may be done: then nobody needs it.
                let _ = back.try_send(bytes);
            }
            Piece::Blocks { from, run } => {
                copy_run(run, &from, disk)?;
                let _ = written.send(run.end());
            }
        }
    }
    Ok(())
}

/// Has the kernel begin with what was written up to the ends that come: to tell it takes as long as to write.
pub(super) fn send_on(ends: &Receiver<u64>, disk: &File, flush: Flush) {
    let mut to_disk = WriteBack::new(flush);
    for end in ends {
        to_disk.written(disk, ends.try_iter().last().unwrap_or(end));
    }
}
