//! The half of a workspace on its owner's machine.
//!
//! ```text
//! a repository ─► Source (collect) ─► parts ─► the VM
//! the VM ─► parts ─► Landing (quarantine, checked) ─► refs/banger/<vm>/… ─► apply, when it is asked for
//! ```
//! The owner's repository is believed, what comes from a VM is not. Collecting writes nothing. Landing writes objects
//! that were checked and references beneath `refs/banger/`, and touches neither index nor working tree. Only
//! [`apply`] changes those, and leaves a way back.

pub mod apply;
pub mod collect;
mod error;
mod expect;
pub mod land;
mod lines;
pub mod plain;
mod programs;
pub mod render;
mod repository;
mod store;
mod user;

pub use error::{Error, Result};
pub use expect::{Expected, expected_conflicts};
pub use lines::shown;
pub use repository::LocalRepository;
pub use store::{Store, vm_prefix};
