//! The port to a VMM: the host process that runs a VM, behind one trait for every driver.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::guest::{BoxedChannel, GuestNetwork};
use crate::{Explain, FailureKind, VmId};

/// What a driver needs to start a VM. All files exist; the driver makes sockets and logs in `dir` only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchPlan {
    /// Whose VMM it is.
    pub vm: VmId,
    /// The VM's own directory: working directory of the VMM, place of its sockets and logs.
    pub dir: PathBuf,
    /// `vmlinux`.
    pub kernel: PathBuf,
    /// The initramfs with the agent as `/init`.
    pub initramfs: PathBuf,
    /// Further words of the kernel's command line.
    pub kernel_args: Vec<String>,
    /// 1 or more.
    pub vcpu_count: u32,
    /// Guest memory.
    pub memory_mib: u64,
    /// In the order in which the guest numbers them: the base disk first, the upper disk second.
    pub drives: Vec<Drive>,
    /// The network.
    pub network: NetworkPlan,
}

/// A disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// A raw image.
    pub path: PathBuf,
    /// Enforced by the host.
    pub access: DriveAccess,
    /// What the guest sees as the disk's serial, at most 20 characters.
    pub serial: String,
}

/// How a VM may use a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveAccess {
    /// Any number of VMs at once.
    ReadOnly,
    /// One VM.
    ReadWrite,
}

/// The network of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkPlan {
    /// No interface.
    None,
    /// The VMM's own user-mode network: outgoing connections, no privileges. The guest reaches whatever the
    /// daemon's user reaches; QEMU cannot keep it from the host's own services, those on loopback included.
    #[default]
    User,
}

impl NetworkPlan {
    /// How the guest sets its interface up; `None` where it has none. The addresses of the user-mode network
    /// are fixed and the same for every VM: nobody but the guest itself sees them.
    #[must_use]
    pub fn guest_network(self) -> Option<GuestNetwork> {
        match self {
            Self::None => None,
            Self::User => Some(GuestNetwork {
                address: "10.0.2.15/24".into(),
                gateway: "10.0.2.2".into(),
                dns: vec!["10.0.2.3".into()],
            }),
        }
    }
}

/// What identifies a process beyond its reusable pid. Kept in the journal, so that a later daemon adopts
/// the right process or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The process id.
    pub pid: u32,
    /// Start time in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub start_ticks: u64,
    /// What `/proc/<pid>/exe` names.
    pub executable: PathBuf,
    /// The host's `/proc/sys/kernel/random/boot_id`.
    pub host_boot_id: String,
}

/// How a VMM ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmmExit {
    /// The guest powered itself off.
    GuestPowerOff,
    /// The guest reset or panicked; its console's end may tell which.
    GuestReset,
    /// The VMM ended for another reason.
    Other {
        /// Its exit code, signal, or that none could be had (an adopted process), and the end of its log; bounded.
        detail: String,
    },
}

/// What a driver can do on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverInfo {
    /// `qemu`, `fake`.
    pub driver: String,
    /// The VMM's own version.
    pub version: String,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// Why the accelerator is not the best one; absent where it is.
    pub accelerator_warning: Option<String>,
}

/// What runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// The processor, through the host kernel.
    Kvm,
    /// Translation by the VMM.
    Tcg,
    /// Nothing does: a driver for tests.
    None,
}

impl Accelerator {
    /// The word that people and programs see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
            Self::None => "none",
        }
    }
}

