//! VMs: what a user owns, the guest machine and its disks.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::operation::Stage;
use crate::setup::{InitMode, VmIdentity};
use crate::vmm::{NetworkPlan, StopRung};
use crate::volume::VolumeMount;
use crate::{Failure, ImageId, KernelId, Name, Owner, Timestamp, VmId};

/// What a VM is made of. Fixed at creation but for what [`VmChange`] names.
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
    /// Deletes itself this long after it was asked for; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Stops itself when nothing used it for this long; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// What happens when it ends by itself.
    #[serde(default, skip_serializing_if = "RestartPolicy::is_never")]
    pub restart_policy: RestartPolicy,
    /// Disks that outlive it; in the order of their serial numbers, and never changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeMount>,
    /// Who is process 1.
    #[serde(default, skip_serializing_if = "InitMode::is_agent")]
    pub init: InitMode,
    /// Who its default user is to others.
    #[serde(default, skip_serializing_if = "VmIdentity::is_empty")]
    pub identity: VmIdentity,
    /// Every orderly stop copies the output of its sessions out of it first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_logs: bool,
}

/// What happens to a VM that ends by itself. What its owner asked for is not undone by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// It stays as it is.
    #[default]
    Never,
    /// It is started again if it ended by a fault.
    OnFailure,
    /// It is started again, however it ended.
    Always,
}

impl RestartPolicy {
    /// Whether it is the one that does nothing.
    #[must_use]
    pub const fn is_never(&self) -> bool {
        matches!(self, Self::Never)
    }
}

/// How large a running VM was made: what its record says may have been changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// vCPUs.
    pub vcpu_count: u32,
    /// Guest memory.
    pub memory_mib: u64,
    /// The writable disk's size.
    pub disk_mib: u64,
}

impl VmSpec {
    /// How large a VM of it is made.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        Shape {
            vcpu_count: self.vcpu_count,
            memory_mib: self.memory_mib,
            disk_mib: self.disk_mib,
        }
    }
}

/// What is to be changed of a VM; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VmChange {
    /// All labels anew.
    pub labels: Option<BTreeMap<String, String>>,
    /// See [`VmSpec::ttl`]; the inner absence means never.
    pub ttl: Option<Option<Duration>>,
    /// See [`VmSpec::idle_timeout`]; the inner absence means never.
    pub idle_timeout: Option<Option<Duration>>,
    /// See [`VmSpec::restart_policy`].
    pub restart_policy: Option<RestartPolicy>,
    /// From the next start on.
    pub vcpu_count: Option<u32>,
    /// From the next start on.
    pub memory_mib: Option<u64>,
    /// Grows only: at once where the driver can, else at the next start.
    pub disk_mib: Option<u64>,
    /// Only if the VM's generation is still this.
    pub generation: Option<u64>,
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
    /// On its way to paused.
    Pausing,
    /// Its vCPUs are held; its memory is kept.
    Paused,
    /// On its way from paused to running.
    Resuming,
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
    /// See [`VmState::Pausing`].
    Pausing,
    /// See [`VmState::Paused`].
    Paused,
    /// See [`VmState::Resuming`].
    Resuming,
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
    /// Whether a machine runs, or is about to or no longer, in this phase: it holds memory and processors.
    #[must_use]
    pub const fn holds_machine(self) -> bool {
        match self {
            Self::Creating
            | Self::Starting
            | Self::Running
            | Self::Pausing
            | Self::Paused
            | Self::Resuming
            | Self::Stopping => true,
            Self::Stopped | Self::Failed | Self::Deleting => false,
        }
    }

    /// Every phase.
    pub const ALL: [Self; 10] = [
        Self::Creating,
        Self::Starting,
        Self::Running,
        Self::Pausing,
        Self::Paused,
        Self::Resuming,
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
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
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
            Self::Pausing => Phase::Pausing,
            Self::Paused => Phase::Paused,
            Self::Resuming => Phase::Resuming,
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
    /// When its restart policy starts the VM again; absent where it does not, or no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_time: Option<Timestamp>,
    /// What was copied out of it first; absent if nothing was to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_logs: Option<KeptLogs>,
}

impl StopOutcome {
    /// Of a VM that ended by itself.
    pub const BY_ITSELF: Self = Self {
        rung: StopRung::AlreadyGone,
        took: Duration::ZERO,
        restart_time: None,
        kept_logs: None,
    };
}

/// The output of a VM's sessions that was copied out of it before it stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLogs {
    /// Sessions whose output was copied, in whole or in part.
    pub session_count: u32,
    /// What it takes of the host's disk.
    pub size_bytes: u64,
    /// Why it is not all that there was.
    pub problem: Option<String>,
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
    /// Who asked for it.
    pub owner: Owner,
    /// Where it is.
    pub state: VmState,
    /// How large its machine is; present exactly while there is one.
    pub shape: Option<Shape>,
    /// How often it was started again by its restart policy since it was last started by a caller.
    pub restart_count: u32,
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
    /// Why it is not off, or not gone, though it should be. Never stored: who looks anew finds out anew.
    #[serde(skip)]
    pub stuck: Option<Box<Failure>>,
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
