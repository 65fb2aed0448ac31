//! Kernels from catalogs.

use std::sync::Arc;

use banger_core::image::Platform;
use banger_core::kernel::Kernel;
use banger_core::operation::{OperationKind, StageKey};
use banger_core::{KernelId, Name, OperationId, Owner};
use banger_store::RequestKey;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::{Catalogs, FoundKernel, parse_name};
use crate::error::AppError;
use crate::kernel::Wanted;
use crate::operation::{Begun, OperationTask};
use crate::pull_time::PullTime;
use crate::reserve;

/// What to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullKernelRequest {
    /// The entry's name, or catalog/name.
    pub kernel: String,
    /// What to call it here; empty means the entry's name.
    pub name: String,
    /// VMs get it that name none.
    pub make_default: bool,
    /// It may take the place of one that has the name.
    pub replace: bool,
}

/// Which kernel an image is to have, and whether it came for it.
pub(crate) struct Ensured {
    pub(crate) name: Name,
    /// The kernel that was pulled just now, and goes again if what it was pulled for fails.
    new: Option<KernelId>,
    /// Shared by all images on their way that count on a kernel of this name.
    images: Arc<()>,
}

impl Catalogs {
    /// Accepts a pull of a kernel, and returns its operation, whose target becomes the kernel's id.
    ///
    /// # Errors
    /// If the request is wrong.
    pub async fn pull_kernel(
        self: &Arc<Self>,
        request: PullKernelRequest,
        key: Option<&RequestKey>,
    ) -> Result<OperationId, AppError> {
        let name = match request.name.as_str() {
            "" => None,
            name => Some(parse_name("name", name)?),
        };
        let begun = self
            .operations
            .begin(
                OperationKind::PullKernel,
                &Owner::daemon(),
                request.kernel.clone(),
                key,
            )
            .await?;
        let task = match begun {
            Begun::Joined(id) => return Ok(id),
            Begun::New(task) => task,
        };
        let id = task.id();
        let catalogs = self.clone();
        self.context.tasks.spawn(async move {
            let pulled = catalogs.pull(name, &request, &task).await;
            task.end_with(&pulled, |kernel| kernel.id.to_string()).await;
        });
        Ok(id)
    }

    async fn pull(
        &self,
        name: Option<Name>,
        request: &PullKernelRequest,
        task: &OperationTask,
    ) -> Result<Kernel, AppError> {
        let time = PullTime::begin(&self.context);
        let mut may_look_again = true;
        loop {
            let platform = Platform::host();
            let finding = self.find_kernel(&request.kernel, None, &platform);
            let found = time.within(task.cancelled(), finding).await?;
            let found = found.ok_or_else(|| AppError::NotInCatalog {
                resource: "kernel",
                name: request.kernel.clone(),
            })?;
            let pulled = self
                .pull_found(&found, name.clone(), request, time, task)
                .await;
            match &pulled {
                Err(error) if std::mem::take(&mut may_look_again) => {
                    if !self.has_newer(&found.catalog, error, time, task).await? {
                        return pulled;
                    }
                }
                _ => return pulled,
            }
        }
    }

    async fn pull_found(
        &self,
        found: &FoundKernel,
        name: Option<Name>,
        request: &PullKernelRequest,
        time: PullTime,
        task: &OperationTask,
    ) -> Result<Kernel, AppError> {
        let name = name.unwrap_or_else(|| found.entry.name.clone());
        let wanted = Wanted {
            name: Some(name.clone()),
            make_default: request.make_default,
            replace: request.replace,
        };
        self.refuse_taken(&wanted).await?;
        let _turn = self.turn(&name, time, task).await?;
        // It may have come meanwhile.
        self.refuse_taken(&wanted).await?;
        self.fetch_kernel(found, &wanted, time, task).await
    }

