//! Sessions: what is said in which order, and what wrong input makes of it.

use std::time::Duration;

use banger_proto::v1;
use banger_proto::v1::exec_request::Message as Ask;
use banger_proto::v1::exec_response::Message as Tell;
use futures::stream::{self, StreamExt as _};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::rig::{PATIENCE, Rig, assert_refused, drain};

fn spec(command: &[&str]) -> v1::SessionSpec {
    v1::SessionSpec {
        command: command.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn start(command: &[&str]) -> Ask {
    Ask::Start(v1::ExecStart {
        vm: "web".into(),
        spec: Some(spec(command)),
    })
}

fn stdin(offset: i64, data: &'static [u8]) -> Ask {
    Ask::Stdin(v1::Stdin {
        offset,
        data: data.into(),
    })
}

async fn rig() -> Rig {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    rig
}

/// Executes with these messages; the input stays open after them.
async fn exec(rig: &Rig, messages: Vec<Ask>) -> Result<Vec<Tell>, Status> {
    let messages = stream::iter(messages).map(|message| v1::ExecRequest {
        message: Some(message),
    });
    let answers = rig
        .sessions()
        .exec(messages.chain(stream::pending()))
        .await?
        .into_inner();
    let answers = drain(answers).await?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| answer.message)
        .filter(|told| !matches!(told, Tell::Heartbeat(_)))
        .collect())
}

