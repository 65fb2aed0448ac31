//! HTTP to other hosts, as registries and catalogs need it: whom it trusts, where it may be led, and how slow is too
//! slow.

mod client;
pub(crate) mod fence;
mod host;
pub(crate) mod pace;
pub(crate) mod tls;

pub(crate) use client::Peer;
pub(crate) use host::{is_loopback, settings_of, without_port};
pub use tls::TlsSettings;
