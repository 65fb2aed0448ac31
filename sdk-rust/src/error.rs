//! The one error of this crate, and what a program may ask of it.
//!
//! Owns the reading of the daemon's error details; never decides whether to retry (`client` does).

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use kind::ErrorKind;
pub use tonic::Code;
use tonic::Status;
use tonic_types::{ErrorDetails, RpcStatusExt, StatusExt};

use crate::host::HostError;
use crate::tls::{self, TlsProblem};

mod kind;

/// The metadata key under which the daemon says what to do.
const REMEDY: &str = "remedy";
/// The metadata key under which the daemon says whether the caller's code ran.
const CODE_RAN: &str = "code_ran";

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Whether the code that the caller wanted run has run: decides if a repeat is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeRan {
    /// Nothing of it ran.
    No,
    /// It cannot be known.
    Maybe,
    /// It ran, at least in part.
    Yes,
}

impl CodeRan {
    /// `no`, `maybe` or `yes`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Maybe => "maybe",
            Self::Yes => "yes",
        }
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the daemon cannot be used.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No connection to the daemon was made.
    #[error("could not connect to bangerd at `{}`", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No connection to the daemon of another host was made.
    #[error("could not connect to bangerd at {host}")]
    Unreachable {
        /// The daemon.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The two sides do not know each other by their certificates.
    #[error("could not connect to {to}: {problem}")]
    Tls {
        /// The daemon, or what was being done when it was connected to again.
        to: String,
        /// What is wrong.
        problem: TlsProblem,
        /// Whether the caller's code ran.
        code_ran: CodeRan,
        /// How it was told.
        #[source]
        source: io::Error,
    },
    /// A file with a certificate or key is of no use.
    #[error("`{}` {problem}", path.display())]
    CertificateFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The daemon answered with an error.
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    /// The connection broke and did not come back within the reconnect window.
    #[error("the connection to bangerd was lost during {during}")]
    Disconnected {
        /// The call.
        during: &'static str,
        /// Whether the caller's code ran.
        code_ran: CodeRan,
        /// The process that it was about.
        process: Option<Box<LostProcess>>,
        /// How it broke; `None` when a stream ended without its last message.
        #[source]
        source: Option<Box<Status>>,
    },
    /// A stream on which the daemon speaks at least every 2 s said nothing: the connection is dead.
    #[error("nothing was heard from bangerd for {} s during {during}", silent.as_secs())]
    ConnectionSilent {
        /// The call.
        during: &'static str,
        /// How long.
        silent: Duration,
        /// Whether the caller's code ran.
        code_ran: CodeRan,
        /// The process that it was about.
        process: Option<Box<LostProcess>>,
    },
    /// The daemon said something that the API does not allow.
    #[error("bangerd broke the protocol during {during} ({detail})")]
    Protocol {
        /// The call.
        during: &'static str,
        /// How.
        detail: &'static str,
    },
    /// A file to upload could not be read.
    #[error("could not read `{}`", path.display())]
    Upload {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The credentials for a registry could not be found out.
    #[error("could not look up the credentials for the image's registry")]
    Credentials(#[source] banger_registry_auth::AuthError),
    /// A file that is to be read at once is too long.
    #[error("the file has more than {limit_bytes} bytes")]
    FileTooLong {
        /// The bound that was passed.
        limit_bytes: usize,
    },
    /// What came out of a VM could not be written here.
    #[error("could not write `{}`", path.display())]
    Unpack {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What came out of a VM is what no honest VM sends, or more than may come.
    #[error("the VM sent `{path}`, which {problem}")]
    UnsafeEntry {
        /// Its name, escaped.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An archive that came from the daemon is damaged.
    #[error("the archive of the files is damaged")]
    Archive(#[source] banger_archive::TarError),
    /// A workspace could not be collected, taken or applied here.
    #[error(transparent)]
    Workspace(#[from] banger_workspace::client::Error),
    /// The caller gave it up.
    #[error("it was given up")]
    GivenUp,
    /// Standard input was written after the process ended or its input was closed.
    #[error("the process takes no more standard input")]
    InputClosed,
    /// The output of a process that was to be collected is too long.
    #[error("the process wrote more than {limit_bytes} bytes")]
    OutputTooLong {
        /// The bound that was passed.
        limit_bytes: usize,
    },
}

/// What is known of a process whose caller lost it: enough to attach to its session where this one ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LostProcess {
    /// Its session's id.
    pub session_id: String,
    /// The offset after the last byte of output that came.
    pub output_offset: i64,
    /// How many bytes of its standard input the guest is known to have taken.
    pub stdin_offset: i64,
    /// What [`Process::output`](crate::Process::output) had collected of file descriptor 1, or the terminal.
    pub stdout: Vec<u8>,
    /// The same of file descriptor 2.
    pub stderr: Vec<u8>,
}

impl LostProcess {
    fn metadata(&self) -> [(String, String); 3] {
        [
            ("session_id".to_owned(), self.session_id.clone()),
            ("output_offset".to_owned(), self.output_offset.to_string()),
            ("stdin_offset".to_owned(), self.stdin_offset.to_string()),
        ]
    }
}

/// An error that the daemon answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub code: Code,
    /// What failed.
    pub message: String,
    /// A stable word for programs; empty if the daemon gave none.
    pub reason: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The dynamic words of the message.
    pub metadata: BTreeMap<String, String>,
    /// Field and description of each field at fault.
    pub violations: Vec<(String, String)>,
    /// How long to wait before a repeat, if one may help.
    pub retry_after: Option<Duration>,
    /// The process that it was about, if one had been begun.
    pub process: Option<Box<LostProcess>>,
}

impl Refusal {
    fn new(code: Code, message: &str, details: &ErrorDetails) -> Self {
        let info = details.error_info();
        let mut metadata: BTreeMap<String, String> = info
            .map(|info| info.metadata.clone().into_iter().collect())
            .unwrap_or_default();
        let remedy = metadata.remove(REMEDY).filter(|text| !text.is_empty());
        let violations = details.bad_request().map_or_else(Vec::new, |bad| {
            let pair = |violation: &tonic_types::FieldViolation| {
                (violation.field.clone(), violation.description.clone())
            };
            bad.field_violations.iter().map(pair).collect()
        });
        Self {
            code,
            message: if message.is_empty() {
                code.description().to_owned()
            } else {
                message.to_owned()
            },
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            remedy,
            metadata,
            violations,
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            process: None,
        }
    }

    fn code_ran(&self) -> CodeRan {
        match self.metadata.get(CODE_RAN).map(String::as_str) {
            Some("no") => CodeRan::No,
            Some("yes") => CodeRan::Yes,
            Some(_) => CodeRan::Maybe,
            None => match self.code {
                Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::ResourceExhausted
                | Code::Unauthenticated
                | Code::PermissionDenied
                | Code::Unimplemented => CodeRan::No,
                _ => CodeRan::Maybe,
            },
        }
    }
}

impl Error {
    /// The daemon's answer, or the break of the connection, that `status` stands for.
    pub(crate) fn from_status(status: Status, during: &'static str) -> Self {
        if is_break(&status) {
            let refused = io_source(&status).and_then(|io| Some((io, tls::problem(io)?)));
            if let Some((io, problem)) = refused.filter(|(_, problem)| problem.is_certificate()) {
                return Self::Tls {
                    to: format!("bangerd again during {during}"),
                    problem,
                    code_ran: CodeRan::Maybe,
                    source: io::Error::new(io.kind(), io.to_string()),
                };
            }
            let code_ran = CodeRan::Maybe;
            return Self::Disconnected {
                during,
                code_ran,
                process: None,
                source: Some(Box::new(status)),
            };
        }
        let details = status.get_error_details();
        Self::Refused(Box::new(Refusal::new(
            status.code(),
            status.message(),
            &details,
        )))
    }

    /// The error inside a failed operation or VM.
    #[must_use]
    pub fn from_rpc(status: &tonic_types::Status) -> Self {
        let details = status.get_error_details();
        Self::Refused(Box::new(Refusal::new(
            Code::from(status.code),
            &status.message,
            &details,
        )))
    }

    /// A stream that ended without its last message.
    pub(crate) const fn cut_short(during: &'static str) -> Self {
        Self::Disconnected {
            during,
            code_ran: CodeRan::Maybe,
            process: None,
            source: None,
        }
    }

    /// Whether the connection failed, rather than the request.
    #[must_use]
    pub const fn is_connection_lost(&self) -> bool {
        matches!(
            self,
            Self::Disconnected { .. } | Self::ConnectionSilent { .. }
        )
    }

    /// The same, knowing whether the caller's code ran.
    pub(crate) fn with_code_ran(mut self, ran: CodeRan) -> Self {
        if let Self::Disconnected { code_ran, .. }
        | Self::ConnectionSilent { code_ran, .. }
        | Self::Tls { code_ran, .. } = &mut self
        {
            *code_ran = ran;
        }
        self
    }

    /// The same of a process that was known to run: whatever a refusal to attach to it says of itself, the caller's code ran.
    pub(crate) fn of_running(mut self) -> Self {
        if let Self::Refused(refusal) = &mut self
            && refusal.code_ran() == CodeRan::No
        {
            let yes = CodeRan::Yes.as_str().to_owned();
            refusal.metadata.insert(CODE_RAN.to_owned(), yes);
        }
        self.with_code_ran(CodeRan::Yes)
    }

    /// The process that was lost; `None` where the error is about none.
    #[must_use]
    pub fn lost_process(&self) -> Option<&LostProcess> {
        match self {
            Self::Refused(refusal) => refusal.process.as_deref(),
            Self::Disconnected { process, .. } | Self::ConnectionSilent { process, .. } => {
                process.as_deref()
            }
            _ => None,
        }
    }

    /// Where it says which process was lost, if it can.
    pub(crate) fn lost_process_mut(&mut self) -> Option<&mut Option<Box<LostProcess>>> {
        match self {
            Self::Refused(refusal) => Some(&mut refusal.process),
            Self::Disconnected { process, .. } | Self::ConnectionSilent { process, .. } => {
                Some(process)
            }
            _ => None,
        }
    }

    /// A stable word for programs: the daemon's, or one of this crate's own.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Host(_) => "HOST_INVALID",
            Self::Connect { .. } | Self::Unreachable { .. } => "DAEMON_UNREACHABLE",
            Self::Tls { problem, .. } => problem.reason(),
            Self::CertificateFile { .. } => "CERTIFICATE_FILE",
            Self::Refused(refusal) => &refusal.reason,
            Self::Disconnected { .. } => "CONNECTION_LOST",
            Self::ConnectionSilent { .. } => "CONNECTION_SILENT",
            Self::Protocol { .. } => "PROTOCOL_BROKEN",
            Self::Upload { .. } => "FILE_UNREADABLE",
            Self::Credentials(_) => "REGISTRY_CREDENTIALS_UNREADABLE",
            Self::InputClosed => "INPUT_CLOSED",
            Self::FileTooLong { .. } => "FILE_TOO_LONG",
            Self::Unpack { .. } => "FILE_NOT_WRITTEN",
            Self::UnsafeEntry { .. } => "DOWNLOAD_UNSAFE",
            Self::Archive(_) => "ARCHIVE_DAMAGED",
            Self::Workspace(error) => error.reason(),
            Self::GivenUp => "GIVEN_UP",
            Self::OutputTooLong { .. } => "OUTPUT_TOO_LONG",
        }
    }

    /// The status code: the daemon's, or the one that fits.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::Host(_) | Self::Upload { .. } | Self::CertificateFile { .. } => {
                Code::InvalidArgument
            }
            Self::Tls { problem, .. } if problem.passes() => Code::Unavailable,
            Self::Tls { .. } => Code::Unauthenticated,
            Self::Credentials(_) => Code::FailedPrecondition,
            Self::Connect { .. }
            | Self::Unreachable { .. }
            | Self::Disconnected { .. }
            | Self::ConnectionSilent { .. } => Code::Unavailable,
            Self::Protocol { .. } => Code::Internal,
            Self::InputClosed => Code::FailedPrecondition,
            Self::OutputTooLong { .. } | Self::FileTooLong { .. } => Code::ResourceExhausted,
            Self::Unpack { .. } | Self::UnsafeEntry { .. } => Code::FailedPrecondition,
            Self::Archive(_) => Code::DataLoss,
            Self::Workspace(_) => Code::FailedPrecondition,
            Self::GivenUp => Code::Cancelled,
        }
    }

    /// What to do about it, as a sentence; `None` where nobody can know.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Refused(refusal) => return refusal.remedy.clone(),
            Self::Host(error) => return Some(error.remedy().to_owned()),
            Self::Workspace(error) => return error.remedy(),
            Self::Connect { source, .. } => connect_remedy(source.kind()),
            Self::Unreachable { .. } => {
                "Check the host and port (tcp.listen of the daemon's configuration), its firewall, and that bangerd runs there."
            }
            Self::Tls { problem, .. } => problem.remedy(),
            Self::CertificateFile { .. } => {
                "Give PEM files of a certificate, its key and the daemon's authority, or the directory that `banger cert issue` made."
            }
            Self::Disconnected { .. } | Self::ConnectionSilent { .. } => {
                "Check that bangerd runs and look at its log. VMs and sessions outlive it: list them before repeating."
            }
            Self::Protocol { .. } => "Use a client and a daemon of the same version.",
            Self::Upload { .. } => "Give a file or a directory that exists and may be read.",
            Self::Credentials(error) => error.remedy(),
            Self::OutputTooLong { .. } => "Read the output as a stream instead.",
            Self::FileTooLong { .. } => "Read the file in parts, or as a stream.",
            Self::Unpack { .. } => {
                "Give a place that may be written and has room. What was whole before is there."
            }
            Self::UnsafeEntry { .. } => {
                "Nothing was written outside of the target. Look at the files in the VM before you take them; the bounds can be raised (--max-size)."
            }
            Self::Archive(_) => "Get the files again; what was whole before is there.",
            Self::InputClosed | Self::GivenUp => return None,
        };
        Some(text.to_owned())
    }

    /// Each dynamic word of the message.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let one = |key: &str, value: String| BTreeMap::from([(key.to_owned(), value)]);
        let mut metadata = match self {
            Self::Refused(refusal) => refusal.metadata.clone(),
            Self::Connect { path, .. }
            | Self::CertificateFile { path, .. }
            | Self::Upload { path, .. }
            | Self::Unpack { path, .. } => one("path", path.display().to_string()),
            Self::Unreachable { host, .. } => one("host", host.clone()),
            Self::Tls { to, .. } => one("to", to.clone()),
            Self::Disconnected { during, .. }
            | Self::Protocol { during, .. }
            | Self::ConnectionSilent { during, .. } => one("during", (*during).to_owned()),
            Self::OutputTooLong { limit_bytes } | Self::FileTooLong { limit_bytes } => {
                one("limit_bytes", limit_bytes.to_string())
            }
            Self::UnsafeEntry { path, .. } => one("path", path.clone()),
            Self::Workspace(error) => match (error.paths(), error.way_back()) {
                ([], []) => BTreeMap::new(),
                ([], commands) => one("way_back", commands.join("\n")),
                (paths, _) => one("paths", paths.join("\n")),
            },
            Self::Host(_)
            | Self::InputClosed
            | Self::Credentials(_)
            | Self::Archive(_)
            | Self::GivenUp => BTreeMap::new(),
        };
        metadata.extend(
            self.lost_process()
                .into_iter()
                .flat_map(LostProcess::metadata),
        );
        metadata
    }

    /// Whether the code that the caller wanted run has run.
    #[must_use]
    pub fn code_ran(&self) -> CodeRan {
        match self {
            Self::Host(_)
            | Self::Connect { .. }
            | Self::Unreachable { .. }
            | Self::CertificateFile { .. }
            | Self::Upload { .. }
            | Self::Credentials(_)
            | Self::FileTooLong { .. }
            | Self::Unpack { .. }
            | Self::UnsafeEntry { .. }
            | Self::Archive(_)
            | Self::Workspace(_)
            | Self::GivenUp => CodeRan::No,
            Self::Refused(refusal) => refusal.code_ran(),
            Self::Disconnected { code_ran, .. }
            | Self::ConnectionSilent { code_ran, .. }
            | Self::Tls { code_ran, .. } => *code_ran,
            Self::Protocol { .. } => CodeRan::Maybe,
            Self::InputClosed | Self::OutputTooLong { .. } => CodeRan::Yes,
        }
    }
}

/// What to do when the socket cannot be connected to.
fn connect_remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "Use an account that may write to the socket (group `banger`), or start a bangerd of your own."
        }
        io::ErrorKind::ConnectionRefused => {
            "bangerd has ended and left its socket behind: start it again."
        }
        _ => "Start bangerd, or name the socket of a running one with --host or BANGER_HOST.",
    }
}

/// Whether `status` was made on this side because the transport failed: the daemon's own errors have
/// no source, and always carry details.
fn is_break(status: &Status) -> bool {
    let transport = matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
    );
    transport && status.details().is_empty() && status.source().is_some()
}

/// The system's error at the root of `error`, if there is one.
pub(crate) fn io_source<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// `error` with all its causes, joined by `: `.
#[must_use]
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !next.is_empty() && !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
