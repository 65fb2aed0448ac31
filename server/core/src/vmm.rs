//! The port to a VMM: the host process that runs a VM, behind one trait for every driver.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::VmId;
use crate::doctor::Diagnosis;
use crate::guest::{BoxedChannel, GuestNetwork};

mod error;

pub use error::VmmError;

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
    /// What the process may take at most; absent for a trial that lives for seconds.
    pub limits: Option<ProcessLimits>,
}

/// The cgroup below which each VM of a daemon has its own: `banger-` and six bytes of a digest of the state
/// directory, so that daemons never mistake each other's VMs for their own. `state_dir` is absolute and without
/// links.
#[must_use]
pub fn cgroup_name(state_dir: &Path) -> String {
    let digest = Sha256::digest(state_dir.as_os_str().as_encoded_bytes());
    let tag = digest.iter().take(6);
    tag.fold("banger-".to_owned(), |name, byte| {
        format!("{name}{byte:02x}")
    })
}

/// Ceilings on a VMM's process, which the host holds it to whatever its guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Memory of the whole process: the guest's, the VMM's own, and its part of the page cache.
    pub memory_mib: u64,
    /// Threads.
    pub thread_count: u32,
    /// Its part of the processors where there are too few: 1 to 10,000.
    pub cpu_weight: u32,
}

impl ProcessLimits {
    /// Threads of a VMM beside its vCPUs': QEMU does a guest's disk I/O in up to 64.
    const OTHER_THREADS: u32 = 96;
    /// The weight of one vCPU: what the kernel gives by itself.
    const WEIGHT_OF_VCPU: u32 = 100;
    /// The largest weight that the kernel takes.
    const WEIGHT_MAX: u32 = 10_000;

    /// For a VM of this shape whose VMM may use so much memory beyond the guest's.
    #[must_use]
    pub fn of(vcpu_count: u32, memory_mib: u64, overhead_mib: u64) -> Self {
        let cpu_weight = vcpu_count.saturating_mul(Self::WEIGHT_OF_VCPU);
        Self {
            memory_mib: memory_mib.saturating_add(overhead_mib),
            thread_count: vcpu_count.saturating_add(Self::OTHER_THREADS),
            cpu_weight: cpu_weight.clamp(1, Self::WEIGHT_MAX),
        }
    }
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
    /// The host's kernel ended the VMM, which wanted more memory than it may have.
    MemoryLimit {
        /// What it may have.
        limit_mib: u64,
    },
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
    /// What its VMs can do.
    pub capabilities: Capabilities,
}

/// What the VMs of a driver can do. What they cannot is refused before anything is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// [`Machine::pause`] and [`Machine::resume`].
    pub pause: bool,
    /// [`Machine::grow_drive`].
    pub live_disk_growth: bool,
    /// [`NetworkPlan::User`].
    pub user_network: bool,
}

/// What a VMM's process and its drives have used so far. Read on the host; nothing of it is the guest's word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VmmMetrics {
    /// Processor time of the whole process, user and system.
    pub cpu_time: Duration,
    /// Resident memory: guest memory that was touched, and the VMM's own.
    pub rss_bytes: u64,
    /// The same with shared pages divided among those who share them; absent where the kernel does not tell.
    pub pss_bytes: Option<u64>,
    /// Threads of the process.
    pub thread_count: u32,
    /// In the order of [`LaunchPlan::drives`]; empty where the VMM does not tell.
    pub drives: Vec<DriveMetrics>,
}

/// What a guest did with a drive since its VMM started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DriveMetrics {
    /// See [`Drive::serial`].
    pub serial: String,
    /// Read by the guest.
    pub read_bytes: u64,
    /// Written by the guest.
    pub written_bytes: u64,
    /// Reads of the guest.
    pub read_operations: u64,
    /// Writes of the guest.
    pub write_operations: u64,
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

    /// What this driver needs of the host, check by check; nothing for a driver that needs nothing. Whether an
    /// accelerator boots a guest is for [`Vmm::probe`] to tell.
    fn diagnose(&self) -> Vec<Diagnosis<'_>> {
        Vec::new()
    }
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

    /// What runs the guest's instructions.
    fn accelerator(&self) -> Accelerator;

    /// Resolves when the process is gone, with the same answer to everyone. Safe to drop.
    async fn wait(&self) -> VmmExit;

    /// A stream to the agent on which both ends start afresh; replaces the one before. Resolves when the
    /// agent is there, however long its boot takes: the caller has the deadline. Safe to drop.
    async fn open_channel(&self) -> Result<BoxedChannel, VmmError>;

    /// Presses the VM's power button.
    async fn power_button(&self) -> Result<(), VmmError>;

    /// Holds the vCPUs. A VM that is paused already stays so.
    async fn pause(&self) -> Result<(), VmmError>;

    /// Lets the vCPUs go on. A VM that runs already goes on.
    async fn resume(&self) -> Result<(), VmmError>;

    /// What it has used so far.
    async fn metrics(&self) -> Result<VmmMetrics, VmmError>;

    /// Shows the guest that a drive's file, which the caller has made larger, is `size_bytes` long now.
    async fn grow_drive(&self, serial: &str, size_bytes: u64) -> Result<(), VmmError>;

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
