//! Writes an image as a tar of an OCI image layout (OCI image specification, "Image Layout").

use std::fs::File;
use std::io::{self, Write};

use banger_core::Digest;
use banger_core::tree::{TreeEntry, TreeKind};
use serde_json::json;

use crate::document::{Descriptor, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, to_oci_layer};
use crate::store::{ImageStore, StoreError};
use banger_archive::TarWriter;

/// Blobs are read in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// By which tools find an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A layout ready to be written: its files are open, so nothing that is removed meanwhile is missed.
#[derive(Debug)]
pub struct OciLayout {
    documents: Vec<(String, Vec<u8>)>,
    layers: Vec<(String, File, u64)>,
}

impl ImageStore {
    /// Prepares the layout of an image. `tag` is the name by which tools find it there. Blocks, briefly.
    ///
    /// # Errors
    /// [`StoreError::NoLayers`] for an image that came without layers, [`StoreError::Missing`] when a blob
    /// is not there.
    pub fn oci_layout(&self, digest: Digest, tag: &str) -> Result<OciLayout, StoreError> {
        let (bytes, mut manifest, config) = self.documents(digest)?;
        let mut layers = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for layer in &manifest.layers {
            if seen.insert(layer.digest) {
                let path = self.blob_path(layer.digest);
                let missing = |_| StoreError::Missing { digest };
                let file = File::open(&path).map_err(missing)?;
                if file.metadata().map_err(missing)?.len() != layer.size {
                    return Err(StoreError::Missing { digest });
                }
                layers.push((blob(layer.digest), file, layer.size));
            }
        }
        // A layout holds OCI documents: those of Docker say the same in other words.
        let bytes = if manifest.media_type == OCI_MANIFEST || manifest.media_type.is_empty() {
            bytes
        } else {
            manifest.media_type = OCI_MANIFEST.into();
            manifest.config.media_type = OCI_CONFIG.into();
            manifest.layers = manifest.layers.into_iter().map(to_oci_layer).collect();
            serde_json::to_vec(&manifest).expect("plain data serialises")
        };
        let mut described = Descriptor::new(OCI_MANIFEST, Digest::of(&bytes), bytes.len() as u64);
        if !tag.is_empty() {
            described.annotations.insert(REF_NAME.into(), tag.into());
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [described],
        });
        let documents = vec![
            (
                "oci-layout".into(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
            ("index.json".into(), index.to_string().into_bytes()),
            (blob(Digest::of(&bytes)), bytes),
            (blob(Digest::of(&config)), config),
        ];
        Ok(OciLayout { documents, layers })
    }
}

fn blob(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl OciLayout {
    /// Bytes of all files in it.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        let documents = self.documents.iter().map(|(_, bytes)| bytes.len() as u64);
        documents
            .chain(self.layers.iter().map(|(.., size)| *size))
            .sum()
    }

    /// Writes the tar. Blocks.
    ///
    /// # Errors
    /// When a blob cannot be read or `to` not be written.
    pub fn write_to(self, to: impl Write) -> io::Result<()> {
        let mut tar = TarWriter::new(to);
        for name in ["blobs", "blobs/sha256"] {
            tar.entry(&entry(name, TreeKind::Directory, 0o755))?;
        }
        for (name, bytes) in &self.documents {
            let size = bytes.len() as u64;
            tar.entry(&entry(name, TreeKind::File { size }, 0o644))?;
            tar.data(bytes)?;
        }
        let mut piece = vec![0; PIECE_BYTES];
        for (name, mut file, size) in self.layers {
            tar.entry(&entry(&name, TreeKind::File { size }, 0o644))?;
            loop {
                let read = crate::tar::read_up_to(&mut file, &mut piece)?;
                if read == 0 {
                    break;
                }
                tar.data(&piece[..read])?;
            }
        }
        tar.finish()?.flush()
    }
}

fn entry(path: &str, kind: TreeKind, mode: u16) -> TreeEntry {
    TreeEntry {
        path: path.into(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        xattrs: std::collections::BTreeMap::new(),
    }
}
