//! What VMs and volumes were promised, what they take, and who has how much of it.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use crate::error::AppError;
use crate::vm::{Account, VmView};
use crate::{App, Context, host, look};

/// How long a VMM has to tell what it takes: one that is stuck must not keep the others' answers back.
const METRICS_LIMIT: Duration = Duration::from_secs(1);

/// What is promised and what is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUsage {
    /// What is promised, of what may be.
    pub account: Account,
    /// Memory that is resident in all VMMs together.
    pub memory_used_bytes: u64,
    /// Memory of the host that is free or can be freed.
    pub memory_available_bytes: u64,
    /// What the VMs' writable disks and the volumes take, as far as they could be looked at.
    pub disk_used_bytes: u64,
    /// Free space in the state directory's file system.
    pub disk_available_bytes: u64,
    /// VMs whose VMM did not tell what it takes.
    pub unmeasured_vm_count: usize,
    /// Disks of VMs and volumes that could not be looked at, as where the host's does not answer.
    pub unmeasured_disk_count: usize,
}

impl App {
    /// What is promised and taken now.
    ///
    /// # Errors
    /// If the host does not tell what it has.
    pub async fn usage(&self) -> Result<HostUsage, AppError> {
        let views = self.vms.views();
        let deadline = look::deadline();
        let of_vms = views
            .iter()
            .map(|view| allocated(&self.context, view, deadline));
        let (memory, of_vms, of_volumes) = tokio::join!(
            join_all(views.iter().map(resident)),
            join_all(of_vms),
            self.volumes.allocated(deadline)
        );
        let disks = [of_vms, of_volumes?].concat();
        Ok(HostUsage {
            account: self.vms.account()?,
            memory_used_bytes: memory.iter().flatten().sum(),
            memory_available_bytes: host::memory()?.available,
            disk_used_bytes: disks.iter().flatten().sum(),
            disk_available_bytes: host::disk(self.context.paths.state_dir())?.available,
            unmeasured_vm_count: unknown(&memory),
            unmeasured_disk_count: unknown(&disks),
        })
    }
}

/// What a VM's VMM has in memory: nothing where there is none, `None` where it does not tell.
async fn resident(view: &VmView) -> Option<u64> {
    let Some(machine) = &view.machine else {
        return Some(0);
    };
    let metrics = tokio::time::timeout(METRICS_LIMIT, machine.metrics()).await;
    Some(metrics.ok()?.ok()?.rss_bytes)
}

async fn allocated(context: &Context, view: &VmView, deadline: Instant) -> Option<u64> {
    let (disk, turn) = (context.paths.upper_disk(view.vm.id), view.disk_look.clone());
    context.looks.allocated(disk, turn, deadline).await.ok()
}

fn unknown(measured: &[Option<u64>]) -> usize {
    measured.iter().filter(|bytes| bytes.is_none()).count()
}
