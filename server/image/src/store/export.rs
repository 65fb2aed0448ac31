//! Bundles out of the store, as a stream with bounded memory.

use std::fs::File;
use std::io::{self, Write};

use banger_catalog::{
    BundleName, BundleVersion, ImageManifest, ImageParts, MANIFEST_BYTES_MAX, RootfsPart,
};
use banger_core::{Digest, Name};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::bring::joined;
use super::{ImageStore, StoreError};
use crate::bundle::{
    BUILDER, BundleError, BundleWriting, content_bytes, digest_of_disk, write_bundle,
};

/// Bytes of one chunk of an export.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks between the writer and whoever takes them: bounded memory.
const CHUNKS_WAITING: usize = 8;

/// What a bundle is to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleNames {
    /// Its name.
    pub name: BundleName,
    /// Its version.
    pub version: BundleVersion,
    /// The kernel it is meant for.
    pub kernel: Option<Name>,
}

/// A bundle being written. Dropped before its end, the writing ends.
#[derive(Debug)]
pub struct BundleExport {
    /// What the bundle says of itself.
    pub manifest: ImageManifest,
    /// Bytes that go in, before compression.
    pub content_bytes: u64,
    chunks: mpsc::Receiver<Result<Bytes, StoreError>>,
    _cancel: tokio_util::sync::DropGuard,
}

impl BundleExport {
    /// The next chunk; `None` at the end. After an error there is no more. Cancel-safe.
    pub async fn next_chunk(&mut self) -> Option<Result<Bytes, StoreError>> {
        self.chunks.recv().await
    }
}

impl ImageStore {
    /// Begins to write an image as a bundle. The same image under the same names gives the same bytes.
    ///
    /// # Errors
    /// If the image is not there, or its disk cannot be read.
    pub async fn export_bundle(
        &self,
        image: Digest,
        names: BundleNames,
        cancel: &CancellationToken,
    ) -> Result<BundleExport, StoreError> {
        let cancel = cancel.child_token();
        let guard = cancel.clone().drop_guard();
        let (store, stop) = (self.clone(), cancel.clone());
        let planning = move || store.plan_export(image, names, &stop);
        let (manifest, disk) = joined(self.inner.tracker.spawn_blocking(planning)).await??;
        let manifest_bytes = manifest.to_bytes();
        let RootfsPart { size_bytes, digest } = manifest.rootfs;
        let content_bytes = content_bytes(&manifest_bytes, size_bytes);
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING);
        self.inner.tracker.spawn_blocking(move || {
            let bundle = BundleWriting {
                manifest: &manifest_bytes,
                disk,
                disk_size_bytes: size_bytes,
                disk_digest: digest,
            };
            let to = ChunkWriter {
                sender: sender.clone(),
                chunk: BytesMut::new(),
            };
            let written = write_bundle(&bundle, to, &cancel, &|_| {});
            let ended = written
                .and_then(|mut to| to.flush().map_err(BundleError::store("write the bundle")));
            if let Err(error) = ended {
                // A receiver that is gone wants to know nothing.
                let _ = sender.blocking_send(Err(error.into()));
            }
        });
        Ok(BundleExport {
            manifest,
            content_bytes,
            chunks,
            _cancel: guard,
        })
    }

    /// What the bundle will say, and the disk. Blocks.
    fn plan_export(
        &self,
        image: Digest,
        names: BundleNames,
        cancel: &CancellationToken,
    ) -> Result<(ImageManifest, File), StoreError> {
        let built = self.load(image)?;
        let disk =
            File::open(&built.rootfs_path).map_err(StoreError::io("open", &built.rootfs_path))?;
        let bytes = self.read_document(image, image, MANIFEST_BYTES_MAX)?;
        let rootfs = match ImageManifest::parse(&bytes) {
            Ok(known) => known.rootfs,
            // It came in another way: what its disk is has to be found out.
            Err(_) => RootfsPart {
                size_bytes: built.rootfs_size_bytes,
                digest: digest_of_disk(&disk, cancel, &|_| {})?,
            },
        };
        let manifest = ImageManifest::new(ImageParts {
            name: names.name,
            version: names.version,
            platform: built.platform,
            config: built.config,
            kernel: names.kernel,
            rootfs,
            builder: BUILDER.to_owned(),
        })
        .map_err(BundleError::Manifest)?;
        Ok((manifest, disk))
    }
}

/// Passes chunks of one size on.
struct ChunkWriter {
    sender: mpsc::Sender<Result<Bytes, StoreError>>,
    chunk: BytesMut,
}

impl ChunkWriter {
    fn send(&mut self) -> io::Result<()> {
        let chunk = self.chunk.split().freeze();
        self.sender
            .blocking_send(Ok(chunk))
            .map_err(|_| io::Error::other("nobody takes it any more"))
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES - self.chunk.len();
        let taken = room.min(bytes.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.send()
    }
}
