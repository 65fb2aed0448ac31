//! Volumes of VMs: from what a caller names to disks that a VMM opens.

use std::collections::HashSet;

use banger_core::vm::Vm;
use banger_core::vmm::{Drive, DriveAccess};
use banger_core::volume::{self, VOLUMES_PER_VM_MAX, VolumeMount};
use banger_core::{chain, guest::GuestVolume};

use super::attach::{Attached, Holder, Wanted};
use super::error::VolumeError;
use super::{Volumes, blocking, files};
use crate::error::AppError;

/// The field that names volumes in a request.
const FIELD: &str = "spec.volumes";

/// A volume that a VM is to have, as its caller names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountRequest {
    /// By id or name.
    pub volume: String,
    /// Where it is mounted.
    pub path: String,
    /// Whether the VM can only read it.
    pub read_only: bool,
}

impl Volumes {
    /// Finds the volumes of a VM that is to be made, and whether it could have them now.
    pub(crate) async fn resolve(
        &self,
        requests: &[MountRequest],
    ) -> Result<Vec<VolumeMount>, AppError> {
        check(requests)?;
        let mut mounts: Vec<VolumeMount> = Vec::with_capacity(requests.len());
        for request in requests {
            let found = self.find(&request.volume).await?;
            if mounts.iter().any(|mount| mount.volume == found.id) {
                let problem = format!("names volume `{}` twice", found.name);
                return Err(invalid(problem));
            }
            mounts.push(VolumeMount {
                volume: found.id,
                name: found.name,
                path: request.path.clone(),
                read_only: request.read_only,
            });
        }
        self.attachments.check(&wanted(&mounts))?;
        Ok(mounts)
    }

    /// Takes the volumes of a VM that is about to be launched, and makes their disks what their records say.
    pub(crate) async fn attach(&self, vm: &Vm) -> Result<Attached, AppError> {
        let mounts = &vm.spec.volumes;
        let attached = self.attachments.take(holder(vm), &wanted(mounts))?;
        for mount in mounts {
            let found = self.context.store.get_volume(mount.volume).await?;
            let found = found.ok_or_else(|| AppError::NotFound {
                resource: "volume",
                name: mount.name.to_string(),
            })?;
            self.extend(&found).await?;
            let disk = self.context.paths.volume_disk(mount.volume);
            if mount.read_only && blocking(move || files::needs_recovery(&disk)).await? {
                let volume = mount.name.clone();
                return Err(VolumeError::NotClean { volume }.into());
            }
        }
        Ok(attached)
    }

    /// The volumes of a VM whose VMM was found alive.
    pub(crate) fn attach_again(&self, vm: &Vm) -> Attached {
        self.attachments
            .resume(holder(vm), &wanted(&vm.spec.volumes))
    }

    /// The disks of a VM's volumes, in their order.
    pub(crate) fn drives(&self, mounts: &[VolumeMount]) -> Vec<Drive> {
        let drive = |(index, mount): (usize, &VolumeMount)| Drive {
            path: self.context.paths.volume_disk(mount.volume),
            access: match mount.read_only {
                true => DriveAccess::ReadOnly,
                false => DriveAccess::ReadWrite,
            },
            serial: volume::serial(index),
        };
        mounts.iter().enumerate().map(drive).collect()
    }

    /// Puts what a VM wrote to its volumes onto the host's disk: while it ran, the VMM left that to the page cache.
    pub(crate) async fn flush(&self, mounts: &[VolumeMount]) {
        for mount in mounts.iter().filter(|mount| !mount.read_only) {
            let disk = self.context.paths.volume_disk(mount.volume);
            if let Err(error) = blocking(move || files::sync(&disk)).await {
                tracing::error!(volume = %mount.volume, error = chain(&error), "could not flush a volume; a crash of the host may lose what was written");
            }
        }
    }
}

/// What a guest is told of its volumes.
pub(crate) fn guest_volumes(mounts: &[VolumeMount]) -> Vec<GuestVolume> {
    let told = |(index, mount): (usize, &VolumeMount)| GuestVolume {
        serial: volume::serial(index),
        path: mount.path.clone(),
        read_only: mount.read_only,
    };
    mounts.iter().enumerate().map(told).collect()
}

fn holder(vm: &Vm) -> Holder {
    Holder::Vm(vm.id, vm.spec.name.clone())
}

fn wanted(mounts: &[VolumeMount]) -> Vec<Wanted> {
    mounts.iter().map(Wanted::from).collect()
}

fn invalid(problem: String) -> AppError {
    AppError::Invalid {
        field: FIELD,
        problem,
    }
}

/// Checks what can be checked without looking for the volumes.
fn check(requests: &[MountRequest]) -> Result<(), AppError> {
    if requests.len() > VOLUMES_PER_VM_MAX {
        let count = requests.len();
        return Err(invalid(format!(
            "has {count} entries, and may have {VOLUMES_PER_VM_MAX}"
        )));
    }
    let mut paths = HashSet::new();
    for MountRequest { path, .. } in requests {
        if let Err(problem) = volume::check_path(path) {
            let shown: String = path.chars().take(128).collect();
            return Err(invalid(format!("has the path {shown:?}, which {problem}")));
        }
        if !paths.insert(path) {
            return Err(invalid(format!("has `{path}` twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str) -> MountRequest {
        MountRequest {
            volume: "data".into(),
            path: path.into(),
            read_only: false,
        }
    }

    #[test]
    fn wrong_mounts_are_refused_by_what_is_wrong() {
        let refused = |requests: &[MountRequest]| check(requests).unwrap_err().to_string();
        assert_eq!(
            refused(&[request("/a"), request("/a")]),
            "spec.volumes has `/a` twice"
        );
        assert_eq!(
            refused(&[request("a")]),
            "spec.volumes has the path \"a\", which is not absolute"
        );
        let many: Vec<_> = (0..17)
            .map(|number| request(&format!("/{number}")))
            .collect();
        assert_eq!(
            refused(&many),
            "spec.volumes has 17 entries, and may have 16"
        );
        assert!(check(&many[..16]).is_ok());
    }
}
