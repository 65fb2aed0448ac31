//! Volumes: disks that outlive VMs.
//!
//! ```text
//!   tmp/volume-<id>/ ── made, flushed ──▶ volumes/<id>/ ── recorded ──▶ a volume
//! ```
//! A crash before the record leaves files that nothing owns, which are swept; one in the middle of a removal does too.
//! What the host's disk has to do is done on threads of their own, and waited for so long and no longer.

pub(crate) mod attach;
mod change;
mod create;
mod error;
pub(crate) mod files;
mod lock;
pub(crate) mod mount;
mod remove;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use banger_core::volume::{Volume, VolumeUser};
use banger_core::{Name, Scope, VolumeId};
use banger_store::Page;
use futures::future::{join_all, try_join_all};
use tokio::time::Instant;

pub use attach::Access;
use attach::{Attachments, Wanted};
pub use create::VolumeRequest;
pub use error::{DiskWork, VolumeError};
use lock::Locks;
pub use mount::MountRequest;
use remove::Removals;

use crate::Context;
use crate::error::AppError;
use crate::look;
use crate::operation::Operations;
use crate::page::{self, Paged};
use crate::vm::admission::Admission;

/// The volumes of this host.
#[derive(Clone)]
pub struct Volumes {
    context: Arc<Context>,
    operations: Arc<Operations>,
    admission: Admission,
    attachments: Attachments,
    /// Names of volumes that are being made.
    reserved: Arc<Mutex<HashSet<Name>>>,
    /// Held by whoever changes a volume, so that its changes follow each other.
    changing: Locks,
    /// Held by whoever looks at a volume's disk.
    looks: Locks,
    /// Those whose files are being removed.
    removals: Removals,
    /// Whose are found.
    scope: Scope,
}

impl std::fmt::Debug for Volumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volumes").finish_non_exhaustive()
    }
}

/// A volume as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeView {
    /// The record.
    pub volume: Volume,
    /// What it takes of the host's disk; absent where that could not be looked at.
    pub allocated_bytes: Option<u64>,
    /// The VMs that name it, and whether they have it now.
    pub users: Vec<(VolumeUser, bool)>,
}

impl Volumes {
    pub(crate) fn new(
        context: &Arc<Context>,
        operations: &Arc<Operations>,
        admission: &Admission,
    ) -> Self {
        Self {
            context: context.clone(),
            operations: operations.clone(),
            admission: admission.clone(),
            attachments: Attachments::default(),
            reserved: Arc::default(),
            changing: Locks::default(),
            looks: Locks::default(),
            removals: Removals::default(),
            scope: Scope::Everybody,
        }
    }

    /// The same volumes, of which those that `scope` does not see do not exist.
    pub(crate) fn seen_by(&self, scope: &Scope) -> Self {
        Self {
            scope: scope.clone(),
            ..self.clone()
        }
    }

    /// The record of a volume, by id or name.
    async fn find(&self, named: &str) -> Result<Volume, AppError> {
        let found = match (named.parse::<VolumeId>(), named.parse::<Name>()) {
            (Ok(id), _) => self.context.store.get_volume(id).await?,
            (Err(_), Ok(name)) => self.context.store.find_volume(&name).await?,
            (Err(_), Err(_)) => None,
        };
        let found = found.filter(|volume| self.scope.sees(&volume.owner));
        found.ok_or_else(|| AppError::NotFound {
            resource: "volume",
            name: named.chars().take(128).collect(),
        })
    }

    /// A volume as it is now, by id or name.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn get(&self, named: &str) -> Result<VolumeView, AppError> {
        let volume = self.find(named).await?;
        self.view(volume, look::deadline()).await
    }

    /// A page of the volumes that have all `labels`, newest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(
        &self,
        limit: u32,
        before: Option<String>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Paged<VolumeView>, AppError> {
        let page = Page {
            limit: limit + 1,
            before,
        };
        let found = self
            .context
            .store
            .list_volumes(page, self.scope.only(), labels)
            .await?;
        let Paged { items, has_more } = page::cut(found, limit as usize);
        let deadline = look::deadline();
        let views = items.into_iter().map(|volume| self.view(volume, deadline));
        Ok(Paged {
            items: try_join_all(views).await?,
            has_more,
        })
    }

    async fn view(&self, volume: Volume, deadline: Instant) -> Result<VolumeView, AppError> {
        let users = self.context.store.volume_users(volume.id).await?;
        let attached = |user: VolumeUser| {
            let is_attached = self.attachments.has(user.vm, volume.id);
            (user, is_attached)
        };
        Ok(VolumeView {
            users: users.into_iter().map(attached).collect(),
            allocated_bytes: self.look(volume.id, deadline).await,
            volume,
        })
    }

    /// Counts the volumes that there are. Before any can be asked for.
    pub(crate) async fn restore(&self) -> Result<(), AppError> {
        for volume in self.context.store.all_volumes().await? {
            self.admission.restore_volume(&volume);
        }
        Ok(())
    }

    /// Whether a volume is there, or is being made.
    pub(crate) fn counts(&self, volume: VolumeId) -> bool {
        self.admission.counts_volume(volume)
    }

    /// What the disk of each volume takes of the host's; absent where that could not be looked at until `deadline`.
    pub(crate) async fn allocated(&self, deadline: Instant) -> Result<Vec<Option<u64>>, AppError> {
        let volumes = self.context.store.all_volumes().await?;
        let looks = volumes.iter().map(|volume| self.look(volume.id, deadline));
        Ok(join_all(looks).await)
    }

    async fn look(&self, volume: VolumeId, deadline: Instant) -> Option<u64> {
        let disk = self.context.paths.volume_disk(volume);
        let look = self
            .context
            .looks
            .allocated(disk, self.looks.of(volume), deadline);
        match look.await {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::debug!(%volume, %error, "a volume's disk cannot be looked at");
                None
            }
        }
    }
}

fn wanted(volume: &Volume, access: Access) -> Wanted {
    Wanted {
        volume: volume.id,
        name: volume.name.clone(),
        access,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, AppError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| AppError::Interrupted)??)
}
