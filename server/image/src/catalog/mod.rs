//! Where catalogs lie, and how their files come: over HTTPS, over HTTP on the loopback, or from a directory.
//!
//! What comes is bounded in length and time here, and believed nowhere: an index is opened with the key that was
//! pinned, and an artifact's size and digest are the index's.

mod address;
mod directory;
mod error;
mod http;
mod source;

pub use address::CatalogAddress;
pub use error::SourceError;
pub(crate) use source::ArtifactStream;
pub use source::{CatalogHosts, CatalogSource, SourceOptions};
