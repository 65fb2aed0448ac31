//! Blocks that another base disk has: what lies together on both is copied together.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::error::Ext4Error;
use super::pipe::Pipe;
use super::room::{BLOCK, Cursor};
use super::stream::{Placing, file_blocks};
use crate::tar::{Content, EntryKind, Extent, PackedEntries};

/// Blocks that lie together are copied as one up to this size, or one file's beyond it: between two the work can be given up.
const RUN_BYTES: u64 = 16 << 20;
/// Bytes that are read and written with one call where the kernel can do neither with both files.
const STEP_BYTES: usize = 1 << 20;
/// File systems that let two files have the same blocks, by `f_type` (statfs(2)): XFS, Btrfs, bcachefs.
const SHARING: [u64; 3] = [0x5846_5342, 0x9123_683e, 0xca45_1a4e];

/// How what lies on another disk comes to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transfer {
    /// By blocks that both have.
    Shared,
    /// By bytes, which one thread reads while the other writes: the kernel's own copy, page by page and by one thread, takes
    /// half as long again.
    Copied,
}

impl Transfer {
    /// To this disk from one beside it.
    fn to(disk: &File) -> Self {
        let kind = rustix::fs::fstatfs(disk).map(|stat| u64::try_from(stat.f_type));
        match kind {
            Ok(Ok(kind)) if SHARING.contains(&kind) => Self::Shared,
            _ => Self::Copied,
        }
    }
}

/// Whole blocks that lie together on another disk and on this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    from: u64,
    to: u64,
    len: u64,
    /// How many of these bytes are files'.
    content: u64,
}

impl Run {
    /// Where it ends on this disk.
    pub(super) const fn end(self) -> u64 {
        self.to + self.len
    }
}

/// What is copied from another disk, in the order of its places on this one.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<Run>,
}

impl Runs {
    /// The files of a layer whose files begin at `start`, but for those that are not on the other disk, which the entries'
    /// places refer to.
    pub(crate) fn of_layer(entries: &PackedEntries, start: Cursor) -> Self {
        let (mut runs, mut placing) = (Self::default(), Placing::new(start));
        for entry in entries.iter() {
            let EntryKind::File(content) = &entry.kind else {
                continue;
            };
            let to = placing.place(content, file_blocks(&entry));
            if !content.is_lost() {
                runs.add(content, &to);
            }
        }
        runs
    }

    /// Adds a file that is there, and will be here.
    pub(super) fn add(&mut self, from: &Content, to: &[Extent]) {
        for (from, to, content) in moves(from, to) {
            let len = content.next_multiple_of(BLOCK);
            match self.runs.last_mut() {
                Some(run)
                    if run.from + run.len == from && run.end() == to && run.len < RUN_BYTES =>
                {
                    run.len += len;
                    run.content += content;
                }
                _ => self.runs.push(Run {
                    from,
                    to,
                    len,
                    content,
                }),
            }
        }
    }

    /// The bytes of the files.
    pub(crate) fn content_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.content).sum()
    }

    /// Puts all into the pipe to `disk`; `progress` is told of files' bytes.
    pub(crate) fn copy(
        &self,
        from: &Arc<File>,
        (pipe, disk): (&mut Pipe<'_>, &File),
        progress: &dyn Fn(u64),
    ) -> Result<(), Ext4Error> {
        let transfer = Transfer::to(disk);
        for run in &self.runs {
            pipe.look()?;
            match transfer {
                Transfer::Shared => pipe.share(from, *run)?,
                Transfer::Copied => read_run(*run, from, pipe)?,
            }
            progress(run.content);
        }
        Ok(())
    }
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

/// A file from some place on.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buf, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Reads blocks. Holes too, which become holes again: of what is not on its disk yet not every file system knows them.
fn read_run(run: Run, from: &File, pipe: &mut Pipe<'_>) -> Result<(), Ext4Error> {
    let Run {
        from: at, to, len, ..
    } = run;
    let piece = Extent {
        logical: 0,
        offset: to,
        len,
    };
    pipe.read(&mut At { file: from, at }, piece)
}

/// Copies blocks, but for holes.
pub(super) fn copy_run(run: Run, from: &File, disk: &File) -> io::Result<()> {
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
    let mut bytes = vec![0; STEP_BYTES];
    while left > 0 {
        let step = left.min(STEP_BYTES as u64);
        let bytes = &mut bytes[..usize::try_from(step).expect("a step is small")];
        from.read_exact_at(bytes, from_at)?;
        disk.write_all_at(bytes, to_at)?;
        (from_at, to_at, left) = (from_at + step, to_at + step, left - step);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use banger_archive::{Entry, Meta, Xattrs};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::writeback::Flush;

    fn file(path: &str, content: Content) -> Entry {
        Entry {
            path: path.as_bytes().into(),
            kind: EntryKind::File(content),
            meta: Meta {
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: (0, 0),
            },
            xattrs: Xattrs::default(),
        }
    }

    /// Bytes that tell where they were.
    fn numbered(len: u64) -> Vec<u8> {
        let number = |n: u64| u8::try_from(n / BLOCK % 251 + 1).unwrap();
        (0..len).map(number).collect()
    }

    #[test]
    fn what_lies_together_on_both_disks_is_one_run_and_what_is_lost_none() {
        let entries: PackedEntries = [
            file("a", Content::dense(BLOCK, BLOCK + 5)),
            file("b", Content::dense(3 * BLOCK, BLOCK)),
            file("lost", Content::dense(9 * BLOCK, 2 * BLOCK).lost()),
            file("c", Content::dense(20 * BLOCK, 7)),
        ]
        .into_iter()
        .collect();
        let start = Cursor::new().behind(10);
        let runs = Runs::of_layer(&entries, start);
        let to = start.end() * BLOCK;
        let run = |from, to, blocks, content| Run {
            from: from * BLOCK,
            to,
            len: blocks * BLOCK,
            content,
        };
        assert_eq!(
            runs.runs,
            [run(1, to, 3, 2 * BLOCK + 5), run(20, to + 5 * BLOCK, 1, 7)]
        );
        assert_eq!(runs.content_bytes(), 2 * BLOCK + 12);

        let (from, disk) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let bytes = numbered(21 * BLOCK);
        from.write_all_at(&bytes, 0).unwrap();
        let (cancel, from) = (CancellationToken::new(), Arc::new(from));
        Pipe::run(&disk, Flush::Late, &cancel, |pipe| {
            runs.copy(&from, (pipe, &disk), &|_| {})
        })
        .unwrap();
        let mut copied = vec![0; 6 * usize::try_from(BLOCK).unwrap()];
        disk.read_exact_at(&mut copied, to).unwrap();
        let block = usize::try_from(BLOCK).unwrap();
        assert!(copied[..3 * block] == bytes[block..4 * block]);
        assert!(copied[3 * block..5 * block].iter().all(|byte| *byte == 0));
        assert!(copied[5 * block..] == bytes[20 * block..]);
        assert!(disk.metadata().unwrap().len() == to + 6 * BLOCK);
    }

    #[test]
    fn what_is_given_up_is_copied_no_further() {
        let entries: PackedEntries = [file("a", Content::dense(0, BLOCK))].into_iter().collect();
        let runs = Runs::of_layer(&entries, Cursor::new());
        let (from, disk) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let cancel = CancellationToken::new();
        cancel.cancel();
        let copied = Pipe::run(&disk, Flush::Late, &cancel, |pipe| {
            runs.copy(&Arc::new(from), (pipe, &disk), &|_| {})
        });
        assert!(matches!(copied, Err(Ext4Error::Cancelled)));
    }
}
