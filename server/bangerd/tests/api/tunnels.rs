//! Tunnels: what is said in which order, what wrong input makes of it, and how many there may be.

use std::time::Duration;

use banger_core::guest::{GuestError, TunnelEvents, TunnelInputs};
use banger_core::tunnel::{TUNNELS_MAX, TunnelEvent, TunnelFault, TunnelInput, TunnelTarget};
use banger_proto::v1;
use banger_proto::v1::forward_request::Message as Ask;
use banger_proto::v1::forward_response::Message as Tell;
use banger_proto::v1::forward_start::Target;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use tokio::sync::oneshot;
use tonic::{Code, Status, Streaming};

use crate::rig::{PATIENCE, Rig, assert_refused, drain};

/// What comes in is said again.
const ECHO: i32 = 7;
/// Nobody listens.
const NOBODY: i32 = 9;
/// It says a word and breaks.
const BREAKS: i32 = 13;
/// It waits for ever.
const SILENT: i32 = 1;
/// Its VM is killed under it.
const LOST: i32 = 5;

/// What a fake guest's sockets do.
pub(crate) fn connect(
    target: &TunnelTarget,
    input: TunnelInputs,
) -> Result<TunnelEvents, GuestError> {
    let target = target.clone();
    let TunnelTarget::Tcp { port, .. } = target else {
        return Err(GuestError::Tunnel(TunnelFault::NoSocket { target }));
    };
    let word = TunnelEvent::Data(Bytes::from_static(b"hi"));
    match i32::from(port) {
        ECHO => Ok(echo(input)),
        BREAKS => {
            let fault = GuestError::Tunnel(TunnelFault::Reset { target });
            Ok(stream::iter([Ok(word), Err(fault)]).boxed())
        }
        LOST => {
            let during = "tunnel";
            Ok(stream::iter([Ok(word), Err(GuestError::Lost { during })]).boxed())
        }
        SILENT => Ok(input
            .filter_map(async |_| None)
            .chain(stream::pending())
            .boxed()),
        _ => Err(GuestError::Tunnel(TunnelFault::Refused { target })),
    }
}

fn echo(input: TunnelInputs) -> TunnelEvents {
    let taken = std::sync::atomic::AtomicU64::new(0);
    let add = move |more: usize| {
        let more = more as u64;
        taken.fetch_add(more, std::sync::atomic::Ordering::SeqCst) + more
    };
    let answers = move |input| match input {
        TunnelInput::Data(data) => {
            let taken = TunnelEvent::Taken(add(data.len()));
            vec![Ok(taken), Ok(TunnelEvent::Data(data))]
        }
        TunnelInput::End => vec![Ok(TunnelEvent::Taken(add(1))), Ok(TunnelEvent::End)],
        TunnelInput::Taken(_) => Vec::new(),
    };
    // As a guest's, it is over with the caller's end.
    let heard = stream::unfold(Some(input), async |input| {
        let mut input = input?;
        let heard = input.next().await?;
        let rest = (heard != TunnelInput::End).then_some(input);
        Some((heard, rest))
    });
    heard
        .flat_map(move |heard| stream::iter(answers(heard)))
        .boxed()
}

fn target(port: i32) -> Option<Target> {
    let address = String::new();
    Some(Target::Tcp(v1::TcpTarget { address, port }))
}

fn start(port: i32) -> Ask {
    Ask::Start(v1::ForwardStart {
        vm: "web".into(),
        target: target(port),
        connect_timeout: None,
    })
}

fn data(bytes: &'static [u8]) -> Ask {
    Ask::Data(Bytes::from_static(bytes))
}

fn end() -> Ask {
    Ask::End(v1::TunnelEnd {})
}

async fn rig() -> Rig {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    rig
}

/// A call; its stream of requests stays open as long as the sender.
type Call = (Streaming<v1::ForwardResponse>, oneshot::Sender<()>);

/// Forwards with these messages.
async fn open(rig: &Rig, messages: Vec<Ask>) -> Result<Call, Status> {
    let messages = stream::iter(messages).map(|message| v1::ForwardRequest {
        message: Some(message),
    });
    let (sender, end) = oneshot::channel();
    let messages = messages.chain(stream::once(end).filter_map(async |_| None));
    Ok((rig.tunnels().forward(messages).await?.into_inner(), sender))
}

