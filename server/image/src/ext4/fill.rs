//! The files' bytes on their way to the disk: read by one thread, written by another, and sent on by a third.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, ScopedJoinHandle};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::content::{ContentReader, kept_runs};
use super::error::Ext4Error;
use super::room::{BLOCK, Blocks as Room};
use super::sink::write_with_holes;
use crate::flatten::{Node, Tree};
use crate::tar::{Content, Extent};
use crate::writeback::{Flush, WriteBack};

/// Bytes that are written with one call, neighbouring files together.
const PIECE_BYTES: usize = 1 << 20;
/// Blocks that lie together are copied with one call up to this size: between two calls the work can be given up.
const RUN_BYTES: u64 = 16 << 20;
/// File systems that let two files have the same blocks, by `f_type` (statfs(2)): XFS, Btrfs, bcachefs.
const SHARING: [u64; 3] = [0x5846_5342, 0x9123_683e, 0xca45_1a4e];
/// Pieces between the thread that reads and the one that writes: enough that neither waits for the other's hiccups.
const PIECES_IN_FLIGHT: usize = 4;

/// Where the bytes of a layer's files are.
#[derive(Debug)]
pub(crate) enum Source {
    /// A plain archive.
    Archive(File),
    /// Another base disk: whole blocks, with zeros behind a file's end.
    Disk(File),
    /// Where they belong, with those of hidden files.
    Placed,
}

impl Source {
    const fn file(&self) -> Option<&File> {
        match self {
            Self::Archive(file) | Self::Disk(file) => Some(file),
            Self::Placed => None,
        }
    }
}

/// A file's room on the disk.
#[derive(Debug)]
pub(super) struct Filling {
    /// In the tree.
    pub(super) number: u32,
    pub(super) blocks: Room,
    /// No name leads to it: its room stays empty.
    pub(super) is_hidden: bool,
}

/// What the writing thread is to do.
enum Piece {
    /// Write these bytes.
    Bytes { offset: u64, bytes: Vec<u8> },
    /// Let both disks have these blocks.
    Blocks(Run),
}

/// How what lies on another disk comes to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transfer {
    /// By blocks that both have.
    Shared,
    /// By bytes, which one thread reads while the other writes: the kernel's own copy, page by page and by one thread, takes
    /// half as long again.
    Copied,
}

/// Blocks that lie together on another disk and on this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    layer: u32,
    from: u64,
    to: u64,
    len: u64,
}

/// A file that is copied.
#[derive(Debug)]
struct Copying {
    layer: u32,
    /// In the tree, which says where its bytes go.
    number: u32,
    /// Where they are.
    from: Content,
}

