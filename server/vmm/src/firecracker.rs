//! Firecracker, under KVM, in its jail where the daemon is root.
//!
//! ```text
//! launch: jail filled → sockets and pipes made → (jailer →) Firecracker → API answers
//!         → machine, disks, vsock, … configured → identity journalled → `InstanceStart`
//! adopt:  pidfd opened → identity compared → sockets listened on again → API and console connected again
//! ```
//!
//! - One Firecracker per VM, leader of a session of its own. As root it is started by its jailer: a root
//!   directory with its VM's files and nothing else, a user of its own, a cgroup where the host has them; see
//!   [`jail`]. Its seccomp filters are left on.
//! - The guest does not run before its VMM is journalled, and what is journalled is configured, so that who adopts
//!   it can start it. A daemon that dies earlier leaves a Firecracker without a guest, which
//!   [`crate::process::find_strays`] finds.
//! - The agent dials the host: see [`doorstep`]. Nobody dials into a guest.
//! - Console and metrics are pipes that both ends hold open, so that neither notices when the other is gone. A
//!   full console pipe drops what the guest says.
//! - Guest writes reach the host's page cache without waiting for its disk, as with QEMU.

mod adopt;
mod api;
mod command;
mod doorstep;
mod jail;
mod launch;
mod machine;
mod metrics;
mod probe;

use std::io;
use std::ops::Range;
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

use self::jail::JailUsers;
use crate::cgroup::{CgroupChoice, Cgroups};
use crate::console::ConsoleLog;
use crate::scope::{ScopeChoice, Scopes};
use crate::trial::Tried;

/// How a [`FirecrackerDriver`] works.
#[derive(Debug, Clone)]
pub struct FirecrackerConfig {
    /// A path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// The jailer, likewise; used as root. Empty means that Firecracker runs without a jail, as the daemon's user.
    pub jailer: PathBuf,
    /// The users, and groups of the same numbers, that jails may have: one for each VM.
    pub jail_users: Range<u32>,
    /// Where the answer of the probe is remembered and probes are booted; must exist.
    pub state_dir: PathBuf,
    /// How long KVM has to boot the guest kernel to its agent.
    pub probe_timeout: Duration,
    /// How long Firecracker has from its start to an API that answers, and to load the guest's kernel.
    pub launch_timeout: Duration,
    /// How long Firecracker has to answer a call of its API.
    pub control_timeout: Duration,
    /// The bound of a VM's console log on disk.
    pub console_max_bytes: u64,
    /// Who limits Firecracker processes.
    pub cgroups: CgroupChoice,
    /// Whether they get scopes of systemd's.
    pub scopes: ScopeChoice,
}

impl FirecrackerConfig {
    /// The defaults, with `state_dir` for what the driver keeps for itself.
    #[must_use]
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            program: "firecracker".into(),
            jailer: "jailer".into(),
            // Above what distributions, systemd and containers give to users.
            jail_users: 1_900_000_000..1_900_065_536,
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

/// Launches and adopts Firecracker processes.
#[derive(Debug)]
pub struct FirecrackerDriver {
    config: FirecrackerConfig,
    supervisors: TaskTracker,
    stop: CancellationToken,
    found: OnceCell<Found>,
    users: JailUsers,
    trials: crate::trial::Trials,
    cgroups: OnceLock<Cgroups>,
    scopes: Scopes,
}

/// Records a process before its guest runs.
type Journal<'j> = dyn Fn(&ProcessIdentity) -> io::Result<()> + Send + Sync + 'j;

/// What is found on this host once.
#[derive(Debug)]
struct Found {
    program: PathBuf,
    /// Absent where there is to be no jail.
    jailer: Option<PathBuf>,
    version: String,
}

impl FirecrackerDriver {
    /// A driver that touches nothing before its first call.
    #[must_use]
    pub fn new(config: FirecrackerConfig) -> Self {
        Self {
            users: JailUsers::new(config.jail_users.clone()),
            trials: probe::trials(&config.state_dir),
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

    /// Whether a guest really runs here: `kernel` and `initramfs` are booted once, with a deadline, and the answer
    /// is remembered. An error of the inner result is why it does not.
    ///
    /// # Errors
    /// If it could not be tried.
    pub async fn works(
        &self,
        kernel: &Path,
        initramfs: &Path,
    ) -> Result<Result<(), String>, VmmError> {
        probe::works(self, kernel, initramfs).await
    }

    /// Whether the program is where the configuration says.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        crate::program::find(&self.config.program).is_some()
    }

    async fn found(&self) -> Result<&Found, VmmError> {
        let find = || async {
            self.trials.sweep();
            launch::find(&self.config).await
        };
        self.found.get_or_try_init(find).await
    }

    /// Found at the first use, before anything is launched.
    pub(crate) fn cgroups(&self) -> &Cgroups {
        self.cgroups
            .get_or_init(|| Cgroups::open(&self.config.state_dir, self.config.cgroups))
    }

    async fn info(&self) -> Result<DriverInfo, VmmError> {
        let found = self.found().await?;
        let opened: Tried = crate::trial::device_opens();
        opened.map_err(|detail| VmmError::NoAccelerator { detail })?;
        Ok(DriverInfo {
            driver: "firecracker".into(),
            version: found.version.clone(),
            accelerator: Accelerator::Kvm,
            accelerator_warning: None,
            capabilities: Capabilities {
                pause: true,
                live_disk_growth: true,
                user_network: false,
            },
        })
    }

    async fn start(
        &self,
        plan: &LaunchPlan,
        journal: &Journal<'_>,
    ) -> Result<machine::FirecrackerMachine, VmmError> {
        launch::launch(self, self.found().await?, plan, journal).await
    }
}

#[async_trait]
impl Vmm for FirecrackerDriver {
    /// Who chose this driver gets it, however slowly it boots: only the device is looked at.
    async fn probe(&self, _kernel: &Path, _initramfs: &Path) -> Result<DriverInfo, VmmError> {
        self.info().await
    }

    async fn launch(
        &self,
        plan: &LaunchPlan,
        journal: &(dyn for<'a> Fn(&'a ProcessIdentity) -> io::Result<()> + Send + Sync),
    ) -> Result<Arc<dyn Machine>, VmmError> {
        Ok(Arc::new(self.start(plan, journal).await?))
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
        crate::diagnose::firecracker(&self.config.program, &self.config.jailer)
    }
}
