//! Volumes: whether each has its disk, and the disk is what it should be.

use std::path::PathBuf;

use banger_core::chain;
use banger_core::doctor::Finding;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Ward;
use super::check::Check;
use crate::volume::files::{self, Damage};

/// The most names in one text.
const NAMES_MAX: usize = 5;

pub(super) const CHECKS: [Check; 1] = [Check::daemon(
    "VOLUMES_WHOLE",
    "Every volume has its disk, with a file system on it",
    volumes,
)];

fn volumes(ward: &Ward) -> BoxFuture<'_, Finding> {
    async move {
        let volumes = match ward.context.store.all_volumes().await {
            Ok(volumes) => volumes,
            Err(error) => return Finding::problem("the records cannot be read", chain(&error)),
        };
        let disks: Vec<(String, PathBuf)> = volumes
            .into_iter()
            .map(|volume| {
                let disk = ward.context.paths.volume_disk(volume.id);
                (volume.name.to_string(), disk)
            })
            .collect();
        let judged = ward.on_thread(move |_| judge(&disks)).await;
        judged
            .unwrap_or_else(|| Finding::problem("the check itself broke", "See the daemon's log."))
    }
    .boxed()
}

fn judge(disks: &[(String, PathBuf)]) -> Finding {
    let mut lost = Vec::new();
    let mut damaged = Vec::new();
    for (name, disk) in disks {
        match files::damage(disk) {
            None => {}
            Some(Damage::Missing) => lost.push(name.clone()),
            Some(damage) => damaged.push(format!("{name} ({damage})")),
        }
    }
    let shown = |names: &[String]| {
        let mut shown: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
        if names.len() > NAMES_MAX {
            shown.push("…");
        }
        shown.join(", ")
    };
    if let Some(first) = lost.first() {
        return Finding::problem(
            format!("the disks of {} volumes are gone: {}", lost.len(), shown(&lost)),
            "Somebody removed them; what was in them is lost, and no VM that names one starts.",
        )
        .remedy("Put a backup in its place (volumes/ID/disk.ext4 in the state directory), or remove the volume.")
        .command(format!("banger volume remove {first}"));
    }
    if !damaged.is_empty() {
        return Finding::problem(
            format!("{} volumes are damaged: {}", damaged.len(), shown(&damaged)),
            "A VM that names one does not start, or loses what it writes.",
        )
        .remedy(
            "Stop the VMs that have it and check its file system, or put a backup in its place.",
        )
        .command(
            "e2fsck -f STATE_DIR/volumes/ID/disk.ext4   # banger volume inspect NAME tells the ID",
        );
    }
    Finding::ok(format!("{} volumes", disks.len()))
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::*;

    #[test]
    fn what_is_lost_goes_before_what_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let disk = |name: &str| (name.to_owned(), dir.path().join(name));
        assert_eq!(judge(&[]), Finding::ok("0 volumes"));
        banger_image::create_upper(&dir.path().join("whole"), 64 << 20).unwrap();
        assert_eq!(judge(&[disk("whole")]).verdict, Verdict::Ok);
        std::fs::write(dir.path().join("text"), vec![b'x'; 4096]).unwrap();
        let damaged = judge(&[disk("whole"), disk("text")]);
        assert_eq!(
            damaged.found,
            "1 volumes are damaged: text (there is no file system on it)"
        );
        let lost = judge(&[disk("text"), disk("gone"), disk("whole")]);
        assert_eq!(lost.found, "the disks of 1 volumes are gone: gone");
        assert_eq!(lost.command, "banger volume remove gone");
    }
}
