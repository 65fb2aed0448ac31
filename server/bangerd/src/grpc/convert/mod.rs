//! Between the messages of the API and the types of the domain. Every field that comes in is checked here or
//! by the service that takes it; every number that goes out fits.

pub(crate) mod audit;
pub(crate) mod catalog;
pub(crate) mod change;
pub(crate) mod event;
pub(crate) mod field;
pub(crate) mod file;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod kernel;
pub(crate) mod operation;
pub(crate) mod page;
pub(crate) mod session;
pub(crate) mod setup;
pub(crate) mod stats;
pub(crate) mod tunnel;
pub(crate) mod usage;
pub(crate) mod vm;
pub(crate) mod volume;
pub(crate) mod workspace;
