//! From a failure to what a caller sees of it. The only file that makes a status.
//!
//! A status travels in HTTP/2 trailers, of which clients take little (gRPC's own limit is 8 KiB in all): here
//! every text is cut to fit. The status inside an operation or VM is in a message's body and stays whole.

use banger_app::AppError;
use banger_core::{Explain, Failure, FailureKind};
use prost::Message as _;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetail, ErrorDetails, ErrorInfo, StatusExt as _};

/// Who defines the reasons.
const DOMAIN: &str = "banger.dev";
/// The metadata key of a status that names the operation it ended.
pub(crate) const OPERATION_KEY: &str = "operation";
/// The longest message in trailers, bytes. Its encoding may triple it.
const MESSAGE_MAX: usize = 512;
/// The longest of the metadata's values in trailers, bytes.
const VALUE_MAX: usize = 1024;
/// The longest of all values together in trailers, bytes.
const VALUES_MAX: usize = 2048;

/// Reasons after which the caller's code may have run.
const MAYBE_RAN: [&str; 7] = [
    "AGENT_LOST",
    "AGENT_SILENT",
    "AGENT_PROTOCOL_BROKEN",
    "STDIN_REFUSED",
    "WRITER_REPLACED",
    "OUTPUT_LOST",
    "DRAINING",
];
/// Reasons after which it certainly did not, where the code alone does not tell.
const NEVER_RAN: [&str; 14] = [
    "AGENT_AWAY",
    "AGENT_TOO_OLD",
    "BOOT_TIMEOUT",
    "BOOT_ENDED",
    "PROCESS_NOT_STARTED",
    "TOO_MANY_SESSIONS",
    "WRONG_STATE",
    "AGENT_MISSING",
    "INIT_NOT_FOUND",
    "INIT_NOT_EXECUTABLE",
    "VM_FILE_NOT_WRITTEN",
    "CREDENTIALS_UNREADABLE",
    "CREDENTIALS_UNSAFE",
    "CREDENTIALS_TOO_LARGE",
];

/// The status of a service's error.
pub(crate) fn of(error: &AppError) -> Status {
    of_failure(&error.to_failure())
}

/// The status of anything that can explain itself.
pub(crate) fn explain<E: Explain>(error: &E) -> Status {
    of_failure(&Failure::of(error))
}

/// The status of a failure, for trailers. Logs it, once.
pub(crate) fn of_failure(failure: &Failure) -> Status {
    log(failure);
    let mut details = details(failure);
    details.set_error_info(&failure.reason, DOMAIN, bounded(metadata(failure)));
    Status::with_error_details(
        code(&failure.kind),
        cut(&failure.message, MESSAGE_MAX),
        details,
    )
}

/// The status of an operation's failure, which names the operation.
pub(crate) fn of_operation(operation: &str, failure: &Failure) -> Status {
    let mut status = of_failure(failure);
    if let Ok(value) = MetadataValue::try_from(operation) {
        status.metadata_mut().insert(OPERATION_KEY, value);
    }
    status
}

/// A failure as a message carries it, whole.
pub(crate) fn message(failure: &Failure) -> tonic_types::Status {
    let mut details = details(failure);
    details.set_error_info(&failure.reason, DOMAIN, metadata(failure));
    let code = code(&failure.kind);
    let status = Status::with_error_details(code, failure.message.clone(), details);
    // The details of the trailer form are the encoded message form.
    tonic_types::Status::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
        code: code.into(),
        message: failure.message.clone(),
        details: Vec::new(),
    })
}

/// What a panicking handler answers. The panic itself was logged where it happened.
pub(crate) fn panicked() -> Status {
    let details = [ErrorDetail::from(ErrorInfo::new(
        "PANIC",
        DOMAIN,
        std::collections::HashMap::new(),
    ))];
    Status::with_error_details_vec_and_metadata(
        Code::Internal,
        "a defect ended the call; see the daemon's log",
        details,
        MetadataMap::new(),
    )
}

fn code(kind: &FailureKind) -> Code {
    match kind {
        FailureKind::InvalidArgument { .. } => Code::InvalidArgument,
        FailureKind::NotFound { .. } => Code::NotFound,
        FailureKind::AlreadyExists { .. } => Code::AlreadyExists,
        FailureKind::FailedPrecondition { .. } => Code::FailedPrecondition,
        FailureKind::Aborted => Code::Aborted,
        FailureKind::ResourceExhausted { .. } | FailureKind::Throttled { .. } => {
            Code::ResourceExhausted
        }
        FailureKind::PermissionDenied => Code::PermissionDenied,
        FailureKind::Unavailable { .. } => Code::Unavailable,
        FailureKind::DeadlineExceeded => Code::DeadlineExceeded,
        FailureKind::Unimplemented => Code::Unimplemented,
        FailureKind::DataLoss { .. } => Code::DataLoss,
        FailureKind::Cancelled => Code::Cancelled,
        FailureKind::Internal => Code::Internal,
    }
}

