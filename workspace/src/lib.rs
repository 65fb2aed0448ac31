//! Workspaces: trees of files, mostly git repositories, that go into a VM and come back.
//!
//! ```text
//! a tree ─► collected ─► snapshot (wire) ─► judged by each hop ─► a tree, or objects in a quarantine
//! ```
//! [`wire`] is the snapshot and what is allowed in one; [`command`] runs git; [`guest`] is the half that works in the
//! VM, as one of its users. Everything here blocks and belongs on threads of its own; nothing here knows of gRPC.
#![forbid(unsafe_code)]

mod beneath;
#[cfg(feature = "client")]
pub mod client;
pub mod command;
pub mod guest;
pub mod wire;
