//! Tunnels: byte streams to sockets in running VMs, over the API alone.
//!
//! ```no_run
//! # async fn example(client: banger_sdk::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let mut tunnel = client.tunnels().open("web", "80".parse()?).await?;
//! tunnel.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
//! tunnel.shutdown().await?;
//! let mut answer = Vec::new();
//! tunnel.read_to_end(&mut answer).await?;
//! # Ok(())
//! # }
//! ```

mod outbox;
mod pipe;
mod target;

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use banger_proto::v1;
use futures::future::{BoxFuture, FutureExt};
use v1::forward_response::Message;
use v1::tunnel_service_client::TunnelServiceClient;

pub use pipe::Tunnel;
pub use target::{TargetError, TunnelTarget};

use crate::client::Client;
use crate::error::{Error, Result};
use outbox::Outbox;

/// The call, in errors.
const CALL: &str = "Forward";

/// Tunnels.
#[derive(Debug, Clone)]
pub struct Tunnels {
    client: Client,
}

impl Tunnels {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Connects to a socket in a running VM, when it is awaited.
    pub fn open(&self, vm: impl Into<String>, target: TunnelTarget) -> OpenTunnel {
        OpenTunnel {
            client: self.client.clone(),
            vm: vm.into(),
            target,
            connect_timeout: None,
        }
    }
}

/// A tunnel that is opened when it is awaited.
#[must_use = "a tunnel is opened when it is awaited"]
pub struct OpenTunnel {
    client: Client,
    vm: String,
    target: TunnelTarget,
    connect_timeout: Option<Duration>,
}

impl fmt::Debug for OpenTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTunnel")
            .field("vm", &self.vm)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl OpenTunnel {
    /// Gives the guest this long to connect, at most 120 s; 10 s by default.
    pub const fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = Some(limit);
        self
    }

    /// Connecting again does no harm: nothing was sent yet.
    async fn open(self) -> Result<Tunnel> {
        let mut retry = self.client.retry();
        loop {
            match self.connect().await {
                Ok(tunnel) => return Ok(tunnel),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    async fn connect(&self) -> Result<Tunnel> {
        let start = v1::ForwardStart {
            vm: self.vm.clone(),
            target: Some(self.target.message()),
            // What does not fit is refused by the daemon, as it is too long.
            connect_timeout: self.connect_timeout.map(|limit| {
                prost_types::Duration::try_from(limit).unwrap_or(prost_types::Duration {
                    seconds: i64::MAX,
                    nanos: 0,
                })
            }),
        };
        let outbox = Arc::new(Outbox::default());
        let mut rpc = TunnelServiceClient::new(self.client.channel());
        let answer = rpc.forward(outbox.messages(start)).await;
        let mut answers = self.client.watched(answer, CALL)?;
        loop {
            let answer = answers.next().await?.ok_or(Error::cut_short(CALL))?;
            match answer.message {
                Some(Message::Connected(_)) => break,
                Some(Message::Heartbeat(_)) => {}
                _ => {
                    return Err(Error::Protocol {
                        during: CALL,
                        detail: "bytes before the connection",
                    });
                }
            }
        }
        let silence = self.client.silence();
        Ok(Tunnel::new(answers.into_inner(), silence, outbox))
    }
}

impl IntoFuture for OpenTunnel {
    type Output = Result<Tunnel>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.open().boxed()
    }
}
