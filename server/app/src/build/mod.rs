//! Builds: an image by a recipe.
//!
//! ```text
//! Dockerfile ─▶ recipe ─▶ plan ─▶ stages ─▶ steps in a VM ─▶ changes ─▶ layer ─▶ image
//!                                    ▲          │
//!                                    └── steps kept of earlier builds
//! Debian packages ─▶ mmdebstrap ─▶ root filesystem ─▶ image
//! ```
//! A step runs in a throw-away VM whose disk is kept after it, under a digest of all that went into it. The
//! host never opens that disk: what a build changed is told by the agent, and judged as any guest's word.

mod cache;
mod debian;
mod error;
mod fleet;
mod log;
mod plan;
mod recipe;
mod select;
mod stage;
mod step;
#[cfg(test)]
mod tests;
mod words;

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use banger_core::image::Image;
use banger_core::operation::{OperationKind, Progress};
use banger_core::{Digest, Name, OperationId, Owner, VmId};
use banger_image::{ImageDescription, ImageReference, Login, Logins, NewLayer, Place, TreeArchive};
use banger_store::RequestKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use cache::CacheUsage;
use cache::StepCache;
pub use debian::DebianRequest;
pub use error::BuildError;
pub use fleet::BuildMachine;
pub use log::{BuildLog, LogReader, Origin, Record};
pub use recipe::DockerfileRequest;

use self::fleet::Fleet;
use self::log::Logs;
use self::recipe::Recipe;
use self::select::Files;
use self::stage::Stages;
use crate::Context;
use crate::error::AppError;
use crate::host;
use crate::image::Images;
use crate::operation::{Begun, OperationTask, Operations};
use crate::upload::Uploaded;
use crate::vm::Vms;

/// How much is told of one trigger of a base image.
const TRIGGER_CHARS: usize = 200;

/// How builds may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildConfig {
    /// Builds at once: each has a VM of its own, and they share the host's processors.
    pub parallel_max: usize,
    /// Builds that wait for others to end, or for their context to come.
    pub queue_max: usize,
    /// The longest time for a whole build, from its turn on.
    pub timeout: Duration,
    /// The most space of the steps that are kept, beside those that running builds need.
    pub cache_bytes_max: u64,
}

impl Default for BuildConfig {
    fn default() -> Self {
        Self {
            parallel_max: 4,
            queue_max: 32,
            timeout: Duration::from_secs(2 * 3600),
            cache_bytes_max: 20 << 30,
        }
    }
}

/// A place among the builds; given back when it is dropped.
#[derive(Debug)]
pub struct BuildPlace(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// The builds of this host.
pub struct Builds {
    context: Arc<Context>,
    operations: Arc<Operations>,
    images: Arc<Images>,
    vms: Arc<Vms>,
    cache: StepCache,
    logs: Arc<Logs>,
    /// Builds that go on or wait.
    queue: Arc<Semaphore>,
    /// Those that go on.
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Builds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builds").finish_non_exhaustive()
    }
}

/// What to build.
#[derive(Debug)]
pub struct BuildRequest {
    /// What to call it.
    pub reference: String,
    /// How it is made.
    pub kind: BuildKind,
    /// Runs every step, whatever is kept.
    pub no_cache: bool,
    /// Where steps run.
    pub machine: BuildMachine,
    /// For the pulls of base images alone: neither stored nor shown.
    pub logins: Logins,
    /// A tar of the context.
    pub context: Uploaded,
    /// Its place among the builds.
    pub place: BuildPlace,
}

/// How an image is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildKind {
    /// By a Dockerfile.
    Dockerfile(DockerfileRequest),
    /// From packages.
    Debian(DebianRequest),
}

impl BuildKind {
    /// Finds the mistakes that need nothing but the recipe.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), AppError> {
        match self {
            Self::Dockerfile(request) => Recipe::parse(request).map(drop)?,
            Self::Debian(request) => request.check()?,
        }
        Ok(())
    }
}

impl Builds {
    pub(crate) fn open(
        context: &Arc<Context>,
        operations: &Arc<Operations>,
        images: &Arc<Images>,
        vms: &Arc<Vms>,
    ) -> Result<Self, AppError> {
        let config = context.config.builds;
        let (state_dir, tmp) = (context.paths.state_dir(), context.paths.tmp());
        let cache = StepCache::open(state_dir, tmp, config.cache_bytes_max)?;
        Ok(Self {
            context: context.clone(),
            operations: operations.clone(),
            images: images.clone(),
            vms: vms.clone(),
            cache,
            logs: Arc::default(),
            queue: Arc::new(Semaphore::new(
                config.parallel_max.saturating_add(config.queue_max),
            )),
            places: Arc::new(Semaphore::new(config.parallel_max)),
        })
    }

