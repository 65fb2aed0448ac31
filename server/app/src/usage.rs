//! What VMs and volumes were promised, what they take, and who has how much of it.

use std::time::Duration;

use futures::future::join_all;

use crate::error::AppError;
use crate::vm::{Account, VmView};
use crate::{App, Context, host};

/// How long a VMM has to tell what it takes: one that is stuck must not keep the others' answers back.
const METRICS_LIMIT: Duration = Duration::from_secs(1);
/// The unit in which the kernel counts a file's blocks, whatever the file system's own. See stat(2).
const BLOCK_BYTES: u64 = 512;

/// What is promised and what is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUsage {
    /// What is promised, of what may be.
    pub account: Account,
    /// Memory that is resident in all VMMs together.
    pub memory_used_bytes: u64,
    /// Memory of the host that is free or can be freed.
    pub memory_available_bytes: u64,
    /// What the VMs' writable disks and the volumes take.
    pub disk_used_bytes: u64,
    /// Free space in the state directory's file system.
    pub disk_available_bytes: u64,
    /// VMs whose VMM did not tell what it takes.
    pub unmeasured_vm_count: usize,
}

impl App {
    /// What is promised and taken now.
    ///
    /// # Errors
    /// If the host does not tell what it has.
    pub async fn usage(&self) -> Result<HostUsage, AppError> {
        let views = self.vms.views();
        let memory = join_all(views.iter().map(resident)).await;
        let disks = join_all(views.iter().map(|view| allocated(&self.context, view))).await;
        Ok(HostUsage {
            account: self.vms.account()?,
            memory_used_bytes: memory.iter().flatten().sum(),
            memory_available_bytes: host::memory()?.available,
            disk_used_bytes: disks.iter().sum::<u64>() + self.volumes.allocated_bytes().await?,
            disk_available_bytes: host::disk(self.context.paths.state_dir())?.available,
            unmeasured_vm_count: memory.iter().filter(|bytes| bytes.is_none()).count(),
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

async fn allocated(context: &Context, view: &VmView) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let disk = tokio::fs::metadata(context.paths.upper_disk(view.vm.id)).await;
    // It is not made yet, or gone by now.
    disk.map_or(0, |disk| disk.blocks().saturating_mul(BLOCK_BYTES))
}
