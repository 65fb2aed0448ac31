//! Removing images, and what nothing needs any more.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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

impl ImageStore {
    /// Removes an image's base disk and manifest; its other blobs go with [`ImageStore::prune`]. A VM that
    /// has the disk open keeps its content. Removing what is not there is no error. Blocks, briefly.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(&self, manifest: Digest) -> Result<(), StoreError> {
        // The disk first: from then on the image is not loaded any more.
        for path in [
            self.inner.layout.rootfs(manifest),
            self.inner.layout.blob(manifest),
        ] {
            remove(&path)?;
        }
        Ok(())
    }

    /// Removes every base disk and blob that none of the manifests in `referenced` needs. **Not while a pull
    /// or registration is going on**: what they have brought is not referenced yet. Blocks.
    ///
    /// # Errors
    /// When a directory cannot be read or a file not removed, or when a referenced manifest cannot be read:
    /// then nothing is removed, since its layers are not known.
    pub fn prune(&self, referenced: &HashSet<Digest>) -> Result<Pruned, StoreError> {
        let layout = &self.inner.layout;
        let mut needed: HashSet<PathBuf> = HashSet::new();
        for manifest in referenced {
            let path = layout.blob(*manifest);
            let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
            if bytes.len() as u64 > MANIFEST_BYTES_MAX {
                continue;
            }
            if let Document::Manifest(parsed) = Document::parse(&bytes)? {
                needed.extend(parsed.layers.iter().map(|layer| layout.blob(layer.digest)));
                needed.insert(layout.blob(parsed.config.digest));
            }
            needed.extend([path, layout.rootfs(*manifest)]);
        }
        let mut pruned = Pruned::default();
        for directory in [layout.rootfs_directory(), layout.blobs_directory()] {
            for entry in
                fs::read_dir(directory).map_err(StoreError::io("read the directory", directory))?
            {
                let path = entry
                    .map_err(StoreError::io("read the directory", directory))?
                    .path();
                if !needed.contains(&path) {
                    pruned.bytes +=
                        fs::symlink_metadata(&path).map_or(0, |metadata| metadata.blocks() * 512);
                    pruned.files += 1;
                    remove(&path)?;
                }
            }
        }
        Ok(pruned)
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
