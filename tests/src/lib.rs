//! What the tests with real virtual machines stand on: the binaries under test, daemons in scratch directories,
//! real and lying registries, images made by other tools, and the search for what a test left behind.
//!
//! A harness fails by panicking: the case that used it is then the one that failed, and its message names the
//! step. Nothing here decides what banger should do; the cases in `tests/e2e/` do.
#![deny(unsafe_code)] // allowed in `sys` alone
#![allow(clippy::unwrap_used)] // see above
#![allow(clippy::missing_panics_doc)] // see above

pub mod binaries;
pub mod command;
pub mod daemon;
pub mod disk;
pub mod image;
pub mod kernel;
pub mod layer;
pub mod leftovers;
pub mod liar;
pub mod made;
pub mod pki;
pub mod registry;
pub mod runner;
pub mod scratch;
pub mod small;
mod sys;
pub mod vmm;
pub mod web;

pub use binaries::Binaries;
pub use command::{Done, Run};
pub use daemon::{Daemon, DaemonOptions};
pub use pki::Pki;
pub use runner::{After, Case, Lane, Verdict, run};
pub use scratch::Scratch;
