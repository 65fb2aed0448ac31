//! The base disk on its way into a file: hashed, its zeros left as holes, on its way to the disk early.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use banger_core::Digest;
use sha2::{Digest as _, Sha256};

use super::BundleError;
use crate::writeback::{Flush, WriteBack};

/// What is passed from thread to thread: large enough that passing costs nothing, and a multiple of a block.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// Pieces between the two threads: bounded memory, and neither waits for the other's hiccups.
pub(super) const PIECES_IN_FLIGHT: usize = 6;
/// A hole's unit: the block of the host's file systems.
const BLOCK_BYTES: usize = 4096;
/// Bytes that hold the superblock: it begins at 1024 and has 1024.
const HEAD_BYTES: usize = 2048;

/// Of the features without which a file system must not be mounted: the journal is to be replayed first.
const RECOVER: u64 = 0x4;

static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// A base disk that was written.
#[derive(Debug)]
pub(super) struct WrittenDisk {
    pub(super) size_bytes: u64,
    pub(super) digest: Digest,
    head: Vec<u8>,
}

/// Writes the pieces that come to `file`; what is used goes back to be filled again. `written` counts what is no
/// zeros. Blocks until the pieces end.
pub(super) fn write_disk(
    (file, flush): (&File, Flush),
    pieces: &Receiver<Vec<u8>>,
    used: &SyncSender<Vec<u8>>,
    written: &AtomicU64,
) -> Result<WrittenDisk, BundleError> {
    let failed = |source| BundleError::Store {
        step: "write the base disk",
        source,
    };
    let mut disk = WrittenDisk {
        size_bytes: 0,
        digest: Digest::from_sha256([0; 32]),
        head: Vec::with_capacity(HEAD_BYTES),
    };
    let mut hasher = Sha256::new();
    let mut back = WriteBack::new(flush);
    while let Ok(piece) = pieces.recv() {
        hasher.update(&piece);
        let missing = HEAD_BYTES - disk.head.len();
        disk.head
            .extend_from_slice(&piece[..missing.min(piece.len())]);
        let data = write_sparsely(file, &piece, disk.size_bytes).map_err(failed)?;
        written.fetch_add(data, Ordering::Relaxed);
        disk.size_bytes += piece.len() as u64;
        back.written(file, disk.size_bytes);
        // Nobody fills pieces any more after the last one.
        let _ = used.try_send(piece);
    }
    // Zeros at the end are a hole too.
    file.set_len(disk.size_bytes).map_err(failed)?;
    disk.digest = Digest::from_sha256(hasher.finalize().into());
    Ok(disk)
}

/// Writes runs of blocks that are not all zeros, each run at once. Returns how much that was.
fn write_sparsely(file: &File, piece: &[u8], offset: u64) -> io::Result<u64> {
    let is_hole = |block: &[u8]| *block == ZEROS[..block.len()];
    let (mut written, mut run, mut at) = (0, 0, 0);
    for block in piece.chunks(BLOCK_BYTES) {
        if is_hole(block) {
            if at > run {
                file.write_all_at(&piece[run..at], offset + run as u64)?;
                written += (at - run) as u64;
            }
            run = at + block.len();
        }
        at += block.len();
    }
    if at > run {
        file.write_all_at(&piece[run..at], offset + run as u64)?;
        written += (at - run) as u64;
    }
    Ok(written)
}

impl WrittenDisk {
    /// Whether it begins like an ext4 file system of its length (kernel documentation, ext4, "The Super Block").
    pub(super) fn check_ext4(&self) -> Result<(), BundleError> {
        let wrong = |field| Err(BundleError::NotExt4 { field });
        let byte = |at: usize| self.head.get(1024 + at).copied().map(u64::from);
        let word = |at: usize| -> Option<u64> {
            (0..4).try_fold(0, |word, place| {
                Some(word | byte(at + place)? << (8 * place))
            })
        };
        let (Some(low), Some(log), Some(magic), Some(high)) = (
            word(0x4),
            word(0x18),
            word(0x38).map(|word| word & 0xffff),
            word(0x150),
        ) else {
            return wrong("length");
        };
        if magic != 0xef53 {
            return wrong("magic number");
        }
        // Larger blocks than 64 KiB do not exist.
        if log > 6 {
            return wrong("block size");
        }
        let features = word(0x60).unwrap_or_default();
        // The guest mounts it without its journal, and would miss what is only there.
        if features & RECOVER != 0 {
            return Err(BundleError::JournalFull);
        }
        let is_64_bit = features & 0x80 != 0;
        let blocks = low | if is_64_bit { high << 32 } else { 0 };
        match blocks.checked_mul(1024 << log) {
            Some(length) if length > 0 && length <= self.size_bytes => Ok(()),
            _ => wrong("length"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_become_holes_and_nothing_else_does() {
        let file = tempfile::tempfile().unwrap();
        let mut piece = vec![0; PIECE_BYTES];
        piece[5 * BLOCK_BYTES + 7] = 1;
        piece[200 * BLOCK_BYTES] = 2;
        piece[201 * BLOCK_BYTES] = 3;
        assert_eq!(
            write_sparsely(&file, &piece, 0).unwrap(),
            3 * BLOCK_BYTES as u64
        );
        file.set_len(PIECE_BYTES as u64).unwrap();
        let mut back = vec![9; PIECE_BYTES];
        file.read_exact_at(&mut back, 0).unwrap();
        assert_eq!(back, piece);
        assert!(file.metadata().unwrap().blocks() * 512 <= 4 * BLOCK_BYTES as u64);
    }

    #[test]
    fn a_tail_that_fills_no_block_is_written() {
        let file = tempfile::tempfile().unwrap();
        let piece: Vec<u8> = (0..BLOCK_BYTES + 10)
            .map(|at| u8::from(at == BLOCK_BYTES + 9))
            .collect();
        assert_eq!(write_sparsely(&file, &piece, 100).unwrap(), 10);
        assert_eq!(file.metadata().unwrap().len(), (100 + piece.len()) as u64);
    }
}
