//! Decompressing and indexing a layer.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use banger_core::Digest;
use tokio_util::sync::CancellationToken;

use super::LayerError;
use super::spool::{Keep, Keeping, OwnFile, SpoolInput, TooLarge, bytes_max};
use crate::ext4::{self, Cursor};
use crate::tar::{Budget, PackedEntries, TarError, TarReader};
use crate::unzstd::{Unzstd, Windows};
use crate::watched::GivenUp;
use crate::writeback::Flush;

/// Largest window of a zstd frame, 2^26 bytes: what level 21 writes, and bounded memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 26;

/// Bytes that are read at once of what gives fewer.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// A layer that can be put into a disk.
#[derive(Debug)]
pub(crate) struct IndexedLayer {
    /// Its entries, in the archive's order.
    pub(crate) entries: PackedEntries,
    /// Where their bytes lie.
    pub(crate) kept: Kept,
    /// The digest of the plain archive.
    pub(crate) diff_id: Digest,
    /// How many blocks of a disk its files take.
    pub(crate) file_blocks: u64,
}

/// Where the bytes of a layer's files lie.
#[derive(Debug)]
pub(crate) enum Kept {
    /// In the plain archive.
    Archive(File),
    /// In the blob, which is the plain archive.
    Blob,
    /// Where they belong on the disk.
    Disk,
}

/// Where the bytes of a layer's files are to go.
#[derive(Debug)]
pub(crate) enum Destination {
    /// With all of the plain archive to a nameless file in this directory, if the blob is not that already.
    Spool(PathBuf),
    /// To where they belong on this disk, from there on.
    Disk(File, Cursor, Flush),
}

impl Destination {
    /// What is kept there.
    pub(super) fn keep(self, is_compressed: bool) -> io::Result<Keep> {
        Ok(match self {
            Self::Disk(disk, start, flush) => Keep::Files(disk, start, flush),
            Self::Spool(tmp) if is_compressed => Keep::All(tempfile::tempfile_in(tmp)?),
            Self::Spool(_) => Keep::Nothing,
        })
    }
}

/// When it is known where the bytes of a layer's files are to go.
#[derive(Debug)]
pub(crate) enum To {
    /// It is.
    Known(Destination),
    /// When it is told. Before that a part of the layer is decompressed, where this takes no more memory than
    /// [`AHEAD_BYTES_MAX`](crate::limits::AHEAD_BYTES_MAX).
    Told(Receiver<Destination>),
}

impl From<Destination> for To {
    fn from(to: Destination) -> Self {
        Self::Known(to)
    }
}

/// What is to be indexed.
#[derive(Debug)]
pub(crate) struct LayerSource<R> {
    /// The blob's bytes.
    pub(crate) reader: R,
    /// The blob's digest, for errors.
    pub(crate) digest: Digest,
    /// The blob's length.
    pub(crate) size_bytes: u64,
}

/// How a blob is compressed, told by its first bytes: media types are not always right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Plain,
    Gzip,
    Zstd,
    Unsupported(&'static str),
}

impl Compression {
    fn of(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Self::Unsupported("xz"),
            [b'B', b'Z', b'h', ..] => Self::Unsupported("bzip2"),
            _ => Self::Plain,
        }
    }
}

/// Whether a part of a blob can be decompressed before it is known where it goes: zstd takes a window that others may wait
/// for, and what is plain is there as it is.
pub(crate) fn is_worth_ahead(blob: &File) -> bool {
    let mut first = [0; 2];
    let read = blob.read_at(&mut first, 0);
    read.is_ok_and(|read| Compression::of(&first[..read]) == Compression::Gzip)
}

