//! What the guest tells of itself: how much it uses, and who listens in it.
//!
//! All of it is read from the kernel's own files where it may block, one question at a time: a file system
//! that does not answer holds one thread, however often the host asks.

mod owners;
mod probe;
mod sockets;
mod stats;

use std::sync::Arc;
use std::time::{Duration, Instant};

use banger_proto::guest::v1::listener::Protocol;
use banger_proto::guest::v1::{GetStatsResponse, ListPortsResponse, Listener};

use crate::agent::Agent;
use crate::refusal::Refusal;

/// How long sockets and their processes are looked for: of a guest with a million descriptors a part is told.
const SEARCH_WITHIN: Duration = Duration::from_secs(2);

/// How much the guest uses, now.
pub(crate) async fn stats(agent: &Arc<Agent>) -> Result<GetStatsResponse, Refusal> {
    alone(agent, |agent| stats::read(&agent.root)).await
}

/// Who listens in the guest; with `asks`, also what their pages say.
pub(crate) async fn ports(agent: &Arc<Agent>, asks: bool) -> Result<ListPortsResponse, Refusal> {
    let mut found = alone(agent, |_| search(Instant::now() + SEARCH_WITHIN)).await?;
    if asks {
        probe::ask(&mut found.listeners).await;
    }
    Ok(found)
}

/// Runs `work` where it may block, when no other such work goes on.
async fn alone<T: Send + 'static>(
    agent: &Arc<Agent>,
    work: impl FnOnce(&Agent) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    agent.ready().await?;
    let turn = Arc::clone(&agent.observing).lock_owned().await;
    let agent = Arc::clone(agent);
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work(&agent)
    })
    .await
    .unwrap_or_else(|_| Err(Refusal::invalid("the agent's thread panicked")))
}

fn search(until: Instant) -> Result<ListPortsResponse, Refusal> {
    let found = sockets::listening(until)?;
    let inodes: Vec<u64> = found.sockets.iter().map(|socket| socket.inode).collect();
    let owners = owners::find(&inodes, until);
    let listener = |socket: sockets::Socket| Listener {
        protocol: match socket.transport {
            sockets::Transport::Tcp => Protocol::Tcp.into(),
            sockets::Transport::Udp => Protocol::Udp.into(),
        },
        address: match socket.address.ip() {
            std::net::IpAddr::V4(address) => address.octets().to_vec().into(),
            std::net::IpAddr::V6(address) => address.octets().to_vec().into(),
        },
        port: socket.address.port().into(),
        uid: socket.uid,
        process: owners.processes.get(&socket.inode).cloned(),
        http: None,
    };
    Ok(ListPortsResponse {
        listeners: found.sockets.into_iter().map(listener).collect(),
        is_truncated: found.is_truncated || owners.is_truncated,
    })
}