/// A driver: the adapter to one kind of VMM.
#[async_trait]
pub trait Vmm: Send + Sync + 'static {
    /// What it can do here. `kernel` and `initramfs` may be booted once, with a deadline, to find out whether
    /// an accelerator really works; the answer is remembered.
    async fn probe(
        &self,
        kernel: &std::path::Path,
        initramfs: &std::path::Path,
    ) -> Result<DriverInfo, VmmError>;

    /// Starts the VMM, in a process group of its own, so that it outlives the daemon. `journal` is called
    /// with the process's identity before the guest runs its first instruction; if it fails, nothing is left.
    async fn launch(
        &self,
        plan: &LaunchPlan,
        journal: &(dyn for<'a> Fn(&'a ProcessIdentity) -> std::io::Result<()> + Send + Sync),
    ) -> Result<Arc<dyn Machine>, VmmError>;

    /// The console of the VM whose directory is `dir`, whether the VM runs or not.
    fn console(&self, dir: &std::path::Path) -> Arc<dyn Console>;

    /// VMMs of this driver that live below `vms_dir` (the parent of all VM directories), whether journalled or
    /// not: what a daemon that died between starting one and recording it may have left.
    async fn find_strays(
        &self,
        vms_dir: &std::path::Path,
    ) -> Result<Vec<(VmId, ProcessIdentity)>, VmmError>;

    /// Takes over a VMM that an earlier daemon launched in `dir`; `None` where no such process lives.
    async fn adopt(
        &self,
        vm: VmId,
        dir: &std::path::Path,
        identity: &ProcessIdentity,
    ) -> Result<Option<Arc<dyn Machine>>, VmmError>;
}

/// The output of a guest's console, kept up to a bound. Offsets count the bytes since the VM was made, and
/// go on over restarts of VM and daemon.
#[async_trait]
pub trait Console: Send + Sync {
    /// At most `max_bytes` from `offset` on, or from the oldest byte that is kept where `offset` is no longer.
    /// Empty data where nothing is there yet.
    async fn read(&self, offset: u64, max_bytes: usize) -> std::io::Result<ConsoleChunk>;

    /// Resolves when there may be bytes at `offset`. Safe to drop.
    async fn grown(&self, offset: u64) -> std::io::Result<()>;
}

/// A piece of a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleChunk {
    /// Of the first byte.
    pub offset: u64,
    /// The bytes.
    pub data: bytes::Bytes,
}

/// A running VMM.
#[async_trait]
pub trait Machine: Send + Sync + 'static {
    /// Which process.
    fn identity(&self) -> &ProcessIdentity;

    /// Resolves when the process is gone, with the same answer to everyone. Safe to drop.
    async fn wait(&self) -> VmmExit;

    /// A stream to the agent on which both ends start afresh; replaces the one before. Resolves when the
    /// agent is there, however long its boot takes: the caller has the deadline. Safe to drop.
    async fn open_channel(&self) -> Result<BoxedChannel, VmmError>;

    /// Presses the VM's power button.
    async fn power_button(&self) -> Result<(), VmmError>;

    /// Asks the process to end.
    fn terminate(&self) -> Result<(), VmmError>;

    /// Ends the process. It is gone when [`Machine::wait`] resolves.
    fn kill(&self) -> Result<(), VmmError>;
}

/// One rung of the ladder by which a VM is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopRung {
    /// The VM had already ended by itself.
    AlreadyGone,
    /// The agent flushed the disks and powered off.
    Agent,
    /// The power button.
    PowerButton,
    /// SIGTERM to the VMM.
    Terminate,
    /// SIGKILL to the VMM.
    Kill,
}

impl StopRung {
    /// Every rung, in order.
    pub const ALL: [Self; 5] = [
        Self::AlreadyGone,
        Self::Agent,
        Self::PowerButton,
        Self::Terminate,
        Self::Kill,
    ];

    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyGone => "already_gone",
            Self::Agent => "agent",
            Self::PowerButton => "power_button",
            Self::Terminate => "terminate",
            Self::Kill => "kill",
        }
    }
}

