//! Images: an immutable root filesystem with its OCI configuration, named by reference and digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, ImageId, Name, Timestamp};

/// An operating system and processor, in the words of the OCI image index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// e.g. `linux`.
    pub os: String,
    /// e.g. `amd64`.
    pub architecture: String,
    /// e.g. `v8`; absent where the architecture has no variants.
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this host's guests.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: None,
        }
    }

    /// Whether what is made for it runs where `other` does. Variants of one architecture are not told apart.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.os == other.os && self.architecture == other.architecture
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .as_ref()
            .map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform (os/architecture or os/architecture/variant)")]
pub struct ParsePlatformError {
    /// What was given.
    pub text: String,
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, ParsePlatformError> {
        let word = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [os, architecture] | [os, architecture, _] if parts.iter().all(word) => Ok(Self {
                os: (*os).to_owned(),
                architecture: (*architecture).to_owned(),
                variant: parts.get(2).map(|variant| (*variant).to_owned()),
            }),
            _ => Err(ParsePlatformError {
                text: text.chars().take(64).collect(),
            }),
        }
    }
}

/// What of the OCI image configuration a guest honours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `KEY=value` pairs, in the image's order, later keys winning.
    pub env: Vec<(String, String)>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root.
    pub user: String,
    /// Absolute; empty means `/`.
    pub working_dir: String,
    /// Comes before the command's arguments when a caller gives none of its own.
    pub entrypoint: Vec<String>,
    /// What runs when a caller gives no command.
    pub cmd: Vec<String>,
    /// e.g. `80/tcp`. Informational.
    pub exposed_ports: BTreeSet<String>,
    /// The image's labels.
    pub labels: BTreeMap<String, String>,
    /// e.g. `SIGTERM`; empty means SIGTERM.
    pub stop_signal: String,
}

/// One layer of an image, as its manifest names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Of the blob as the registry serves it.
    pub digest: Digest,
    /// Of the blob as the registry serves it.
    pub size_bytes: u64,
}

/// Whether a reference may be taken from another image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOver {
    /// It may.
    Allowed,
    /// It may from one that came from a registry.
    FromRegistry,
    /// A taken reference is an error.
    Refused,
}

/// An image as banger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Made when the image came; stable while the image stays.
    pub id: ImageId,
    /// The references by which it can be named, canonical (`registry/repository:tag`), at least one
    /// unless every one of them has moved to a newer image.
    pub references: Vec<String>,
    /// Of the platform's manifest; for an imported archive without one, of the manifest banger wrote.
    pub digest: Digest,
    /// What it runs on.
    pub platform: Platform,
    /// What a guest honours.
    pub config: ImageConfig,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// The base disk's length.
    pub rootfs_size_bytes: u64,
    /// The base disk's space on the host, which holes do not take.
    pub rootfs_allocated_bytes: u64,
    /// Where it came from, for people: a registry, a catalog, an archive, a build.
    pub origin: String,
    /// The kernel its VMs get that name none, looked up when a VM is made; absent means the host's default.
    pub kernel: Option<Name>,
    /// When it came.
    pub create_time: Timestamp,
}
