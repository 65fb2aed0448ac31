//! Tunnels, checked message by message: that the guest connects first, that neither more comes than the caller has room
//! for nor more is taken than was sent, and that something comes at all.
//!
//! ```text
//! connected ─► (data | taken | heartbeat)* ─► end ─► (taken | heartbeat)* ─► over
//! ```

use std::sync::Arc;
use std::time::Duration;

use banger_core::guest::{GuestError, TunnelEvents, TunnelInputs};
use banger_core::tunnel::{
    TunnelEvent, TunnelFault, TunnelInput, TunnelTarget, Window, WindowError,
};
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::open_tunnel_request::Message as Sent;
use banger_proto::guest::v1::open_tunnel_response::Message as Heard;
use banger_proto::guest::v1::tunnel_start::Target;
use futures::stream::{self, Stream, StreamExt};
use tokio_util::sync::DropGuard;
use tonic::{Status, Streaming};

use crate::convert::{offset, required, signed};
use crate::judge::{Call, broken, detail, judge, reason};
use crate::link::Link;

/// Both directions of a tunnel, as they were seen to go.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// From the caller to the guest's socket.
    inward: Window,
    /// From the guest's socket to the caller.
    outward: Window,
}

/// The first message of a tunnel.
pub(crate) fn start(target: &TunnelTarget, limit: Duration) -> proto::OpenTunnelRequest {
    let target = match target {
        TunnelTarget::Tcp { address, port } => Target::Tcp(proto::TcpTarget {
            address: address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            port: (*port).into(),
        }),
        TunnelTarget::Unix { path } => Target::UnixPath(path.clone()),
    };
    request(Sent::Start(proto::TunnelStart {
        target: Some(target),
        // Limits are minutes at most.
        connect_timeout: prost_types::Duration::try_from(limit).ok(),
    }))
}

fn request(message: Sent) -> proto::OpenTunnelRequest {
    proto::OpenTunnelRequest {
        message: Some(message),
    }
}

/// What a caller sends, counted. The caller itself was checked where it was heard.
pub(crate) fn requests(
    flow: Arc<Flow>,
    input: TunnelInputs,
) -> impl Stream<Item = proto::OpenTunnelRequest> + Send {
    let ended = Arc::clone(&flow);
    let requests = input.map(move |input| {
        request(match input {
            TunnelInput::Data(data) => {
                // An overrun is the agent's to refuse: it counts too.
                let _ = flow.inward.send(data.len() as u64);
                Sent::Data(data)
            }
            TunnelInput::End => {
                flow.inward.end();
                Sent::End(proto::TunnelEnd {})
            }
            TunnelInput::Taken(taken) => {
                let _ = flow.outward.take(taken);
                Sent::Taken(signed(taken))
            }
        })
    });
    // Whoever has said all does not tell what it takes.
    requests.chain(
        stream::once(async move {
            ended.outward.lift();
            None
        })
        .filter_map(std::future::ready),
    )
}

/// Our judgement of a tunnel that was refused or broke.
pub(crate) fn judge_tunnel(status: &Status, target: &TunnelTarget, limit: Duration) -> GuestError {
    let target = target.clone();
    let fault = match reason(status) {
        Some("TUNNEL_REFUSED") => TunnelFault::Refused { target },
        Some("TUNNEL_SOCKET_NOT_FOUND") => TunnelFault::NoSocket { target },
        Some("TUNNEL_CONNECT_TIMEOUT") => TunnelFault::TimedOut { target, limit },
        Some("TUNNEL_RESET") => TunnelFault::Reset { target },
        Some("TUNNEL_DENIED") => TunnelFault::Denied {
            target,
            detail: detail(status),
        },
        Some("TUNNEL_UNREACHABLE") => TunnelFault::Unreachable {
            target,
            detail: detail(status),
        },
        Some("TUNNEL_NOT_CONNECTED") => TunnelFault::NotConnected {
            target,
            detail: detail(status),
        },
        _ => return judge(status, &call()),
    };
    GuestError::Tunnel(fault)
}

/// A tunnel, in errors that name what was done.
pub(crate) fn call() -> Call {
    Call {
        during: "tunnel",
        session: None,
        asked: None,
    }
}

/// What a guest's messages are checked against.
#[derive(Debug)]
pub(crate) struct Checker {
    target: TunnelTarget,
    /// Of connecting.
    limit: Duration,
    /// Longest silence.
    silence: Duration,
    flow: Arc<Flow>,
    is_connected: bool,
    has_ended: bool,
}

impl Checker {
    pub(crate) fn new(
        target: TunnelTarget,
        limit: Duration,
        silence: Duration,
        flow: Arc<Flow>,
    ) -> Self {
        Self {
            target,
            limit,
            silence,
            flow,
            is_connected: false,
            has_ended: false,
        }
    }

    /// The events of a guest that has connected, up to the first that is wrong. What is `held` lives as long as they.
    pub(crate) async fn events(
        mut self,
        mut messages: Streaming<proto::OpenTunnelResponse>,
        held: (Arc<Link>, DropGuard),
    ) -> Result<TunnelEvents, GuestError> {
        while !self.is_connected {
            self.next(&mut messages, &held.0).await?;
        }
        let state = Some((self, messages, held));
        let events = stream::unfold(state, |state| async move {
            let (mut checker, mut messages, held) = state?;
            match checker.next(&mut messages, &held.0).await {
                Ok(Some(event)) => Some((Ok(event), Some((checker, messages, held)))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(events.boxed())
    }

    async fn next(
        &mut self,
        messages: &mut Streaming<proto::OpenTunnelResponse>,
        link: &Link,
    ) -> Result<Option<TunnelEvent>, GuestError> {
        let during = call().during;
        let message = match link.within(self.silence, messages.message()).await {
            Some(Ok(message)) => message,
            Some(Err(_)) if link.has_ended() => return Err(GuestError::Lost { during }),
            Some(Err(status)) => return Err(judge_tunnel(&status, &self.target, self.limit)),
            None => {
                let limit = self.silence;
                return Err(GuestError::Deadline { during, limit });
            }
        };
        match message {
            Some(message) => self.check(required(message.message, "an event")?).map(Some),
            None if self.has_ended => Ok(None),
            None => Err(broken("the tunnel ended before its bytes")),
        }
    }

    fn check(&mut self, heard: Heard) -> Result<TunnelEvent, GuestError> {
        if matches!(heard, Heard::Connected(_)) == self.is_connected {
            return Err(broken("it did not connect once and first"));
        }
        match heard {
            Heard::Connected(_) => {
                self.is_connected = true;
                Ok(TunnelEvent::Heartbeat)
            }
            Heard::Heartbeat(_) => Ok(TunnelEvent::Heartbeat),
            Heard::Data(_) | Heard::End(_) if self.has_ended => {
                Err(broken("bytes came after their end"))
            }
            Heard::Data(data) if data.is_empty() => Err(broken("no bytes came")),
            Heard::Data(data) => {
                let sent = self.flow.outward.send(data.len() as u64);
                sent.map_err(untrue)?;
                Ok(TunnelEvent::Data(data))
            }
            Heard::End(_) => {
                self.has_ended = true;
                self.flow.outward.end();
                Ok(TunnelEvent::End)
            }
            Heard::Taken(taken) => {
                let taken = offset(taken, "what it took")?;
                self.flow.inward.take(taken).map_err(untrue)?;
                Ok(TunnelEvent::Taken(taken))
            }
        }
    }
}

fn untrue(error: WindowError) -> GuestError {
    broken(error.to_string())
}
