//! Removing volumes: the record goes first, then the files. Files that do not go are told, and tried again until they do;
//! until then the volume counts as promised, since it takes the host's disk. The next daemon sweeps what no record has.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use banger_core::volume::Volume;
use banger_core::{Failure, VolumeId, chain};
use banger_store::DeleteOutcome;
use tokio::sync::{Notify, watch};

use super::attach::{Access, Holder};
use super::error::VolumeError;
use super::{Volumes, wanted};
use crate::error::AppError;
use crate::paths::{self, Swept};
use crate::pauses::Pauses;

/// The volumes whose files are being removed.
#[derive(Debug, Clone, Default)]
pub(super) struct Removals(Arc<Mutex<HashMap<VolumeId, Removal>>>);

/// The removal of a volume's files.
#[derive(Debug, Clone)]
pub(super) struct Removal {
    volume: Arc<Volume>,
    state: watch::Receiver<State>,
    /// Ends the pause.
    hurry: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    is_gone: bool,
    /// What was in the way the last time.
    hindrance: Option<Box<Failure>>,
}

impl Removals {
    fn lock(&self) -> MutexGuard<'_, HashMap<VolumeId, Removal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, found: impl Fn(&Volume) -> bool) -> Option<Removal> {
        let removals = self.lock();
        let removal = removals.values().find(|removal| found(&removal.volume));
        removal.cloned()
    }
}

impl Removal {
    /// # Errors
    /// If it is not gone within `limit`: what is in the way, as far as is known.
    pub(super) async fn gone(mut self, limit: Duration) -> Result<(), AppError> {
        let gone = self.state.wait_for(|state| state.is_gone);
        if let Ok(gone) = tokio::time::timeout(limit, gone).await {
            // Its task ends without a word only with the daemon.
            return gone.map(drop).map_err(|_| AppError::Interrupted);
        }
        let source = self.state.borrow().hindrance.clone();
        let volume = self.volume.name.clone();
        Err(VolumeError::NotRemoved {
            volume,
            limit,
            source,
        }
        .into())
    }
}

impl Volumes {
    /// Removes a volume with what is in it.
    ///
    /// # Errors
    /// If it does not exist, or a VM names it, or it is being copied. If its files cannot be removed in time: they go
    /// when they can, and whoever asks again waits again.
    pub async fn delete(&self, named: &str) -> Result<(), AppError> {
        let limit = self.context.config.remove_timeout;
        let volume = match self.find(named).await {
            Ok(volume) => volume,
            Err(missing @ AppError::NotFound { .. }) => {
                let is_meant = |volume: &Volume| {
                    let is_named = volume.name.as_str() == named || volume.id.to_string() == named;
                    is_named && self.scope.sees(&volume.owner)
                };
                let removal = self.removals.find(is_meant).ok_or(missing)?;
                removal.hurry.notify_one();
                return removal.gone(limit).await;
            }
            Err(error) => return Err(error),
        };
        let users = self.context.store.volume_users(volume.id).await?;
        let in_use = |users| AppError::InUse {
            resource: "volume",
            name: volume.name.to_string(),
            users,
        };
        if !users.is_empty() {
            return Err(in_use(users.into_iter().map(|user| user.name).collect()));
        }
        let wanted = wanted(&volume, Access::Change);
        let held = self.attachments.take(Holder::Request, &[wanted])?;
        match self.context.store.delete_volume(volume.id).await? {
            DeleteOutcome::Deleted => {}
            DeleteOutcome::UsedBy(users) => return Err(in_use(users)),
            DeleteOutcome::Missing => {
                return Err(AppError::NotFound {
                    resource: "volume",
                    name: volume.name.to_string(),
                });
            }
        }
        let held = (held, self.admission.take_down_volume(volume.id));
        let files = vec![self.context.paths.volume(volume.id)];
        let removal = self.remove_files(volume, files, std::future::ready(()), held);
        removal.gone(limit).await
    }

    /// Removes what a volume without a record has on the disk once `before` is done, and lets `held` go then.
    pub(super) fn remove_files(
        &self,
        volume: Volume,
        files: Vec<PathBuf>,
        before: impl Future<Output = ()> + Send + 'static,
        held: impl Send + 'static,
    ) -> Removal {
        let id = volume.id;
        let (told, state) = watch::channel(State::default());
        let removal = Removal {
            volume: Arc::new(volume),
            state,
            hurry: Arc::default(),
        };
        self.removals.lock().insert(id, removal.clone());
        let (removals, hurry) = (self.removals.clone(), removal.hurry.clone());
        let shutdown = self.context.shutdown.clone();
        let removing = async move {
            before.await;
            let mut pauses = Pauses::default();
            while let Err(error) = remove_all(&files).await {
                tracing::error!(volume = %id, error = chain(&error), "could not remove a volume's files; trying again");
                let failure = Box::new(error.to_failure());
                told.send_modify(|state| state.hindrance = Some(failure));
                tokio::select! {
                    biased; // the next daemon goes on
                    // cancel-safe: `cancelled` holds no state
                    () = shutdown.cancelled() => return,
                    // cancel-safe: whoever hurries is heard at the next pause
                    () = hurry.notified() => pauses = Pauses::default(),
                    // cancel-safe: waits for an instant
                    () = tokio::time::sleep(pauses.next()) => {}
                }
            }
            drop(held);
            removals.lock().remove(&id);
            told.send_modify(|state| state.is_gone = true);
        };
        self.context.tasks.spawn(removing);
        removal
    }

    /// Removes the directories of volumes that no record has. What cannot be removed is tried again, behind the caller.
    pub(crate) async fn sweep(&self) -> Result<Swept, AppError> {
        let swept = self.sweep_once().await?;
        if swept.left > 0 {
            let (this, shutdown) = (self.clone(), self.context.shutdown.clone());
            let again = async move {
                let mut pauses = Pauses::default();
                loop {
                    tokio::time::sleep(pauses.next()).await;
                    if this.sweep_once().await.is_ok_and(|swept| swept.left == 0) {
                        return;
                    }
                }
            };
            self.context.tasks.spawn(async move {
                // A sweep that is dropped half-way is done by the next daemon.
                shutdown.run_until_cancelled(again).await;
            });
        }
        Ok(swept)
    }

    async fn sweep_once(&self) -> Result<Swept, AppError> {
        let is_known = |name: &str| name.parse().is_ok_and(|id| self.counts(id));
        paths::sweep(&self.context.paths.volumes(), is_known).await
    }
}

async fn remove_all(files: &[PathBuf]) -> Result<(), AppError> {
    for path in files.iter().cloned() {
        let removed = paths::remove_tree(path.clone()).await;
        removed.map_err(|source| AppError::RemoveDirectory { path, source })?;
    }
    Ok(())
}
