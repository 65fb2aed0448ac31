//! Several writers of one session: each has numbers of its own, and goes on where it was.
use crate::support::{Attached, Rig, outcome, rig, shell, spec};
use banger_core::guest::AttachTarget;
use banger_core::session::{
    AttachOptions, Exit, ReadFrom, SessionEvent, SessionInput, TerminalSize,
};
use banger_core::{SessionId, WriterId};

async fn join(rig: &Rig, id: SessionId, writer: Option<WriterId>) -> (Attached, u64) {
    let options = AttachOptions {
        from: ReadFrom::End,
        writer,
        ..AttachOptions::default()
    };
    let existing = AttachTarget::Existing(id);
    let mut joined = rig.attach(existing, id, options).await.unwrap();
    let Ok(SessionEvent::Attached(begun)) = joined.next().await else {
        panic!("it did not attach first");
    };
    (joined, begun.stdin_offset)
}

/// Reads until the guest has so many bytes of this writer.
async fn accepted(writer: &mut Attached, offset: u64) {
    loop {
        if let SessionEvent::StdinAck { offset: acked } = writer.next().await.unwrap() {
            assert!(acked <= offset, "{acked} of {offset}");
            if acked == offset {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_neither_repeat_nor_skip_what_others_write_meanwhile() {
    let rig = rig().await;
    let id = SessionId::new();
    let mut asked = spec(&["cat"]);
    asked.stdin = true;
    rig.guest.start_session(id, &asked).await.unwrap();
    let (a, b) = (WriterId::new(), WriterId::new());
    let (mut first, begin) = join(&rig, id, Some(a)).await;
    assert_eq!(begin, 0);
    first.stdin(0, "aaaa").await;
    accepted(&mut first, 4).await;
    // Another one begins at 0 too, though the process has had four bytes.
    let (mut second, begin) = join(&rig, id, Some(b)).await;
    assert_eq!(begin, 0);
    second.stdin(0, "bbbbbb").await;
    accepted(&mut second, 6).await;
    // Who comes back is told its own number, and what it repeats is skipped.
    drop(first);
    let (mut first, begin) = join(&rig, id, Some(a)).await;
    assert_eq!(begin, 4);
    first.stdin(2, "aaAA").await;
    accepted(&mut first, 6).await;
    second.stdin(6, "B").await;
    accepted(&mut second, 7).await;
    // Those who have no name share their numbers, which no other writer changes.
    let (mut nameless, begin) = join(&rig, id, None).await;
    assert_eq!(begin, 0);
    nameless.stdin(0, "!").await;
    accepted(&mut nameless, 1).await;
    first.stdin(6, "AA").await;
    accepted(&mut first, 8).await;
    nameless.stdin(1, "?").await;
    accepted(&mut nameless, 2).await;
    assert_eq!(rig.guest.get_session(id).await.unwrap().stdin_offset, 17);
    nameless.input.send(SessionInput::CloseStdin).await.unwrap();
    let log = rig.guest.read_log(id, AttachOptions::default(), true);
    let done = outcome(log.await.unwrap()).await;
    assert_eq!(done.text(), "aaaabbbbbbAAB!AA?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_connections_of_one_writer_write_each_byte_once() {
    let rig = rig().await;
    let id = SessionId::new();
    let mut asked = spec(&["cat"]);
    asked.stdin = true;
    rig.guest.start_session(id, &asked).await.unwrap();
    let writer = WriterId::new();
    let (old, _) = join(&rig, id, Some(writer)).await;
    let (mut new, _) = join(&rig, id, Some(writer)).await;
    // The old connection is not known to be broken yet: both send the same bytes, in pieces.
    let text: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for (index, piece) in text.chunks(1000).enumerate() {
        old.stdin(index as u64 * 1000, piece.to_vec()).await;
        new.stdin(index as u64 * 1000, piece.to_vec()).await;
    }
    accepted(&mut new, 100_000).await;
    new.input.send(SessionInput::CloseStdin).await.unwrap();
    let log = rig.guest.read_log(id, AttachOptions::default(), true);
    assert_eq!(outcome(log.await.unwrap()).await.stdout, text);
    drop(old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_terminals_input_comes_once_and_within_a_line_too() {
    let rig = rig().await;
    let id = SessionId::new();
    let mut asked = shell("stty -echo; echo ready; cat >/dev/null; echo one; cat; echo two");
    asked.terminal = Some(TerminalSize {
        columns: 80,
        rows: 24,
    });
    rig.guest.start_session(id, &asked).await.unwrap();
    let writer = Some(WriterId::new());
    let options = AttachOptions {
        writer,
        ..AttachOptions::default()
    };
    let existing = AttachTarget::Existing(id);
    let mut first = rig.attach(existing, id, options).await.unwrap();
    first.until("ready").await;
    // Nothing ends the line.
    first.stdin(0, "half").await;
    first.input.send(SessionInput::CloseStdin).await.unwrap();
    first.until("one").await;
    drop(first);
    // Who does not know whether it came sends it again.
    let (mut again, begin) = join(&rig, id, writer).await;
    assert_eq!(begin, 4);
    again.input.send(SessionInput::CloseStdin).await.unwrap();
    again.stdin(4, "more\n").await;
    let said = again.until("more").await;
    assert!(!said.contains("two"), "{said}");
    again.input.send(SessionInput::CloseStdin).await.unwrap();
    let said = outcome(again.events).await;
    assert!(said.text().contains("two"), "{said:?}");
    assert_eq!(said.exit, Some(Exit::Code(0)));
}
