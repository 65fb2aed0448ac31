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
    /// If one cannot be made or read.
    pub fn open(state_dir: &Path) -> Result<Self, AppError> {
        let paths = Self {
            state_dir: state_dir.to_owned(),
        };
        let tmp = paths.tmp();
        for dir in [paths.vms(), paths.volumes(), tmp.clone()] {
            std::fs::create_dir_all(&dir)
                .map_err(|source| AppError::MakeDirectory { path: dir, source })?;
        }
        let unreadable = |source| AppError::ReadDirectory {
            path: tmp.clone(),
            source,
        };
        for entry in std::fs::read_dir(&tmp).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            // What cannot be removed takes space, and keeps no daemon from serving: each work's name is its own.
            let removed = match path.is_dir() && !path.is_symlink() {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
            if let Err(error) = removed {
                tracing::error!(path = %path.display(), %error, "could not remove a temporary file of an earlier daemon");
            }
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

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Removed.
    pub(crate) gone: u64,
    /// Could not be removed; the log says why.
    pub(crate) left: u64,
}

impl std::ops::AddAssign for Swept {
    fn add_assign(&mut self, other: Self) {
        self.gone += other.gone;
        self.left += other.left;
    }
}

/// Removes what is in `dir` under a name that is not known. What cannot be removed is logged, and keeps nothing else.
pub(crate) async fn sweep(dir: &Path, is_known: impl Fn(&str) -> bool) -> Result<Swept, AppError> {
    let unreadable = |source| AppError::ReadDirectory {
        path: dir.to_owned(),
        source,
    };
    let mut swept = Swept::default();
    let mut entries = tokio::fs::read_dir(dir).await.map_err(unreadable)?;
    while let Some(entry) = entries.next_entry().await.map_err(unreadable)? {
        if entry.file_name().to_str().is_some_and(&is_known) {
            continue;
        }
        let path = entry.path();
        match remove_any(path.clone()).await {
            Ok(()) => swept.gone += 1,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "could not remove what nothing owns");
                swept.left += 1;
            }
        }
    }
    Ok(swept)
}

/// Removes a file, or a directory with all it holds.
async fn remove_any(path: PathBuf) -> io::Result<()> {
    match remove_tree(path.clone()).await {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            tokio::fs::remove_file(path).await
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sweep_removes_what_is_not_known_files_too() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("stray/deep")).unwrap();
        std::fs::create_dir(dir.path().join("known")).unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        let swept = sweep(dir.path(), |name| name == "known").await.unwrap();
        assert_eq!(swept, Swept { gone: 2, left: 0 });
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert!(sweep(&dir.path().join("none"), |_| true).await.is_err());
    }
}
