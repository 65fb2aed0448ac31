//! Kernels from catalogs.

use std::sync::Arc;

use banger_core::image::Platform;
use banger_core::kernel::Kernel;
use banger_core::operation::{OperationKind, StageKey};
use banger_core::{Name, OperationId, Owner};
use banger_store::RequestKey;

use super::{Catalogs, FoundKernel, parse_name};
use crate::error::AppError;
use crate::kernel::Wanted;
use crate::operation::{Begun, OperationTask};

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
    /// Whether it was pulled just now, and goes again if what it was pulled for fails.
    pub(crate) is_new: bool,
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
        let found = self
            .find_kernel(&request.kernel, None, &Platform::host())
            .await?
            .ok_or_else(|| AppError::NotInCatalog {
                resource: "kernel",
                name: request.kernel.clone(),
            })?;
        let wanted = Wanted {
            name: Some(name.unwrap_or_else(|| found.entry.name.clone())),
            make_default: request.make_default,
            replace: request.replace,
        };
        let _turn = self.turn(task).await?;
        self.refuse_taken(&wanted).await?;
        self.fetch_kernel(&found, &wanted, task).await
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
    /// not here.
    pub(crate) async fn ensure_kernel(
        &self,
        named: &str,
        within: Option<&Name>,
        task: &OperationTask,
    ) -> Result<Ensured, AppError> {
        let _turn = self.turn(task).await?;
        let name = named.rsplit('/').next().unwrap_or(named);
        let name = parse_name("kernel", name)?;
        if self.context.store.find_kernel(&name).await?.is_some() {
            return Ok(Ensured {
                name,
                is_new: false,
            });
        }
        let found = self.find_kernel(named, within, &Platform::host()).await?;
        let found = found.ok_or_else(|| AppError::KernelMissing {
            kernel: named.to_owned(),
        })?;
        let wanted = Wanted {
            name: Some(name.clone()),
            make_default: false,
            replace: false,
        };
        self.fetch_kernel(&found, &wanted, task).await?;
        Ok(Ensured { name, is_new: true })
    }

    /// Takes a kernel away that came for an image which then did not. One that somebody uses already stays.
    pub(crate) async fn undo_kernel(&self, ensured: &Ensured) {
        if !ensured.is_new {
            return;
        }
        if let Err(error) = self.kernels.delete(ensured.name.as_str()).await {
            tracing::info!(kernel = %ensured.name, error = %banger_core::chain(&error), "a kernel that came for an image that failed stays");
        }
    }

    async fn fetch_kernel(
        &self,
        found: &FoundKernel,
        wanted: &Wanted,
        task: &OperationTask,
    ) -> Result<Kernel, AppError> {
        crate::host::admit_disk(&self.context)?;
        let source = self.source(&found.catalog)?;
        let stage = StageKey::item("fetch", format!("kernel {}", found.entry.name));
        let file = self
            .files
            .fetch_file(&source, &found.entry.file, &stage, task, task.cancelled())
            .await?;
        self.kernels.keep_bundle(&file, wanted, task).await
    }

    /// Waits for whoever fetches a kernel now.
    async fn turn(
        &self,
        task: &OperationTask,
    ) -> Result<tokio::sync::MutexGuard<'_, ()>, AppError> {
        // cancel-safe: a place in the queue is given up
        tokio::select! {
            () = task.cancelled().cancelled() => Err(AppError::Interrupted),
            turn = self.fetching.lock() => Ok(turn),
        }
    }
}
