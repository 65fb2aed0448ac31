//! The store of images as its callers use it: pulled, imported, converted, refused.
#![allow(clippy::unwrap_used, clippy::too_many_lines)] // a test program, some of whose functions are tables

mod bundle;
mod convert;
mod early;
mod exact;
mod fuzz;
mod kernel;
mod malformed;
mod records;
mod refusing;
mod registry;
mod support;
mod tls;
mod unsynced;
