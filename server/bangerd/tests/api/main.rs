//! The API as its callers see it: real gRPC over a real Unix socket, a real database and real files, with VMs
//! and agents that are no processes.
#![allow(missing_docs)]
#![allow(
    clippy::unwrap_used,
    reason = "all of it is test code, also outside #[test] functions"
)]

mod access;
mod agent;
mod builds;
mod cancels;
mod catalogs;
mod chaos;
mod daemon;
mod disk;
mod doctor;
mod dropped;
mod errors;
mod events;
mod exports;
mod file_agent;
mod files;
mod gone;
mod growth;
mod hangups;
mod held;
mod image_turns;
mod images;
mod life;
mod limits;
mod operations;
mod real_agent;
mod registry;
mod remote;
mod reserve;
mod rig;
mod seed;
mod sessions;
mod setup;
mod ssh;
mod stats;
mod stop;
mod takeover;
mod tunnels;
mod unknown;
mod uploads;
mod verbs;
mod vms;
mod volume_disks;
mod volumes;
mod workspace_agent;
mod workspaces;
