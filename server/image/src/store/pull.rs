//! Pulling an image from its registry.

use banger_core::operation::{Progress, StageKey};
use tokio_util::sync::CancellationToken;

use super::plan::Plan;
use super::source::BlobSource;
use super::{BuiltImage, ImageStore, StoreError};
use crate::document::{Document, DocumentError, choose};
use crate::registry::{ImageReference, PullOptions, Registry};

/// The stage in which the reference becomes a manifest.
const RESOLVE: &str = "resolve";

impl ImageStore {
    /// Pulls `reference`, unless its current manifest is in the store already. Stages: `resolve`, `fetch`
    /// with one item per layer, `copy` with one per layer that another image's disk has, `convert`, `publish`.
    ///
    /// Pulls of one image at the same time share the work, and so do layers of different images. Dropping
    /// the future leaves the work to the others, or ends it where there are none; `cancel` does the same
    /// and returns once nothing is left of it.
    ///
    /// # Errors
    /// What [`StoreError`] says; nothing but whole blobs is kept of a failed pull.
    pub async fn pull(
        &self,
        reference: &ImageReference,
        options: &PullOptions,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<BuiltImage, StoreError> {
        let cancel = cancel.child_token();
        let mut work = std::pin::pin!(self.pull_in_time(reference, options, progress, &cancel));
        // cancel-safe: `work` is only borrowed
        tokio::select! {
            result = &mut work => return result,
            () = tokio::time::sleep(options.deadline) => {}
        }
        cancel.cancel();
        match work.await {
            Ok(image) => Ok(image), // it came in the last moment
            Err(_) => Err(StoreError::Deadline {
                deadline: options.deadline,
            }),
        }
    }

    async fn pull_in_time(
        &self,
        reference: &ImageReference,
        options: &PullOptions,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<BuiltImage, StoreError> {
        let key = StageKey::new(RESOLVE);
        progress.start(&key, None);
        let registry = Registry::new(reference, options)?;
        // cancel-safe: requests hold nothing on this host
        let plan = tokio::select! {
            biased; // giving up before more waiting
            () = cancel.cancelled() => return Err(StoreError::Cancelled),
            plan = resolve(&registry, options, progress) => plan?,
        };
        progress.finish(&key);
        let store = self.clone();
        let work = |board, cancel| {
            store.build(
                plan.0,
                BlobSource::Registry(Box::new(registry)),
                board,
                cancel,
            )
        };
        let mut image = self
            .inner
            .flights
            .join(plan.1, &self.inner.tracker, progress, cancel, work)
            .await?;
        image.reference = Some(reference.to_string());
        Ok(image)
    }
}

/// The documents of the image for the wanted platform, and its digest.
async fn resolve(
    registry: &Registry,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<(Plan, banger_core::Digest), StoreError> {
    let (bytes, document) = match registry.manifest(None, progress).await? {
        (_, Document::Index(manifests)) => {
            let chosen = choose(&manifests, &options.platform)?;
            registry.manifest(Some(chosen), progress).await?
        }
        manifest => manifest,
    };
    let Document::Manifest(manifest) = document else {
        return Err(DocumentError::NotAnImage {
            media_type: "an index in an index".into(),
        }
        .into());
    };
    let config = registry
        .small_blob(
            manifest.config.digest,
            manifest.config.size,
            "a configuration",
            progress,
        )
        .await?;
    let plan = Plan::new(bytes.to_vec(), manifest, config.to_vec(), &options.platform)?;
    let digest = plan.digest;
    Ok((plan, digest))
}
