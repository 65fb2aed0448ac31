//! Why the agent refuses a request, and how the host is told: one status with a reason that programs
//! read, the thing it is about and a detail, all bounded.

use std::io;

use rustix::io::Errno;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::tunnel::TunnelFault;

/// The metadata key of the reason: one UPPER_SNAKE word.
pub const REASON_KEY: &str = "banger-reason";
/// The metadata key of what it is about, as bytes.
pub const SUBJECT_KEY: &str = "banger-subject-bin";
/// The metadata key of the detail, as bytes.
pub const DETAIL_KEY: &str = "banger-detail-bin";
/// Longest subject or detail, in bytes.
pub const TEXT_MAX_BYTES: usize = 512;

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Nothing is there.
    NotFound,
    /// Something is there.
    Exists,
    /// The user may not.
    AccessDenied,
    /// A directory where there must be none.
    IsDirectory,
    /// No directory where there must be one.
    NotDirectory,
    /// A device, pipe or socket where there must be a file.
    NotRegular,
    /// A directory that is not empty.
    NotEmpty,
    /// Symbolic links that lead nowhere but on.
    LinkLoop,
    /// The disk is full, or the user's part of it.
    NoSpace,
    /// Mounted for reading only.
    ReadOnly,
    /// A name or path is too long.
    NameTooLong,
    /// Something uses it.
    Busy,
    /// On another file system.
    OtherFileSystem,
    /// The file system cannot do it.
    Unsupported,
    /// Larger than the file system can have it.
    TooLarge,
    /// It changed while it was read.
    Changed,
    /// Directories lie in each other too deep.
    TooDeep,
    /// More directories than can be watched.
    TooManyWatches,
    /// Anything else.
    Other,
}

