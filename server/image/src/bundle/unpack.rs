//! Reading a bundle.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use banger_catalog::{
    BundleEntry, ImageManifest, MANIFEST_BYTES_MAX, MANIFEST_MEMBER, ROOTFS_BYTES_MAX,
    ROOTFS_MEMBER,
};
use banger_core::Digest;
use banger_core::image::Platform;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use super::BundleError;
use super::disk::{PIECE_BYTES, PIECES_IN_FLIGHT, WrittenDisk, write_disk};
use super::member::{self, Member};
use crate::limits::{RATIO_FREE_BYTES, RATIO_MAX};
use crate::unzstd::{Unzstd, Windows};
use crate::watched::Watched;
use crate::writeback::Flush;

/// Largest window of a zstd frame, 2^27 bytes: what `zstd --long` writes, and bounded memory.
pub(super) const WINDOW_LOG_MAX: u32 = 27;
/// The first bytes of a zstd frame (RFC 8878 §3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What is known of a bundle before it is read.
#[derive(Debug)]
pub(crate) struct Expected {
    /// What a catalog says of it; absent for a file that somebody gave.
    pub(crate) entry: Option<BundleEntry>,
    /// What it must run on.
    pub(crate) platform: Platform,
}

/// A bundle that is right in all its parts, its disk still under a temporary name.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) manifest: ImageManifest,
    pub(crate) manifest_bytes: Vec<u8>,
    pub(crate) disk: NamedTempFile,
}

impl Unpacked {
    /// What identifies the image.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest_bytes)
    }
}

/// Whether a file begins like a bundle: zstd, and in it an archive whose first member a bundle has. Blocks.
pub(crate) fn looks_like_bundle(file: &mut impl Read) -> bool {
    let mut first = [0; 4];
    if file.read_exact(&mut first).is_err() || first != ZSTD_MAGIC {
        return false;
    }
    let Ok(decoder) = zstd::stream::read::Decoder::new(first.chain(file)) else {
        return false;
    };
    let mut decoder = decoder;
    if decoder.window_log_max(WINDOW_LOG_MAX).is_err() {
        return false;
    }
    let member = member::next_member(&mut decoder);
    let Ok(Some(Member { name, size_bytes })) = member else {
        return false;
    };
    match name.as_str() {
        ROOTFS_MEMBER => true,
        // A Docker archive has a member of this name too, with another document.
        MANIFEST_MEMBER => {
            let mut bytes = Vec::new();
            let read = decoder
                .take(size_bytes.min(MANIFEST_BYTES_MAX))
                .read_to_end(&mut bytes);
            read.is_ok() && ImageManifest::is_claimed(&bytes)
        }
        _ => false,
    }
}

/// Reads a whole bundle from `file`, its compressed bytes; the disk goes to a file in `tmp`. Blocks, until `cancel` is
/// cancelled.
pub(crate) fn unpack(
    file: impl Read,
    expected: &Expected,
    tmp: &Path,
    cancel: &CancellationToken,
) -> Result<Unpacked, BundleError> {
    let disk = NamedTempFile::with_prefix_in("rootfs-", tmp)
        .map_err(BundleError::store("create a file for the base disk"))?;
    let compressed = AtomicU64::new(0);
    let mut source = Counting {
        inner: file,
        hasher: Sha256::new(),
        read: &compressed,
        limit: expected.entry.as_ref().map(|entry| entry.file.size_bytes),
    };
    let read = read_members(&mut source, expected, (disk.as_file(), &compressed), cancel);
    let (manifest_bytes, written) = match read {
        Err(error) if !error.is_of_content() => return Err(error),
        // A file that is not the right one explains whatever is wrong inside.
        read => source.check(expected.entry.as_ref()).and(read)?,
    };
    let manifest = ImageManifest::parse(&manifest_bytes).map_err(BundleError::Manifest)?;
    check(&manifest, &manifest_bytes, &written, expected)?;
    Ok(Unpacked {
        manifest,
        manifest_bytes,
        disk,
    })
}

