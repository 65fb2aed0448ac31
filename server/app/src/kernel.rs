//! Kernels: what callers may ask of them, and what of it the store knows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_core::kernel::Kernel;
use banger_core::operation::OperationKind;
use banger_core::{Digest, KernelId, Name, OperationId, Owner, Timestamp};
use banger_image::{ImportedKernel, KernelError, KernelFiles, KernelStore};
use banger_store::{DeleteOutcome, Page, ReplaceOutcome, RequestKey, StoreError};
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::error::AppError;
use crate::export::{Export, ExportHead};
use crate::operation::{Begun, OperationTask, Operations};
use crate::page::{self, Paged};
use crate::pull_time::PullTime;
use crate::upload::Uploaded;

/// The kernels of this host.
pub struct Kernels {
    context: Arc<Context>,
    operations: Arc<Operations>,
    files: KernelStore,
    /// Held for reading by whoever brings a kernel in, until its record is there.
    importing: Arc<RwLock<()>>,
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernels").finish_non_exhaustive()
    }
}

/// Where a kernel comes from.
#[derive(Debug)]
pub enum ImportSource {
    /// A package that the host's apt fetches.
    DebianPackage(String),
    /// Files that the caller uploaded.
    Upload {
        /// A vmlinux, a bzImage, a kernel bundle or a Debian package.
        kernel: Uploaded,
        /// A tar of its modules directory.
        modules: Option<Uploaded>,
        /// The configuration it was built with.
        config: Option<Uploaded>,
        /// What the caller calls it; empty where it says nothing.
        label: String,
    },
}

/// What an uploaded kernel is called that has no name.
const UPLOAD: &str = "the upload";

/// How a kernel is to be kept.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// What to call it; absent means what its bundle calls it, or else by its release.
    pub(crate) name: Option<Name>,
    /// VMs get it that name none.
    pub(crate) make_default: bool,
    /// It may take the place of one that has the name.
    pub(crate) replace: bool,
}

/// What to import.
#[derive(Debug)]
pub struct ImportRequest {
    /// What to call it; empty means by its release.
    pub name: String,
    /// Where it comes from.
    pub source: ImportSource,
    /// VMs get it that name none.
    pub make_default: bool,
    /// It may take the place of one that has the name.
    pub replace: bool,
}

impl Kernels {
    pub(crate) fn open(
        context: &Arc<Context>,
        operations: &Arc<Operations>,
    ) -> Result<Self, AppError> {
        let files = KernelStore::open(context.paths.state_dir())?;
        Ok(Self {
            context: context.clone(),
            operations: operations.clone(),
            files,
            importing: Arc::default(),
        })
    }

    /// Accepts a kernel, and returns the operation that imports it, whose target becomes its id.
    ///
    /// # Errors
    /// If the request is wrong or the name is taken.
    pub async fn import(
        &self,
        request: ImportRequest,
        key: Option<&RequestKey>,
    ) -> Result<OperationId, AppError> {
        // A path would be opened with the daemon's rights, not the caller's.
        if let ImportSource::DebianPackage(package) = &request.source
            && package.contains('/')
        {
            return Err(AppError::Invalid {
                field: "start.debian_package",
                problem: "is a path, and must be a package's name".into(),
            });
        }
        let name = match request.name.as_str() {
            "" => None,
            name => Some(name.parse::<Name>().map_err(|error| AppError::Invalid {
                field: "start.name",
                problem: format!("is not a name: {error}"),
            })?),
        };
        let target = name.as_ref().map_or_else(String::new, Name::to_string);
        let task = match self
            .operations
            .begin(OperationKind::ImportKernel, &Owner::daemon(), target, key)
            .await?
        {
            Begun::Joined(id) => return Ok(id),
            Begun::New(task) => task,
        };
        let id = task.id();
        let worker = self.worker();
        self.context.tasks.spawn(async move {
            let imported = worker.import(name, &request, &task).await;
            // The upload is gone when the end is told.
            drop(request);
            task.end_with(&imported, |kernel| kernel.id.to_string())
                .await;
        });
        Ok(id)
    }

