//! Attaching: from where, who writes, and what a terminal shows.
use crate::support::{Attached, PATIENCE, Rig, outcome, rig, shell};
use banger_core::guest::{AttachTarget, GuestError};
use banger_core::session::{
    AttachOptions, ReadFrom, SessionEvent, SessionInput, TerminalSize, Writing,
};
use banger_core::{SessionId, WriterId};

async fn attach(rig: &Rig, id: SessionId, options: AttachOptions) -> Attached {
    rig.attach(AttachTarget::Existing(id), id, options)
        .await
        .unwrap()
}

fn writing(writing: Writing) -> AttachOptions {
    AttachOptions {
        from: ReadFrom::End,
        writing,
        ..AttachOptions::default()
    }
}

/// The error that ends an attachment.
async fn end(mut attached: Attached) -> GuestError {
    let ended = async {
        loop {
            if let Err(error) = attached.next().await {
                return error;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_read_from_its_last_lines_bytes_and_from_a_time() {
    let rig = rig().await;
    let mut asked = shell("seq 1 100; echo ready; read line; echo late");
    asked.stdin = true;
    let mut session = rig.start(asked).await;
    session.until("ready").await;
    let between = banger_core::Timestamp::now();
    // Another frame has another time.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    session.stdin(0, "\n").await;
    let id = session.id;
    outcome(session.events).await;
    for (from, text) in [
        (ReadFrom::TailLines(2), "ready\nlate\n"),
        (ReadFrom::TailBytes(4), "ate\n"),
        (ReadFrom::Since(between), "late\n"),
        (ReadFrom::TailLines(0), ""),
    ] {
        let options = AttachOptions {
            from,
            ..AttachOptions::default()
        };
        let log = rig.guest.read_log(id, options, true).await.unwrap();
        assert_eq!(outcome(log).await.text(), text, "{from:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_detaches_the_other_writers_and_no_reader() {
    let rig = rig().await;
    let mut asked = shell("cat");
    asked.stdin = true;
    let first = rig.start(asked).await;
    let id = first.id;
    let second = attach(&rig, id, writing(Writing::Shared)).await;
    let mut reader = attach(&rig, id, writing(Writing::Nobody)).await;
    let third = attach(&rig, id, writing(Writing::Steal)).await;
    assert_eq!(end(first).await, GuestError::WriterReplaced);
    assert_eq!(end(second).await, GuestError::WriterReplaced);
    third.stdin(0, "hello\n").await;
    reader.until("hello").await;
    reader.stdin(6, "no\n").await;
    let refused = end(reader).await;
    assert!(
        matches!(refused, GuestError::StdinRefused { .. }),
        "{refused:?}"
    );
    third.input.send(SessionInput::CloseStdin).await.unwrap();
    assert_eq!(outcome(third.events).await.text(), "hello\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_taken_over_from_while_away_does_not_write_by_coming_back() {
    let rig = rig().await;
    let mut asked = shell("cat");
    asked.stdin = true;
    let id = rig.start(asked).await.id;
    let by = |writing: Writing, writer: WriterId| AttachOptions {
        writer: Some(writer),
        ..self::writing(writing)
    };
    let (robbed, thief) = (WriterId::new(), WriterId::new());
    drop(attach(&rig, id, by(Writing::Shared, robbed)).await);
    let taken = attach(&rig, id, by(Writing::Steal, thief)).await;
    let target = || AttachTarget::Existing(id);
    let back = rig.attach(target(), id, by(Writing::Shared, robbed)).await;
    assert_eq!(back.err(), Some(GuestError::WriterReplaced));
    // The thief's own connection may break too, and who was robbed may take over in turn.
    drop(taken);
    drop(attach(&rig, id, by(Writing::Shared, thief)).await);
    drop(attach(&rig, id, by(Writing::Steal, robbed)).await);
    let mut back = attach(&rig, id, by(Writing::Shared, robbed)).await;
    back.stdin(0, "mine\n").await;
    back.until("mine\n").await;
    rig.guest.delete_session(id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_has_the_size_of_the_newest_writer() {
    let rig = rig().await;
    let size = |columns| SessionInput::Resize(TerminalSize { rows: 24, columns });
    let mut asked = shell("trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done");
    asked.terminal = Some(TerminalSize::default());
    let mut first = rig.start(asked).await;
    first.until("ready").await;
    let second = attach(&rig, first.id, writing(Writing::Shared)).await;
    second.input.send(size(111)).await.unwrap();
    first.until("24 111").await;
    // Counts only when the other has left.
    first.input.send(size(99)).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    drop(second);
    let seen = first.until("24 99").await;
    assert_eq!(seen.matches("24 99").count(), 1, "{seen}");
    rig.guest.delete_session(first.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_attaches_to_a_full_screen_program_sees_its_screen() {
    let rig = rig().await;
    let script = "printf 'before\\r\\n\\033[?1049h\\033[2J\\033[3;5HEDITOR\\033[24;1H-- INSERT --'; \
                  read line; printf '\\033[1;1Hafter %s' $line; sleep 1000";
    let mut asked = shell(script);
    asked.terminal = Some(TerminalSize::default());
    let mut first = rig.start(asked).await;
    first.until("INSERT").await;
    let options = AttachOptions {
        from: ReadFrom::Screen,
        ..AttachOptions::default()
    };
    let mut second = attach(&rig, first.id, options).await;
    let SessionEvent::Attached(begun) = second.next().await.unwrap() else {
        panic!("the first event is the session");
    };
    let SessionEvent::Screen { offset, data } = second.next().await.unwrap() else {
        panic!("the second event is the screen");
    };
    assert_eq!(offset, begun.start_offset);
    let drawn = String::from_utf8_lossy(&data).into_owned();
    assert!(drawn.starts_with("\x1b[?1049h"), "{drawn:?}");
    assert!(
        drawn.contains("EDITOR") && drawn.contains("-- INSERT --"),
        "{drawn:?}"
    );
    assert!(!drawn.contains("before"), "{drawn:?}");
    // What follows begins just after it.
    second.stdin(0, "x\n").await;
    let rest = second.until("after x").await;
    assert!(!rest.contains("EDITOR"), "{rest:?}");
    rig.guest.delete_session(first.id).await.unwrap();
}
