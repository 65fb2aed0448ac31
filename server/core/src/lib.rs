//! The domain of banger: ids, specs, states, lifecycle rules, and the ports that drivers implement.
//!
//! Nothing here does I/O, speaks gRPC or knows SQL. Every other crate of the server depends on this
//! one and agrees with the others through its types:
//!
//! ```text
//! core ← {store, image} ← app ← bangerd        core ← {vmm, guest} ← bangerd
//! ```
#![forbid(unsafe_code)]

pub mod catalog;
pub mod digest;
pub mod failure;
pub mod guest;
pub mod id;
pub mod image;
pub mod kernel;
pub mod lifecycle;
pub mod name;
pub mod operation;
pub mod session;
pub mod size;
pub mod tree;
pub mod vm;
pub mod vmm;

pub use digest::Digest;
pub use failure::{Explain, Failure, FailureKind, chain};
pub use id::{ImageId, KernelId, OperationId, SessionId, VmId};
pub use name::Name;

/// The time type of the domain: an instant, nanoseconds since the Unix epoch, UTC.
pub type Timestamp = jiff::Timestamp;

/// A span between two instants of [`Timestamp`].
pub use jiff::SignedDuration;
