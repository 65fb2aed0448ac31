//! Random git histories, random work in a repository, and what of both must be the same where it was carried: for the tests
//! of the two halves of a workspace, and for those with real virtual machines.
//!
//! A case does its work here, with git and by file; what it does can be recorded as a script, which does the same in a VM.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::missing_panics_doc, reason = "see above")]

mod check;
mod git;
mod hands;
mod history;
mod script;
mod tree;

pub use check::{
    Came, check_applied, check_landed, check_patch, check_prepared, is_appliable, refs,
};
pub use git::{commit, git, git_bytes, git_into, try_git, write};
pub use history::{Case, SUBMODULE, Situation};
pub use script::PRELUDE;
pub use tree::{Tree, assert_same, in_git, tree, without_ignored};