    /// What the steps kept of earlier builds take.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn cache_usage(&self) -> Result<CacheUsage, AppError> {
        let cache = self.cache.clone();
        let usage = tokio::task::spawn_blocking(move || cache.usage()).await;
        Ok(usage.map_err(|_| AppError::Interrupted)??)
    }

    /// Removes the steps kept of earlier builds, or only tells what they take.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub async fn prune_cache(&self, dry_run: bool) -> Result<CacheUsage, AppError> {
        if dry_run {
            return self.cache_usage().await;
        }
        let cache = self.cache.clone();
        let pruned = tokio::task::spawn_blocking(move || cache.prune()).await;
        Ok(pruned.map_err(|_| AppError::Interrupted)??)
    }

    /// A place among the builds that go on or wait, to be asked for before the context is sent.
    ///
    /// # Errors
    /// If there are as many as may be.
    pub fn reserve(&self) -> Result<BuildPlace, AppError> {
        let BuildConfig {
            parallel_max,
            queue_max,
            ..
        } = self.context.config.builds;
        let reserved = self.queue.clone().try_acquire_owned();
        let full = |_| BuildError::QueueFull {
            parallel: parallel_max,
            waiting: queue_max,
        };
        Ok(BuildPlace(reserved.map_err(full)?))
    }

    /// The output of a build that runs.
    #[must_use]
    pub fn log(&self, id: OperationId) -> Option<Arc<BuildLog>> {
        self.logs.find(id)
    }

    /// The build that a call with this request id began before: a repeat needs neither a place nor a context.
    ///
    /// # Errors
    /// If the id was used for another request.
    pub async fn begun(
        &self,
        key: Option<&RequestKey>,
    ) -> Result<Option<(OperationId, Option<Arc<BuildLog>>)>, AppError> {
        let Some(key) = key.map(|key| key.of(&Owner::daemon())) else {
            return Ok(None);
        };
        let begun = self.operations.begun_by(&key).await?;
        Ok(begun.map(|id| (id, self.log(id))))
    }

    /// Accepts a build, and returns the operation that does it, whose target becomes the image's id.
    ///
    /// # Errors
    /// If the request is wrong.
    pub async fn build(
        &self,
        request: BuildRequest,
        key: Option<&RequestKey>,
    ) -> Result<(OperationId, Option<Arc<BuildLog>>), AppError> {
        let reference = crate::image::canonical("start.reference", &request.reference)?;
        request.kind.check()?;
        let kind = OperationKind::BuildImage;
        let task = match self
            .operations
            .begin(kind, &Owner::daemon(), reference.to_string(), key)
            .await?
        {
            Begun::Joined(id) => return Ok((id, self.log(id))),
            Begun::New(task) => Arc::new(task),
        };
        let log = self.logs.open(task.id());
        let mut machine = request.machine;
        let default = self.context.config.default_network;
        machine.network.get_or_insert(default);
        let builder = Builder {
            context: self.context.clone(),
            images: self.images.clone(),
            cache: self.cache.clone(),
            fleet: Fleet::new(&self.vms, &self.operations, machine, task.id()),
            tmp: self.context.paths.tmp(),
            no_cache: request.no_cache,
            logins: request.logins,
            log: log.clone(),
            reference,
            task,
        };
        let id = builder.task.id();
        let (kind, context, places) = (request.kind, request.context, self.places.clone());
        let place = request.place;
        self.context.tasks.spawn(async move {
            let _place = place;
            let built = builder.run(&kind, context, &places).await;
            let built = built.map_err(|error| host::blame_full_disk(&builder.context, error));
            builder.fleet.disband().await;
            builder.images.give_back(&built).await;
            builder
                .task
                .end_with(&built, |image| image.id.to_string())
                .await;
        });
        Ok((id, Some(log)))
    }
}

/// One build.
pub(crate) struct Builder {
    context: Arc<Context>,
    images: Arc<Images>,
    cache: StepCache,
    fleet: Fleet,
    tmp: PathBuf,
    no_cache: bool,
    logins: Logins,
    log: Arc<BuildLog>,
    reference: ImageReference,
    task: Arc<OperationTask>,
}

impl Builder {
    /// Does the work, until it is given up: everything that it holds is then let go by dropping it, except
    /// what the fleet brings to its end.
    async fn run(
        &self,
        kind: &BuildKind,
        context: Uploaded,
        places: &Semaphore,
    ) -> Result<Image, AppError> {
        let work = async {
            // A place is given back when the work ends, however it does.
            let _place = places.acquire().await.map_err(|_| AppError::Interrupted)?;
            host::admit_disk(&self.context)?;
            let building = async {
                match kind {
                    BuildKind::Dockerfile(request) => self.dockerfile(request, &context).await,
                    BuildKind::Debian(request) => self.debian(request).await,
                }
            };
            let limit = self.context.config.builds.timeout;
            // cancel-safe: dropped when its time or the space is over, the fleet undoes what was begun
            tokio::select! {
                built = tokio::time::timeout(limit, Box::pin(building)) => {
                    built.unwrap_or_else(|_| Err(BuildError::TooLong { limit }.into()))
                }
                refused = crate::reserve::used_up(&self.context) => Err(refused),
            }
        };
        tokio::select! {
            biased; // giving up before more work
            // cancel-safe: `cancelled` holds no state
            () = self.task.cancelled().cancelled() => Err(AppError::GivenUp { why: "the build was cancelled" }),
            // cancel-safe: the fleet undoes what was begun
            built = work => built,
        }
    }

