//! The files of a layer, written to their image's disk while the layer is still read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustix::io::Errno;

use super::copy::moves;
use super::fill::on_disk;
use super::pipe::send_on;
use super::room::{BLOCK, Cursor};
use super::sink::{HOLE_BYTES, is_zero};
use crate::flatten::names_a_file;
use crate::tar::{Content, Entry, EntryKind, Extent};
use crate::writeback::Flush;

/// Slices that are written with one call: the kernel takes 1024, and two come at once.
const SLICES_MAX: usize = 1022;

/// Bytes of an archive, and where on the disk they go.
#[derive(Debug, Clone, Copy)]
struct Move {
    from: u64,
    to: u64,
    len: u64,
}

/// Where the files of an archive go, as its entries come: each as [`super::write_base`] will have it.
#[derive(Debug)]
pub(super) struct Placing {
    cursor: Cursor,
    /// Of bytes that are still to come.
    moves: VecDeque<Move>,
}

/// How many blocks of a disk the bytes of an entry's file take.
pub(crate) fn file_blocks(entry: &Entry) -> u64 {
    match &entry.kind {
        EntryKind::File(content) if names_a_file(&entry.path) => Cursor::blocks_of(content),
        _ => 0,
    }
}

impl Placing {
    /// Before the first file of a layer whose files begin at `start`.
    pub(super) fn new(start: Cursor) -> Self {
        Self {
            cursor: start,
            moves: VecDeque::new(),
        }
    }

    /// Where the next file's bytes go, which take so many `blocks`.
    pub(super) fn place(&mut self, content: &Content, blocks: u64) -> Vec<Extent> {
        on_disk(content, &self.cursor.take(blocks).ranges())
    }

    /// Takes the next file, whose bytes take so many `blocks`.
    fn add(&mut self, content: &Content, blocks: u64) {
        let pieces = self.place(content, blocks);
        let moves = moves(content, &pieces).into_iter();
        self.moves
            .extend(moves.map(|(from, to, len)| Move { from, to, len }));
    }

    /// What becomes of the archive's bytes up to `end`, all of which have come.
    fn until(&mut self, end: u64) -> Vec<Move> {
        let mut done = Vec::new();
        while let Some(next) = self.moves.front_mut().filter(|next| next.from < end) {
            let len = next.len.min(end - next.from);
            done.push(Move { len, ..*next });
            if len == next.len {
                self.moves.pop_front();
            } else {
                (next.from, next.to, next.len) = (next.from + len, next.to + len, next.len - len);
            }
        }
        done
    }
}

/// The disk that files are written to as they come.
#[derive(Debug)]
pub(crate) struct Arriving<'a> {
    disk: &'a File,
    placing: Placing,
    written: Sender<u64>,
}

impl Arriving<'_> {
    /// Lets `work` write to `disk`, of which nothing is left from `start` on, and what it wrote be sent on meanwhile.
    pub(crate) fn run<T>(
        disk: &File,
        start: Cursor,
        flush: Flush,
        work: impl FnOnce(&mut Arriving<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        // Only if there is something: a file that was cut to nothing is sent to its disk by ext4 whenever a holder of it
        // closes it (`auto_da_alloc`), who waits for that.
        let begin = start.end() * BLOCK;
        if disk.metadata()?.len() > begin {
            disk.set_len(begin)?;
        }
        thread::scope(|scope| {
            let (written, ends) = channel();
            scope.spawn(move || send_on(&ends, disk, flush));
            work(&mut Arriving {
                disk,
                placing: Placing::new(start),
                written,
            })
        })
    }

    /// Is told of the archive's next file, whose bytes come next, and take as many `blocks` as [`file_blocks`] says.
    pub(crate) fn comes(&mut self, content: &Content, blocks: u64) {
        self.placing.add(content, blocks);
    }

    /// Takes the archive's bytes from `begin` on. They are written from where they are: to copy them once more would take
    /// a quarter as long again.
    pub(crate) fn write(&mut self, begin: u64, bytes: &[u8]) -> io::Result<()> {
        let mut run = Run::default();
        for Move { from, to, len } in self.placing.until(begin + bytes.len() as u64) {
            let at = usize::try_from(from - begin).expect("it is within the bytes");
            let len = usize::try_from(len).expect("it is within the bytes");
            run.add(self.disk, to, &bytes[at..at + len])?;
        }
        run.write(self.disk)?;
        // It is there until this one is done.
        let _ = self.written.send(run.end);
        Ok(())
    }
}

static ZEROS: [u8; 4096] = [0; 4096];

/// Bytes that lie together on the disk, and not where they come from.
#[derive(Debug, Default)]
struct Run<'a> {
    begin: u64,
    end: u64,
    bytes: Vec<IoSlice<'a>>,
}

impl<'a> Run<'a> {
    /// Takes the bytes for `offset`, but for long runs of zeros, and writes what they do not join.
    fn add(&mut self, disk: &File, mut offset: u64, bytes: &'a [u8]) -> io::Result<()> {
        for bytes in bytes.chunks(HOLE_BYTES) {
            if bytes.len() < HOLE_BYTES || !is_zero(bytes) {
                self.join(disk, offset)?;
                self.bytes.push(IoSlice::new(bytes));
                self.end += bytes.len() as u64;
            }
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    /// Makes `offset` the end. The padding behind a file's end joins it to the next file.
    fn join(&mut self, disk: &File, offset: u64) -> io::Result<()> {
        match offset.checked_sub(self.end) {
            Some(gap) if gap < BLOCK && (1..SLICES_MAX).contains(&self.bytes.len()) => {
                let gap = usize::try_from(gap).expect("less than a block");
                self.bytes.push(IoSlice::new(&ZEROS[..gap]));
            }
            _ => {
                self.write(disk)?;
                self.begin = offset;
            }
        }
        self.end = offset;
        Ok(())
    }

    fn write(&mut self, disk: &File) -> io::Result<()> {
        let (mut left, mut at) = (&mut self.bytes[..], self.begin);
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let written = match rustix::io::pwritev(disk, left, at) {
                Err(Errno::INTR) => continue,
                written => written?,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, written);
            at += written as u64;
        }
        self.bytes.clear();
        Ok(())
    }
}
