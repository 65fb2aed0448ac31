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
    /// When it was imported.
    pub create_time: Timestamp,
}
