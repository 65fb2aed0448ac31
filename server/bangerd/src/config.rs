//! The daemon's configuration: one flat TOML file, read whole before anything is done.
//!
//! Every key is optional and stands for itself: each is read and checked alone, so that all mistakes of a
//! file are told together. `deploy/bangerd.toml` documents every key; a test holds it to the defaults here.

pub mod access;
mod catalog;
mod credentials;
mod host;
mod limits;
mod mistake;
mod place;
mod quota;
mod registry;
mod table;
mod tcp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use banger_app::AppConfig;
use banger_app::config::{AuthFiles, BuildConfig, PullConfig, Quotas, Ratio, UploadConfig};
use banger_app::vm::Limits;
use banger_core::Owner;
use banger_core::vmm::NetworkPlan;
use banger_guest::Deadlines;
use banger_vmm::{
    AcceleratorChoice, CgroupChoice, DriverChoice, FirecrackerConfig, QemuConfig, ScopeChoice,
};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::logging::LogFormat;
pub use access::AccessConfig;
pub use catalog::CatalogConfig;
pub use credentials::{CredentialFile, CredentialsConfig};
pub use limits::LimitsConfig;
pub use mistake::{ConfigError, Mistake};
pub use place::Place;
pub use registry::RegistryConfig;
pub use tcp::{IdentityRule, TcpConfig};

/// The most a duration may be: longer ones are a mistake of unit.
const DURATION_MAX: SignedDuration = SignedDuration::from_hours(24 * 366);
/// A Unix socket's path has this many bytes at most (unix(7): `sun_path`, less its ending zero).
const SOCKET_PATH_MAX: usize = 107;
/// What no user's number reaches: the largest numbers mean nobody, and some programs take them for negative ones.
const JAIL_UID_END: u32 = 1 << 31;
/// The most builds that may be allowed to go on, and to wait.
const BUILDS_MAX: usize = 1000;
/// The most that kept steps may be allowed to take: 1 PiB.
const CACHE_MAX_MIB: u64 = 1 << 30;
/// The most that an upload may be allowed to be: 1 TiB.
const UPLOAD_MAX_MIB: u64 = 1 << 20;
/// The name of the file with registries' logins beside the configuration file.
const AUTH_FILE: &str = "auth.json";
/// The least that a VMM may use beyond its guest's memory, MiB: with less QEMU does not start.
const VMM_OVERHEAD_MIN_MIB: u64 = 128;
/// The shortest silence of an agent that may tell that its guest is dead: two of its heartbeats.
const AGENT_SILENCE_MIN: SignedDuration = SignedDuration::from_secs(4);
/// The name of the database below the state directory.
const DATABASE: &str = "banger.db";

