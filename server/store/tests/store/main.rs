//! The store through its public API, on real files.
#![allow(missing_docs)]

mod crash;
mod disk_full;
mod errors;
mod file;
mod image;
mod kernel;
mod load;
mod operation;
mod process;
mod session;
mod support;
mod vm;
