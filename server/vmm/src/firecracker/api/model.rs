//! The documents of Firecracker's API, as far as they are used. Firecracker refuses fields that it does not know.

use serde::{Deserialize, Serialize};

use super::super::command;

/// `PUT /machine-config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct MachineConfig {
    /// At most 32.
    pub(crate) vcpu_count: u32,
    pub(crate) mem_size_mib: u64,
}

/// `PUT /boot-source`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootSource {
    pub(crate) kernel_image_path: String,
    pub(crate) initrd_path: Option<String>,
    pub(crate) boot_args: Option<String>,
}

/// `PUT /drives/{drive_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Drive {
    pub(crate) drive_id: String,
    pub(crate) path_on_host: String,
    pub(crate) is_root_device: bool,
    pub(crate) is_read_only: bool,
    /// `Unsafe`: the guest is not offered flushes, and what it writes is in the host's page cache.
    pub(crate) cache_type: &'static str,
    /// `Sync`: the other one adds a tenth of a second to each start.
    pub(crate) io_engine: &'static str,
}

/// `PATCH /drives/{drive_id}`: opens the file again, and tells the guest its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DrivePath {
    pub(crate) drive_id: String,
    pub(crate) path_on_host: String,
}

/// `PUT /vsock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Vsock {
    pub(crate) guest_cid: u32,
    pub(crate) uds_path: &'static str,
}

/// `PUT /balloon`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Balloon {
    pub(crate) amount_mib: u64,
    pub(crate) deflate_on_oom: bool,
    /// The guest tells which pages it has freed, and the host takes them back.
    pub(crate) free_page_reporting: bool,
}

/// `PUT /entropy`: a random number generator without a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Entropy {}

/// `PUT /metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Metrics {
    pub(crate) metrics_path: &'static str,
}

/// `PUT /actions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "action_type")]
pub(crate) enum Action {
    /// Runs the guest's first instruction.
    InstanceStart,
    /// Presses three keys, which is the nearest thing to a power button.
    SendCtrlAltDel,
    /// Writes a line of metrics.
    FlushMetrics,
}

/// `PATCH /vm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "state")]
pub(crate) enum VmChange {
    /// No virtual processor runs.
    Paused,
    /// They run on.
    Resumed,
}

/// `GET /`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct InstanceInfo {
    pub(crate) state: String,
}

/// What [`InstanceInfo::state`] says of a guest that never ran.
pub(crate) const NOT_STARTED: &str = "Not started";

/// `GET /vm/config`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct VmConfig {
    pub(crate) boot_source: BootSource,
    #[serde(default)]
    pub(crate) drives: Vec<DrivePath>,
}

impl VmConfig {
    /// The disks' names in their order, as the guest was told them.
    pub(crate) fn names(&self) -> Vec<&str> {
        let line = self.boot_source.boot_args.as_deref();
        command::drive_names(line.unwrap_or_default())
    }

    /// The disk that the guest knows by this name.
    pub(crate) fn drive(&self, name: &str) -> Option<&DrivePath> {
        let index = self.names().iter().position(|known| *known == name)?;
        let id = command::drive_id(index);
        self.drives.iter().find(|drive| drive.drive_id == id)
    }
}

/// Why a call was refused: by the VMM, or by the HTTP layer before it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Fault {
    #[serde(alias = "fault_message", alias = "error")]
    pub(crate) text: String,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, to_value};

    use super::*;

    #[test]
    fn documents_are_written_as_firecracker_reads_them() {
        let table: [(Value, Value); 4] = [
            (
                to_value(Action::SendCtrlAltDel).unwrap(),
                json!({ "action_type": "SendCtrlAltDel" }),
            ),
            (
                to_value(VmChange::Paused).unwrap(),
                json!({ "state": "Paused" }),
            ),
            (to_value(Entropy {}).unwrap(), json!({})),
            (
                to_value(Vsock {
                    guest_cid: 3,
                    uds_path: "v.sock",
                })
                .unwrap(),
                json!({ "guest_cid": 3, "uds_path": "v.sock" }),
            ),
        ];
        for (ours, theirs) in table {
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn a_configuration_is_read_whatever_else_it_holds() {
        let text = json!({
            "balloon": null,
            "boot-source": { "kernel_image_path": "k", "initrd_path": null, "boot_args": "a banger.drives=base b" },
            "drives": [{ "drive_id": "drive0", "path_on_host": "/x", "is_read_only": true, "socket": null }],
            "machine-config": { "vcpu_count": 1 },
        });
        let config: VmConfig = serde_json::from_value(text).unwrap();
        assert_eq!(config.names(), ["base"]);
        assert_eq!(config.drive("base").unwrap().path_on_host, "/x");
        assert_eq!(config.drive("upper"), None);
    }
}