/// Every setting of the daemon. Durations are text such as `30s`, `2m` or `1h30m`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where everything is kept.
    pub state_dir: PathBuf,
    /// The socket on which the API is served.
    pub socket: PathBuf,
    /// As root: the group whose members may use the socket, if it exists.
    pub socket_group: String,
    /// Which role who has at the socket.
    #[serde(skip_serializing_if = "everybody_is_admin")]
    pub access: AccessConfig,
    /// Where and to whom the API is served by TCP.
    #[serde(skip_serializing_if = "usual")]
    pub tcp: TcpConfig,
    /// What callers may ask, at once and in a time.
    #[serde(skip_serializing_if = "usual")]
    pub limits: LimitsConfig,
    /// The static agent binary; empty means beside the daemon, then below `/usr/lib/banger`.
    pub agent: PathBuf,
    /// What is logged: a level, or targets with levels.
    pub log_level: String,
    /// For people or for programs.
    pub log_format: LogFormat,
    /// The most VMs that exist at once.
    pub max_vms: usize,
    /// The most volumes that exist at once.
    pub max_volumes: usize,
    /// Host memory that VMs must leave free, MiB.
    pub memory_reserve_mib: u64,
    /// How much guest memory may be promised of the host's.
    pub memory_overcommit: Ratio,
    /// How many vCPUs may be promised of the host's processors.
    pub vcpu_overcommit: Ratio,
    /// How much writable disk may be promised; zero means that it is not counted.
    pub disk_overcommit: Ratio,
    /// The most VMs that boot at once; zero means by the processors.
    pub max_parallel_boots: usize,
    /// The most boots that wait.
    pub boot_queue_max: usize,
    /// Memory that a VMM may use beyond its guest's, MiB.
    pub vmm_memory_overhead_mib: u64,
    /// Who limits VMMs.
    pub vmm_cgroups: CgroupChoice,
    /// What each owner may have.
    #[serde(skip_serializing_if = "nothing")]
    pub quota: Limits,
    /// What single owners may have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub owners: BTreeMap<Owner, Limits>,
    /// Disk space that VMs and images must leave free, MiB.
    pub disk_reserve_mib: u64,
    /// From a VMM's start to the agent's first word.
    pub boot_timeout: SignedDuration,
    /// For a guest to be set up.
    pub configure_timeout: SignedDuration,
    /// For an init of the image's own to power off.
    pub stop_init_timeout: SignedDuration,
    /// For the agent to power off.
    pub stop_agent_timeout: SignedDuration,
    /// For the power button.
    pub stop_power_button_timeout: SignedDuration,
    /// For SIGTERM.
    pub stop_terminate_timeout: SignedDuration,
    /// For SIGKILL.
    pub stop_kill_timeout: SignedDuration,
    /// For the files of a VM to be removed.
    pub remove_timeout: SignedDuration,
    /// For the database to take a change of a VM's record, before the VM goes on without.
    pub record_timeout: SignedDuration,
    /// For the host's disk to make a volume or to make one larger.
    pub volume_timeout: SignedDuration,
    /// For the logs of a VM to be copied out of it before it is stopped.
    pub stop_logs_timeout: SignedDuration,
    /// For a VMM to hold a VM's vCPUs, or to let them go on.
    pub pause_timeout: SignedDuration,
    /// For an agent to say what runs in a VM that nothing seems to use.
    pub idle_check_timeout: SignedDuration,
    /// For an agent to say what its guest uses.
    pub stats_timeout: SignedDuration,
    /// For an agent to say anything while it has calls to answer, before it counts as dead.
    pub agent_silence_timeout: SignedDuration,
    /// The same of a guest whose instructions are translated.
    pub agent_silence_timeout_translated: SignedDuration,
    /// For a lost connection to an agent to come back.
    pub reconnect_timeout: SignedDuration,
    /// For one of the archives that are being uploaded to end.
    pub upload_queue_timeout: SignedDuration,
    /// For a client of ssh, from its first byte until it is logged in.
    pub ssh_login_timeout: SignedDuration,
    /// For work to be undone when the daemon stops.
    pub undo_timeout: SignedDuration,
    /// For calls and operations to end when the daemon stops.
    pub shutdown_grace: SignedDuration,
    /// How long ended operations are kept.
    pub operation_retention: SignedDuration,
    /// The most operations of one owner that are under way.
    pub operations_per_owner_max: usize,
    /// How long records of the audit log are kept.
    pub audit_retention: SignedDuration,
    /// The most records of the audit log; the oldest go first.
    pub audit_records_max: u32,
    /// Docker's or Podman's files with the logins that a request does not bring; the first that knows is
    /// believed, missing ones know nothing.
    pub registry_auth_files: Vec<PathBuf>,
    /// How registries are reached, by `host:port`, or by `host` for all its ports.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub registries: BTreeMap<String, RegistryConfig>,
    /// How the servers of catalogs are reached, by `host:port`, or by `host` for all its ports.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub catalogs: BTreeMap<String, CatalogConfig>,
    /// A registry or catalog that sends nothing for this long has stalled.
    pub pull_stall_timeout: SignedDuration,
    /// The longest time for a whole pull.
    pub pull_timeout: SignedDuration,
    /// The most bytes of an uploaded archive of an image, and of a build's context, MiB.
    pub upload_max_mib: u64,
    /// A caller that uploads and sends nothing for this long has stalled.
    pub upload_stall_timeout: SignedDuration,
    /// The longest time for a whole upload.
    pub upload_timeout: SignedDuration,
    /// An export of which nothing is taken for this long has stalled.
    pub export_stall_timeout: SignedDuration,
    /// The most builds at once.
    pub max_parallel_builds: usize,
    /// The most builds that wait for others.
    pub build_queue_max: usize,
    /// The most space of the steps kept of earlier builds, MiB.
    pub build_cache_mib: u64,
    /// The longest time for a whole build.
    pub build_timeout: SignedDuration,
    /// The network of VMs, and of the steps of builds, for which none was asked.
    pub default_network: NetworkPlan,
    /// Which kind of VMM new VMs run under.
    pub driver: DriverChoice,
    /// Firecracker: a path, or a name looked up in PATH.
    pub firecracker: PathBuf,
    /// Its jailer, likewise, used as root; empty means no jail.
    pub jailer: PathBuf,
    /// The first user, and group, that a jail may have.
    pub jail_uid_first: u32,
    /// How many users jails may have: the most VMs under Firecracker at once.
    pub jail_uid_count: u32,
    /// QEMU: a path, or a name looked up in PATH.
    pub qemu: PathBuf,
    /// What runs the guests' instructions.
    pub accelerator: AcceleratorChoice,
    /// How long KVM has to prove itself.
    pub kvm_probe_timeout: SignedDuration,
    /// From a VMM's start to its control socket's first word.
    pub vmm_launch_timeout: SignedDuration,
    /// For an answer on a VMM's control socket.
    pub vmm_control_timeout: SignedDuration,
    /// The bound of each VM's console log on disk, bytes.
    pub console_max_bytes: u64,
    /// Credential files that VMs may be given, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, CredentialsConfig>,
}

