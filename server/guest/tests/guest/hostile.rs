//! Guests that lie, stall or say too much: each ends in an error of ours, in bounded time and memory.
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use banger_core::guest::{AttachTarget, Guest, GuestConnector, GuestError, GuestInfo};
use banger_core::session::{AttachOptions, ReadFrom, SessionEvent};
use banger_core::vmm::Accelerator;
use banger_core::{SessionId, VmId};
use banger_guest::{Connector, Deadlines};
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::attach_session_response::Message;
use banger_proto::guest::v1::exit::How;
use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;

const SHORT: Duration = Duration::from_millis(300);

fn deadlines() -> Deadlines {
    Deadlines {
        hello: SHORT,
        configure: SHORT,
        start: SHORT,
        delete: SHORT,
        put: SHORT,
        taking: SHORT,
        flush: SHORT,
        grow: SHORT,
        call: SHORT,
        silence: SHORT,
        silence_translated: SHORT,
    }
}

mod files;
mod headers;
mod liar;
mod observe;
mod tunnel;
mod workspace;
use liar::{Liar, Script};

/// Connects to a guest that follows `script`; it lives as long as the set.
async fn lie(script: Script) -> (Result<(Arc<dyn Guest>, GuestInfo), GuestError>, JoinSet<()>) {
    lie_within(script, deadlines()).await
}

async fn lie_within(
    script: Script,
    deadlines: Deadlines,
) -> (Result<(Arc<dyn Guest>, GuestInfo), GuestError>, JoinSet<()>) {
    let (ours, theirs) = duplex(1 << 16);
    let mut tasks = JoinSet::new();
    tasks.spawn(liar::serve(theirs, Liar(Arc::new(script))));
    let connected = Connector::new(deadlines)
        .connect(VmId::new(), Box::new(ours), Accelerator::Kvm)
        .await;
    (connected, tasks)
}

/// What became of the events of a guest that sends `messages`, the true session first.
async fn events(id: SessionId, messages: Vec<Message>) -> Vec<Result<SessionEvent, GuestError>> {
    let mut all = vec![Message::Attached(liar::session(id))];
    all.extend(messages);
    raw_events(id, all).await
}

async fn raw_events(
    id: SessionId,
    messages: Vec<Message>,
) -> Vec<Result<SessionEvent, GuestError>> {
    let script = Script {
        messages,
        ..Script::default()
    };
    let (connected, _tasks) = lie(script).await;
    let (guest, _) = connected.unwrap();
    let input = futures::stream::pending().boxed();
    let attached = guest
        .attach(AttachTarget::Existing(id), AttachOptions::default(), input)
        .await;
    match attached {
        Ok(events) => events.collect().await,
        Err(error) => vec![Err(error)],
    }
}

fn output(offset: i64, data: &'static [u8]) -> Message {
    Message::Output(proto::Output {
        offset,
        stream: proto::Stream::Stdout.into(),
        time: Some(prost_types::Timestamp::default()),
        data: Bytes::from_static(data),
    })
}

fn screen(offset: i64, data: &'static [u8]) -> Message {
    Message::Screen(proto::Screen {
        offset,
        data: Bytes::from_static(data),
    })
}

fn usage(seconds: Option<i64>, memory_bytes: i64, process_count: i32) -> proto::SessionUsage {
    proto::SessionUsage {
        cpu_time: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        memory_bytes,
        process_count,
    }
}

fn exited(end_offset: i64, how: How) -> Message {
    Message::Exited(proto::Exited {
        exit: Some(proto::Exit { how: Some(how) }),
        end_offset,
    })
}

fn is_broken(result: Option<&Result<SessionEvent, GuestError>>) -> bool {
    matches!(result, Some(Err(GuestError::Protocol { .. })))
}

#[tokio::test]
async fn an_honest_guest_is_believed() {
    let id = SessionId::new();
    let events = events(id, vec![output(0, b"hi"), exited(2, How::Code(3))]).await;
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(Result::is_ok), "{events:?}");
}

