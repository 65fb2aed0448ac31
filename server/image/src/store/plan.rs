//! What is to be built: an image's documents, checked against each other, before any layer is touched.

use banger_core::image::Platform;
use banger_core::{Digest, image::ImageConfig};

use super::StoreError;
use crate::document::{
    Descriptor, Document, DocumentError, Manifest, OCI_CONFIG, OCI_MANIFEST, ParsedConfig,
};

/// An image's documents.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) digest: Digest,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) manifest: Manifest,
    pub(super) config_bytes: Vec<u8>,
    pub(super) config: ParsedConfig,
}

impl Plan {
    /// From documents whose digests are right.
    pub(super) fn new(
        manifest_bytes: Vec<u8>,
        manifest: Manifest,
        config_bytes: Vec<u8>,
        platform: &Platform,
    ) -> Result<Self, StoreError> {
        let config = ParsedConfig::parse(&config_bytes)?;
        config.check(manifest.layers.len(), platform)?;
        Ok(Self {
            digest: Digest::of(&manifest_bytes),
            manifest_bytes,
            manifest,
            config_bytes,
            config,
        })
    }

    /// For layers without documents: both are made here, the same each time.
    pub(super) fn synthesise(
        layers: Vec<Descriptor>,
        diff_ids: Vec<Digest>,
        config: ImageConfig,
        platform: &Platform,
    ) -> Result<Self, StoreError> {
        let config_bytes = ParsedConfig {
            platform: platform.clone(),
            config,
            diff_ids,
        }
        .to_json();
        Self::around(layers, config_bytes, platform)
    }

    /// For layers and a configuration without manifest.
    pub(crate) fn around(
        layers: Vec<Descriptor>,
        config_bytes: Vec<u8>,
        platform: &Platform,
    ) -> Result<Self, StoreError> {
        let config = Descriptor::new(
            OCI_CONFIG,
            Digest::of(&config_bytes),
            config_bytes.len() as u64,
        );
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            config,
            layers,
        };
        let manifest_bytes = serde_json::to_vec(&manifest).expect("plain data serialises");
        // As if it had been received: the same checks.
        let Document::Manifest(manifest) = Document::parse(&manifest_bytes)? else {
            return Err(DocumentError::NotAnImage {
                media_type: OCI_MANIFEST.into(),
            }
            .into());
        };
        Self::new(manifest_bytes, manifest, config_bytes, platform)
    }
}
