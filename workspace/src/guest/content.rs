//! Contents of files, read while they may change.

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, OFlags};
use sha2::{Digest, Sha256};

use super::look::{Draft, mark};
use super::tree;

/// Contents are read and sent in pieces of this size.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// What came of reading a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// Of the bytes that were read.
    pub(super) sha256: [u8; 32],
    /// It was the same from when it was looked at to its end.
    pub(super) held_still: bool,
}

/// Reads the file of a draft, piece by piece and never more than it had when it was looked at.
///
/// # Errors
/// Those of `each`; a file that cannot be read did not hold still.
pub(super) fn read<E>(
    root: &OwnedFd,
    draft: &Draft,
    mut each: impl FnMut(Bytes) -> Result<(), E>,
) -> Result<Reading, E> {
    let mut digest = Sha256::new();
    let mut held_still = false;
    if let Ok(mut file) = open(root, draft) {
        let mut left = draft.size;
        let mut failed = false;
        while left > 0 {
            let mut piece =
                Vec::with_capacity(PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES)));
            let bounded = (&mut file)
                .take(left.min(PIECE_BYTES as u64))
                .read_to_end(&mut piece);
            failed |= bounded.is_err();
            if piece.is_empty() {
                break;
            }
            left -= piece.len() as u64;
            digest.update(&piece);
            each(piece.into())?;
        }
        held_still = !failed && left == 0 && is_same(&file, draft);
    }
    Ok(Reading {
        sha256: digest.finalize().into(),
        held_still,
    })
}

fn open(root: &OwnedFd, draft: &Draft) -> io::Result<File> {
    // A pipe that took the file's place does not make us wait.
    let file = tree::open_beneath(root, &draft.path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let stat = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn is_same(file: &File, draft: &Draft) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| {
        mark(&stat) == draft.mark && u64::try_from(stat.st_size) == Ok(draft.size)
    })
}
