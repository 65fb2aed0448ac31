//! The SDK against a daemon without VMs, over real sockets.
#![allow(clippy::unwrap_used, clippy::too_many_lines)] // a test program: a panic is a failed test

mod client;
mod download;
mod every_rpc;
mod fake;
mod tunnel;
