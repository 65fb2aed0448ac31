//! What the services can be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use banger_core::vmm::NetworkPlan;

pub use banger_image::{AuthFiles, CatalogHosts, Registries, RegistrySettings, TlsSettings};

pub use crate::build::BuildConfig;
pub use crate::credentials::{Profile, ProfileFile, Profiles};
pub use crate::upload::UploadConfig;
pub use quota::{Quotas, Ratio};

mod quota;

/// The fewest boots at once where nothing is said.
const MIN_PARALLEL_BOOTS: usize = 4;

/// Settings of the services. The daemon's configuration file fills it; every wait the services do on their
/// own has its limit here.
#[derive(Debug, Clone)]
pub struct AppConfig {
    /// Where everything is kept.
    pub state_dir: PathBuf,
    /// The static agent binary that becomes `/init` of every guest.
    pub agent: PathBuf,
    /// The socket on which the API is served; of interest to the doctor alone.
    pub socket: PathBuf,
    /// As root: the group whose members may use the socket, if it exists.
    pub socket_group: String,
    /// The TCP addresses on which the API is served; of interest to the doctor alone.
    pub listen: Vec<SocketAddr>,
    /// The most VMs that exist at once.
    pub max_vms: usize,
    /// The most volumes that exist at once.
    pub max_volumes: usize,
    /// Host memory that VMs must leave free, MiB.
    pub memory_reserve_mib: u64,
    /// How much guest memory may be promised of the host's above the reserve.
    pub memory_overcommit: Ratio,
    /// How many vCPUs may be promised of the host's processors.
    pub vcpu_overcommit: Ratio,
    /// How much of writable disks and volumes may be promised of the state directory's file system above the reserve;
    /// zero means that promises are not counted.
    pub disk_overcommit: Ratio,
    /// What each owner may have.
    pub quotas: Quotas,
    /// The most VMs that boot at once; zero means [`AppConfig::parallel_boots`]'s choice.
    pub max_parallel_boots: usize,
    /// The most boots that wait for others.
    pub boot_queue_max: usize,
    /// Memory that a VMM may use beyond its guest's, MiB.
    pub vmm_memory_overhead_mib: u64,
    /// Disk space in the state directory that VMs and images must leave free, MiB.
    pub disk_reserve_mib: u64,
    /// From the VMM's start to the agent's first word.
    pub boot_timeout: Duration,
    /// From the agent's first word to a guest that is set up.
    pub configure_timeout: Duration,
    /// For an init of the image's own to power off, before the agent does it.
    pub stop_init_timeout: Duration,
    /// For the agent to flush the disks and power off.
    pub stop_agent_timeout: Duration,
    /// For the power button.
    pub stop_power_button_timeout: Duration,
    /// For SIGTERM.
    pub stop_terminate_timeout: Duration,
    /// For SIGKILL, after which the process is reported as stuck.
    pub stop_kill_timeout: Duration,
    /// For the files and the record of a VM to be removed, before whoever waits is told what keeps them.
    pub remove_timeout: Duration,
    /// For the database to take a change of a VM's record, before the VM goes on without.
    pub record_timeout: Duration,
    /// The network of VMs, and of the steps of builds, for which none was asked.
    pub default_network: NetworkPlan,
    /// For the host's disk to make a volume or to make one larger, before whoever waits is told; the copy of a seed has
    /// more, by its size.
    pub volume_timeout: Duration,
    /// For the logs of a VM that is stopped to be copied out of it, before the first rung.
    pub stop_logs_timeout: Duration,
    /// For a VMM to hold a VM's vCPUs, or to let them go on.
    pub pause_timeout: Duration,
    /// For an agent to say what runs in a VM that nothing seems to use.
    pub idle_check_timeout: Duration,
    /// For an agent to say what its guest uses.
    pub stats_timeout: Duration,
    /// For a lost connection to an agent to come back, before a call on it fails.
    pub reconnect_timeout: Duration,
    /// For one of the archives that are being uploaded to end, when there are as many as may be.
    pub upload_queue_timeout: Duration,
    /// For a client of ssh, from its first byte until it is logged in.
    pub ssh_login_timeout: Duration,
    /// For work to be undone when the daemon stops.
    pub undo_timeout: Duration,
    /// The most operations of one owner that are under way.
    pub operations_per_owner_max: usize,
    /// How long ended operations are kept.
    pub operation_retention: Duration,
    /// How long records of the audit log are kept.
    pub audit_retention: Duration,
    /// The most records of the audit log.
    pub audit_records_max: u32,
    /// How image pulls behave.
    pub pull: PullConfig,
    /// How uploads may be.
    pub upload: UploadConfig,
    /// An export of which nothing is taken for this long has stalled.
    pub export_stall_timeout: Duration,
    /// How builds may be.
    pub builds: BuildConfig,
    /// Credential files that VMs may be given, by name.
    pub credentials: Profiles,
}

