//! Guests whose headers have no end, byte by byte: what speaks HTTP/2 for honest agents writes none of these.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use banger_core::VmId;
use banger_core::guest::{GuestConnector as _, GuestError};
use banger_core::vmm::Accelerator;
use banger_guest::Connector;
use banger_proto::guest::v1 as proto;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, duplex, split};
use tokio::task::JoinSet;

use super::deadlines;

// RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;

/// The largest frame that is taken.
const FRAME_MAX_BYTES: usize = 1 << 20;
/// What may be taken of one block of headers: the frames that it may have, and what is on its way.
const TAKEN_MAX_BYTES: usize = 8 * FRAME_MAX_BYTES;
/// When a guest gives up to say more: much later.
const SAID_MAX_BYTES: usize = 8 * TAKEN_MAX_BYTES;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A length as HPACK writes it (RFC 7541, section 5.1), after a first bit of 0.
fn length(value: usize) -> Vec<u8> {
    let Some(mut rest) = value.checked_sub(127) else {
        return vec![u8::try_from(value).unwrap()];
    };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// A field as it stands; `first` says whether it is remembered.
fn field(first: u8, name: &str, value: &str) -> Vec<u8> {
    let (name, value) = (name.as_bytes(), value.as_bytes());
    [
        &[first],
        &length(name.len())[..],
        name,
        &length(value.len()),
        value,
    ]
    .concat()
}

const PLAIN: u8 = 0;
const REMEMBERED: u8 = 0x40;
/// The field that was remembered last.
const REMEMBERED_LAST: u8 = 0x80 | 62;

/// The begin of an answer.
fn answer() -> Vec<u8> {
    const STATUS_200: u8 = 0x80 | 8;
    let kind = field(PLAIN, "content-type", "application/grpc");
    [&[STATUS_200][..], &kind].concat()
}

/// `count` fields of 4000 bytes, each a byte on the wire but for the first.
fn bomb(count: usize) -> Vec<u8> {
    let first = field(REMEMBERED, "x", &"y".repeat(4000));
    [first, vec![REMEMBERED_LAST; count - 1]].concat()
}

/// What of the call comes to the guest, to its end.
async fn until_asked(reader: &mut ReadHalf<DuplexStream>) {
    let mut bytes = [0; PREFACE_BYTES];
    reader.read_exact(&mut bytes).await.unwrap();
    loop {
        let mut head = [0; HEAD_BYTES];
        reader.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        reader.read_exact(&mut payload).await.unwrap();
        if head[3] == HEADERS {
            return;
        }
    }
}

/// What becomes of a guest that answers its first call with `first`, and with `again` as often as it is taken; and how
/// much is taken.
async fn told(first: Vec<u8>, again: Vec<u8>) -> (Result<(), GuestError>, usize) {
    let (ours, theirs) = duplex(1 << 16);
    let (mut reader, mut writer) = split(theirs);
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let settings = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat();
        writer.write_all(&settings).await.unwrap();
        until_asked(&mut reader).await;
        let hear = async { while reader.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} };
        let say = async {
            writer.write_all(&first).await.ok()?;
            while !again.is_empty() && count.load(Ordering::Relaxed) < SAID_MAX_BYTES {
                writer.write_all(&again).await.ok()?;
                count.fetch_add(again.len(), Ordering::Relaxed);
            }
            Some(())
        };
        tokio::join!(hear, say);
    });
    let connected = Connector::new(deadlines())
        .connect(VmId::new(), Box::new(ours), Accelerator::Kvm)
        .await;
    (connected.map(drop), taken.load(Ordering::Relaxed))
}

/// The frames of a whole answer with `trailers`.
fn whole(trailers: &[u8]) -> Vec<u8> {
    let hello = proto::HelloResponse {
        generation: 2,
        ..proto::HelloResponse::default()
    };
    let hello = hello.encode_to_vec();
    let length = u32::try_from(hello.len()).unwrap().to_be_bytes();
    let message = [&[0][..], &length, &hello].concat();
    let trailers = [&field(PLAIN, "grpc-status", "0")[..], trailers].concat();
    [
        frame(HEADERS, END_HEADERS, 1, &answer()),
        frame(DATA, 0, 1, &message),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
    ]
    .concat()
}

#[tokio::test]
async fn headers_without_end_are_given_up_within_bounds() {
    let begin = frame(HEADERS, 0, 1, &answer());
    let fields = field(PLAIN, "x", "y").repeat(FRAME_MAX_BYTES / 8);
    let half = [&[PLAIN, 1, b'x'][..], &length(1 << 30)].concat();
    let open = frame(HEADERS, 0, 1, &[answer(), half].concat());
    for (what, first, payload) in [
        ("fields", begin.clone(), fields),
        (
            "fields, each a byte",
            begin.clone(),
            bomb(FRAME_MAX_BYTES / 2),
        ),
        ("one field", open, vec![b'y'; FRAME_MAX_BYTES]),
        ("nothing", begin, Vec::new()),
    ] {
        let (ended, taken) = told(first, frame(CONTINUATION, 0, 1, &payload)).await;
        assert!(
            matches!(ended, Err(GuestError::Lost { .. })),
            "{what}: {ended:?}"
        );
        assert!(taken < TAKEN_MAX_BYTES, "{what}: {taken} bytes");
    }
}

#[tokio::test]
async fn enormous_headers_and_trailers_are_refused() {
    let (ended, _) = told(whole(&[]), Vec::new()).await;
    ended.unwrap();
    // Within the bound.
    let (ended, _) = told(whole(&bomb(3)), Vec::new()).await;
    ended.unwrap();
    // Fields of trailers beyond it are dropped, and with very many the connection.
    let headers = |count| frame(HEADERS, END_HEADERS, 1, &[answer(), bomb(count)].concat());
    for (what, said) in [
        ("headers", headers(5)),
        ("many headers", headers(FRAME_MAX_BYTES / 2)),
        ("many trailers", whole(&bomb(100))),
        ("trailers of a frame", whole(&bomb(FRAME_MAX_BYTES / 2))),
    ] {
        let (ended, _) = told(said, Vec::new()).await;
        let is_over = matches!(
            ended,
            Err(GuestError::Lost { .. } | GuestError::Protocol { .. })
        );
        assert!(is_over, "{what}: {ended:?}");
    }
}

#[tokio::test]
async fn answers_that_announce_an_answer_for_ever_are_waited_for_as_long_as_any() {
    const STATUS_100: &[u8] = b"\x08\x03100";
    let announcement = frame(HEADERS, END_HEADERS, 1, STATUS_100);
    let (ended, taken) = told(Vec::new(), announcement).await;
    assert!(
        matches!(ended, Err(GuestError::Deadline { .. })),
        "{ended:?}"
    );
    assert!(taken > 0);
}
