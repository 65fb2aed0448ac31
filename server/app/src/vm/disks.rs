//! The disks of a VM that boots: its volumes are attached, its own disk is made, or made as large as it is to be.
//!
//! A disk of the host that hangs holds the thread that waits for it, and nobody else: who gives the boot up leaves it
//! behind. What it makes at last, when its VM is gone, is removed then.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use banger_core::VmId;
use banger_core::vm::{Vm, VmState};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::grow;
use crate::Context;
use crate::error::AppError;
use crate::host;
use crate::image::Images;
use crate::paths;
use crate::volume::Volumes;
use crate::volume::attach::Attached;

/// How long the host's disk may take to end what is under way, once nobody wants it any more.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(2);

/// Held while one VM's disks are made: of two, the later would undo what the earlier did.
pub(super) type Turn = Arc<Mutex<()>>;

/// A VM's writable disk before a boot.
pub(super) enum Upper {
    /// It is new, and as large as it is to be.
    New,
    /// It was there, and had this size.
    Kept { mib: u64 },
}

/// What disks are made with.
pub(super) struct Disks {
    pub(super) context: Arc<Context>,
    pub(super) images: Arc<Images>,
    pub(super) volumes: Volumes,
    /// Becomes the VM's writable disk.
    pub(super) moved: Option<Arc<Path>>,
    pub(super) turn: Turn,
}

type Made = Result<(Attached, Upper), AppError>;

impl Disks {
    /// Makes them. Once `given_up`, it ends within [`GIVEN_UP_WITHIN`].
    ///
    /// # Errors
    /// Why they could not be made.
    pub(super) async fn make(self, vm: &Vm, given_up: &CancellationToken) -> Made {
        let (context, id) = (self.context.clone(), vm.id);
        let (vm, cancel) = (vm.clone(), given_up.clone());
        let mut making = context.tasks.spawn(async move {
            let _turn = self.turn.clone().lock_owned().await;
            if cancel.is_cancelled() {
                return Err(overtaken());
            }
            let attached = self.volumes.attach(&vm).await?;
            Ok((attached, self.upper(&vm).await?))
        });
        tokio::select! {
            biased; // what is made is not left behind
            // cancel-safe: the task goes on, and is waited for below
            made = &mut making => return made.unwrap_or(Err(AppError::Interrupted)),
            // cancel-safe: waits for an instant, and a level
            () = late(given_up) => {}
        }
        tracing::error!(vm = %id, "the host's disk hangs: the making of a VM's disk is left behind");
        context.tasks.spawn(clear(context.clone(), id, making));
        Err(overtaken())
    }

    /// Makes the VM's own disk, or makes it as large as it is to be.
    async fn upper(&self, vm: &Vm) -> Result<Upper, AppError> {
        host::admit_disk(&self.context)?;
        let dir = self.context.paths.vm(vm.id);
        tokio::fs::create_dir_all(&dir)
            .await
            .map_err(|source| AppError::MakeDirectory { path: dir, source })?;
        let upper = self.context.paths.upper_disk(vm.id);
        let bytes = vm.spec.disk_mib << 20;
        if let Ok(there) = tokio::fs::metadata(&upper).await {
            grow::extend(upper, bytes).await?;
            let mib = there.len() >> 20;
            return Ok(Upper::Kept { mib });
        }
        if let Some(disk) = &self.moved {
            let moved = tokio::fs::rename(disk, &upper).await;
            moved.map_err(|source| AppError::MakeDirectory {
                path: upper,
                source,
            })?;
        } else {
            self.images.create_upper(upper, bytes).await?;
        }
        Ok(Upper::New)
    }
}

/// Waits until work was given up, and should have ended since.
pub(super) async fn late(given_up: &CancellationToken) {
    given_up.cancelled().await;
    tokio::time::sleep(GIVEN_UP_WITHIN).await;
}

/// What work tells that was given up.
pub(super) fn overtaken() -> AppError {
    AppError::GivenUp {
        why: "another request took over",
    }
}

/// What a thread that was left behind has made: nobody's, if its VM went meanwhile.
async fn clear(context: Arc<Context>, vm: VmId, making: JoinHandle<Made>) {
    drop(making.await);
    let is_going = match context.store.get_vm(vm).await {
        Ok(found) => found.is_none_or(|found| found.state == VmState::Deleting),
        Err(_) => false,
    };
    if !is_going {
        return;
    }
    if let Err(error) = paths::remove_tree(context.paths.vm(vm)).await {
        tracing::error!(%vm, %error, "could not remove what was made too late; the next start of the daemon does");
    }
}
