//! The signed envelope, and the checks before an index is believed.
//!
//! DSSE v1.0.0 (github.com/secure-systems-lab/dsse, `envelope.md` and `protocol.md`): what is signed is
//! `"DSSEv1" SP len(type) SP type SP len(payload) SP payload`, lengths in decimal.

use banger_core::{Digest, Name, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::CatalogError;
use crate::index::Index;
use crate::key::{PublicKey, SecretKey};
use crate::limits::{CATALOG_BYTES_MAX, SIGNATURES_MAX};

const PAYLOAD_TYPE: &str = "application/vnd.banger.catalog.v1+json";

/// Fields that other signers may add are not ours to judge: only the payload is believed, and only signed.
#[derive(Serialize, Deserialize)]
struct Envelope {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    #[serde(default)]
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Serialize, Deserialize)]
struct EnvelopeSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// The last index of a catalog that was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: u64,
    /// Of its bytes.
    pub digest: Digest,
}

/// An index that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedIndex {
    /// What it says.
    pub index: Index,
    /// Its bytes, to be kept and parsed again with [`Index::parse`].
    pub payload: Vec<u8>,
    /// Of its bytes.
    pub digest: Digest,
}

impl OpenedIndex {
    /// What to remember of it.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen {
            name: self.index.name.clone(),
            version: self.index.version,
            digest: self.digest,
        }
    }
}

/// Signs an index with all `keys`: the bytes of a `catalog.json`.
///
/// # Errors
/// If the index is outside its bounds, or there is no key or too many.
pub fn seal(index: &Index, keys: &[SecretKey]) -> Result<Vec<u8>, CatalogError> {
    if keys.is_empty() || keys.len() > SIGNATURES_MAX {
        return Err(CatalogError::Unsigned);
    }
    let payload = index.to_bytes().map_err(CatalogError::Invalid)?;
    let message = pre_authentication(PAYLOAD_TYPE, &payload);
    let signature = |key: &SecretKey| EnvelopeSignature {
        keyid: key.public().id(),
        sig: STANDARD.encode(key.sign(&message)),
    };
    let envelope = Envelope {
        payload_type: PAYLOAD_TYPE.to_owned(),
        payload: STANDARD.encode(&payload),
        signatures: keys.iter().map(signature).collect(),
    };
    let bytes = serde_json::to_vec(&envelope).expect("plain data serialises");
    if bytes.len() as u64 > CATALOG_BYTES_MAX {
        return Err(CatalogError::TooLarge {
            limit: CATALOG_BYTES_MAX,
        });
    }
    Ok(bytes)
}

/// Opens a `catalog.json` for who has pinned `key` and has last believed `seen`.
///
/// # Errors
/// Each reason not to believe it.
pub fn open(
    bytes: &[u8],
    key: &PublicKey,
    seen: Option<&Seen>,
    now: Timestamp,
) -> Result<OpenedIndex, CatalogError> {
    let payload = authentic_payload(bytes, key)?;
    let index = Index::parse(&payload).map_err(CatalogError::Invalid)?;
    let opened = OpenedIndex {
        index,
        digest: Digest::of(&payload),
        payload,
    };
    if let Some(seen) = seen {
        check_seen(&opened, seen)?;
    }
    check_time(&opened.index, now)?;
    Ok(opened)
}

/// Whether an index may still be used.
///
/// # Errors
/// [`CatalogError::Expired`].
pub fn check_time(index: &Index, now: Timestamp) -> Result<(), CatalogError> {
    if now < index.expire_time {
        return Ok(());
    }
    Err(CatalogError::Expired {
        expire_time: index.expire_time,
    })
}

/// The payload, if `key` has signed it. Nothing of it is looked at before.
fn authentic_payload(bytes: &[u8], key: &PublicKey) -> Result<Vec<u8>, CatalogError> {
    if bytes.len() as u64 > CATALOG_BYTES_MAX {
        return Err(CatalogError::TooLarge {
            limit: CATALOG_BYTES_MAX,
        });
    }
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(CatalogError::Malformed)?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(CatalogError::OtherType {
            found: envelope.payload_type.chars().take(80).collect(),
        });
    }
    let payload = STANDARD
        .decode(&envelope.payload)
        .map_err(|_| CatalogError::Encoding)?;
    if envelope.signatures.is_empty() {
        return Err(CatalogError::Unsigned);
    }
    if envelope.signatures.len() > SIGNATURES_MAX {
        return Err(CatalogError::TooManySignatures {
            limit: SIGNATURES_MAX,
        });
    }
    let message = pre_authentication(PAYLOAD_TYPE, &payload);
    let id = key.id();
    let mut named = false;
    for signature in &envelope.signatures {
        // The id is a hint that nobody signed: one that fits tells a changed index from a foreign one.
        named |= signature.keyid == id;
        let bytes = STANDARD
            .decode(&signature.sig)
            .map_err(|_| CatalogError::Encoding)?;
        if key.verifies(&message, &bytes) {
            return Ok(payload);
        }
    }
    Err(if named {
        CatalogError::Tampered
    } else {
        CatalogError::WrongKey {
            pinned: key.to_string(),
        }
    })
}

fn check_seen(opened: &OpenedIndex, seen: &Seen) -> Result<(), CatalogError> {
    let Index { name, version, .. } = &opened.index;
    if *name != seen.name {
        return Err(CatalogError::OtherCatalog {
            expected: seen.name.clone(),
            found: name.clone(),
        });
    }
    if *version < seen.version {
        return Err(CatalogError::RolledBack {
            seen: seen.version,
            found: *version,
        });
    }
    if *version == seen.version && opened.digest != seen.digest {
        return Err(CatalogError::Equivocation { version: *version });
    }
    Ok(())
}

fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests;
