//! The host side of the guest protocol, against a real agent in this process and against hostile ones.
#![allow(missing_docs, clippy::unwrap_used)] // a test program: a panic is a failed test

mod arguments;
mod attach;
mod files;
mod flow;
mod hostile;
mod port;
mod processes;
mod sessions;
mod silence;
mod support;
mod trees;
mod tunnels;
mod uploads;
mod workspaces;
mod writers;
