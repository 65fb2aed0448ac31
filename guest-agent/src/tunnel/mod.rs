//! Tunnels: the host's connections to sockets of the guest.
//!
//! Nothing is spawned: a tunnel is the body of its call's answer, so that one whose call is dropped is gone, and what
//! it has of the host's bytes with it.

mod connect;
mod fault;
mod pump;
mod socket;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use banger_proto::guest::v1::open_tunnel_request::Message as Asked;
use banger_proto::guest::v1::tunnel_start::Target as Given;
use banger_proto::guest::v1::{OpenTunnelRequest, OpenTunnelResponse, TunnelStart};
use futures::stream::{self, StreamExt};
use tonic::{Status, Streaming};

pub use fault::TunnelFault;

use crate::agent::Agent;
use crate::refusal::Refusal;
use crate::service::Events;
use connect::Target;
use pump::Pump;

/// Bytes of one direction that may be under way.
const WINDOW_BYTES: u64 = 256 << 10;

/// Connects as the first message says, and carries bytes from then on.
pub(crate) async fn open(
    agent: &Agent,
    mut incoming: Streaming<OpenTunnelRequest>,
) -> Result<Events<OpenTunnelResponse>, Status> {
    let first = incoming.message().await?.and_then(|first| first.message);
    let Some(Asked::Start(start)) = first else {
        return Err(Refusal::invalid("the first message is not `start`").into());
    };
    agent.ready().await?;
    let (target, limit) = parse(&agent.root, start)?;
    let socket = connect::connect(&target, limit).await?;
    let pump = Pump::new(socket, incoming);
    let answers = stream::unfold(Some(pump), |pump| async move {
        let mut pump = pump?;
        match pump.next().await {
            Ok(Some(message)) => {
                let message = Some(message);
                Some((Ok(OpenTunnelResponse { message }), Some(pump)))
            }
            Ok(None) => None,
            Err(refusal) => Some((Err(refusal.into()), None)),
        }
    });
    Ok(answers.boxed())
}

fn parse(root: &Path, start: TunnelStart) -> Result<(Target, Duration), Refusal> {
    let limit = start.connect_timeout.unwrap_or_default();
    let limit = Duration::try_from(limit).map_err(|_| Refusal::invalid("the limit is negative"))?;
    let target = match start.target {
        Some(Given::Tcp(tcp)) => {
            let port = u16::try_from(tcp.port).ok().filter(|&port| port > 0);
            let port = port.ok_or_else(|| Refusal::invalid("the port is out of range"))?;
            match tcp.address.as_str() {
                "" => Target::Loopback(port),
                text => match text.parse() {
                    Ok(address) => Target::Tcp(SocketAddr::new(address, port)),
                    Err(_) => return Err(Refusal::invalid("the address is none")),
                },
            }
        }
        Some(Given::UnixPath(path)) => match path.strip_prefix('/') {
            Some(path) => Target::Unix(root.join(path)),
            None => return Err(Refusal::invalid("the path is not absolute")),
        },
        None => return Err(Refusal::invalid("the target is missing")),
    };
    Ok((target, limit))
}
