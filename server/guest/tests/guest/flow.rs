//! Bytes in bulk: nothing is lost or repeated, and a slow end slows only itself.
use std::time::Duration;

use crate::support::{holding, outcome, rig, shell, spec};
use banger_core::guest::{AttachTarget, GuestError};
use banger_core::session::{AttachOptions, Exit, ReadFrom, SessionEvent, SessionInput};
use futures::StreamExt;
use tokio::time::{sleep, timeout};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_slows_nobody_and_finds_a_gap() {
    let rig = rig().await;
    let id = banger_core::SessionId::new();
    let target = AttachTarget::Start {
        id,
        spec: Box::new(shell("head -c 30000000 /dev/zero; echo end")),
        remove_after_exit: false,
    };
    let stopped = rig
        .attach(target, id, AttachOptions::default())
        .await
        .unwrap();
    assert_eq!(rig.guest.wait_session(id).await, Ok(Exit::Code(0)));
    let seen = outcome(stopped.events).await;
    assert_eq!(seen.exit, Some(Exit::Code(0)));
    assert!(seen.lost > 0);
    assert_eq!(seen.stdout.len() as u64 + seen.lost, 30_000_004);
    assert!(seen.stdout.ends_with(b"end\n"));
    let log = rig
        .guest
        .read_log(id, AttachOptions::default(), true)
        .await
        .unwrap();
    let kept = outcome(log).await;
    assert!(kept.stdout.len() <= MIB && kept.stdout.len() > MIB / 2 && kept.lost == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_from_an_evicted_offset_is_told_of_the_gap() {
    let rig = rig().await;
    let id = banger_core::SessionId::new();
    rig.guest
        .start_session(id, &shell("head -c 5000000 /dev/zero"))
        .await
        .unwrap();
    rig.guest.wait_session(id).await.unwrap();
    let from = AttachOptions {
        from: ReadFrom::Offset(10),
        ..AttachOptions::default()
    };
    let mut events = rig.guest.read_log(id, from, true).await.unwrap();
    assert!(matches!(
        events.next().await,
        Some(Ok(SessionEvent::Attached(_)))
    ));
    let gap = events.next().await;
    assert!(
        matches!(gap, Some(Ok(SessionEvent::Gap { offset: 10, lost_bytes })) if lost_bytes > 3_000_000),
        "{gap:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_waits_for_its_reader_can_be_deleted() {
    let rig = rig().await;
    let session = rig.start(spec(&["cat", "/dev/zero"])).await;
    sleep(Duration::from_millis(200)).await;
    timeout(
        Duration::from_secs(10),
        rig.guest.delete_session(session.id),
    )
    .await
    .unwrap()
    .unwrap();
    let exit = outcome(session.events).await.exit;
    assert_eq!(exit, Some(Exit::Signal(9)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_stdin_is_skipped_and_a_hole_is_refused() {
    let rig = rig().await;
    let mut asked = spec(&["cat"]);
    asked.stdin = true;
    let mut session = rig.start(asked).await;
    session.stdin(0, "hello").await;
    session.stdin(2, "llo world").await;
    session.until("hello world").await;
    session.stdin(100, "hole").await;
    let error = loop {
        if let Err(error) = session.next().await {
            break error;
        }
    };
    assert!(
        matches!(error, GuestError::StdinRefused { .. }),
        "{error:?}"
    );
    let existing = AttachTarget::Existing(session.id);
    let again = rig
        .attach(existing, session.id, holding(ReadFrom::End))
        .await
        .unwrap();
    again.stdin(11, "!").await;
    again.input.send(SessionInput::CloseStdin).await.unwrap();
    let rest = outcome(again.events).await;
    assert_eq!(
        (rest.text().as_str(), rest.exit),
        ("!", Some(Exit::Code(0)))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stdin_that_the_process_does_not_read_is_no_failure() {
    let rig = rig().await;
    let mut asked = shell("head -c 4; exec 0<&-; sleep 0.3; echo; echo end");
    asked.stdin = true;
    let session = rig.start(asked).await;
    for n in 0..4 {
        session.stdin(n * MIB as u64, vec![b'x'; MIB]).await;
    }
    let done = outcome(session.events).await;
    assert_eq!(
        (done.text().as_str(), done.exit),
        ("xxxx\nend\n", Some(Exit::Code(0)))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stdin_of_a_session_without_one_is_refused() {
    let rig = rig().await;
    let mut session = rig.start(shell("cat; sleep 5")).await;
    session.stdin(0, "x").await;
    let error = loop {
        if let Err(error) = session.next().await {
            break error;
        }
    };
    assert!(
        matches!(error, GuestError::StdinRefused { .. }),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_do_not_stop_other_calls() {
    let rig = rig().await;
    let mut stopped = Vec::new();
    for _ in 0..20 {
        stopped.push(rig.start(spec(&["cat", "/dev/zero"])).await);
    }
    sleep(Duration::from_millis(500)).await;
    let done = timeout(
        Duration::from_secs(20),
        rig.run(shell("head -c 10000000 /dev/zero")),
    )
    .await
    .unwrap();
    let end = (done.stdout.len(), done.lost, done.exit);
    assert_eq!(end, (10_000_000, 0, Some(Exit::Code(0))));
    for session in stopped {
        rig.guest.delete_session(session.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_session_has_heartbeats() {
    let rig = rig().await;
    let mut session = rig.start(shell("sleep 3")).await;
    assert!(matches!(
        session.next().await,
        Ok(SessionEvent::Attached(_))
    ));
    assert_eq!(session.next().await, Ok(SessionEvent::Heartbeat));
}
