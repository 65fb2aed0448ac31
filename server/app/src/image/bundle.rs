//! Images from catalogs, and as bundles for others.

use banger_core::image::{Image, Platform, TakeOver};
use banger_core::operation::Progress as _;
use banger_core::operation::StageKey;
use banger_core::{Name, Owner};
use banger_image::{BundleNames, ImageReference};
use tokio_util::sync::CancellationToken;

use super::bring::Worker;
use super::{ImageSource, Images, PullRequest, reference_of};
use crate::catalog::{Ensured, FoundBundle};
use crate::error::AppError;
use crate::export::{Export, ExportHead};
use crate::operation::OperationTask;
use crate::pull_time::PullTime;
use crate::reserve;

/// The stage in which a name is looked up in the catalogs.
const LOOK_UP: &str = "look-up";

/// What a bundle is to be called; what is empty is made of the image's reference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExportRequest {
    /// The image: a reference, a digest or an id.
    pub image: String,
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: String,
    /// The kernel it is meant for; empty means the image's own.
    pub kernel: String,
}

impl Worker {
    /// Brings what a caller wants from where it is: a catalog that has the name, or else the registry.
    pub(super) async fn pull(
        &self,
        reference: &ImageReference,
        request: PullRequest,
        task: &OperationTask,
    ) -> Result<Image, AppError> {
        let time = PullTime::begin(&self.context);
        let pulled = self.pull_in(reference, request, time, task).await;
        pulled.map_err(|error| time.explain(error))
    }

    async fn pull_in(
        &self,
        reference: &ImageReference,
        request: PullRequest,
        time: PullTime,
        task: &OperationTask,
    ) -> Result<Image, AppError> {
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        if request.source != ImageSource::Registry {
            let mut may_look_again = true;
            while let Some(found) = self.look_up(&request, &platform, time, task).await? {
                let pulled = self.pull_bundle(reference, &request, &found, time, task);
                let pulled = pulled.await;
                match &pulled {
                    Err(error) if std::mem::take(&mut may_look_again) => {
                        let catalogs = &self.catalogs;
                        if !catalogs
                            .has_newer(&found.catalog, error, time, task)
                            .await?
                        {
                            return pulled;
                        }
                    }
                    _ => return pulled,
                }
            }
            if request.source == ImageSource::Catalog {
                return Err(AppError::NotInCatalog {
                    resource: "image",
                    name: request.reference,
                });
            }
        }
        self.pull_oci(reference, request, time, task).await
    }

    async fn look_up(
        &self,
        request: &PullRequest,
        platform: &Platform,
        time: PullTime,
        task: &OperationTask,
    ) -> Result<Option<FoundBundle>, AppError> {
        let key = StageKey::new(LOOK_UP);
        task.start(&key, None);
        let finding = self.catalogs.find_bundle(&request.reference, platform);
        let found = time.within(task.cancelled(), finding).await?;
        task.finish(&key);
        Ok(found)
    }

    async fn pull_oci(
        &self,
        reference: &ImageReference,
        request: PullRequest,
        time: PullTime,
        task: &OperationTask,
    ) -> Result<Image, AppError> {
        let mut options = self.options(request.platform, request.auth);
        let kernel = match request.kernel.as_str() {
            "" => None,
            named => Some(self.catalogs.ensure_kernel(named, None, time, task).await?),
        };
        let name = kernel.as_ref().map(|kernel| kernel.name.clone());
        options.deadline = time.left();
        let take_over = match (request.replace, request.take_over) {
            (true, _) => TakeOver::Allowed,
            // A name that no registry gave is refused when the content has come and is other.
            (false, TakeOver::Allowed) => TakeOver::FromRegistry,
            (false, take_over) => take_over,
        };
        let pulled = self.fetch(reference, &options, name, take_over, task).await;
        self.keep_or_undo(pulled, kernel).await
    }

    async fn pull_bundle(
        &self,
        reference: &ImageReference,
        request: &PullRequest,
        found: &FoundBundle,
        time: PullTime,
        task: &OperationTask,
    ) -> Result<Image, AppError> {
        // Refused before anything is fetched; it counts again when the row comes.
        let named = reference.to_string();
        let kept = self.context.store.find_image_by_reference(&named).await?;
        let is_same = kept
            .as_ref()
            .is_some_and(|image| image.digest == found.entry.digest);
        if kept.is_some() && !is_same && !request.replace {
            return Err(AppError::ReferenceTaken { reference: named });
        }
        let kernel = self.kernel_for(request, found, time, task).await?;
        let pulled = self
            .fetch_bundle(reference, request, found, kernel.as_ref(), time, task)
            .await;
        self.keep_or_undo(pulled, kernel).await
    }

