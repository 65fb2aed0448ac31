//! The client side of the OCI distribution protocol, as far as pulling needs it.
//!
//! A client of our own over `reqwest`, because the one on offer (`oci-client`) reads manifests and tokens of
//! any length into memory, hides failed authentication, and hashes each blob twice; what is hard about it,
//! references and challenges, is left to `oci-spec` and `http-auth`.
//!
//! Everything a registry sends is bounded in length and time. Credentials go to the registry, and to the
//! token server it names if that is reached over TLS or the registry is not; redirects carry none.
//!
//! ```text
//! Registry: the mirrors in turn, then the registry ── each an Endpoint:
//!    client with its settings' TLS ── fence (where it may lead) ── login ── token
//! ```

mod auth;
mod blob;
mod client;
mod endpoint;
mod error;
mod options;
mod reference;
pub(crate) mod retry;
#[cfg(test)]
mod tests;

pub(crate) use blob::BlobStream;
pub(crate) use client::{Expected, Registry};
pub use error::RegistryError;
pub use options::{PullOptions, Registries, RegistrySettings};
pub use reference::ImageReference;
