//! OCI image layouts (OCI image specification, "Image Layout").

use banger_core::image::Platform;

use super::bundle::Bundle;
use super::{Found, is_name};
use crate::document::{Descriptor, Document, DocumentError, choose};
use crate::limits::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX};
use crate::registry::Expected;
use crate::store::StoreError;
use crate::store::plan::Plan;

/// The file by which a layout is known.
pub(super) const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
/// The whole reference, as containerd and with it `docker save` write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
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
    let ambiguous = || StoreError::Ambiguous {
        path: bundle.path().to_owned(),
        count: manifests.len(),
        names: manifests
            .iter()
            .filter_map(whole_name)
            .take(16)
            .map(|name| name.chars().take(80).collect::<String>())
            .collect::<Vec<_>>()
            .join(", "),
    };
    let mut candidates: Vec<_> = match image {
        None => manifests.iter().collect(),
        Some(wanted) => {
            let has = |key| {
                move |entry: &&Descriptor| {
                    let name = entry.annotations.get(key);
                    name.is_some_and(|name| is_name(name, wanted))
                }
            };
            let whole: Vec<_> = manifests.iter().filter(has(CONTAINERD_NAME)).collect();
            match whole.is_empty() {
                true => manifests.iter().filter(has(REF_NAME)).collect(),
                false => whole,
            }
        }
    };
    candidates.dedup_by_key(|entry| entry.digest);
    if let [only] = candidates[..] {
        return Ok(only);
    }
    let all: Vec<_> = candidates.iter().map(|&entry| entry.clone()).collect();
    let chosen = choose(&all, platform).map_err(|_| ambiguous())?;
    let is_chosen = |entry: &&&Descriptor| entry.digest == chosen.digest;
    let is_rival = |entry: &&Descriptor| {
        entry.digest != chosen.digest
            && entry.is_for_platform_of(chosen)
            && whole_name(entry) != whole_name(chosen)
    };
    match candidates.iter().find(is_chosen) {
        Some(&found) if !candidates.iter().any(is_rival) => Ok(found),
        _ => Err(ambiguous()),
    }
}

/// What people are told an entry is called.
fn whole_name(entry: &Descriptor) -> Option<&String> {
    let names = &entry.annotations;
    names.get(CONTAINERD_NAME).or_else(|| names.get(REF_NAME))
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
