//! What Firecracker counts of its guest's disks: lines of JSON in a pipe, each with what was added since the
//! line before.
//!
//! Firecracker writes a line when it is asked to, and once a minute by itself. The pipe holds a few lines while
//! no daemon reads; what does not fit is lost, so totals are those since the VMM was launched or adopted.

use std::collections::BTreeMap;
use std::path::Path;

use banger_core::vmm::DriveMetrics;
use futures::StreamExt;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio_util::codec::{FramedRead, LinesCodec};

/// The pipe's name.
pub(super) const PIPE: &str = "metrics.fifo";

/// Longer than any line: some 12 KiB, and half a KiB for each disk.
const MAX_LINE: usize = 256 * 1024;

/// Before a disk's id in the name of its counters.
const DRIVE_PREFIX: &str = "block_";

/// What a disk did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DriveIo {
    pub(super) read_bytes: u64,
    pub(super) write_bytes: u64,
    pub(super) read_operations: u64,
    pub(super) write_operations: u64,
}

impl DriveIo {
    /// As the port tells it, of the disk with this name.
    pub(super) fn of(self, serial: &str) -> DriveMetrics {
        DriveMetrics {
            serial: serial.to_owned(),
            read_bytes: self.read_bytes,
            written_bytes: self.write_bytes,
            read_operations: self.read_operations,
            write_operations: self.write_operations,
        }
    }
}

/// Everything that was counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Totals {
    /// How many lines were read.
    pub(super) lines: u64,
    /// By the disks' ids.
    pub(super) drives: BTreeMap<String, DriveIo>,
}

/// The totals, growing.
#[derive(Debug, Default)]
pub(super) struct Counters(watch::Sender<Totals>);

impl Counters {
    /// How many lines were read so far.
    pub(super) fn lines(&self) -> u64 {
        self.0.borrow().lines
    }

    /// The totals as soon as a line after the `former` ones was read. Safe to drop.
    pub(super) async fn after(&self, former: u64) -> Totals {
        let mut totals = self.0.subscribe();
        match totals.wait_for(|totals| totals.lines > former).await {
            Ok(totals) => totals.clone(),
            Err(_closed) => unreachable!("the sender lives in `self`"),
        }
    }

    /// Counts what comes through the pipe until it ends, or until a line is too long. Safe to drop.
    pub(super) async fn follow(&self, source: impl AsyncRead + Unpin) {
        let mut lines = FramedRead::new(source, LinesCodec::new_with_max_length(MAX_LINE));
        while let Some(Ok(line)) = lines.next().await {
            self.0.send_modify(|totals| add(totals, &line));
        }
    }
}

/// Opens the pipe for reading.
pub(super) fn open(root: &Path) -> std::io::Result<pipe::Receiver> {
    pipe::OpenOptions::new().open_receiver(root.join(PIPE))
}

/// A line that is no JSON, or holds something else, adds nothing.
fn add(totals: &mut Totals, line: &str) {
    let document: BTreeMap<String, Value> = serde_json::from_str(line).unwrap_or_default();
    totals.lines += 1;
    for (name, counters) in &document {
        // All disks together are `block`, without an id.
        let Some(id) = name.strip_prefix(DRIVE_PREFIX) else {
            continue;
        };
        let count = |key: &str| counters.get(key).and_then(Value::as_u64).unwrap_or(0);
        let drive = totals.drives.entry(id.to_owned()).or_default();
        for (total, key) in [
            (&mut drive.read_bytes, "read_bytes"),
            (&mut drive.write_bytes, "write_bytes"),
            (&mut drive.read_operations, "read_count"),
            (&mut drive.write_operations, "write_count"),
        ] {
            *total = total.saturating_add(count(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn lines_add_up_whatever_is_between_them() {
        let line = |read: u64| {
            json!({
                "block": { "read_bytes": 9999 },
                "block_drive0": { "read_bytes": read, "write_bytes": 1, "read_count": 2, "write_count": 3 },
                "block_drive1": { "read_bytes": "many", "write_count": 1 },
                "uart": 7,
            })
        };
        let text = format!(
            "{}\nno JSON\n{}\n{}\n{}\n",
            line(10),
            line(5),
            "x".repeat(MAX_LINE + 10),
            line(7)
        );
        let counters = Counters::default();
        counters.follow(text.as_bytes()).await;
        let totals = counters.after(0).await;
        assert_eq!((totals.lines, totals.drives.len()), (3, 2));
        let drive0 = DriveIo {
            read_bytes: 15,
            write_bytes: 2,
            read_operations: 4,
            write_operations: 6,
        };
        assert_eq!(totals.drives["drive0"], drive0);
        assert_eq!(totals.drives["drive1"].write_operations, 2);
        assert_eq!(totals.drives["drive1"].read_bytes, 0);
    }

    #[tokio::test]
    async fn whoever_asks_waits_for_a_line_that_came_after() {
        let counters = Counters::default();
        let (reader, mut writer) = tokio::io::duplex(1024);
        let waiting = async {
            let former = counters.lines();
            let (totals, ()) = tokio::join!(counters.after(former), async {
                tokio::io::AsyncWriteExt::write_all(&mut writer, b"{}\n")
                    .await
                    .unwrap();
            });
            assert_eq!(totals.lines, former + 1);
        };
        tokio::select! {
            () = counters.follow(reader) => unreachable!("the pipe stays open"),
            () = waiting => {}
        }
    }
}
