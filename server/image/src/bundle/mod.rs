//! Bundles: prebuilt images in one `.tar.zst`, read as pure I/O and written deterministically.
//!
//! ```text
//! chunks ─▶ count, SHA-256 ─▶ zstd ─▶ tar members ─┬─▶ manifest.json, kept in memory
//!           (one thread)                           └─▶ rootfs.ext4 ─▶ SHA-256, holes, file in tmp/
//!                                                                     (another thread)
//! ```
//! Nothing is unpacked by name: of the two members that may be there one becomes bytes in memory and the other the
//! content of a file that this host has named. Everything else that can be in an archive is refused.

mod disk;
mod error;
mod member;
mod raw;
mod unpack;
mod write;

pub use error::BundleError;
pub(crate) use raw::{copy_ext4, looks_like_ext4};
pub(crate) use unpack::{Expected, Unpacked, looks_like_bundle, unpack};
pub(crate) use write::{BundleWriting, content_bytes, digest_of_disk, write_bundle};

/// What a manifest says of who wrote it.
pub(crate) const BUILDER: &str = concat!("banger ", env!("CARGO_PKG_VERSION"));
