//! What builds need of the images: their files, the empty one, and a record of what was built.

use banger_core::image::{Image, ImageConfig, TakeOver};
use banger_core::operation::Progress;
use banger_core::{Digest, Name, Owner};
use banger_image::{BuiltImage, ImageDescription, ImageReference, ImageStore, NewLayer};
use banger_image::{RegisterOptions, RegisterSource, StoreError};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

use super::{Images, blocking};
use crate::error::AppError;
use crate::export::{Export, ExportHead};
use crate::operation::OperationTask;

/// What `FROM scratch` begins with.
const EMPTY: &str = "localhost/banger-scratch:latest";

impl Images {
    /// The files of all images.
    pub(crate) const fn files(&self) -> &ImageStore {
        &self.files
    }

    /// The image without any file, made where it is missing.
    pub(crate) async fn empty(&self, task: &OperationTask) -> Result<Image, AppError> {
        if let Some(image) = self.find(EMPTY).await? {
            return Ok(image);
        }
        let files = self.files.clone();
        let layer = blocking(move || files.layer_writer()?.finish()).await?;
        let reference = super::canonical("reference", EMPTY)?;
        let description = ImageDescription::default();
        let told = "build: what FROM scratch begins with";
        self.assemble(
            &reference,
            (None, Some(layer)),
            &description,
            (told, None),
            (task, task.cancelled()),
        )
        .await
    }

    /// Makes an image of a base's layers and one more, and records it.
    pub(crate) async fn assemble(
        &self,
        reference: &ImageReference,
        (base, layer): (Option<Digest>, Option<NewLayer>),
        description: &ImageDescription,
        (origin, kernel): (&str, Option<Name>),
        (progress, cancel): (&dyn Progress, &CancellationToken),
    ) -> Result<Image, AppError> {
        let worker = self.worker();
        let _bringing = worker.begin_bringing(cancel).await?;
        let built = self
            .files
            .assemble(base, layer, description, progress, cancel)
            .await?;
        if cancel.is_cancelled() {
            // Nobody wants it any more, so that its files are nobody's.
            worker.owe_sweep();
            return Err(StoreError::Cancelled.into());
        }
        worker.record_made(reference, built, origin, kernel).await
    }

    /// Makes an image of a root filesystem's archive, and records it.
    pub(crate) async fn register_rootfs(
        &self,
        reference: &ImageReference,
        path: PathBuf,
        config: ImageConfig,
        origin: &str,
        (progress, cancel): (&dyn Progress, &CancellationToken),
    ) -> Result<Image, AppError> {
        let worker = self.worker();
        let config = Box::new(config);
        let source = RegisterSource::RootfsTar { path, config };
        let options = RegisterOptions::default();
        let _bringing = worker.begin_bringing(cancel).await?;
        let built = self
            .files
            .register(source, &options, progress, cancel)
            .await?;
        worker.record_made(reference, built, origin, None).await
    }

    /// After a build that a full disk ended: the disk is as it was before.
    pub(crate) async fn give_back<T>(&self, built: &Result<T, AppError>) {
        self.worker().give_back(built).await;
    }

    /// Records an image whose files are there under one more reference; none where they are not.
    pub(crate) async fn known(
        &self,
        reference: &ImageReference,
        digest: Digest,
        origin: &str,
        cancel: &CancellationToken,
    ) -> Result<Option<Image>, AppError> {
        let worker = self.worker();
        let _bringing = worker.begin_bringing(cancel).await?;
        let known = self.context.store.find_images_by_digest(&digest).await?;
        let Some(known) = known.into_iter().next() else {
            return Ok(None);
        };
        let files = self.files.clone();
        let Ok(built) = blocking(move || files.load(digest)).await else {
            return Ok(None);
        };
        let image = worker
            .record_made(reference, built, origin, known.kernel)
            .await?;
        Ok(Some(image))
    }

    /// Writes an image as a tar of an OCI image layout, for `owner`.
    ///
    /// # Errors
    /// If the image does not exist, came without layers, or a layer is gone; or as many exports go on as may.
    pub async fn export_oci_layout(&self, named: &str, owner: &Owner) -> Result<Export, AppError> {
        let image = self.get(named).await?;
        let turn = self.context.exports.take(owner)?;
        let reference = super::reference_of(&image, named);
        let tag = reference.as_ref().and_then(|reference| reference.tag());
        let tag = tag.unwrap_or("latest").to_owned();
        let files = self.files.clone();
        let layout = blocking(move || files.oci_layout(image.digest, &tag)).await?;
        let head = ExportHead {
            content_bytes: layout.content_bytes(),
            name: String::new(),
            version: String::new(),
            manifest: Default::default(),
        };
        Ok(Export::begin(&self.context, turn, move |out| {
            out.start(head)?;
            let written = layout.write_to(out);
            written.map_err(|source| AppError::ReadExport { source })
        }))
    }
}

impl super::bring::Worker {
    async fn record_made(
        &self,
        reference: &ImageReference,
        built: BuiltImage,
        origin: &str,
        kernel: Option<Name>,
    ) -> Result<Image, AppError> {
        let image = Image {
            id: banger_core::ImageId::new(),
            references: Vec::new(),
            digest: built.digest,
            platform: built.platform,
            config: built.config,
            layers: built.layers,
            rootfs_size_bytes: built.rootfs_size_bytes,
            rootfs_allocated_bytes: built.rootfs_allocated_bytes,
            origin: origin.to_owned(),
            kernel,
            create_time: banger_core::Timestamp::now(),
        };
        self.insert(image, &reference.to_string(), TakeOver::Allowed)
            .await
    }
}
