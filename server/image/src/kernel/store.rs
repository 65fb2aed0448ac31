//! The kernels of one state directory.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use banger_core::kernel::KernelInspection;
use banger_core::{Digest, KernelId, Name};
use serde::{Deserialize, Serialize};
use tempfile::{NamedTempFile, TempDir};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::agent::AgentDigest;
use super::import::Import;
use super::{KernelError, initramfs};
use crate::limits::{KERNEL_IMPORTS_MAX, MODULE_BYTES_MAX};
use crate::store::{publish, sync_directory};

pub(super) const VMLINUX: &str = "vmlinux";
pub(super) const MODULES: &str = "modules";
const CONFIG: &str = "config.json";
/// How the names of a kernel's initramfs files begin.
const INITRAMFS: &str = "initramfs-";

/// A kernel as its directory tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedKernel {
    /// Given at import.
    pub id: KernelId,
    /// The release it reports; empty where the file does not tell.
    pub release: String,
    /// Of `vmlinux`.
    pub digest: Digest,
    /// Length of `vmlinux`.
    pub size_bytes: u64,
    /// The modules the agent loads, in load order, without `.ko`.
    pub modules: Vec<String>,
    /// A file's name, or a package's name and version.
    pub origin: String,
    /// What its bundle calls it; known only when it was just imported.
    #[serde(skip)]
    pub name: Option<Name>,
    /// What reading it told.
    #[serde(default)]
    pub inspection: KernelInspection,
}

/// The kernels of one state directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KernelStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    kernels: PathBuf,
    tmp: PathBuf,
    /// Kernels being brought in.
    imports: Semaphore,
    /// One initramfs at a time: it is made once per kernel and agent. Those that this process named to anybody.
    building: tokio::sync::Mutex<HashSet<PathBuf>>,
    agent: AgentDigest,
    tracker: TaskTracker,
}

