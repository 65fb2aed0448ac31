//! The domain of banger: ids, specs, states, lifecycle rules, and the ports that drivers implement.
//!
//! Nothing here does I/O, speaks gRPC or knows SQL. Every other crate of the server depends on this
//! one and agrees with the others through its types:
//!
//! ```text
//! core ← {store, image} ← app ← bangerd        core ← {vmm, guest} ← bangerd
//! ```
#![forbid(unsafe_code)]

pub mod access;
pub mod audit;
pub mod catalog;
pub mod digest;
pub mod doctor;
pub mod event;
pub mod failure;
pub mod file;
pub mod guest;
pub mod host_io;
pub mod id;
pub mod image;
pub mod kernel;
pub mod lifecycle;
pub mod name;
pub mod operation;
pub mod owner;
pub mod port;
pub mod session;
pub mod setup;
pub mod size;
pub mod stats;
pub mod tree;
pub mod tunnel;
pub mod vm;
pub mod vmm;
pub mod volume;
pub mod workspace;

pub use access::{Identity, Role, Scope};
pub use digest::Digest;
pub use failure::{Explain, Failure, FailureKind, chain};
pub use id::{ImageId, KernelId, OperationId, SessionId, VmId, VolumeId, WriterId};
pub use name::Name;
pub use owner::Owner;

/// The time type of the domain: an instant, nanoseconds since the Unix epoch, UTC.
pub type Timestamp = jiff::Timestamp;

/// A span between two instants of [`Timestamp`].
pub use jiff::SignedDuration;