/// Whether no rule is given.
fn everybody_is_admin(access: &AccessConfig) -> bool {
    *access == AccessConfig::default()
}

/// Whether a table says nothing else than its defaults.
fn usual<T: Default + PartialEq>(table: &T) -> bool {
    *table == T::default()
}

/// Whether nothing is limited.
fn nothing(limits: &Limits) -> bool {
    *limits == Limits::default()
}

impl Default for Config {
    fn default() -> Self {
        Self::defaults(&Place::of_this_process())
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(DURATION_MAX)
}

fn unsigned(duration: SignedDuration) -> Duration {
    duration.unsigned_abs()
}

impl Config {
    /// What holds where no file says otherwise.
    #[must_use]
    pub fn defaults(place: &Place) -> Self {
        let app = AppConfig::new(place.state_dir.clone(), PathBuf::new());
        let agent = Deadlines::default();
        let qemu = QemuConfig::new(place.state_dir.clone());
        let firecracker = FirecrackerConfig::new(place.state_dir.clone());
        let jail_users = firecracker.jail_users;
        Self {
            state_dir: place.state_dir.clone(),
            socket: place.socket.clone(),
            socket_group: "banger".into(),
            access: AccessConfig::default(),
            tcp: TcpConfig::default(),
            limits: LimitsConfig::default(),
            agent: PathBuf::new(),
            log_level: "info".into(),
            log_format: LogFormat::Human,
            max_vms: app.max_vms,
            max_volumes: app.max_volumes,
            memory_reserve_mib: app.memory_reserve_mib,
            memory_overcommit: app.memory_overcommit,
            vcpu_overcommit: app.vcpu_overcommit,
            disk_overcommit: app.disk_overcommit,
            max_parallel_boots: app.max_parallel_boots,
            boot_queue_max: app.boot_queue_max,
            vmm_memory_overhead_mib: app.vmm_memory_overhead_mib,
            vmm_cgroups: qemu.cgroups,
            quota: Limits::default(),
            owners: BTreeMap::new(),
            disk_reserve_mib: app.disk_reserve_mib,
            boot_timeout: signed(app.boot_timeout),
            configure_timeout: signed(app.configure_timeout),
            stop_init_timeout: signed(app.stop_init_timeout),
            stop_agent_timeout: signed(app.stop_agent_timeout),
            stop_power_button_timeout: signed(app.stop_power_button_timeout),
            stop_terminate_timeout: signed(app.stop_terminate_timeout),
            stop_kill_timeout: signed(app.stop_kill_timeout),
            remove_timeout: signed(app.remove_timeout),
            record_timeout: signed(app.record_timeout),
            volume_timeout: signed(app.volume_timeout),
            stop_logs_timeout: signed(app.stop_logs_timeout),
            pause_timeout: signed(app.pause_timeout),
            idle_check_timeout: signed(app.idle_check_timeout),
            stats_timeout: signed(app.stats_timeout),
            agent_silence_timeout: signed(agent.silence),
            agent_silence_timeout_translated: signed(agent.silence_translated),
            reconnect_timeout: signed(app.reconnect_timeout),
            upload_queue_timeout: signed(app.upload_queue_timeout),
            ssh_login_timeout: signed(app.ssh_login_timeout),
            undo_timeout: signed(app.undo_timeout),
            shutdown_grace: SignedDuration::from_secs(10),
            operation_retention: signed(app.operation_retention),
            operations_per_owner_max: app.operations_per_owner_max,
            audit_retention: signed(app.audit_retention),
            audit_records_max: app.audit_records_max,
            registry_auth_files: vec![place.config.with_file_name(AUTH_FILE)],
            registries: BTreeMap::new(),
            catalogs: BTreeMap::new(),
            pull_stall_timeout: signed(app.pull.stall_timeout),
            pull_timeout: signed(app.pull.timeout),
            upload_max_mib: app.upload.bytes_max >> 20,
            upload_stall_timeout: signed(app.upload.stall_timeout),
            upload_timeout: signed(app.upload.timeout),
            export_stall_timeout: signed(app.export_stall_timeout),
            max_parallel_builds: app.builds.parallel_max,
            build_queue_max: app.builds.queue_max,
            build_cache_mib: app.builds.cache_bytes_max >> 20,
            build_timeout: signed(app.builds.timeout),
            default_network: app.default_network,
            driver: DriverChoice::default(),
            firecracker: firecracker.program,
            jailer: firecracker.jailer,
            jail_uid_first: jail_users.start,
            jail_uid_count: jail_users.end - jail_users.start,
            qemu: qemu.program,
            accelerator: qemu.accelerator,
            kvm_probe_timeout: signed(qemu.probe_timeout),
            vmm_launch_timeout: signed(qemu.launch_timeout),
            vmm_control_timeout: signed(qemu.control_timeout),
            console_max_bytes: qemu.console_max_bytes,
            credentials: BTreeMap::new(),
        }
    }

