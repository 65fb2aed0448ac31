//! Keeping a blob while it arrives: counted, hashed and written to a file that has no final name yet.

use std::io::{self, Read, Write};
use std::path::Path;

use banger_core::Digest;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::LayerError;
use super::spool::OwnFile;
use crate::writeback::{Flush, WriteBack};

/// A blob that is arriving. Dropped before its end, it leaves nothing.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    file: NamedTempFile,
    back: WriteBack,
    hasher: Sha256,
    expected: Digest,
    size_bytes: u64,
    received: u64,
}

/// A blob that has the digest and size it should have, still under a temporary name.
#[derive(Debug)]
pub(crate) struct VerifiedBlob {
    file: NamedTempFile,
}

impl BlobWriter {
    /// Expects `size_bytes` bytes with the digest `expected`; writes into the directory `tmp`.
    pub(crate) fn new(
        tmp: &Path,
        expected: Digest,
        size_bytes: u64,
        flush: Flush,
    ) -> Result<Self, LayerError> {
        let file =
            NamedTempFile::with_prefix_in("blob-", tmp).map_err(|source| LayerError::Store {
                digest: expected,
                source,
            })?;
        Ok(Self {
            file,
            back: WriteBack::new(flush),
            hasher: Sha256::new(),
            expected,
            size_bytes,
            received: 0,
        })
    }

    /// Takes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.received += bytes.len() as u64;
        if self.received > self.size_bytes {
            return Err(LayerError::TooLong {
                digest: self.expected,
                expected: self.size_bytes,
            });
        }
        self.hasher.update(bytes);
        self.file
            .write_all(bytes)
            .map_err(|source| LayerError::Store {
                digest: self.expected,
                source,
            })?;
        self.back.written(self.file.as_file(), self.received);
        Ok(())
    }

    /// Checks the whole.
    pub(crate) fn finish(self) -> Result<VerifiedBlob, LayerError> {
        if self.received < self.size_bytes {
            return Err(LayerError::TooShort {
                digest: self.expected,
                expected: self.size_bytes,
                actual: self.received,
            });
        }
        let actual = Digest::from_sha256(self.hasher.finalize().into());
        if actual != self.expected {
            return Err(LayerError::WrongDigest {
                expected: self.expected,
                actual,
            });
        }
        Ok(VerifiedBlob { file: self.file })
    }
}

impl VerifiedBlob {
    /// A handle to read it by, from its beginning.
    pub(crate) fn reopen(&self) -> io::Result<std::fs::File> {
        self.file.reopen()
    }

    /// The file, to be given a name.
    pub(crate) fn into_file(self) -> NamedTempFile {
        self.file
    }
}

/// Reads a blob that is in the store. What goes wrong there is told from what is wrong with the blob.
#[derive(Debug)]
pub(crate) struct BlobReader<R>(pub(crate) R);

impl<R: Read> Read for BlobReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(OwnFile(error)),
        })
    }
}
