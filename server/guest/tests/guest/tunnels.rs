//! Tunnels through a real agent to real sockets.
use std::io;
use std::time::Duration;

use crate::support::{PATIENCE, Rig, rig};
use banger_core::guest::{GuestError, TunnelEvents};
use banger_core::tunnel::{TunnelEvent, TunnelFault, TunnelInput, TunnelTarget, WINDOW_BYTES};
use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

/// How long connecting may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A tunnel as its caller has it.
struct Caller {
    events: TunnelEvents,
    input: mpsc::Sender<TunnelInput>,
    /// What the guest's socket has taken.
    taken: u64,
}

impl Caller {
    async fn open(rig: &Rig, target: &TunnelTarget) -> Result<Self, GuestError> {
        let (input, inputs) = mpsc::channel(1);
        let inputs = ReceiverStream::new(inputs).boxed();
        let events = rig.guest.open_tunnel(target, LIMIT, inputs).await?;
        let taken = 0;
        Ok(Self {
            events,
            input,
            taken,
        })
    }

    async fn send(&self, data: &[u8]) {
        let data = TunnelInput::Data(Bytes::copy_from_slice(data));
        self.input.send(data).await.unwrap();
    }

    async fn end(&self) {
        self.input.send(TunnelInput::End).await.unwrap();
    }

    /// The next that is no heartbeat; what was taken is noted.
    async fn next(&mut self) -> Option<Result<TunnelEvent, GuestError>> {
        loop {
            match timeout(PATIENCE, self.events.next()).await.unwrap()? {
                Ok(TunnelEvent::Heartbeat) => {}
                Ok(TunnelEvent::Taken(taken)) => self.taken = taken,
                other => return Some(other),
            }
        }
    }

    /// Reads until the guest's end, telling what is taken.
    async fn read_to_end(&mut self) -> Vec<u8> {
        let mut read = Vec::new();
        loop {
            match self.next().await.unwrap().unwrap() {
                TunnelEvent::Data(data) => read.extend_from_slice(&data),
                TunnelEvent::End => return read,
                other => panic!("{other:?}"),
            }
            let taken = TunnelInput::Taken(read.len() as u64);
            // A call that is over hears nothing more.
            let _ = self.input.send(taken).await;
        }
    }
}

/// A server, and the way to it.
async fn server() -> (TcpListener, TunnelTarget) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = None;
    (listener, TunnelTarget::Tcp { address, port })
}

async fn connected(rig: &Rig) -> (Caller, TcpStream) {
    let (listener, target) = server().await;
    let (caller, accepted) = tokio::join!(Caller::open(rig, &target), listener.accept());
    (caller.unwrap(), accepted.unwrap().0)
}

#[tokio::test]
async fn half_ends_are_kept_in_both_directions() {
    let rig = rig().await;
    let (mut caller, mut peer) = connected(&rig).await;
    caller.send(b"to the guest").await;
    caller.end().await;
    let mut read = Vec::new();
    peer.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"to the guest");
    // The other direction goes on.
    peer.write_all(b"from the guest").await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(caller.read_to_end().await, b"from the guest");
    assert_eq!(caller.next().await, None);
    assert_eq!(caller.taken, 13, "the end counts as one");

    let (mut caller, mut peer) = connected(&rig).await;
    peer.write_all(b"first").await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(caller.read_to_end().await, b"first");
    caller.send(b"then").await;
    caller.end().await;
    let mut read = Vec::new();
    peer.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"then");
    assert_eq!(caller.next().await, None);
}

#[tokio::test]
async fn a_reset_is_told_and_is_no_end() {
    let rig = rig().await;
    let (mut caller, peer) = connected(&rig).await;
    caller.send(b"never read").await;
    peer.peek(&mut [0]).await.unwrap();
    drop(peer); // with bytes unread, which is a reset
    let told = caller.next().await.unwrap().unwrap_err();
    assert!(
        matches!(told, GuestError::Tunnel(TunnelFault::Reset { .. })),
        "{told}"
    );
    assert_eq!(caller.next().await, None);
}

#[tokio::test]
async fn a_reset_after_an_end_is_told_without_another_byte() {
    let rig = rig().await;
    let (mut caller, mut peer) = connected(&rig).await;
    caller.send(b"never read").await;
    peer.peek(&mut [0]).await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(caller.read_to_end().await, b"");
    drop(peer);
    let told = caller.next().await.unwrap().unwrap_err();
    assert!(
        matches!(told, GuestError::Tunnel(TunnelFault::Reset { .. })),
        "{told}"
    );
}

