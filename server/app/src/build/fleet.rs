//! The VMs and threads of one build, all of which are gone when it ends, however it ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use banger_core::guest::Guest;
use banger_core::image::Image;
use banger_core::vm::Phase;
use banger_core::vmm::NetworkPlan;
use banger_core::{OperationId, VmId};
use tokio_util::task::TaskTracker;

use crate::error::AppError;
use crate::operation::Operations;
use crate::vm::{BUILD_LABEL, VmRequest, Vms};

/// How the VMs of a build are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildMachine {
    /// Of each VM; 0 means the default.
    pub vcpu_count: u32,
    /// Of each VM; 0 means the default.
    pub memory_mib: u64,
    /// Space for what the build adds; 0 means the default.
    pub disk_mib: u64,
    /// The network of steps; absent means the configured one.
    pub network: Option<NetworkPlan>,
    /// A kernel's name or id; empty means the base image's, or the host's default.
    pub kernel: String,
}

/// The VMs of one build.
pub(super) struct Fleet {
    vms: Arc<Vms>,
    operations: Arc<Operations>,
    machine: BuildMachine,
    build: OperationId,
    /// The names of all that were asked for, made or not.
    names: Mutex<Vec<String>>,
    /// Disks that no VM may have taken yet.
    disks: Mutex<Vec<PathBuf>>,
    /// What must not be dropped half-way.
    pub(super) tasks: TaskTracker,
}

/// A VM that steps run in.
pub(super) struct BuildVm {
    pub(super) id: VmId,
    pub(super) guest: Arc<dyn Guest>,
    /// The configuration of its image, which its sessions start from.
    pub(super) image_working_dir: String,
    name: String,
}

impl Fleet {
    pub(super) fn new(
        vms: &Arc<Vms>,
        operations: &Arc<Operations>,
        machine: BuildMachine,
        build: OperationId,
    ) -> Self {
        Self {
            vms: vms.clone(),
            operations: operations.clone(),
            machine,
            build,
            names: Mutex::default(),
            disks: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// A path for a disk in `tmp`, of which nothing is left when the build ends.
    pub(super) fn disk(&self, tmp: &Path) -> PathBuf {
        let disk = tmp.join(format!("step-{}.ext4", OperationId::new()));
        self.disks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(disk.clone());
        disk
    }

    /// What of the machine decides what a step makes.
    pub(super) fn key(&self) -> String {
        format!("{} {:?}", self.machine.disk_mib, self.machine.network)
    }

    /// Boots a VM of `image`, with a writable disk that is moved there, or an empty one.
    pub(super) async fn boot(
        &self,
        image: &Image,
        disk: Option<PathBuf>,
    ) -> Result<BuildVm, AppError> {
        let hex = VmId::new().to_string().replace('-', "");
        let name = format!("build-{}", &hex[hex.len() - 12..]);
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(name.clone());
        let request = VmRequest {
            name: name.clone(),
            labels: BTreeMap::from([(BUILD_LABEL.to_owned(), self.build.to_string())]),
            image: image.id.to_string(),
            kernel: self.machine.kernel.clone(),
            vcpu_count: self.machine.vcpu_count,
            memory_mib: self.machine.memory_mib,
            disk_mib: self.machine.disk_mib,
            network: self.machine.network,
            ephemeral: true,
            ..VmRequest::default()
        };
        let vms = self.vms.clone();
        // A request that was begun is brought to its end, so that there is something to delete.
        let creating = self
            .tasks
            .spawn(async move { vms.create_for_build(&request, disk).await });
        let operation = creating.await.map_err(|_| AppError::Interrupted)??;
        self.operations.wait(operation).await?;
        let mut view = self.vms.watch(&name)?;
        let ready = view
            .wait_for(|view| view.guest.is_some() || view.vm.state.phase() != Phase::Running)
            .await
            .map_err(|_| AppError::Interrupted)?
            .clone();
        let guest = ready.guest.ok_or(AppError::Interrupted)?;
        Ok(BuildVm {
            id: ready.vm.id,
            guest,
            image_working_dir: image.config.working_dir.clone(),
            name,
        })
    }

    /// Throws a VM away.
    pub(super) async fn end(&self, vm: BuildVm) -> Result<(), AppError> {
        self.vms.delete(&vm.name).await
    }

    /// Throws away all that is left.
    pub(super) async fn disband(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        let names = std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner));
        for name in names {
            match self.vms.delete(&name).await {
                Ok(()) | Err(AppError::NotFound { .. }) => {}
                // The label tells the next start of the daemon to remove it.
                Err(error) => tracing::error!(
                    vm = name,
                    error = banger_core::chain(&error),
                    "could not remove the VM of a build"
                ),
            }
        }
        let disks = std::mem::take(&mut *self.disks.lock().unwrap_or_else(PoisonError::into_inner));
        for disk in disks {
            // A VM that took it has moved it away; what stays is swept at the next start.
            let _ = tokio::fs::remove_file(disk).await;
        }
    }
}