/// All that is told, without heartbeats.
async fn told(rig: &Rig, messages: Vec<Ask>) -> Result<Vec<Tell>, Status> {
    let (answers, _sender) = open(rig, messages).await?;
    let answers = drain(answers).await?;
    let told = answers.into_iter().filter_map(|answer| answer.message);
    Ok(told
        .filter(|told| !matches!(told, Tell::Heartbeat(_)))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_connects_then_carries_both_ways_then_ends() {
    let rig = rig().await;
    let asked = vec![start(ECHO), data(b"ab"), data(b"c"), Ask::Taken(0), end()];
    let told = told(&rig, asked).await.unwrap();
    assert_eq!(
        told,
        [
            Tell::Connected(v1::TunnelConnected {}),
            Tell::Taken(2),
            Tell::Data("ab".into()),
            Tell::Taken(3),
            Tell::Data("c".into()),
            Tell::Taken(4),
            Tell::End(v1::TunnelEnd {}),
        ]
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_tunnel_has_a_heartbeat() {
    let rig = rig().await;
    let (mut answers, _sender) = open(&rig, vec![start(SILENT)]).await.unwrap();
    let mut next = async || {
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await;
        answer.unwrap().unwrap().unwrap().message.unwrap()
    };
    assert_eq!(next().await, Tell::Connected(v1::TunnelConnected {}));
    assert_eq!(next().await, Tell::Heartbeat(v1::Heartbeat {}));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_connected_is_refused_by_reason() {
    let rig = rig().await;
    let unix = |path: &str| {
        Ask::Start(v1::ForwardStart {
            vm: "web".into(),
            target: Some(Target::UnixPath(path.into())),
            connect_timeout: None,
        })
    };
    let unknown = Ask::Start(v1::ForwardStart {
        vm: "nobody".into(),
        target: target(ECHO),
        connect_timeout: None,
    });
    let cases = [
        (start(NOBODY), Code::FailedPrecondition, "TUNNEL_REFUSED"),
        (unix("/run/x"), Code::NotFound, "TUNNEL_SOCKET_NOT_FOUND"),
        (unknown, Code::NotFound, "VM_NOT_FOUND"),
    ];
    for (asked, code, reason) in cases {
        let refused = told(&rig, vec![asked]).await.unwrap_err();
        assert_refused(&refused, code, reason, None);
    }
    rig.vms()
        .stop_vm(v1::StopVmRequest {
            vm: "web".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    let refused = told(&rig, vec![start(ECHO)]).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "WRONG_STATE", None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_told_apart_from_an_end_and_from_a_lost_agent() {
    let rig = rig().await;
    for (port, code, reason) in [
        (BREAKS, Code::Aborted, "TUNNEL_RESET"),
        (LOST, Code::Unavailable, "AGENT_LOST"),
    ] {
        let (mut answers, _sender) = open(&rig, vec![start(port)]).await.unwrap();
        let mut seen = Vec::new();
        let status = loop {
            match answers.message().await {
                Ok(answer) => seen.extend(answer.unwrap().message),
                Err(status) => break status,
            }
        };
        assert_refused(&status, code, reason, None);
        assert!(seen.contains(&Tell::Data("hi".into())), "{seen:?}");
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_ends_a_tunnel_with_the_field() {
    let rig = rig().await;
    let flood = || Ask::Data(vec![0; (256 << 10) + 1].into());
    let relative = Ask::Start(v1::ForwardStart {
        vm: "web".into(),
        target: Some(Target::UnixPath("run/x".into())),
        connect_timeout: None,
    });
    let cases = [
        (vec![data(b"x")], "start"),
        (vec![start(SILENT), start(SILENT)], "start"),
        (vec![start(SILENT), data(b"")], "data"),
        (vec![start(SILENT), flood()], "data"),
        (vec![start(SILENT), Ask::Taken(1)], "taken"),
        (vec![start(SILENT), Ask::Taken(-1)], "taken"),
        (vec![start(0)], "start.tcp.port"),
        (vec![relative], "start.unix_path"),
    ];
    for (asked, field) in cases {
        let refused = told(&rig, asked).await.unwrap_err();
        assert_refused(
            &refused,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some(field),
        );
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_has_so_many_tunnels_and_gets_each_back_that_is_dropped() {
    let rig = rig().await;
    let mut open_ones = Vec::new();
    for _ in 0..TUNNELS_MAX {
        open_ones.push(open(&rig, vec![start(SILENT)]).await.unwrap());
    }
    let refused = told(&rig, vec![start(ECHO)]).await.unwrap_err();
    assert_refused(&refused, Code::ResourceExhausted, "TOO_MANY_TUNNELS", None);
    open_ones.pop();
    let given_back = async {
        while told(&rig, vec![start(ECHO), end()]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, given_back).await.unwrap();
    rig.stopped().await;
}
