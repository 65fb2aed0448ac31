//! Workspaces prepared and landed, with git as a user runs it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apply;
mod collect;
mod hostile;
mod kill;
mod landing;
mod plain;
mod round_trip;
mod since;
mod support;
