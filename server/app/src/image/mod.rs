//! Images: what callers may ask of them, and what of it the store knows.

mod bring;
mod build;
mod bundle;
mod keep;
mod lost;
mod turns;

use std::path::PathBuf;
use std::sync::Arc;

use banger_core::image::{Image, ImageConfig, Platform, TakeOver};
use banger_core::operation::OperationKind;
use banger_core::{Digest, ImageId, Name, OperationId, Owner};
use banger_image::{ImageReference, ImageStore, StoreError as ImageError};
pub use banger_image::{Login, Logins};
use banger_store::{Page, RequestKey};

use crate::Context;
use crate::catalog::Catalogs;
use crate::error::AppError;
use crate::operation::{Begun, OperationTask, Operations};
use crate::page::{self, Paged};
use crate::upload::Uploaded;

use bring::Worker;
pub use bundle::ExportRequest;
pub use keep::{PruneRequest, Pruned, Removed, TotalUsage, Usage};
use turns::Turns;

/// The images of this host.
pub struct Images {
    context: Arc<Context>,
    operations: Arc<Operations>,
    catalogs: Arc<Catalogs>,
    files: ImageStore,
    turns: Arc<Turns>,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").finish_non_exhaustive()
    }
}

/// What to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Who asks.
    pub owner: Owner,
    /// As the caller names it.
    pub reference: String,
    /// Absent means the host's.
    pub platform: Option<Platform>,
    /// For this pull alone: neither stored nor shown.
    pub auth: Option<Login>,
    /// The kernel that the image's VMs get, here or in a catalog; empty means the bundle's own.
    pub kernel: String,
    /// It may take the name of any other image.
    pub replace: bool,
    /// What comes from a registry may take the name of other content that came from one, as when a tag was moved there.
    pub take_over: TakeOver,
    /// Where to look.
    pub source: ImageSource,
}

/// Where an image is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageSource {
    /// In the catalogs, then in the registry.
    #[default]
    Any,
    /// In the catalogs only.
    Catalog,
    /// In the registry only.
    Registry,
}

/// What an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchiveFormat {
    /// Found out from its content.
    #[default]
    Detect,
    /// A tar of an OCI image layout.
    OciLayout,
    /// What `docker save` writes.
    DockerArchive,
    /// A tar of a root filesystem.
    RootfsTar,
    /// A bundle.
    Bundle,
    /// An ext4 file system.
    Ext4,
}

/// What to register.
#[derive(Debug)]
pub struct RegisterRequest {
    /// What to call it.
    pub reference: String,
    /// What the archive is.
    pub format: ArchiveFormat,
    /// The configuration of a root filesystem.
    pub config: Option<ImageConfig>,
    /// Which of an archive's images; absent means the host's.
    pub platform: Option<Platform>,
    /// Which of an archive's images, by its name there; absent where there is one.
    pub image: Option<String>,
    /// The kernel that the image's VMs get; absent means a bundle's own.
    pub kernel: Option<Name>,
    /// Whether it may take the reference of another image.
    pub take_over: TakeOver,
    /// The archive.
    pub archive: Uploaded,
}

impl Images {
    pub(crate) fn new(
        context: &Arc<Context>,
        operations: &Arc<Operations>,
        catalogs: &Arc<Catalogs>,
        files: ImageStore,
    ) -> Self {
        Self {
            context: context.clone(),
            operations: operations.clone(),
            catalogs: catalogs.clone(),
            files,
            turns: Arc::default(),
        }
    }

    /// Accepts a pull, and returns its operation, whose target becomes the image's id.
    ///
    /// # Errors
    /// If the request is wrong.
    pub async fn pull(
        &self,
        request: PullRequest,
        key: Option<&RequestKey>,
    ) -> Result<OperationId, AppError> {
        let reference = canonical("reference", &request.reference)?;
        let begun = self
            .operations
            .begin(
                OperationKind::PullImage,
                &request.owner,
                reference.to_string(),
                key,
            )
            .await?;
        let task = match begun {
            Begun::Joined(id) => return Ok(id),
            Begun::New(task) => task,
        };
        let id = task.id();
        let worker = self.worker();
        self.context.tasks.spawn(async move {
            let pulled = worker.pull(&reference, request, &task).await;
            worker.give_back(&pulled).await;
            task.end_with(&pulled, |image| image.id.to_string()).await;
        });
        Ok(id)
    }

    /// Pulls as a part of other long work.
    pub(crate) async fn pull_within(
        &self,
        named: &str,
        auth: Option<Login>,
        task: &OperationTask,
    ) -> Result<Image, AppError> {
        let reference = canonical("spec.image", named)?;
        let request = PullRequest {
            owner: Owner::daemon(),
            reference: named.to_owned(),
            platform: None,
            auth,
            kernel: String::new(),
            replace: false,
            // It is fetched where the name is free; what took that meanwhile keeps it.
            take_over: TakeOver::Refused,
            source: ImageSource::Any,
        };
        // Whoever pulls as a part of something else should not carry the whole of it.
        let worker = self.worker();
        let pulled = Box::pin(worker.pull(&reference, request, task)).await;
        worker.give_back(&pulled).await;
        pulled
    }

