//! Docker archives: `manifest.json`, a configuration, and plain layers (Docker image specification v1.2).

use banger_core::image::Platform;
use serde::Deserialize;

use super::bundle::Bundle;
use super::rootfs::measure;
use super::{Found, Reading, is_name};
use crate::limits::{CONFIG_BYTES_MAX, LAYERS_MAX, MANIFEST_BYTES_MAX};
use crate::store::StoreError;
use crate::store::plan::Plan;

pub(super) const MANIFEST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Finds the image. Blocks.
pub(super) fn inspect(
    bundle: &Bundle,
    image: Option<&str>,
    platform: &Platform,
    reading: &Reading,
) -> Result<Found, StoreError> {
    let bytes = bundle.document(MANIFEST, MANIFEST_BYTES_MAX)?;
    let images: Vec<Image> = serde_json::from_slice(&bytes).map_err(|_| bundle.bad(MANIFEST))?;
    let chosen = select(bundle, &images, image)?;
    let config = bundle.document(&chosen.config, CONFIG_BYTES_MAX)?;
    if chosen.layers.len() > LAYERS_MAX {
        return Err(bundle.bad(MANIFEST));
    }
    let (mut layers, mut files) = (Vec::new(), Vec::new());
    for name in &chosen.layers {
        let region = bundle.need(name)?;
        let measured = measure(&region, bundle.path(), reading)?;
        files.push((measured.descriptor.digest, region));
        layers.push(measured.descriptor);
    }
    Ok((Plan::around(layers, config, platform)?, files))
}

fn select<'a>(
    bundle: &Bundle,
    images: &'a [Image],
    wanted: Option<&str>,
) -> Result<&'a Image, StoreError> {
    let tags = |image: &'a Image| image.repo_tags.as_deref().unwrap_or_default();
    let found = match (wanted, images) {
        (None, [only]) => Some(only),
        (Some(wanted), _) => images
            .iter()
            .find(|image| tags(image).iter().any(|tag| is_name(tag, wanted))),
        (None, _) => None,
    };
    found.ok_or_else(|| StoreError::Ambiguous {
        path: bundle.path().to_owned(),
        count: images.len(),
        names: images
            .iter()
            .flat_map(tags)
            .take(16)
            .map(|tag| tag.chars().take(80).collect())
            .collect::<Vec<String>>()
            .join(", "),
    })
}
