//! OCI image layouts (OCI image specification, "Image Layout").

use banger_core::image::Platform;

use super::Found;
use super::bundle::Bundle;
use crate::document::{Descriptor, Document, DocumentError, choose};
use crate::limits::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::registry::Expected;
use crate::store::StoreError;
use crate::store::plan::Plan;

/// The file by which a layout is known.
pub(super) const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Indexes in indexes that are followed.
const NESTING_MAX: usize = 4;

/// Finds the image. Blocks.
pub(super) fn inspect(
    bundle: &Bundle,
    image: Option<&str>,
    platform: &Platform,
) -> Result<Found, StoreError> {
    bundle.need(MARKER)?;
    let bytes = bundle.document(INDEX, MANIFEST_BYTES_MAX)?;
    let Document::Index(manifests) = Document::parse(&bytes)? else {
        return Err(bundle.bad(INDEX));
    };
    let mut descriptor = select(bundle, &manifests, image, platform)?.clone();
    for _ in 0..NESTING_MAX {
        let bytes = blob(bundle, &descriptor, MANIFEST_BYTES_MAX)?;
        match Document::parse(&bytes)? {
            Document::Index(inner) => descriptor = choose(&inner, platform)?.clone(),
            Document::Manifest(manifest) => {
                let config = blob(bundle, &manifest.config, CONFIG_BYTES_MAX)?;
                let mut files = Vec::new();
                for layer in &manifest.layers {
                    files.push((layer.digest, bundle.need(&name(layer))?));
                }
                return Ok((Plan::new(bytes, manifest, config, platform)?, files));
            }
        }
    }
    Err(DocumentError::NotAnImage {
        media_type: "an index in an index".into(),
    }
    .into())
}

/// The entry that is wanted by name, or the only one, or the one for the platform.
fn select<'a>(
    bundle: &Bundle,
    manifests: &'a [Descriptor],
    image: Option<&str>,
    platform: &Platform,
) -> Result<&'a Descriptor, StoreError> {
    let named = |descriptor: &&Descriptor| {
        image.is_some() && descriptor.annotations.get(REF_NAME).map(String::as_str) == image
    };
    match (manifests.iter().find(named), manifests, image) {
        (Some(found), _, _) => Ok(found),
        (None, [only], None) => Ok(only),
        _ => {
            let names: Vec<_> = manifests
                .iter()
                .filter_map(|descriptor| descriptor.annotations.get(REF_NAME))
                .take(16)
                .collect();
            let ambiguous = || StoreError::Ambiguous {
                path: bundle.path().to_owned(),
                count: manifests.len(),
                names: names
                    .iter()
                    .map(|name| name.chars().take(80).collect::<String>())
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            if image.is_none() {
                choose(manifests, platform).map_err(|_| ambiguous())
            } else {
                Err(ambiguous())
            }
        }
    }
}

fn name(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor.digest.hex())
}

/// A small blob, verified.
fn blob(bundle: &Bundle, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, StoreError> {
    let bytes = bundle.document(&name(descriptor), limit)?;
    let layout = bundle.path().display().to_string();
    Expected::from(descriptor).check(&layout, "a document", &bytes)?;
    Ok(bytes)
}