/// Reads a whole blob. Blocks: for memory only until `cancel` is cancelled, to be told where to only while somebody may
/// tell.
pub(crate) fn index_layer<R: BufRead>(
    source: LayerSource<R>,
    to: impl Into<To>,
    budget: &Budget,
    cancel: &CancellationToken,
) -> Result<IndexedLayer, LayerError> {
    let LayerSource {
        mut reader,
        digest,
        size_bytes,
    } = source;
    let damaged = |source| LayerError::BadCompression { digest, source };
    let mut index = Index {
        digest,
        size_bytes,
        budget,
        is_compressed: true,
    };
    let first = reader.fill_buf();
    let compression = Compression::of(first.map_err(|error| index.judge(TarError::Read(error)))?);
    let is_compressed = compression != Compression::Plain;
    index.is_compressed = is_compressed;
    let known = |to: Destination| {
        let keep = to.keep(is_compressed).map(Keeping::Known);
        keep.map_err(|source| LayerError::Store { digest, source })
    };
    let keeping = match to.into() {
        To::Known(to) => known(to)?,
        To::Told(told) if compression == Compression::Gzip => Keeping::Told(told),
        To::Told(told) => match told.recv() {
            Ok(to) => known(to)?,
            Err(_) => return Err(damaged(io::Error::other(GivenUp))),
        },
    };
    match compression {
        Compression::Plain => index.run(reader, keeping),
        Compression::Gzip => index.run(flate2::bufread::MultiGzDecoder::new(reader), keeping),
        Compression::Zstd => {
            let windows = Windows::of_process();
            let decoder = Unzstd::new(reader, ZSTD_WINDOW_LOG_MAX, windows, cancel.clone());
            index.run(decoder.map_err(damaged)?, keeping)
        }
        Compression::Unsupported(format) => {
            Err(LayerError::UnsupportedCompression { digest, format })
        }
    }
}

struct Index<'a> {
    digest: Digest,
    size_bytes: u64,
    budget: &'a Budget,
    is_compressed: bool,
}

impl Index<'_> {
    fn run(&self, plain: impl Read, keeping: Keeping) -> Result<IndexedLayer, LayerError> {
        let mut reader = TarReader::new(
            SpoolInput::new(plain, keeping, bytes_max(self.size_bytes)),
            self.budget,
        );
        let mut entries = PackedEntries::default();
        let mut file_blocks = 0;
        let read = loop {
            match reader.next_entry() {
                Ok(Some(entry)) => {
                    let blocks = ext4::file_blocks(&entry);
                    reader.input_mut().comes(&entry, blocks);
                    file_blocks += blocks;
                    entries.push(&entry);
                }
                Ok(None) => break reader.into_input().finish().map_err(TarError::Read),
                Err(error) => break Err(error),
            }
        };
        let spooled = read.map_err(|error| {
            self.budget.refund(entries.cost());
            self.judge(error)
        })?;
        entries.shrink_to_fit();
        let kept = match spooled.keep {
            Keep::All(file) => Kept::Archive(file),
            Keep::Nothing => Kept::Blob,
            Keep::Files(..) => Kept::Disk,
        };
        Ok(IndexedLayer {
            entries,
            kept,
            diff_id: spooled.digest,
            file_blocks,
        })
    }

    /// A failed read is the decompressor's, the spool's or a bound's; the rest is about the archive.
    fn judge(&self, error: TarError) -> LayerError {
        let digest = self.digest;
        let source = match error {
            TarError::Read(source) => source,
            source => return LayerError::Archive { digest, source },
        };
        if source.get_ref().is_some_and(|inner| inner.is::<TooLarge>()) {
            return LayerError::Bomb { digest };
        }
        if source.get_ref().is_some_and(|inner| inner.is::<OwnFile>()) {
            let inner = source
                .into_inner()
                .and_then(|inner| inner.downcast::<OwnFile>().ok());
            let source = inner.map_or_else(|| io::Error::other("the store"), |own| own.0);
            return LayerError::Store { digest, source };
        }
        match source.kind() {
            io::ErrorKind::UnexpectedEof if self.is_compressed => {
                LayerError::TruncatedCompression { digest }
            }
            _ if self.is_compressed => LayerError::BadCompression { digest, source },
            _ => LayerError::Archive {
                digest,
                source: TarError::Read(source),
            },
        }
    }
}

/// A plain archive in a nameless file.
#[derive(Debug)]
pub(crate) struct SpooledArchive {
    pub(crate) entries: PackedEntries,
    pub(crate) file: File,
}

/// Like [`index_layer`], for a plain archive from a pipe, of which every byte is kept. Blocks.
pub(crate) fn spool_archive<R: Read>(
    source: LayerSource<R>,
    tmp: &Path,
    budget: &Budget,
) -> Result<SpooledArchive, LayerError> {
    let LayerSource {
        reader,
        digest,
        size_bytes,
    } = source;
    let spool =
        tempfile::tempfile_in(tmp).map_err(|source| LayerError::Store { digest, source })?;
    let kept = spool
        .try_clone()
        .map_err(|source| LayerError::Store { digest, source })?;
    let index = Index {
        digest,
        size_bytes,
        budget,
        is_compressed: false,
    };
    let layer = index.run(reader, Keeping::Known(Keep::All(spool)))?;
    Ok(SpooledArchive {
        entries: layer.entries,
        file: kept,
    })
}