/// How image pulls behave.
#[derive(Debug, Clone)]
pub struct PullConfig {
    /// How registries are reached, by `host:port` or `host`.
    pub registries: Arc<Registries>,
    /// How the servers of catalogs are reached, by `host:port` or `host`.
    pub catalogs: Arc<CatalogHosts>,
    /// Where the logins are looked up that a request does not bring.
    pub auth_files: AuthFiles,
    /// A registry or catalog that sends nothing for this long has stalled.
    pub stall_timeout: Duration,
    /// The longest time for a whole pull.
    pub timeout: Duration,
}

impl AppConfig {
    /// How many VMs boot at once. Where nothing is said: two for each processor, since a boot also waits, and not
    /// so many that all are slow together.
    #[must_use]
    pub fn parallel_boots(&self) -> usize {
        match self.max_parallel_boots {
            0 => (2 * crate::host::cpu_count()).max(MIN_PARALLEL_BOOTS),
            chosen => chosen,
        }
    }

    /// How long a VM may take to be gone, before whoever waits is told what keeps it: its process has its own time.
    #[must_use]
    pub fn gone_limit(&self) -> Duration {
        self.stop_kill_timeout + self.remove_timeout
    }

    /// The defaults, for a state directory and an agent.
    #[must_use]
    pub fn new(state_dir: PathBuf, agent: PathBuf) -> Self {
        Self {
            state_dir,
            agent,
            socket: PathBuf::new(),
            socket_group: String::new(),
            listen: Vec::new(),
            max_vms: 1000,
            max_volumes: 1000,
            memory_reserve_mib: 256,
            memory_overcommit: Ratio::of_whole(1),
            vcpu_overcommit: Ratio::of_whole(16),
            disk_overcommit: Ratio::of_whole(100),
            quotas: Quotas::default(),
            max_parallel_boots: 0,
            boot_queue_max: 1000,
            vmm_memory_overhead_mib: 512,
            disk_reserve_mib: 512,
            boot_timeout: Duration::from_secs(120),
            configure_timeout: Duration::from_secs(30),
            stop_init_timeout: Duration::from_secs(60),
            stop_agent_timeout: Duration::from_secs(10),
            stop_power_button_timeout: Duration::from_secs(2),
            stop_terminate_timeout: Duration::from_secs(5),
            stop_kill_timeout: Duration::from_secs(10),
            remove_timeout: Duration::from_secs(10),
            default_network: NetworkPlan::default(),
            // Longer than the database waits for a lock and for its one writer.
            record_timeout: Duration::from_secs(40),
            volume_timeout: Duration::from_secs(30),
            stop_logs_timeout: Duration::from_secs(15),
            pause_timeout: Duration::from_secs(5),
            idle_check_timeout: Duration::from_secs(5),
            stats_timeout: Duration::from_secs(3),
            reconnect_timeout: Duration::from_secs(10),
            upload_queue_timeout: Duration::from_secs(60),
            ssh_login_timeout: Duration::from_secs(120),
            undo_timeout: Duration::from_secs(20),
            // As many as may wait to boot.
            operations_per_owner_max: 1000,
            operation_retention: Duration::from_secs(24 * 3600),
            audit_retention: Duration::from_secs(90 * 24 * 3600),
            audit_records_max: 100_000,
            pull: PullConfig {
                registries: Arc::default(),
                catalogs: Arc::default(),
                auth_files: AuthFiles::default(),
                stall_timeout: Duration::from_secs(30),
                timeout: Duration::from_secs(2 * 3600),
            },
            upload: UploadConfig::default(),
            export_stall_timeout: Duration::from_secs(120),
            builds: BuildConfig::default(),
            credentials: Profiles::new(),
        }
    }
}
