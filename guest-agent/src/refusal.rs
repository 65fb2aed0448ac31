//! Why the agent refuses a request, and how the host is told: one status with a reason that programs
//! read, the thing it is about and a detail, all bounded.

use std::io;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// The metadata key of the reason: one UPPER_SNAKE word.
pub const REASON_KEY: &str = "banger-reason";
/// The metadata key of what it is about, as bytes.
pub const SUBJECT_KEY: &str = "banger-subject-bin";
/// The metadata key of the detail, as bytes.
pub const DETAIL_KEY: &str = "banger-detail-bin";
/// Longest subject or detail, in bytes.
pub const TEXT_MAX_BYTES: usize = 512;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No session has this id.
    #[error("no session has this id")]
    UnknownSession,
    /// The program was not found.
    #[error("program `{program}` was not found")]
    ProgramNotFound {
        /// As given.
        program: String,
    },
    /// The program cannot be executed.
    #[error("program `{program}` cannot be executed: {detail}")]
    ProgramNotExecutable {
        /// As given.
        program: String,
        /// The errno's text.
        detail: String,
    },
    /// The user or group does not exist.
    #[error("user `{user}` does not exist")]
    UnknownUser {
        /// As given.
        user: String,
    },
    /// The working directory cannot be entered.
    #[error("working directory `{path}` cannot be entered: {detail}")]
    WorkingDirectory {
        /// As given.
        path: String,
        /// The errno's text.
        detail: String,
    },
    /// The process could not be made.
    #[error("the process could not be started: {detail}")]
    StartProcess {
        /// What failed.
        detail: String,
    },
    /// The bound on sessions is reached.
    #[error("there are {limit} sessions already")]
    TooManySessions {
        /// The bound.
        limit: usize,
    },
    /// Standard input was refused.
    #[error("standard input was refused: {detail}")]
    StdinRefused {
        /// Why.
        detail: String,
    },
    /// A file or directory could not be read or made.
    #[error("`{path}`: {detail}")]
    File {
        /// In the guest.
        path: String,
        /// The step and the errno's text.
        detail: String,
    },
    /// The request is malformed, or impossible now.
    #[error("{detail}")]
    Invalid {
        /// What is wrong.
        detail: String,
    },
    /// The guest could not be set up.
    #[error("{detail}")]
    Setup {
        /// What failed.
        detail: String,
    },
}

impl Refusal {
    /// A malformed request.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::Invalid {
            detail: detail.into(),
        }
    }

    /// A step of the set-up that failed.
    pub fn setup(step: &str, error: impl std::fmt::Display) -> Self {
        Self::Setup {
            detail: format!("{step}: {error}"),
        }
    }

    /// The process could not be made because `step` failed.
    pub fn start(step: &str, error: &io::Error) -> Self {
        Self::StartProcess {
            detail: format!("{step}: {}", describe(error)),
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::UnknownSession => Code::NotFound,
            Self::ProgramNotFound { .. }
            | Self::ProgramNotExecutable { .. }
            | Self::UnknownUser { .. }
            | Self::WorkingDirectory { .. }
            | Self::Invalid { .. } => Code::InvalidArgument,
            Self::StdinRefused { .. } => Code::OutOfRange,
            Self::StartProcess { .. } | Self::Setup { .. } | Self::File { .. } => {
                Code::FailedPrecondition
            }
            Self::TooManySessions { .. } => Code::ResourceExhausted,
        }
    }

    /// The stable word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownSession => "SESSION_NOT_FOUND",
            Self::ProgramNotFound { .. } => "PROGRAM_NOT_FOUND",
            Self::ProgramNotExecutable { .. } => "PROGRAM_NOT_EXECUTABLE",
            Self::UnknownUser { .. } => "USER_NOT_FOUND",
            Self::WorkingDirectory { .. } => "WORKING_DIRECTORY_UNUSABLE",
            Self::StartProcess { .. } => "PROCESS_NOT_STARTED",
            Self::TooManySessions { .. } => "TOO_MANY_SESSIONS",
            Self::StdinRefused { .. } => "STDIN_REFUSED",
            Self::File { .. } => "GUEST_FILE",
            Self::Invalid { .. } => "AGENT_REFUSED",
            Self::Setup { .. } => "GUEST_NOT_SET_UP",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::ProgramNotFound { program } | Self::ProgramNotExecutable { program, .. } => {
                program.clone()
            }
            Self::UnknownUser { user } => user.clone(),
            Self::WorkingDirectory { path, .. } | Self::File { path, .. } => path.clone(),
            Self::TooManySessions { limit } => limit.to_string(),
            _ => String::new(),
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::ProgramNotExecutable { detail, .. }
            | Self::WorkingDirectory { detail, .. }
            | Self::StartProcess { detail }
            | Self::StdinRefused { detail }
            | Self::File { detail, .. }
            | Self::Invalid { detail }
            | Self::Setup { detail } => detail,
            _ => "",
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut metadata = MetadataMap::new();
        metadata.insert(REASON_KEY, MetadataValue::from_static(refusal.reason()));
        for (key, text) in [
            (SUBJECT_KEY, refusal.subject().as_str()),
            (DETAIL_KEY, refusal.detail()),
        ] {
            if !text.is_empty() {
                metadata.insert_bin(key, MetadataValue::from_bytes(bounded(text).as_bytes()));
            }
        }
        let text = refusal.to_string();
        Self::with_metadata(refusal.code(), bounded(&text), metadata)
    }
}

/// The longest prefix within the bound.
fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX_BYTES)]
}

/// An error as the system names it, without the number that Rust appends.
#[must_use]
pub fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}
