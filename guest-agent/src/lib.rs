//! The agent of banger: process 1 of every guest, or beside it where an image brings its own init. It boots the guest's
//! user space, runs sessions and serves the guest protocol on the channel that the VMM supplies.
//!
//! ```text
//! boot ─► mounts, modules, disks, pivot         (a thread: blocking system calls)
//! port, or vsock ─► handshake ─► serve ─► service ─► session   (one more: the async runtime)
//! ```
//! It trusts its host and nobody else: what processes, images and the line itself bring is bounded.
#![deny(unsafe_code)]

pub mod agent;
mod beat;
pub mod boot;
pub mod configure;
mod convert;
mod events;
pub mod file;
mod files;
pub mod handshake;
pub mod identity;
pub mod init;
mod observe;
pub mod port;
pub mod power;
pub mod reap;
pub mod refusal;
pub mod serve;
pub mod service;
pub mod session;
pub mod sys;
pub mod tree;
pub mod tunnel;
pub mod vmm;
pub mod volume;
pub mod vsock;
pub mod workspace;
