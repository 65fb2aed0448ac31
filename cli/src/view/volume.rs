//! Volumes.

use std::collections::BTreeMap;

use banger_sdk::types;
use jiff::Timestamp;
use serde::Serialize;

use super::{age, bytes, pairs, timestamp};
use crate::output::Row;

/// A volume.
#[derive(Debug, Serialize)]
pub(crate) struct Volume {
    id: String,
    name: String,
    size_mib: i64,
    /// Absent where the daemon could not look.
    allocated_bytes: Option<i64>,
    seed: String,
    users: Vec<User>,
    labels: BTreeMap<String, String>,
    owner: String,
    etag: String,
    create_time: Option<Timestamp>,
}

/// A VM that names a volume.
#[derive(Debug, Serialize)]
struct User {
    vm: String,
    vm_id: String,
    read_only: bool,
    is_attached: bool,
}

impl User {
    fn text(&self) -> String {
        let access = if self.read_only { "reads" } else { "writes" };
        match self.is_attached {
            true => format!("{} {access} it", self.vm),
            false => format!("{} {access} it when it runs", self.vm),
        }
    }
}

impl From<types::Volume> for Volume {
    fn from(volume: types::Volume) -> Self {
        let user = |user: types::VolumeUser| User {
            vm: user.vm,
            vm_id: user.vm_id,
            read_only: user.read_only,
            is_attached: user.is_attached,
        };
        Self {
            id: volume.id,
            name: volume.name,
            size_mib: volume.size_mib,
            allocated_bytes: Some(volume.allocated_bytes).filter(|&bytes| bytes > 0),
            seed: volume.seed,
            users: volume.users.into_iter().map(user).collect(),
            labels: volume.labels,
            owner: volume.owner,
            etag: volume.etag,
            create_time: timestamp(volume.create_time),
        }
    }
}

impl Volume {
    fn takes(&self) -> String {
        self.allocated_bytes
            .map_or_else(|| "unknown".to_owned(), bytes)
    }
}

impl Row for Volume {
    const HEADINGS: &'static [&'static str] = &["NAME", "SIZE", "TAKES", "VMS", "CREATED", "ID"];

    fn cells(&self) -> Vec<String> {
        let vms: Vec<&str> = self.users.iter().map(|user| user.vm.as_str()).collect();
        vec![
            self.name.clone(),
            bytes(self.size_mib.saturating_mul(1 << 20)),
            self.takes(),
            vms.join(","),
            age(self.create_time),
            self.id.clone(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let users: Vec<String> = self.users.iter().map(User::text).collect();
        vec![
            ("Name", self.name.clone()),
            ("Id", self.id.clone()),
            ("Size", bytes(self.size_mib.saturating_mul(1 << 20))),
            ("Takes", self.takes()),
            ("Seed", self.seed.clone()),
            ("VMs", users.join("\n")),
            ("Labels", pairs(&self.labels)),
            ("Owner", self.owner.clone()),
            ("Created", age(self.create_time)),
        ]
    }
}