    /// The kernel that the image's VMs get: the caller's, or else the entry's, or else the host's, of which there must
    /// be one then.
    async fn kernel_for(
        &self,
        request: &PullRequest,
        found: &FoundBundle,
        time: PullTime,
        task: &OperationTask,
    ) -> Result<Option<Ensured>, AppError> {
        let own = found.entry.kernel.as_ref();
        let ensured = match (request.kernel.as_str(), own) {
            ("", None) => {
                let default = self.context.store.default_kernel().await?;
                return default.map(|_| None).ok_or(AppError::NoKernel);
            }
            ("", Some(own)) => {
                let within = Some(&found.catalog.name);
                self.catalogs
                    .ensure_kernel(own.as_str(), within, time, task)
                    .await?
            }
            (named, _) => self.catalogs.ensure_kernel(named, None, time, task).await?,
        };
        Ok(Some(ensured))
    }

    async fn fetch_bundle(
        &self,
        reference: &ImageReference,
        request: &PullRequest,
        found: &FoundBundle,
        kernel: Option<&Ensured>,
        time: PullTime,
        task: &OperationTask,
    ) -> Result<Image, AppError> {
        let source = self.catalogs.source(&found.catalog.url)?;
        let _bringing = self.begin_bringing(task.cancelled()).await?;
        let (files, entry) = (&self.files, &found.entry);
        let pull = async |cancel: CancellationToken| {
            let pulled = files.pull_bundle(&source, entry, time.left(), task, &cancel);
            Ok(pulled.await?)
        };
        let mut built = reserve::spare(&self.context, task.cancelled(), pull).await?;
        built.kernel = kernel.map(|kernel| kernel.name.clone());
        let origin = format!(
            "catalog {}: {}:{}",
            found.catalog.name, found.entry.name, found.entry.version
        );
        let take_over = match request.replace {
            true => TakeOver::Allowed,
            false => TakeOver::Refused,
        };
        self.record(reference, built, origin, take_over).await
    }

    /// A kernel that came for an image goes with it.
    async fn keep_or_undo(
        &self,
        pulled: Result<Image, AppError>,
        kernel: Option<Ensured>,
    ) -> Result<Image, AppError> {
        if let (Err(_), Some(kernel)) = (&pulled, &kernel) {
            self.catalogs.undo_kernel(kernel).await;
        }
        pulled
    }
}

impl Images {
    /// Begins to write an image as a bundle, for `owner`. Where it did not come as one, its whole disk is read before
    /// the first part.
    ///
    /// # Errors
    /// If it does not exist, or its reference makes no bundle's name and none is given; or as many exports go on as
    /// may.
    pub async fn export_bundle(
        &self,
        request: ExportRequest,
        owner: &Owner,
    ) -> Result<Export, AppError> {
        let image = self.get(&request.image).await?;
        let names = names(&request, &image)?;
        let turn = self.context.exports.take(owner)?;
        let files = self.files.clone();
        Ok(Export::begin(&self.context, turn, move |out| {
            let cancel = out.cancel().clone();
            let plan = files.plan_export(image.digest, names.clone(), &cancel)?;
            out.start(ExportHead {
                content_bytes: plan.content_bytes,
                name: names.name.to_string(),
                version: names.version.to_string(),
                manifest: plan.manifest.to_bytes(),
            })?;
            plan.write(out, &cancel)?;
            Ok(())
        }))
    }
}

/// The names that were asked for, or else those of the reference that the image was asked for by.
fn names(request: &ExportRequest, image: &Image) -> Result<BundleNames, AppError> {
    let reference = reference_of(image, &request.image);
    let own_name = reference.as_ref().map(|reference| {
        let repository = reference.repository();
        repository
            .rsplit('/')
            .next()
            .unwrap_or(repository)
            .to_owned()
    });
    let own_version = reference
        .as_ref()
        .and_then(|reference| reference.tag().map(str::to_owned));
    let chosen = |asked: &str, own: Option<String>| match asked {
        "" => own.unwrap_or_default(),
        asked => asked.to_owned(),
    };
    let invalid = |field| {
        move |error: banger_catalog::TextError| AppError::Invalid {
            field,
            problem: format!("has to be given: {error}"),
        }
    };
    let kernel = match request.kernel.as_str() {
        "" => image.kernel.clone(),
        named => Some(named.parse::<Name>().map_err(|error| AppError::Invalid {
            field: "kernel",
            problem: format!("is not a name: {error}"),
        })?),
    };
    Ok(BundleNames {
        name: chosen(&request.name, own_name)
            .parse()
            .map_err(invalid("name"))?,
        version: chosen(&request.version, own_version)
            .parse()
            .map_err(invalid("version"))?,
        kernel,
    })
}