    /// Imports and records a kernel bundle that was fetched, as a part of the operation `task`.
    pub(crate) async fn keep_bundle(
        &self,
        bundle: &Path,
        wanted: &Wanted,
        time: PullTime,
        task: &OperationTask,
    ) -> Result<Kernel, AppError> {
        let worker = self.worker();
        let _importing = self.importing.read().await;
        let (files, id) = (&worker.files, KernelId::new());
        let import = async |cancel: CancellationToken| {
            Ok(files.import_bundle(id, bundle, task, &cancel).await?)
        };
        let imported = time.bound(task.cancelled(), import).await?;
        worker.keep(imported, wanted).await
    }

    /// Whether a kernel is the one of the bundle whose manifest has `digest`: it came in it, or would be written as
    /// it.
    pub(crate) async fn is_of(&self, kernel: &Kernel, digest: Digest) -> Result<bool, AppError> {
        if kernel.inspection.bundle == Some(digest) {
            return Ok(true);
        }
        let bundle = self.files.export(kernel.id, kernel.name.clone()).await?;
        Ok(Digest::of(&bundle.manifest().to_bytes()) == digest)
    }

    /// Begins to write a kernel as a bundle, for `owner`.
    ///
    /// # Errors
    /// If it does not exist or cannot be read, or as many exports go on as may.
    pub async fn export(&self, named: &str, owner: &Owner) -> Result<Export, AppError> {
        let kernel = self.get(named).await?;
        let turn = self.context.exports.take(owner)?;
        let bundle = self.files.export(kernel.id, kernel.name.clone()).await?;
        let head = ExportHead {
            content_bytes: bundle.content_bytes(),
            name: kernel.name.to_string(),
            version: kernel.release,
            manifest: bundle.manifest().to_bytes(),
        };
        Ok(Export::begin(&self.context, turn, move |out| {
            out.start(head)?;
            bundle.write(out)?;
            Ok(())
        }))
    }

