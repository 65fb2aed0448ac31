//! Removing images, and what nothing needs any more.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use banger_catalog::ImageManifest;
use banger_core::Digest;

use super::{ImageStore, StoreError};
use crate::document::Document;
use crate::limits::MANIFEST_BYTES_MAX;

/// What pruning removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs and base disks.
    pub files: u64,
    /// Their space on the host.
    pub bytes: u64,
}

/// What to do with what nothing needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Remove it.
    Remove,
    /// Tell of it only.
    Tell,
}

/// What a file of the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptKind {
    /// A base disk, or the record of what its layers are on it.
    Rootfs,
    /// A manifest, a configuration or a layer.
    Blob,
}

/// A file that an image needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: KeptKind,
    /// Its space on the host; 0 where it is not there.
    pub bytes: u64,
}

/// The files that an image needs.
#[derive(Debug)]
pub struct ImageFiles {
    /// Those that are known: its base disk's, its manifest, and what that names.
    pub kept: Vec<KeptFile>,
    /// Why its manifest could not be read; then what that names is not known.
    pub unreadable: Option<StoreError>,
}

impl ImageStore {
    /// Removes an image's base disk with its record, and its manifest, and returns their space; its other blobs go with [`ImageStore::prune`]. A VM that
    /// has the disk open keeps its content. Removing what is not there is no error. Blocks, briefly.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(&self, manifest: Digest) -> Result<u64, StoreError> {
        let mut freed = 0;
        // The disk first: from then on the image is not loaded any more.
        for path in [
            self.inner.layout.rootfs(manifest),
            self.inner.layout.record(manifest),
            self.inner.layout.blob(manifest),
        ] {
            freed += allocated(&path);
            self.remove_file(&path)?;
        }
        Ok(freed)
    }

    /// The files that an image needs. Blocks, briefly.
    pub fn files_of(&self, manifest: Digest) -> ImageFiles {
        let layout = &self.inner.layout;
        let (mut blobs, unreadable) = match self.blobs_of(manifest) {
            Ok(blobs) => (blobs, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        blobs.push(layout.blob(manifest));
        // An image may have the same layer twice.
        blobs.sort();
        blobs.dedup();
        let rootfs = [layout.rootfs(manifest), layout.record(manifest)];
        let rootfs = rootfs.map(|path| (path, KeptKind::Rootfs)).into_iter();
        let blobs = blobs.into_iter().map(|path| (path, KeptKind::Blob));
        let kept = |(path, kind): (PathBuf, KeptKind)| KeptFile {
            bytes: allocated(&path),
            path,
            kind,
        };
        ImageFiles {
            kept: rootfs.chain(blobs).map(kept).collect(),
            unreadable,
        }
    }

    /// What a manifest names.
    fn blobs_of(&self, manifest: Digest) -> Result<Vec<PathBuf>, StoreError> {
        let layout = &self.inner.layout;
        let bytes = self.read_document(manifest, manifest, MANIFEST_BYTES_MAX)?;
        if ImageManifest::is_claimed(&bytes) {
            return Ok(Vec::new());
        }
        let Document::Manifest(parsed) = Document::parse(&bytes)? else {
            return Ok(Vec::new());
        };
        let layers = parsed.layers.iter().map(|layer| layer.digest);
        let blobs = layers.chain([parsed.config.digest]);
        Ok(blobs.map(|digest| layout.blob(digest)).collect())
    }

    /// Removes every base disk and blob that none of the manifests in `referenced` needs. **Not while a pull
    /// or registration is going on**: what they have brought is not referenced yet. Blocks.
    ///
    /// When a referenced manifest cannot be read, all blobs stay, since it is not known which are its layers; base
    /// disks are named by their image, and go all the same.
    ///
    /// # Errors
    /// When a directory cannot be read or a file not removed.
    pub fn prune(&self, referenced: &HashSet<Digest>, sweep: Sweep) -> Result<Pruned, StoreError> {
        let layout = &self.inner.layout;
        let mut needed: HashSet<PathBuf> = HashSet::new();
        let mut directories = vec![layout.rootfs_directory(), layout.blobs_directory()];
        for manifest in referenced {
            let files = self.files_of(*manifest);
            needed.extend(files.kept.into_iter().map(|file| file.path));
            if let Some(error) = files.unreadable {
                tracing::warn!(
                    image = %manifest,
                    error = banger_core::chain(&error),
                    "an image's manifest cannot be read, so no blob is swept; pull or register the image again, or remove it"
                );
                directories.truncate(1);
            }
        }
        let mut pruned = Pruned::default();
        for directory in directories {
            for entry in
                fs::read_dir(directory).map_err(StoreError::io("read the directory", directory))?
            {
                let path = entry
                    .map_err(StoreError::io("read the directory", directory))?
                    .path();
                if needed.contains(&path) {
                    continue;
                }
                pruned.bytes += allocated(&path);
                pruned.files += 1;
                if sweep == Sweep::Remove {
                    self.remove_file(&path)?;
                }
            }
        }
        Ok(pruned)
    }

    fn remove_file(&self, path: &Path) -> Result<(), StoreError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", path)(error));
            }
            _ => {}
        }
        self.inner.unsynced.forget(path);
        Ok(())
    }
}

/// The space of a file on the host; 0 where it is not there.
fn allocated(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}
