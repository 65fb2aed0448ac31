//! Judges a guest's errors anew: its reason is taken only if it is one that we know, its words only
//! bounded and without control characters, and never as our own.

use std::error::Error;

use banger_core::SessionId;
use banger_core::file::FileProblem;
use banger_core::guest::GuestError;
use banger_core::workspace::WorkspaceProblem;
use tonic::{Code, Status};

use crate::limits::DETAIL_MAX_BYTES;

/// The metadata key of the reason: one UPPER_SNAKE word.
pub const REASON_KEY: &str = "banger-reason";
/// The metadata key of what it is about, as bytes.
pub const SUBJECT_KEY: &str = "banger-subject-bin";
/// The metadata key of the detail, as bytes.
pub const DETAIL_KEY: &str = "banger-detail-bin";

/// A guest's words, cut to [`DETAIL_MAX_BYTES`] and with every control character replaced.
#[must_use]
pub fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(DETAIL_MAX_BYTES);
    let is_harmless = |c: char| {
        !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text[..end]
        .chars()
        .map(|c| if is_harmless(c) { c } else { '\u{fffd}' })
        .collect()
}

/// A breach of the protocol.
pub(crate) fn broken(detail: impl AsRef<str>) -> GuestError {
    GuestError::Protocol {
        detail: bounded(detail.as_ref()),
    }
}

/// What a call was about, for errors that name it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The verb.
    pub(crate) during: &'static str,
    /// The session, where there is one.
    pub(crate) session: Option<SessionId>,
    /// Program, user and directory that were asked for: the guest does not get to say them.
    pub(crate) asked: Option<Asked>,
}

/// What was to be started.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) program: String,
    pub(crate) user: String,
    pub(crate) working_dir: String,
}

/// Our judgement of `status`, which the guest, or our own client, gave.
pub(crate) fn judge(status: &Status, call: &Call) -> GuestError {
    let detail = || detail(status);
    match (reason(status), call.session) {
        (Some("SESSION_NOT_FOUND"), Some(id)) => GuestError::UnknownSession { id },
        (Some("PROGRAM_NOT_FOUND"), _) => GuestError::ProgramNotFound {
            program: asked(status, call.asked.as_ref().map(|asked| &asked.program)),
        },
        (Some("PROGRAM_NOT_EXECUTABLE"), _) => GuestError::ProgramNotExecutable {
            program: asked(status, call.asked.as_ref().map(|asked| &asked.program)),
            detail: detail(),
        },
        (Some("USER_NOT_FOUND"), _) => GuestError::UnknownUser {
            user: asked(status, call.asked.as_ref().map(|asked| &asked.user)),
        },
        (Some("WORKING_DIRECTORY_UNUSABLE"), _) => GuestError::WorkingDirectory {
            path: asked(status, call.asked.as_ref().map(|asked| &asked.working_dir)),
            detail: detail(),
        },
        (Some("ARGUMENTS_TOO_LONG"), _) => GuestError::ArgumentsTooLong { detail: detail() },
        (Some("PROCESS_NOT_STARTED"), _) => GuestError::StartProcess { detail: detail() },
        (Some("TOO_MANY_SESSIONS"), _) => GuestError::TooManySessions {
            limit: text(status, SUBJECT_KEY)
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
        },
        (Some("TOO_MANY_FILE_CALLS"), _) => GuestError::TooManyFileCalls {
            limit: text(status, SUBJECT_KEY)
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
        },
        (Some("TOO_MANY_WORKSPACE_CALLS"), _) => GuestError::TooManyWorkspaceCalls {
            limit: text(status, SUBJECT_KEY)
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
        },
        (Some("INIT_NOT_FOUND"), _) => GuestError::InitNotFound {
            path: bounded(&text(status, SUBJECT_KEY).unwrap_or_default()),
        },
        (Some("INIT_NOT_EXECUTABLE"), _) => GuestError::InitNotExecutable {
            path: bounded(&text(status, SUBJECT_KEY).unwrap_or_default()),
            detail: detail(),
        },
        (Some("GUEST_NOT_SET_UP"), _) => GuestError::NotSetUp { detail: detail() },
        (Some("WRITER_REPLACED"), _) => GuestError::WriterReplaced,
        (Some("STDIN_REFUSED"), _) => GuestError::StdinRefused { detail: detail() },
        (Some(reason), _) => about_files(reason, status),
        (None, _) => without_reason(status, call.during),
    }
}

/// What is wrong with a file or a workspace.
fn about_files(reason: &str, status: &Status) -> GuestError {
    let path = || bounded(&text(status, SUBJECT_KEY).unwrap_or_default());
    let detail = detail(status);
    if let Some(problem) = FileProblem::from_reason(reason) {
        let path = path();
        return GuestError::File {
            problem,
            path,
            detail,
        };
    }
    match WorkspaceProblem::from_reason(reason) {
        Some(problem) => GuestError::Workspace {
            problem,
            path: path(),
            detail,
        },
        None => GuestError::Refused { detail },
    }
}

/// The reason that the guest gives.
pub(crate) fn reason(status: &Status) -> Option<&str> {
    status.metadata().get(REASON_KEY)?.to_str().ok()
}

/// The guest's words about it, bounded.
pub(crate) fn detail(status: &Status) -> String {
    bounded(&text(status, DETAIL_KEY).unwrap_or_else(|| status.message().to_owned()))
}

/// What was asked for; what the guest's own default was, only the guest knows.
fn asked(status: &Status, asked: Option<&String>) -> String {
    match asked {
        Some(text) if !text.is_empty() => bounded(text),
        _ => bounded(&text(status, SUBJECT_KEY).unwrap_or_default()),
    }
}

fn text(status: &Status, key: &'static str) -> Option<String> {
    let bytes = status.metadata().get_bin(key)?.to_bytes().ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Our agent gives a reason with every refusal: the rest is the transport, our client, or a lie.
fn without_reason(status: &Status, during: &'static str) -> GuestError {
    if is_transport(status) || matches!(status.code(), Code::Unavailable | Code::Cancelled) {
        return GuestError::Lost { during };
    }
    match status.code() {
        Code::Unimplemented => GuestError::Refused {
            detail: "it does not know this call".to_owned(),
        },
        code => broken(format!("{code:?}: {}", status.message())),
    }
}

fn is_transport(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<hyper::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}
