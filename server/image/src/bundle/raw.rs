//! A bare ext4 file as an image: its bytes are the base disk, and the manifest is made here.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use banger_catalog::{
    BundleName, BundleVersion, ImageManifest, ImageParts, ROOTFS_BYTES_MAX, ROOTFS_MEMBER,
    RootfsPart,
};
use banger_core::image::{ImageConfig, Platform};
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use super::unpack::{Unpacked, copy_disk};
use super::{BUILDER, BundleError};
use crate::watched::Watched;
use crate::writeback::Flush;

/// What a file system without a name is called in its manifest: whoever exports it names it.
const NAME: &str = "ext4";
const VERSION: &str = "0";
/// Where the magic number is, and what it is (kernel documentation, ext4, "The Super Block").
const MAGIC_OFFSET: usize = 1024 + 0x38;
const MAGIC: [u8; 2] = [0x53, 0xef];

/// Whether a file begins like an ext4 file system. Blocks.
pub(crate) fn looks_like_ext4(file: &mut impl Read) -> bool {
    let mut head = [0; MAGIC_OFFSET + 2];
    file.read_exact(&mut head).is_ok() && head.ends_with(&MAGIC)
}

/// Copies a file system of `size_bytes` bytes into a file in `tmp`. Blocks, until `cancel` is cancelled.
pub(crate) fn copy_ext4(
    file: impl Read,
    size_bytes: u64,
    (config, platform): (ImageConfig, Platform),
    tmp: &Path,
    cancel: &CancellationToken,
) -> Result<Unpacked, BundleError> {
    if size_bytes > ROOTFS_BYTES_MAX {
        return Err(BundleError::TooLarge {
            member: ROOTFS_MEMBER,
            size_bytes,
            limit: ROOTFS_BYTES_MAX,
        });
    }
    let disk = NamedTempFile::with_prefix_in("rootfs-", tmp)
        .map_err(BundleError::store("create a file for the base disk"))?;
    // What is not compressed cannot be a bomb.
    let unbounded = AtomicU64::new(u64::MAX);
    let mut file = Watched::new(file, cancel.clone());
    let written = copy_disk(
        &mut file,
        size_bytes,
        (disk.as_file(), Flush::Early),
        &unbounded,
    )?;
    written.check_ext4()?;
    let manifest = ImageManifest::new(ImageParts {
        name: NAME.parse::<BundleName>().expect("a plain word"),
        version: VERSION.parse::<BundleVersion>().expect("a plain word"),
        platform,
        config,
        kernel: None,
        rootfs: RootfsPart {
            size_bytes,
            digest: written.digest,
        },
        builder: BUILDER.to_owned(),
    })
    .map_err(BundleError::Manifest)?;
    Ok(Unpacked {
        manifest_bytes: manifest.to_bytes(),
        manifest,
        disk,
    })
}
