//! Why an upload was not taken.

use std::io;
use std::time::Duration;

use banger_core::host_io::{io_kind, io_reason, io_remedy};
use banger_core::{Explain, FailureKind, Owner};

/// Why an upload was not taken. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// It could not be written.
    #[error("could not store the upload")]
    Store {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is over its bound.
    #[error("the upload has more than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The caller sends nothing more.
    #[error("nothing of the upload came for {} s", silence.as_secs_f32())]
    Stalled {
        /// How long.
        silence: Duration,
    },
    /// It takes too long.
    #[error("the upload did not end within {} s", limit.as_secs_f32())]
    TooSlow {
        /// The limit.
        limit: Duration,
    },
    /// As many are coming as may be.
    #[error("{limit} uploads are coming already, and no more may come at once")]
    TooMany {
        /// How many may.
        limit: usize,
    },
    /// As many of the owner's are coming as may be.
    #[error(
        "{limit} uploads of {owner} are coming already, and no more of one owner may come at once"
    )]
    TooManyOfOwner {
        /// Whose.
        owner: Owner,
        /// How many may.
        limit: usize,
    },
}

impl Explain for UploadError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Store { source } => io_kind(source),
            Self::TooLarge { .. } => FailureKind::InvalidArgument {
                field: "chunk".into(),
            },
            Self::Stalled { .. } | Self::TooSlow { .. } => FailureKind::DeadlineExceeded,
            Self::TooMany { .. } => FailureKind::ResourceExhausted {
                subject: "host/uploads".into(),
            },
            Self::TooManyOfOwner { owner, .. } => FailureKind::ResourceExhausted {
                subject: format!("owner/{owner}/uploads"),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Store { source } => io_reason(source, "UPLOAD_FAILED"),
            Self::TooLarge { .. } => "UPLOAD_TOO_LARGE",
            Self::Stalled { .. } => "UPLOAD_STALLED",
            Self::TooSlow { .. } => "UPLOAD_TOO_SLOW",
            Self::TooMany { .. } | Self::TooManyOfOwner { .. } => "TOO_MANY_UPLOADS",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Store { source } => match io_remedy(source) {
                Some(remedy) => return Some(remedy),
                None => "Check the state directory's disk and permissions.",
            },
            Self::TooLarge { .. } => {
                "Check that it is the right file. `upload_max_mib` in the daemon's configuration bounds images and contexts."
            }
            Self::Stalled { .. } => {
                "Send it again without a pause; `upload_stall_timeout` in the daemon's configuration allows longer ones."
            }
            Self::TooSlow { .. } => {
                "Send it over a faster way, or raise `upload_timeout` in the daemon's configuration."
            }
            Self::TooMany { .. } | Self::TooManyOfOwner { .. } => {
                "Try again when some of them have ended."
            }
        };
        Some(text.to_owned())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Store { .. } => Vec::new(),
            Self::TooLarge { limit } => vec![("limit_bytes", limit.to_string())],
            Self::Stalled { silence } => {
                vec![("stall_seconds", silence.as_secs_f32().to_string())]
            }
            Self::TooSlow { limit } => vec![("limit_seconds", limit.as_secs_f32().to_string())],
            Self::TooMany { limit } => vec![("limit", limit.to_string())],
            Self::TooManyOfOwner { owner, limit } => {
                vec![("owner", owner.to_string()), ("limit", limit.to_string())]
            }
        }
    }
}
