//! A file's bytes on their way from a layer to the disk.
//!
//! The disk holds whole blocks, a sparse file's pieces begin and end anywhere: [`kept_runs`] says which
//! blocks are kept, [`ContentReader`] supplies exactly their bytes, with zeros around the pieces.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::room::BLOCK;
use crate::tar::{Content, Extent};

/// Block-aligned, disjoint, sorted ranges that hold every piece; the last may end with the file.
pub(super) fn kept_runs(content: &Content) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for extent in &content.extents {
        let begin = extent.logical / BLOCK * BLOCK;
        let end = (extent.logical + extent.len)
            .next_multiple_of(BLOCK)
            .min(content.size);
        match runs.last_mut() {
            Some((_, last)) if begin <= *last => *last = (*last).max(end),
            _ => runs.push((begin, end)),
        }
    }
    runs
}

/// Reads the kept runs of one file, one after another.
#[derive(Debug)]
pub(super) struct ContentReader<'a> {
    archive: &'a File,
    extents: &'a [Extent],
    runs: std::vec::IntoIter<(u64, u64)>,
    /// The next byte of the current run, and its end.
    at: u64,
    end: u64,
}

impl<'a> ContentReader<'a> {
    /// Reads `content` out of `archive`.
    pub(super) fn new(archive: &'a File, content: &'a Content) -> Self {
        Self {
            archive,
            extents: &content.extents,
            runs: kept_runs(content).into_iter(),
            at: 0,
            end: 0,
        }
    }
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end {
            let Some(run) = self.runs.next() else {
                return Ok(0);
            };
            (self.at, self.end) = run;
        }
        while let Some(extent) = self
            .extents
            .first()
            .filter(|extent| extent.logical + extent.len <= self.at)
        {
            let _ = extent;
            self.extents = &self.extents[1..];
        }
        let limit = |end: u64, buf: &[u8], at: u64| {
            buf.len()
                .min(usize::try_from(end - at).unwrap_or(usize::MAX))
        };
        let read = match self.extents.first() {
            Some(extent) if extent.logical <= self.at => {
                let want = limit((extent.logical + extent.len).min(self.end), buf, self.at);
                let offset = extent.offset + (self.at - extent.logical);
                self.archive.read_at(&mut buf[..want], offset)?
            }
            next => {
                let end = next.map_or(self.end, |extent| extent.logical.min(self.end));
                let want = limit(end, buf, self.at);
                buf[..want].fill(0);
                want
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}
