use futures::poll;
use futures::stream::{self, StreamExt as _};
use tokio_stream::wrappers::ReceiverStream;

use super::*;

/// A test's own bytes as a body.
struct Sent(futures::stream::BoxStream<'static, Bytes>);

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = self.0.poll_next_unpin(task);
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The head of a message, and as much of the message.
fn begun(length: u32, here: usize) -> Bytes {
    let head = [&[0][..], &length.to_be_bytes()].concat();
    [head, vec![7; here]].concat().into()
}

const WITHIN: Duration = Duration::from_secs(30);

fn arriving(
    bytes: impl futures::Stream<Item = Bytes> + Send + 'static,
    sends: Sends,
    rooms: &Rooms,
    owner: u32,
) -> Arriving {
    let room = Room::new(rooms.clone(), Owner::of_uid(owner));
    Arriving::new(Body::new(Sent(bytes.boxed())), sends, WITHIN, room)
}

async fn next(body: &mut Arriving) -> Option<Result<usize, Status>> {
    let frame = std::future::poll_fn(|task| Pin::new(&mut *body).poll_frame(task)).await;
    frame.map(|frame| frame.map(|frame| frame.into_data().map_or(0, |data| data.len())))
}

fn reason(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    status.get_details_error_info().unwrap().reason
}

#[test]
fn messages_are_counted_however_they_are_cut() {
    let sent = [begun(3, 3), begun(0, 0), begun(300, 300), begun(9, 4)].concat();
    for size in 1..sent.len() {
        let mut messages = Messages::default();
        for piece in sent.chunks(size) {
            messages.hear(piece);
        }
        assert_eq!(
            (messages.whole, messages.begun(), messages.missing),
            (3, Some(9), 5)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_in_time_is_ended_with_its_reason() {
    let rooms = Rooms::default();
    let trickle = || {
        let bytes = stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Some((Bytes::from_static(b"x"), ()))
        });
        stream::iter([begun(1 << 20, 0)]).chain(bytes).boxed()
    };
    let silent = || stream::pending().boxed();
    let whole = || {
        let sent = stream::iter([begun(2, 2)]);
        sent.chain(stream::pending()).boxed()
    };
    for (sent, sends, expected) in [
        (silent(), Sends::One, "REQUEST_LATE"),
        (trickle(), Sends::One, "REQUEST_LATE"),
        (whole(), Sends::One, "REQUEST_LATE"),
        (silent(), Sends::Many, "FIRST_MESSAGE_LATE"),
        (trickle(), Sends::Many, "FIRST_MESSAGE_LATE"),
    ] {
        let begin = Instant::now();
        let mut body = arriving(sent, sends, &rooms, 1);
        let refused = loop {
            match next(&mut body).await.unwrap() {
                Ok(_) => {}
                Err(refused) => break refused,
            }
        };
        assert_eq!(reason(&refused), expected);
        assert_eq!(begin.elapsed().as_secs(), WITHIN.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_first_message_came_may_be_silent() {
    let later = stream::once(async {
        tokio::time::sleep(WITHIN * 100).await;
        begun(1, 1)
    });
    let sent = stream::iter([begun(2, 2)]).chain(later);
    let mut body = arriving(sent, Sends::Many, &Rooms::default(), 1);
    assert_eq!(next(&mut body).await.unwrap().unwrap(), 7);
    assert_eq!(next(&mut body).await.unwrap().unwrap(), 6);
    assert!(next(&mut body).await.is_none());
}

#[tokio::test]
async fn a_call_of_one_message_takes_no_second() {
    let sent = stream::iter([begun(2, 2), begun(2, 2)]);
    let mut body = arriving(sent, Sends::One, &Rooms::default(), 1);
    next(&mut body).await.unwrap().unwrap();
    let refused = next(&mut body).await.unwrap().unwrap_err();
    assert_eq!(reason(&refused), "SECOND_MESSAGE");
}

#[tokio::test(start_paused = true)]
async fn what_one_caller_has_begun_is_bounded_and_others_find_room() {
    let rooms = Rooms::default();
    let begin = |owner| {
        let sent = stream::iter([begun(MESSAGE_BYTES_MAX, 1)]).chain(stream::pending());
        arriving(sent, Sends::Many, &rooms, owner)
    };
    let mut held = Vec::new();
    for _ in 0..BEGUN_BYTES_MAX / MESSAGE_BYTES_MAX {
        let mut body = begin(1);
        next(&mut body).await.unwrap().unwrap();
        held.push(body);
    }
    let mut waits = begin(1);
    {
        let mut waiting = std::pin::pin!(next(&mut waits));
        assert!(poll!(&mut waiting).is_pending(), "there is no room");
        // What is whole as it comes needs none.
        let small = stream::iter([begun(100, 100)]);
        let mut small = arriving(small, Sends::One, &rooms, 1);
        next(&mut small).await.unwrap().unwrap();
        next(&mut begin(2)).await.unwrap().unwrap();
        held.pop();
        waiting.await.unwrap().unwrap();
    }
    let mut late = begin(1);
    let refused = next(&mut late).await.unwrap().unwrap_err();
    assert_eq!(reason(&refused), "FIRST_MESSAGE_LATE");
    drop((held, waits, late));
    assert!(rooms.with(|rooms| rooms.is_empty()));
}

#[tokio::test]
async fn room_is_given_back_when_a_message_is_whole() {
    let rooms = Rooms::default();
    let (sender, sent) = tokio::sync::mpsc::channel(4);
    let mut body = arriving(ReceiverStream::new(sent), Sends::Many, &rooms, 1);
    let free = || rooms.of(&Owner::of_uid(1)).available_permits();
    let all = free();
    sender.send(begun(100, 40)).await.unwrap();
    next(&mut body).await.unwrap().unwrap();
    assert_eq!(free(), all - 100);
    // Its end, and the beginning of the next.
    let more = [Bytes::from(vec![7; 60]), begun(50, 1)].concat();
    sender.send(more.into()).await.unwrap();
    next(&mut body).await.unwrap().unwrap();
    assert_eq!(free(), all - 50);
    drop(body);
    assert_eq!(free(), all);
}