    /// A name that is taken is refused before anything is fetched.
    async fn refuse_taken(&self, wanted: &Wanted) -> Result<(), AppError> {
        let Some(name) = wanted.name.as_ref().filter(|_| !wanted.replace) else {
            return Ok(());
        };
        match self.context.store.find_kernel(name).await? {
            Some(_) => Err(AppError::NameTaken {
                resource: "kernel",
                name: name.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The kernel that an image is to have, by its name here, pulled from `within` or else any catalog where it is
    /// not here. One that a catalog names for its image (`within`) must be the one that is there.
    pub(crate) async fn ensure_kernel(
        &self,
        named: &str,
        within: Option<&Name>,
        time: PullTime,
        task: &OperationTask,
    ) -> Result<Ensured, AppError> {
        let name = named.rsplit('/').next().unwrap_or(named);
        let name = parse_name("kernel", name)?;
        let mut ensured = Ensured {
            images: self.counted.lock().await.of(&name),
            name,
            new: None,
        };
        let cancel = task.cancelled();
        if time
            .within(cancel, self.is_here(&ensured.name, within))
            .await?
        {
            return Ok(ensured);
        }
        let _turn = self.turn(&ensured.name, time, task).await?;
        // It may have come meanwhile.
        if time
            .within(cancel, self.is_here(&ensured.name, within))
            .await?
        {
            return Ok(ensured);
        }
        let platform = Platform::host();
        let finding = self.find_kernel(named, within, &platform);
        let found = time.within(cancel, finding).await?;
        let found = found.ok_or_else(|| AppError::KernelMissing {
            kernel: named.to_owned(),
        })?;
        let wanted = Wanted {
            name: Some(ensured.name.clone()),
            make_default: false,
            replace: false,
        };
        let kernel = self.fetch_kernel(&found, &wanted, time, task).await?;
        ensured.new = Some(kernel.id);
        Ok(ensured)
    }

    /// Whether a kernel of that name is here.
    ///
    /// # Errors
    /// If it is another than the one that the catalog `within` has by that name.
    async fn is_here(&self, name: &Name, within: Option<&Name>) -> Result<bool, AppError> {
        let Some(kernel) = self.context.store.find_kernel(name).await? else {
            return Ok(false);
        };
        let Some(catalog) = within else {
            return Ok(true);
        };
        let found = self
            .find_kernel(name.as_str(), within, &Platform::host())
            .await?
            .filter(|found| found.catalog.name == *catalog);
        match found {
            Some(found) if !self.kernels.is_of(&kernel, found.entry.digest).await? => {
                Err(AppError::KernelDiffers {
                    kernel: name.clone(),
                    catalog: catalog.clone(),
                })
            }
            _ => Ok(true),
        }
    }

    /// Takes a kernel away that came for an image which then did not. One that a VM or an image has, or that an image
    /// on its way counts on, stays.
    pub(crate) async fn undo_kernel(&self, ensured: &Ensured) {
        let Some(id) = ensured.new else { return };
        // Nobody begins to count on it meanwhile.
        let _counted = self.counted.lock().await;
        if Arc::strong_count(&ensured.images) > 1 {
            return;
        }
        if let Err(error) = self.kernels.undo(id).await {
            tracing::info!(kernel = %ensured.name, error = %banger_core::chain(&error), "a kernel that came for an image that failed stays");
        }
    }

    async fn fetch_kernel(
        &self,
        found: &FoundKernel,
        wanted: &Wanted,
        time: PullTime,
        task: &OperationTask,
    ) -> Result<Kernel, AppError> {
        let source = self.source(&found.catalog.url)?;
        let stage = StageKey::item("fetch", format!("kernel {}", found.entry.name));
        let (files, file) = (&self.files, &found.entry.file);
        let fetch = async |cancel: CancellationToken| {
            let fetched = files.fetch_file(&source, file, &stage, time.left(), task, &cancel);
            fetched.await.map_err(|error| time.explain(error.into()))
        };
        let file = reserve::spare(&self.context, task.cancelled(), fetch).await?;
        self.kernels.keep_bundle(&file, wanted, time, task).await
    }

    /// Waits for whoever fetches a kernel of that name now.
    async fn turn(
        &self,
        name: &Name,
        time: PullTime,
        task: &OperationTask,
    ) -> Result<OwnedMutexGuard<()>, AppError> {
        let turn = async { Ok(self.fetching.of(name).await) };
        time.within(task.cancelled(), turn).await
    }
}
