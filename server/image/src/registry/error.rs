//! What can go wrong between here and a registry.

use std::path::PathBuf;
use std::time::Duration;

use banger_core::{Digest, Explain, FailureKind};
use banger_registry_auth::AuthError;

use crate::document::DocumentError;

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
    /// No TLS where it must be.
    #[error("the registry {registry} does not speak TLS")]
    NotTls {
        /// Host and port.
        registry: String,
    },
    /// Its certificate cannot be trusted.
    #[error("the certificate of the registry {registry} is refused: {problem}")]
    Certificate {
        /// Host and port.
        registry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It asks for a certificate of ours.
    #[error(
        "the registry {registry} refuses the TLS connection without a client certificate it trusts"
    )]
    ClientCertificate {
        /// Host and port.
        registry: String,
    },
    /// A file of the registry's settings.
    #[error("could not use the TLS file `{}`: {problem}", path.display())]
    TlsFile {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A redirect or a token server that must not be followed.
    #[error("the registry {registry} leads away in a way that is not followed: {problem}")]
    LedAway {
        /// Host and port.
        registry: String,
        /// Why not.
        problem: String,
    },
    /// The credentials to use cannot be found out.
    #[error("could not look up the credentials for the registry {registry}")]
    Auth {
        /// Host and port.
        registry: String,
        /// Why.
        #[source]
        source: AuthError,
    },
    /// The manifest or index it served.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It sends next to nothing.
    #[error("the registry {registry} sent only {bytes} bytes in {} s", window.as_secs_f32())]
    TooSlow {
        /// Host and port.
        registry: String,
        /// How long.
        window: Duration,
        /// What came.
        bytes: u64,
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
    #[error("the registry {registry} allows no more requests for now ({status}{})", asked(*retry_after))]
    RateLimited {
        /// Host and port.
        registry: String,
        /// 429, or 503 with a time.
        status: u16,
        /// How long it asks to wait, where it says.
        retry_after: Option<Duration>,
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
    /// A manifest or configuration of another length than the document says that names it.
    #[error("the registry {registry} sent {what} of {actual} bytes for {expected}")]
    WrongSize {
        /// Host and port.
        registry: String,
        /// `a manifest` or `a configuration`.
        what: &'static str,
        /// What was told.
        expected: u64,
        /// What came.
        actual: u64,
        /// Of what came, which is as it was told.
        digest: Digest,
    },
}

fn asked(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |wait| {
        format!(", it asks to wait for {} s", wait.as_secs())
    })
}

impl RegistryError {
    /// Whether another try may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Stalled { .. }
            | Self::TooSlow { .. }
            | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 500 | 502..=504),
            _ => false,
        }
    }

    fn registry(&self) -> Option<&str> {
        match self {
            Self::BadReference { .. }
            | Self::Client(_)
            | Self::NotFound { .. }
            | Self::TlsFile { .. }
            | Self::Document(_) => None,
            Self::Unreachable { registry, .. }
            | Self::NotTls { registry }
            | Self::Certificate { registry, .. }
            | Self::ClientCertificate { registry }
            | Self::LedAway { registry, .. }
            | Self::Auth { registry, .. }
            | Self::TooSlow { registry, .. }
            | Self::Stalled { registry, .. }
            | Self::BlobNotFound { registry, .. }
            | Self::Unauthorized { registry, .. }
            | Self::BadChallenge { registry }
            | Self::RateLimited { registry, .. }
            | Self::Status { registry, .. }
            | Self::TooLarge { registry, .. }
            | Self::Malformed { registry, .. }
            | Self::WrongDigest { registry, .. }
            | Self::WrongSize { registry, .. } => Some(registry),
        }
    }
}

