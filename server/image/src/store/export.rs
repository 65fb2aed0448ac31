//! Bundles out of the store.

use std::fs::File;
use std::io::Write;

use banger_catalog::{
    BundleName, BundleVersion, ImageManifest, ImageParts, MANIFEST_BYTES_MAX, RootfsPart,
};
use banger_core::{Digest, Name};
use tokio_util::sync::CancellationToken;

use super::{ImageStore, StoreError};
use crate::bundle::{
    BUILDER, BundleError, BundleWriting, content_bytes, digest_of_disk, write_bundle,
};

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

/// A bundle that is to be written.
#[derive(Debug)]
pub struct BundleExport {
    /// What the bundle will say of itself.
    pub manifest: ImageManifest,
    /// Bytes that go in, before compression.
    pub content_bytes: u64,
    disk: File,
}

impl BundleExport {
    /// Writes the bundle with bounded memory. The same image under the same names gives the same bytes. Blocks.
    ///
    /// # Errors
    /// If the disk cannot be read or is not what it was, or `to` takes no more.
    pub fn write(self, to: &mut dyn Write, cancel: &CancellationToken) -> Result<(), BundleError> {
        let manifest = self.manifest.to_bytes();
        let bundle = BundleWriting {
            manifest: &manifest,
            disk: self.disk,
            disk_size_bytes: self.manifest.rootfs.size_bytes,
            disk_digest: self.manifest.rootfs.digest,
        };
        write_bundle(&bundle, to, cancel, &|_| {}).map(drop)
    }
}

impl ImageStore {
    /// Finds out what a bundle of an image would hold. Where it did not come as one its whole disk is read. Blocks.
    ///
    /// # Errors
    /// If the image is not there, or its disk cannot be read.
    pub fn plan_export(
        &self,
        image: Digest,
        names: BundleNames,
        cancel: &CancellationToken,
    ) -> Result<BundleExport, StoreError> {
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
        Ok(BundleExport {
            content_bytes: content_bytes(&manifest.to_bytes(), manifest.rootfs.size_bytes),
            manifest,
            disk,
        })
    }
}
