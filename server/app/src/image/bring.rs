//! Bringing images in: from registries and archives to files and a record.

use std::sync::Arc;

use banger_core::image::{Image, Platform, TakeOver};
use banger_core::operation::Progress;
use banger_core::{ImageId, Name, Timestamp};
use banger_image::{
    BuiltImage, ImageReference, ImageStore, Login, PullOptions, RegisterOptions, RegisterSource,
};
use tokio_util::sync::CancellationToken;

use super::turns::Turns;
use super::{ArchiveFormat, RegisterRequest};
use crate::Context;
use crate::catalog::Catalogs;
use crate::error::AppError;
use crate::operation::OperationTask;
use crate::pull_time::PullTime;
use crate::reserve;

/// What an archive is called that a caller streamed in.
const UPLOAD: &str = "the upload";

/// How the origin of what a registry gave begins.
pub(super) const REGISTRY: &str = "registry ";

/// What a task needs to bring an image in.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) catalogs: Arc<Catalogs>,
    pub(super) files: ImageStore,
    pub(super) turns: Arc<Turns>,
}

impl Worker {
    pub(super) fn options(&self, platform: Option<Platform>, login: Option<Login>) -> PullOptions {
        PullOptions {
            platform: platform.unwrap_or_else(Platform::host),
            registries: self.context.config.pull.registries.clone(),
            login,
            auth_files: self.context.config.pull.auth_files.clone(),
            stall_timeout: self.context.config.pull.stall_timeout,
            deadline: self.context.config.pull.timeout,
            ..PullOptions::default()
        }
    }

    pub(super) async fn fetch(
        &self,
        reference: &ImageReference,
        options: &PullOptions,
        kernel: Option<Name>,
        take_over: TakeOver,
        task: &OperationTask,
    ) -> Result<Image, AppError> {
        let _bringing = self.begin_bringing(task.cancelled()).await?;
        let pull = async |cancel: CancellationToken| {
            Ok(self.files.pull(reference, options, task, &cancel).await?)
        };
        let mut built = reserve::spare(&self.context, task.cancelled(), pull).await?;
        built.kernel = kernel;
        let origin = format!("{REGISTRY}{}", reference.registry());
        self.record(reference, built, origin, take_over).await
    }

    pub(super) async fn register(
        &self,
        reference: &ImageReference,
        request: &RegisterRequest,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Image, AppError> {
        let path = request.archive.path().to_owned();
        let config = Box::new(request.config.clone().unwrap_or_default());
        let image = request.image.clone();
        let source = match request.format {
            ArchiveFormat::Detect => RegisterSource::Detect {
                path,
                config,
                image,
            },
            ArchiveFormat::OciLayout => RegisterSource::OciLayout { path, image },
            ArchiveFormat::DockerArchive => RegisterSource::DockerArchive { path, image },
            ArchiveFormat::RootfsTar => RegisterSource::RootfsTar { path, config },
            ArchiveFormat::Bundle => RegisterSource::Bundle { path },
            ArchiveFormat::Ext4 => RegisterSource::Ext4 { path, config },
        };
        let options = RegisterOptions {
            platform: request.platform.clone().unwrap_or_else(Platform::host),
        };
        let _bringing = self.begin_bringing(cancel).await?;
        let (files, time) = (&self.files, PullTime::begin(&self.context));
        let registering = async |cancel: CancellationToken| {
            let registered = files.register(source, &options, progress, &cancel).await;
            // Where it lies on this host tells a caller nothing.
            registered.map_err(|error| AppError::from(error.naming(UPLOAD)))
        };
        let register = async |cancel: CancellationToken| {
            reserve::spare(&self.context, &cancel, registering).await
        };
        let mut built = time.bound(cancel, register).await?;
        built.kernel = request.kernel.clone().or(built.kernel);
        self.record(reference, built, "upload".to_owned(), request.take_over)
            .await
    }

    /// Writes the row of what is in the store, and of where it came from.
    pub(super) async fn record(
        &self,
        reference: &ImageReference,
        built: BuiltImage,
        origin: String,
        take_over: TakeOver,
    ) -> Result<Image, AppError> {
        let image = Image {
            id: ImageId::new(),
            references: Vec::new(),
            digest: built.digest,
            platform: built.platform,
            config: built.config,
            layers: built.layers,
            rootfs_size_bytes: built.rootfs_size_bytes,
            rootfs_allocated_bytes: built.rootfs_allocated_bytes,
            origin,
            kernel: built.kernel,
            create_time: Timestamp::now(),
        };
        self.insert(image, &reference.to_string(), take_over).await
    }

    /// Keeps an image's row. One that has the same content is kept instead, with the new reference. Whether that is
    /// free is decided with the row's coming: what took it meanwhile counts.
    pub(super) async fn insert(
        &self,
        image: Image,
        reference: &str,
        take_over: TakeOver,
    ) -> Result<Image, AppError> {
        let store = &self.context.store;
        let kept = match take_over {
            TakeOver::Allowed => Some(store.insert_image(&image, reference).await?),
            TakeOver::Refused => {
                let inserting = store.insert_image_unless_taken(&image, reference, None);
                inserting.await?
            }
            TakeOver::FromRegistry => {
                let inserting = store.insert_image_unless_taken(&image, reference, Some(REGISTRY));
                inserting.await?
            }
        };
        let kept = kept.ok_or_else(|| {
            self.owe_sweep();
            AppError::ReferenceTaken {
                reference: reference.to_owned(),
            }
        })?;
        if kept.id == image.id {
            self.context.events.image_added(&kept);
        }
        Ok(kept)
    }
}