#[tokio::test]
async fn each_lie_in_the_events_breaks_the_protocol() {
    let wrong_stream = |stream: i32| {
        let Message::Output(output) = output(0, b"x") else {
            unreachable!()
        };
        Message::Output(proto::Output { stream, ..output })
    };
    let bad_time = |seconds, nanos| {
        let Message::Output(output) = output(0, b"x") else {
            unreachable!()
        };
        let time = Some(prost_types::Timestamp { seconds, nanos });
        Message::Output(proto::Output { time, ..output })
    };
    let gap = |offset, lost_bytes| Message::Gap(proto::Gap { offset, lost_bytes });
    let lies: Vec<Vec<Message>> = vec![
        vec![output(1, b"hole")],
        vec![output(-1, b"negative")],
        vec![output(0, b"ab"), output(1, b"back")],
        vec![output(0, b"")],
        vec![wrong_stream(0)],
        vec![wrong_stream(77)],
        vec![bad_time(0, -1)],
        vec![bad_time(i64::MAX, 0)],
        vec![gap(0, 0)],
        vec![gap(0, -5)],
        vec![gap(3, 5)],
        vec![gap(0, i64::MAX), output(i64::MAX, b"beyond")],
        vec![screen(0, b"nobody asked")],
        vec![Message::StdinAck(-1)],
        vec![Message::StdinAck(9), Message::StdinAck(8)],
        vec![exited(4, How::Code(0))],
        vec![exited(0, How::Code(256))],
        vec![exited(0, How::Code(-1))],
        vec![exited(0, How::Signal(0))],
        vec![exited(0, How::Signal(65))],
        vec![Message::Exited(proto::Exited {
            exit: None,
            end_offset: 0,
        })],
        vec![Message::Attached(liar::session(SessionId::new()))],
        vec![],
    ];
    for lie in lies {
        let events = events(SessionId::new(), lie.clone()).await;
        assert!(is_broken(events.last()), "{lie:?} gave {:?}", events.last());
    }
}

#[tokio::test]
async fn each_lie_in_the_first_event_breaks_the_protocol() {
    let id = SessionId::new();
    let change = |change: fn(&mut proto::Session)| {
        let mut session = liar::session(id);
        change(&mut session);
        vec![Message::Attached(session)]
    };
    let lies = vec![
        vec![output(0, b"first")],
        vec![exited(0, How::Code(0))],
        change(|session| session.id = SessionId::new().to_string()),
        change(|session| session.id = "../../etc".into()),
        change(|session| session.spec = None),
        change(|session| session.pid = -7),
        change(|session| session.log_start_offset = 5),
        change(|session| session.log_end_offset = -5),
        change(|session| session.stdin_offset = -5),
        change(|session| session.spec.as_mut().unwrap().umask = Some(0o1000)),
        change(|session| {
            let limit = proto::ResourceLimit {
                resource: 99,
                ..proto::ResourceLimit::default()
            };
            session.spec.as_mut().unwrap().limits = vec![limit];
        }),
        change(|session| {
            session.spec.as_mut().unwrap().limits = vec![proto::ResourceLimit::default(); 10];
        }),
        change(|session| session.usage = Some(usage(None, 1, 1))),
        change(|session| session.usage = Some(usage(Some(-1), 1, 1))),
        change(|session| session.usage = Some(usage(Some(i64::MAX), 1, 1))),
        change(|session| session.usage = Some(usage(Some(1), -1, 1))),
        change(|session| session.usage = Some(usage(Some(1), i64::MAX, 1))),
        change(|session| session.usage = Some(usage(Some(1), 1, -1))),
        change(|session| session.usage = Some(usage(Some(1), 1, i32::MAX))),
        change(|session| session.start_time = None),
        change(|session| session.exit = Some(proto::Exit { how: None })),
        change(|session| session.spec.as_mut().unwrap().command.clear()),
        change(|session| {
            session.spec.as_mut().unwrap().terminal = Some(proto::TerminalSize {
                rows: 0,
                columns: 70_000,
            });
        }),
    ];
    for lie in lies {
        let events = raw_events(id, lie.clone()).await;
        assert!(is_broken(events.last()), "{lie:?} gave {:?}", events.last());
    }
}

