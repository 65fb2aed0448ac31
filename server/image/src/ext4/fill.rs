//! The files' bytes: which are where they belong, and the others' way there.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::thread;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::content::{ContentReader, kept_runs};
use super::copy::Runs;
use super::error::Ext4Error;
use super::pipe::{Pipe, joined};
use super::room::Blocks as Room;
use crate::flatten::{Node, Tree};
use crate::tar::{Content, Extent};
use crate::writeback::Flush;

/// Zeros that are written with one call where the host's file system makes no holes.
const ZEROS_BYTES: usize = 1 << 20;

/// Where the bytes of a layer's files are.
#[derive(Debug)]
pub(crate) enum Source {
    /// A plain archive.
    Archive(File),
    /// Another base disk: whole blocks, with zeros behind a file's end.
    Disk(Arc<File>),
    /// Where they belong, with those of hidden files; or on their way there, by others.
    Placed,
}

/// A file's room on the disk.
#[derive(Debug)]
pub(super) struct Filling {
    /// In the tree.
    pub(super) number: u32,
    pub(super) blocks: Room,
    /// No name leads to it: its room is empty in the end.
    pub(super) is_hidden: bool,
}

/// The room of hidden files, which may lie there, or be on their way there.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Hidden {
    ranges: Vec<(u64, u64)>,
}

impl Hidden {
    fn add(&mut self, (offset, len): (u64, u64)) {
        match self.ranges.last_mut() {
            Some((before, known)) if *before + *known == offset => *known += len,
            _ => self.ranges.push((offset, len)),
        }
    }

    /// Makes holes of them, once all are there.
    pub(crate) fn clear(&self, disk: &File, cancel: &CancellationToken) -> Result<(), Ext4Error> {
        self.ranges.iter().try_for_each(|(offset, len)| {
            Ext4Error::unless(cancel)?;
            clear(disk, *offset, *len, cancel)
        })
    }
}

/// What has to be brought to its place.
#[derive(Debug, Default)]
struct Missing {
    /// Of archives.
    files: Vec<Archived>,
    /// Of other disks, by layer.
    runs: Vec<(u32, Runs)>,
}

impl Missing {
    fn add_run(&mut self, layer: u32, from: &Content, to: &[Extent]) {
        if self.runs.last().is_none_or(|(last, _)| *last != layer) {
            self.runs.push((layer, Runs::default()));
        }
        let (_, runs) = self.runs.last_mut().expect("one was added");
        runs.add(from, to);
    }
}

/// A file that is copied out of an archive.
#[derive(Debug)]
struct Archived {
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
) -> Result<Hidden, Ext4Error> {
    let (missing, hidden) = place(tree, files, sources, (cancel, progress))?;
    let tree = &*tree;
    thread::scope(|scope| {
        let stop = cancel.child_token();
        let stopped = stop.clone();
        let beside = scope.spawn(move || then(tree, &stopped));
        let copied = Pipe::run(disk, flush, cancel, |pipe| {
            gather(tree, &missing, sources, (pipe, disk), progress)
        });
        if copied.is_err() {
            stop.cancel();
        }
        let done = joined(beside);
        copied.and(done).map(|()| hidden)
    })
}

/// Has the tree say where the files' bytes will be. What of them is not there yet is missing.
fn place(
    tree: &mut Tree,
    files: Vec<Filling>,
    sources: &[Source],
    (cancel, progress): (&CancellationToken, &dyn Fn(u64)),
) -> Result<(Missing, Hidden), Ext4Error> {
    let (mut missing, mut hidden) = (Missing::default(), Hidden::default());
    for filling in files {
        Ext4Error::unless(cancel)?;
        let (layer, content) = tree.file_mut(filling.number);
        let ranges = filling.blocks.ranges();
        if filling.is_hidden {
            // Of a layer that is copied now something may have been placed before.
            ranges.into_iter().for_each(|range| hidden.add(range));
            continue;
        }
        let to = on_disk(content, &ranges);
        match &sources[layer as usize] {
            Source::Placed => progress(bytes_of(content)),
            Source::Disk(_) => missing.add_run(layer, content, &to),
            Source::Archive(_) => missing.files.push(Archived {
                layer,
                number: filling.number,
                from: Content {
                    size: content.size,
                    extents: std::mem::take(&mut content.extents),
                },
            }),
        }
        content.extents = to.into();
    }
    Ok((missing, hidden))
}

/// Puts every file into the pipe, each source's in the order of their places.
fn gather(
    tree: &Tree,
    Missing { files, runs }: &Missing,
    sources: &[Source],
    (pipe, disk): (&mut Pipe<'_>, &File),
    progress: &dyn Fn(u64),
) -> Result<(), Ext4Error> {
    for (layer, runs) in runs {
        if let Source::Disk(from) = &sources[*layer as usize] {
            runs.copy(from, (pipe, disk), progress)?;
        }
    }
    for Archived {
        layer,
        number,
        from,
    } in files
    {
        pipe.look()?;
        let Node::File { content: to, .. } = &tree.inode(*number).node else {
            unreachable!("what is copied is a file");
        };
        if let Source::Archive(file) = &sources[*layer as usize] {
            let mut reader = ContentReader::new(file, from);
            for piece in &to.extents {
                pipe.read(&mut reader, *piece)?;
            }
        }
        progress(bytes_of(from));
    }
    Ok(())
}

/// The bytes of a file, without its holes.
pub(super) fn bytes_of(content: &Content) -> u64 {
    content.extents.iter().map(|extent| extent.len).sum()
}

/// Makes a hole of what was written there.
fn clear(disk: &File, offset: u64, len: u64, cancel: &CancellationToken) -> Result<(), Ext4Error> {
    match rustix::fs::seek(disk, SeekFrom::Data(offset)) {
        Ok(data) if data < offset + len => {}
        Ok(_) | Err(Errno::NXIO) => return Ok(()),
        Err(error) => return Err(Ext4Error::Write(error.into())),
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(disk, flags, offset, len) {
        Err(Errno::OPNOTSUPP) => {
            let zeros = vec![0; ZEROS_BYTES];
            let mut at = offset;
            while at < offset + len {
                let step = (offset + len - at).min(ZEROS_BYTES as u64);
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
