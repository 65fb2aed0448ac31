//! Numbered input over broken connections.

use std::time::Duration;

use super::*;

fn messages(outbox: &Arc<Outbox>) -> Messages<Option<Sent>> {
    outbox.connect(None, Signals::Carried, |sent| Some(Some(sent)))
}

async fn next(stream: &mut Messages<Option<Sent>>) -> Option<Sent> {
    let wait = tokio::time::timeout(Duration::from_millis(50), stream.next());
    wait.await.ok().flatten().flatten()
}

fn stdin(offset: i64, data: &[u8]) -> Option<Sent> {
    Some(Sent::Stdin(v1::Stdin {
        offset,
        data: data.to_vec().into(),
    }))
}

#[tokio::test]
async fn nothing_is_sent_before_the_guest_has_said_what_it_has() {
    let outbox = Arc::new(Outbox::default());
    let mut stream = messages(&outbox);
    assert_eq!(stream.next().await, Some(None), "the start message");
    outbox.write(Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(next(&mut stream).await, None);
    outbox.open(0);
    assert_eq!(next(&mut stream).await, stdin(0, b"abc"));
}

#[tokio::test]
async fn a_new_connection_resends_exactly_what_the_guest_does_not_have() {
    let outbox = Arc::new(Outbox::default());
    let mut old = messages(&outbox);
    old.next().await;
    outbox.open(0);
    outbox.write(Bytes::from_static(b"abcdef")).await.unwrap();
    outbox.write(Bytes::from_static(b"ghi")).await.unwrap();
    assert_eq!(next(&mut old).await, stdin(0, b"abcdef"));
    assert_eq!(next(&mut old).await, stdin(6, b"ghi"));
    outbox.acknowledge(2);

    let mut new = messages(&outbox);
    assert_eq!(old.next().await, None, "the old connection is over");
    new.next().await;
    outbox.open(4);
    assert_eq!(next(&mut new).await, stdin(4, b"ef"));
    assert_eq!(next(&mut new).await, stdin(6, b"ghi"));
}

#[tokio::test]
async fn input_to_a_session_that_others_wrote_to_begins_at_its_offset() {
    let outbox = Arc::new(Outbox::default());
    let mut stream = messages(&outbox);
    stream.next().await;
    outbox.open(100);
    outbox.write(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(next(&mut stream).await, stdin(100, b"x"));
}

#[tokio::test]
async fn writers_wait_for_room_and_a_lie_makes_none() {
    let outbox = Arc::new(Outbox::default());
    let mut stream = messages(&outbox);
    stream.next().await;
    outbox.open(0);
    outbox.write(Bytes::from(vec![0; 1 << 20])).await.unwrap();
    let full = outbox.write(Bytes::from_static(b"x"));
    tokio::pin!(full);
    let wait = Duration::from_millis(20);
    assert!(tokio::time::timeout(wait, &mut full).await.is_err());
    outbox.acknowledge(5 << 20);
    outbox.acknowledge(-1);
    assert!(tokio::time::timeout(wait, &mut full).await.is_err());
    outbox.acknowledge(1);
    full.await.unwrap();
}

#[tokio::test]
async fn flushing_ends_when_the_guest_has_everything() {
    let outbox = Arc::new(Outbox::default());
    let mut stream = messages(&outbox);
    stream.next().await;
    outbox.open(0);
    outbox.flush().await;
    outbox.write(Bytes::from_static(b"abc")).await.unwrap();
    let flush = outbox.flush();
    tokio::pin!(flush);
    let wait = Duration::from_millis(20);
    outbox.acknowledge(2);
    assert!(tokio::time::timeout(wait, &mut flush).await.is_err());
    outbox.acknowledge(3);
    flush.await;
}

#[tokio::test]
async fn the_end_of_input_and_the_size_are_sent_again_on_a_new_connection() {
    let outbox = Arc::new(Outbox::default());
    let size = v1::TerminalSize {
        rows: 3,
        columns: 4,
    };
    outbox.resize(size);
    outbox.close();
    for _ in 0..2 {
        let mut stream = messages(&outbox);
        stream.next().await;
        outbox.open(0);
        assert_eq!(next(&mut stream).await, Some(Sent::Resize(size)));
        assert_eq!(next(&mut stream).await, Some(Sent::Close));
        assert_eq!(next(&mut stream).await, None);
    }
    assert!(matches!(
        outbox.write(Bytes::from_static(b"x")).await,
        Err(Error::InputClosed)
    ));
}

#[tokio::test]
async fn the_end_of_the_process_frees_writers_and_connections() {
    let outbox = Arc::new(Outbox::default());
    let mut stream = messages(&outbox);
    stream.next().await;
    outbox.open(0);
    outbox.write(Bytes::from(vec![0; 1 << 20])).await.unwrap();
    let (written, ()) = tokio::join!(outbox.write(Bytes::from_static(b"x")), async {
        tokio::task::yield_now().await;
        outbox.end();
    });
    assert!(matches!(written, Err(Error::InputClosed)));
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn signals_that_wait_are_not_lost_to_a_connection_that_carries_none() {
    let outbox = Arc::new(Outbox::default());
    assert!(outbox.signal(15));
    let mut stream = outbox.connect(None, Signals::Apart, |sent| Some(Some(sent)));
    stream.next().await;
    outbox.open(0);
    assert!(!outbox.signal(2), "it is for a call of its own");
    assert_eq!(next(&mut stream).await, None);
    assert_eq!(outbox.take_signal(), Some(15));
}
