//! Tunnels to sockets that are a few lines each; which it is follows from the port. Callers are held to their window.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use banger_proto::v1;
use futures::{StreamExt, stream};
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status, Streaming};
use v1::forward_request::Message as Asked;
use v1::forward_response::Message as Told;
use v1::forward_start::Target;

use super::{Answer, Daemon, HEARTBEAT, State, refuse};

/// Bytes of one direction that may be under way.
const WINDOW: u64 = 256 << 10;
/// What comes in goes out again.
const ECHO: i32 = 7;
/// It says a word and breaks.
const BREAKS: i32 = 13;
/// It ends and then breaks.
const ENDS_AND_BREAKS: i32 = 14;

struct Echo {
    state: Arc<State>,
    incoming: Streaming<v1::ForwardRequest>,
    waiting: VecDeque<Told>,
    received: u64,
    sent: u64,
    taken: u64,
    has_ended: bool,
}

impl Echo {
    async fn next(&mut self) -> Option<Result<Told, Status>> {
        loop {
            if self.state.silent.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            if let Some(told) = self.ready() {
                return Some(Ok(told));
            }
            if self.has_ended && self.waiting.is_empty() {
                return None;
            }
            match timeout(HEARTBEAT, self.incoming.message()).await {
                Err(_) => return Some(Ok(Told::Heartbeat(v1::Heartbeat {}))),
                Ok(Ok(Some(asked))) => self.take(asked.message.unwrap()),
                Ok(Ok(None) | Err(_)) => return None,
            }
        }
    }

    /// The next answer for which the caller has room. What was said again counts as taken, and no sooner.
    fn ready(&mut self) -> Option<Told> {
        if let Some(Told::Data(data)) = self.waiting.front() {
            let sent = self.sent + data.len() as u64;
            if sent - self.taken > WINDOW {
                return None;
            }
            self.sent = sent;
        }
        self.waiting.pop_front()
    }

    fn take(&mut self, asked: Asked) {
        match asked {
            Asked::Start(_) => panic!("`start` came twice"),
            Asked::Data(data) => {
                assert!(!data.is_empty() && !self.has_ended);
                self.received += data.len() as u64;
                // Nothing is taken that is not sent.
                let under_way = self.received - self.sent;
                assert!(under_way <= WINDOW, "{under_way} bytes are under way");
                self.waiting.push_back(Told::Data(data));
                let taken = i64::try_from(self.received).unwrap();
                self.waiting.push_back(Told::Taken(taken));
            }
            Asked::End(_) => {
                self.state.call("Forward end");
                self.has_ended = true;
                let taken = i64::try_from(self.received + 1).unwrap();
                self.waiting.push_back(Told::Taken(taken));
                self.waiting.push_back(Told::End(v1::TunnelEnd {}));
            }
            Asked::Taken(taken) => {
                let taken = u64::try_from(taken).unwrap();
                assert!(taken > self.taken && taken <= self.sent);
                self.taken = taken;
            }
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if !self.has_ended {
            self.state.call("Forward reset");
        }
    }
}

fn told(message: Told) -> v1::ForwardResponse {
    v1::ForwardResponse {
        message: Some(message),
    }
}

#[tonic::async_trait]
impl v1::tunnel_service_server::TunnelService for Daemon {
    type ForwardStream = Answer<v1::ForwardResponse>;

    async fn forward(
        &self,
        request: Request<Streaming<v1::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.unwrap().message;
        let Some(Asked::Start(start)) = first else {
            panic!("`start` does not come first")
        };
        let Some(Target::Tcp(target)) = start.target else {
            let remedy = [("remedy", "Give another path.")];
            let reason = "TUNNEL_SOCKET_NOT_FOUND";
            return Err(refuse(
                Code::NotFound,
                reason,
                "there is no socket",
                &remedy,
            ));
        };
        let connected = stream::iter([Ok(told(Told::Connected(v1::TunnelConnected {})))]);
        match target.port {
            ECHO => {
                let echo = Echo {
                    state: self.0.clone(),
                    incoming,
                    waiting: VecDeque::new(),
                    received: 0,
                    sent: 0,
                    taken: 0,
                    has_ended: false,
                };
                let answers = stream::unfold(echo, |mut echo| async move {
                    let answer = echo.next().await?;
                    Some((answer.map(told), echo))
                });
                Ok(Response::new(connected.chain(answers).boxed()))
            }
            port @ (BREAKS | ENDS_AND_BREAKS) => {
                let remedy = [("remedy", "Connect again.")];
                let broken = refuse(Code::Aborted, "TUNNEL_RESET", "it was reset", &remedy);
                let first = if port == BREAKS {
                    Told::Data("hi".into())
                } else {
                    Told::End(v1::TunnelEnd {})
                };
                let answers = [Ok(told(first)), Err(broken)];
                Ok(Response::new(
                    connected.chain(stream::iter(answers)).boxed(),
                ))
            }
            _ => {
                let remedy = [("remedy", "Start the server.")];
                let message = "nobody listens there";
                let reason = "TUNNEL_REFUSED";
                Err(refuse(Code::FailedPrecondition, reason, message, &remedy))
            }
        }
    }
}
