//! Writing a bundle.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use banger_catalog::{MANIFEST_MEMBER, ROOTFS_MEMBER};
use banger_core::Digest;
use sha2::{Digest as _, Sha256};
use tar::Header;
use tokio_util::sync::CancellationToken;

use super::BundleError;
use super::member::BLOCK_BYTES;

/// Fast enough that two processors keep up with a disk, and a fifth smaller than the fastest level.
const LEVEL: i32 = 6;
/// Threads that compress. Their number does not change what is written (zstd.h, `ZSTD_c_nbWorkers`), as long as it
/// is not zero.
const WORKERS_MAX: u32 = 4;
/// How much is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// What goes into a bundle.
#[derive(Debug)]
pub(crate) struct BundleWriting<'a> {
    /// The manifest's bytes.
    pub(crate) manifest: &'a [u8],
    /// The base disk.
    pub(crate) disk: File,
    /// Its length and content, by the manifest.
    pub(crate) disk_size_bytes: u64,
    /// See there.
    pub(crate) disk_digest: Digest,
}

/// Bytes that go in, before compression.
pub(crate) fn content_bytes(manifest: &[u8], disk_size_bytes: u64) -> u64 {
    let unit = BLOCK_BYTES as u64;
    let padded = |size: u64| unit + size.next_multiple_of(unit);
    padded(manifest.len() as u64) + padded(disk_size_bytes) + 2 * unit
}

/// The digest of a whole disk. Blocks.
pub(crate) fn digest_of_disk(
    disk: &File,
    cancel: &CancellationToken,
    progress: &dyn Fn(u64),
) -> Result<Digest, BundleError> {
    let mut hasher = Sha256::new();
    let mut sink = |piece: &[u8]| {
        hasher.update(piece);
        Ok(())
    };
    read_disk(disk, cancel, progress, &mut sink)?;
    Ok(Digest::from_sha256(hasher.finalize().into()))
}

/// Writes a bundle to `to`: the same manifest and disk give the same bytes. Blocks.
pub(crate) fn write_bundle<W: Write>(
    bundle: &BundleWriting<'_>,
    to: W,
    cancel: &CancellationToken,
    progress: &dyn Fn(u64),
) -> Result<W, BundleError> {
    let failed = || BundleError::store("write the bundle");
    let workers = std::thread::available_parallelism().map_or(1, |count| {
        u32::try_from(count.get())
            .unwrap_or(WORKERS_MAX)
            .min(WORKERS_MAX)
    });
    let content = content_bytes(bundle.manifest, bundle.disk_size_bytes);
    let mut encoder = zstd::stream::write::Encoder::new(to, LEVEL).map_err(failed())?;
    encoder.multithread(workers).map_err(failed())?;
    encoder.include_checksum(true).map_err(failed())?;
    encoder
        .set_pledged_src_size(Some(content))
        .map_err(failed())?;
    append(&mut encoder, MANIFEST_MEMBER, bundle.manifest.len() as u64).map_err(failed())?;
    encoder.write_all(bundle.manifest).map_err(failed())?;
    pad(&mut encoder, bundle.manifest.len() as u64).map_err(failed())?;
    append(&mut encoder, ROOTFS_MEMBER, bundle.disk_size_bytes).map_err(failed())?;
    let mut hasher = Sha256::new();
    read_disk(&bundle.disk, cancel, progress, &mut |piece| {
        hasher.update(piece);
        encoder.write_all(piece)
    })?;
    let actual = Digest::from_sha256(hasher.finalize().into());
    if actual != bundle.disk_digest {
        return Err(BundleError::DiskChanged {
            expected: bundle.disk_digest,
            actual,
        });
    }
    pad(&mut encoder, bundle.disk_size_bytes).map_err(failed())?;
    encoder.write_all(&[0; 2 * BLOCK_BYTES]).map_err(failed())?;
    encoder.finish().map_err(failed())
}

/// A header without anything that differs from one writing to the next.
fn append(to: &mut impl Write, name: &str, size_bytes: u64) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_path(name)?;
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size_bytes);
    header.set_cksum();
    to.write_all(header.as_bytes())
}

fn pad(to: &mut impl Write, size_bytes: u64) -> io::Result<()> {
    let padding = size_bytes.next_multiple_of(BLOCK_BYTES as u64) - size_bytes;
    to.write_all(&[0; BLOCK_BYTES][..usize::try_from(padding).expect("less than a block")])
}

/// All bytes of a disk, piece by piece; what is a hole is not read.
fn read_disk(
    disk: &File,
    cancel: &CancellationToken,
    progress: &dyn Fn(u64),
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), BundleError> {
    let failed = || BundleError::store("read the base disk");
    let length = disk.metadata().map_err(failed())?.len();
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    let mut data = at..at;
    while at < length {
        if cancel.is_cancelled() {
            return Err(failed()(io::Error::other("given up")));
        }
        if at >= data.end {
            data = next_data(disk, at, length).map_err(failed())?;
        }
        // Up to the next change between data and hole.
        let (end, is_data) = if at < data.start {
            (data.start, false)
        } else {
            (data.end, true)
        };
        let want = usize::try_from((end - at).min(PIECE_BYTES as u64)).expect("at most a piece");
        if is_data {
            let mut reader = disk;
            reader.seek(SeekFrom::Start(at)).map_err(failed())?;
            reader.read_exact(&mut piece[..want]).map_err(failed())?;
        } else {
            piece[..want].fill(0);
        }
        sink(&piece[..want]).map_err(BundleError::store("write the bundle"))?;
        progress(want as u64);
        at += want as u64;
    }
    Ok(())
}

/// The next data at or after `at`; empty at the end where only a hole is left.
fn next_data(disk: &File, at: u64, length: u64) -> io::Result<std::ops::Range<u64>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;
    let start = match seek(disk, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(length..length),
        // A file system that does not tell has no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(at..length),
        Err(error) => return Err(error.into()),
    };
    let end = match seek(disk, SeekFrom::Hole(start)) {
        Ok(end) => end.min(length),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NXIO) => length,
        Err(error) => return Err(error.into()),
    };
    Ok(start.min(length)..end)
}
