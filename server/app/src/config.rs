//! What the services can be told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use banger_image::{AuthFiles, Registries, RegistrySettings};

/// Settings of the services. The daemon's configuration file fills it; every wait the services do on their
/// own has its limit here.
#[derive(Debug, Clone)]
pub struct AppConfig {
    /// Where everything is kept.
    pub state_dir: PathBuf,
    /// The static agent binary that becomes `/init` of every guest.
    pub agent: PathBuf,
    /// The most VMs that exist at once.
    pub max_vms: usize,
    /// Host memory that VMs must leave free, MiB.
    pub memory_reserve_mib: u64,
    /// Disk space in the state directory that VMs and images must leave free, MiB.
    pub disk_reserve_mib: u64,
    /// From the VMM's start to the agent's first word.
    pub boot_timeout: Duration,
    /// From the agent's first word to a guest that is set up.
    pub configure_timeout: Duration,
    /// For the agent to flush the disks and power off.
    pub stop_agent_timeout: Duration,
    /// For the power button.
    pub stop_power_button_timeout: Duration,
    /// For SIGTERM.
    pub stop_terminate_timeout: Duration,
    /// For SIGKILL, after which the process is reported as stuck.
    pub stop_kill_timeout: Duration,
    /// For a lost connection to an agent to come back, before a call on it fails.
    pub reconnect_timeout: Duration,
    /// For work to be undone when the daemon stops.
    pub undo_timeout: Duration,
    /// How long ended operations are kept.
    pub operation_retention: Duration,
    /// How image pulls behave.
    pub pull: PullConfig,
}

/// How image pulls behave.
#[derive(Debug, Clone)]
pub struct PullConfig {
    /// How registries are reached, by `host:port` or `host`.
    pub registries: Arc<Registries>,
    /// Where the logins are looked up that a request does not bring.
    pub auth_files: AuthFiles,
    /// A registry that sends nothing for this long has stalled.
    pub stall_timeout: Duration,
}

impl AppConfig {
    /// The defaults, for a state directory and an agent.
    #[must_use]
    pub fn new(state_dir: PathBuf, agent: PathBuf) -> Self {
        Self {
            state_dir,
            agent,
            max_vms: 1000,
            memory_reserve_mib: 256,
            disk_reserve_mib: 512,
            boot_timeout: Duration::from_secs(120),
            configure_timeout: Duration::from_secs(30),
            stop_agent_timeout: Duration::from_secs(10),
            stop_power_button_timeout: Duration::from_secs(2),
            stop_terminate_timeout: Duration::from_secs(5),
            stop_kill_timeout: Duration::from_secs(10),
            reconnect_timeout: Duration::from_secs(10),
            undo_timeout: Duration::from_secs(20),
            operation_retention: Duration::from_secs(24 * 3600),
            pull: PullConfig {
                registries: Arc::default(),
                auth_files: AuthFiles::default(),
                stall_timeout: Duration::from_secs(30),
            },
        }
    }
}
