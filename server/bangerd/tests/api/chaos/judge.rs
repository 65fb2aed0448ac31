//! What must be so after each point.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use banger_proto::v1;
use banger_proto::v1::host_service_client::HostServiceClient;
use banger_proto::v1::vm::State;

use super::act::is_of_use;
use super::volumes::is_alive;
use super::{Campaign, Daemon};
use crate::rig::PATIENCE;

/// How often VMs are looked at before they count as never at rest.
const LOOKS: usize = 20;

/// What tells whether a VM has changed. A failure's details are a map, which has no order.
fn seen(vms: &[v1::Vm]) -> Vec<(String, String, State)> {
    vms.iter()
        .map(|vm| (vm.id.clone(), vm.etag.clone(), vm.state()))
        .collect()
}

/// What keeps a VM from going is looked at again after a pause that grows up to a minute; its owner ends the pause.
async fn hurry(daemon: &Daemon) {
    let vms = daemon.all().await;
    let is_kept = |vm: &v1::Vm| vm.state() == State::Deleting && vm.failure.is_some();
    for vm in vms.into_iter().filter(is_kept) {
        let request = v1::DeleteVmRequest {
            vm: vm.id,
            request_id: String::new(),
        };
        let deleted = tokio::time::timeout(PATIENCE, daemon.vms().delete_vm(request)).await;
        drop(deleted); // what became of it is judged
    }
}

