//! VMs: what a user owns, the guest machine and its disks.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::operation::Stage;
use crate::vmm::{NetworkPlan, StopRung};
use crate::{Failure, ImageId, KernelId, Name, Timestamp, VmId};

/// What a VM is made of; fixed at creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSpec {
    /// Unique among the living.
    pub name: Name,
    /// For finding it.
    pub labels: BTreeMap<String, String>,
    /// As the caller named it.
    pub image: String,
    /// The kernel's name, once resolved; empty in records of before it was kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kernel: String,
    /// vCPUs.
    pub vcpu_count: u32,
    /// Guest memory.
    pub memory_mib: u64,
    /// The writable disk's size; sparse.
    pub disk_mib: u64,
    /// Environment of every session, above the image's.
    pub env: BTreeMap<String, String>,
    /// The network.
    pub network: NetworkPlan,
    /// Deletes itself when it stops, however it stops.
    pub ephemeral: bool,
}

/// Where a VM is. Only verbs move it, by the rules of [`crate::lifecycle`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "failure")]
pub enum VmState {
    /// Being made for the first time.
    Creating,
    /// Being started again.
    Starting,
    /// The agent answers.
    Running,
    /// On its way to stopped.
    Stopping,
    /// Off; its disks are kept.
    Stopped,
    /// Off by a fault; its disks are kept.
    Failed(Box<Failure>),
    /// On its way to nothing.
    Deleting,
}

/// A VM's state without its details: the stored word, and what rules are written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// See [`VmState::Creating`].
    Creating,
    /// See [`VmState::Starting`].
    Starting,
    /// See [`VmState::Running`].
    Running,
    /// See [`VmState::Stopping`].
    Stopping,
    /// See [`VmState::Stopped`].
    Stopped,
    /// See [`VmState::Failed`].
    Failed,
    /// See [`VmState::Deleting`].
    Deleting,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 7] = [
        Self::Creating,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
        Self::Deleting,
    ];

    /// The stored word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| text.to_owned())
    }
}

impl VmState {
    /// The state without its details.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self {
            Self::Creating => Phase::Creating,
            Self::Starting => Phase::Starting,
            Self::Running => Phase::Running,
            Self::Stopping => Phase::Stopping,
            Self::Stopped => Phase::Stopped,
            Self::Failed(_) => Phase::Failed,
            Self::Deleting => Phase::Deleting,
        }
    }
}

/// How the last stop went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOutcome {
    /// What worked.
    pub rung: StopRung,
    /// From the request to the process's end.
    pub took: Duration,
}

/// A VM as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Made at creation.
    pub id: VmId,
    /// What it is made of.
    pub spec: VmSpec,
    /// Its image, once resolved.
    pub image: Option<ImageId>,
    /// Its kernel, once resolved.
    pub kernel: Option<KernelId>,
    /// Where it is.
    pub state: VmState,
    /// Rises with every change; the etag of the API.
    pub generation: u64,
    /// The stages of the last boot, host's and guest's.
    pub boot_timing: Vec<Stage>,
    /// How the last stop went.
    pub last_stop: Option<StopOutcome>,
    /// When it was asked for.
    pub create_time: Timestamp,
    /// When it last became running.
    pub start_time: Option<Timestamp>,
    /// When it last ceased to run.
    pub stop_time: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_survives_text() {
        for phase in Phase::ALL {
            assert_eq!(phase.as_str().parse::<Phase>().unwrap(), phase);
        }
    }
}
