//! Why a catalog's index is not believed.

use banger_core::{Explain, FailureKind, Name, Timestamp};

use crate::document::DocumentProblem;

/// An index that is not believed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Over its bound.
    #[error("the catalog's index has more than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// No envelope.
    #[error("what is at the catalog's address is no catalog.json")]
    Malformed(#[source] serde_json::Error),
    /// An envelope of something else.
    #[error("the signed document is a `{found}`, not a catalog's index of this banger")]
    OtherType {
        /// What it says, cut.
        found: String,
    },
    /// Payload or signature that are not base64.
    #[error("the catalog.json holds what is not base64")]
    Encoding,
    /// More signatures than anybody needs.
    #[error("the catalog.json has more than {limit} signatures")]
    TooManySignatures {
        /// The bound.
        limit: usize,
    },
    /// No signature at all.
    #[error("the catalog's index is not signed")]
    Unsigned,
    /// Signed, but not by the pinned key.
    #[error("the catalog's index is not signed by the key it was added with, {pinned}")]
    WrongKey {
        /// The key.
        pinned: String,
    },
    /// It names the pinned key, whose signature does not fit.
    #[error("the catalog's index was changed after it was signed")]
    Tampered,
    /// Signed, and still not right.
    #[error("the catalog's index makes no sense")]
    Invalid(#[source] DocumentProblem),
    /// Too old to be believed.
    #[error("the catalog's index expired at {expire_time}")]
    Expired {
        /// When.
        expire_time: Timestamp,
    },
    /// Older than one that was believed before.
    #[error("the catalog's index has version {found}, but version {seen} was seen before")]
    RolledBack {
        /// The version seen before.
        seen: u64,
        /// The version that came.
        found: u64,
    },
    /// Two indexes under one version.
    #[error("the catalog has another content than before under the same version {version}")]
    Equivocation {
        /// The version.
        version: u64,
    },
    /// Another catalog that the same key signs.
    #[error("this is the index of the catalog {found}, not of {expected}")]
    OtherCatalog {
        /// What was there before.
        expected: Name,
        /// What came.
        found: Name,
    },
}

impl Explain for CatalogError {
    fn kind(&self) -> FailureKind {
        FailureKind::FailedPrecondition {
            subject: "catalog".into(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "CATALOG_TOO_LARGE",
            Self::Malformed(_)
            | Self::OtherType { .. }
            | Self::Encoding
            | Self::TooManySignatures { .. } => "CATALOG_MALFORMED",
            Self::Unsigned => "CATALOG_UNSIGNED",
            Self::WrongKey { .. } => "CATALOG_WRONG_KEY",
            Self::Tampered => "CATALOG_TAMPERED",
            Self::Invalid(_) => "CATALOG_INVALID",
            Self::Expired { .. } => "CATALOG_EXPIRED",
            Self::RolledBack { .. } => "CATALOG_ROLLED_BACK",
            Self::Equivocation { .. } => "CATALOG_EQUIVOCATES",
            Self::OtherCatalog { .. } => "CATALOG_OTHER",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::TooLarge { .. } | Self::Invalid(_) => {
                "Ask the catalog's maker to build it again with `banger catalog build`."
            }
            Self::Malformed(_)
            | Self::OtherType { .. }
            | Self::Encoding
            | Self::TooManySignatures { .. } => {
                "Check the address: a `catalog.json` made by `banger catalog build` must lie there."
            }
            Self::Unsigned => {
                "Ask the catalog's maker to sign it with `banger catalog build --key`."
            }
            Self::WrongKey { .. } => {
                "Ask the catalog's maker for the public key, by a way you trust; if it was changed, remove the catalog and add it with the new one."
            }
            Self::Tampered => {
                "Do not use this catalog before its maker has looked at it: the server or the way to it may have been attacked."
            }
            Self::Expired { .. } => {
                "Refresh the catalog with `banger catalog refresh`; if it is expired there too, ask its maker to build it again. Check this host's clock."
            }
            Self::RolledBack { .. } => {
                "Try again later: a mirror may lag behind. If it stays so, ask the catalog's maker."
            }
            Self::Equivocation { .. } => {
                "Ask the catalog's maker to build it again under a higher version."
            }
            Self::OtherCatalog { .. } => {
                "Check the address, or add the other catalog under its own name."
            }
        };
        Some(text.into())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::TooLarge { limit } => vec![("limit", limit.to_string())],
            Self::TooManySignatures { limit } => vec![("limit", limit.to_string())],
            Self::OtherType { found } => vec![("type", found.clone())],
            Self::WrongKey { pinned } => vec![("key", pinned.clone())],
            Self::Expired { expire_time } => vec![("expire_time", expire_time.to_string())],
            Self::RolledBack { seen, found } => {
                vec![("seen", seen.to_string()), ("found", found.to_string())]
            }
            Self::Equivocation { version } => vec![("version", version.to_string())],
            Self::OtherCatalog { expected, found } => {
                vec![
                    ("expected", expected.to_string()),
                    ("found", found.to_string()),
                ]
            }
            _ => Vec::new(),
        }
    }
}
