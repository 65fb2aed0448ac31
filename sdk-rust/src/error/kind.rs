//! The kinds of errors that all clients of banger tell apart, by the same names as the Python package's classes.

use std::time::Duration;

use super::{Code, Error};

/// Reasons of the daemon's that say that nothing of a command ran.
pub(super) const NOT_STARTED: [&str; 7] = [
    "ARGUMENTS_TOO_LONG",
    "PROCESS_NOT_STARTED",
    "PROGRAM_NOT_EXECUTABLE",
    "PROGRAM_NOT_FOUND",
    "TOO_MANY_SESSIONS",
    "USER_NOT_FOUND",
    "WORKING_DIRECTORY_UNUSABLE",
];

/// What kind of error it is: what a program decides by, beside [`Error::reason`] and [`Error::code_ran`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The address of the daemon, or the files for it, are of no use.
    Host,
    /// Nobody answers there.
    Connect,
    /// The two sides do not know each other by their certificates.
    Tls,
    /// There is nothing of this name or id.
    NotFound,
    /// Something of this name is there already.
    AlreadyExists,
    /// A field of the request is wrong or missing.
    InvalidRequest,
    /// What it is about is not in the state for it.
    WrongState,
    /// There is no room, or a quota or limit is used up.
    Exhausted,
    /// Nothing of the command ran, and a repeat is safe.
    CommandNotStarted,
    /// The daemon said no, otherwise than above.
    Refused,
    /// The connection broke and did not come back.
    ConnectionLost,
    /// The daemon said what the API does not allow.
    Protocol,
    /// The process takes no more standard input.
    InputClosed,
    /// More came than the caller takes: of a file, or of a command's output.
    TooLong,
    /// The VM sent what no honest VM sends.
    UnsafeDownload,
    /// An archive came damaged.
    ArchiveDamaged,
    /// A file, a repository or credentials of this machine could not be read or written.
    Local,
    /// The caller gave it up.
    GivenUp,
}

impl Error {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Host(_) | Self::CertificateFile { .. } => ErrorKind::Host,
            Self::Connect { .. } | Self::Unreachable { .. } => ErrorKind::Connect,
            Self::Tls { .. } => ErrorKind::Tls,
            Self::Refused(refusal) if NOT_STARTED.contains(&refusal.reason.as_str()) => {
                ErrorKind::CommandNotStarted
            }
            Self::Refused(refusal) => match refusal.code {
                Code::NotFound => ErrorKind::NotFound,
                Code::AlreadyExists => ErrorKind::AlreadyExists,
                Code::InvalidArgument => ErrorKind::InvalidRequest,
                Code::FailedPrecondition => ErrorKind::WrongState,
                Code::ResourceExhausted => ErrorKind::Exhausted,
                _ => ErrorKind::Refused,
            },
            Self::Disconnected { .. } | Self::ConnectionSilent { .. } => ErrorKind::ConnectionLost,
            Self::Protocol { .. } => ErrorKind::Protocol,
            Self::InputClosed => ErrorKind::InputClosed,
            Self::FileTooLong { .. } | Self::OutputTooLong { .. } => ErrorKind::TooLong,
            Self::UnsafeEntry { .. } => ErrorKind::UnsafeDownload,
            Self::Archive(_) => ErrorKind::ArchiveDamaged,
            Self::Upload { .. }
            | Self::Unpack { .. }
            | Self::Credentials(_)
            | Self::Workspace(_) => ErrorKind::Local,
            Self::GivenUp => ErrorKind::GivenUp,
        }
    }

    /// Whether the same call may be made again as it is, and may then succeed. What the client may repeat it has repeated
    /// already, within the reconnect window.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Unreachable { .. } => true,
            Self::Tls { problem, .. } => problem.passes(),
            Self::Refused(refusal) => {
                refusal.retry_after.is_some() || refusal.code == Code::Unavailable
            }
            _ => false,
        }
    }

    /// How long to wait before a repeat, if the daemon said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}
