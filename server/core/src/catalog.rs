//! Catalogs: where bundles and kernels are fetched from by name.

use crate::{Failure, Name, Timestamp};

/// A catalog as banger keeps it: where it is, the key that must sign it, and the last index that was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// What people call it here; unique.
    pub name: Name,
    /// Where it is.
    pub url: String,
    /// The key that must sign it; pinned when it was added.
    pub public_key: String,
    /// Of the index below; never goes back.
    pub version: u64,
    /// The index, as it was signed.
    pub payload: Vec<u8>,
    /// From when on the index is not believed any more.
    pub expire_time: Timestamp,
    /// When it was added.
    pub create_time: Timestamp,
    /// When the index came.
    pub refresh_time: Timestamp,
    /// Why the last try to refresh it failed; absent where it did not.
    pub refresh_error: Option<Failure>,
}