#[tokio::test]
async fn what_was_sent_before_a_reset_comes_before_it() {
    let rig = rig().await;
    let (listener, path) = (tempfile::tempdir().unwrap(), "s");
    let path = listener.path().join(path);
    let listening = UnixListener::bind(&path).unwrap();
    let target = TunnelTarget::Unix {
        path: path.to_str().unwrap().into(),
    };
    let (caller, accepted) = tokio::join!(Caller::open(&rig, &target), listening.accept());
    let (mut caller, mut peer) = (caller.unwrap(), accepted.unwrap().0);
    peer.write_all(b"last words").await.unwrap();
    drop(peer);
    // Nobody takes this any more.
    caller.send(b"too late").await;
    assert_eq!(caller.read_to_end().await, b"last words");
    let told = caller.next().await.unwrap().unwrap_err();
    assert!(
        matches!(told, GuestError::Tunnel(TunnelFault::Reset { .. })),
        "{told}"
    );
}

#[tokio::test]
async fn a_caller_that_leaves_before_its_end_resets_the_connection() {
    let rig = rig().await;
    let (caller, mut peer) = connected(&rig).await;
    caller.send(b"x").await;
    peer.read_u8().await.unwrap();
    let Caller { events, input, .. } = caller;
    drop(events);
    let error = peer.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    drop(input);
    // One that ends its stream without an end has left too.
    let (caller, mut peer) = connected(&rig).await;
    let Caller { events, input, .. } = caller;
    drop(input);
    let error = peer.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    drop(events);
}

#[tokio::test]
async fn a_caller_that_leaves_after_its_end_does_not_reset_it() {
    let rig = rig().await;
    let (mut caller, mut peer) = connected(&rig).await;
    caller.send(b"all of it").await;
    caller.end().await;
    while caller.taken < 10 {
        match timeout(PATIENCE, caller.events.next()).await.unwrap() {
            Some(Ok(TunnelEvent::Taken(taken))) => caller.taken = taken,
            Some(Ok(TunnelEvent::Heartbeat)) => {}
            other => panic!("{other:?}"),
        }
    }
    drop(caller);
    let mut read = Vec::new();
    peer.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"all of it");
}

