//! Kernels: from a file or a distribution's package to an uncompressed `vmlinux`, the modules a guest needs,
//! and the initramfs that carries the agent.
//!
//! ```text
//! <state dir>/kernels/<id>/vmlinux              uncompressed ELF with a PVH entry
//! <state dir>/kernels/<id>/modules/NNN-name.ko  uncompressed, in load order
//! <state dir>/kernels/<id>/config.json          what is known about it
//! <state dir>/kernels/<id>/initramfs-<agent>.cpio   made when first asked for
//! ```
//! A kernel's directory appears whole, by rename.

mod agent;
mod bundle;
mod bzimage;
mod config;
mod debian;
mod elf;
mod error;
mod feature;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod import;
mod initramfs;
mod inspect;
mod modules;
#[cfg(any(test, feature = "fuzzing"))]
mod samples;
mod store;
#[cfg(test)]
mod tests;

pub use bundle::{KernelBundleError, KernelExport};
pub use error::{KernelError, Lacking};
pub use import::KernelFiles;
pub use store::{ImportedKernel, KernelStore};
