//! Guests that lie about tunnels.

use banger_core::Explain;
use banger_core::guest::{GuestError, TunnelInputs};
use banger_core::tunnel::{TunnelEvent, TunnelFault, TunnelInput, TunnelTarget};
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::open_tunnel_response::Message;
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::liar::Script;
use super::{SHORT, lie};

fn target() -> TunnelTarget {
    TunnelTarget::Tcp {
        address: None,
        port: 80,
    }
}

/// What becomes of a tunnel, of which the caller has sent four bytes, to a guest that follows `script`.
async fn events(script: Script) -> Vec<Result<TunnelEvent, GuestError>> {
    let (connected, _tasks) = lie(script).await;
    let (guest, _) = connected.unwrap();
    let four = TunnelInput::Data(Bytes::from_static(b"four"));
    let input: TunnelInputs = stream::iter([four]).chain(stream::pending()).boxed();
    match guest.open_tunnel(&target(), SHORT, input).await {
        // A heartbeat is nobody's lie, and a guest may send as many as it likes.
        Ok(events) => events.collect().await,
        Err(error) => vec![Err(error)],
    }
}

fn connected() -> Message {
    Message::Connected(proto::TunnelConnected {})
}

fn data(length: usize) -> Message {
    Message::Data(Bytes::from(vec![7; length]))
}

fn end() -> Message {
    Message::End(proto::TunnelEnd {})
}

fn beat() -> Message {
    Message::Heartbeat(proto::TunnelHeartbeat {})
}

#[tokio::test]
async fn an_honest_tunnel_is_believed() {
    // All of it with the call already, so that the four bytes are on their way before they are taken.
    let script = Script {
        tunnel: vec![connected(), data(256 << 10), beat(), end()],
        ..Script::default()
    };
    let events = events(script).await;
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(Result::is_ok), "{events:?}");
    assert_eq!(events.last().unwrap(), &Ok(TunnelEvent::End));
}

#[tokio::test]
async fn each_lie_of_a_tunnel_breaks_the_protocol() {
    let quarter = 64 << 10;
    let lies = [
        vec![],
        vec![data(1)],
        vec![beat()],
        vec![end()],
        vec![connected()],
        vec![connected(), connected()],
        vec![connected(), data(0)],
        vec![connected(), data((256 << 10) + 1)],
        vec![
            connected(),
            data(quarter),
            data(quarter),
            data(quarter),
            data(quarter),
            data(1),
        ],
        vec![connected(), data(2 << 20)],
        vec![connected(), end(), data(1)],
        vec![connected(), end(), end()],
        vec![connected(), Message::Taken(-1)],
        vec![connected(), Message::Taken(5)],
        vec![connected(), Message::Taken(i64::MAX)],
        vec![connected(), data(1)],
    ];
    for lie in lies {
        let script = Script {
            tunnel: lie.clone(),
            ..Script::default()
        };
        let events = events(script).await;
        let is_broken = matches!(events.last(), Some(Err(GuestError::Protocol { .. })));
        assert!(is_broken, "{} messages gave {:?}", lie.len(), events.last());
    }
}

#[tokio::test]
async fn a_tunnel_that_falls_silent_ends() {
    for tunnel in [vec![], vec![connected()], vec![connected(), data(1), end()]] {
        let script = Script {
            tunnel,
            hangs: true,
            ..Script::default()
        };
        let events = events(script).await;
        let is_late = matches!(events.last(), Some(Err(GuestError::Deadline { .. })));
        assert!(is_late, "{:?}", events.last());
    }
}

#[tokio::test]
async fn reasons_are_judged_and_words_are_not_forwarded() {
    for (reason, expected) in [
        ("TUNNEL_REFUSED", "TUNNEL_REFUSED"),
        ("TUNNEL_SOCKET_NOT_FOUND", "TUNNEL_SOCKET_NOT_FOUND"),
        ("TUNNEL_DENIED", "TUNNEL_DENIED"),
        ("TUNNEL_UNREACHABLE", "TUNNEL_UNREACHABLE"),
        ("TUNNEL_CONNECT_TIMEOUT", "TUNNEL_CONNECT_TIMEOUT"),
        ("TUNNEL_NOT_CONNECTED", "TUNNEL_NOT_CONNECTED"),
        ("TUNNEL_RESET", "TUNNEL_RESET"),
        ("TOO_MANY_TUNNELS", "AGENT_REFUSED"),
    ] {
        let script = Script {
            refusal: Some((reason, format!("\u{1b}[2J{}", "x".repeat(4000)))),
            ..Script::default()
        };
        let events = events(script).await;
        let Some(Err(error)) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!(error.reason(), expected);
        let text = format!("{error} {:?}", error.metadata());
        assert!(text.len() < 1200 && !text.contains('\u{1b}'), "{text}");
        assert!(!text.contains("own words"), "{text}");
        let names_target = error.to_string().contains("localhost:80");
        assert!(names_target || expected == "AGENT_REFUSED", "{error}");
    }
    let refused = GuestError::Tunnel(TunnelFault::Refused { target: target() });
    assert!(!refused.nothing_ran());
}
