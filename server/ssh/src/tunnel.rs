//! A channel that is a connection to a socket in the guest (`ssh -L`): a tunnel, whose windows meet the channel's.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use banger_app::App;
use banger_app::tunnel::Events;
use banger_core::Name;
use banger_core::tunnel::{
    CONNECT_TIMEOUT, TunnelEvent, TunnelInput, TunnelTarget, UNIX_PATH_MAX_BYTES, WINDOW_BYTES,
};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use russh::server::{ChannelOpenHandle, Msg};
use russh::{ChannelOpenFailure, ChannelWriteHalf};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::inbox::{Inbox, Source};
use crate::limits::PIECE;

/// The VM itself, as clients name it.
const LOOPBACK: [&str; 2] = ["localhost", ""];
/// What a VM's name ends with where it stands for a host.
const DOMAIN: &str = ".vm";

/// The port that a client means. A name that is not the VM's own is not looked up: there is nobody to ask.
pub(crate) fn tcp(host: &str, port: u32, vm: &Name) -> Option<TunnelTarget> {
    let port = u16::try_from(port).ok().filter(|&port| port > 0)?;
    let is_own =
        LOOPBACK.contains(&host) || host.strip_suffix(DOMAIN).unwrap_or(host) == vm.as_str();
    let address: Option<IpAddr> = if is_own {
        None
    } else {
        Some(host.parse().ok()?)
    };
    Some(TunnelTarget::Tcp { address, port })
}

/// The unix socket that a client means.
pub(crate) fn unix(path: &str) -> Option<TunnelTarget> {
    let is_path =
        path.starts_with('/') && !path.contains('\0') && path.len() <= UNIX_PATH_MAX_BYTES;
    is_path.then(|| TunnelTarget::Unix { path: path.into() })
}

/// Connects, tells the client whether it is connected, and carries both directions to their ends, or until `closed`.
pub(crate) async fn run(
    app: &Arc<App>,
    vm: &str,
    target: &TunnelTarget,
    source: Source,
    channel: ChannelWriteHalf<Msg>,
    reply: ChannelOpenHandle,
    closed: CancellationToken,
) {
    let (taken_by_client, heard) = watch::channel(0);
    let (taken_by_guest, told) = watch::channel(0);
    let input = input(source, heard, told);
    let connected = tokio::select! {
        // cancel-safe: a tunnel that is dropped is reset
        connected = app.tunnels.forward(vm, target, CONNECT_TIMEOUT, input) => connected,
        // cancel-safe: holds no state
        () = closed.cancelled() => return,
    };
    let events = match connected {
        Ok(events) => events,
        Err(error) => {
            tracing::debug!(%target, error = banger_core::chain(&error), "no ssh channel to a socket");
            return reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    };
    reply.accept().await;
    tokio::select! {
        // cancel-safe: dropped only where nobody hears what is lost
        () = output(events, &channel, &taken_by_client, &taken_by_guest) => {}
        // cancel-safe: holds no state
        () = closed.cancelled() => {}
    }
    // Nobody may be left to be told.
    let _ = channel.close().await;
}

/// What the guest is sent: the client's bytes, within the tunnel's window, and how much the client has taken.
fn input(
    source: Source,
    taken_by_client: watch::Receiver<u64>,
    taken_by_guest: watch::Receiver<u64>,
) -> BoxStream<'static, TunnelInput> {
    let state = Input {
        source,
        taken_by_client,
        taken_by_guest,
        sent: 0,
        has_ended: false,
    };
    stream::unfold(state, async |mut state| {
        let input = state.next().await?;
        Some((input, state))
    })
    .boxed()
}

struct Input {
    source: Source,
    taken_by_client: watch::Receiver<u64>,
    taken_by_guest: watch::Receiver<u64>,
    sent: u64,
    has_ended: bool,
}

impl Input {
    async fn next(&mut self) -> Option<TunnelInput> {
        let Self {
            source,
            taken_by_client,
            taken_by_guest,
            sent,
            has_ended,
        } = self;
        let piece = async {
            if *has_ended {
                std::future::pending::<()>().await;
            }
            let room = |taken: &u64| *sent + PIECE as u64 <= taken.saturating_add(WINDOW_BYTES);
            // A tunnel that is gone takes nothing any more.
            taken_by_guest.wait_for(room).await.ok()?;
            Some(source.next().await)
        };
        tokio::select! {
            biased; // what the client has taken is never stuck behind bytes
            // cancel-safe: a change that was not seen is seen again
            changed = taken_by_client.changed() => {
                changed.ok()?;
                Some(TunnelInput::Taken(*taken_by_client.borrow_and_update()))
            }
            // cancel-safe: what was not taken stays
            piece = piece => Some(match piece? {
                Some(data) => {
                    *sent += data.len() as u64;
                    TunnelInput::Data(data)
                }
                None => {
                    *has_ended = true;
                    TunnelInput::End
                }
            }),
        }
    }
}

/// Carries what the guest sends to the client, up to the end of both directions. What the guest says about its own
/// reading is heard at once; what waits for the client is at most the tunnel's window. What came before a reset is
/// carried too; then the channel is closed without an end.
async fn output(
    mut events: Events,
    channel: &ChannelWriteHalf<Msg>,
    taken_by_client: &watch::Sender<u64>,
    taken_by_guest: &watch::Sender<u64>,
) {
    let waiting = Inbox::default();
    let is_reset = AtomicBool::new(false);
    let hear = async {
        while let Some(event) = events.next().await {
            match event {
                Ok(TunnelEvent::Data(data)) => drop(waiting.put(&data)),
                Ok(TunnelEvent::End) => waiting.end(),
                Ok(TunnelEvent::Taken(taken)) => {
                    taken_by_guest.send_replace(taken);
                }
                Ok(TunnelEvent::Heartbeat) => {}
                // Reset, or lost: ssh has no word for it but the channel's end.
                Err(_) => {
                    is_reset.store(true, Ordering::Relaxed);
                    waiting.end();
                    break;
                }
            }
        }
        Ok(())
    };
    let write = async {
        let mut written = 0;
        while let Some(piece) = waiting.take().await {
            written += piece.len() as u64;
            channel.data_bytes(piece).await.map_err(|_| Broken)?;
            taken_by_client.send_replace(written);
        }
        if is_reset.load(Ordering::Relaxed) {
            return Err(Broken);
        }
        channel.eof().await.map_err(|_| Broken)?;
        taken_by_client.send_replace(written + 1);
        Ok(())
    };
    let _ = futures::future::try_join(hear, write).await;
}

/// One side is gone.
struct Broken;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_vm_itself_or_an_address() {
        let vm: Name = "web".parse().unwrap();
        let text = |host: &str, port| tcp(host, port, &vm).map(|target| target.to_string());
        for own in ["localhost", "", "web", "web.vm"] {
            assert_eq!(text(own, 80).as_deref(), Some("localhost:80"));
        }
        assert_eq!(text("10.0.2.15", 80).as_deref(), Some("10.0.2.15:80"));
        assert_eq!(text("::1", 1).as_deref(), Some("[::1]:1"));
        for (host, port) in [("other", 80), ("localhost", 0), ("localhost", 65_536)] {
            assert_eq!(text(host, port), None);
        }
        assert!(unix("/run/x").is_some());
        for wrong in ["run/x", "/a\0", &format!("/{}", "x".repeat(107))] {
            assert_eq!(unix(wrong), None);
        }
    }
}
