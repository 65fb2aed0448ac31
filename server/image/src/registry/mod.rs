//! The client side of the OCI distribution protocol, as far as pulling needs it.
//!
//! A client of our own over `reqwest`, because the one on offer (`oci-client`) reads manifests and tokens of
//! any length into memory, hides failed authentication, and hashes each blob twice; what is hard about it,
//! references and challenges, is left to `oci-spec` and `http-auth`.
//!
//! Everything a registry sends is bounded in length and time. Credentials go to the registry, and to the
//! token server it names if that is reached over TLS or the registry is not; redirects carry none.

mod auth;
mod blob;
mod client;
mod error;
mod options;
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use client::Registry;
pub use error::RegistryError;
pub use options::{Credentials, PullOptions};
pub use reference::ImageReference;
