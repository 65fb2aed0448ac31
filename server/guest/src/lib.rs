//! The host side of the guest protocol: the ports [`banger_core::guest::GuestConnector`] and
//! [`banger_core::guest::Guest`] over a channel of some driver.
//!
//! The guest is hostile. Everything it says is bounded and checked here ([`limits`]), its errors are
//! judged anew ([`judge`]), and whatever it does ends in an answer within a deadline ([`Deadlines`]).
#![forbid(unsafe_code)]

mod coding;
mod connector;
mod convert;
mod events;
mod file;
mod guest;
pub mod judge;
pub mod limits;
mod link;
mod observe;
mod pace;
mod tree;
mod tunnel;
mod workspace;

pub use connector::{Connector, Deadlines};
