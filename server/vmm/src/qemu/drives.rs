//! What QEMU tells of a VM's drives.

use banger_core::vmm::{DriveMetrics, VmmError};
use serde::Deserialize;

/// More drives than any VM has.
const MAX_DRIVES: usize = 64;

/// An entry of `query-blockstats`; `qdev` is the device's path, which ends in its id.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    qdev: String,
    stats: Counters,
}

#[derive(Deserialize)]
struct Counters {
    rd_bytes: u64,
    wr_bytes: u64,
    rd_operations: u64,
    wr_operations: u64,
}

/// An entry of `query-block`.
#[derive(Deserialize)]
struct Block {
    #[serde(default)]
    qdev: String,
    inserted: Option<Inserted>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Inserted {
    node_name: String,
}

fn parse<T: serde::de::DeserializeOwned>(
    during: &'static str,
    answer: serde_json::Value,
) -> Result<Vec<T>, VmmError> {
    let mut entries: Vec<T> =
        serde_json::from_value(answer).map_err(|error| VmmError::Refused {
            during,
            detail: format!("an answer that is none: {error}"),
        })?;
    entries.truncate(MAX_DRIVES);
    Ok(entries)
}

/// The id that the command line gave a device, which is the drive's serial.
fn serial(qdev: &str) -> &str {
    qdev.trim_end_matches("/virtio-backend")
        .rsplit('/')
        .next()
        .unwrap_or_default()
}

/// Of the answer to `query-blockstats`: what the guest did with each drive, in their order.
pub(super) fn metrics(answer: serde_json::Value) -> Result<Vec<DriveMetrics>, VmmError> {
    let entries = parse::<Statistics>("query-blockstats", answer)?;
    Ok(entries
        .into_iter()
        .map(|entry| DriveMetrics {
            serial: serial(&entry.qdev).to_owned(),
            read_bytes: entry.stats.rd_bytes,
            written_bytes: entry.stats.wr_bytes,
            read_operations: entry.stats.rd_operations,
            write_operations: entry.stats.wr_operations,
        })
        .collect())
}

/// Of the answer to `query-block`: the node beneath the drive with this serial.
pub(super) fn node(answer: serde_json::Value, wanted: &str) -> Result<String, VmmError> {
    let entries = parse::<Block>("query-block", answer)?;
    let found = entries
        .into_iter()
        .find(|entry| serial(&entry.qdev) == wanted);
    let node = found
        .and_then(|entry| entry.inserted)
        .map(|inserted| inserted.node_name);
    node.ok_or_else(|| VmmError::Refused {
        during: "query-block",
        detail: format!("no drive `{wanted}`"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn drives_are_found_by_their_serial() {
        let answer = json!([{
            "device": "", "qdev": "/machine/peripheral/upper/virtio-backend",
            "inserted": { "node-name": "disk1", "ro": false },
        }]);
        assert_eq!(node(answer.clone(), "upper").unwrap(), "disk1");
        let refused = node(answer, "base").unwrap_err().to_string();
        assert_eq!(refused, "the VMM refused query-block (no drive `base`)");
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        assert!(metrics(json!({ "base": 1 })).is_err());
        assert!(metrics(json!([{ "qdev": "x", "stats": { "rd_bytes": -1 } }])).is_err());
    }
}