    async fn dockerfile(
        &self,
        request: &DockerfileRequest,
        context: &Uploaded,
    ) -> Result<Image, AppError> {
        let recipe = Recipe::parse(request)?;
        for warning in &recipe.warnings {
            self.say(&format!("warning: {warning}"));
        }
        let path = context.path().to_owned();
        let is_empty = context.length() == 0;
        let archive = self
            .blocking(move || open_context(path, is_empty))
            .await??;
        let files = Arc::new(Files::new(archive));
        let mut images = HashMap::new();
        for reference in recipe.images() {
            let image = match self.images.find(reference).await? {
                Some(image) => image,
                None => {
                    self.say(&format!("pulling {reference}"));
                    let login = self.login(reference)?;
                    self.images
                        .pull_within(reference, login, &self.task)
                        .await?
                }
            };
            images.insert(reference.to_owned(), image);
        }
        for reference in recipe.bases() {
            crate::image::check_platform(&images[reference], reference)?;
            self.warn_of_triggers(&images[reference], reference).await?;
        }
        Stages::new(self, &recipe, files, images)?.build().await
    }

    /// Says what a base image asks for (`ONBUILD`), which is not done.
    async fn warn_of_triggers(&self, base: &Image, reference: &str) -> Result<(), AppError> {
        let (files, digest) = (self.images.files().clone(), base.digest);
        let triggers = self.blocking(move || files.triggers(digest)).await??;
        for trigger in triggers {
            let plain = |character: char| match character.is_control() {
                true => ' ',
                false => character,
            };
            let trigger: String = trigger.chars().take(TRIGGER_CHARS).map(plain).collect();
            self.say(&format!(
                "warning: {reference} asks for ONBUILD {trigger}, which is not supported and not done: write it into the \
                 Dockerfile where it is needed"
            ));
        }
        Ok(())
    }

    /// Who the caller is for the registry of a base image, if the request says so.
    fn login(&self, named: &str) -> Result<Option<Login>, AppError> {
        let reference = crate::image::canonical("FROM", named)?;
        let place = Place::new(reference.registry(), reference.repository());
        Ok(self.logins.login(&place).cloned())
    }

    fn say(&self, line: &str) {
        self.log.say(&"".into(), line);
    }

    /// Runs what blocks on a thread that the build waits for, whatever becomes of it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AppError> {
        let done = self.fleet.tasks.spawn_blocking(work).await;
        done.map_err(|_| AppError::Interrupted)
    }

    /// A disk of its own as it was after a step.
    async fn disk(&self, key: Digest) -> Result<PathBuf, AppError> {
        let (cache, disk) = (self.cache.clone(), self.fleet.disk(&self.tmp));
        let to = disk.clone();
        if self.blocking(move || cache.take(key, &to)).await?? {
            return Ok(disk);
        }
        // It was there a moment ago, and is held: somebody removed the file. The next try runs the step.
        Err(AppError::GivenUp {
            why: "a kept step was removed meanwhile: build again",
        })
    }

    fn upper(&self, vm: VmId) -> PathBuf {
        self.context.paths.upper_disk(vm)
    }

    async fn known(&self, result: Digest) -> Result<Option<Image>, AppError> {
        match self.cache.result(result) {
            Some(digest) => {
                let cancel = self.task.cancelled();
                let images = &self.images;
                images.known(&self.reference, digest, "build", cancel).await
            }
            None => Ok(None),
        }
    }

    async fn assemble(
        &self,
        base: Option<Digest>,
        layer: Option<NewLayer>,
        description: &ImageDescription,
        kernel: Option<Name>,
    ) -> Result<Image, AppError> {
        let (images, task) = (self.images.clone(), self.task.clone());
        let (reference, description) = (self.reference.clone(), description.clone());
        let cancel = self.task.cancelled().child_token();
        let _giving_up = cancel.clone().drop_guard();
        // Where the build is given up its files are waited for, as all of it is.
        let assembling = self.fleet.tasks.spawn(async move {
            let (layers, told) = ((base, layer), ("build", kernel));
            let work = (&*task as &dyn Progress, &cancel);
            images
                .assemble(&reference, layers, &description, told, work)
                .await
        });
        assembling.await.map_err(|_| AppError::Interrupted)?
    }
}

/// Indexes a context. One that is empty has no files.
fn open_context(path: PathBuf, is_empty: bool) -> Result<TreeArchive, BuildError> {
    let failed = |detail: String| BuildError::Context { detail };
    if is_empty {
        let end = [0; 1024];
        std::fs::write(&path, end).map_err(|error| failed(error.to_string()))?;
    }
    let file = File::open(&path).map_err(|error| failed(error.to_string()))?;
    TreeArchive::open(file, std::path::Path::new("context"))
        .map_err(|error| failed(banger_core::chain(&error).to_string()))
}
