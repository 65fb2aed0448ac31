//! Who may do what: every method in every role, and another owner's things by every method that takes an id.

mod audit;
mod callers;
mod matrix;
mod owners;
mod pulls;

pub(crate) use callers::Door;
