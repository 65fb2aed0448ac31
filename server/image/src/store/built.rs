//! An image in the store.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use banger_catalog::ImageManifest;
use banger_core::image::{ImageConfig, Layer, Platform};
use banger_core::{Digest, Name};

use super::{ImageStore, StoreError};
use crate::bundle::BundleError;
use crate::document::{Document, DocumentError, Manifest, ParsedConfig};
use crate::limits::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};

/// An image in the store: what its documents say, and its base disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// Of the platform's manifest: what identifies the image.
    pub digest: Digest,
    /// Of the configuration.
    pub config_digest: Digest,
    /// The canonical reference it was asked for by; absent where none was given.
    pub reference: Option<String>,
    /// What it runs on.
    pub platform: Platform,
    /// What a guest honours.
    pub config: ImageConfig,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// The kernel it is meant for, by name; only bundles name one.
    pub kernel: Option<Name>,
    /// The base disk.
    pub rootfs_path: PathBuf,
    /// Its length.
    pub rootfs_size_bytes: u64,
    /// Its space on the host, which holes do not take.
    pub rootfs_allocated_bytes: u64,
}

impl ImageStore {
    /// An image that is in the store, from its files alone; its `reference` is absent. Blocks, briefly.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the base disk, the manifest or the configuration is not there.
    pub fn load(&self, manifest: Digest) -> Result<BuiltImage, StoreError> {
        let document = self.read_document(manifest, manifest, MANIFEST_BYTES_MAX)?;
        if ImageManifest::is_claimed(&document) {
            let bundle = ImageManifest::parse(&document).map_err(BundleError::Manifest)?;
            return self.describe_bundle(manifest, bundle);
        }
        let Document::Manifest(parsed) = Document::parse(&document)? else {
            return Err(DocumentError::NotAnImage {
                media_type: "an index".into(),
            }
            .into());
        };
        let config = self.read_document(manifest, parsed.config.digest, CONFIG_BYTES_MAX)?;
        self.describe(manifest, &parsed, ParsedConfig::parse(&config)?)
    }

    /// What is known about an image whose base disk is in place.
    pub(super) fn describe(
        &self,
        digest: Digest,
        manifest: &Manifest,
        parsed: ParsedConfig,
    ) -> Result<BuiltImage, StoreError> {
        let rootfs_path = self.inner.layout.rootfs(digest);
        let disk = fs::metadata(&rootfs_path).map_err(|_| StoreError::Missing { digest })?;
        let layers = manifest.layers.iter().map(|layer| Layer {
            digest: layer.digest,
            size_bytes: layer.size,
        });
        Ok(BuiltImage {
            digest,
            config_digest: manifest.config.digest,
            reference: None,
            platform: parsed.platform,
            config: parsed.config,
            layers: layers.collect(),
            kernel: None,
            rootfs_path,
            rootfs_size_bytes: disk.len(),
            rootfs_allocated_bytes: disk.blocks() * 512,
        })
    }

    /// What is known about an image that came as a bundle.
    pub(super) fn describe_bundle(
        &self,
        digest: Digest,
        manifest: ImageManifest,
    ) -> Result<BuiltImage, StoreError> {
        let rootfs_path = self.inner.layout.rootfs(digest);
        let disk = fs::metadata(&rootfs_path).map_err(|_| StoreError::Missing { digest })?;
        Ok(BuiltImage {
            digest,
            config_digest: digest,
            reference: None,
            platform: manifest.platform,
            config: manifest.config,
            layers: Vec::new(),
            kernel: manifest.kernel,
            rootfs_path,
            rootfs_size_bytes: disk.len(),
            rootfs_allocated_bytes: disk.blocks() * 512,
        })
    }

    pub(crate) fn read_document(
        &self,
        image: Digest,
        digest: Digest,
        limit: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let missing = || StoreError::Missing { digest: image };
        let path = self.inner.layout.blob(digest);
        if fs::metadata(&path).map_err(|_| missing())?.len() > limit {
            return Err(missing());
        }
        let bytes = fs::read(&path).map_err(|_| missing())?;
        if Digest::of(&bytes) == digest {
            Ok(bytes)
        } else {
            Err(missing())
        }
    }
}