/// The members, and what follows them.
fn read_members(
    source: &mut impl Read,
    expected: &Expected,
    (disk, compressed): (&File, &AtomicU64),
    cancel: &CancellationToken,
) -> Result<(Vec<u8>, WrittenDisk), BundleError> {
    let source = BufReader::with_capacity(256 << 10, source);
    let windows = Windows::of_process();
    let decoder = Unzstd::new(source, WINDOW_LOG_MAX, windows, cancel.clone());
    let mut decoder = Watched::new(decoder.map_err(BundleError::Damaged)?, cancel.clone());
    // What a catalog has can be fetched again.
    let flush = match expected.entry {
        Some(_) => Flush::Late,
        None => Flush::Early,
    };
    let (mut manifest, mut written) = (None, None);
    while let Some(found) = member::next_member(&mut decoder)? {
        match found.name.as_str() {
            MANIFEST_MEMBER if manifest.is_some() => {
                return Err(BundleError::Duplicate {
                    member: MANIFEST_MEMBER,
                });
            }
            ROOTFS_MEMBER if written.is_some() => {
                return Err(BundleError::Duplicate {
                    member: ROOTFS_MEMBER,
                });
            }
            MANIFEST_MEMBER => {
                bounded(MANIFEST_MEMBER, &found, MANIFEST_BYTES_MAX)?;
                let size = usize::try_from(found.size_bytes).expect("bounded above");
                let mut bytes = vec![0; size];
                member::read_exact(&mut decoder, &mut bytes)?;
                manifest = Some(bytes);
            }
            ROOTFS_MEMBER => {
                bounded(ROOTFS_MEMBER, &found, ROOTFS_BYTES_MAX)?;
                check_announced(&found, manifest.as_deref(), expected)?;
                written = Some(copy_disk(
                    &mut decoder,
                    found.size_bytes,
                    (disk, flush),
                    compressed,
                )?);
            }
            _ => {
                return Err(BundleError::Unexpected {
                    member: found.name.chars().take(100).collect(),
                });
            }
        }
        let padding = usize::try_from(found.padding_bytes()).expect("less than a block");
        member::read_exact(&mut decoder, &mut [0; member::BLOCK_BYTES][..padding])?;
    }
    member::finish(&mut decoder)?;
    let missing = |member| BundleError::Missing { member };
    Ok((
        manifest.ok_or(missing(MANIFEST_MEMBER))?,
        written.ok_or(missing(ROOTFS_MEMBER))?,
    ))
}

fn bounded(member: &'static str, found: &Member, limit: u64) -> Result<(), BundleError> {
    if found.size_bytes <= limit {
        return Ok(());
    }
    Err(BundleError::TooLarge {
        member,
        size_bytes: found.size_bytes,
        limit,
    })
}

/// A disk of a wrong length is refused before its bytes come.
fn check_announced(
    found: &Member,
    manifest: Option<&[u8]>,
    expected: &Expected,
) -> Result<(), BundleError> {
    let by_entry = expected.entry.as_ref().map(|entry| entry.rootfs_size_bytes);
    let by_manifest = manifest
        .map(ImageManifest::parse)
        .transpose()
        .map_err(BundleError::Manifest)?
        .map(|manifest| manifest.rootfs.size_bytes);
    match by_entry.or(by_manifest) {
        Some(size) if size != found.size_bytes => Err(BundleError::RootfsSize {
            expected: size,
            actual: found.size_bytes,
        }),
        _ => Ok(()),
    }
}

/// The disk, hashed and written by a thread of its own while this one decompresses.
pub(super) fn copy_disk(
    archive: &mut impl Read,
    size_bytes: u64,
    disk: (&File, Flush),
    compressed: &AtomicU64,
) -> Result<WrittenDisk, BundleError> {
    let written = AtomicU64::new(0);
    let (pieces, to_write) = sync_channel(PIECES_IN_FLIGHT);
    let (give_back, used) = sync_channel(PIECES_IN_FLIGHT + 2);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (to_write, give_back) = (to_write, give_back);
            write_disk(disk, &to_write, &give_back, &written)
        });
        let fill = Fill {
            pieces,
            used,
            written: &written,
            compressed,
        };
        let filled = fill.run(archive, size_bytes);
        let disk = writer.join().expect("the writer does not panic")?;
        filled.map(|()| disk)
    })
}

/// The decompressing side of [`copy_disk`].
struct Fill<'a> {
    pieces: SyncSender<Vec<u8>>,
    used: Receiver<Vec<u8>>,
    written: &'a AtomicU64,
    compressed: &'a AtomicU64,
}

impl Fill<'_> {
    fn run(self, archive: &mut impl Read, size_bytes: u64) -> Result<(), BundleError> {
        let mut left = size_bytes;
        while left > 0 {
            let want = left.min(PIECE_BYTES as u64);
            let mut piece = self.used.try_recv().unwrap_or_default();
            piece.resize(usize::try_from(want).expect("at most a piece"), 0);
            member::read_exact(archive, &mut piece)?;
            if self.pieces.send(piece).is_err() {
                return Ok(()); // the writer has failed, and says why
            }
            left -= want;
            self.check_ratio()?;
        }
        Ok(())
    }

    /// Zeros cost nothing here and compress without limit; everything else is judged.
    fn check_ratio(&self) -> Result<(), BundleError> {
        let read = self.compressed.load(Ordering::Relaxed);
        let allowed = RATIO_FREE_BYTES.max(read.saturating_mul(RATIO_MAX));
        if self.written.load(Ordering::Relaxed) > allowed {
            return Err(BundleError::Bomb { limit: RATIO_MAX });
        }
        Ok(())
    }
}

