//! The host: what it is, what it can do, and what it has.

use std::path::Path;

use banger_core::vmm::DriverInfo;
use banger_core::{Explain as _, FailureKind};

use crate::error::AppError;
use crate::vm::Capacity;
use crate::{App, Context};

/// With less than this, a disk is full: VMMs write some MiB at once, which fail as a whole.
const FULL_BYTES: u64 = 16 << 20;

/// What a host is and can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    /// What the driver has found out; absent until the first boot.
    pub driver: Option<DriverInfo>,
    /// Processors the daemon may use.
    pub cpu_count: usize,
    /// Memory.
    pub memory_bytes: u64,
    /// Memory that is free or can be freed, now.
    pub memory_available_bytes: u64,
    /// Where everything is kept.
    pub state_dir: std::path::PathBuf,
    /// Free space there, now.
    pub state_dir_available_bytes: u64,
    /// VMs that exist.
    pub vm_count: usize,
    /// VMs that run.
    pub running_vm_count: usize,
    /// Images.
    pub image_count: u64,
    /// The default kernel's name.
    pub default_kernel: Option<String>,
}

impl App {
    /// The host as it is now.
    ///
    /// # Errors
    /// If the store or `/proc/meminfo` cannot be read.
    pub async fn host_info(&self) -> Result<HostInfo, AppError> {
        let (vm_count, running_vm_count) = self.vms.count();
        let state_dir = self.context.paths.state_dir().to_owned();
        let memory = memory()?;
        Ok(HostInfo {
            driver: self.context.driver_info.get().cloned(),
            cpu_count: cpu_count(),
            memory_bytes: memory.total,
            memory_available_bytes: memory.available,
            state_dir_available_bytes: disk(&state_dir)?.available,
            state_dir,
            vm_count,
            running_vm_count,
            image_count: self.context.store.count_images().await?,
            default_kernel: self
                .kernels
                .default()
                .await?
                .map(|kernel| kernel.name.to_string()),
        })
    }
}

/// Finds out, once, what the driver can do.
pub(crate) async fn probe(
    context: &Context,
    kernel: &Path,
    initramfs: &Path,
) -> Result<(), AppError> {
    if context.driver_info.get().is_some() {
        return Ok(());
    }
    let info = context.vmm.probe(kernel, initramfs).await?;
    if let Some(warning) = &info.accelerator_warning {
        tracing::warn!(accelerator = info.accelerator.as_str(), "{warning}");
    }
    // Whoever came first has the same answer.
    let _ = context.driver_info.set(info);
    Ok(())
}

/// What the host has, and has left now.
pub(crate) fn capacity(context: &Context) -> Result<Capacity, AppError> {
    let memory = memory()?;
    Ok(Capacity {
        cpu_count: u64::try_from(cpu_count()).unwrap_or(u64::MAX),
        memory_mib: memory.total >> 20,
        memory_available_mib: memory.available >> 20,
        disk_mib: disk(context.paths.state_dir())?.total >> 20,
    })
}

/// Processors the daemon may use.
pub(crate) fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Whether the state directory has room at all. Disks are sparse and an image's size is known late, so only
/// the reserve is kept.
pub(crate) fn admit_disk(context: &Context) -> Result<(), AppError> {
    let disk_mib = disk(context.paths.state_dir())?.available >> 20;
    check("disk", 0, disk_mib, context.config.disk_reserve_mib)
}

/// An error of something in a VM, told as what it comes from where the host has no space left: the guest itself sees
/// nothing but I/O errors of its disk.
pub(crate) fn blame_full_disk(context: &Context, error: AppError) -> AppError {
    let may_come_of_it = matches!(
        error.kind(),
        FailureKind::FailedPrecondition { .. }
            | FailureKind::Internal
            | FailureKind::Unavailable { .. }
    );
    let is_full = || disk(context.paths.state_dir()).is_ok_and(|room| room.available < FULL_BYTES);
    match may_come_of_it && is_full() {
        true => AppError::HostDiskFull {
            source: Box::new(error),
        },
        false => error,
    }
}

fn check(
    what: &'static str,
    needed_mib: u64,
    free_mib: u64,
    reserve_mib: u64,
) -> Result<(), AppError> {
    match free_mib.checked_sub(reserve_mib) {
        Some(available_mib) if available_mib >= needed_mib => Ok(()),
        above => Err(AppError::Exhausted {
            what,
            needed_mib,
            available_mib: above.unwrap_or(0),
        }),
    }
}

/// Bytes of something.
pub(crate) struct Room {
    pub(crate) total: u64,
    pub(crate) available: u64,
}

pub(crate) fn memory() -> Result<Room, AppError> {
    let path = Path::new("/proc/meminfo");
    let text = std::fs::read_to_string(path).map_err(|source| AppError::ReadDirectory {
        path: path.to_owned(),
        source,
    })?;
    // proc_meminfo(5): a key, a colon, a number, `kB`.
    let field = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib = line.and_then(|line| {
            line.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()
        });
        kib.unwrap_or(0).saturating_mul(1024)
    };
    Ok(Room {
        total: field("MemTotal"),
        available: field("MemAvailable"),
    })
}

/// The file system in which `path` is.
pub(crate) fn disk(path: &Path) -> Result<Room, AppError> {
    let stat = rustix::fs::statvfs(path).map_err(|errno| AppError::ReadDirectory {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Room {
        total: bytes(stat.f_blocks),
        available: bytes(stat.f_bavail),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_above_the_reserve_is_admitted() {
        assert!(check("memory", 100, 400, 300).is_ok());
        let refused = check("memory", 101, 400, 300).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "not enough memory: 101 MiB are needed, 100 MiB are free above the reserve"
        );
        assert!(check("disk", 0, 299, 300).is_err());
    }

    #[test]
    fn this_host_has_memory() {
        let memory = memory().unwrap();
        assert!(memory.total >= memory.available && memory.available > 0);
    }
}