/// What became of the events of a guest whose reader begins at `start` of 100 bytes, from wherever it asked.
async fn begun(
    from: ReadFrom,
    start: i64,
    generation: i32,
    messages: Vec<Message>,
) -> Vec<Result<SessionEvent, GuestError>> {
    let id = SessionId::new();
    let mut session = liar::session(id);
    (session.log_start_offset, session.log_end_offset) = (10, 100);
    let mut all = vec![Message::Attached(session)];
    all.extend(messages);
    let script = Script {
        messages: all,
        start_offset: start,
        generation,
        ..Script::default()
    };
    let (connected, _tasks) = lie(script).await;
    let (guest, _) = connected.unwrap();
    let input = futures::stream::pending().boxed();
    let options = AttachOptions {
        from,
        ..AttachOptions::default()
    };
    let target = AttachTarget::Existing(id);
    match guest.attach(target, options, input).await {
        Ok(events) => events.collect().await,
        Err(error) => vec![Err(error)],
    }
}

#[tokio::test]
async fn a_reader_begins_where_the_guest_says_only_within_the_log() {
    let tail = ReadFrom::TailLines(5);
    let end = || vec![output(60, b"x"), exited(61, How::Code(0))];
    let honest = begun(tail, 60, 2, end()).await;
    assert!(honest.iter().all(Result::is_ok), "{honest:?}");
    for start in [-1, 9, 101, i64::MAX] {
        let events = begun(tail, start, 2, end()).await;
        assert!(is_broken(events.last()), "{start}: {events:?}");
    }
    let old = begun(tail, 60, 1, end()).await;
    let expected = GuestError::TooOld {
        generation: 1,
        least: 2,
    };
    assert_eq!(old, [Err(expected)]);
}

#[tokio::test]
async fn a_screen_comes_once_in_its_place_and_only_if_it_was_asked_for() {
    let end = || exited(100, How::Code(0));
    let ask = |messages| begun(ReadFrom::Screen, 100, 2, messages);
    let honest = ask(vec![screen(100, b"shown"), end()]).await;
    assert!(honest.iter().all(Result::is_ok), "{honest:?}");
    for lie in [
        vec![screen(99, b"elsewhere"), end()],
        vec![screen(100, b"one"), screen(100, b"two"), end()],
        vec![Message::StdinAck(0), screen(100, b"late"), end()],
    ] {
        let events = ask(lie).await;
        assert!(is_broken(events.last()), "{events:?}");
    }
}

#[tokio::test]
async fn a_message_beyond_the_bound_is_refused() {
    let huge = Message::Output(proto::Output {
        offset: 0,
        stream: 1,
        time: Some(prost_types::Timestamp::default()),
        data: Bytes::from(vec![0; 2 << 20]),
    });
    let events = events(SessionId::new(), vec![huge]).await;
    assert!(is_broken(events.last()), "{:?}", events.last());
}

#[tokio::test]
async fn silence_ends_in_a_deadline() {
    let script = Script {
        hangs: true,
        ..Script::default()
    };
    let (connected, _tasks) = lie(script).await;
    let (guest, _) = connected.unwrap();
    let id = SessionId::new();
    let expected = |during| GuestError::Deadline {
        during,
        limit: SHORT,
    };
    assert_eq!(guest.get_session(id).await, Err(expected("get")));
    assert_eq!(guest.delete_session(id).await, Err(expected("delete")));
    let input = futures::stream::pending().boxed();
    let attached = guest
        .attach(AttachTarget::Existing(id), AttachOptions::default(), input)
        .await;
    let events: Vec<_> = attached.unwrap().collect().await;
    assert_eq!(events.last(), Some(&Err(expected("attach"))));
}

