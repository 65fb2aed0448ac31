//! Growing the disk of a VM: its file, what the guest sees of it, and the file system on it.

use std::path::PathBuf;

use banger_core::VmId;
use banger_core::guest::Guest;
use banger_core::vmm::{Machine, VmmError};
use banger_image::Ext4Error;
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::disk;
use crate::error::AppError;

/// The serial number of a VM's own writable disk.
pub(super) const UPPER: &str = "upper";

/// Grows the disk of a VM that runs, which does not stop meanwhile. Each step may be repeated, and is: by the next
/// try, or at the next start.
pub(super) async fn grow(
    context: &Context,
    vm: VmId,
    machine: &dyn Machine,
    guest: &dyn Guest,
    mib: u64,
    hurry: &CancellationToken,
) -> Result<(), AppError> {
    let bytes = mib << 20;
    let steps = async {
        extend(context.paths.upper_disk(vm), bytes).await?;
        machine.grow_drive(UPPER, bytes).await?;
        Ok(guest.grow_disk(UPPER, bytes).await?)
    };
    tokio::select! {
        biased; // a VM that is gone or to go is not waited for
        // cancel-safe: `wait` loses nothing when dropped
        _exit = machine.wait() => Err(VmmError::Gone.into()),
        // cancel-safe: `cancelled` holds no state
        () = hurry.cancelled() => Err(AppError::GivenUp { why: "another request took over" }),
        // steps that are given up half-way are repeated
        done = steps => done,
    }
}

/// Makes a VM's disk as large as it is to be.
pub(super) async fn extend(upper: PathBuf, bytes: u64) -> Result<(), AppError> {
    let extended = tokio::task::spawn_blocking(move || disk::extend(&upper, bytes)).await;
    let extended = extended.map_err(|_| AppError::Interrupted)?;
    extended.map_err(|source| AppError::MakeDisk {
        source: Ext4Error::Write(source),
    })
}