/// Copies the files' bytes to their room. Meanwhile `then` is done, with the tree that says where on the disk they are.
pub(super) fn fill(
    tree: &mut Tree,
    files: Vec<Filling>,
    sources: &[Source],
    (disk, flush): (&File, Flush),
    (cancel, progress): (&CancellationToken, &dyn Fn(u64)),
    then: impl FnOnce(&Tree, &CancellationToken) -> Result<(), Ext4Error> + Send,
) -> Result<(), Ext4Error> {
    let files = place(tree, files, (sources, disk), (cancel, progress))?;
    let tree = &*tree;
    thread::scope(|scope| {
        let (to_writer, pieces) = sync_channel(PIECES_IN_FLIGHT);
        let (back, spare) = sync_channel(PIECES_IN_FLIGHT + 2);
        let (written, ends) = channel();
        scope.spawn(move || send_on(&ends, disk, flush));
        let writer = scope.spawn(move || write(&pieces, (&back, &written), sources, disk));
        let mut gathering = Gathering {
            to_writer,
            spare,
            offset: 0,
            piece: vec![0; PIECE_BYTES],
            used: 0,
            run: None,
            cancel,
        };
        let stop = cancel.child_token();
        let stopped = stop.clone();
        let beside = scope.spawn(move || then(tree, &stopped));
        let read = gather(tree, files, (sources, disk), &mut gathering, progress);
        if read.is_err() {
            stop.cancel();
        }
        drop(gathering);
        // Who could not write explains why nobody could be handed more.
        let written = joined(writer).map_err(Ext4Error::Write);
        let done = joined(beside);
        written.and(read).and(done)
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Has the tree say where the files' bytes will be. What of them is not there yet is to be copied; what hidden ones left
/// there goes.
fn place(
    tree: &mut Tree,
    files: Vec<Filling>,
    (sources, disk): (&[Source], &File),
    (cancel, progress): (&CancellationToken, &dyn Fn(u64)),
) -> Result<Vec<Copying>, Ext4Error> {
    let mut copied = Vec::new();
    for filling in files {
        Ext4Error::unless(cancel)?;
        let (layer, content) = tree.file_mut(filling.number);
        let is_placed = matches!(sources[layer as usize], Source::Placed);
        let ranges = filling.blocks.ranges();
        if filling.is_hidden {
            for (offset, len) in ranges.into_iter().filter(|_| is_placed) {
                clear(disk, offset, len, cancel)?;
            }
            continue;
        }
        let to = on_disk(content, &ranges);
        if is_placed {
            progress(bytes_of(content));
            content.extents = to.into();
            continue;
        }
        copied.push(Copying {
            layer,
            number: filling.number,
            from: Content {
                size: content.size,
                extents: std::mem::replace(&mut content.extents, to.into()),
            },
        });
    }
    Ok(copied)
}

/// Reads every file, in the order of their places.
fn gather(
    tree: &Tree,
    files: Vec<Copying>,
    (sources, disk): (&[Source], &File),
    gathering: &mut Gathering<'_>,
    progress: &dyn Fn(u64),
) -> Result<(), Ext4Error> {
    let transfer = transfer(disk);
    for Copying {
        layer,
        number,
        from,
    } in files
    {
        Ext4Error::unless(gathering.cancel)?;
        let Node::File { content: to, .. } = &tree.inode(number).node else {
            unreachable!("what is copied is a file");
        };
        let to = &to.extents;
        match &sources[layer as usize] {
            Source::Placed => {}
            Source::Disk(_) if transfer == Transfer::Shared => {
                for (from, to, len) in moves(&from, to) {
                    let len = len.next_multiple_of(BLOCK);
                    gathering.add_blocks(Run {
                        layer,
                        from,
                        to,
                        len,
                    })?;
                }
            }
            Source::Archive(file) | Source::Disk(file) => {
                let mut reader = ContentReader::new(file, &from);
                for piece in to {
                    gathering.read(&mut reader, piece)?;
                }
            }
        }
        progress(bytes_of(&from));
    }
    gathering.flush()
}

/// The bytes of a file, without its holes.
pub(super) fn bytes_of(content: &Content) -> u64 {
    content.extents.iter().map(|extent| extent.len).sum()
}

fn transfer(disk: &File) -> Transfer {
    let kind = rustix::fs::fstatfs(disk).map(|stat| u64::try_from(stat.f_type));
    match kind {
        Ok(Ok(kind)) if SHARING.contains(&kind) => Transfer::Shared,
        _ => Transfer::Copied,
    }
}

/// Makes a hole of what was written there.
fn clear(disk: &File, offset: u64, len: u64, cancel: &CancellationToken) -> Result<(), Ext4Error> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(disk, flags, offset, len) {
        Err(Errno::OPNOTSUPP) => {
            let zeros = vec![0; PIECE_BYTES];
            let mut at = offset;
            while at < offset + len {
                let step = (offset + len - at).min(PIECE_BYTES as u64);
                let zeros = &zeros[..usize::try_from(step).expect("a piece is small")];
                Ext4Error::unless(cancel)?;
                disk.write_all_at(zeros, at).map_err(Ext4Error::Write)?;
                at += step;
            }
            Ok(())
        }
        done => done.map_err(|error| Ext4Error::Write(error.into())),
    }
}

/// Where the kept blocks of a file lie, given the disk's ranges for them one after another.
pub(super) fn on_disk(content: &Content, ranges: &[(u64, u64)]) -> Vec<Extent> {
    let mut pieces = Vec::with_capacity(ranges.len());
    let mut ranges = ranges.iter().copied();
    let (mut offset, mut left) = (0, 0);
    for (begin, end) in kept_runs(content) {
        let mut logical = begin;
        while logical < end {
            if left == 0 {
                match ranges.next() {
                    Some(range) => (offset, left) = range,
                    None => return pieces,
                }
                continue;
            }
            let len = left.min(end - logical);
            pieces.push(Extent {
                logical,
                offset,
                len,
            });
            (logical, offset, left) = (logical + len, offset + len, left - len);
        }
    }
    pieces
}

/// For each piece where it is, where it goes, and how long it is; both are cut at the same places.
pub(super) fn moves(from: &Content, to: &[Extent]) -> Vec<(u64, u64, u64)> {
    let mut moves = Vec::with_capacity(to.len());
    for extent in to {
        let mut at = extent.logical;
        let end = extent.logical + extent.len;
        let next = from
            .extents
            .partition_point(|source| source.logical + source.len <= at);
        for source in &from.extents[next..] {
            at = at.max(source.logical);
            if at >= end {
                break;
            }
            let len = (source.logical + source.len).min(end) - at;
            moves.push((
                source.offset + (at - source.logical),
                extent.offset + (at - extent.logical),
                len,
            ));
            at += len;
        }
    }
    moves
}

/// The reading side: gathers what lies together.
struct Gathering<'a> {
    to_writer: SyncSender<Piece>,
    /// Buffers that were written and can be used again.
    spare: Receiver<Vec<u8>>,
    /// Where `piece` begins on the disk.
    offset: u64,
    /// Always of its full length; what was read so far is at its beginning.
    piece: Vec<u8>,
    used: usize,
    run: Option<Run>,
    cancel: &'a CancellationToken,
}

impl Gathering<'_> {
    /// Reads a piece of a file, whose reader gives it next.
    fn read(&mut self, reader: &mut impl Read, extent: &Extent) -> Result<(), Ext4Error> {
        let (mut offset, end) = (extent.offset, extent.offset + extent.len);
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
                self.hand_over()?;
                self.offset = offset;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), Ext4Error> {
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

    fn add_blocks(&mut self, next: Run) -> Result<(), Ext4Error> {
        match &mut self.run {
            Some(run)
                if run.layer == next.layer
                    && run.from + run.len == next.from
                    && run.to + run.len == next.to
                    && run.len < RUN_BYTES =>
            {
                run.len += next.len;
                Ok(())
            }
            _ => match self.run.replace(next) {
                Some(run) => self.send(Piece::Blocks(run)),
                None => Ok(()),
            },
        }
    }

    fn flush(&mut self) -> Result<(), Ext4Error> {
        self.hand_over()?;
        match self.run.take() {
            Some(run) => self.send(Piece::Blocks(run)),
            None => Ok(()),
        }
    }

    fn send(&self, piece: Piece) -> Result<(), Ext4Error> {
        Ext4Error::unless(self.cancel)?;
        let gone = |_| Ext4Error::Write(io::ErrorKind::BrokenPipe.into());
        self.to_writer.send(piece).map_err(gone)
    }
}

/// The writing side, until no piece comes any more.
fn write(
    pieces: &Receiver<Piece>,
    (back, written): (&SyncSender<Vec<u8>>, &Sender<u64>),
    sources: &[Source],
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
            Piece::Blocks(run) => {
                let from = sources[run.layer as usize].file();
                copy_run(run, from.expect("it is on another disk"), disk)?;
                let _ = written.send(run.to + run.len);
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

/// Copies blocks, but for holes.
fn copy_run(run: Run, from: &File, disk: &File) -> io::Result<()> {
    let (mut at, end) = (run.from, run.from + run.len);
    while at < end {
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(()),
            data => data?,
        };
        if data >= end {
            return Ok(());
        }
        let hole = rustix::fs::seek(from, SeekFrom::Hole(data))?.min(end);
        copy_blocks(
            (from, data),
            (disk, run.to + (data - run.from)),
            hole - data,
        )?;
        at = hole;
    }
    Ok(())
}

/// The kernel lets both files have the blocks, or copies them where it cannot.
fn copy_blocks(
    (from, mut from_at): (&File, u64),
    (disk, mut to_at): (&File, u64),
    mut left: u64,
) -> io::Result<()> {
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let copied =
            rustix::fs::copy_file_range(from, Some(&mut from_at), disk, Some(&mut to_at), most);
        match copied {
            // Not every file system can, and some say so by doing nothing.
            Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::XDEV | Errno::INVAL) => {
                return copy_bytes((from, from_at), (disk, to_at), left);
            }
            copied => left -= copied? as u64,
        }
    }
    Ok(())
}

fn copy_bytes(
    (from, mut from_at): (&File, u64),
    (disk, mut to_at): (&File, u64),
    mut left: u64,
) -> io::Result<()> {
    let mut bytes = vec![0; PIECE_BYTES];
    while left > 0 {
        let step = left.min(PIECE_BYTES as u64);
        let bytes = &mut bytes[..usize::try_from(step).expect("a piece is small")];
        from.read_exact_at(bytes, from_at)?;
        disk.write_all_at(bytes, to_at)?;
        (from_at, to_at, left) = (from_at + step, to_at + step, left - step);
    }
    Ok(())
}
