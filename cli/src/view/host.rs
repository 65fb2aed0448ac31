//! What VMs were promised of the host, what they take, and the limits.

use banger_sdk::types;
use serde::Serialize;

use super::bytes;
use crate::failure::Failure;
use crate::output::{self, Printer};

/// What stands for an absent limit.
const NO_LIMIT: &str = "-";
/// How the daemon itself is called, which makes VMs for builds.
const DAEMON: &str = "(daemon)";

/// What is promised and taken.
#[derive(Debug, Serialize)]
pub(crate) struct HostUsage {
    promises: Promises,
    owners: Vec<OwnerUsage>,
    memory_used_bytes: i64,
    memory_available_bytes: i64,
    disk_used_bytes: i64,
    disk_available_bytes: i64,
    unmeasured_vm_count: i32,
    unmeasured_disk_count: i32,
    booting_count: i32,
    max_parallel_boots: i32,
    waiting_count: i32,
    boot_queue_max: i32,
}

/// What one owner's VMs and volumes were promised.
#[derive(Debug, Serialize)]
struct OwnerUsage {
    owner: String,
    promises: Promises,
}

/// Amounts of everything that can be promised.
#[derive(Debug, Serialize)]
struct Promises {
    vms: Promise,
    running_vms: Promise,
    vcpus: Promise,
    memory_mib: Promise,
    volumes: Promise,
    disk_mib: Promise,
}

/// An amount that is promised.
#[derive(Debug, Clone, Copy, Serialize)]
struct Promise {
    promised: i64,
    limit: Option<i64>,
}

impl From<Option<types::Promises>> for Promises {
    fn from(promises: Option<types::Promises>) -> Self {
        let promises = promises.unwrap_or_default();
        let promise = |promise: Option<types::Promise>| {
            let types::Promise { promised, limit } = promise.unwrap_or_default();
            Promise { promised, limit }
        };
        Self {
            vms: promise(promises.vms),
            running_vms: promise(promises.running_vms),
            vcpus: promise(promises.vcpus),
            memory_mib: promise(promises.memory_mib),
            volumes: promise(promises.volumes),
            disk_mib: promise(promises.disk_mib),
        }
    }
}

impl From<types::HostUsage> for HostUsage {
    fn from(usage: types::HostUsage) -> Self {
        let owner = |usage: types::OwnerUsage| OwnerUsage {
            owner: usage.owner,
            promises: usage.promises.into(),
        };
        Self {
            promises: usage.promises.into(),
            owners: usage.owners.into_iter().map(owner).collect(),
            memory_used_bytes: usage.memory_used_bytes,
            memory_available_bytes: usage.memory_available_bytes,
            disk_used_bytes: usage.disk_used_bytes,
            disk_available_bytes: usage.disk_available_bytes,
            unmeasured_vm_count: usage.unmeasured_vm_count,
            unmeasured_disk_count: usage.unmeasured_disk_count,
            booting_count: usage.booting_count,
            max_parallel_boots: usage.max_parallel_boots,
            waiting_count: usage.waiting_count,
            boot_queue_max: usage.boot_queue_max,
        }
    }
}

/// A number as it is, or of MiB.
fn amount(count: i64, is_mib: bool) -> String {
    match is_mib {
        true => bytes(count.saturating_mul(1 << 20)),
        false => count.to_string(),
    }
}

impl Promise {
    /// What is promised, and the most that may be.
    fn cells(self, is_mib: bool) -> [String; 2] {
        let limit = self.limit.map(|limit| amount(limit, is_mib));
        [
            amount(self.promised, is_mib),
            limit.unwrap_or_else(|| NO_LIMIT.into()),
        ]
    }

    fn of_limit(self, is_mib: bool) -> String {
        let [promised, limit] = self.cells(is_mib);
        match self.limit {
            Some(_) => format!("{promised} of {limit}"),
            None => promised,
        }
    }
}

impl HostUsage {
    /// Prints what is promised of each resource, then each owner's part.
    pub(crate) fn print(&self, printer: Printer) -> Result<u8, Failure> {
        if printer.is_quiet() {
            output::lines(self.owners.iter().map(OwnerUsage::name))?;
        } else if printer.is_json() {
            output::json(self)?;
        } else {
            let headings = ["RESOURCE", "PROMISED", "LIMIT", "USED", "AVAILABLE"];
            output::table(&headings, self.resources().into_iter())?;
            output::lines([String::new()])?;
            let headings = [
                "OWNER", "VMS", "RUNNING", "VCPUS", "MEMORY", "VOLUMES", "DISK",
            ];
            output::table(&headings, self.owners.iter().map(OwnerUsage::cells))?;
        }
        Ok(0)
    }

    fn resources(&self) -> Vec<Vec<String>> {
        let promises = &self.promises;
        let row = |what: &str, promise: Promise, is_mib, used: [String; 2]| {
            let [promised, limit] = promise.cells(is_mib);
            let [used, available] = used;
            vec![what.to_owned(), promised, limit, used, available]
        };
        let none = || [String::new(), String::new()];
        let used = |known, unknown, what: &str| match unknown {
            0 => bytes(known),
            unknown => format!("{} and {unknown} {what}", bytes(known)),
        };
        let memory = [
            used(self.memory_used_bytes, self.unmeasured_vm_count, "VMs"),
            bytes(self.memory_available_bytes),
        ];
        let disk = [
            used(self.disk_used_bytes, self.unmeasured_disk_count, "disks"),
            bytes(self.disk_available_bytes),
        ];
        let parallel = Promise {
            promised: self.booting_count.into(),
            limit: Some(self.max_parallel_boots.into()),
        };
        let queue = Promise {
            promised: self.waiting_count.into(),
            limit: Some(self.boot_queue_max.into()),
        };
        vec![
            row("memory", promises.memory_mib, true, memory),
            row("disk", promises.disk_mib, true, disk),
            row("vcpus", promises.vcpus, false, none()),
            row("vms", promises.vms, false, none()),
            row("running vms", promises.running_vms, false, none()),
            row("volumes", promises.volumes, false, none()),
            row("booting", parallel, false, none()),
            row("waiting to boot", queue, false, none()),
        ]
    }
}

impl OwnerUsage {
    fn name(&self) -> String {
        match self.owner.as_str() {
            "" => DAEMON.into(),
            owner => owner.into(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let Promises {
            vms,
            running_vms,
            vcpus,
            memory_mib,
            volumes,
            disk_mib,
        } = &self.promises;
        vec![
            self.name(),
            vms.of_limit(false),
            running_vms.of_limit(false),
            vcpus.of_limit(false),
            memory_mib.of_limit(true),
            volumes.of_limit(false),
            disk_mib.of_limit(true),
        ]
    }
}
