//! Kernel bundles: one `.tar.zst` of a kernel and its modules, the same bytes for the same kernel.
//!
//! ```text
//! manifest.json            what follows: sizes, digests, order (banger-catalog, KernelManifest)
//! vmlinux                  uncompressed
//! modules/NNN-name.ko      uncompressed, in load order
//! ```
//! Read strictly: exactly these members, in this order, each a plain file of the length and digest that the
//! manifest says, and nothing after them.

mod error;
mod export;
mod import;
#[cfg(test)]
mod tests;

pub use error::KernelBundleError;
pub use export::KernelExport;
pub(super) use import::{is_bundle, read};

/// What a bundle's compression begins with; no kernel does.
pub(super) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
