//! What a command can fail with, the exit codes, and how a failure is told.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use banger_sdk::{Code, Error, chain};
use serde::Serialize;

use crate::command::catalog::CatalogError;
use crate::command::cert::CertError;
use crate::command::kernel::BuildError;

/// banger itself failed.
pub(crate) const EXIT_FAILURE: u8 = 125;
/// The command ran out of its time, as with timeout(1).
pub(crate) const EXIT_TIMEOUT: u8 = 124;
/// The command cannot be executed.
const EXIT_NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
const EXIT_NOT_FOUND: u8 = 127;
/// Added to the number of a signal.
const EXIT_SIGNAL: u8 = 128;
/// The number of SIGPIPE.
const SIGPIPE: i32 = 13;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The daemon or the way to it.
    #[error(transparent)]
    Sdk(#[from] Error),
    /// Nobody reads our output any more: told to nobody.
    #[error("nobody reads the output")]
    BrokenPipe,
    /// Our output could not be written.
    #[error("could not write the output")]
    Write(#[source] io::Error),
    /// Our standard input could not be read.
    #[error("could not read standard input")]
    Read(#[source] io::Error),
    /// The terminal could not be set up.
    #[error("could not set up the terminal")]
    Terminal(#[source] io::Error),
    /// No runtime or no signal handler.
    #[error("could not start")]
    Runtime {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The options do not make a request.
    #[error("{problem}")]
    Usage {
        /// What is wrong.
        problem: String,
    },
    /// The VM stopped under a command.
    #[error("the VM stopped while the command ran; how it ended is not known")]
    VmGone,
    /// A VM that was to be used for long is gone.
    #[error("VM `{vm}` was removed")]
    VmRemoved {
        /// Its name.
        vm: String,
    },
    /// An address cannot be listened on.
    #[error("could not listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A signal ended long work, which is undone.
    #[error("interrupted; the work was cancelled and nothing of it is left")]
    Interrupted {
        /// Which.
        signal: i32,
    },
    /// A signal ended a copy.
    #[error("interrupted; files that were whole already are there, and no unfinished one is")]
    CopyInterrupted {
        /// Which.
        signal: i32,
    },
    /// Long work goes on in the daemon, though its caller ended.
    #[error("operation `{operation}` was asked to end and may still be going on")]
    LeftRunning {
        /// Its id.
        operation: String,
    },
    /// A kernel was not built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A catalog was not made or read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A certificate was not made or revoked.
    #[error(transparent)]
    Cert(#[from] CertError),
    /// A file is there that must not be replaced unasked.
    #[error("`{}` is there already", path.display())]
    FileExists {
        /// Which.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("could not read `{}`", path.display())]
    ReadFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("could not write `{}`", path.display())]
    WriteFile {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something stayed behind.
    #[error("VM `{vm}` may have been left behind")]
    LeftBehind {
        /// Its name.
        vm: String,
        /// Why it could not be deleted.
        #[source]
        source: Option<Box<Error>>,
    },
}

/// A failure as one JSON object.
#[derive(Debug, Serialize)]
struct Report {
    code: String,
    reason: String,
    message: String,
    remedy: Option<String>,
    metadata: BTreeMap<String, String>,
    code_ran: &'static str,
}

impl Failure {
    /// The failure of a write to our output.
    pub(crate) fn write(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Write(error),
        }
    }

    /// The exit code that tells of it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::BrokenPipe => signal_code(SIGPIPE),
            Self::Interrupted { signal }
            | Self::CopyInterrupted { signal }
            | Self::Build(BuildError::Interrupted { signal }) => signal_code(*signal),
            Self::Sdk(error) => match error.reason() {
                "PROGRAM_NOT_FOUND" => EXIT_NOT_FOUND,
                "PROGRAM_NOT_EXECUTABLE" => EXIT_NOT_EXECUTABLE,
                _ => EXIT_FAILURE,
            },
            _ => EXIT_FAILURE,
        }
    }

    /// The lines for people, without a line end.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {self}");
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let line = error.to_string();
            if !line.is_empty() && !text.ends_with(&line) {
                text.push_str("\ncause: ");
                text.push_str(&line);
            }
            cause = error.source();
        }
        if let Self::Sdk(Error::Refused(refusal)) = self {
            for (field, description) in &refusal.violations {
                if !text.contains(description.as_str()) {
                    text.push_str(&format!("\nfield: {field}: {description}"));
                }
            }
        }
        if let Some(remedy) = self.remedy() {
            text.push_str("\nremedy: ");
            text.push_str(&remedy);
        }
        text
    }

    /// The object for programs.
    pub(crate) fn json(&self) -> String {
        let report = Report {
            code: code_name(self.code()).to_owned(),
            reason: self.reason().to_owned(),
            message: chain(self),
            remedy: self.remedy(),
            metadata: self.metadata(),
            code_ran: self.code_ran(),
        };
        serde_json::to_string(&report).expect("a report of strings is JSON")
    }

    fn code(&self) -> Code {
        match self {
            Self::Sdk(error) => error.code(),
            Self::VmGone | Self::VmRemoved { .. } => Code::Aborted,
            Self::Interrupted { .. } | Self::CopyInterrupted { .. } | Self::LeftRunning { .. } => {
                Code::Cancelled
            }
            Self::Usage { .. } => Code::InvalidArgument,
            _ => Code::Unknown,
        }
    }

    fn reason(&self) -> &str {
        match self {
            Self::Sdk(error) => error.reason(),
            Self::BrokenPipe => "OUTPUT_CLOSED",
            Self::Write(_) => "OUTPUT_NOT_WRITTEN",
            Self::Read(_) => "INPUT_NOT_READ",
            Self::Terminal(_) => "TERMINAL_NOT_SET_UP",
            Self::Runtime { .. } => "NOT_STARTED",
            Self::Usage { .. } => "USAGE",
            Self::VmGone => "VM_GONE",
            Self::VmRemoved { .. } => "VM_REMOVED",
            Self::Listen { .. } => "NOT_LISTENING",
            Self::LeftBehind { .. } => "LEFT_BEHIND",
            Self::Interrupted { .. } | Self::CopyInterrupted { .. } => "INTERRUPTED",
            Self::Build(error) => error.reason(),
            Self::Catalog(error) => error.reason(),
            Self::Cert(error) => error.reason(),
            Self::FileExists { .. } => "FILE_EXISTS",
            Self::ReadFile { .. } => "FILE_NOT_READ",
            Self::WriteFile { .. } => "FILE_NOT_WRITTEN",
            Self::LeftRunning { .. } => "LEFT_RUNNING",
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Sdk(error) => error.remedy(),
            Self::VmGone => Some("Look at the VM's console: banger vm console VM".to_owned()),
            Self::Listen { source, .. } => Some(listen_remedy(source.kind()).to_owned()),
            Self::LeftRunning { operation } => {
                Some(format!("Look at it: banger operation watch {operation}"))
            }
            Self::Build(error) => error.remedy(),
            Self::Catalog(error) => error.remedy(),
            Self::Cert(error) => error.remedy(),
            Self::ReadFile { .. } => {
                Some("Name a file that is there and readable, of at most 1 MiB".to_owned())
            }
            Self::FileExists { .. } => Some("Name another file, or use --replace".to_owned()),
            Self::LeftBehind { vm, .. } => Some(format!("Remove it: banger vm remove {vm}")),
            _ => None,
        }
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        match self {
            Self::Sdk(error) => error.metadata(),
            Self::Build(error) => error.metadata().into_iter().collect(),
            Self::FileExists { path }
            | Self::ReadFile { path, .. }
            | Self::WriteFile { path, .. } => {
                BTreeMap::from([("path".to_owned(), path.display().to_string())])
            }
            Self::LeftBehind { vm, .. } | Self::VmRemoved { vm } => {
                BTreeMap::from([("vm".to_owned(), vm.clone())])
            }
            Self::Listen { address, .. } => {
                BTreeMap::from([("address".to_owned(), address.to_string())])
            }
            _ => BTreeMap::new(),
        }
    }

    fn code_ran(&self) -> &'static str {
        match self {
            Self::Sdk(error) => error.code_ran().as_str(),
            Self::Runtime { .. }
            | Self::Interrupted { .. }
            | Self::CopyInterrupted { .. }
            | Self::Usage { .. }
            | Self::Listen { .. }
            | Self::Build(_)
            | Self::Catalog(_)
            | Self::Cert(_)
            | Self::FileExists { .. }
            | Self::ReadFile { .. }
            | Self::WriteFile { .. } => "no",
            Self::VmGone => "yes",
            _ => "maybe",
        }
    }
}

/// What to do when an address cannot be listened on.
fn listen_remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "Give a port of 1024 or more; those below are root's as a rule."
        }
        io::ErrorKind::AddrNotAvailable => "Give an address of this machine.",
        _ => "Give another port; 0 takes a free one and prints it.",
    }
}

/// The exit code for the end by a signal.
pub(crate) fn signal_code(signal: i32) -> u8 {
    u8::try_from(signal)
        .ok()
        .and_then(|n| n.checked_add(EXIT_SIGNAL))
        .unwrap_or(EXIT_FAILURE)
}

/// The name of a status code as the gRPC documents write it.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
