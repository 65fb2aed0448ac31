//! VMs, operations and the host.

use std::collections::BTreeMap;

use banger_sdk::types;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Fault, age, bytes, pairs, timestamp, word};
use crate::output::Row;

/// A VM.
#[derive(Debug, Serialize)]
pub(crate) struct Vm {
    id: String,
    name: String,
    state: String,
    image: String,
    image_id: String,
    kernel: String,
    kernel_id: String,
    vcpu_count: i32,
    memory_mib: i64,
    disk_mib: i64,
    network: String,
    volumes: Vec<Mount>,
    ephemeral: bool,
    keep_logs: bool,
    ttl_seconds: Option<i64>,
    idle_timeout_seconds: Option<i64>,
    restart_policy: String,
    restart_count: i32,
    init: String,
    git_name: String,
    git_email: String,
    ssh_authorized_keys: Vec<String>,
    credentials: Vec<String>,
    owner: String,
    pending_fields: Vec<String>,
    labels: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    failure: Option<Fault>,
    boot_timing: Vec<Stage>,
    last_stop: Option<Stop>,
    etag: String,
    create_time: Option<Timestamp>,
    start_time: Option<Timestamp>,
    stop_time: Option<Timestamp>,
}

/// A volume in a VM.
#[derive(Debug, Serialize)]
struct Mount {
    volume: String,
    path: String,
    read_only: bool,
}

impl Mount {
    fn text(&self) -> String {
        let access = if self.read_only { " (read-only)" } else { "" };
        format!("{} at {}{access}", self.volume, self.path)
    }
}

impl From<types::VolumeMount> for Mount {
    fn from(mount: types::VolumeMount) -> Self {
        Self {
            volume: mount.volume,
            path: mount.path,
            read_only: mount.read_only,
        }
    }
}

/// How a stop went.
#[derive(Debug, Serialize)]
struct Stop {
    rung: String,
    took_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_logs: Option<KeptLogs>,
}

/// What a stop kept of the output of a VM's sessions.
#[derive(Debug, Serialize)]
struct KeptLogs {
    session_count: i32,
    size_bytes: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    problem: String,
}

impl From<types::Vm> for Vm {
    fn from(vm: types::Vm) -> Self {
        let state = word(vm.state().as_str_name(), "STATE_");
        let spec = vm.spec.unwrap_or_default();
        let network = word(spec.network_mode().as_str_name(), "NETWORK_MODE_");
        let restart_policy = word(spec.restart_policy().as_str_name(), "RESTART_POLICY_");
        let init = match spec.init_path.as_str() {
            "" => word(spec.init_mode().as_str_name(), "INIT_MODE_"),
            path => path.to_owned(),
        };
        let identity = spec.identity.unwrap_or_default();
        let last_stop = vm.last_stop.map(|stop| Stop {
            rung: word(stop.rung().as_str_name(), "RUNG_"),
            took_ms: stop.took.map_or(0, |took| {
                took.seconds * 1000 + i64::from(took.nanos) / 1_000_000
            }),
            kept_logs: stop.kept_logs.map(|kept| KeptLogs {
                session_count: kept.session_count,
                size_bytes: kept.size_bytes,
                problem: kept.problem,
            }),
        });
        Self {
            id: vm.id,
            name: spec.name,
            state,
            image: spec.image,
            image_id: vm.image_id,
            kernel: spec.kernel,
            kernel_id: vm.kernel_id,
            vcpu_count: spec.vcpu_count,
            memory_mib: spec.memory_mib,
            disk_mib: spec.disk_mib,
            network,
            volumes: spec.volumes.into_iter().map(Mount::from).collect(),
            ephemeral: spec.ephemeral,
            keep_logs: spec.keep_logs,
            ttl_seconds: spec.ttl.map(|time| time.seconds),
            idle_timeout_seconds: spec.idle_timeout.map(|time| time.seconds),
            restart_policy,
            restart_count: vm.restart_count,
            init,
            git_name: identity.git_name,
            git_email: identity.git_email,
            ssh_authorized_keys: identity.ssh_authorized_keys,
            credentials: identity.credentials,
            owner: vm.owner,
            pending_fields: vm.pending_fields,
            labels: spec.labels.into_iter().collect(),
            env: spec.env.into_iter().collect(),
            failure: vm.failure.as_ref().map(Fault::of),
            boot_timing: vm.boot_timing.into_iter().map(Stage::from).collect(),
            last_stop,
            etag: vm.etag,
            create_time: timestamp(vm.create_time),
            start_time: timestamp(vm.start_time),
            stop_time: timestamp(vm.stop_time),
        }
    }
}

