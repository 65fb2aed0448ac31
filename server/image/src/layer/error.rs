//! What can be wrong with a blob or a layer.

use std::io;

use banger_core::{Digest, Explain, FailureKind};

use crate::limits::{RATIO_MAX, UNCOMPRESSED_BYTES_MAX};
use crate::tar::TarError;
use banger_core::host_io::{io_kind, io_reason, io_remedy};

/// A blob or layer that is not what it should be, or could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Fewer bytes than the manifest says.
    #[error("blob {digest} has {actual} bytes, but its manifest says {expected}")]
    TooShort {
        /// Which blob.
        digest: Digest,
        /// What the manifest says.
        expected: u64,
        /// How many came.
        actual: u64,
    },
    /// More bytes than the manifest says.
    #[error("blob {digest} has more than the {expected} bytes its manifest says")]
    TooLong {
        /// Which blob.
        digest: Digest,
        /// What the manifest says.
        expected: u64,
    },
    /// Other bytes than the manifest says.
    #[error("blob {expected} was received with the digest {actual}")]
    WrongDigest {
        /// Which blob.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The decompressed layer is not the one the image's configuration names.
    #[error(
        "layer {digest} decompresses to {actual}, but the image's configuration says {expected}"
    )]
    WrongDiffId {
        /// The blob.
        digest: Digest,
        /// What the configuration says.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// The compressed stream is broken off.
    #[error("the compressed data of layer {digest} ends too early")]
    TruncatedCompression {
        /// The blob.
        digest: Digest,
    },
    /// The compressed stream is damaged.
    #[error("the compressed data of layer {digest} is damaged")]
    BadCompression {
        /// The blob.
        digest: Digest,
        /// What the decompressor said.
        #[source]
        source: io::Error,
    },
    /// A compression no layer uses.
    #[error("layer {digest} is compressed with {format}, which is not supported")]
    UnsupportedCompression {
        /// The blob.
        digest: Digest,
        /// Which.
        format: &'static str,
    },
    /// Far more data than any layer has.
    #[error(
        "layer {digest} grows to more than {UNCOMPRESSED_BYTES_MAX} bytes, or more than {RATIO_MAX} times its size"
    )]
    Bomb {
        /// The blob.
        digest: Digest,
    },
    /// The archive in it is malformed or holds what no image may.
    #[error("layer {digest} is not a usable archive")]
    Archive {
        /// The blob.
        digest: Digest,
        /// What is wrong.
        #[source]
        source: TarError,
    },
    /// The host could not keep it.
    #[error("could not store layer {digest}")]
    Store {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LayerError {
    const fn digest(&self) -> &Digest {
        match self {
            Self::TooShort { digest, .. }
            | Self::TooLong { digest, .. }
            | Self::WrongDigest {
                expected: digest, ..
            }
            | Self::WrongDiffId { digest, .. }
            | Self::TruncatedCompression { digest }
            | Self::BadCompression { digest, .. }
            | Self::UnsupportedCompression { digest, .. }
            | Self::Bomb { digest }
            | Self::Archive { digest, .. }
            | Self::Store { digest, .. } => digest,
        }
    }
}

impl LayerError {
    /// Whether whoever sent the blob sent another one than was asked for.
    pub(crate) const fn is_of_sender(&self) -> bool {
        matches!(
            self,
            Self::TooShort { .. } | Self::TooLong { .. } | Self::WrongDigest { .. }
        )
    }
}

impl Explain for LayerError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::TooShort { digest, .. }
            | Self::TooLong { digest, .. }
            | Self::WrongDigest {
                expected: digest, ..
            }
            | Self::WrongDiffId { digest, .. } => FailureKind::DataLoss {
                resource: "blob".into(),
                name: digest.to_string(),
            },
            Self::TruncatedCompression { .. }
            | Self::BadCompression { .. }
            | Self::UnsupportedCompression { .. }
            | Self::Bomb { .. } => FailureKind::FailedPrecondition {
                subject: "image/layer".into(),
            },
            Self::Archive { source, .. } => source.kind(),
            Self::Store { source, .. } => io_kind(source),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::TooShort { .. } => "BLOB_TOO_SHORT",
            Self::TooLong { .. } => "BLOB_TOO_LONG",
            Self::WrongDigest { .. } => "BLOB_DIGEST_MISMATCH",
            Self::WrongDiffId { .. } => "LAYER_DIFF_ID_MISMATCH",
            Self::TruncatedCompression { .. } => "LAYER_TRUNCATED",
            Self::BadCompression { .. } => "LAYER_DAMAGED",
            Self::UnsupportedCompression { .. } => "LAYER_COMPRESSION_UNSUPPORTED",
            Self::Bomb { .. } => "LAYER_TOO_LARGE",
            Self::Archive { source, .. } => source.reason(),
            Self::Store { source, .. } => io_reason(source, "LAYER_STORE"),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::TooShort { .. } | Self::TooLong { .. } | Self::WrongDigest { .. } => Some(
                "Check the registry and what lies between it and this host; if it repeats, push the image again.".into(),
            ),
            Self::Archive { source, .. } => source.remedy(),
            Self::Store { source, .. } => io_remedy(source),
            _ => Some("Rebuild and push the image again.".into()),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        let mut metadata = vec![("digest", self.digest().to_string())];
        match self {
            Self::TooShort {
                expected, actual, ..
            } => {
                metadata.extend([
                    ("expected", expected.to_string()),
                    ("actual", actual.to_string()),
                ]);
            }
            Self::TooLong { expected, .. } => metadata.push(("expected", expected.to_string())),
            Self::WrongDigest { expected, actual }
            | Self::WrongDiffId {
                expected, actual, ..
            } => {
                metadata.extend([
                    ("expected", expected.to_string()),
                    ("actual", actual.to_string()),
                ]);
            }
            Self::UnsupportedCompression { format, .. } => {
                metadata.push(("format", (*format).to_owned()));
            }
            Self::Archive { source, .. } => metadata.extend(source.metadata()),
            _ => {}
        }
        metadata
    }
}