#[tokio::test]
async fn a_socket_is_read_no_further_than_the_caller_has_room() {
    let rig = rig().await;
    let (mut caller, mut peer) = connected(&rig).await;
    let long = usize::try_from(WINDOW_BYTES).unwrap() * 8;
    let writing = async move {
        peer.write_all(&vec![7; long]).await.unwrap();
        peer.shutdown().await.unwrap();
        peer
    };
    let reading = async {
        let mut read = 0;
        while read < WINDOW_BYTES {
            match caller.next().await.unwrap().unwrap() {
                TunnelEvent::Data(data) => read += data.len() as u64,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(read, WINDOW_BYTES);
        // Only heartbeats come while nothing is taken.
        let beat = timeout(PATIENCE, caller.events.next()).await.unwrap();
        assert_eq!(beat, Some(Ok(TunnelEvent::Heartbeat)));
        let taken = TunnelInput::Taken(read);
        caller.input.send(taken).await.unwrap();
        loop {
            match caller.next().await.unwrap().unwrap() {
                TunnelEvent::Data(data) => read += data.len() as u64,
                TunnelEvent::End => break,
                other => panic!("{other:?}"),
            }
            let taken = TunnelInput::Taken(read);
            caller.input.send(taken).await.unwrap();
        }
        assert_eq!(read, long as u64);
    };
    let (peer, ()) = tokio::join!(writing, reading);
    drop(peer);
}

#[tokio::test]
async fn a_caller_that_has_said_all_need_not_tell_what_it_takes() {
    let rig = rig().await;
    let (caller, mut peer) = connected(&rig).await;
    let long = usize::try_from(WINDOW_BYTES).unwrap() * 4;
    caller.end().await;
    let Caller {
        mut events, input, ..
    } = caller;
    drop(input);
    let writing = async move {
        peer.write_all(&vec![7; long]).await.unwrap();
        peer.shutdown().await.unwrap();
    };
    let reading = async {
        let mut read = 0;
        while let Some(event) = timeout(PATIENCE, events.next()).await.unwrap() {
            if let TunnelEvent::Data(data) = event.unwrap() {
                read += data.len();
            }
        }
        assert_eq!(read, long);
    };
    tokio::join!(writing, reading);
}

#[tokio::test]
async fn a_caller_that_sends_more_than_there_is_room_for_is_refused() {
    let rig = rig().await;
    let (mut caller, _peer) = connected(&rig).await;
    // More than the socket itself holds.
    let megabyte = vec![7; 1 << 20];
    let sending = async {
        for _ in 0..16 {
            let data = TunnelInput::Data(Bytes::copy_from_slice(&megabyte));
            if caller.input.send(data).await.is_err() {
                return;
            }
        }
    };
    let told = async {
        loop {
            match timeout(PATIENCE, caller.events.next()).await.unwrap() {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("it went on"),
            }
        }
    };
    let ((), told) = tokio::join!(sending, told);
    assert!(matches!(told, GuestError::Refused { .. }), "{told}");
}

#[tokio::test]
async fn what_cannot_be_connected_is_told_by_reason() {
    let rig = rig().await;
    let directory = tempfile::tempdir().unwrap();
    let unix = |name: &str| TunnelTarget::Unix {
        path: directory.path().join(name).to_str().unwrap().into(),
    };
    let (listener, closed) = server().await;
    drop(listener);
    std::fs::write(directory.path().join("file"), "no socket").unwrap();
    let datagrams = directory.path().join("datagrams");
    let _datagrams = std::os::unix::net::UnixDatagram::bind(datagrams).unwrap();
    let refused = async |target: &TunnelTarget| match Caller::open(&rig, target).await {
        Err(GuestError::Tunnel(fault)) => fault,
        other => panic!("{target}: {:?}", other.err()),
    };
    let target = closed.clone();
    assert_eq!(refused(&closed).await, TunnelFault::Refused { target });
    let target = unix("nothing");
    assert_eq!(
        refused(&unix("nothing")).await,
        TunnelFault::NoSocket { target }
    );
    let target = unix("file");
    assert_eq!(
        refused(&unix("file")).await,
        TunnelFault::Refused { target }
    );
    let fault = refused(&unix("datagrams")).await;
    assert!(matches!(fault, TunnelFault::NotConnected { .. }), "{fault}");
}

#[tokio::test]
async fn a_server_that_accepts_nobody_costs_the_limit_alone() {
    let rig = rig().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full");
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let target = TunnelTarget::Unix {
        path: path.to_str().unwrap().into(),
    };
    let limit = Duration::from_millis(200);
    let mut open = Vec::new();
    let late = loop {
        let input = futures::stream::pending().boxed();
        match rig.guest.open_tunnel(&target, limit, input).await {
            Ok(events) => open.push(events),
            Err(error) => break error,
        }
        assert!(open.len() < 10, "its queue has no bound");
    };
    assert_eq!(
        late,
        GuestError::Tunnel(TunnelFault::TimedOut { target, limit })
    );
}

#[tokio::test]
async fn the_loopback_is_reached_by_ipv6_where_nobody_listens_by_ipv4() {
    let rig = rig().await;
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        eprintln!("skipped: this host has no IPv6 loopback");
        return;
    };
    let target = TunnelTarget::Tcp {
        address: None,
        port: listener.local_addr().unwrap().port(),
    };
    let (caller, accepted) = tokio::join!(Caller::open(&rig, &target), listener.accept());
    caller.unwrap();
    accepted.unwrap();
}

#[tokio::test]
async fn long_streams_are_the_same_on_both_sides() {
    let rig = rig().await;
    let (mut caller, mut peer) = connected(&rig).await;
    let sent: Vec<u8> = (0..4_u32 << 20)
        .map(|index| index.to_le_bytes()[1] ^ 7)
        .collect();
    let echo = async move {
        let (mut reader, mut writer) = peer.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let talk = async {
        let (mut next, mut ended, mut read) = (0, false, Vec::new());
        loop {
            let room = caller.taken + WINDOW_BYTES - next as u64;
            let length = (sent.len() - next)
                .min(50_000)
                .min(usize::try_from(room).unwrap());
            if length > 0 {
                caller.send(&sent[next..next + length]).await;
                next += length;
                continue;
            }
            if next == sent.len() && !ended {
                caller.end().await;
                ended = true;
            }
            match timeout(PATIENCE, caller.events.next()).await.unwrap() {
                Some(Ok(TunnelEvent::Data(data))) => {
                    read.extend_from_slice(&data);
                    let taken = TunnelInput::Taken(read.len() as u64);
                    // A call that is over hears nothing more.
                    let _ = caller.input.send(taken).await;
                }
                Some(Ok(TunnelEvent::Taken(taken))) => caller.taken = taken,
                Some(Ok(TunnelEvent::Heartbeat)) => {}
                Some(Ok(TunnelEvent::End)) => return read,
                other => panic!("{other:?}"),
            }
        }
    };
    let ((), read) = tokio::join!(echo, talk);
    assert!(read == sent);
}
