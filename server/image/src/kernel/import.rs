//! How kernels come in: from files, from a distribution's package.

use std::path::{Path, PathBuf};

use banger_core::kernel::KernelInspection;
use banger_core::operation::{Progress, StageKey};
use banger_core::{KernelId, Name};
use tokio_util::sync::CancellationToken;

use super::bundle::{self, KernelBundleError, is_bundle};
use super::bzimage::{Vmlinux, extract};
use super::config::KernelConfig;
use super::inspect::{Beside, inspect};
use super::modules::{Module, ModuleTree};
use super::store::{ImportedKernel, Inner, KernelStore, read_bounded};
use super::{KernelError, debian};
use crate::limits::{KERNEL_BYTES_MAX, KERNEL_CONFIG_BYTES_MAX};

/// The files of a kernel.
#[derive(Debug, Clone, Default)]
pub struct KernelFiles {
    /// A vmlinux or a bzImage; or a kernel bundle or a Debian package, which have all the rest inside.
    pub kernel: PathBuf,
    /// Its modules: a directory, or a tar archive of one. A kernel that has everything built in needs none.
    pub modules: Option<PathBuf>,
    /// The configuration it was built with, for a kernel that does not have it inside.
    pub config: Option<PathBuf>,
    /// What the caller calls the kernel: what is kept as its origin, and what errors name.
    pub label: String,
}

/// A kernel on its way in, inspected.
pub(super) struct Import {
    pub(super) id: KernelId,
    pub(super) kernel: Vmlinux,
    pub(super) modules: Vec<Module>,
    pub(super) origin: String,
    /// What its bundle calls it.
    pub(super) name: Option<Name>,
    pub(super) inspection: KernelInspection,
}

impl Import {
    /// Inspects what came in.
    ///
    /// # Errors
    /// When no guest would come up with it.
    pub(super) fn inspected(
        id: KernelId,
        kernel: Vmlinux,
        modules: Vec<Module>,
        beside: Beside,
        origin: String,
    ) -> Result<Self, KernelError> {
        for module in &modules {
            module.check_release(&kernel.release)?;
        }
        let kept = modules.iter().map(|module| module.name.as_str());
        let inspection = inspect(&kernel, beside, kept)?;
        Ok(Self {
            id,
            kernel,
            modules,
            origin,
            name: None,
            inspection,
        })
    }
}

impl KernelStore {
    /// Imports a `vmlinux` or bzImage with those of its modules that a guest needs, or a kernel bundle. One
    /// stage: `import`.
    ///
    /// # Errors
    /// What [`KernelError`] says; nothing is left of a failed import.
    pub async fn import_file(
        &self,
        id: KernelId,
        files: KernelFiles,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<ImportedKernel, KernelError> {
        let key = StageKey::new("import");
        progress.start(&key, None);
        let import = move |inner: &Inner, cancel: &CancellationToken| {
            inner.keep(read_files(inner, id, files, cancel)?)
        };
        let imported = self.importing(cancel, import).await?;
        progress.finish(&key);
        Ok(imported)
    }

    /// Imports the kernel of a Debian package: by the name of a package or metapackage, which apt fetches,
    /// or by the path of a package file (with a `/` in it). Stages: `download`, `import`.
    ///
    /// # Errors
    /// What [`KernelError`] says; nothing is left of a failed import.
    pub async fn import_debian_package(
        &self,
        id: KernelId,
        package: &str,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<ImportedKernel, KernelError> {
        let scratch = self.scratch("package-")?;
        let key = StageKey::new("download");
        progress.start(&key, None);
        let file = debian::fetch(package, scratch.path(), cancel).await?;
        progress.finish(&key);
        let key = StageKey::new("import");
        progress.start(&key, None);
        let import = move |inner: &Inner, cancel: &CancellationToken| {
            // The package's name and version.
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let (name, tmp) = (name.into_owned(), scratch.path());
            inner.keep(read_package(id, &file, name, tmp, cancel)?)
        };
        let imported = self.importing(cancel, import).await?;
        progress.finish(&key);
        Ok(imported)
    }
}

fn read_files(
    inner: &Inner,
    id: KernelId,
    files: KernelFiles,
    cancel: &CancellationToken,
) -> Result<Import, KernelError> {
    if is_bundle(&files.kernel)? {
        if files.modules.is_some() || files.config.is_some() {
            return Err(KernelBundleError::GivenParts.into());
        }
        return bundle::read(id, &files.kernel, cancel);
    }
    if debian::is_package(&files.kernel)? {
        if files.modules.is_some() || files.config.is_some() {
            return Err(KernelBundleError::GivenParts.into());
        }
        let origin = files.label.trim_end_matches(".deb").to_owned();
        return read_package(id, &files.kernel, origin, inner.tmp(), cancel);
    }
    let label = files.label;
    let kernel = extract(
        read_bounded(&files.kernel, KERNEL_BYTES_MAX, &label)?,
        &label,
    )?;
    let config = files
        .config
        .map(|path| given_config(&path))
        .transpose()?
        .map(|config| (config, "configuration given at import"));
    let tree = files
        .modules
        .map(|modules| ModuleTree::of(&modules, inner.tmp(), cancel))
        .transpose()?;
    let (modules, builtin) = match tree {
        Some(tree) => (tree.select(cancel)?, Some(tree.into_builtin())),
        None => (Vec::new(), None),
    };
    let beside = Beside {
        config,
        builtin,
        ..Beside::default()
    };
    Import::inspected(id, kernel, modules, beside, label)
}

fn given_config(path: &Path) -> Result<KernelConfig, KernelError> {
    const ORIGIN: &str = "given at import";
    let bytes = read_bounded(path, KERNEL_CONFIG_BYTES_MAX, "the configuration")?;
    KernelConfig::file(&bytes, ORIGIN)
}

fn read_package(
    id: KernelId,
    file: &Path,
    origin: String,
    tmp: &Path,
    cancel: &CancellationToken,
) -> Result<Import, KernelError> {
    let packaged = debian::read(file, origin, tmp)?;
    let kernel = extract(packaged.kernel, &packaged.origin)?;
    let modules = packaged.modules.select(cancel)?;
    let config = packaged
        .config
        .map(|bytes| KernelConfig::file(&bytes, "in the package"))
        .transpose()?
        .map(|config| (config, "configuration in the package"));
    let beside = Beside {
        config,
        builtin: Some(packaged.modules.into_builtin()),
        ..Beside::default()
    };
    Import::inspected(id, kernel, modules, beside, packaged.origin)
}
