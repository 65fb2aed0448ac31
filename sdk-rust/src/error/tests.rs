//! What errors say of themselves.

use std::collections::HashMap;

use super::*;

fn refused(code: Code, metadata: &[(&str, &str)]) -> Error {
    let pairs: HashMap<String, String> = metadata
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let details = ErrorDetails::with_error_info("VM_NOT_FOUND", "banger.dev", pairs);
    Error::from_status(
        Status::with_error_details(code, "no VM is named `web`", details),
        "GetVm",
    )
}

#[test]
fn the_daemons_details_are_read_and_the_remedy_is_taken_out_of_the_metadata() {
    let error = refused(
        Code::NotFound,
        &[("vm", "web"), ("remedy", "List the VMs.")],
    );
    assert_eq!(error.to_string(), "no VM is named `web`");
    assert_eq!(error.reason(), "VM_NOT_FOUND");
    assert_eq!(error.remedy().as_deref(), Some("List the VMs."));
    assert_eq!(
        error.metadata(),
        BTreeMap::from([("vm".to_owned(), "web".to_owned())])
    );
    assert_eq!(error.code(), Code::NotFound);
}

#[test]
fn code_ran_is_the_daemons_word_else_follows_from_the_code() {
    assert_eq!(refused(Code::NotFound, &[]).code_ran(), CodeRan::No);
    assert_eq!(refused(Code::Unavailable, &[]).code_ran(), CodeRan::Maybe);
    assert_eq!(
        refused(Code::Unavailable, &[("code_ran", "no")]).code_ran(),
        CodeRan::No
    );
    assert_eq!(
        refused(Code::NotFound, &[("code_ran", "yes")]).code_ran(),
        CodeRan::Yes
    );
}

#[test]
fn an_unavailable_of_the_daemon_is_no_lost_connection() {
    assert!(!refused(Code::Unavailable, &[]).is_connection_lost());
    assert!(Error::cut_short("Exec").is_connection_lost());
}

#[test]
fn the_texts_name_what_failed() {
    let connect = Error::Connect {
        path: "/run/x.sock".into(),
        source: io::Error::from(io::ErrorKind::NotFound),
    };
    assert_eq!(
        connect.to_string(),
        "could not connect to bangerd at `/run/x.sock`"
    );
    assert_eq!(connect.code_ran(), CodeRan::No);
    let silent = Error::ConnectionSilent {
        during: "Exec",
        silent: Duration::from_secs(10),
        code_ran: CodeRan::Yes,
        process: None,
    };
    assert_eq!(
        silent.to_string(),
        "nothing was heard from bangerd for 10 s during Exec"
    );
    assert_eq!(
        Error::cut_short("Exec").to_string(),
        "the connection to bangerd was lost during Exec"
    );
}

#[test]
fn kinds_and_whether_to_repeat_are_those_of_the_python_package() {
    let kinds = [
        (Code::NotFound, ErrorKind::NotFound, false),
        (Code::AlreadyExists, ErrorKind::AlreadyExists, false),
        (Code::InvalidArgument, ErrorKind::InvalidRequest, false),
        (Code::FailedPrecondition, ErrorKind::WrongState, false),
        (Code::ResourceExhausted, ErrorKind::Exhausted, false),
        (Code::PermissionDenied, ErrorKind::Refused, false),
        (Code::Unavailable, ErrorKind::Refused, true),
    ];
    for (code, kind, is_retryable) in kinds {
        let error = refused(code, &[]);
        assert_eq!((error.kind(), error.is_retryable()), (kind, is_retryable));
        assert_eq!(error.retry_after(), None);
    }
    let mut details = ErrorDetails::with_error_info("TOO_MANY_REQUESTS", "banger.dev", []);
    details.set_retry_info(Some(Duration::from_secs(3)));
    let status = Status::with_error_details(Code::ResourceExhausted, "too fast", details);
    let error = Error::from_status(status, "GetVm");
    assert!(error.is_retryable());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
    let lost = Error::cut_short("Exec");
    assert_eq!(
        (lost.kind(), lost.is_retryable()),
        (ErrorKind::ConnectionLost, false)
    );
}

#[test]
fn the_python_package_knows_the_same_reasons_for_a_command_that_did_not_start() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("sdk-python/src/banger/errors.py")).unwrap();
    let (_, list) = text.split_once("_NOT_STARTED = frozenset(").unwrap();
    let (list, _) = list.split_once(')').unwrap();
    let mut reasons: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, kind::NOT_STARTED);
}
