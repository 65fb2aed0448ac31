//! Kernels: what boots a guest, with the modules its agent must load.

use serde::{Deserialize, Serialize};

use crate::{Digest, KernelId, Name, Timestamp};

/// A kernel as banger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Made at import.
    pub id: KernelId,
    /// What people call it; unique.
    pub name: Name,
    /// The release it reports, e.g. `6.1.0-42-cloud-amd64`; empty where the file does not tell.
    pub release: String,
    /// Of the uncompressed `vmlinux`.
    pub digest: Digest,
    /// Length of `vmlinux`.
    pub size_bytes: u64,
    /// The modules the agent loads, in load order, without `.ko`.
    pub modules: Vec<String>,
    /// Where it came from, for people: a path, or a package's name and version.
    pub origin: String,
    /// Whether a VM gets it when neither caller nor image names one. At most one kernel has it.
    pub is_default: bool,
    /// What reading it told.
    pub inspection: KernelInspection,
    /// When it was imported.
    pub create_time: Timestamp,
}

/// What reading a kernel told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelInspection {
    /// The format it came in, and how it was compressed, e.g. `bzImage (lz4)`.
    pub format: String,
    /// In the words of the OCI image index, e.g. `amd64`.
    pub architecture: String,
    /// The whole of its version text; empty where the file does not tell.
    pub banner: String,
    /// What the features were read from, for people; empty where nothing told.
    pub evidence: String,
    /// What banger needs or can use, in a fixed order.
    pub features: Vec<KernelFeature>,
    /// Of the manifest of the bundle it came in; absent where it came otherwise.
    pub bundle: Option<Digest>,
}

/// Something that banger needs of a kernel or can use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFeature {
    /// e.g. `virtio-blk`.
    pub name: String,
    /// The kernel's options, e.g. `CONFIG_VIRTIO_BLK`.
    pub options: Vec<String>,
    /// Whether the kernel has it.
    pub state: FeatureState,
    /// Whether guests do not work without it.
    pub required: bool,
    /// What it is for.
    pub purpose: String,
}

/// Whether a kernel has a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureState {
    /// Always there.
    BuiltIn,
    /// In a module that is kept with the kernel.
    Module,
    /// Not there.
    Missing,
    /// Nothing tells.
    Unknown,
}
