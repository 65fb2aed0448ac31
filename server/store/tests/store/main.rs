//! The store through its public API, on real files.
#![allow(missing_docs, clippy::unwrap_used)] // a test program: a panic is a failed test

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
mod volume;
