//! Where things are below the state directory. Paths are made of ids alone, never of a name that a caller,
//! an image or a guest gave.

use std::io;
use std::path::{Path, PathBuf};

use banger_core::{VmId, VolumeId};

use crate::error::AppError;

/// The layout of a state directory.
#[derive(Debug, Clone)]
pub struct Paths {
    state_dir: PathBuf,
}

impl Paths {
    /// Makes the directories that are missing, and empties the one for what has no final name yet. **Only one
    /// process may use a state directory.**
    ///
    /// # Errors
    /// If one cannot be made or emptied.
    pub fn open(state_dir: &Path) -> Result<Self, AppError> {
        let paths = Self {
            state_dir: state_dir.to_owned(),
        };
        let tmp = paths.tmp();
        match std::fs::remove_dir_all(&tmp) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(AppError::RemoveDirectory { path: tmp, source });
            }
            _ => {}
        }
        for dir in [paths.vms(), paths.volumes(), tmp] {
            std::fs::create_dir_all(&dir)
                .map_err(|source| AppError::MakeDirectory { path: dir, source })?;
        }
        Ok(paths)
    }

    /// The root of all.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// One directory for each VM, named by its id.
    #[must_use]
    pub fn vms(&self) -> PathBuf {
        self.state_dir.join("vms")
    }

    /// A VM's own directory.
    #[must_use]
    pub fn vm(&self, id: VmId) -> PathBuf {
        self.vms().join(id.to_string())
    }

    /// A VM's writable disk.
    #[must_use]
    pub fn upper_disk(&self, id: VmId) -> PathBuf {
        self.vm(id).join("upper.ext4")
    }

    /// The secret half of a VM's ssh host key.
    #[must_use]
    pub fn ssh_host_key(&self, id: VmId) -> PathBuf {
        self.vm(id).join("ssh-host-key")
    }

    /// One directory for each volume, named by its id.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.state_dir.join("volumes")
    }

    /// A volume's own directory.
    #[must_use]
    pub fn volume(&self, id: VolumeId) -> PathBuf {
        self.volumes().join(id.to_string())
    }

    /// A volume's disk.
    #[must_use]
    pub fn volume_disk(&self, id: VolumeId) -> PathBuf {
        self.volume(id).join(crate::volume::files::DISK)
    }

    /// Swept at start.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.state_dir.join("tmp")
    }
}

/// Removes a directory with all it holds; one that is not there is no error.
pub(crate) async fn remove_tree(path: PathBuf) -> io::Result<()> {
    match tokio::fs::remove_dir_all(&path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes what is in `dir` under a name that is not known; returns how much it was.
pub(crate) async fn sweep(dir: &Path, is_known: impl Fn(&str) -> bool) -> Result<u64, AppError> {
    let unreadable = |source| AppError::ReadDirectory {
        path: dir.to_owned(),
        source,
    };
    let mut swept = 0;
    let mut entries = tokio::fs::read_dir(dir).await.map_err(unreadable)?;
    while let Some(entry) = entries.next_entry().await.map_err(unreadable)? {
        if entry.file_name().to_str().is_some_and(&is_known) {
            continue;
        }
        let path = entry.path();
        let removed = remove_tree(path.clone()).await;
        removed.map_err(|source| AppError::RemoveDirectory { path, source })?;
        swept += 1;
    }
    Ok(swept)
}
