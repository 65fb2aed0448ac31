//! Drivers that run virtual machines for banger: adapters from the port in [`banger_core::vmm`] to VMMs.
//!
//! ```text
//! qemu/      QEMU's `microvm` machine under KVM or TCG      fake/   no process at all, for tests
//!    │                                                        │
//!    ├── process    pid, pidfd, identity, strays              │
//!    ├── console    bounded log of the serial console         │
//!    └── handshake  resynchronises the agent's channel        │
//! ```
//!
//! Nothing here knows networking beyond what the VMM itself offers, SQL, or the agent's gRPC. A VMM
//! outlives the daemon: dropping a driver or a machine ends no VM.
#![deny(unsafe_code)]

pub mod console;
pub mod fake;
pub mod handshake;
pub mod process;
pub mod qemu;
mod sys;

pub use fake::{FakeDriver, FakeHost};
pub use qemu::{AcceleratorChoice, QemuConfig, QemuDriver};
