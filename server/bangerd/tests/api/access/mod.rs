//! Who may do what: every method in every role, and another owner's things by every method that takes an id.

mod audit;
pub(crate) mod callers;
pub(crate) mod http2;
mod intake;
mod matrix;
mod noted;
mod owners;
mod pulls;
mod sockets;

pub(crate) use callers::Door;
