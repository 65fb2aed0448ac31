//! Drivers that run virtual machines for banger: adapters from the port in [`banger_core::vmm`] to VMMs.
//!
//! ```text
//! auto ──► qemu/          QEMU's `microvm` machine under KVM or TCG      fake/   no process at all, for tests
//!     └──► firecracker/   Firecracker under KVM, jailed where root
//!             ├── process    pid, pidfd, identity, strays
//!             ├── ceilings   what a VMM's process may take: its cgroup, its limits
//!             ├── scope      a unit of systemd's of its own
//!             ├── exit       how a VMM ended, for everyone
//!             ├── console    bounded log of the serial console
//!             ├── handshake  resynchronises the agent's channel
//!             └── trial      whether KVM really runs a guest, remembered
//! ```
//!
//! Nothing here knows networking beyond what the VMM itself offers, SQL, or the agent's gRPC. A VMM
//! outlives the daemon: dropping a driver or a machine ends no VM.
#![deny(unsafe_code)]

mod auto;
mod ceilings;
pub mod cgroup;
mod channel;
pub mod console;
mod diagnose;
mod dir;
mod exit;
pub mod fake;
pub mod firecracker;
pub mod handshake;
mod log;
pub mod process;
mod program;
pub mod qemu;
mod scope;
mod sys;
mod trial;

pub use auto::{AutoDriver, DriverChoice};
pub use cgroup::CgroupChoice;
pub use fake::{FakeDriver, FakeHost};
pub use firecracker::{FirecrackerConfig, FirecrackerDriver};
pub use qemu::{AcceleratorChoice, QemuConfig, QemuDriver};
pub use scope::ScopeChoice;

/// Says that a rule was not tested, even where the test runner keeps what tests print to itself.
#[cfg(test)]
fn skipped(rule: &str, reason: &str) {
    use std::io::Write;
    // Nothing can be done about a standard error that is closed.
    let _ = writeln!(std::io::stderr(), "SKIPPED {rule}: {reason}");
}