impl Row for Vm {
    const HEADINGS: &'static [&'static str] =
        &["NAME", "STATE", "IMAGE", "CPUS", "MEMORY", "CREATED", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.clone(),
            self.image.clone(),
            self.vcpu_count.to_string(),
            bytes(self.memory_mib.saturating_mul(1 << 20)),
            age(self.create_time),
            self.id.clone(),
        ]
    }

    fn name(&self) -> String {
        if self.name.is_empty() {
            self.id.clone()
        } else {
            self.name.clone()
        }
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let stages = self
            .boot_timing
            .iter()
            .map(Stage::text)
            .collect::<Vec<_>>()
            .join("\n");
        let stop = self.last_stop.as_ref();
        let volumes: Vec<String> = self.volumes.iter().map(Mount::text).collect();
        vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("State", self.state.clone()),
            (
                "Failure",
                self.failure.as_ref().map(Fault::text).unwrap_or_default(),
            ),
            ("Image", format!("{} ({})", self.image, self.image_id)),
            ("Kernel", self.kernel.clone()),
            ("CPUs", self.vcpu_count.to_string()),
            ("Memory", bytes(self.memory_mib.saturating_mul(1 << 20))),
            ("Disk", bytes(self.disk_mib.saturating_mul(1 << 20))),
            ("Network", self.network.clone()),
            ("Volumes", volumes.join("\n")),
            ("Ephemeral", self.ephemeral.to_string()),
            ("Time to live", seconds(self.ttl_seconds)),
            ("Idle timeout", seconds(self.idle_timeout_seconds)),
            ("Restart", self.restart_text()),
            ("Init", self.init.clone()),
            ("Git", self.git_text()),
            ("SSH keys", self.ssh_authorized_keys.join("\n")),
            ("Credentials", self.credentials.join(", ")),
            ("Next start", self.pending_fields.join(", ")),
            ("Owner", self.owner.clone()),
            ("Labels", pairs(&self.labels)),
            ("Environment", pairs(&self.env)),
            ("Created", age(self.create_time)),
            ("Started", age(self.start_time)),
            ("Stopped", age(self.stop_time)),
            (
                "Last stop",
                stop.map(|s| format!("by {} in {} ms", s.rung, s.took_ms))
                    .unwrap_or_default(),
            ),
            ("Boot", stages),
        ]
    }
}

impl Vm {
    fn restart_text(&self) -> String {
        match self.restart_count {
            0 => self.restart_policy.clone(),
            count => format!("{} ({count} so far)", self.restart_policy),
        }
    }

    fn git_text(&self) -> String {
        match (self.git_name.as_str(), self.git_email.as_str()) {
            (name, "") => name.to_owned(),
            ("", email) => format!("<{email}>"),
            (name, email) => format!("{name} <{email}>"),
        }
    }
}

/// A time for people; empty where there is none.
fn seconds(seconds: Option<i64>) -> String {
    let text = |seconds| format!("{:#}", SignedDuration::from_secs(seconds));
    seconds.map(text).unwrap_or_default()
}

/// A step of an operation or of a boot.
#[derive(Debug, Serialize)]
pub(crate) struct Stage {
    name: String,
    item: String,
    start_time: Option<Timestamp>,
    end_time: Option<Timestamp>,
    took_ms: Option<f64>,
    done_bytes: i64,
    total_bytes: Option<i64>,
}

impl From<types::Stage> for Stage {
    fn from(stage: types::Stage) -> Self {
        let (start, end) = (timestamp(stage.start_time), timestamp(stage.end_time));
        let took = start
            .zip(end)
            .map(|(start, end)| end.duration_since(start).as_secs_f64() * 1e3);
        Self {
            name: stage.name,
            item: stage.item,
            start_time: start,
            end_time: end,
            took_ms: took.map(|ms| (ms * 1e3).round() / 1e3),
            done_bytes: stage.done_bytes,
            total_bytes: stage.total_bytes,
        }
    }
}

impl Stage {
    /// The cells of a table of stages: what, how long, how much.
    pub(crate) fn cells(&self) -> Vec<String> {
        let took = self
            .took_ms
            .map_or_else(|| "running".to_owned(), |ms| format!("{ms:.1} ms"));
        let moved = if self.done_bytes > 0 {
            bytes(self.done_bytes)
        } else {
            String::new()
        };
        vec![
            format!("{} {}", self.name, self.item).trim_end().to_owned(),
            took,
            moved,
        ]
    }

    fn text(&self) -> String {
        self.cells().join("  ").trim_end().to_owned()
    }
}

