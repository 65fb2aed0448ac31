//! What can go wrong between here and a catalog.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use banger_core::{Explain, FailureKind};

use crate::limits::RETRY_AFTER_MAX;

/// A catalog's file that did not come.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Not an address of a catalog.
    #[error("`{address}` cannot be a catalog's address: {problem}")]
    BadAddress {
        /// What was given, cut.
        address: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The HTTP client could not be set up.
    #[error("could not set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// No connection, or it broke off again and again.
    #[error("could not get `{file}` of the catalog, or not all of it")]
    Unreachable {
        /// Which file.
        file: String,
        /// The last try's error.
        #[source]
        source: reqwest::Error,
    },
    /// What comes is not TLS.
    #[error("the catalog's server {server} does not speak TLS")]
    NotTls {
        /// Host and port.
        server: String,
    },
    /// The server does not prove who it is.
    #[error("the certificate of the catalog's server {server} is refused: {problem}")]
    Certificate {
        /// Host and port.
        server: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The server wants to know who asks.
    #[error(
        "the catalog's server {server} wants a client certificate, or another one than it is shown"
    )]
    ClientCertificate {
        /// Host and port.
        server: String,
    },
    /// A file of the server's settings.
    #[error("could not use the TLS file `{}`: {problem}", path.display())]
    TlsFile {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A redirect that is not followed.
    #[error("the catalog's server sends the request for `{file}` where it must not go")]
    Redirected {
        /// Which file.
        file: String,
        /// Where, and why not.
        #[source]
        source: reqwest::Error,
    },
    /// Connected, then silent.
    #[error("the catalog's server sent nothing of `{file}` for {} s", stall.as_secs_f32())]
    Stalled {
        /// Which file.
        file: String,
        /// How long.
        stall: Duration,
    },
    /// It sends next to nothing.
    #[error("the catalog's server sent only {bytes} bytes of `{file}` in {} s", window.as_secs_f32())]
    TooSlow {
        /// Which file.
        file: String,
        /// How long.
        window: Duration,
        /// What came.
        bytes: u64,
    },
    /// There is no such file.
    #[error("the catalog has no `{file}`")]
    Missing {
        /// Which file.
        file: String,
    },
    /// Some other answer.
    #[error("the catalog's server answered {status} to the request for `{file}`")]
    Status {
        /// Which file.
        file: String,
        /// The HTTP status.
        status: u16,
        /// How long it asks to wait, where it does.
        retry_after: Option<Duration>,
    },
    /// A part of a file that is not the part asked for.
    #[error("the catalog's server sent another part of `{file}` than was asked for")]
    WrongRange {
        /// Which file.
        file: String,
    },
    /// It was replaced while it came.
    #[error("`{file}` of the catalog was replaced while it was fetched")]
    Changed {
        /// Which file.
        file: String,
    },
    /// Its length is not the index's.
    #[error("`{file}` of the catalog has {actual} bytes, and its index says {expected}")]
    WrongSize {
        /// Which file.
        file: String,
        /// By the index.
        expected: u64,
        /// By the server, or as far as it came.
        actual: u64,
    },
    /// Over its bound.
    #[error("`{file}` of the catalog has more than {limit} bytes")]
    TooLarge {
        /// Which file.
        file: String,
        /// The bound.
        limit: u64,
    },
    /// A directory that cannot be read, or a link in it.
    #[error("could not read `{file}` in the catalog's directory")]
    Unreadable {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SourceError {
    /// Whether another try may help, and not later than a pull can wait for.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Stalled { .. } | Self::TooSlow { .. } => true,
            Self::Status { status, .. } => {
                matches!(status, 408 | 429 | 500 | 502..=504) && self.asked() <= RETRY_AFTER_MAX
            }
            _ => false,
        }
    }

    /// How long the server asks to wait.
    pub(super) fn asked(&self) -> Duration {
        match self {
            Self::Status { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    fn file(&self) -> Option<&str> {
        match self {
            Self::BadAddress { .. }
            | Self::Client(_)
            | Self::NotTls { .. }
            | Self::Certificate { .. }
            | Self::ClientCertificate { .. }
            | Self::TlsFile { .. } => None,
            Self::Unreachable { file, .. }
            | Self::Redirected { file, .. }
            | Self::Stalled { file, .. }
            | Self::TooSlow { file, .. }
            | Self::Missing { file }
            | Self::Status { file, .. }
            | Self::WrongRange { file }
            | Self::Changed { file }
            | Self::WrongSize { file, .. }
            | Self::TooLarge { file, .. }
            | Self::Unreadable { file, .. } => Some(file),
        }
    }
}

impl Explain for SourceError {
    fn kind(&self) -> FailureKind {
        const RETRY_AFTER: Duration = Duration::from_secs(5);
        match self {
            Self::BadAddress { .. } => FailureKind::InvalidArgument {
                field: "url".into(),
            },
            Self::Client(_) => FailureKind::Internal,
            Self::Status {
                retry_after: Some(asked),
                ..
            } => FailureKind::Unavailable {
                retry_after: *asked,
            },
            Self::Unreachable { .. }
            | Self::Status { .. }
            | Self::WrongRange { .. }
            | Self::Changed { .. } => FailureKind::Unavailable {
                retry_after: RETRY_AFTER,
            },
            Self::Stalled { .. } | Self::TooSlow { .. } => FailureKind::DeadlineExceeded,
            Self::Missing { file } => FailureKind::NotFound {
                resource: "catalog file".into(),
                name: file.clone(),
            },
            Self::WrongSize { file, .. } => FailureKind::DataLoss {
                resource: "catalog file".into(),
                name: file.clone(),
            },
            Self::TlsFile { path, .. } => FailureKind::FailedPrecondition {
                subject: format!("file/{}", path.display()),
            },
            Self::NotTls { .. }
            | Self::Certificate { .. }
            | Self::ClientCertificate { .. }
            | Self::Redirected { .. }
            | Self::TooLarge { .. }
            | Self::Unreadable { .. } => FailureKind::FailedPrecondition {
                subject: "catalog".into(),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::BadAddress { .. } => "CATALOG_ADDRESS_INVALID",
            Self::Client(_) => "CATALOG_CLIENT",
            Self::Unreachable { .. } => "CATALOG_UNREACHABLE",
            Self::NotTls { .. } => "CATALOG_WITHOUT_TLS",
            Self::Certificate { .. } => "CATALOG_CERTIFICATE_REFUSED",
            Self::ClientCertificate { .. } => "CATALOG_WANTS_CLIENT_CERTIFICATE",
            Self::TlsFile { .. } => "CATALOG_TLS_FILE",
            Self::Redirected { .. } => "CATALOG_REDIRECTED",
            Self::Stalled { .. } => "CATALOG_STALLED",
            Self::TooSlow { .. } => "CATALOG_TOO_SLOW",
            Self::Missing { .. } => "CATALOG_FILE_MISSING",
            Self::Status { .. } => "CATALOG_STATUS",
            Self::WrongRange { .. } => "CATALOG_RANGE_WRONG",
            Self::Changed { .. } => "CATALOG_FILE_CHANGED",
            Self::WrongSize { .. } => "CATALOG_FILE_SIZE",
            Self::TooLarge { .. } => "CATALOG_TOO_LARGE",
            Self::Unreadable { .. } => "CATALOG_UNREADABLE",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::BadAddress { .. } => {
                "Give an https URL, an http URL on this host's loopback, or a directory's absolute path."
            }
            Self::Client(_) => return None,
            Self::Unreachable { .. } => "Check the catalog's address and this host's network.",
            Self::NotTls { .. } => {
                "Check the address and its port: catalogs of other hosts come by https."
            }
            Self::Certificate { .. } => {
                "If the server has an authority of its own, name the authority's certificate as ca_file for it in the daemon's configuration, under [catalogs]; otherwise its certificate must be renewed."
            }
            Self::ClientCertificate { .. } => {
                "Set client_cert_file and client_key_file for the server in the daemon's configuration, under [catalogs], to a certificate it trusts."
            }
            Self::TlsFile { .. } => {
                "Correct the file, or its path in the daemon's configuration, under [catalogs]; the daemon must be able to read it."
            }
            Self::Redirected { .. } => "Add the catalog by the address it is really at.",
            Self::Stalled { .. } | Self::TooSlow { .. } | Self::Status { .. } => {
                "Try again later; if it repeats, look at the server's log."
            }
            Self::Missing { .. } | Self::WrongSize { .. } => {
                "Refresh the catalog; if it repeats, its maker has to publish all its files again."
            }
            Self::WrongRange { .. } => {
                "Use a server that answers range requests rightly, or none at all."
            }
            Self::Changed { .. } => "Refresh the catalog and pull again.",
            Self::TooLarge { .. } => "Check the address: no sensible catalog has such a file.",
            Self::Unreadable { .. } => {
                "Check that the daemon may read the directory; links in it are not followed."
            }
        };
        Some(text.into())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        let file = self.file().map(|file| ("file", file.to_owned()));
        let mut metadata: Vec<_> = file.into_iter().collect();
        match self {
            Self::BadAddress { address, .. } => metadata.push(("address", address.clone())),
            Self::NotTls { server } | Self::ClientCertificate { server } => {
                metadata.push(("server", server.clone()));
            }
            Self::Certificate { server, problem } => {
                metadata.extend([("server", server.clone()), ("problem", problem.clone())]);
            }
            Self::TlsFile { path, problem } => metadata.extend([
                ("path", path.display().to_string()),
                ("problem", problem.clone()),
            ]),
            Self::Stalled { stall, .. } => {
                metadata.push(("stall_seconds", stall.as_secs_f32().to_string()));
            }
            Self::TooSlow { window, bytes, .. } => metadata.extend([
                ("window_seconds", window.as_secs_f32().to_string()),
                ("bytes", bytes.to_string()),
            ]),
            Self::Status {
                status,
                retry_after,
                ..
            } => {
                metadata.push(("status", status.to_string()));
                if let Some(asked) = retry_after {
                    metadata.push(("retry_after_seconds", asked.as_secs().to_string()));
                }
            }
            Self::WrongSize {
                expected, actual, ..
            } => metadata.extend([
                ("expected", expected.to_string()),
                ("actual", actual.to_string()),
            ]),
            Self::TooLarge { limit, .. } => metadata.push(("limit", limit.to_string())),
            _ => {}
        }
        metadata
    }
}
