//! Choosing an image out of an index.

use banger_core::image::Platform;

use super::{Descriptor, DescriptorPlatform, DocumentError, MANIFEST_TYPES, cut};

/// The most platforms an error names.
const NAMED_MAX: usize = 32;
/// What BuildKit calls the platform of an attestation.
const UNKNOWN: &str = "unknown";
/// Marks an entry that says something about another entry.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// The variants of an architecture that run where `variant` is asked for, the best first. Newer processors
/// run what was made for older ones (the order containerd and Docker use).
fn variants(architecture: &str, variant: Option<&str>) -> Vec<Option<String>> {
    let (prefix, highest, lowest) = match (architecture, variant) {
        ("arm", Some("v8")) => ("v", 8, 5),
        ("arm", None | Some("v7")) => ("v", 7, 5),
        ("arm", Some("v6")) => ("v", 6, 5),
        ("arm64", Some(version)) => ("v", number(version), 8),
        ("arm64", None) => ("v", 8, 8),
        ("amd64", Some(version)) => ("v", number(version), 1),
        ("amd64", None) => ("v", 1, 1),
        (_, variant) => return vec![variant.map(str::to_owned)],
    };
    let named = |version: u8| Some(format!("{prefix}{version}"));
    let mut all: Vec<_> = (lowest..=highest).rev().map(named).collect();
    if all.is_empty() {
        return vec![variant.map(str::to_owned)]; // a variant nobody has heard of
    }
    // What does not name its variant is the usual one.
    let usual = match architecture {
        "arm" => named(7),
        _ => named(lowest),
    };
    if let Some(at) = all.iter().position(|variant| *variant == usual) {
        all.insert(at + 1, None);
    }
    all
}

fn number(variant: &str) -> u8 {
    const HIGHEST: u8 = 9;
    variant
        .strip_prefix('v')
        .and_then(|version| version.parse().ok())
        .filter(|version| *version <= HIGHEST)
        .unwrap_or(0)
}

/// The index entry for `wanted`: its own variant, else the best that runs there. Of an architecture whose
/// variants have no order, the first, where none is asked for.
pub(crate) fn choose<'a>(
    manifests: &'a [Descriptor],
    wanted: &Platform,
) -> Result<&'a Descriptor, DocumentError> {
    let images: Vec<_> = manifests.iter().filter_map(image).collect();
    let candidates: Vec<_> = images
        .iter()
        .filter(|(platform, _)| {
            platform.os == wanted.os && platform.architecture == wanted.architecture
        })
        .collect();
    let best = variants(&wanted.architecture, wanted.variant.as_deref())
        .into_iter()
        .find_map(|variant| {
            candidates
                .iter()
                .find(|(platform, _)| given(platform) == variant.as_deref())
        });
    let is_ordered = ["amd64", "arm", "arm64"].contains(&wanted.architecture.as_str());
    let first = candidates
        .first()
        .filter(|_| wanted.variant.is_none() && !is_ordered);
    if let Some((_, found)) = best.or(first) {
        return Ok(found);
    }
    // An index of one image without platforms, as tools that export a single image write it.
    if let [only] = manifests
        && only.platform.is_none()
    {
        return Ok(only);
    }
    Err(DocumentError::NoPlatform {
        wanted: wanted.clone(),
        available: listed(&images),
    })
}

impl Descriptor {
    /// Whether two entries of an index are for one platform.
    pub(crate) fn is_for_platform_of(&self, other: &Self) -> bool {
        self.platform == other.platform
    }
}

/// An entry that is an image: no attestation, no artifact.
fn image(entry: &Descriptor) -> Option<(&DescriptorPlatform, &Descriptor)> {
    let is_manifest =
        entry.media_type.is_empty() || MANIFEST_TYPES.contains(&entry.media_type.as_str());
    let platform = entry.platform.as_ref()?;
    let is_image = is_manifest
        && platform.os != UNKNOWN
        && platform.architecture != UNKNOWN
        && !entry.annotations.contains_key(REFERENCE_TYPE);
    is_image.then_some((platform, entry))
}

fn given(platform: &DescriptorPlatform) -> Option<&str> {
    platform
        .variant
        .as_deref()
        .filter(|variant| !variant.is_empty())
}

fn listed(images: &[(&DescriptorPlatform, &Descriptor)]) -> String {
    let mut names: Vec<String> = Vec::new();
    for (platform, _) in images {
        let variant = given(platform).map(|variant| format!("/{variant}"));
        let name = cut(format!(
            "{}/{}{}",
            platform.os,
            platform.architecture,
            variant.unwrap_or_default()
        ));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    match more {
        0 => names.join(", "),
        _ => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests;
