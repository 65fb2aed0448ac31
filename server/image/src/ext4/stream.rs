//! The files of an image's bottom layer, written to its disk while the layer is still read.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::fill::{moves, on_disk, send_on};
use super::room::{BLOCK, Cursor};
use super::sink::HoleySink;
use crate::flatten::names_a_file;
use crate::tar::{Entry, EntryKind};

/// Bytes of an archive, and where on the disk they go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Move {
    from: u64,
    to: u64,
    len: u64,
}

/// Where the files of an archive go, as its entries come: each as [`super::write_base`] will have it.
#[derive(Debug)]
pub(crate) struct Placing {
    cursor: Cursor,
    /// Of bytes that are still to come.
    moves: VecDeque<Move>,
}

impl Placing {
    /// Before the first entry.
    pub(crate) fn new() -> Self {
        Self {
            cursor: Cursor::new(),
            moves: VecDeque::new(),
        }
    }

    /// Takes the next entry.
    pub(crate) fn add(&mut self, entry: &Entry) {
        let EntryKind::File(content) = &entry.kind else {
            return;
        };
        if !names_a_file(&entry.path) {
            return;
        }
        let blocks = self.cursor.take_file(content);
        let pieces = on_disk(content, &blocks.ranges());
        let moves = moves(content, &pieces).into_iter();
        self.moves
            .extend(moves.map(|(from, to, len)| Move { from, to, len }));
    }

    /// What becomes of the archive's bytes up to `end`, all of which have come.
    pub(crate) fn until(&mut self, end: u64) -> Vec<Move> {
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
    sink: HoleySink<'a>,
    written: Sender<u64>,
}

impl Arriving<'_> {
    /// Lets `work` write to `disk`, which is emptied, and what it wrote be sent on meanwhile.
    pub(crate) fn run<T>(
        disk: &File,
        work: impl FnOnce(&mut Arriving<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        disk.set_len(0)?;
        thread::scope(|scope| {
            let (written, ends) = channel();
            scope.spawn(move || send_on(&ends, disk));
            let mut arriving = Arriving {
                sink: HoleySink::new(disk),
                written,
            };
            let result = work(&mut arriving)?;
            arriving.sink.flush()?;
            Ok(result)
        })
    }

    /// Takes the archive's bytes from `begin` on.
    pub(crate) fn write(&mut self, begin: u64, bytes: &[u8], moves: &[Move]) -> io::Result<()> {
        for Move { from, to, len } in moves {
            let at = usize::try_from(from - begin).expect("it is within the bytes");
            let len = usize::try_from(*len).expect("it is within the bytes");
            // The padding behind a file's end joins it to the next file.
            self.sink.pad(*to, BLOCK)?;
            self.sink.write(*to, &bytes[at..at + len])?;
        }
        // It is there until this one is done.
        let _ = self.written.send(self.sink.begin());
        Ok(())
    }
}
