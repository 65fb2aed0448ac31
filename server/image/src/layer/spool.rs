//! A decompressed stream on its way to the tar reader, hashed and kept as it passes.

use std::fs::File;
use std::io::{self, Read, Write};

use banger_core::Digest;
use sha2::{Digest as _, Sha256};

use crate::limits::{RATIO_FREE_BYTES, RATIO_MAX, UNCOMPRESSED_BYTES_MAX};
use crate::tar::TarInput;

/// Moved in pieces of this size: large enough for the hash and the file, small enough for the cache.
const PIECE_BYTES: usize = 256 << 10;

/// How many bytes a layer of `compressed_bytes` may become.
pub(super) fn bytes_max(compressed_bytes: u64) -> u64 {
    RATIO_FREE_BYTES
        .max(compressed_bytes.saturating_mul(RATIO_MAX))
        .min(UNCOMPRESSED_BYTES_MAX)
}

/// What is kept of the stream beside its hash.
#[derive(Debug)]
pub(super) enum Keep {
    /// Every byte, in this file.
    All(File),
    /// Nothing: the source is a file with the same bytes.
    Nothing,
}

/// Reads a stream once, keeping it and its hash.
#[derive(Debug)]
pub(super) struct SpoolInput<R> {
    source: R,
    keep: Keep,
    hasher: Sha256,
    piece: Box<[u8]>,
    at: usize,
    end: usize,
    /// Bytes of the stream before `piece`.
    before: u64,
    bytes_max: u64,
}

/// The stream after its last byte.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) keep: Keep,
    pub(super) digest: Digest,
}

/// What the error of an oversized stream holds.
#[derive(Debug, thiserror::Error)]
#[error("the stream is larger than allowed")]
pub(super) struct TooLarge;

/// What the error of a failed write to the spool holds, to tell it from a failed read of the source.
#[derive(Debug, thiserror::Error)]
#[error("could not write the spool")]
pub(super) struct SpoolWrite(#[source] pub(super) io::Error);

impl<R: Read> SpoolInput<R> {
    /// Refuses a stream of more than `bytes_max` bytes.
    pub(super) fn new(source: R, keep: Keep, bytes_max: u64) -> Self {
        Self {
            source,
            keep,
            hasher: Sha256::new(),
            piece: vec![0; PIECE_BYTES].into_boxed_slice(),
            at: 0,
            end: 0,
            before: 0,
            bytes_max,
        }
    }

    /// Reads what follows the archive's end mark too: it belongs to the hash.
    pub(super) fn finish(mut self) -> io::Result<Spooled> {
        while self.refill()? {}
        Ok(Spooled {
            keep: self.keep,
            digest: Digest::from_sha256(self.hasher.finalize().into()),
        })
    }

    /// The next piece; false at the end.
    fn refill(&mut self) -> io::Result<bool> {
        self.before += self.end as u64;
        (self.at, self.end) = (0, 0);
        self.end = crate::tar::read_up_to(&mut self.source, &mut self.piece)?;
        let piece = &self.piece[..self.end];
        if self.before + piece.len() as u64 > self.bytes_max {
            return Err(io::Error::other(TooLarge));
        }
        self.hasher.update(piece);
        if let Keep::All(file) = &mut self.keep {
            file.write_all(piece)
                .map_err(|error| io::Error::other(SpoolWrite(error)))?;
        }
        Ok(self.end > 0)
    }
}

impl<R: Read> TarInput for SpoolInput<R> {
    fn read_up_to(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            if self.at == self.end && !self.refill()? {
                break;
            }
            let step = (self.end - self.at).min(buf.len() - filled);
            buf[filled..filled + step].copy_from_slice(&self.piece[self.at..self.at + step]);
            self.at += step;
            filled += step;
        }
        Ok(filled)
    }

    fn skip(&mut self, mut len: u64) -> io::Result<bool> {
        while len > 0 {
            if self.at == self.end && !self.refill()? {
                return Ok(false);
            }
            let step = usize::try_from(len)
                .unwrap_or(usize::MAX)
                .min(self.end - self.at);
            self.at += step;
            len -= step as u64;
        }
        Ok(true)
    }

    fn position(&self) -> u64 {
        self.before + self.at as u64
    }
}