/// The details that belong to the kind.
fn details(failure: &Failure) -> ErrorDetails {
    let message = cut(&failure.message, MESSAGE_MAX);
    let mut details = ErrorDetails::new();
    match &failure.kind {
        FailureKind::InvalidArgument { field } => {
            details.add_bad_request_violation(field, message);
        }
        FailureKind::NotFound { resource, name }
        | FailureKind::AlreadyExists { resource, name }
        | FailureKind::DataLoss { resource, name } => {
            details.set_resource_info(resource, cut(name, VALUE_MAX), "", "");
        }
        FailureKind::FailedPrecondition { subject } => {
            details.add_precondition_failure_violation(&failure.reason, subject, message);
        }
        FailureKind::ResourceExhausted { subject } => {
            details.add_quota_failure_violation(subject, message);
        }
        FailureKind::Throttled {
            subject,
            retry_after,
        } => {
            details.add_quota_failure_violation(subject, message);
            details.set_retry_info(Some(*retry_after));
        }
        FailureKind::Unavailable { retry_after } => {
            details.set_retry_info(Some(*retry_after));
        }
        FailureKind::Aborted
        | FailureKind::PermissionDenied
        | FailureKind::DeadlineExceeded
        | FailureKind::Unimplemented
        | FailureKind::Cancelled
        | FailureKind::Internal => {}
    }
    details
}

fn metadata(failure: &Failure) -> std::collections::HashMap<String, String> {
    let mut metadata: std::collections::HashMap<String, String> =
        failure.metadata.clone().into_iter().collect();
    if let Some(remedy) = &failure.remedy {
        metadata.insert("remedy".into(), remedy.clone());
    }
    if let Some(ran) = code_ran(failure) {
        metadata.insert("code_ran".into(), ran.into());
    }
    metadata
}

/// Whether the caller's code ran, as far as the failure tells.
fn code_ran(failure: &Failure) -> Option<&'static str> {
    let reason = failure.reason.as_str();
    if MAYBE_RAN.contains(&reason) {
        return Some("maybe");
    }
    let before_anything = matches!(
        failure.kind,
        FailureKind::InvalidArgument { .. }
            | FailureKind::NotFound { .. }
            | FailureKind::AlreadyExists { .. }
            | FailureKind::Throttled { .. }
            | FailureKind::PermissionDenied
            | FailureKind::Unimplemented
    );
    (before_anything || NEVER_RAN.contains(&reason)).then_some("no")
}

/// Cuts what would not fit in trailers. The end of a long value stays: a console's last lines tell most.
fn bounded(
    metadata: std::collections::HashMap<String, String>,
) -> std::collections::HashMap<String, String> {
    let mut left = VALUES_MAX;
    let mut entries: Vec<(String, String)> = metadata.into_iter().collect();
    // Short ones first: they are the ones that programs read.
    entries.sort_by_key(|(_, value)| value.len());
    let fit = |(key, value): (String, String)| {
        let value = cut_front(&value, VALUE_MAX.min(left));
        left -= value.len();
        (key, value)
    };
    entries.into_iter().map(fit).collect()
}

fn cut(text: &str, max: usize) -> String {
    let end = text.floor_char_boundary(max);
    if end == text.len() {
        text.to_owned()
    } else {
        format!("{}…", &text[..end])
    }
}

fn cut_front(text: &str, max: usize) -> String {
    let start = text.ceil_char_boundary(text.len().saturating_sub(max));
    text[start..].to_owned()
}

/// A caller's faults are the caller's; defects and losses are ours.
fn log(failure: &Failure) {
    match failure.kind {
        FailureKind::Internal | FailureKind::DataLoss { .. } => {
            tracing::error!(reason = failure.reason, "{failure}");
        }
        FailureKind::InvalidArgument { .. }
        | FailureKind::NotFound { .. }
        | FailureKind::AlreadyExists { .. }
        | FailureKind::FailedPrecondition { .. }
        | FailureKind::Aborted
        | FailureKind::ResourceExhausted { .. }
        | FailureKind::Throttled { .. }
        | FailureKind::PermissionDenied
        | FailureKind::Unavailable { .. }
        | FailureKind::DeadlineExceeded
        | FailureKind::Unimplemented
        | FailureKind::Cancelled => {
            tracing::debug!(reason = failure.reason, "{failure}");
        }
    }
}

#[cfg(test)]
mod tests;