    /// Accepts an archive, and returns the operation that makes an image of it, whose target becomes its id.
    ///
    /// # Errors
    /// If the request is wrong.
    pub async fn register(
        &self,
        request: RegisterRequest,
        key: Option<&RequestKey>,
    ) -> Result<OperationId, AppError> {
        let reference = canonical("start.reference", &request.reference)?;
        let begun = self
            .operations
            .begin(
                OperationKind::RegisterImage,
                &Owner::daemon(),
                reference.to_string(),
                key,
            )
            .await?;
        let task = match begun {
            Begun::Joined(id) => return Ok(id),
            Begun::New(task) => task,
        };
        let id = task.id();
        let worker = self.worker();
        self.context.tasks.spawn(async move {
            let registered = worker
                .register(&reference, &request, &task, task.cancelled())
                .await;
            // The upload is gone when the end is told.
            drop(request);
            worker.give_back(&registered).await;
            task.end_with(&registered, |image| image.id.to_string())
                .await;
        });
        Ok(id)
    }

    fn worker(&self) -> Worker {
        Worker {
            context: self.context.clone(),
            catalogs: self.catalogs.clone(),
            files: self.files.clone(),
            turns: self.turns.clone(),
        }
    }

    /// An image by id, reference or digest; `None` where there is none.
    pub(crate) async fn find(&self, named: &str) -> Result<Option<Image>, AppError> {
        if let Ok(id) = named.parse::<ImageId>() {
            return Ok(self.context.store.get_image(id).await?);
        }
        if let Ok(digest) = named.parse::<Digest>() {
            let images = self.context.store.find_images_by_digest(&digest).await?;
            return Ok(images.into_iter().next());
        }
        let reference = canonical("image", named)?;
        Ok(self
            .context
            .store
            .find_image_by_reference(&reference.to_string())
            .await?)
    }

    /// An image by id, reference or digest.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn get(&self, named: &str) -> Result<Image, AppError> {
        let missing = || AppError::NotFound {
            resource: "image",
            name: named.chars().take(256).collect(),
        };
        self.find(named).await?.ok_or_else(missing)
    }

    /// A page of images, newest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(&self, limit: u32, before: Option<String>) -> Result<Paged<Image>, AppError> {
        let images = self
            .context
            .store
            .list_images(Page {
                limit: limit + 1,
                before,
            })
            .await?;
        Ok(page::cut(images, limit as usize))
    }

    /// Where an image's base disk is.
    pub(crate) fn rootfs(&self, image: &Image) -> PathBuf {
        self.files.rootfs_path(image.digest)
    }

    /// Whether an image's base disk is there: it is not once the image is lost.
    pub(crate) async fn has_files(&self, image: &Image) -> bool {
        let found = tokio::fs::try_exists(self.rootfs(image)).await;
        // Whoever opens it is told what is wrong.
        found.unwrap_or(true)
    }

    /// Waits until what was pulled is on the disk.
    pub(crate) async fn synced(&self) {
        self.files.drain().await;
    }

    /// Makes a VM's writable disk.
    pub(crate) async fn create_upper(
        &self,
        path: PathBuf,
        size_bytes: u64,
    ) -> Result<(), AppError> {
        let made =
            tokio::task::spawn_blocking(move || banger_image::create_upper(&path, size_bytes))
                .await;
        made.map_err(|_| AppError::Interrupted)?
            .map_err(|source| AppError::MakeDisk { source })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, AppError> {
    Ok(tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| AppError::Interrupted)??)
}

/// The reference by which an image was asked for, or else its first.
fn reference_of(image: &Image, named: &str) -> Option<ImageReference> {
    let parse = |text: &str| text.parse::<ImageReference>().ok();
    let asked = parse(named).map(|reference| reference.to_string());
    let asked = asked.filter(|asked| image.references.contains(asked));
    parse(asked.as_ref().or(image.references.first())?)
}

/// Refuses an image whose programs cannot run on this host.
pub(crate) fn check_platform(image: &Image, named: &str) -> Result<(), AppError> {
    let host = Platform::host();
    if image.platform.is_like(&host) {
        return Ok(());
    }
    Err(AppError::ImageOtherPlatform {
        image: named.chars().take(256).collect(),
        platform: image.platform.to_string(),
        host: host.to_string(),
    })
}

pub(crate) fn canonical(field: &'static str, named: &str) -> Result<ImageReference, AppError> {
    named.parse().map_err(|error| AppError::Invalid {
        field,
        problem: format!("is not an image's reference: {error}"),
    })
}