impl KernelStore {
    /// Opens the store under `state_dir`, making its directories where they are missing, and sweeps what an
    /// earlier process left of imports: **only one process may use a state directory**.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, KernelError> {
        let inner = Inner {
            kernels: state_dir.join("kernels"),
            tmp: state_dir.join("tmp/kernels"),
            imports: Semaphore::new(KERNEL_IMPORTS_MAX),
            building: tokio::sync::Mutex::default(),
            agent: AgentDigest::default(),
            tracker: TaskTracker::new(),
        };
        match fs::remove_dir_all(&inner.tmp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // It takes space, and keeps nobody from the kernels: each work's name is its own.
                tracing::error!(path = %inner.tmp.display(), %error, "could not remove what an earlier process left of imports");
            }
            _ => {}
        }
        for directory in [&inner.kernels, &inner.tmp] {
            fs::create_dir_all(directory)
                .map_err(KernelError::io("create the directory", directory))?;
        }
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What is known about a kernel, from its directory. Blocks, briefly.
    ///
    /// # Errors
    /// [`KernelError::Missing`] when it is not there or not whole.
    pub fn load(&self, id: KernelId) -> Result<ImportedKernel, KernelError> {
        let bytes = fs::read(self.inner.directory(id).join(CONFIG))
            .map_err(|_| KernelError::Missing { id })?;
        serde_json::from_slice(&bytes).map_err(|_| KernelError::Missing { id })
    }

    /// Where a kernel's `vmlinux` is, or would be.
    #[must_use]
    pub fn vmlinux_path(&self, id: KernelId) -> PathBuf {
        self.inner.directory(id).join(VMLINUX)
    }

    /// The initramfs with the agent at `agent` as `/init` and the kernel's modules, made now or before. It
    /// stays as long as this process, or until the kernel is removed. Those with other agents that earlier processes
    /// left go when one is made.
    ///
    /// # Errors
    /// When the kernel is missing, the agent cannot be read, or the file not written.
    pub async fn initramfs(&self, id: KernelId, agent: &Path) -> Result<PathBuf, KernelError> {
        let mut named = self.inner.building.lock().await;
        let (agent, kept) = (agent.to_owned(), named.clone());
        let path = self
            .blocking(move |inner| inner.initramfs(id, &agent, &kept))
            .await?;
        named.insert(path.clone());
        Ok(path)
    }

    /// Removes a kernel. What is not there is no error. Blocks, briefly.
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub fn remove(&self, id: KernelId) -> Result<(), KernelError> {
        let directory = self.inner.directory(id);
        // Out of its place in one step: no half kernel is ever seen.
        let grave = self.inner.tmp.join(format!("removed-{id}"));
        match fs::rename(&directory, &grave) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(KernelError::io("remove", &directory)(error)),
            Ok(()) => fs::remove_dir_all(&grave).map_err(KernelError::io("remove", &grave)),
        }
    }

    /// Removes every kernel that is not in `referenced`; returns how many. **Not while an import is going on**.
    /// Blocks.
    ///
    /// # Errors
    /// When the directory cannot be read, or a kernel not removed.
    pub fn sweep(&self, referenced: &HashSet<KernelId>) -> Result<u64, KernelError> {
        let mut swept = 0;
        for id in self.ids()? {
            if !referenced.contains(&id) {
                self.remove(id)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// The kernels whose files are here. Blocks, briefly.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn ids(&self) -> Result<Vec<KernelId>, KernelError> {
        let kernels = &self.inner.kernels;
        let mut ids = Vec::new();
        for entry in
            fs::read_dir(kernels).map_err(KernelError::io("read the directory", kernels))?
        {
            let entry = entry.map_err(KernelError::io("read the directory", kernels))?;
            let name = entry.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<KernelId>().ok()));
        }
        Ok(ids)
    }

    /// A directory that goes when it is let go.
    pub(super) fn scratch(&self, prefix: &str) -> Result<TempDir, KernelError> {
        let tmp = &self.inner.tmp;
        TempDir::with_prefix_in(prefix, tmp).map_err(KernelError::io("create a directory in", tmp))
    }

    /// Brings a kernel in on a thread, when it is its turn: kernels are read into memory. The thread is told when this is
    /// dropped or cancelled.
    pub(super) async fn importing<T: Send + 'static>(
        &self,
        cancel: &CancellationToken,
        import: impl FnOnce(&Inner, &CancellationToken) -> Result<T, KernelError> + Send + 'static,
    ) -> Result<T, KernelError> {
        // cancel-safe: a place in the queue is given up
        let _turn = tokio::select! {
            () = cancel.cancelled() => return Err(KernelError::Cancelled),
            turn = self.inner.imports.acquire() => turn.expect("never closed"),
        };
        let given_up = cancel.child_token();
        let _giving_up = given_up.clone().drop_guard();
        self.blocking(move |inner| import(inner, &given_up)).await
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, KernelError> + Send + 'static,
    ) -> Result<T, KernelError> {
        let inner = Arc::clone(&self.inner);
        self.inner
            .tracker
            .spawn_blocking(move || work(&inner))
            .await
            .map_err(|_| KernelError::Aborted)?
    }
}

impl Inner {
    pub(super) fn tmp(&self) -> &Path {
        &self.tmp
    }

    pub(super) fn directory(&self, id: KernelId) -> PathBuf {
        self.kernels.join(id.to_string())
    }