    /// Reads `file`, or the defaults where `None`.
    ///
    /// # Errors
    /// With every mistake of the file.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = file else {
            return Ok(Self::default());
        };
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|mistakes| ConfigError::Mistakes {
            path: Some(path.to_owned()),
            mistakes,
        })
    }

    /// Reads a configuration's text.
    ///
    /// # Errors
    /// With every mistake.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        let mut table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| vec![Mistake::syntax(text, &error)])?;
        let mut mistakes = table::sift::<RegistryConfig>(&mut table, registry::KEY);
        mistakes.extend(table::sift::<CatalogConfig>(&mut table, catalog::KEY));
        mistakes.extend(table::sift::<CredentialsConfig>(
            &mut table,
            credentials::KEY,
        ));
        mistakes.extend(access::sift(&mut table));
        mistakes.extend(tcp::sift(&mut table));
        mistakes.extend(limits::sift(&mut table));
        let (table, of_quotas) = quota::sift(table);
        mistakes.extend(of_quotas);
        let (right, wrong): (Vec<_>, Vec<_>) = table
            .into_iter()
            .map(|(key, value)| mistake(&key, &value).map_or(Ok((key, value)), Err))
            .partition(Result::is_ok);
        mistakes.extend(wrong.into_iter().filter_map(Result::err));
        let right: toml::Table = right.into_iter().filter_map(Result::ok).collect();
        let config: Self = right
            .try_into()
            .map_err(|error: toml::de::Error| vec![Mistake::syntax(text, &error)])?;
        if mistakes.is_empty() {
            return Ok(config);
        }
        // What is right by itself may be out of range: told now, not at the next try.
        mistakes.extend(config.mistakes());
        Err(mistakes)
    }

    /// Checks what types cannot say. Called after the command line has had its say.
    ///
    /// # Errors
    /// With every mistake.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mistakes = self.mistakes();
        if mistakes.is_empty() {
            return Ok(());
        }
        Err(ConfigError::Mistakes {
            path: None,
            mistakes,
        })
    }

    fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let mut refuse = |key: &str, wrong: bool, problem: &str| {
            if wrong {
                mistakes.push(Mistake::new(key, problem));
            }
        };
        for (key, value) in self.durations() {
            refuse(
                key,
                value <= SignedDuration::ZERO,
                "must be longer than nothing",
            );
            refuse(key, value > DURATION_MAX, "must be at most a year");
        }
        for (key, value) in [
            ("agent_silence_timeout", self.agent_silence_timeout),
            (
                "agent_silence_timeout_translated",
                self.agent_silence_timeout_translated,
            ),
        ] {
            refuse(
                key,
                value < AGENT_SILENCE_MIN,
                "must be at least 4s: an agent that has nothing to say says so every 2s",
            );
        }
        self.judge_places(&mut refuse);
        self.judge_amounts(&mut refuse);
        self.judge_drivers(&mut refuse);
        mistakes.extend(registry::mistakes(&self.registries));
        mistakes.extend(catalog::mistakes(&self.catalogs));
        mistakes.extend(access::mistakes(&self.access));
        mistakes.extend(tcp::mistakes(&self.tcp));
        mistakes.extend(limits::mistakes(&self.limits));
        mistakes.extend(quota::mistakes(&self.owners));
        mistakes.extend(credentials::mistakes(&self.credentials));
        mistakes
    }

    fn judge_places(&self, refuse: &mut impl FnMut(&str, bool, &str)) {
        refuse(
            "state_dir",
            !self.state_dir.is_absolute(),
            "must be an absolute path",
        );
        refuse(
            "socket",
            !self.socket.is_absolute(),
            "must be an absolute path",
        );
        let socket_length = self.socket.as_os_str().len();
        refuse(
            "socket",
            socket_length > SOCKET_PATH_MAX,
            "is longer than the 107 bytes that a Unix socket's path may have",
        );
        refuse(
            "agent",
            self.agent != Path::new("") && !self.agent.is_absolute(),
            "must be an absolute path",
        );
        refuse(
            "log_level",
            self.log_targets().is_err(),
            "is neither a level (error, warn, info, debug, trace) nor targets with levels",
        );
        refuse(
            "registry_auth_files",
            self.registry_auth_files
                .iter()
                .any(|file| !file.is_absolute()),
            "must be absolute paths",
        );
    }

    fn judge_amounts(&self, refuse: &mut impl FnMut(&str, bool, &str)) {
        refuse("max_vms", self.max_vms == 0, "must be at least 1");
        refuse("max_volumes", self.max_volumes == 0, "must be at least 1");
        refuse(
            "max_parallel_builds",
            !(1..=BUILDS_MAX).contains(&self.max_parallel_builds),
            "must be from 1 to 1000",
        );
        refuse(
            "build_queue_max",
            self.build_queue_max > BUILDS_MAX,
            "must be at most 1000: the contexts of all of them lie on the disk",
        );
        refuse(
            "build_cache_mib",
            self.build_cache_mib > CACHE_MAX_MIB,
            "must be at most 1073741824",
        );
        refuse(
            "upload_max_mib",
            !(1..=UPLOAD_MAX_MIB).contains(&self.upload_max_mib),
            "must be from 1 to 1048576",
        );
        refuse(
            "audit_records_max",
            self.audit_records_max == 0,
            "must be at least 1",
        );
        refuse(
            "operations_per_owner_max",
            self.operations_per_owner_max == 0,
            "must be at least 1",
        );
        refuse(
            "memory_overcommit",
            self.memory_overcommit.is_zero(),
            "must be more than nothing",
        );
        refuse(
            "vcpu_overcommit",
            self.vcpu_overcommit.is_zero(),
            "must be more than nothing",
        );
        refuse(
            "vmm_memory_overhead_mib",
            self.vmm_memory_overhead_mib < VMM_OVERHEAD_MIN_MIB,
            "must be at least 128: a VMM needs memory of its own",
        );
        refuse(
            "console_max_bytes",
            self.console_max_bytes < 4096,
            "must be at least 4096",
        );
    }

    fn judge_drivers(&self, refuse: &mut impl FnMut(&str, bool, &str)) {
        refuse(
            "qemu",
            self.qemu == Path::new(""),
            "must be a program's name or path",
        );
        refuse(
            "firecracker",
            self.firecracker == Path::new(""),
            "must be a program's name or path",
        );
        refuse(
            "jail_uid_first",
            self.jail_uid_first == 0,
            "must not be root, from whom a jail is to protect",
        );
        refuse(
            "jail_uid_count",
            self.jail_uid_count == 0,
            "must be at least 1",
        );
        refuse(
            "jail_uid_count",
            self.jail_uid_first
                .checked_add(self.jail_uid_count)
                .is_none_or(|end| end > JAIL_UID_END),
            "reaches beyond the largest number that a user can have",
        );
    }

    /// What is logged, parsed.
    ///
    /// # Errors
    /// If `log_level` cannot be.
    pub fn log_targets(
        &self,
    ) -> Result<tracing_subscriber::filter::Targets, tracing_subscriber::filter::ParseError> {
        self.log_level.parse()
    }

    fn durations(&self) -> [(&'static str, SignedDuration); 32] {
        [
            ("boot_timeout", self.boot_timeout),
            ("configure_timeout", self.configure_timeout),
            ("stop_init_timeout", self.stop_init_timeout),
            ("stop_agent_timeout", self.stop_agent_timeout),
            ("stop_power_button_timeout", self.stop_power_button_timeout),
            ("stop_terminate_timeout", self.stop_terminate_timeout),
            ("stop_kill_timeout", self.stop_kill_timeout),
            ("remove_timeout", self.remove_timeout),
            ("record_timeout", self.record_timeout),
            ("volume_timeout", self.volume_timeout),
            ("stop_logs_timeout", self.stop_logs_timeout),
            ("pause_timeout", self.pause_timeout),
            ("idle_check_timeout", self.idle_check_timeout),
            ("stats_timeout", self.stats_timeout),
            ("agent_silence_timeout", self.agent_silence_timeout),
            (
                "agent_silence_timeout_translated",
                self.agent_silence_timeout_translated,
            ),
            ("reconnect_timeout", self.reconnect_timeout),
            ("upload_queue_timeout", self.upload_queue_timeout),
            ("ssh_login_timeout", self.ssh_login_timeout),
            ("undo_timeout", self.undo_timeout),
            ("shutdown_grace", self.shutdown_grace),
            ("operation_retention", self.operation_retention),
            ("audit_retention", self.audit_retention),
            ("pull_stall_timeout", self.pull_stall_timeout),
            ("pull_timeout", self.pull_timeout),
            ("upload_stall_timeout", self.upload_stall_timeout),
            ("upload_timeout", self.upload_timeout),
            ("export_stall_timeout", self.export_stall_timeout),
            ("build_timeout", self.build_timeout),
            ("kvm_probe_timeout", self.kvm_probe_timeout),
            ("vmm_launch_timeout", self.vmm_launch_timeout),
            ("vmm_control_timeout", self.vmm_control_timeout),
        ]
    }

    /// How long calls on agents may take.
    #[must_use]
    pub fn deadlines(&self) -> Deadlines {
        Deadlines {
            silence: unsigned(self.agent_silence_timeout),
            silence_translated: unsigned(self.agent_silence_timeout_translated),
            ..Deadlines::default()
        }
    }

    /// The settings of the services.
    #[must_use]
    pub fn app(&self) -> AppConfig {
        AppConfig {
            state_dir: self.state_dir.clone(),
            agent: place::agent(&self.agent),
            socket: self.socket.clone(),
            socket_group: self.socket_group.clone(),
            listen: self.tcp.listen.clone(),
            default_network: self.default_network,
            max_vms: self.max_vms,
            max_volumes: self.max_volumes,
            memory_reserve_mib: self.memory_reserve_mib,
            memory_overcommit: self.memory_overcommit,
            vcpu_overcommit: self.vcpu_overcommit,
            disk_overcommit: self.disk_overcommit,
            quotas: Quotas {
                default: self.quota,
                owners: self.owners.clone(),
            },
            max_parallel_boots: self.max_parallel_boots,
            boot_queue_max: self.boot_queue_max,
            vmm_memory_overhead_mib: self.vmm_memory_overhead_mib,
            disk_reserve_mib: self.disk_reserve_mib,
            boot_timeout: unsigned(self.boot_timeout),
            configure_timeout: unsigned(self.configure_timeout),
            stop_init_timeout: unsigned(self.stop_init_timeout),
            stop_agent_timeout: unsigned(self.stop_agent_timeout),
            stop_power_button_timeout: unsigned(self.stop_power_button_timeout),
            stop_terminate_timeout: unsigned(self.stop_terminate_timeout),
            stop_kill_timeout: unsigned(self.stop_kill_timeout),
            remove_timeout: unsigned(self.remove_timeout),
            record_timeout: unsigned(self.record_timeout),
            volume_timeout: unsigned(self.volume_timeout),
            stop_logs_timeout: unsigned(self.stop_logs_timeout),
            pause_timeout: unsigned(self.pause_timeout),
            idle_check_timeout: unsigned(self.idle_check_timeout),
            stats_timeout: unsigned(self.stats_timeout),
            reconnect_timeout: unsigned(self.reconnect_timeout),
            upload_queue_timeout: unsigned(self.upload_queue_timeout),
            ssh_login_timeout: unsigned(self.ssh_login_timeout),
            undo_timeout: unsigned(self.undo_timeout),
            operation_retention: unsigned(self.operation_retention),
            operations_per_owner_max: self.operations_per_owner_max,
            audit_retention: unsigned(self.audit_retention),
            audit_records_max: self.audit_records_max,
            pull: PullConfig {
                registries: Arc::new(registry::settings(&self.registries)),
                catalogs: Arc::new(catalog::settings(&self.catalogs)),
                auth_files: AuthFiles::of(self.registry_auth_files.clone()),
                stall_timeout: unsigned(self.pull_stall_timeout),
                timeout: unsigned(self.pull_timeout),
            },
            upload: UploadConfig {
                bytes_max: self.upload_max_mib << 20,
                stall_timeout: unsigned(self.upload_stall_timeout),
                timeout: unsigned(self.upload_timeout),
            },
            export_stall_timeout: unsigned(self.export_stall_timeout),
            builds: BuildConfig {
                parallel_max: self.max_parallel_builds,
                queue_max: self.build_queue_max,
                cache_bytes_max: self.build_cache_mib << 20,
                timeout: unsigned(self.build_timeout),
            },
            credentials: credentials::profiles(&self.credentials),
        }
    }

    /// The settings of the QEMU driver.
    #[must_use]
    pub fn qemu(&self) -> QemuConfig {
        QemuConfig {
            program: self.qemu.clone(),
            accelerator: self.accelerator,
            state_dir: self.state_dir.clone(),
            probe_timeout: unsigned(self.kvm_probe_timeout),
            launch_timeout: unsigned(self.vmm_launch_timeout),
            control_timeout: unsigned(self.vmm_control_timeout),
            console_max_bytes: self.console_max_bytes,
            cgroups: self.vmm_cgroups,
            scopes: self.scopes(),
        }
    }

    /// The settings of the Firecracker driver.
    #[must_use]
    pub fn firecracker(&self) -> FirecrackerConfig {
        FirecrackerConfig {
            program: self.firecracker.clone(),
            jailer: self.jailer.clone(),
            jail_users: self.jail_uid_first
                ..self.jail_uid_first.saturating_add(self.jail_uid_count),
            state_dir: self.state_dir.clone(),
            probe_timeout: unsigned(self.kvm_probe_timeout),
            launch_timeout: unsigned(self.vmm_launch_timeout),
            control_timeout: unsigned(self.vmm_control_timeout),
            console_max_bytes: self.console_max_bytes,
            cgroups: self.vmm_cgroups,
            scopes: self.scopes(),
        }
    }

    /// Who wants no cgroups wants none of systemd's either.
    fn scopes(&self) -> ScopeChoice {
        match self.vmm_cgroups {
            CgroupChoice::Auto => ScopeChoice::Auto,
            CgroupChoice::Off => ScopeChoice::Off,
        }
    }

    /// Where the database is.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.state_dir.join(DATABASE)
    }

    /// How long calls and operations may go on when the daemon stops.
    #[must_use]
    pub fn grace(&self) -> Duration {
        unsigned(self.shutdown_grace)
    }
}

/// What is wrong with one key by itself.
fn mistake(key: &str, value: &toml::Value) -> Option<Mistake> {
    let alone = toml::Table::from_iter([(key.to_owned(), value.clone())]);
    let error = alone.try_into::<Config>().err()?;
    Some(Mistake::of_key(key, &error))
}

#[cfg(test)]
mod tests;