impl Explain for RegistryError {
    fn kind(&self) -> FailureKind {
        const RETRY_AFTER: Duration = Duration::from_secs(5);
        /// The wait that a rate limit without a number means.
        const RATE_LIMIT_WAIT: Duration = Duration::from_secs(30);
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
                retry_after: retry_after.unwrap_or(RATE_LIMIT_WAIT),
            },
            Self::Document(error) => error.kind(),
            Self::Stalled { .. } | Self::TooSlow { .. } => FailureKind::DeadlineExceeded,
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
            Self::BadChallenge { registry }
            | Self::NotTls { registry }
            | Self::Certificate { registry, .. }
            | Self::ClientCertificate { registry }
            | Self::LedAway { registry, .. }
            | Self::Auth { registry, .. } => FailureKind::FailedPrecondition {
                subject: format!("registry/{registry}"),
            },
            Self::TlsFile { path, .. } => FailureKind::FailedPrecondition {
                subject: format!("file/{}", path.display()),
            },
            Self::TooLarge { .. } => FailureKind::FailedPrecondition {
                subject: "image".into(),
            },
            Self::WrongDigest {
                expected: digest, ..
            }
            | Self::WrongSize { digest, .. } => FailureKind::DataLoss {
                resource: "blob".into(),
                name: digest.to_string(),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::BadReference { .. } => "REFERENCE_INVALID",
            Self::Client(_) => "REGISTRY_CLIENT",
            Self::Unreachable { .. } => "REGISTRY_UNREACHABLE",
            Self::NotTls { .. } => "REGISTRY_WITHOUT_TLS",
            Self::Certificate { .. } => "REGISTRY_CERTIFICATE_REFUSED",
            Self::ClientCertificate { .. } => "REGISTRY_WANTS_CLIENT_CERTIFICATE",
            Self::TlsFile { .. } => "REGISTRY_TLS_FILE",
            Self::LedAway { .. } => "REGISTRY_REDIRECT_REFUSED",
            Self::Auth { .. } => "REGISTRY_CREDENTIALS_UNREADABLE",
            Self::Document(error) => error.reason(),
            Self::TooSlow { .. } => "REGISTRY_TOO_SLOW",
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
            Self::WrongSize {
                expected, actual, ..
            } => match actual < expected {
                true => "BLOB_TOO_SHORT",
                false => "BLOB_TOO_LONG",
            },
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::BadReference { .. } => "Write it like docker.io/library/debian:12.",
            Self::Client(_) => return None,
            Self::Unreachable { .. } => {
                "Check the registry's name and port and this host's network and proxy."
            }
            Self::NotTls { .. } => {
                "Check the port; if the registry is meant to be without TLS, set insecure = true for it in the daemon's configuration, under [registries]."
            }
            Self::Certificate { .. } => {
                "If the registry has an authority of its own, name the authority's certificate as ca_file for it in the daemon's configuration, under [registries]; otherwise its certificate must be renewed."
            }
            Self::ClientCertificate { .. } => {
                "Set client_cert_file and client_key_file for the registry in the daemon's configuration, under [registries], to a certificate it trusts."
            }
            Self::TlsFile { .. } => {
                "Correct the file, or its path in the daemon's configuration, under [registries]; the daemon must be able to read it."
            }
            Self::LedAway { .. } => {
                "If the place is meant, give its host an entry in the daemon's configuration, under [registries]; TLS is never left."
            }
            Self::Auth { source, .. } => source.remedy(),
            Self::Document(error) => return error.remedy(),
            Self::Stalled { .. }
            | Self::TooSlow { .. }
            | Self::Status { .. }
            | Self::RateLimited { .. }
            | Self::Malformed { .. } => {
                "Try again later; if it repeats, look at the registry's log."
            }
            Self::NotFound { .. } => {
                "Check the repository and tag; push the image if it should be there."
            }
            Self::BlobNotFound { .. } | Self::WrongDigest { .. } | Self::WrongSize { .. } => {
                "Push the image to the registry again."
            }
            Self::Unauthorized { .. } => {
                "Log in with `docker login` or `podman login` where banger runs, name the file with --auth-file, or give --username and --password-stdin; credentials of all users go into the daemon's auth files."
            }
            Self::BadChallenge { .. } => {
                "Set the registry to basic or bearer authentication over TLS."
            }
            Self::TooLarge { .. } => "Use another image: no sensible one has such a document.",
        };
        Some(text.into())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        if let Self::Document(error) = self {
            return error.metadata();
        }
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
            Self::Certificate { problem, .. } | Self::LedAway { problem, .. } => {
                metadata.push(("problem", problem.clone()));
            }
            Self::TlsFile { path, problem } => metadata.extend([
                ("path", path.display().to_string()),
                ("problem", problem.clone()),
            ]),
            Self::TooSlow { window, bytes, .. } => metadata.extend([
                ("window_seconds", window.as_secs_f32().to_string()),
                ("bytes", bytes.to_string()),
            ]),
            Self::RateLimited {
                status,
                retry_after,
                ..
            } => {
                metadata.push(("status", status.to_string()));
                metadata.extend(
                    retry_after.map(|wait| ("retry_after_seconds", wait.as_secs().to_string())),
                );
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
            Self::WrongSize {
                expected,
                actual,
                digest,
                ..
            } => {
                metadata.extend([
                    ("digest", digest.to_string()),
                    ("expected", expected.to_string()),
                    ("actual", actual.to_string()),
                ]);
            }
            _ => {}
        }
        metadata
    }
}