    /// Writes a kernel's directory under a temporary name, then gives it its own.
    pub(super) fn keep(&self, import: Import) -> Result<ImportedKernel, KernelError> {
        let Import {
            id,
            kernel,
            modules,
            origin,
            name,
            inspection,
        } = import;
        let target = self.directory(id);
        if target.exists() {
            return Err(KernelError::Exists { id });
        }
        let imported = ImportedKernel {
            id,
            release: kernel.release,
            digest: Digest::of(&kernel.bytes),
            size_bytes: kernel.bytes.len() as u64,
            modules: modules.iter().map(|module| module.name.clone()).collect(),
            origin,
            name,
            inspection,
        };
        let staging = TempDir::with_prefix_in("kernel-", &self.tmp)
            .map_err(KernelError::io("create a directory in", &self.tmp))?;
        let stage = || -> io::Result<()> {
            write_synced(&staging.path().join(VMLINUX), &kernel.bytes)?;
            let directory = staging.path().join(MODULES);
            fs::create_dir(&directory)?;
            for (number, module) in modules.iter().enumerate() {
                write_synced(
                    &directory.join(format!("{number:03}-{}.ko", module.name)),
                    &module.bytes,
                )?;
            }
            File::open(&directory)?.sync_all()?;
            write_synced(
                &staging.path().join(CONFIG),
                &serde_json::to_vec_pretty(&imported)?,
            )?;
            File::open(staging.path())?.sync_all()?;
            fs::rename(staging.path(), &target)?;
            sync_directory(&target)
        };
        stage().map_err(KernelError::io("write", &target))?;
        let _ = staging.keep(); // it has another name now
        Ok(imported)
    }

    fn initramfs(
        &self,
        id: KernelId,
        agent: &Path,
        kept: &HashSet<PathBuf>,
    ) -> Result<PathBuf, KernelError> {
        let directory = self.directory(id);
        if !directory.join(CONFIG).exists() {
            return Err(KernelError::Missing { id });
        }
        let place = |digest: Digest| {
            let name = format!("{INITRAMFS}{}-{}.cpio", digest.short(), initramfs::FORMAT);
            directory.join(name)
        };
        let known = self.agent.known(agent).map(place);
        if let Some(path) = known.filter(|path| path.exists()) {
            return Ok(path);
        }
        let (agent, digest) = self.agent.read(agent)?;
        let path = place(digest);
        if path.exists() {
            return Ok(path);
        }
        let modules = read_modules(&directory.join(MODULES))?;
        let write = || -> io::Result<()> {
            let file = NamedTempFile::with_prefix_in("initramfs-", &self.tmp)?;
            let out = initramfs::write(io::BufWriter::new(file), &agent, &modules)?;
            publish(
                out.into_inner().map_err(io::IntoInnerError::into_error)?,
                &path,
            )
        };
        write().map_err(KernelError::io("write", &path))?;
        if let Err(error) = remove_stale(&directory, &path, kept) {
            // They take space, and keep nobody from booting.
            tracing::warn!(path = %directory.display(), %error, "could not remove what was made for other agents");
        }
        Ok(path)
    }
}

/// Removes the initramfs files of a kernel but for `new` and `kept`.
fn remove_stale(directory: &Path, new: &Path, kept: &HashSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let is_initramfs = entry
            .file_name()
            .as_bytes()
            .starts_with(INITRAMFS.as_bytes());
        if is_initramfs && path != new && !kept.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The modules of a kernel in the store, in load order.
pub(super) fn read_modules(directory: &Path) -> Result<Vec<(String, Vec<u8>)>, KernelError> {
    let mut modules = Vec::new();
    for entry in
        fs::read_dir(directory).map_err(KernelError::io("read the directory", directory))?
    {
        let path = entry
            .map_err(KernelError::io("read the directory", directory))?
            .path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let bytes = read_bounded(&path, MODULE_BYTES_MAX, &name)?;
        modules.push((name, bytes));
    }
    modules.sort_unstable();
    Ok(modules)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A whole regular file, which errors call `what`.
pub(super) fn read_bounded(path: &Path, limit: u64, what: &str) -> Result<Vec<u8>, KernelError> {
    let metadata = fs::metadata(path).map_err(KernelError::source(path))?;
    if !metadata.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(KernelError::source(path)(error));
    }
    if metadata.len() > limit {
        return Err(KernelError::TooLarge {
            what: what.to_owned(),
            limit,
        });
    }
    fs::read(path).map_err(KernelError::source(path))
}
