//! Volumes: disks that outlive VMs.
//!
//! ```text
//!   tmp/volume-<id>/ ── made, flushed ──▶ volumes/<id>/ ── recorded ──▶ a volume
//! ```
//! A crash before the record leaves files that nothing owns, which are swept; one in the middle of a removal does too.

pub(crate) mod attach;
mod error;
pub(crate) mod files;
mod lock;
pub(crate) mod mount;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use banger_core::operation::{OperationKind, Progress as _, StageKey};
use banger_core::volume::{Volume, VolumeChange, VolumeUser};
use banger_core::{Name, OperationId, Owner, Scope, Timestamp, VolumeId, chain, size};
use banger_store::{CasOutcome, DeleteOutcome, Page, RequestKey, StoreError};

pub use attach::Access;
use attach::{Attached, Attachments, Holder, Wanted};
pub use error::VolumeError;
use futures::future::{join_all, try_join_all};
use lock::Locks;
pub use mount::MountRequest;
use tokio::time::Instant;

use crate::Context;
use crate::error::AppError;
use crate::host;
use crate::look;
use crate::operation::{Begun, OperationTask, Operations};
use crate::page::{self, Paged};
use crate::paths::{self, Swept};
use crate::vm::admission::{Admission, Shelf};
use crate::vm::check_labels;

/// The volumes of this host.
#[derive(Clone)]
pub struct Volumes {
    context: Arc<Context>,
    operations: Arc<Operations>,
    admission: Admission,
    attachments: Attachments,
    /// Names of volumes that are being made.
    reserved: Arc<Mutex<HashSet<Name>>>,
    /// Held by whoever changes a volume, so that changes of one daemon follow each other.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// Held by whoever looks at a volume's disk.
    looks: Locks,
    /// Whose are found.
    scope: Scope,
}

impl std::fmt::Debug for Volumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volumes").finish_non_exhaustive()
    }
}

/// What a caller asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeRequest {
    /// A name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// 0 means the seed's, or the default.
    pub size_mib: u64,
    /// A volume whose content it begins with, by id or name; empty for none.
    pub seed: String,
    /// Who asks.
    pub owner: Owner,
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

/// A volume on its way: what is to be made, and what is held meanwhile.
struct Making {
    volume: Volume,
    seed: Option<PathBuf>,
    shelf: Shelf,
    _seed_held: Option<Attached>,
    _name: Reserved,
}

