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

mod bzimage;
mod debian;
mod elf;
mod error;
mod initramfs;
mod modules;
mod store;
#[cfg(test)]
mod tests;

pub use error::KernelError;
pub use store::{ImportedKernel, KernelStore};