/// What went wrong between driver and VMM.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The VMM's program is not installed.
    #[error("the VMM `{program}` was not found")]
    ProgramMissing {
        /// Looked for.
        program: String,
        /// What to install.
        package: &'static str,
    },
    /// A file the VMM needs is not there.
    #[error("`{}` is missing", path.display())]
    FileMissing {
        /// Which.
        path: PathBuf,
        /// What to install.
        package: &'static str,
    },
    /// The process could not be started.
    #[error("could not start the VMM `{program}`")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process ended before it was of use.
    #[error("the VMM ended while it started ({detail})")]
    EndedEarly {
        /// Exit status and the end of its log, bounded.
        detail: String,
    },
    /// Its identity could not be recorded, so it was not let run.
    #[error("could not record the VMM's process")]
    Journal {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its control socket failed.
    #[error("the VMM's control socket failed during {during}")]
    Control {
        /// The command.
        during: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The VMM refused a command.
    #[error("the VMM refused {during} ({detail})")]
    Refused {
        /// The command.
        during: &'static str,
        /// Its words, bounded.
        detail: String,
    },
    /// The agent's channel failed.
    #[error("the channel to the VM's agent failed")]
    Channel {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process is gone.
    #[error("the VM's VMM is gone")]
    Gone,
    /// A step took too long.
    #[error("the VMM did not finish {during} within {limit:?}")]
    Deadline {
        /// The step.
        during: &'static str,
        /// The limit that ran out.
        limit: Duration,
    },
    /// A signal could not be sent.
    #[error("could not signal the VMM")]
    Signal {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No accelerator can run the guest kernel.
    #[error("no way was found to run a guest on this host ({detail})")]
    NoAccelerator {
        /// What was tried, and how each try ended; bounded.
        detail: String,
    },
}

impl Explain for VmmError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::ProgramMissing { .. } | Self::FileMissing { .. } | Self::NoAccelerator { .. } => {
                FailureKind::FailedPrecondition {
                    subject: "host/vmm".into(),
                }
            }
            Self::Gone | Self::Channel { .. } => FailureKind::Unavailable {
                retry_after: Duration::from_secs(1),
            },
            Self::Deadline { .. } => FailureKind::DeadlineExceeded,
            Self::Spawn { .. }
            | Self::EndedEarly { .. }
            | Self::Journal { .. }
            | Self::Control { .. }
            | Self::Refused { .. }
            | Self::Signal { .. } => FailureKind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::ProgramMissing { .. } => "VMM_MISSING",
            Self::FileMissing { .. } => "VMM_FILE_MISSING",
            Self::Spawn { .. } => "VMM_NOT_STARTED",
            Self::EndedEarly { .. } => "VMM_ENDED_EARLY",
            Self::Journal { .. } => "VMM_NOT_RECORDED",
            Self::Control { .. } => "VMM_CONTROL_FAILED",
            Self::Refused { .. } => "VMM_REFUSED",
            Self::Channel { .. } => "AGENT_CHANNEL_FAILED",
            Self::Gone => "VMM_GONE",
            Self::Deadline { .. } => "VMM_SILENT",
            Self::Signal { .. } => "VMM_NOT_SIGNALLED",
            Self::NoAccelerator { .. } => "NO_ACCELERATOR",
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::ProgramMissing { package, .. } | Self::FileMissing { package, .. } => Some(format!("Install it: apt-get install {package}")),
            Self::EndedEarly { .. } | Self::Refused { .. } | Self::NoAccelerator { .. } => {
                Some("Read the VMM's log in the VM's directory and the daemon's log.".into())
            }
            Self::Gone => Some("Start the VM again.".into()),
            Self::Deadline { .. } => Some("The host may be overloaded: try again with fewer VMs, or raise the limit in the configuration.".into()),
            Self::Spawn { .. } | Self::Journal { .. } | Self::Control { .. } | Self::Channel { .. } | Self::Signal { .. } => None,
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::ProgramMissing { program, package } => vec![
                ("program", program.clone()),
                ("package", (*package).to_owned()),
            ],
            Self::FileMissing { path, package } => vec![
                ("path", path.display().to_string()),
                ("package", (*package).to_owned()),
            ],
            Self::Spawn { program, .. } => vec![("program", program.clone())],
            Self::EndedEarly { detail } | Self::NoAccelerator { detail } => {
                vec![("detail", detail.clone())]
            }
            Self::Control { during, .. } => vec![("during", (*during).to_owned())],
            Self::Refused { during, detail } => {
                vec![("during", (*during).to_owned()), ("detail", detail.clone())]
            }
            Self::Deadline { during, limit } => vec![
                ("during", (*during).to_owned()),
                ("limit_ms", limit.as_millis().to_string()),
            ],
            Self::Journal { .. } | Self::Channel { .. } | Self::Gone | Self::Signal { .. } => {
                Vec::new()
            }
        }
    }
}
