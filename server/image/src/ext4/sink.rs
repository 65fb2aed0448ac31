//! Where the disk's bytes go: a sparse file, written in large pieces, zeros left out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use mkext4::RegionSink;

/// Pieces are gathered up to this size: enough that the count of system calls stops to matter.
const PIECE_BYTES: usize = 1 << 20;
/// Runs of zeros of at least this length, at a multiple of it, become holes.
pub(super) const HOLE_BYTES: usize = 64 << 10;

/// Gathers neighbouring regions and leaves zeros as holes. The file must be new and have its final length.
#[derive(Debug)]
pub(super) struct HoleySink<'a> {
    file: &'a File,
    /// Where `piece` begins.
    offset: u64,
    piece: Vec<u8>,
}

impl<'a> HoleySink<'a> {
    /// Writes to `file`.
    pub(super) fn new(file: &'a File) -> Self {
        Self {
            file,
            offset: 0,
            piece: Vec::with_capacity(PIECE_BYTES),
        }
    }

    /// Writes what was gathered. Must be called at the end.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        write_with_holes(self.file, self.offset, &self.piece)?;
        self.piece.clear();
        Ok(())
    }

    /// Takes `bytes` for `offset`.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.gather(offset, bytes.len())? {
            self.piece.extend_from_slice(bytes);
            return Ok(());
        }
        write_with_holes(self.file, offset, bytes)?;
        self.offset = offset + bytes.len() as u64;
        Ok(())
    }

    fn end(&self) -> u64 {
        self.offset + self.piece.len() as u64
    }

    fn gather(&mut self, offset: u64, len: usize) -> io::Result<bool> {
        if self.end() != offset || self.piece.len() + len > PIECE_BYTES {
            self.flush()?;
            self.offset = offset;
        }
        Ok(len <= PIECE_BYTES)
    }
}

/// Writes `bytes` without their long runs of zeros.
pub(super) fn write_with_holes(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut begin = 0;
    let mut at = 0;
    while at < bytes.len() {
        let end = (at + HOLE_BYTES).min(bytes.len());
        if is_zero(&bytes[at..end]) {
            file.write_all_at(&bytes[begin..at], offset + begin as u64)?;
            begin = end;
        }
        at = end;
    }
    file.write_all_at(&bytes[begin..], offset + begin as u64)
}

/// Whether all are zeros.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // In words: this runs over every byte of every image.
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|chunk| u128::from_ne_bytes(*chunk) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

impl RegionSink for HoleySink<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(offset, bytes)
    }

    fn zeros(&mut self, offset: u64, len: u64) -> io::Result<()> {
        // The padding behind a file's end joins it to the next file; anything longer is a hole.
        match usize::try_from(len) {
            Ok(len)
                if len < 4096 && self.end() == offset && self.piece.len() + len <= PIECE_BYTES =>
            {
                self.piece.resize(self.piece.len() + len, 0);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
