//! HTTP/2 as attackers speak it: frames that no client sends. They end their own connection, and no other.

use banger_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::audit::until;
use crate::rig::{PATIENCE, Rig};

/// How HTTP/2 begins (RFC 9113, 3.4), with settings that change nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(crate) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
/// What a connection's window is before it is said otherwise (RFC 9113, 6.9.2).
const WINDOW: u64 = 65535;
const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// More frames than any daemon takes of these.
const FLOOD: u32 = 200_000;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A name or value as HPACK writes it without compression (RFC 7541, 5.2).
fn text(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// The headers of a call.
pub(crate) fn call(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x04];
    block.extend(text(path));
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        block.push(0);
        block.extend(text(name));
        block.extend(text(value));
    }
    block
}

struct Attacker {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
}

impl Attacker {
    async fn new(rig: &Rig) -> Self {
        let stream = UnixStream::connect(rig.dir.path().join("s")).await.unwrap();
        let (read, write) = stream.into_split();
        let mut attacker = Self { read, write };
        attacker.write.write_all(PREFACE).await.unwrap();
        attacker
    }

    /// What the daemon lets come by this connection that it has not taken.
    async fn window(&mut self) -> u64 {
        let reading = async {
            loop {
                let (kind, stream, payload) = next(&mut self.read).await.expect("it goes on");
                if (kind, stream) == (WINDOW_UPDATE, 0) {
                    let more: [u8; 4] = payload.try_into().unwrap();
                    return WINDOW + u64::from(u32::from_be_bytes(more));
                }
            }
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        read.expect("the daemon says so at once")
    }

    /// Sends `flood` until the daemon has had enough: it says so, or closes.
    async fn flood(self, flood: impl Fn(u32) -> Vec<u8>) {
        let Self {
            mut read,
            mut write,
        } = self;
        let sending = async {
            for number in 0..FLOOD {
                if write.write_all(&flood(number)).await.is_err() {
                    break;
                }
            }
            // Nothing more comes, and nothing is closed: what ends it is the daemon.
            std::future::pending::<()>().await;
        };
        let ended = async {
            while let Some((kind, ..)) = next(&mut read).await {
                if kind == GOAWAY {
                    return;
                }
            }
        };
        let both = async {
            tokio::select! {
                // cancel-safe: it is over
                () = sending => {}
                // cancel-safe: it is over
                () = ended => {}
            }
        };
        let over = tokio::time::timeout(PATIENCE, both).await;
        over.expect("the daemon has had enough");
    }
}

/// The next frame: its kind, its stream and its payload; `None` at the end.
pub(crate) async fn next(
    read: &mut (impl tokio::io::AsyncRead + Unpin),
) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    read.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, _, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    read.read_exact(&mut payload).await.ok()?;
    Some((kind, u32::from_be_bytes(stream), payload))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resets_calls_as_fast_as_it_makes_them_is_cut_off() {
    let rig = Rig::start().await;
    let block = call("/banger.v1.HostService/GetInfo");
    let reset = |number: u32| {
        let stream = 2 * number + 1;
        let call = frame(HEADERS, END_HEADERS, stream, &block);
        [call, frame(RST_STREAM, 0, stream, &CANCEL)].concat()
    };
    Attacker::new(&rig).await.flood(reset).await;
    rig.hosts().get_info(v1::GetInfoRequest {}).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_never_end_are_cut_off() {
    let rig = Rig::start().await;
    let mut begin = call("/banger.v1.HostService/GetInfo");
    begin.push(0);
    begin.extend(text("x"));
    begin.extend(text("y"));
    let header = [&[0][..], &text("x"), &text(&"y".repeat(100))].concat();
    for size in [0, 1, 100] {
        let more = header.repeat(size);
        let flood = |number: u32| match number {
            0 => frame(HEADERS, 0, 1, &begin),
            _ => frame(CONTINUATION, 0, 1, &more),
        };
        Attacker::new(&rig).await.flood(flood).await;
        rig.hosts().get_info(v1::GetInfoRequest {}).await.unwrap();
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_so_many_calls_at_once() {
    let rig = Rig::start_with(|config| config.limits.streams_max = 4).await;
    let mut attacker = Attacker::new(&rig).await;
    let block = call("/banger.v1.HostService/GetInfo");
    // Calls of which nothing follows.
    for number in 0..5 {
        let call = frame(HEADERS, END_HEADERS, 2 * number + 1, &block);
        attacker.write.write_all(&call).await.unwrap();
    }
    let mut told = None;
    let reading = async {
        loop {
            let (kind, stream, payload) = next(&mut attacker.read).await.expect("it goes on");
            if kind == SETTINGS && told.is_none() {
                let mut settings = payload.chunks(6);
                let most = settings.find(|setting| setting[..2] == MAX_CONCURRENT_STREAMS);
                told = most.map(|setting| setting[2..].to_vec());
            }
            if kind == RST_STREAM {
                return (stream, payload);
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, reading).await;
    let refused = refused.expect("the fifth is refused");
    assert_eq!(told.unwrap(), [0, 0, 0, 4]);
    assert_eq!(refused, (9, REFUSED_STREAM.to_vec()));
    rig.hosts().get_info(v1::GetInfoRequest {}).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_no_sign_of_life_is_closed_and_who_does_stays() {
    let rig = Rig::start_with(|config| {
        config.limits.keepalive_interval = "200ms".parse().unwrap();
        config.limits.keepalive_timeout = "1s".parse().unwrap();
    })
    .await;
    let asked = frame(
        HEADERS,
        END_HEADERS,
        1,
        &call("/banger.v1.HostService/GetInfo"),
    );
    let mut alive = Attacker::new(&rig).await;
    alive.write.write_all(&asked).await.unwrap();
    let living = async {
        // By then who does not answer would have been closed.
        for _ in 0..10 {
            let payload = loop {
                let (kind, _, payload) = next(&mut alive.read).await.expect("it stays");
                if kind == PING {
                    break payload;
                }
            };
            let answer = frame(PING, ACK, 0, &payload);
            alive.write.write_all(&answer).await.unwrap();
        }
    };
    let lived = tokio::time::timeout(PATIENCE, living).await;
    lived.expect("it is asked again and again");
    let mut silent = Attacker::new(&rig).await;
    silent.write.write_all(&asked).await.unwrap();
    let dying = async {
        let mut pings = 0;
        while let Some((kind, ..)) = next(&mut silent.read).await {
            pings += usize::from(kind == PING);
        }
        pings
    };
    let pings = tokio::time::timeout(PATIENCE, dying).await;
    assert!(pings.expect("it is closed") > 0);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_does_not_fill_the_daemon_by_many_connections() {
    let rig = Rig::start().await;
    let mut attackers = Vec::new();
    let mut windows = Vec::new();
    for _ in 0..40 {
        let mut attacker = Attacker::new(&rig).await;
        windows.push(attacker.window().await);
        attackers.push(attacker);
    }
    let all: u64 = windows.iter().sum();
    assert!(all < 512 << 20, "{all}: {windows:?}");
    // Each has some, and what one with much had is given to another.
    assert!(windows.iter().all(|window| *window >= 256 << 10));
    let widest = windows.iter().max().unwrap();
    drop(attackers);
    until("a wide window", async || {
        Attacker::new(&rig).await.window().await == *widest
    })
    .await;
    rig.stopped().await;
}
