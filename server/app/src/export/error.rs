//! Why an export did not begin, or ended early.

use std::time::Duration;

use banger_core::{Explain, FailureKind, Owner};

/// Why an export did not begin, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The caller takes nothing more.
    #[error("nothing of the export was taken for {} s", silence.as_secs_f32())]
    Stalled {
        /// How long.
        silence: Duration,
    },
    /// As many go on as may.
    #[error("{limit} exports go on already, and no more may at once")]
    TooMany {
        /// How many may.
        limit: usize,
    },
    /// As many of the owner's go on as may.
    #[error("{limit} exports of {owner} go on already, and no more of one owner may at once")]
    TooManyOfOwner {
        /// Whose.
        owner: Owner,
        /// How many may.
        limit: usize,
    },
}

impl Explain for ExportError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Stalled { .. } => FailureKind::DeadlineExceeded,
            Self::TooMany { .. } => FailureKind::ResourceExhausted {
                subject: "host/exports".into(),
            },
            Self::TooManyOfOwner { owner, .. } => FailureKind::ResourceExhausted {
                subject: format!("owner/{owner}/exports"),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Stalled { .. } => "EXPORT_STALLED",
            Self::TooMany { .. } | Self::TooManyOfOwner { .. } => "TOO_MANY_EXPORTS",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Stalled { .. } => {
                "Export it again and read it without a pause; `export_stall_timeout` in the daemon's configuration allows longer ones."
            }
            Self::TooMany { .. } | Self::TooManyOfOwner { .. } => {
                "Try again when some of them have ended."
            }
        };
        Some(text.to_owned())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Stalled { silence } => {
                vec![("stall_seconds", silence.as_secs_f32().to_string())]
            }
            Self::TooMany { limit } => vec![("limit", limit.to_string())],
            Self::TooManyOfOwner { owner, limit } => {
                vec![("owner", owner.to_string()), ("limit", limit.to_string())]
            }
        }
    }
}
