//! Where the store's files are, and how they get there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use banger_core::Digest;
use tempfile::NamedTempFile;

use super::StoreError;

/// Changes whenever a disk of before could not stand for a new one. Another layout of the same files is no reason: whoever
/// has such a disk need not make it again.
const ROOTFS_FORMAT: &str = "v3";

/// What the names of records end with.
pub(super) const RECORD_EXTENSION: &str = "layers";

/// The directories of one store.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    blobs: PathBuf,
    rootfs: PathBuf,
    tmp: PathBuf,
    unsynced: PathBuf,
}

impl Layout {
    /// Makes the directories and sweeps `tmp/`.
    pub(super) fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let layout = Self {
            blobs: state_dir.join("blobs/sha256"),
            rootfs: state_dir.join("rootfs"),
            tmp: state_dir.join("tmp/images"),
            unsynced: state_dir.join("unsynced"),
        };
        let directories = [&layout.blobs, &layout.rootfs, &layout.tmp, &layout.unsynced];
        for directory in directories {
            fs::create_dir_all(directory)
                .map_err(StoreError::io("create the directory", directory))?;
        }
        for entry in
            fs::read_dir(&layout.tmp).map_err(StoreError::io("read the directory", &layout.tmp))?
        {
            let path = entry
                .map_err(StoreError::io("read the directory", &layout.tmp))?
                .path();
            let swept = if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            // It takes space, and keeps nobody from the images: each work's name is its own.
            if let Err(error) = swept {
                tracing::error!(path = %path.display(), %error, "could not remove a temporary file of an earlier process");
            }
        }
        Ok(layout)
    }

    pub(super) fn blob(&self, digest: Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    pub(super) fn rootfs(&self, manifest: Digest) -> PathBuf {
        self.rootfs
            .join(format!("{}-{ROOTFS_FORMAT}.ext4", manifest.hex()))
    }

    /// What is kept of an image's layers beside its base disk.
    pub(super) fn record(&self, manifest: Digest) -> PathBuf {
        self.rootfs(manifest).with_extension(RECORD_EXTENSION)
    }

    pub(super) fn blobs_directory(&self) -> &Path {
        &self.blobs
    }

    pub(super) fn rootfs_directory(&self) -> &Path {
        &self.rootfs
    }

    /// For the marks of what is not synced.
    pub(super) fn unsynced(&self) -> &Path {
        &self.unsynced
    }

    /// The base disk or blob that has the name of `mark`.
    pub(super) fn file_of(&self, mark: &Path) -> PathBuf {
        let name = mark.file_name().expect("it is in a directory");
        let is_disk = mark.extension().is_some();
        if is_disk { &self.rootfs } else { &self.blobs }.join(name)
    }

    /// The image of a base disk.
    pub(super) fn image_of(&self, disk: &Path) -> Option<Digest> {
        let name = disk.strip_prefix(&self.rootfs).ok()?.to_str()?;
        format!("sha256:{}", name.split_once('-')?.0).parse().ok()
    }

    pub(super) fn tmp(&self) -> &Path {
        &self.tmp
    }

    /// Keeps a small blob whose digest is known to be right, in the place of one that was damaged. Blocks.
    pub(super) fn keep_blob(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.blob(digest);
        let has_length = |metadata: fs::Metadata| metadata.len() == bytes.len() as u64;
        if fs::metadata(&path).is_ok_and(has_length)
            && fs::read(&path).is_ok_and(|kept| kept == bytes)
        {
            return Ok(());
        }
        let write = || -> io::Result<()> {
            let mut file = NamedTempFile::with_prefix_in("document-", &self.tmp)?;
            io::Write::write_all(&mut file, bytes)?;
            publish(file, &path)
        };
        write().map_err(StoreError::io("write", &path))
    }
}

/// Makes a file durable under its final name, replacing what had it. Blocks.
pub(crate) fn publish(file: NamedTempFile, to: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(to).map_err(|error| error.error)?;
    sync_directory(to)
}

/// Makes the entry of `path` in its directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
