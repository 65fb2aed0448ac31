//! Bundles and catalogs: the documents, their bounds, their signatures, and what is refused and why.
//!
//! ```text
//! bundle          .tar.zst of manifest.json (ImageManifest) and rootfs.ext4
//! kernel bundle   .tar.zst of manifest.json (KernelManifest), vmlinux and modules/NNN-name.ko
//! catalog.json    an envelope: the index as its payload, and ed25519 signatures over it
//!                 (DSSE v1.0.0, "Dead Simple Signing Envelope")
//! ```
//! Whoever publishes makes an [`Index`], and [`seal`]s it. Whoever uses it pins the [`PublicKey`] once, and then
//! [`open`]s each version with what was [`Seen`] before: an index that is unsigned, signed by another key, changed
//! on the way, expired, older than the last one, or another one under the same version is refused.
//!
//! Nothing here does I/O. Documents are parsed strictly: a field nobody knows, a key twice or a name that could
//! be a path elsewhere is an error, so that a document means one thing to every reader.
#![forbid(unsafe_code)]

mod document;
mod envelope;
mod error;
mod image;
mod index;
mod kernel;
mod key;
mod limits;
mod text;
mod version;

pub use banger_core::Digest;
pub use document::DocumentProblem;
pub use envelope::{OpenedIndex, Seen, check_time, open, seal};
pub use error::CatalogError;
pub use image::{ImageManifest, ImageParts, RootfsPart};
pub use index::{BundleEntry, FilePart, Index, KernelEntry};
pub use kernel::{KernelManifest, KernelParts, ModulePart, VmlinuxPart};
pub use key::{KeyError, PublicKey, SecretKey};
pub use limits::{
    CATALOG_BYTES_MAX, ENTRIES_MAX, MANIFEST_BYTES_MAX, MODULE_BYTES_MAX, MODULES_BYTES_MAX,
    MODULES_MAX, ROOTFS_BYTES_MAX, VMLINUX_BYTES_MAX,
};
pub use text::{ArtifactPath, BundleName, BundleVersion, TextError};

/// The file a catalog is, below its address.
pub const CATALOG_FILE: &str = "catalog.json";
/// The member of a bundle that says what it holds.
pub const MANIFEST_MEMBER: &str = "manifest.json";
/// The member of a bundle that is the image's base disk.
pub const ROOTFS_MEMBER: &str = "rootfs.ext4";
/// The member of a kernel bundle that is the kernel.
pub const VMLINUX_MEMBER: &str = "vmlinux";
/// The directory of a kernel bundle's modules, with its slash.
pub const MODULES_PREFIX: &str = "modules/";
