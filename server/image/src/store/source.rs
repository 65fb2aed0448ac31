//! Where the bytes of a layer come from.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use banger_core::Digest;
use bytes::Bytes;

use crate::registry::Registry;
use crate::writeback::Flush;

/// Where an image's blobs come from.
#[derive(Debug)]
pub(crate) enum BlobSource {
    Registry(Box<Registry>),
    /// By digest, in files of this host.
    Files(Vec<(Digest, Region)>),
}

impl BlobSource {
    /// When what is made of them is to go to the disk: what comes from a registry is not waited for.
    pub(super) const fn flush(&self) -> Flush {
        match self {
            Self::Registry(_) => Flush::Late,
            Self::Files(_) => Flush::Early,
        }
    }

    /// The registry, as a reference names it; empty for files of this host.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Registry(registry) => registry.name().to_owned(),
            Self::Files(_) => String::new(),
        }
    }
}

/// A run of bytes in a file.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    file: Arc<File>,
    offset: u64,
    len: u64,
}

impl Region {
    /// How much is read at once.
    const PIECE_BYTES: usize = 256 << 10;

    pub(crate) fn new(file: Arc<File>, offset: u64, len: u64) -> Self {
        Self { file, offset, len }
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// The whole, if it has at most `limit` bytes. Blocks.
    pub(crate) fn read_all(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.len > limit {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("larger than {limit} bytes"),
            ));
        }
        let mut bytes = vec![0; usize::try_from(self.len).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }

    /// Reads from the beginning, one piece after another.
    pub(super) fn reader(&self) -> RegionReader {
        RegionReader {
            region: self.clone(),
            at: 0,
        }
    }
}

/// Reads a region. Blocks.
#[derive(Debug)]
pub(super) struct RegionReader {
    region: Region,
    at: u64,
}

impl RegionReader {
    /// The next piece; `None` at the end.
    pub(super) fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = vec![0; Region::PIECE_BYTES];
        let read = io::Read::read(self, &mut piece)?;
        piece.truncate(read);
        Ok(if read == 0 { None } else { Some(piece.into()) })
    }
}

impl io::Read for RegionReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.region.len - self.at).unwrap_or(usize::MAX);
        let want = left.min(buf.len());
        let read = self
            .region
            .file
            .read_at(&mut buf[..want], self.region.offset + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