    /// A kernel by id or name.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn get(&self, named: &str) -> Result<Kernel, AppError> {
        let found = match (named.parse::<KernelId>(), named.parse::<Name>()) {
            (Ok(id), _) => self.context.store.get_kernel(id).await?,
            (Err(_), Ok(name)) => self.context.store.find_kernel(&name).await?,
            (Err(_), Err(_)) => None,
        };
        found.ok_or_else(|| AppError::NotFound {
            resource: "kernel",
            name: named.chars().take(128).collect(),
        })
    }

    /// A kernel by its name; `None` where there is none.
    pub(crate) async fn find(&self, name: &Name) -> Result<Option<Kernel>, AppError> {
        Ok(self.context.store.find_kernel(name).await?)
    }

    /// The kernel that VMs get that name none.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn default(&self) -> Result<Option<Kernel>, AppError> {
        Ok(self.context.store.default_kernel().await?)
    }

    /// A page of kernels, newest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn list(
        &self,
        limit: u32,
        before: Option<String>,
    ) -> Result<Paged<Kernel>, AppError> {
        let kernels = self
            .context
            .store
            .list_kernels(Page {
                limit: limit + 1,
                before,
            })
            .await?;
        Ok(page::cut(kernels, limit as usize))
    }

    /// Removes a kernel.
    ///
    /// # Errors
    /// If it does not exist or a VM uses it.
    pub async fn delete(&self, named: &str) -> Result<(), AppError> {
        let kernel = self.get(named).await?;
        let outcome = self.context.store.delete_kernel(kernel.id).await?;
        if outcome == DeleteOutcome::Deleted {
            self.context.events.kernel_removed(&kernel);
        }
        match outcome {
            DeleteOutcome::Deleted | DeleteOutcome::Missing => {
                self.worker().remove_files(kernel.id).await
            }
            DeleteOutcome::UsedBy(users) => Err(AppError::InUse {
                resource: "kernel",
                name: named.to_owned(),
                users,
            }),
        }
    }

    /// Removes a kernel that came for an image, unless a VM or another image has it.
    pub(crate) async fn undo(&self, id: KernelId) -> Result<(), AppError> {
        let Some(kernel) = self.context.store.get_kernel(id).await? else {
            return Ok(());
        };
        if self.context.store.delete_kernel_unless_named(id).await? == DeleteOutcome::Deleted {
            self.context.events.kernel_removed(&kernel);
            self.worker().remove_files(id).await?;
        }
        Ok(())
    }

    /// The kernels whose files are here and that no record owns; none while one is brought in.
    pub(crate) async fn strays(&self) -> Result<Vec<KernelId>, AppError> {
        let Ok(_alone) = self.importing.try_write() else {
            return Ok(Vec::new());
        };
        let files = self.files.clone();
        let mut found = blocking(move || files.ids()).await?;
        let kept = self.context.store.all_kernels().await?;
        found.retain(|id| kept.iter().all(|kernel| kernel.id != *id));
        Ok(found)
    }

    /// Removes the files that no record owns.
    pub(crate) async fn sweep(&self) -> Result<u64, AppError> {
        let Ok(_alone) = self.importing.try_write() else {
            return Ok(0);
        };
        let kept = self.context.store.all_kernels().await?;
        let keep = kept.iter().map(|kernel| kernel.id).collect();
        let files = self.files.clone();
        blocking(move || files.sweep(&keep)).await
    }

    fn worker(&self) -> Worker {
        Worker {
            context: self.context.clone(),
            files: self.files.clone(),
            importing: self.importing.clone(),
        }
    }

    /// Where a kernel's `vmlinux` is.
    pub(crate) fn vmlinux(&self, kernel: &Kernel) -> PathBuf {
        self.files.vmlinux_path(kernel.id)
    }

    /// The initramfs of a kernel with this daemon's agent; made once.
    pub(crate) async fn initramfs(&self, kernel: &Kernel) -> Result<PathBuf, AppError> {
        let agent = &self.context.config.agent;
        if !tokio::fs::try_exists(agent).await.unwrap_or(false) {
            return Err(AppError::AgentMissing {
                path: agent.clone(),
            });
        }
        Ok(self.files.initramfs(kernel.id, agent).await?)
    }
}

struct Worker {
    context: Arc<Context>,
    files: KernelStore,
    importing: Arc<RwLock<()>>,
}

impl Worker {
    async fn import(
        &self,
        name: Option<Name>,
        request: &ImportRequest,
        task: &OperationTask,
    ) -> Result<Kernel, AppError> {
        crate::host::admit_disk(&self.context)?;
        let _importing = self.importing.read().await;
        let time = PullTime::begin(&self.context);
        let import = async |cancel: CancellationToken| self.bring(request, task, &cancel).await;
        let imported = time.bound(task.cancelled(), import).await?;
        let wanted = Wanted {
            name,
            make_default: request.make_default,
            replace: request.replace,
        };
        self.keep(imported, &wanted).await
    }

    /// Imports what was asked for, without a record of it.
    async fn bring(
        &self,
        request: &ImportRequest,
        task: &OperationTask,
        cancel: &CancellationToken,
    ) -> Result<ImportedKernel, AppError> {
        let id = KernelId::new();
        let imported = match &request.source {
            ImportSource::DebianPackage(package) => {
                self.files
                    .import_debian_package(id, package, task, cancel)
                    .await
            }
            ImportSource::Upload {
                kernel,
                modules,
                config,
                label,
            } => {
                let path = |uploaded: &Option<Uploaded>| {
                    uploaded.as_ref().map(|file| file.path().to_owned())
                };
                let files = KernelFiles {
                    kernel: kernel.path().to_owned(),
                    modules: path(modules),
                    config: path(config),
                    label: if label.is_empty() {
                        UPLOAD.to_owned()
                    } else {
                        label.clone()
                    },
                };
                self.files.import_file(id, files, task, cancel).await
            }
        };
        Ok(imported?)
    }