#[tokio::test]
async fn a_guest_that_never_says_hello_ends_in_a_deadline() {
    let (ours, _theirs) = duplex(1 << 16);
    let result = Connector::new(deadlines())
        .connect(VmId::new(), Box::new(ours), Accelerator::Kvm)
        .await;
    assert_eq!(
        result.err(),
        Some(GuestError::Deadline {
            during: "hello",
            limit: SHORT
        })
    );
}

#[tokio::test]
async fn garbage_instead_of_http2_is_a_lost_connection() {
    let (ours, mut theirs) = duplex(1 << 16);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut noise = vec![0; 1 << 12];
        loop {
            let _ = theirs.read(&mut noise).await;
            if theirs.write_all(&[0x41; 4096]).await.is_err() {
                return;
            }
        }
    });
    let result = Connector::new(deadlines())
        .connect(VmId::new(), Box::new(ours), Accelerator::Kvm)
        .await;
    assert!(matches!(result.err(), Some(GuestError::Lost { .. })));
}

#[tokio::test]
async fn a_channel_that_ends_is_a_lost_connection() {
    let (ours, theirs): (DuplexStream, DuplexStream) = duplex(64);
    drop(theirs);
    let result = Connector::new(deadlines())
        .connect(VmId::new(), Box::new(ours), Accelerator::Kvm)
        .await;
    assert_eq!(result.err(), Some(GuestError::Lost { during: "hello" }));
}

#[tokio::test]
async fn generations_are_agreed_on_or_refused() {
    let with = |generation| Script {
        generation,
        ..Script::default()
    };
    let (old, _tasks) = lie(with(0)).await;
    assert_eq!(
        old.err(),
        Some(GuestError::TooOld {
            generation: 0,
            least: 1
        })
    );
    let (new, _tasks) = lie(with(3)).await;
    assert!(matches!(new.err(), Some(GuestError::Protocol { .. })));
}