impl Problem {
    /// What an error of the system means.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::NOENT) => Self::NotFound,
            Some(Errno::EXIST) => Self::Exists,
            Some(Errno::ACCESS | Errno::PERM) => Self::AccessDenied,
            Some(Errno::ISDIR) => Self::IsDirectory,
            Some(Errno::NOTDIR) => Self::NotDirectory,
            Some(Errno::NXIO | Errno::NODEV) => Self::NotRegular,
            Some(Errno::NOTEMPTY) => Self::NotEmpty,
            Some(Errno::LOOP) => Self::LinkLoop,
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace,
            Some(Errno::ROFS) => Self::ReadOnly,
            Some(Errno::NAMETOOLONG) => Self::NameTooLong,
            Some(Errno::BUSY | Errno::TXTBSY) => Self::Busy,
            Some(Errno::XDEV) => Self::OtherFileSystem,
            Some(Errno::OPNOTSUPP) => Self::Unsupported,
            Some(Errno::FBIG) => Self::TooLarge,
            Some(Errno::STALE) => Self::Changed,
            _ => Self::Other,
        }
    }

    /// The stable word, which the host knows too.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FILE_NOT_FOUND",
            Self::Exists => "FILE_EXISTS",
            Self::AccessDenied => "FILE_ACCESS_DENIED",
            Self::IsDirectory => "FILE_IS_DIRECTORY",
            Self::NotDirectory => "FILE_NOT_DIRECTORY",
            Self::NotRegular => "FILE_NOT_REGULAR",
            Self::NotEmpty => "DIRECTORY_NOT_EMPTY",
            Self::LinkLoop => "FILE_LINK_LOOP",
            Self::NoSpace => "VM_DISK_FULL",
            Self::ReadOnly => "FILE_READ_ONLY",
            Self::NameTooLong => "FILE_NAME_TOO_LONG",
            Self::Busy => "FILE_BUSY",
            Self::OtherFileSystem => "FILE_OTHER_FILE_SYSTEM",
            Self::Unsupported => "FILE_UNSUPPORTED",
            Self::TooLarge => "FILE_TOO_LARGE",
            Self::Changed => "FILE_CHANGED",
            Self::TooDeep => "DIRECTORY_TOO_DEEP",
            Self::TooManyWatches => "TOO_MANY_WATCHES",
            Self::Other => "GUEST_FILE",
        }
    }
}

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
    /// The kernel takes less than the arguments and the environment.
    #[error("the command and its environment are too long: {detail}")]
    ArgumentsTooLong {
        /// The sizes.
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
    /// Another one took over the writing.
    #[error("another one took over")]
    WriterReplaced,
    /// A file or directory could not be read or made.
    #[error("`{path}`: {detail}")]
    File {
        /// In the guest.
        path: String,
        /// The step and the errno's text.
        detail: String,
    },
    /// Something is wrong with a path that somebody asked about.
    #[error("`{path}`: {detail}")]
    Path {
        /// What.
        problem: Problem,
        /// In the guest.
        path: String,
        /// The step and the errno's text.
        detail: String,
    },
    /// The bound on calls about files is reached.
    #[error("{limit} calls about files go on already")]
    TooManyFileCalls {
        /// The bound.
        limit: usize,
    },
    /// The bound on calls about workspaces is reached.
    #[error("{limit} calls about workspaces go on already")]
    TooManyWorkspaceCalls {
        /// The bound.
        limit: usize,
    },
    /// A workspace could not be made, told or looked at.
    #[error("`{path}`: {detail}")]
    Workspace {
        /// What is wrong, as the host knows it.
        reason: &'static str,
        /// Where it is in the guest.
        path: String,
        /// In words.
        detail: String,
    },
    /// A tunnel's socket was not connected, or broke.
    #[error("{}: {detail}", fault.reason())]
    Tunnel {
        /// How.
        fault: TunnelFault,
        /// The errno's text.
        detail: String,
    },
    /// The request is malformed, or impossible now.
    #[error("{detail}")]
    Invalid {
        /// What is wrong.
        detail: String,
    },
    /// The image has no init where one is wanted.
    #[error("the image has no init at {path}")]
    InitNotFound {
        /// Where it was looked for.
        path: String,
    },
    /// The image's init cannot be executed.
    #[error("the image's init `{path}` cannot be executed: {detail}")]
    InitNotExecutable {
        /// Which.
        path: String,
        /// The errno's text.
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
            Self::WriterReplaced => Code::Aborted,
            Self::TooManyFileCalls { .. } | Self::TooManyWorkspaceCalls { .. } => {
                Code::ResourceExhausted
            }
            Self::ProgramNotFound { .. }
            | Self::ProgramNotExecutable { .. }
            | Self::UnknownUser { .. }
            | Self::WorkingDirectory { .. }
            | Self::ArgumentsTooLong { .. }
            | Self::Invalid { .. } => Code::InvalidArgument,
            Self::StdinRefused { .. } => Code::OutOfRange,
            Self::StartProcess { .. }
            | Self::Setup { .. }
            | Self::File { .. }
            | Self::Path { .. }
            | Self::Workspace { .. }
            | Self::Tunnel { .. }
            | Self::InitNotFound { .. }
            | Self::InitNotExecutable { .. } => Code::FailedPrecondition,
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
            Self::ArgumentsTooLong { .. } => "ARGUMENTS_TOO_LONG",
            Self::StartProcess { .. } => "PROCESS_NOT_STARTED",
            Self::TooManySessions { .. } => "TOO_MANY_SESSIONS",
            Self::StdinRefused { .. } => "STDIN_REFUSED",
            Self::WriterReplaced => "WRITER_REPLACED",
            Self::File { .. } => "GUEST_FILE",
            Self::Path { problem, .. } => problem.reason(),
            Self::TooManyFileCalls { .. } => "TOO_MANY_FILE_CALLS",
            Self::TooManyWorkspaceCalls { .. } => "TOO_MANY_WORKSPACE_CALLS",
            Self::Workspace { reason, .. } => reason,
            Self::Tunnel { fault, .. } => fault.reason(),
            Self::Invalid { .. } => "AGENT_REFUSED",
            Self::Setup { .. } => "GUEST_NOT_SET_UP",
            Self::InitNotFound { .. } => "INIT_NOT_FOUND",
            Self::InitNotExecutable { .. } => "INIT_NOT_EXECUTABLE",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::ProgramNotFound { program } | Self::ProgramNotExecutable { program, .. } => {
                program.clone()
            }
            Self::UnknownUser { user } => user.clone(),
            Self::WorkingDirectory { path, .. }
            | Self::File { path, .. }
            | Self::Path { path, .. }
            | Self::Workspace { path, .. }
            | Self::InitNotFound { path }
            | Self::InitNotExecutable { path, .. } => path.clone(),
            Self::TooManySessions { limit }
            | Self::TooManyFileCalls { limit }
            | Self::TooManyWorkspaceCalls { limit } => limit.to_string(),
            _ => String::new(),
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::ProgramNotExecutable { detail, .. }
            | Self::InitNotExecutable { detail, .. }
            | Self::WorkingDirectory { detail, .. }
            | Self::StartProcess { detail }
            | Self::ArgumentsTooLong { detail }
            | Self::StdinRefused { detail }
            | Self::File { detail, .. }
            | Self::Path { detail, .. }
            | Self::Workspace { detail, .. }
            | Self::Tunnel { detail, .. }
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
