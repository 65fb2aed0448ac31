//! QEMU's `microvm` machine, under KVM where it works and TCG where it does not.
//!
//! ```text
//! launch: sockets bound → QEMU spawned, guest held → identity journalled → control socket greeted → `cont`
//! adopt:  pidfd opened → identity compared → control socket and console connected again
//! ```
//!
//! - One QEMU per VM, leader of a session of its own, with the VM's directory as working directory. It gets
//!   three listening sockets that the driver binds there (`qmp.sock`, `agent.sock`, `console.sock`) and no
//!   other descriptor, so nobody waits for a socket to appear. It is under seccomp and may not spawn.
//! - The guest is held (`-S`) until the identity is journalled. A daemon that dies before leaves a QEMU whose
//!   guest never ran, which [`crate::process::find_strays`] finds by its name and directory.
//! - One supervisor task per QEMU reaps it and decides how it ended; see [`machine`].
//! - Guest writes reach the host's page cache without waiting for its disk (`cache.no-flush`): they survive
//!   the death of QEMU and of the daemon, but not a crash of the host. Who needs a stopped VM's disk to
//!   survive that syncs the file after the stop.
//! - User networking lets a guest reach what the host can reach. See [`command`] for what QEMU cannot
//!   forbid.

mod adopt;
mod command;
mod diagnose;
mod drives;
mod launch;
mod machine;
mod probe;
mod qmp;
mod tsc;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use banger_core::VmId;
use banger_core::doctor::Diagnosis;
use banger_core::vmm::{
    Accelerator, Capabilities, Console, DriverInfo, LaunchPlan, Machine, ProcessIdentity, Vmm,
    VmmError,
};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cgroup::{CgroupChoice, Cgroups};
use crate::console::ConsoleLog;
use crate::scope::{ScopeChoice, Scopes};

/// Which accelerator a driver uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceleratorChoice {
    /// KVM if it really boots the guest kernel, else TCG with a warning.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// TCG without trying KVM.
    Tcg,
}

/// How a [`QemuDriver`] works.
#[derive(Debug, Clone)]
pub struct QemuConfig {
    /// A path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// Which accelerator to use.
    pub accelerator: AcceleratorChoice,
    /// Where the answer of the probe is remembered and probes are booted; must exist.
    pub state_dir: PathBuf,
    /// How long KVM has to boot the guest kernel to its agent.
    pub probe_timeout: Duration,
    /// How long QEMU has from its start to its control socket's greeting.
    pub launch_timeout: Duration,
    /// How long QEMU has to answer a control command.
    pub control_timeout: Duration,
    /// The bound of a VM's console log on disk.
    pub console_max_bytes: u64,
    /// Who limits QEMU processes.
    pub cgroups: CgroupChoice,
    /// Whether they get scopes of systemd's.
    pub scopes: ScopeChoice,
}

impl QemuConfig {
    /// The defaults, with `state_dir` for what the driver keeps for itself.
    #[must_use]
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            program: "qemu-system-x86_64".into(),
            accelerator: AcceleratorChoice::Auto,
            state_dir,
            probe_timeout: Duration::from_secs(10),
            launch_timeout: Duration::from_secs(20),
            control_timeout: Duration::from_secs(5),
            console_max_bytes: 4 * 1024 * 1024,
            cgroups: CgroupChoice::Auto,
            scopes: ScopeChoice::Auto,
        }
    }
}

/// Launches and adopts QEMU processes.
#[derive(Debug)]
pub struct QemuDriver {
    config: QemuConfig,
    supervisors: TaskTracker,
    stop: CancellationToken,
    found: OnceCell<Found>,
    accelerators: probe::Accelerators,
    cgroups: OnceLock<Cgroups>,
    scopes: Scopes,
}

/// Records a process before its guest runs.
type Journal<'j> = dyn Fn(&ProcessIdentity) -> io::Result<()> + Send + Sync + 'j;

/// What is found on this host once.
#[derive(Debug)]
struct Found {
    program: PathBuf,
    firmware: PathBuf,
    version: String,
    /// Counts of the host's time stamp counter per millisecond.
    tsc_khz: Option<u64>,
}

impl QemuDriver {
    /// A driver that touches nothing before its first call.
    #[must_use]
    pub fn new(config: QemuConfig) -> Self {
        Self {
            accelerators: probe::Accelerators::new(&config.state_dir),
            scopes: Scopes::new(config.scopes.clone()),
            config,
            supervisors: TaskTracker::new(),
            stop: CancellationToken::new(),
            found: OnceCell::new(),
            cgroups: OnceLock::new(),
        }
    }

    /// Lets go of every VM without ending any, and waits until no task of the driver is left. Machines of
    /// this driver are of no use afterwards; a new driver adopts their processes.
    pub async fn close(&self) {
        self.stop.cancel();
        self.supervisors.close();
        self.supervisors.wait().await;
    }

    async fn found(&self) -> Result<&Found, VmmError> {
        let find = || async {
            self.accelerators.sweep();
            launch::find(&self.config).await
        };
        self.found.get_or_try_init(find).await
    }

    /// Found at the first use, before anything is launched.
    pub(crate) fn cgroups(&self) -> &Cgroups {
        self.cgroups
            .get_or_init(|| Cgroups::open(&self.config.state_dir, self.config.cgroups))
    }

    async fn accelerator(&self, kernel: &Path, initramfs: &Path) -> Result<DriverInfo, VmmError> {
        let found = self.found().await?;
        let answer = self
            .accelerators
            .answer(self, found, kernel, initramfs)
            .await?;
        Ok(DriverInfo {
            driver: "qemu".into(),
            version: found.version.clone(),
            accelerator: answer.accelerator,
            accelerator_warning: answer.warning,
            capabilities: Capabilities {
                pause: true,
                live_disk_growth: true,
                user_network: true,
            },
        })
    }

    async fn start(
        &self,
        plan: &LaunchPlan,
        accelerator: Accelerator,
        journal: &Journal<'_>,
    ) -> Result<machine::QemuMachine, VmmError> {
        launch::launch(self, self.found().await?, plan, accelerator, journal).await
    }
}

#[async_trait]
impl Vmm for QemuDriver {
    async fn probe(&self, kernel: &Path, initramfs: &Path) -> Result<DriverInfo, VmmError> {
        self.accelerator(kernel, initramfs).await
    }

    async fn launch(
        &self,
        plan: &LaunchPlan,
        journal: &(dyn for<'a> Fn(&'a ProcessIdentity) -> io::Result<()> + Send + Sync),
    ) -> Result<Arc<dyn Machine>, VmmError> {
        let info = self.accelerator(&plan.kernel, &plan.initramfs).await?;
        Ok(Arc::new(self.start(plan, info.accelerator, journal).await?))
    }

    fn console(&self, dir: &Path) -> Arc<dyn Console> {
        Arc::new(ConsoleLog::of(dir))
    }

    async fn find_strays(&self, vms_dir: &Path) -> Result<Vec<(VmId, ProcessIdentity)>, VmmError> {
        self.cgroups();
        crate::process::strays_below(vms_dir).await
    }

    async fn adopt(
        &self,
        vm: VmId,
        dir: &Path,
        identity: &ProcessIdentity,
    ) -> Result<Option<Arc<dyn Machine>>, VmmError> {
        let machine = adopt::adopt(self, vm, dir, identity).await?;
        Ok(machine.map(|machine| Arc::new(machine) as Arc<dyn Machine>))
    }

    fn diagnose(&self) -> Vec<Diagnosis<'_>> {
        diagnose::diagnose(self)
    }
}
