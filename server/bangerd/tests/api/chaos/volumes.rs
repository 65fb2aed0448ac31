//! What must be so of volumes after each point.

use std::collections::BTreeSet;
use std::process::Command;

use banger_proto::v1;
use banger_proto::v1::vm::State;
use banger_proto::v1::volume_service_client::VolumeServiceClient;

use super::act::{Act, request};
use super::{Campaign, Daemon};
use crate::rig::PATIENCE;

impl Daemon {
    pub(super) async fn volumes(&self) -> Vec<v1::Volume> {
        let mut volumes = VolumeServiceClient::new(self.channel.clone());
        let listed = volumes
            .list_volumes(v1::ListVolumesRequest::default())
            .await;
        listed.unwrap().into_inner().volumes
    }
}

impl Campaign {
    /// Whether each volume has its files and no file is nobody's, and it is had by just those VMs of its users that
    /// have a machine: by one that writes, or by any number that read.
    pub(super) fn judge_volumes(
        &self,
        volumes: &[v1::Volume],
        vms: &[v1::Vm],
    ) -> Result<(), String> {
        let ids: BTreeSet<String> = volumes.iter().map(|volume| volume.id.clone()).collect();
        let found = self.entries("volumes");
        if found != ids {
            return Err(format!("the volumes are {ids:?}, their files {found:?}"));
        }
        for volume in volumes {
            let has_machine = |user: &v1::VolumeUser| {
                vms.iter()
                    .any(|vm| vm.id == user.vm_id && is_alive(vm.state()))
            };
            if let Some(user) = volume
                .users
                .iter()
                .find(|user| user.is_attached != has_machine(user))
            {
                return Err(format!("{user:?} of {volume:?}: {vms:?}"));
            }
            let attached = || volume.users.iter().filter(|user| user.is_attached);
            if attached().any(|user| !user.read_only) && attached().count() > 1 {
                return Err(format!("{volume:?} is written and had by others too"));
            }
            let disk = self.disk_of("volumes", &volume.id, "disk.ext4");
            let is_short = disk < u64::try_from(volume.size_mib).unwrap() << 20;
            if is_short && attached().next().is_some() {
                return Err(format!(
                    "{volume:?} is in use and has only {disk} bytes of disk"
                ));
            }
        }
        let is_grown = |vm: &&v1::Vm| {
            vm.state() == State::Running && !vm.pending_fields.iter().any(|it| it == "disk_mib")
        };
        for vm in vms.iter().filter(is_grown) {
            let disk = self.disk_of("vms", &vm.id, "upper.ext4");
            let wanted = u64::try_from(vm.spec.as_ref().unwrap().disk_mib).unwrap() << 20;
            if disk != wanted {
                return Err(format!("{vm:?} has {disk} bytes of disk, not {wanted}"));
            }
        }
        Ok(())
    }

    fn disk_of(&self, of: &str, id: &str, name: &str) -> u64 {
        let disk = self.config.state_dir.join(of).join(id).join(name);
        std::fs::metadata(disk).map_or(0, |disk| disk.len())
    }

    /// Every volume is a sound file system, whatever was done to it, and can be removed when no VM names it.
    pub(super) async fn clear_volumes(&self, daemon: &Daemon, context: &str) {
        for volume in daemon.volumes().await {
            let dir = self.config.state_dir.join("volumes").join(&volume.id);
            let checked = Command::new("/usr/sbin/e2fsck")
                .arg("-fn")
                .arg(dir.join("disk.ext4"))
                .output();
            // It comes with what `make setup` installs; the images' tests say if it is missing.
            if let Ok(checked) = checked {
                let said = String::from_utf8_lossy(&checked.stdout).into_owned();
                assert!(checked.status.success(), "{context}: {volume:?}: {said}");
            }
            let removed = request(daemon.channel.clone(), Act::DeleteVolume, volume.id);
            let removed = tokio::time::timeout(PATIENCE, removed).await;
            removed.expect(context).expect(context);
        }
        assert!(self.entries("volumes").is_empty(), "{context}");
    }
}

pub(super) const fn is_alive(state: State) -> bool {
    matches!(state, State::Running | State::Paused)
}
