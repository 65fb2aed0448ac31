//! Writes a tree of changes as a layer: whiteouts for what was removed (OCI image specification, "Layer
//! Filesystem Changeset"), gzip because every tool reads it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use banger_core::Digest;
use banger_core::tree::{TreeEntry, TreeKind, TreePiece};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::limits::UNCOMPRESSED_BYTES_MAX;
use crate::store::StoreError;
use banger_archive::TarWriter;

/// Names of layers that mean something else.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The directory ext4 makes itself.
const LOST_FOUND: &[u8] = b"lost+found";
/// Text and programs shrink little more above it, and take much longer.
const LEVEL: u32 = 4;

/// A layer being written. Dropped before its end, it leaves nothing.
#[derive(Debug)]
pub struct LayerWriter {
    tar: TarWriter<Hashing<GzEncoder<Hashing<io::BufWriter<File>>>>>,
    file: NamedTempFile,
    entries: u64,
}

/// A layer that was written, in a file without a final name.
#[derive(Debug)]
pub struct NewLayer {
    pub(super) file: NamedTempFile,
    /// Of the file.
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Of the archive in it.
    pub(super) diff_id: Digest,
    pub(super) entries: u64,
}

impl NewLayer {
    /// Whether nothing was changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }
}

impl LayerWriter {
    /// Writes into the directory `tmp`.
    pub(crate) fn new(tmp: &Path) -> Result<Self, StoreError> {
        let failed = StoreError::io("write a layer in", tmp);
        let make = || -> io::Result<(NamedTempFile, File)> {
            let file = NamedTempFile::with_prefix_in("layer-", tmp)?;
            let writer = file.reopen()?;
            Ok((file, writer))
        };
        let (file, writer) = make().map_err(failed)?;
        let blob = Hashing::new(io::BufWriter::with_capacity(1 << 18, writer));
        let plain = Hashing::new(GzEncoder::new(blob, Compression::new(LEVEL)));
        Ok(Self {
            tar: TarWriter::new(plain),
            file,
            entries: 0,
        })
    }

    /// Takes the next piece. Blocks.
    ///
    /// # Errors
    /// [`StoreError::ReservedName`], and when writing fails.
    pub fn piece(&mut self, piece: &TreePiece) -> Result<(), StoreError> {
        let written = match piece {
            TreePiece::Entry(entry) => self.entry(entry)?,
            TreePiece::Data(data) => self.tar.data(data),
        };
        written.map_err(StoreError::io("write", self.file.path()))
    }

    fn entry(&mut self, entry: &TreeEntry) -> Result<io::Result<()>, StoreError> {
        // The disk's, not the image's: each disk has one. What is in it is refused when the layer becomes a disk.
        if entry.path == LOST_FOUND && entry.kind == TreeKind::Directory {
            return Ok(Ok(()));
        }
        self.entries += 1;
        let (parent, name) = split(&entry.path);
        if name.starts_with(WHITEOUT) {
            return Err(StoreError::ReservedName {
                path: String::from_utf8_lossy(&entry.path)
                    .chars()
                    .take(200)
                    .collect(),
            });
        }
        let mark = |parent: &[u8], name: &[u8]| TreeEntry {
            path: if parent.is_empty() {
                name.to_vec()
            } else {
                [parent, name].join(&b'/')
            },
            kind: TreeKind::File { size: 0 },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            xattrs: std::collections::BTreeMap::new(),
        };
        Ok(match entry.kind {
            TreeKind::Removed => self.tar.entry(&mark(parent, &[WHITEOUT, name].concat())),
            TreeKind::OpaqueDirectory => self
                .tar
                .entry(entry)
                .and_then(|()| self.tar.entry(&mark(&entry.path, OPAQUE))),
            _ => self.tar.entry(entry),
        })
    }

    /// Ends the layer. Blocks.
    ///
    /// # Errors
    /// When writing fails, or it is larger than any layer may be.
    pub fn finish(self) -> Result<NewLayer, StoreError> {
        let Self { tar, file, entries } = self;
        let end = || -> io::Result<NewLayer> {
            let plain = tar.finish()?;
            if plain.bytes > UNCOMPRESSED_BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let diff_id = Digest::from_sha256(plain.hasher.finalize().into());
            let mut blob = plain.inner.finish()?;
            blob.inner.flush()?;
            Ok(NewLayer {
                digest: Digest::from_sha256(blob.hasher.finalize().into()),
                size: blob.bytes,
                diff_id,
                entries,
                file,
            })
        };
        end().map_err(StoreError::io("write", Path::new("a layer")))
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Hashes and counts what passes.
#[derive(Debug)]
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            bytes: 0,
        }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buf)?;
        self.hasher.update(&buf[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
