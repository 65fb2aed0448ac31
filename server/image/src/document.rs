//! The JSON documents of an image: index, manifest and configuration (OCI image specification 1.1 and
//! Docker image manifest version 2, schema 2), parsed leniently where tools differ and strictly where a
//! document could mean two things.

mod error;
mod media;
mod platform;

use std::collections::BTreeMap;

use banger_core::Digest;
use banger_core::image::{ImageConfig, Platform};
use serde::{Deserialize, Serialize};

pub use error::DocumentError;
pub(crate) use media::parse_served;
pub(crate) use platform::choose;

use crate::limits::{BLOB_BYTES_MAX, CONFIG_BYTES_MAX, INDEX_ENTRIES_MAX, LAYERS_MAX};

/// The media types a registry may answer a manifest request with.
pub(crate) const MANIFEST_TYPES: [&str; 4] =
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];
/// An OCI image manifest.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// An OCI image configuration.
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// A plain tar layer.
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A reference to a blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<DescriptorPlatform>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "nullable"
    )]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DescriptorPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// An image's manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u8,
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// A manifest or an index.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    schema_version: Option<serde_json::Value>,
    #[serde(default)]
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

impl Document {
    /// Parses a manifest or index; one that could be both is neither.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let raw: RawDocument =
            serde_json::from_slice(bytes).map_err(|source| DocumentError::Malformed {
                document: "manifest",
                source,
            })?;
        let media_type = cut(raw.media_type.unwrap_or_default());
        if raw.schema_version == Some(1.into()) || media::is_schema1(&media_type) {
            return Err(DocumentError::Schema1);
        }
        match (raw.config, raw.layers, raw.manifests) {
            (Some(config), Some(layers), None)
                if ["", OCI_MANIFEST, DOCKER_MANIFEST].contains(&media_type.as_str()) =>
            {
                let manifest = Manifest {
                    schema_version: 2,
                    media_type,
                    config,
                    layers,
                };
                manifest.check()?;
                Ok(Self::Manifest(manifest))
            }
            (None, None, Some(manifests))
                if ["", OCI_INDEX, DOCKER_INDEX].contains(&media_type.as_str()) =>
            {
                if manifests.len() > INDEX_ENTRIES_MAX {
                    return Err(DocumentError::TooLarge {
                        what: format!("{} variants", manifests.len()),
                    });
                }
                Ok(Self::Index(manifests))
            }
            _ => Err(DocumentError::NotAnImage { media_type }),
        }
    }
}

impl Manifest {
    fn check(&self) -> Result<(), DocumentError> {
        if ![OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", ""]
            .contains(&self.config.media_type.as_str())
        {
            return Err(unsupported("configuration", &self.config.media_type));
        }
        if self.layers.len() > LAYERS_MAX {
            return Err(DocumentError::TooLarge {
                what: format!("{} layers", self.layers.len()),
            });
        }
        if self.config.size > CONFIG_BYTES_MAX {
            return Err(DocumentError::TooLarge {
                what: format!("a configuration of {} bytes", self.config.size),
            });
        }
        for layer in &self.layers {
            media::check_layer(layer)?;
            if layer.size > BLOB_BYTES_MAX {
                return Err(DocumentError::TooLarge {
                    what: format!("a layer of {} bytes", layer.size),
                });
            }
        }
        Ok(())
    }
}

/// A layer's descriptor in the words of OCI: Docker's say the same.
pub(crate) fn to_oci_layer(mut layer: Descriptor) -> Descriptor {
    for (docker, oci) in [
        ("application/vnd.docker.image.rootfs.diff.tar", OCI_LAYER),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar",
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
        ),
    ] {
        if let Some(compression) = layer.media_type.strip_prefix(docker) {
            let compression = compression.trim_start_matches('.');
            layer.media_type = match compression {
                "" => oci.to_owned(),
                compression => format!("{oci}+{compression}"),
            };
        }
    }
    layer
}

/// What of an image's configuration matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParsedConfig {
    pub(crate) platform: Platform,
    pub(crate) config: ImageConfig,
    /// Digests of the plain layers, lowest first.
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Serialize, Deserialize)]
struct RawConfig {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    config: RawProcess,
    rootfs: RawRootfs,
}

#[derive(Serialize, Deserialize)]
struct RawRootfs {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<Digest>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawProcess {
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    user: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    cmd: Vec<String>,
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    working_dir: String,
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    labels: BTreeMap<String, String>,
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    stop_signal: String,
}

impl ParsedConfig {
    /// Parses an image configuration.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let raw: RawConfig =
            serde_json::from_slice(bytes).map_err(|source| DocumentError::Malformed {
                document: "configuration",
                source,
            })?;
        let process = raw.config;
        let pair = |entry: String| match entry.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (entry, String::new()),
        };
        Ok(Self {
            platform: Platform {
                os: raw.os,
                architecture: raw.architecture,
                variant: raw.variant,
            },
            config: ImageConfig {
                env: process.env.into_iter().map(pair).collect(),
                user: process.user,
                working_dir: process.working_dir,
                entrypoint: process.entrypoint,
                cmd: process.cmd,
                exposed_ports: process.exposed_ports.into_keys().collect(),
                labels: process.labels,
                stop_signal: process.stop_signal,
            },
            diff_ids: raw.rootfs.diff_ids,
        })
    }

    /// Checks that it fits a manifest with `layers` layers, and `wanted`. A configuration that names no
    /// architecture fits every one.
    pub(crate) fn check(&self, layers: usize, wanted: &Platform) -> Result<(), DocumentError> {
        if self.diff_ids.len() != layers {
            return Err(DocumentError::LayerCount {
                layers,
                diff_ids: self.diff_ids.len(),
            });
        }
        let differs = |own: &str, wanted: &str| !own.is_empty() && own != wanted;
        if differs(&self.platform.os, &wanted.os)
            || differs(&self.platform.architecture, &wanted.architecture)
        {
            let available = cut(self.platform.to_string());
            return Err(DocumentError::NoPlatform {
                wanted: wanted.clone(),
                available,
            });
        }
        Ok(())
    }

    /// As the JSON of an OCI image configuration.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let config = self.config.clone();
        let raw = RawConfig {
            architecture: self.platform.architecture.clone(),
            os: self.platform.os.clone(),
            variant: self.platform.variant.clone(),
            config: RawProcess {
                user: config.user,
                env: config
                    .env
                    .into_iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect(),
                entrypoint: config.entrypoint,
                cmd: config.cmd,
                working_dir: config.working_dir,
                exposed_ports: config
                    .exposed_ports
                    .into_iter()
                    .map(|port| (port, serde_json::Value::Object(serde_json::Map::new())))
                    .collect(),
                labels: config.labels,
                stop_signal: config.stop_signal,
            },
            rootfs: RawRootfs {
                kind: "layers".to_owned(),
                diff_ids: self.diff_ids.clone(),
            },
        };
        serde_json::to_vec(&raw).expect("plain data serialises")
    }
}

fn unsupported(part: &'static str, media_type: &str) -> DocumentError {
    DocumentError::UnsupportedMediaType {
        part,
        media_type: cut(media_type.to_owned()),
    }
}

/// Foreign text, cut to what a person reads.
fn cut(text: String) -> String {
    if text.chars().count() <= 120 {
        text
    } else {
        text.chars().take(120).collect()
    }
}

/// `null` where Go wrote an absent value.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
