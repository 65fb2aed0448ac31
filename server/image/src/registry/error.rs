//! What can go wrong between here and a registry.

use std::time::Duration;

use banger_core::{Digest, Explain, FailureKind};

/// A registry that could not be used, or did not have what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Not an image reference.
    #[error(
        "`{text}` is not an image reference ([registry/]repository[:tag][@sha256:digest], in lower case)"
    )]
    BadReference {
        /// What was given, cut.
        text: String,
    },
    /// The HTTP client could not be set up.
    #[error("could not set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// No connection, or it broke off again and again.
    #[error("could not get an answer from the registry {registry}, or not all of it")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// The last try's error.
        #[source]
        source: reqwest::Error,
    },
    /// Connected, then silent.
    #[error("the registry {registry} sent nothing for {} s", stall.as_secs_f32())]
    Stalled {
        /// Host and port.
        registry: String,
        /// How long.
        stall: Duration,
    },
    /// No such repository or tag.
    #[error("there is no image `{reference}` in its registry")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// A blob the manifest names is missing.
    #[error("the registry {registry} does not have blob {digest}, which the image needs")]
    BlobNotFound {
        /// Host and port.
        registry: String,
        /// Which.
        digest: Digest,
    },
    /// Credentials are missing or wrong.
    #[error("the registry {registry} refuses access to `{repository}` {}", if *with_credentials { "with these credentials" } else { "without credentials" })]
    Unauthorized {
        /// Host and port.
        registry: String,
        /// Which repository.
        repository: String,
        /// Whether any were given.
        with_credentials: bool,
    },
    /// A challenge that cannot be met.
    #[error(
        "the registry {registry} asks for authentication in a way that is not supported or not safe"
    )]
    BadChallenge {
        /// Host and port.
        registry: String,
    },
    /// Too many requests.
    #[error("the registry {registry} allows no more requests for now")]
    RateLimited {
        /// Host and port.
        registry: String,
        /// How long it asks to wait.
        retry_after: Duration,
    },
    /// Some other answer.
    #[error("the registry {registry} answered {status} to a request for {what}")]
    Status {
        /// Host and port.
        registry: String,
        /// The HTTP status.
        status: u16,
        /// `a manifest`, `a blob` or `a token`.
        what: &'static str,
    },
    /// An answer over its bound.
    #[error("the registry {registry} sent more than {limit} bytes for {what}")]
    TooLarge {
        /// Host and port.
        registry: String,
        /// `a manifest`, `a configuration` or `a token`.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// An answer that makes no sense.
    #[error("the registry {registry} sent a malformed {what}")]
    Malformed {
        /// Host and port.
        registry: String,
        /// What.
        what: &'static str,
    },
    /// A manifest or configuration that is not the one asked for.
    #[error("the registry {registry} sent {what} with the digest {actual} for {expected}")]
    WrongDigest {
        /// Host and port.
        registry: String,
        /// `a manifest` or `a configuration`.
        what: &'static str,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
}

impl RegistryError {
    /// Whether another try may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Stalled { .. } | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 500 | 502..=504),
            _ => false,
        }
    }

    fn registry(&self) -> Option<&str> {
        match self {
            Self::BadReference { .. } | Self::Client(_) | Self::NotFound { .. } => None,
            Self::Unreachable { registry, .. }
            | Self::Stalled { registry, .. }
            | Self::BlobNotFound { registry, .. }
            | Self::Unauthorized { registry, .. }
            | Self::BadChallenge { registry }
            | Self::RateLimited { registry, .. }
            | Self::Status { registry, .. }
            | Self::TooLarge { registry, .. }
            | Self::Malformed { registry, .. }
            | Self::WrongDigest { registry, .. } => Some(registry),
        }
    }
}