/// An operation.
#[derive(Debug, Serialize)]
pub(crate) struct Operation {
    id: String,
    kind: String,
    target: String,
    state: String,
    stages: Vec<Stage>,
    error: Option<Fault>,
    create_time: Option<Timestamp>,
    end_time: Option<Timestamp>,
}

impl Operation {
    /// Whether it ended because a caller gave it up.
    pub(crate) fn is_cancelled(&self) -> bool {
        let fault = self.error.as_ref();
        fault.is_some_and(|fault| fault.reason == "OPERATION_CANCELLED")
    }
}

impl From<types::Operation> for Operation {
    fn from(operation: types::Operation) -> Self {
        Self {
            kind: word(operation.kind().as_str_name(), "KIND_"),
            state: word(operation.state().as_str_name(), "STATE_"),
            id: operation.id,
            target: operation.target,
            stages: operation.stages.into_iter().map(Stage::from).collect(),
            error: operation.error.as_ref().map(Fault::of),
            create_time: timestamp(operation.create_time),
            end_time: timestamp(operation.end_time),
        }
    }
}

impl Row for Operation {
    const HEADINGS: &'static [&'static str] =
        &["ID", "KIND", "TARGET", "STATE", "STAGE", "CREATED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.kind.clone(),
            self.target.clone(),
            self.state.clone(),
            self.stages.last().map(Stage::text).unwrap_or_default(),
            age(self.create_time),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let stages = self
            .stages
            .iter()
            .map(Stage::text)
            .collect::<Vec<_>>()
            .join("\n");
        vec![
            ("Id", self.id.clone()),
            ("Kind", self.kind.clone()),
            ("Target", self.target.clone()),
            ("State", self.state.clone()),
            (
                "Error",
                self.error.as_ref().map(Fault::text).unwrap_or_default(),
            ),
            ("Created", age(self.create_time)),
            ("Ended", age(self.end_time)),
            ("Stages", stages),
        ]
    }
}

/// The host.
#[derive(Debug, Serialize)]
pub(crate) struct HostInfo {
    version: String,
    driver: String,
    vmm_version: String,
    accelerator: String,
    accelerator_warning: String,
    cpu_count: i32,
    memory_bytes: i64,
    memory_available_bytes: i64,
    state_dir: String,
    state_dir_available_bytes: i64,
    vm_count: i32,
    running_vm_count: i32,
    image_count: i32,
    default_kernel: String,
    pid: i32,
    socket: String,
}

impl HostInfo {
    /// The view of `info`, which came over `socket`.
    pub(crate) fn new(info: types::HostInfo, socket: String) -> Self {
        Self {
            version: info.version,
            driver: info.driver,
            vmm_version: info.vmm_version,
            accelerator: info.accelerator,
            accelerator_warning: info.accelerator_warning,
            cpu_count: info.cpu_count,
            memory_bytes: info.memory_bytes,
            memory_available_bytes: info.memory_available_bytes,
            state_dir: info.state_dir,
            state_dir_available_bytes: info.state_dir_available_bytes,
            vm_count: info.vm_count,
            running_vm_count: info.running_vm_count,
            image_count: info.image_count,
            default_kernel: info.default_kernel,
            pid: info.pid,
            socket,
        }
    }
}

impl Row for HostInfo {
    const HEADINGS: &'static [&'static str] = &["DRIVER", "ACCELERATOR", "VERSION", "SOCKET"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.driver.clone(),
            self.accelerator.clone(),
            self.version.clone(),
            self.socket.clone(),
        ]
    }

    fn name(&self) -> String {
        self.socket.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let free = |free, of| format!("{} free of {}", bytes(free), bytes(of));
        vec![
            ("Socket", self.socket.clone()),
            (
                "Daemon",
                format!("bangerd {}, process {}", self.version, self.pid),
            ),
            (
                "Driver",
                format!("{} {}", self.driver, self.vmm_version)
                    .trim_end()
                    .to_owned(),
            ),
            ("Accelerator", self.accelerator.clone()),
            ("Warning", self.accelerator_warning.clone()),
            ("CPUs", self.cpu_count.to_string()),
            (
                "Memory",
                free(self.memory_available_bytes, self.memory_bytes),
            ),
            (
                "State",
                format!(
                    "{}, {} free",
                    self.state_dir,
                    bytes(self.state_dir_available_bytes)
                ),
            ),
            (
                "VMs",
                format!("{}, {} running", self.vm_count, self.running_vm_count),
            ),
            ("Images", self.image_count.to_string()),
            ("Default kernel", self.default_kernel.clone()),
        ]
    }
}