#[tokio::test]
async fn an_endless_list_is_refused() {
    let script = Script {
        listed: 5000,
        ..Script::default()
    };
    let (connected, _tasks) = lie(script).await;
    let result = connected.unwrap().0.list_sessions().await;
    assert!(
        matches!(result, Err(GuestError::Protocol { .. })),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_guests_words_are_bounded_and_harmless() {
    let script = Script {
        refusal: Some(("STDIN_REFUSED", "\u{1b}[2J\u{202e}\n".repeat(200))),
        ..Script::default()
    };
    let (connected, _tasks) = lie(script).await;
    let result = connected.unwrap().0.get_session(SessionId::new()).await;
    let Err(GuestError::StdinRefused { detail }) = result else {
        panic!("{result:?}");
    };
    assert!(detail.chars().count() <= 256);
    assert!(
        !detail.chars().any(|c| c.is_control() || c == '\u{202e}'),
        "{detail:?}"
    );
}

#[tokio::test]
async fn an_unknown_reason_is_a_refusal_and_none_is_a_breach() {
    let with = |refusal| Script {
        refusal,
        ..Script::default()
    };
    let (connected, _tasks) = lie(with(Some(("NEW_REASON", "x".into())))).await;
    let result = connected.unwrap().0.get_session(SessionId::new()).await;
    assert!(
        matches!(result, Err(GuestError::Refused { .. })),
        "{result:?}"
    );
    let (connected, _tasks) = lie(with(Some(("", "x".into())))).await;
    let result = connected.unwrap().0.get_session(SessionId::new()).await;
    assert!(
        matches!(result, Err(GuestError::Protocol { .. })),
        "{result:?}"
    );
}

fn piece(path: &str, size: i64) -> proto::TreePiece {
    let entry = proto::TreeEntry {
        path: Bytes::copy_from_slice(path.as_bytes()),
        kind: proto::tree_entry::Kind::File.into(),
        size,
        ..proto::TreeEntry::default()
    };
    proto::TreePiece {
        piece: Some(proto::tree_piece::Piece::Entry(entry)),
    }
}

async fn tree(script: Script) -> Vec<Result<banger_core::tree::TreePiece, GuestError>> {
    let (connected, _tasks) = lie(script).await;
    let guest = connected.unwrap().0;
    guest.get_tree(b"/x").await.unwrap().collect().await
}

#[tokio::test]
async fn a_tree_that_leaves_itself_is_cut_short_or_hangs_is_refused() {
    for pieces in [
        vec![piece("", 0), piece("../../etc/passwd", 0)],
        vec![piece("", 3)],
        vec![piece("not-the-top", 0)],
        vec![],
        vec![proto::TreePiece { piece: None }],
    ] {
        let told = format!("{pieces:?}");
        let script = Script {
            pieces,
            ..Script::default()
        };
        let last = tree(script).await.pop().unwrap();
        assert!(
            matches!(last, Err(GuestError::Protocol { .. })),
            "{told}: {last:?}"
        );
    }
    let script = Script {
        pieces: vec![piece("", 0)],
        hangs: true,
        ..Script::default()
    };
    let last = tree(script).await.pop().unwrap();
    assert!(matches!(last, Err(GuestError::Deadline { .. })), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_disk_is_slow_is_waited_for_while_it_beats_and_not_for_ever() {
    let taking = SHORT * 10;
    let told = async |beats| {
        let data = proto::tree_piece::Piece::Data(Bytes::from_static(b"x"));
        let script = Script {
            pieces: vec![piece("", 1), proto::TreePiece { piece: Some(data) }],
            beats,
            ..Script::default()
        };
        let deadlines = Deadlines {
            taking,
            ..deadlines()
        };
        let (connected, _tasks) = lie_within(script, deadlines).await;
        let guest = connected.unwrap().0;
        let pieces = guest.get_tree(b"/x").await.unwrap();
        pieces.collect::<Vec<_>>().await
    };
    // Longer than the longest silence.
    let slow = told(8).await;
    assert!(
        slow.len() == 2 && slow.iter().all(Result::is_ok),
        "{slow:?}"
    );
    let stuck = told(usize::MAX).await.pop().unwrap();
    assert!(
        matches!(stuck, Err(GuestError::Deadline { limit, .. }) if limit == taking),
        "{stuck:?}"
    );
}

#[tokio::test]
async fn waits_for_files_have_limits_and_names_stay_names() {
    let (connected, _tasks) = lie(Script::default()).await;
    let guest = connected.unwrap().0;
    let listed = guest.list_directory(b"/").await;
    assert!(
        matches!(listed, Err(GuestError::Protocol { .. })),
        "{listed:?}"
    );
    let place = banger_core::tree::TreePlace {
        path: b"/".to_vec(),
        naming: banger_core::tree::Naming::Directory,
        owner: (0, 0),
    };
    let put = guest
        .put_tree(&place, futures::stream::empty().boxed())
        .await;
    let held = guest
        .set_disk_writes(banger_core::tree::DiskWrites::Hold)
        .await;
    let grown = guest.grow_disk("upper", 1 << 30).await;
    for answer in [put, held, grown, guest.resolve_user("x").await.map(drop)] {
        assert!(
            matches!(answer, Err(GuestError::Deadline { .. })),
            "{answer:?}"
        );
    }
}

#[test]
fn both_ends_have_the_same_keys() {
    use banger_agent::refusal;
    use banger_guest::judge;
    assert_eq!(refusal::REASON_KEY, judge::REASON_KEY);
    assert_eq!(refusal::SUBJECT_KEY, judge::SUBJECT_KEY);
    assert_eq!(refusal::DETAIL_KEY, judge::DETAIL_KEY);
}

/// Only here to name the type in signatures.
pub(crate) type Events = Pin<
    Box<dyn futures::Stream<Item = Result<proto::AttachSessionResponse, tonic::Status>> + Send>,
>;