impl Explain for RegistryError {
    fn kind(&self) -> FailureKind {
        const RETRY_AFTER: Duration = Duration::from_secs(5);
        match self {
            Self::BadReference { .. } => FailureKind::InvalidArgument {
                field: "reference".into(),
            },
            Self::Client(_) => FailureKind::Internal,
            Self::Unreachable { .. } | Self::Status { .. } | Self::Malformed { .. } => {
                FailureKind::Unavailable {
                    retry_after: RETRY_AFTER,
                }
            }
            Self::RateLimited { retry_after, .. } => FailureKind::Unavailable {
                retry_after: *retry_after,
            },
            Self::Stalled { .. } => FailureKind::DeadlineExceeded,
            Self::NotFound { reference } => FailureKind::NotFound {
                resource: "image".into(),
                name: reference.clone(),
            },
            Self::BlobNotFound { digest, .. } => FailureKind::NotFound {
                resource: "blob".into(),
                name: digest.to_string(),
            },
            Self::Unauthorized { repository, .. } => FailureKind::FailedPrecondition {
                subject: format!("repository/{repository}"),
            },
            Self::BadChallenge { registry } => FailureKind::FailedPrecondition {
                subject: format!("registry/{registry}"),
            },
            Self::TooLarge { .. } => FailureKind::FailedPrecondition {
                subject: "image".into(),
            },
            Self::WrongDigest { expected, .. } => FailureKind::DataLoss {
                resource: "blob".into(),
                name: expected.to_string(),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::BadReference { .. } => "REFERENCE_INVALID",
            Self::Client(_) => "REGISTRY_CLIENT",
            Self::Unreachable { .. } => "REGISTRY_UNREACHABLE",
            Self::Stalled { .. } => "REGISTRY_STALLED",
            Self::NotFound { .. } => "IMAGE_NOT_FOUND",
            Self::BlobNotFound { .. } => "BLOB_NOT_FOUND",
            Self::Unauthorized { .. } => "REGISTRY_UNAUTHORIZED",
            Self::BadChallenge { .. } => "REGISTRY_CHALLENGE_UNSUPPORTED",
            Self::RateLimited { .. } => "REGISTRY_RATE_LIMITED",
            Self::Status { .. } => "REGISTRY_STATUS",
            Self::TooLarge { .. } => "IMAGE_TOO_LARGE",
            Self::Malformed { .. } => "REGISTRY_MALFORMED",
            Self::WrongDigest { .. } => "BLOB_DIGEST_MISMATCH",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::BadReference { .. } => "Write it like docker.io/library/debian:12.",
            Self::Client(_) => return None,
            Self::Unreachable { .. } => {
                "Check the registry's name and port and this host's network; a registry without TLS must be in the plain-HTTP list unless it is on this host."
            }
            Self::Stalled { .. }
            | Self::Status { .. }
            | Self::RateLimited { .. }
            | Self::Malformed { .. } => {
                "Try again later; if it repeats, look at the registry's log."
            }
            Self::NotFound { .. } => {
                "Check the repository and tag; push the image if it should be there."
            }
            Self::BlobNotFound { .. } | Self::WrongDigest { .. } => {
                "Push the image to the registry again."
            }
            Self::Unauthorized { .. } => "Give credentials that may read this repository.",
            Self::BadChallenge { .. } => {
                "Set the registry to basic or bearer authentication over TLS."
            }
            Self::TooLarge { .. } => "Use another image: no sensible one has such a document.",
        };
        Some(text.into())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        let mut metadata: Vec<_> = self
            .registry()
            .map(|registry| ("registry", registry.to_owned()))
            .into_iter()
            .collect();
        match self {
            Self::BadReference { text } => metadata.push(("reference", text.clone())),
            Self::NotFound { reference } => metadata.push(("reference", reference.clone())),
            Self::BlobNotFound { digest, .. } => metadata.push(("digest", digest.to_string())),
            Self::Unauthorized { repository, .. } => {
                metadata.push(("repository", repository.clone()));
            }
            Self::Status { status, .. } => metadata.push(("status", status.to_string())),
            Self::TooLarge { limit, .. } => metadata.push(("limit", limit.to_string())),
            Self::Stalled { stall, .. } => {
                metadata.push(("stall_seconds", stall.as_secs_f32().to_string()));
            }
            Self::WrongDigest {
                expected, actual, ..
            } => {
                metadata.extend([
                    ("expected", expected.to_string()),
                    ("actual", actual.to_string()),
                ]);
            }
            _ => {}
        }
        metadata
    }
}