/// An exec that has started and goes on while its answers are kept.
async fn sleeping(rig: &Rig) -> (v1::Session, Streaming<v1::ExecResponse>) {
    let first = v1::ExecRequest {
        message: Some(start(&["sleep"])),
    };
    let asked = stream::iter([first]).chain(stream::pending());
    let mut answers = rig.sessions().exec(asked).await.unwrap().into_inner();
    loop {
        let answer = answers.message().await.unwrap().unwrap();
        if let Some(Tell::Started(session)) = answer.message {
            return (session, answers);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_is_started_then_speaks_then_exits() {
    let rig = rig().await;
    let told = exec(&rig, vec![start(&["echo", "hello"])]).await.unwrap();
    let [
        Tell::Started(session),
        Tell::Output(output),
        Tell::Exited(exited),
    ] = told.as_slice()
    else {
        panic!("{told:?}")
    };
    assert_eq!(session.spec.as_ref().unwrap().command, ["echo", "hello"]);
    assert_eq!((output.offset, &output.data[..]), (0, &b"hello"[..]));
    assert_eq!(
        (exited.end_offset, exited.exit),
        (
            5,
            Some(v1::Exit {
                how: Some(v1::exit::How::Code(0))
            })
        )
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn input_is_acknowledged_and_echoed_in_order() {
    let rig = rig().await;
    let asked = vec![
        start(&["cat"]),
        stdin(0, b"ab"),
        stdin(2, b"c"),
        Ask::CloseStdin(v1::CloseStdin {}),
    ];
    let told = exec(&rig, asked).await.unwrap();
    let acks: Vec<i64> = told
        .iter()
        .filter_map(|told| {
            if let Tell::StdinAck(offset) = told {
                Some(*offset)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(acks, [2, 3]);
    assert!(matches!(told.last(), Some(Tell::Exited(_))));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_is_signalled_while_it_runs() {
    let rig = rig().await;
    let told = exec(&rig, vec![start(&["sleep"]), Ask::Signal(15)])
        .await
        .unwrap();
    let Some(Tell::Exited(exited)) = told.last() else {
        panic!("{told:?}")
    };
    assert_eq!(
        exited.exit,
        Some(v1::Exit {
            how: Some(v1::exit::How::Signal(15))
        })
    );
    assert!(rig.killed.lock().unwrap().is_empty());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_is_found_by_its_id_as_long_as_its_guest_knows_it() {
    let rig = rig().await;
    let (started, answers) = sleeping(&rig).await;
    let request = v1::GetSessionRequest {
        session: started.id.clone(),
    };
    let found = rig.sessions().get_session(request.clone()).await.unwrap();
    assert_eq!(found.into_inner().session.unwrap().id, started.id);
    let nobodys = v1::GetSessionRequest {
        session: banger_core::SessionId::new().to_string(),
    };
    let refused = rig.sessions().get_session(nobodys).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    drop(answers);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_of_a_held_vm_is_not_said_to_be_unknown() {
    let rig = rig().await;
    let (started, answers) = sleeping(&rig).await;
    let pause = v1::PauseVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    rig.vms().pause_vm(pause).await.unwrap();
    let request = v1::GetSessionRequest {
        session: started.id,
    };
    let refused = rig.sessions().get_session(request).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "WRONG_STATE", None);
    drop(answers);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_ends_an_exec_with_the_field() {
    let rig = rig().await;
    let cases = [
        (vec![stdin(0, b"x")], "start"),
        (vec![start(&["cat"]), start(&["cat"])], "start"),
        (vec![start(&["cat"]), stdin(-1, b"x")], "stdin.offset"),
        (vec![start(&["cat"]), Ask::Signal(0)], "signal"),
        (
            vec![
                start(&["cat"]),
                Ask::Resize(v1::TerminalSize {
                    rows: -1,
                    columns: 1,
                }),
            ],
            "resize",
        ),
        (vec![start(&[""])], "spec.command"),
        (
            vec![Ask::Start(v1::ExecStart {
                vm: String::new(),
                spec: Some(spec(&["cat"])),
            })],
            "start.vm",
        ),
        (
            vec![Ask::Start(v1::ExecStart {
                vm: "web".into(),
                spec: None,
            })],
            "start.spec",
        ),
    ];
    for (messages, field) in cases {
        let refused = exec(&rig, messages).await.unwrap_err();
        assert_refused(
            &refused,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some(field),
        );
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_did_not_run() {
    let rig = rig().await;
    let refused = exec(&rig, vec![start(&["missing"])]).await.unwrap_err();
    assert_refused(
        &refused,
        Code::InvalidArgument,
        "PROGRAM_NOT_FOUND",
        Some("spec.command"),
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_output_of_an_exec_is_data_loss() {
    let rig = rig().await;
    let refused = exec(&rig, vec![start(&["lose"])]).await.unwrap_err();
    assert_refused(&refused, Code::DataLoss, "OUTPUT_LOST", None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_that_breaks_tells_how_far_it_came_and_that_it_may_have_run() {
    let rig = rig().await;
    let refused = exec(&rig, vec![start(&["break"])]).await.unwrap_err();
    assert_refused(&refused, Code::DeadlineExceeded, "AGENT_SILENT", None);
    let told = refused.get_details_error_info().unwrap().metadata;
    let value = |key: &str| told.get(key).map(String::as_str);
    assert_eq!(value("output_offset"), Some("5"));
    assert_eq!(value("stdin_offset"), Some("3"));
    assert_eq!(value("code_ran"), Some("maybe"));
    // The guest may go on, and the caller come back.
    let killed = rig.killed.clone();
    rig.stopped().await;
    assert_eq!(*killed.lock().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_spec_or_an_attachment_gets_wrong_is_named() {
    use v1::attach_session_request::Message;
    use v1::read_options::From;
    let rig = rig().await;
    let limit = |resource, soft, hard| v1::ResourceLimit {
        resource,
        soft,
        hard,
    };
    let with = |umask, limits| v1::SessionSpec {
        umask,
        limits,
        ..spec(&["echo"])
    };
    for (wrong, field) in [
        (with(Some(0o1000), vec![]), "spec.umask"),
        (with(Some(-1), vec![]), "spec.umask"),
        (with(None, vec![limit(0, None, None)]), "spec.limits"),
        (with(None, vec![limit(99, None, None)]), "spec.limits"),
        (with(None, vec![limit(6, Some(-1), None)]), "spec.limits"),
        (with(None, vec![limit(6, None, Some(1))]), "spec.limits"),
        (with(None, vec![limit(6, None, None); 2]), "spec.limits"),
    ] {
        let start = Ask::Start(v1::ExecStart {
            vm: "web".into(),
            spec: Some(wrong),
        });
        let refused = exec(&rig, vec![start]).await.unwrap_err();
        assert_refused(
            &refused,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some(field),
        );
    }
    let session = start_sleep(&rig).await;
    for (from, writing, field) in [
        (From::TailLines(1_000_001), 0, "options.tail_lines"),
        (From::TailBytes(-1), 0, "options.tail_bytes"),
        (From::End(true), 9, "start.writing"),
    ] {
        let start = Message::Start(v1::AttachSessionStart {
            session: session.clone(),
            options: Some(v1::ReadOptions {
                from: Some(from),
                hold_process: false,
            }),
            writing,
            writer: String::new(),
        });
        let messages = stream::iter([v1::AttachSessionRequest {
            message: Some(start),
        }]);
        let refused = rig.sessions().attach_session(messages).await.unwrap_err();
        assert_refused(
            &refused,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some(field),
        );
    }
    let request = v1::ReadSessionLogRequest {
        session,
        options: Some(v1::ReadOptions {
            from: Some(From::Screen(true)),
            hold_process: false,
        }),
        follow: false,
    };
    let refused = rig.sessions().read_session_log(request).await.unwrap_err();
    let field = Some("options.screen");
    assert_refused(&refused, Code::InvalidArgument, "INVALID_FIELD", field);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_leaves_kills_its_exec() {
    let rig = rig().await;
    let (input, messages) = tokio::sync::mpsc::channel(1);
    let first = v1::ExecRequest {
        message: Some(start(&["sleep"])),
    };
    input.send(first).await.unwrap();
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    let mut answers = rig.sessions().exec(messages).await.unwrap().into_inner();
    let started = answers.message().await.unwrap().unwrap().message;
    assert!(matches!(started, Some(Tell::Started(_))));
    // Both directions: HTTP/2 resets a stream only when nobody holds either.
    drop((answers, input));
    let killed = async {
        while rig.killed.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, killed)
        .await
        .expect("the process is killed");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_leaves_an_exec_to_the_next() {
    let rig = rig().await;
    let first = v1::ExecRequest {
        message: Some(start(&["sleep"])),
    };
    let asked = stream::iter([first]).chain(stream::pending());
    let mut answers = rig.sessions().exec(asked).await.unwrap().into_inner();
    let started = answers.message().await.unwrap().unwrap().message;
    assert!(matches!(started, Some(Tell::Started(_))));
    let killed = rig.killed.clone();
    rig.stop.cancel();
    let ended = drain(answers).await.unwrap_err();
    assert_refused(&ended, Code::Unavailable, "DRAINING", None);
    rig.stopped().await;
    assert!(killed.lock().unwrap().is_empty());
}

/// Starts a session that sleeps; a repeat of the request is recognised.
async fn start_sleep(rig: &Rig) -> String {
    let request = v1::StartSessionRequest {
        vm: "web".into(),
        spec: Some(spec(&["sleep"])),
        request_id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
    };
    let answer = rig.sessions().start_session(request).await.unwrap();
    answer.into_inner().session.unwrap().id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_started_once_for_a_request_id() {
    let rig = rig().await;
    assert_eq!(start_sleep(&rig).await, start_sleep(&rig).await);
    let request = v1::ListSessionsRequest {
        vm: "web".into(),
        ..Default::default()
    };
    let listed = rig.sessions().list_sessions(request).await.unwrap();
    assert_eq!(listed.into_inner().sessions.len(), 1);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_started_once_by_repeats_that_overlap() {
    let rig = rig().await;
    let (one, two) = tokio::join!(start_sleep(&rig), start_sleep(&rig));
    assert_eq!(one, two);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_ran_nothing_is_tried_again_by_its_repeat() {
    let rig = rig().await;
    for _ in 0..2 {
        let request = v1::StartSessionRequest {
            vm: "web".into(),
            spec: Some(spec(&["missing"])),
            request_id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        };
        let refused = rig.sessions().start_session(request).await.unwrap_err();
        assert_refused(
            &refused,
            Code::InvalidArgument,
            "PROGRAM_NOT_FOUND",
            Some("spec.command"),
        );
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_did_not_reach_the_guest_is_made_by_its_repeat() {
    let rig = rig().await;
    let request = v1::StartSessionRequest {
        vm: "web".into(),
        spec: Some(spec(&["late"])),
        request_id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
    };
    let start = || async { rig.sessions().start_session(request.clone()).await };
    let lost = start().await.unwrap_err();
    assert_refused(&lost, Code::Unavailable, "AGENT_LOST", None);
    let started = start().await.unwrap().into_inner().session.unwrap();
    let again = start().await.unwrap().into_inner().session.unwrap();
    assert_eq!(started.id, again.id);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_attached_signalled_waited_for_and_removed() {
    use v1::attach_session_request::Message;
    let rig = rig().await;
    let session = start_sleep(&rig).await;
    let start = Message::Start(v1::AttachSessionStart {
        session: session.clone(),
        options: None,
        writing: 0,
        writer: String::new(),
    });
    let messages = stream::iter([v1::AttachSessionRequest {
        message: Some(start),
    }])
    .chain(stream::pending());
    let answers = rig
        .sessions()
        .attach_session(messages)
        .await
        .unwrap()
        .into_inner();
    let signal = v1::SignalSessionRequest {
        session: session.clone(),
        signal: 9,
        target: 3,
    };
    rig.sessions().signal_session(signal).await.unwrap();
    let answers = drain(answers).await.unwrap();
    assert!(matches!(
        answers.last().unwrap().message,
        Some(v1::attach_session_response::Message::Exited(_))
    ));
    let waited = rig
        .sessions()
        .wait_session(v1::WaitSessionRequest {
            session: session.clone(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(waited.exit.unwrap().how, Some(v1::exit::How::Signal(9)));
    rig.sessions()
        .delete_session(v1::DeleteSessionRequest {
            session: session.clone(),
            ..Default::default()
        })
        .await
        .unwrap();
    let gone = rig
        .sessions()
        .get_session(v1::GetSessionRequest { session })
        .await
        .unwrap_err();
    assert_refused(&gone, Code::NotFound, "SESSION_NOT_FOUND", None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_vm_runs_nothing() {
    let rig = rig().await;
    rig.vms()
        .kill_vm(v1::KillVmRequest {
            vm: "web".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    let refused = exec(&rig, vec![start(&["echo"])]).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "WRONG_STATE", None);
    rig.stopped().await;
}

/// Starts a session that goes on by itself.
async fn begin(rig: &Rig, command: &[&str]) -> String {
    let request = v1::StartSessionRequest {
        vm: "web".into(),
        spec: Some(spec(command)),
        ..Default::default()
    };
    let started = rig.sessions().start_session(request).await.unwrap();
    started.into_inner().session.unwrap().id
}

/// Stops the VM, its logs kept.
async fn stop(rig: &Rig) -> v1::KeptLogs {
    let request = v1::StopVmRequest {
        vm: "web".into(),
        keep_logs: true,
        ..Default::default()
    };
    let stopped = rig.vms().stop_vm(request).await.unwrap().into_inner();
    let stopped = stopped.vm.unwrap();
    assert_eq!(stopped.state(), v1::vm::State::Stopped);
    stopped.last_stop.unwrap().kept_logs.unwrap()
}

async fn listed(rig: &Rig) -> Result<Vec<v1::Session>, Status> {
    let request = v1::ListSessionsRequest {
        vm: "web".into(),
        ..Default::default()
    };
    let page = rig.sessions().list_sessions(request).await?;
    Ok(page.into_inner().sessions)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_sessions_have_each_once_and_the_oldest_first() {
    let rig = rig().await;
    let mut begun = Vec::new();
    for _ in 0..5 {
        begun.push(begin(&rig, &["sleep"]).await);
    }
    begun.sort_unstable();
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListSessionsRequest {
            vm: "web".into(),
            page_size: 2,
            page_token,
        };
        let page = rig.sessions().list_sessions(request).await.unwrap();
        let page = page.into_inner();
        found.extend(page.sessions.into_iter().map(|session| session.id));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    assert_eq!(found, begun);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_held_vm_is_not_said_to_be_removed() {
    let rig = rig().await;
    let session = start_sleep(&rig).await;
    let pause = v1::PauseVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    rig.vms().pause_vm(pause).await.unwrap();
    let delete = v1::DeleteSessionRequest {
        session: session.clone(),
        ..Default::default()
    };
    let refused = rig.sessions().delete_session(delete.clone()).await;
    let refused = refused.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "WRONG_STATE", None);
    assert!(rig.killed.lock().unwrap().is_empty());
    let resume = v1::ResumeVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    rig.vms().resume_vm(resume).await.unwrap();
    rig.sessions().delete_session(delete).await.unwrap();
    let killed: Vec<String> = {
        let killed = rig.killed.lock().unwrap();
        killed.iter().map(ToString::to_string).collect()
    };
    assert_eq!(killed, [session]);
    rig.stopped().await;
}

/// The output of a log, and whether it ends with its VM's end.
async fn log_of(rig: &Rig, session: &str) -> Result<(String, bool), Status> {
    use v1::read_session_log_response::Message;
    let request = v1::ReadSessionLogRequest {
        session: session.into(),
        ..Default::default()
    };
    let answers = rig.sessions().read_session_log(request).await?;
    let (mut text, mut is_gone) = (String::new(), false);
    for answer in drain(answers.into_inner()).await? {
        match answer.message.unwrap() {
            Message::Output(output) => text.push_str(std::str::from_utf8(&output.data).unwrap()),
            Message::Exited(exited) => {
                let exit = exited.exit.unwrap();
                is_gone = matches!(exit.how, Some(v1::exit::How::VmGone(true)));
            }
            _ => {}
        }
    }
    Ok((text, is_gone))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_keeps_the_logs_if_it_is_asked_to() {
    let rig = rig().await;
    let first = begin(&rig, &["echo", "one"]).await;
    let second = begin(&rig, &["echo", "two"]).await;
    let kept = stop(&rig).await;
    assert_eq!((kept.session_count, kept.problem.as_str()), (2, ""));
    assert!(kept.size_bytes > 0);
    let ids: Vec<_> = listed(&rig)
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(ids, [first.clone(), second.clone()]);
    assert_eq!(log_of(&rig, &first).await.unwrap(), ("one".into(), true));
    let request = v1::WaitSessionRequest {
        session: second.clone(),
    };
    let exit = rig.sessions().wait_session(request).await.unwrap();
    let how = exit.into_inner().exit.unwrap().how;
    assert_eq!(how, Some(v1::exit::How::VmGone(true)));
    let request = v1::DeleteSessionRequest {
        session: second.clone(),
        ..Default::default()
    };
    rig.sessions().delete_session(request).await.unwrap();
    assert_eq!(listed(&rig).await.unwrap().len(), 1);
    let gone = log_of(&rig, &second).await.unwrap_err();
    assert_refused(&gone, Code::NotFound, "SESSION_NOT_FOUND", None);
    // What is kept is there while the VM runs again, and until another stop keeps other logs.
    rig.start_vm("web").await.unwrap();
    assert_eq!(log_of(&rig, &first).await.unwrap(), ("one".into(), true));
    assert!(listed(&rig).await.unwrap().is_empty());
    let third = begin(&rig, &["echo", "three"]).await;
    assert_eq!(stop(&rig).await.session_count, 1);
    assert_eq!(log_of(&rig, &third).await.unwrap(), ("three".into(), true));
    log_of(&rig, &first).await.unwrap_err();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_was_not_asked_to_keeps_nothing() {
    let rig = rig().await;
    let session = begin(&rig, &["echo", "one"]).await;
    let request = v1::StopVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    let stopped = rig.vms().stop_vm(request).await.unwrap().into_inner();
    assert_eq!(stopped.vm.unwrap().last_stop.unwrap().kept_logs, None);
    let refused = listed(&rig).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "WRONG_STATE", None);
    let refused = log_of(&rig, &session).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "WRONG_STATE", None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_no_longer_for_logs_than_it_may() {
    let rig = Rig::start_with(|config| config.stop_logs_timeout = "2s".parse().unwrap()).await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    // Its log never ends; the newer one comes first.
    let endless = begin(&rig, &["lose"]).await;
    let whole = begin(&rig, &["echo", "whole"]).await;
    let kept = stop(&rig).await;
    assert_eq!(
        (kept.session_count, kept.problem.as_str()),
        (2, "not all was copied within 2s")
    );
    assert_eq!(log_of(&rig, &whole).await.unwrap(), ("whole".into(), true));
    assert_eq!(log_of(&rig, &endless).await.unwrap(), (String::new(), true));
    rig.stopped().await;
}