impl Campaign {
    /// Every VM has come to rest; what lives on the host is what the VMs say; no file is anybody's.
    pub(super) async fn check(&self, daemon: &Daemon, context: &str) {
        for _ in 0..LOOKS {
            let vms = self.at_rest(daemon, context).await;
            let volumes = daemon.volumes().await;
            let judged = match self.judge_volumes(&volumes, &vms) {
                Ok(()) => judge(daemon, &vms, &volumes).await,
                wrong => wrong,
            };
            let Err(why) = judged else {
                return;
            };
            // A VM that was to die soon may have died while it was looked at: then the look is repeated.
            let moved = async {
                while seen(&daemon.all().await) == seen(&vms) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            let moved = tokio::time::timeout(PATIENCE, moved).await;
            assert!(moved.is_ok(), "{context}: {why}");
        }
        panic!("{context}: the VMs do not stand still");
    }

    /// While something stays wrong: the daemon answers; a VM that is FAILED says why, and one that cannot go may.
    pub(super) async fn check_meanwhile(&self, daemon: &Daemon, context: &str) {
        let listed = tokio::time::timeout(PATIENCE, daemon.all()).await;
        for vm in listed.expect(context) {
            let is_told = match vm.state() {
                State::Failed => vm.failure.is_some(),
                State::Deleting => true,
                _ => vm.failure.is_none(),
            };
            assert!(is_told, "{context}: {vm:?}");
        }
    }

    async fn at_rest(&self, daemon: &Daemon, context: &str) -> Vec<v1::Vm> {
        hurry(daemon).await;
        let settled = async {
            loop {
                let vms = daemon.all().await;
                let moving = |vm: &v1::Vm| {
                    !matches!(
                        vm.state(),
                        State::Running | State::Paused | State::Stopped | State::Failed
                    )
                };
                // What was left behind on a disk that hung goes when that goes on.
                if !vms.iter().any(moving)
                    && self.is_consistent(&vms)
                    && self.is_settled(daemon, &vms).await
                    && daemon.running_operations().await.is_empty()
                {
                    return vms;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if let Ok(vms) = tokio::time::timeout(PATIENCE, settled).await {
            return vms;
        }
        let vms = daemon.all().await;
        panic!(
            "{context}: not at rest: {:?}; operations {:?}; on the host {:?}; files {:?} {:?} {:?}; {:?}",
            vms.iter()
                .map(|vm| (&vm.id, vm.state()))
                .collect::<Vec<_>>(),
            daemon.running_operations().await,
            self.host.living(),
            self.entries("vms"),
            self.entries("volumes"),
            self.temporary(),
            judge_promises(daemon, &vms, &daemon.volumes().await).await,
        );
    }

    /// Whether no volume is on its way, or on its way to nothing.
    async fn is_settled(&self, daemon: &Daemon, vms: &[v1::Vm]) -> bool {
        let volumes = daemon.volumes().await;
        let ids: BTreeSet<String> = volumes.iter().map(|volume| volume.id.clone()).collect();
        self.entries("volumes") == ids && judge_promises(daemon, vms, &volumes).await.is_ok()
    }

    fn is_consistent(&self, vms: &[v1::Vm]) -> bool {
        let ids = |wanted: &dyn Fn(&v1::Vm) -> bool| -> BTreeSet<String> {
            let vms = vms.iter().filter(|vm| wanted(vm));
            vms.map(|vm| vm.id.clone()).collect()
        };
        let alive = ids(&|vm| is_alive(vm.state()));
        let living: BTreeSet<_> = self.host.living().iter().map(ToString::to_string).collect();
        alive == living
            && ids(&|_| true).is_superset(&self.entries("vms"))
            && self.temporary().is_empty()
    }

    /// Files of work that is not done.
    fn temporary(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut ahead = vec![self.config.state_dir.join("tmp")];
        while let Some(directory) = ahead.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    ahead.push(path);
                } else {
                    found.push(path);
                }
            }
        }
        found
    }

    /// The names in a directory of the state directory.
    pub(super) fn entries(&self, of: &str) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.config.state_dir.join(of)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

/// Whether VMs at rest are what a rule says, and of use where they run; else what is wrong.
async fn judge(daemon: &Daemon, vms: &[v1::Vm], volumes: &[v1::Volume]) -> Result<(), String> {
    judge_promises(daemon, vms, volumes).await?;
    for vm in vms {
        if vm.failure.is_some() != (vm.state() == State::Failed) {
            return Err(format!("a failure that is none, or none: {vm:?}"));
        }
        if vm.state() == State::Running {
            let used = tokio::time::timeout(PATIENCE, is_of_use(daemon, vm)).await;
            let used = used.map_err(|_| format!("a VM does not answer: {vm:?}"))?;
            used.map_err(|error| format!("a VM is of no use: {error:?}, {vm:?}"))?;
        }
    }
    Ok(())
}

/// Whether what is promised is what VMs and volumes are, neither more nor less, and nobody waits.
pub(super) async fn judge_promises(
    daemon: &Daemon,
    vms: &[v1::Vm],
    volumes: &[v1::Volume],
) -> Result<(), String> {
    let mut host = HostServiceClient::new(daemon.channel.clone());
    let usage = host.get_usage(v1::GetUsageRequest {}).await.unwrap();
    let usage = usage.into_inner().usage.unwrap();
    let promises = usage.promises.unwrap();
    let promised = |promise: Option<v1::Promise>| promise.unwrap().promised;
    let alive = |vm: &&v1::Vm| is_alive(vm.state());
    let count = |vms: usize| i64::try_from(vms).unwrap();
    let disks = vms.iter().map(|vm| vm.spec.as_ref().unwrap().disk_mib);
    let volume_disks = volumes.iter().map(|volume| volume.size_mib);
    let found = [
        promised(promises.vms),
        promised(promises.running_vms),
        promised(promises.volumes),
        promised(promises.disk_mib),
        i64::from(usage.booting_count),
        i64::from(usage.waiting_count),
    ];
    let right = [
        count(vms.len()),
        count(vms.iter().filter(alive).count()),
        count(volumes.len()),
        disks.chain(volume_disks).sum(),
        0,
        0,
    ];
    match found == right {
        true => Ok(()),
        false => Err(format!(
            "promised are {found:?}, not {right:?}: VMs, running VMs, volumes, MiB of disk, booting, waiting"
        )),
    }
}
