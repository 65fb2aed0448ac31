//! The state of banger in SQLite.
//!
//! Owns the database file, its schema and every SQL statement. Domain types of `banger-core` go in and
//! come out; rows never leave the crate. It decides nothing: what a VM may do is the lifecycle's business,
//! and what a row means for files and processes is the business of whoever writes it.
//!
//! Invariants:
//! - One connection writes, in transactions that take the lock at once (`BEGIN IMMEDIATE`), so no writer of
//!   this process ever sees "database is locked"; a few connections read beside it.
//! - A VM changes by compare-and-set on its generation.
//! - Every method is one transaction: dropped before it resolves, it has happened whole or not at all.
#![forbid(unsafe_code)]

mod audit;
mod catalog;
mod error;
mod health;
mod image;
mod kernel;
mod migrate;
mod operation;
mod page;
mod process;
mod request;
mod row;
mod session;
mod store;
mod vm;
mod volume;
mod workspace;

pub use catalog::CatalogOutcome;
pub use error::StoreError;
pub use health::Health;
pub use image::{TagOutcome, UntagOutcome};
pub use kernel::ReplaceOutcome;
pub use operation::{InsertOperation, Keep, OperationOutcome};
pub use page::Page;
pub use request::{Answer, AnswerBounds, RequestKey};
pub use store::{DeleteOutcome, Store};
pub use vm::{CasOutcome, VmCounts};
pub use workspace::{WORKSPACES_MAX, Workspace};