fn check(
    manifest: &ImageManifest,
    manifest_bytes: &[u8],
    written: &WrittenDisk,
    expected: &Expected,
) -> Result<(), BundleError> {
    if let Some(entry) = &expected.entry {
        let disagree = |field| Err(BundleError::Disagreement { field });
        if manifest.name != entry.name {
            return disagree("name");
        }
        if manifest.version != entry.version {
            return disagree("version");
        }
        if manifest.platform != entry.platform {
            return disagree("platform");
        }
        if manifest.kernel != entry.kernel {
            return disagree("kernel");
        }
        if Digest::of(manifest_bytes) != entry.digest {
            return disagree("manifest");
        }
    }
    let (own, wanted) = (&manifest.platform, &expected.platform);
    if own.os != wanted.os || own.architecture != wanted.architecture {
        return Err(BundleError::Platform {
            wanted: wanted.to_string(),
            actual: own.to_string(),
        });
    }
    if written.size_bytes != manifest.rootfs.size_bytes {
        return Err(BundleError::RootfsSize {
            expected: manifest.rootfs.size_bytes,
            actual: written.size_bytes,
        });
    }
    if written.digest != manifest.rootfs.digest {
        return Err(BundleError::RootfsDigest {
            expected: manifest.rootfs.digest,
            actual: written.digest,
        });
    }
    written.check_ext4()
}

/// The compressed bytes, counted and hashed as they pass.
struct Counting<'a, R> {
    inner: R,
    hasher: Sha256,
    read: &'a AtomicU64,
    limit: Option<u64>,
}

impl<R: Read> Counting<'_, R> {
    /// Reads what nobody wanted, and compares the whole with what the catalog says.
    fn check(mut self, entry: Option<&BundleEntry>) -> Result<(), BundleError> {
        let Some(entry) = entry else { return Ok(()) };
        // A failed read is its source's to explain; here it is as good as an end.
        let _ = io::copy(&mut self, &mut io::sink());
        let read = self.read.load(Ordering::Relaxed);
        if read != entry.file.size_bytes {
            return Err(BundleError::FileSize {
                expected: entry.file.size_bytes,
                actual: read,
            });
        }
        let actual = Digest::from_sha256(self.hasher.finalize().into());
        if actual != entry.file.digest {
            return Err(BundleError::FileDigest {
                expected: entry.file.digest,
                actual,
            });
        }
        Ok(())
    }
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let before = self.read.load(Ordering::Relaxed);
        // One byte too many is enough to know.
        if self.limit.is_some_and(|limit| before > limit) {
            return Ok(0);
        }
        let read = self.inner.read(buf)?;
        self.hasher.update(&buf[..read]);
        self.read.store(before + read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_core::Explain;

    /// Cancels when it is read.
    struct Cancelling<'a>(&'a [u8], CancellationToken);

    impl Read for Cancelling<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.1.cancel();
            self.0.read(buf)
        }
    }

    #[test]
    fn a_bundle_that_nobody_wants_any_more_is_unpacked_no_further() {
        let tmp = tempfile::tempdir().unwrap();
        let cancel = CancellationToken::new();
        let mut header = tar::Header::new_ustar();
        header.set_path(ROOTFS_MEMBER).unwrap();
        header.set_size(1 << 30);
        header.set_cksum();
        let begin = [&header.as_bytes()[..], &[0; 8 << 20]].concat();
        let bundle = zstd::encode_all(&*begin, 1).unwrap();
        let expected = Expected {
            entry: None,
            platform: Platform::host(),
        };
        let reader = Cancelling(&bundle, cancel.clone());
        let error = unpack(reader, &expected, tmp.path(), &cancel).unwrap_err();
        assert!(matches!(error, BundleError::GivenUp), "{error}");
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
    }

    #[test]
    fn data_beyond_reason_is_a_bomb_and_zeros_are_not() {
        let (written, compressed) = (AtomicU64::new(0), AtomicU64::new(1000));
        let (pieces, _to_write) = sync_channel(1);
        let (_give_back, used) = sync_channel(1);
        let fill = Fill {
            pieces,
            used,
            written: &written,
            compressed: &compressed,
        };
        for (data, bytes, is_bomb) in [
            (0, 1, false),
            (RATIO_FREE_BYTES, 1, false),
            (RATIO_FREE_BYTES + 1, 1, true),
            (RATIO_FREE_BYTES + 1, RATIO_FREE_BYTES, false),
            (RATIO_FREE_BYTES * RATIO_MAX, RATIO_FREE_BYTES - 1, true),
        ] {
            written.store(data, Ordering::Relaxed);
            compressed.store(bytes, Ordering::Relaxed);
            let reason = fill.check_ratio().map_err(|error| error.reason());
            assert_eq!(reason.is_err(), is_bomb, "{data} of {bytes}");
        }
    }
}
