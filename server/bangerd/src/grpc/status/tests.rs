use std::time::Duration;

use super::*;

fn failure(kind: FailureKind) -> Failure {
    Failure {
        kind,
        reason: "SOME_REASON".into(),
        message: "it did not work".into(),
        remedy: Some("Do it well.".into()),
        metadata: [("vm".to_owned(), "web".to_owned())].into(),
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

#[test]
fn every_kind_has_its_code_and_detail() {
    let resource = || (text("vm"), text("web"));
    let named = |make: fn(String, String) -> FailureKind| make(resource().0, resource().1);
    let subject = text("host/disk");
    let table: [(FailureKind, Code); 13] = [
        (
            FailureKind::InvalidArgument {
                field: text("spec.name"),
            },
            Code::InvalidArgument,
        ),
        (
            named(|resource, name| FailureKind::NotFound { resource, name }),
            Code::NotFound,
        ),
        (
            named(|resource, name| FailureKind::AlreadyExists { resource, name }),
            Code::AlreadyExists,
        ),
        (
            FailureKind::FailedPrecondition {
                subject: subject.clone(),
            },
            Code::FailedPrecondition,
        ),
        (FailureKind::Aborted, Code::Aborted),
        (
            FailureKind::ResourceExhausted { subject },
            Code::ResourceExhausted,
        ),
        (
            FailureKind::Unavailable {
                retry_after: Duration::from_secs(3),
            },
            Code::Unavailable,
        ),
        (FailureKind::DeadlineExceeded, Code::DeadlineExceeded),
        (FailureKind::Unimplemented, Code::Unimplemented),
        (
            named(|resource, name| FailureKind::DataLoss { resource, name }),
            Code::DataLoss,
        ),
        (FailureKind::Cancelled, Code::Cancelled),
        (FailureKind::PermissionDenied, Code::PermissionDenied),
        (FailureKind::Internal, Code::Internal),
    ];
    for (kind, code) in table {
        let status = of_failure(&failure(kind));
        assert_eq!(status.code(), code);
        assert_eq!(status.message(), "it did not work");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("SOME_REASON", "banger.dev")
        );
        assert_eq!(info.metadata["vm"], "web");
        assert_eq!(info.metadata["remedy"], "Do it well.");
        assert_eq!(
            details.bad_request().is_some(),
            code == Code::InvalidArgument
        );
        assert_eq!(
            details.resource_info().is_some(),
            matches!(code, Code::NotFound | Code::AlreadyExists | Code::DataLoss)
        );
        assert_eq!(
            details.precondition_failure().is_some(),
            code == Code::FailedPrecondition
        );
        assert_eq!(
            details.quota_failure().is_some(),
            code == Code::ResourceExhausted
        );
        assert_eq!(details.retry_info().is_some(), code == Code::Unavailable);
    }
}

#[test]
fn a_status_fits_into_the_trailers_that_clients_take() {
    let mut long = failure(FailureKind::FailedPrecondition {
        subject: text("guest/boot"),
    });
    long.message = "é".repeat(10_000);
    long.remedy = Some("r".repeat(5_000));
    long.metadata
        .insert(text("console"), format!("{}the end", "c".repeat(100_000)));
    let status = of_failure(&long);
    let headers = status.clone().into_http::<()>().headers().clone();
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum();
    assert!(size < 8192, "{size}");
    assert!(
        status.get_error_details().error_info().unwrap().metadata["console"].ends_with("the end")
    );
}

#[test]
fn a_failure_inside_a_message_stays_whole() {
    let mut long = failure(FailureKind::Internal);
    long.metadata.insert(text("console"), "c".repeat(100_000));
    let message = message(&long);
    assert_eq!(
        (message.code, message.message.as_str()),
        (13, "it did not work")
    );
    assert!(message.details[0].value.len() > 100_000);
}

#[test]
fn whether_the_callers_code_ran_is_told_where_it_is_known() {
    let ran = |reason: &str, kind: FailureKind| {
        let failure = Failure {
            reason: reason.into(),
            ..failure(kind)
        };
        code_ran(&failure)
    };
    let unavailable = || FailureKind::Unavailable {
        retry_after: Duration::from_secs(1),
    };
    assert_eq!(ran("AGENT_LOST", unavailable()), Some("maybe"));
    assert_eq!(ran("AGENT_AWAY", unavailable()), Some("no"));
    assert_eq!(
        ran(
            "PROGRAM_NOT_FOUND",
            FailureKind::InvalidArgument {
                field: text("spec.command")
            }
        ),
        Some("no")
    );
    assert_eq!(
        ran(
            "STDIN_REFUSED",
            FailureKind::InvalidArgument {
                field: text("stdin")
            }
        ),
        Some("maybe")
    );
    assert_eq!(ran("INTERRUPTED", unavailable()), None);
}

#[test]
fn the_status_of_an_operation_names_it() {
    let status = of_operation("some-id", &failure(FailureKind::Aborted));
    assert_eq!(status.metadata().get(OPERATION_KEY).unwrap(), "some-id");
}
