//! The banger daemon: one process per host that owns the state, the VMs and the API.
//!
//! ```text
//!   main ─▶ args, config ─▶ lock ─▶ store, driver, agents ─▶ app (reconcile) ─▶ socket ─▶ serve ─▶ drain
//!                                                                               │
//!                                                             grpc: handlers, convert, status
//! ```
//! Nothing here decides what a VM may do: that is `banger-app`. Only this crate names a driver.
#![deny(unsafe_code)]

pub mod access;
pub mod args;
pub mod config;
pub mod connection;
pub mod daemon;
pub mod grpc;
pub mod listen;
pub mod lock;
pub mod logging;
pub mod memory;
pub mod serve;
pub mod shutdown;
pub mod socket;