    /// Records what was imported; on failure its files go.
    async fn keep(&self, imported: ImportedKernel, wanted: &Wanted) -> Result<Kernel, AppError> {
        let id = imported.id;
        let recorded = self.record(imported, wanted).await;
        if recorded.is_err() {
            self.remove_files(id).await?;
        }
        recorded
    }

    async fn remove_files(&self, id: KernelId) -> Result<(), AppError> {
        let files = self.files.clone();
        blocking(move || files.remove(id)).await
    }

    async fn record(&self, imported: ImportedKernel, wanted: &Wanted) -> Result<Kernel, AppError> {
        let name = match wanted.name.clone().or(imported.name) {
            Some(name) => name,
            None => name_of_release(&imported.release)?,
        };
        let kernel = Kernel {
            id: imported.id,
            name,
            release: imported.release,
            digest: imported.digest,
            size_bytes: imported.size_bytes,
            modules: imported.modules,
            origin: imported.origin,
            is_default: wanted.make_default,
            inspection: imported.inspection,
            create_time: Timestamp::now(),
        };
        match self.context.store.find_kernel(&kernel.name).await? {
            Some(old) if wanted.replace => self.replace(&old, &kernel, wanted).await,
            Some(_) | None => {
                let inserted = self
                    .context
                    .store
                    .insert_kernel(&kernel, wanted.make_default)
                    .await;
                let kernel = inserted.map_err(|error| match error {
                    StoreError::NameTaken { name, .. } => AppError::NameTaken {
                        resource: "kernel",
                        name,
                    },
                    other => other.into(),
                })?;
                self.context.events.kernel_added(&kernel);
                Ok(kernel)
            }
        }
    }

    async fn replace(
        &self,
        old: &Kernel,
        new: &Kernel,
        wanted: &Wanted,
    ) -> Result<Kernel, AppError> {
        match self
            .context
            .store
            .replace_kernel(old.id, new, wanted.make_default)
            .await?
        {
            ReplaceOutcome::Replaced(kernel) => {
                self.context.events.kernel_removed(old);
                self.context.events.kernel_added(&kernel);
                self.remove_files(old.id).await?;
                Ok(*kernel)
            }
            ReplaceOutcome::Missing => Err(AppError::GivenUp {
                why: "the kernel to replace was removed meanwhile",
            }),
            ReplaceOutcome::UsedBy(users) => Err(AppError::InUse {
                resource: "kernel",
                name: old.name.to_string(),
                users,
            }),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KernelError> + Send + 'static,
) -> Result<T, AppError> {
    Ok(tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| AppError::Interrupted)??)
}

/// A release as a name: `6.1.0-42-cloud-amd64` as `linux-6-1-0-42-cloud-amd64`.
fn name_of_release(release: &str) -> Result<Name, AppError> {
    let safe: String = release
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let name = format!("linux-{}", safe.trim_matches('-'));
    let cut: String = name.chars().take(banger_core::name::NAME_MAX).collect();
    let problem = || "is missing, and the kernel's release makes none".to_owned();
    cut.trim_end_matches('-')
        .parse()
        .map_err(|_| AppError::Invalid {
            field: "start.name",
            problem: problem(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_makes_a_name() {
        assert_eq!(
            name_of_release("6.1.0-42-cloud-amd64").unwrap().as_str(),
            "linux-6-1-0-42-cloud-amd64"
        );
        assert_eq!(name_of_release("6.1.0+").unwrap().as_str(), "linux-6-1-0");
    }
}
