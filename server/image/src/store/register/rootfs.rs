//! Archives of a root file system, and finding out what an archive is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use banger_core::Digest;
use banger_core::image::{ImageConfig, Platform};
use sha2::{Digest as _, Sha256};

use super::{Found, Reading};
use crate::document::{Descriptor, OCI_LAYER};
use crate::layer::{Destination, Kept, LayerSource, READ_BYTES, index_layer};
use crate::limits::BLOB_BYTES_MAX;
use crate::store::StoreError;
use crate::store::plan::Plan;
use crate::store::source::Region;
use crate::tar::Budget;
use crate::watched::Watched;

/// What an archive is.
#[derive(Debug)]
pub(super) struct Measured {
    /// As a layer.
    pub(super) descriptor: Descriptor,
    /// Of the plain archive.
    pub(super) diff_id: Digest,
    /// The plain archive, where the file is not it.
    pub(super) plain: Option<File>,
}

/// Makes an image of one layer, `known` where it was read already. Blocks.
pub(super) fn inspect(
    path: &Path,
    config: ImageConfig,
    platform: &Platform,
    known: Option<Measured>,
    reading: &Reading,
) -> Result<Found, StoreError> {
    let file = File::open(path).map_err(StoreError::source(path))?;
    let metadata = file.metadata().map_err(StoreError::source(path))?;
    if !metadata.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(StoreError::source(path)(error));
    }
    let region = Region::new(Arc::new(file), 0, metadata.len());
    let measured = match known {
        Some(known) => known,
        None => measure(&region, path, reading)?,
    };
    let files = vec![(measured.descriptor.digest, region)];
    let plan = Plan::synthesise(
        vec![measured.descriptor],
        vec![measured.diff_id],
        config,
        platform,
    )?;
    Ok((plan, files))
}

/// Reads an archive once, to know its digests. Blocks.
pub(super) fn measure(
    region: &Region,
    path: &Path,
    reading: &Reading,
) -> Result<Measured, StoreError> {
    if region.len() > BLOB_BYTES_MAX {
        let error = io::Error::new(
            io::ErrorKind::InvalidData,
            format!("larger than {BLOB_BYTES_MAX} bytes"),
        );
        return Err(StoreError::source(path)(error));
    }
    let suffix = suffix(region).map_err(StoreError::source(path))?;
    let mut hashing = Hashing {
        inner: Watched::new(region.reader(), reading.cancel.clone()),
        hasher: Sha256::new(),
    };
    let unknown = Digest::of(b"");
    let source = LayerSource {
        reader: io::BufReader::with_capacity(READ_BYTES, &mut hashing),
        digest: unknown,
        size_bytes: region.len(),
    };
    let (to, cancel) = (Destination::Spool(reading.tmp.clone()), &reading.cancel);
    let indexed =
        index_layer(source, to, &Budget::default(), cancel).map_err(|error| match error {
            crate::layer::LayerError::Archive { source, .. } => StoreError::Archive {
                path: path.to_owned(),
                source,
            },
            error => error.into(),
        })?;
    // What a decompressor leaves unread belongs to the file too.
    io::copy(&mut hashing, &mut io::sink()).map_err(StoreError::source(path))?;
    let digest = Digest::from_sha256(hashing.hasher.finalize().into());
    let descriptor = Descriptor::new(&format!("{OCI_LAYER}{suffix}"), digest, region.len());
    Ok(Measured {
        descriptor,
        diff_id: indexed.diff_id,
        plain: match indexed.kept {
            Kept::Archive(file) => Some(file),
            Kept::Blob | Kept::Disk => None,
        },
    })
}

/// Whether the bytes are a compressed archive.
pub(super) fn is_compressed(region: &Region) -> io::Result<bool> {
    Ok(!suffix(region)?.is_empty())
}

/// What a layer of these bytes has at the end of its media type.
fn suffix(region: &Region) -> io::Result<&'static str> {
    let mut first = [0; 4];
    crate::tar::read_up_to(&mut region.reader(), &mut first)?;
    Ok(match first {
        [0x1f, 0x8b, ..] => "+gzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
        _ => "",
    })
}

struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.hasher.update(&buf[..read]);
        Ok(read)
    }
}
