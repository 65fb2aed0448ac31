//! Making volumes: an operation, whose work on the host's disk is on a thread of its own. Where the disk hangs, or a
//! caller gives the operation up, that thread is left behind, and what it makes at last is removed.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use banger_core::operation::{OperationKind, Progress as _, StageKey};
use banger_core::volume::Volume;
use banger_core::{Name, OperationId, Owner, Timestamp, VolumeId};
use banger_store::{RequestKey, StoreError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::attach::{Access, Attached, Holder};
use super::change::size_mib;
use super::error::{DiskWork, VolumeError};
use super::{Volumes, files, wanted};
use crate::error::AppError;
use crate::operation::{Begun, OperationTask};
use crate::vm::admission::Shelf;
use crate::vm::check_labels;
use crate::{Context, host, look};

/// How long the host's disk may take to end what is under way, once nobody wants it any more.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(2);
/// A disk that copies less in a second does not answer.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;

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

/// A volume on its way: what is to be made, and what is held meanwhile.
struct Making {
    volume: Volume,
    seed: Option<VolumeId>,
    shelf: Shelf,
    seed_held: Option<Attached>,
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

type Made = Result<(), AppError>;

impl Volumes {
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
            seed: seed.map(|seed| seed.id),
            volume,
            shelf,
            seed_held,
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
        let (made, left_behind) = self.make_in(&making, task).await;
        match made {
            Ok(()) => making.shelf.keep(),
            Err(_) => self.undo(making, left_behind).await,
        }
        made.map(|()| id)
    }

    /// Makes the files and the record. Beside the outcome is the work on the disk, where that goes on.
    async fn make_in(
        &self,
        making: &Making,
        task: &Arc<OperationTask>,
    ) -> (Made, Option<JoinHandle<Made>>) {
        let key = StageKey::new(if making.seed.is_some() {
            "copy"
        } else {
            "disk"
        });
        let copied_bytes = match making.seed {
            Some(seed) => self.look(seed, look::deadline()).await,
            None => Some(0),
        };
        task.start(&key, copied_bytes.filter(|_| making.seed.is_some()));
        let limit = self.limit(copied_bytes.unwrap_or(making.volume.size_mib << 20));
        let unwanted = task.cancelled().child_token();
        let mut work = self.begin_files(making, task, &key, &unwanted);
        let made = tokio::select! {
            biased; // what is made is not left behind
            // cancel-safe: the thread goes on, and is waited for by whoever removes what it makes
            made = &mut work => made.unwrap_or(Err(AppError::Interrupted)),
            // cancel-safe: waits for a level, and an instant
            () = given_up_for_long(task.cancelled()) => {
                return (Err(given_up()), Some(work));
            }
            // cancel-safe: waits for an instant
            () = tokio::time::sleep(limit) => {
                unwanted.cancel();
                let (volume, work_is) = (making.volume.name.clone(), DiskWork::Make);
                let silent = VolumeError::Silent { volume, work: work_is, limit };
                return (Err(silent.into()), Some(work));
            }
        };
        if made.is_ok() {
            task.finish(&key);
        }
        let made = match made {
            Ok(()) if task.cancelled().is_cancelled() => Err(given_up()),
            Ok(()) => self.insert(&making.volume).await,
            failed => failed,
        };
        (made, None)
    }

    /// How long the host's disk may take to copy so much.
    fn limit(&self, bytes: u64) -> Duration {
        self.context.config.volume_timeout + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND)
    }

    fn begin_files(
        &self,
        making: &Making,
        task: &Arc<OperationTask>,
        key: &StageKey,
        unwanted: &CancellationToken,
    ) -> JoinHandle<Made> {
        let (context, task, key) = (self.context.clone(), task.clone(), key.clone());
        let [staging, to] = self.places(making.volume.id);
        let seed = making.seed.map(|seed| self.context.paths.volume_disk(seed));
        let (bytes, unwanted) = (making.volume.size_mib << 20, unwanted.clone());
        tokio::task::spawn_blocking(move || {
            let mut refused = None;
            let mut copied = |more| {
                task.advance(&key, more);
                refused = go_on(&context, &unwanted).err();
                refused
                    .as_ref()
                    .map_or(Ok(()), |_| Err(io::Error::other("refused")))
            };
            let made = files::make(&staging, bytes, seed.as_deref(), &mut copied);
            if let Some(error) = refused {
                return Err(error);
            }
            made?;
            if unwanted.is_cancelled() {
                return Err(given_up());
            }
            Ok(files::publish(&staging, &to)?)
        })
    }

    async fn insert(&self, volume: &Volume) -> Made {
        match self.context.store.insert_volume(volume).await {
            Err(StoreError::NameTaken { name, .. }) => Err(AppError::NameTaken {
                resource: "volume",
                name,
            }),
            other => Ok(other?),
        }
    }

    /// Where a volume's files are made, and where they are then.
    fn places(&self, volume: VolumeId) -> [PathBuf; 2] {
        let staging = format!("volume-{volume}");
        let paths = &self.context.paths;
        [paths.tmp().join(staging), paths.volume(volume)]
    }

    /// Removes what was made, or is still being made by work that was left behind. The name is free at once.
    async fn undo(&self, making: Making, left_behind: Option<JoinHandle<Made>>) {
        let id = making.volume.id;
        let files = self.places(id).to_vec();
        let hangs = left_behind.is_some();
        let before = async move {
            if let Some(work) = left_behind {
                drop(work.await);
            }
        };
        let held = (making.shelf, making.seed_held);
        let removal = self.remove_files(making.volume, files, before, held);
        if hangs {
            tracing::error!(volume = %id, "the host's disk hangs: the making of a volume is left behind");
            return;
        }
        // Why it was not made is told; what is left is removed behind whoever asked.
        drop(removal.gone(self.context.config.remove_timeout).await);
    }
}

async fn given_up_for_long(given_up: &CancellationToken) {
    given_up.cancelled().await;
    tokio::time::sleep(GIVEN_UP_WITHIN).await;
}

/// Whether a copy goes on: somebody wants it, and the host has room.
fn go_on(context: &Context, unwanted: &CancellationToken) -> Result<(), AppError> {
    match unwanted.is_cancelled() {
        true => Err(given_up()),
        false => host::admit_disk(context),
    }
}

fn given_up() -> AppError {
    AppError::GivenUp {
        why: "the daemon stops, or a caller cancelled it",
    }
}