/// A name that nobody else can take.
struct Reserved {
    names: Arc<Mutex<HashSet<Name>>>,
    name: Name,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.remove(&self.name);
    }
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
            changing: Arc::default(),
            looks: Locks::default(),
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

    /// Accepts a volume to be made, and returns the operation that makes it. When it has succeeded, its target is the
    /// volume's id. Whatever fails undoes everything.
    ///
    /// # Errors
    /// If the request is wrong, the name is taken, the seed is written, or the host is full; then nothing was made.
    pub async fn create(
        &self,
        request: &VolumeRequest,
        key: Option<&RequestKey>,
    ) -> Result<OperationId, AppError> {
        // A repeat joins before anything is looked at: its name is taken, by itself.
        let begun = self.operations.begin(
            OperationKind::CreateVolume,
            &request.owner,
            request.name.clone(),
            key,
        );
        let task = match begun.await? {
            Begun::Joined(id) => return Ok(id),
            Begun::New(task) => Arc::new(task),
        };
        let id = task.id();
        match self.plan(request).await {
            Ok(making) => {
                let this = self.clone();
                self.context.tasks.spawn(async move {
                    let made = this.make(making, &task).await;
                    task.end_with(&made, VolumeId::to_string).await;
                });
                Ok(id)
            }
            Err(error) => {
                task.fail(error.to_failure()).await;
                Err(error)
            }
        }
    }

    /// Checks a request, and takes what its work needs.
    async fn plan(&self, request: &VolumeRequest) -> Result<Making, AppError> {
        let name: Name = request.name.parse().map_err(|error| AppError::Invalid {
            field: "name",
            problem: format!("is not a name: {error}"),
        })?;
        check_labels("labels", &request.labels)?;
        let seed = match request.seed.as_str() {
            "" => None,
            named => Some(self.find(named).await?),
        };
        let size_mib = size_mib(request.size_mib, seed.as_ref())?;
        let reserved = self.reserve(&name).await?;
        let volume = Volume {
            id: VolumeId::new(),
            name: name.clone(),
            labels: request.labels.clone(),
            size_mib,
            seed: seed.as_ref().map(|seed| seed.name.clone()),
            owner: request.owner.clone(),
            generation: 1,
            create_time: Timestamp::now(),
        };
        host::admit_disk(&self.context)?;
        let capacity = host::capacity(&self.context)?;
        let shelf = self.admission.create_volume(&volume, &capacity)?;
        let seed_held = match &seed {
            Some(seed) => {
                let wanted = wanted(seed, Access::Read);
                Some(
                    self.attachments
                        .take(Holder::Copy(name.clone()), &[wanted])?,
                )
            }
            None => None,
        };
        Ok(Making {
            seed: seed.map(|seed| self.context.paths.volume_disk(seed.id)),
            volume,
            shelf,
            _seed_held: seed_held,
            _name: reserved,
        })
    }

    /// Takes a name.
    async fn reserve(&self, name: &Name) -> Result<Reserved, AppError> {
        let taken = || AppError::NameTaken {
            resource: "volume",
            name: name.clone(),
        };
        {
            let mut names = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
            if !names.insert(name.clone()) {
                return Err(taken());
            }
        }
        let reserved = Reserved {
            names: self.reserved.clone(),
            name: name.clone(),
        };
        match self.context.store.find_volume(name).await? {
            Some(_) => Err(taken()),
            None => Ok(reserved),
        }
    }

    async fn make(&self, making: Making, task: &Arc<OperationTask>) -> Result<VolumeId, AppError> {
        let id = making.volume.id;
        let staging = self.context.paths.tmp().join(format!("volume-{id}"));
        let made = self.make_in(&making, &staging, task).await;
        match made {
            Ok(()) => making.shelf.keep(),
            Err(_) => {
                // What stays is swept at the next start.
                for dir in [staging, self.context.paths.volume(id)] {
                    let _ = paths::remove_tree(dir).await;
                }
            }
        }
        made.map(|()| id)
    }

    async fn make_in(
        &self,
        making: &Making,
        staging: &std::path::Path,
        task: &Arc<OperationTask>,
    ) -> Result<(), AppError> {
        let key = StageKey::new(if making.seed.is_some() {
            "copy"
        } else {
            "disk"
        });
        task.start(&key, making.seed.as_deref().map(files::allocated_bytes));
        let work = {
            let (context, task, key) = (self.context.clone(), task.clone(), key.clone());
            let (staging, seed) = (staging.to_owned(), making.seed.clone());
            let bytes = making.volume.size_mib << 20;
            let to = self.context.paths.volume(making.volume.id);
            move || {
                let mut refused = None;
                let mut copied = |more| {
                    task.advance(&key, more);
                    refused = go_on(&context, &task).err();
                    refused
                        .as_ref()
                        .map_or(Ok(()), |_| Err(io::Error::other("refused")))
                };
                let made = files::make(&staging, bytes, seed.as_deref(), &mut copied);
                match refused {
                    Some(error) => Err(error),
                    None => Ok(made.and_then(|()| files::publish(&staging, &to))?),
                }
            }
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| AppError::Interrupted)??;
        task.finish(&key);
        if task.cancelled().is_cancelled() {
            return Err(given_up());
        }
        match self.context.store.insert_volume(&making.volume).await {
            Err(StoreError::NameTaken { name, .. }) => Err(AppError::NameTaken {
                resource: "volume",
                name,
            }),
            other => Ok(other?),
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

    /// Changes a volume.
    ///
    /// # Errors
    /// If a value is wrong, it would shrink, somebody has it while it is to grow, or it was changed since its caller
    /// looked.
    pub async fn update(&self, named: &str, change: VolumeChange) -> Result<VolumeView, AppError> {
        let _turn = self.changing.lock().await;
        let before = self.find(named).await?;
        let after = changed(&before, change)?;
        let _held = match after.size_mib > before.size_mib {
            true => {
                host::admit_disk(&self.context)?;
                let wanted = wanted(&before, Access::Change);
                let held = self.attachments.take(Holder::Request, &[wanted])?;
                let capacity = host::capacity(&self.context)?;
                self.admission.resize_volume(&after, &capacity)?;
                Some(held)
            }
            false => None,
        };
        if let Err(error) = self.record(&after).await {
            self.admission.restore_volume(&before);
            return Err(error);
        }
        // Where a crash comes between, whoever attaches it next makes it as large as it is to be.
        if let Err(error) = self.extend(&after).await {
            let back = Volume {
                generation: after.generation + 1,
                ..before
            };
            self.record(&back).await?;
            self.admission.restore_volume(&back);
            return Err(error);
        }
        self.view(after, look::deadline()).await
    }

    async fn record(&self, volume: &Volume) -> Result<(), AppError> {
        match self.context.store.update_volume(volume).await? {
            CasOutcome::Updated => Ok(()),
            CasOutcome::Stale | CasOutcome::Missing => Err(VolumeError::Changed {
                volume: volume.name.clone(),
            }
            .into()),
        }
    }

    async fn extend(&self, volume: &Volume) -> Result<(), AppError> {
        let (disk, bytes) = (
            self.context.paths.volume_disk(volume.id),
            volume.size_mib << 20,
        );
        blocking(move || files::extend(&disk, bytes)).await
    }

    /// Removes a volume with what is in it.
    ///
    /// # Errors
    /// If it does not exist, or a VM names it, or it is being copied.
    pub async fn delete(&self, named: &str) -> Result<(), AppError> {
        let volume = self.find(named).await?;
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
        let _held = self.attachments.take(Holder::Request, &[wanted])?;
        match self.context.store.delete_volume(volume.id).await? {
            DeleteOutcome::Deleted => self.admission.forget_volume(volume.id),
            DeleteOutcome::UsedBy(users) => return Err(in_use(users)),
            DeleteOutcome::Missing => {
                return Err(AppError::NotFound {
                    resource: "volume",
                    name: volume.name.to_string(),
                });
            }
        }
        if let Err(error) = paths::remove_tree(self.context.paths.volume(volume.id)).await {
            tracing::error!(volume = %volume.id, error = chain(&error), "could not remove a volume's files; they are swept at the next start");
        }
        Ok(())
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

    /// Removes the directories of volumes that no record has.
    pub(crate) async fn sweep(&self) -> Result<Swept, AppError> {
        let volumes = self.context.store.all_volumes().await?;
        let known: HashSet<VolumeId> = volumes.iter().map(|volume| volume.id).collect();
        let is_known = |name: &str| name.parse().is_ok_and(|id| known.contains(&id));
        paths::sweep(&self.context.paths.volumes(), is_known).await
    }
}

/// Whether a copy goes on: nobody gave it up, and the host has room.
fn go_on(context: &Context, task: &OperationTask) -> Result<(), AppError> {
    match task.cancelled().is_cancelled() {
        true => Err(given_up()),
        false => host::admit_disk(context),
    }
}

fn given_up() -> AppError {
    AppError::GivenUp {
        why: "the daemon stops, or a caller cancelled it",
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

/// The size of a volume: what was asked for, or the seed's, or the default.
fn size_mib(asked: u64, seed: Option<&Volume>) -> Result<u64, AppError> {
    let default = seed.map_or(size::DEFAULT_DISK_MIB, |seed| seed.size_mib);
    let mib = if asked == 0 { default } else { asked };
    let least = seed.map_or(*size::DISK_MIB.start(), |seed| seed.size_mib);
    let range = least..=*size::DISK_MIB.end();
    match range.contains(&mib) {
        true => Ok(mib),
        false => Err(AppError::Invalid {
            field: "size_mib",
            problem: format!(
                "is {mib}, and must be from {} to {}",
                range.start(),
                range.end()
            ),
        }),
    }
}

/// A volume's record after `change`.
fn changed(volume: &Volume, change: VolumeChange) -> Result<Volume, AppError> {
    if change
        .generation
        .is_some_and(|generation| generation != volume.generation)
    {
        return Err(VolumeError::Changed {
            volume: volume.name.clone(),
        }
        .into());
    }
    if let Some(labels) = &change.labels {
        check_labels("labels", labels)?;
    }
    let size_mib = match change.size_mib {
        // As for its clone: not less than it has.
        Some(mib) => size_mib(mib.max(1), Some(volume))?,
        None => volume.size_mib,
    };
    Ok(Volume {
        labels: change.labels.unwrap_or_else(|| volume.labels.clone()),
        size_mib,
        generation: volume.generation + 1,
        ..volume.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(size_mib: u64) -> Volume {
        Volume {
            id: VolumeId::new(),
            name: "data".parse().unwrap(),
            labels: BTreeMap::new(),
            size_mib,
            seed: None,
            owner: Owner::daemon(),
            generation: 3,
            create_time: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_size_is_what_was_asked_for_or_the_seeds_or_the_default() {
        assert_eq!(size_mib(0, None).unwrap(), 8192);
        assert_eq!(size_mib(64, None).unwrap(), 64);
        assert_eq!(size_mib(0, Some(&volume(100))).unwrap(), 100);
        assert_eq!(size_mib(200, Some(&volume(100))).unwrap(), 200);
        let refused = size_mib(99, Some(&volume(100))).unwrap_err().to_string();
        assert_eq!(refused, "size_mib is 99, and must be from 100 to 4194304");
        assert!(size_mib(63, None).is_err() && size_mib(4_194_305, None).is_err());
    }

    #[test]
    fn a_volume_only_grows_and_only_as_it_was_seen() {
        let change = |size_mib, generation| VolumeChange {
            size_mib,
            generation,
            labels: None,
        };
        let grown = changed(&volume(100), change(Some(200), Some(3))).unwrap();
        assert_eq!((grown.size_mib, grown.generation), (200, 4));
        for small in [0, 99] {
            assert!(changed(&volume(100), change(Some(small), None)).is_err());
        }
        let refused = changed(&volume(100), change(None, Some(2)))
            .unwrap_err()
            .to_string();
        assert_eq!(refused, "volume `data` was changed since its etag was read");
    }
}
