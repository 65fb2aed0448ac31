//! Callers of this host: the unix socket, and the kernel's word of who is at its other end.

use std::sync::Arc;
use std::time::Duration;

use banger_core::{Explain as _, Identity};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept;
use super::carrier::{Carrier, Ends, REFUSED_FOR};
use super::refusal::Refusal;
use super::unshown::Unshown;
use super::users::{For, Place, Users};
use crate::access::Roles;
use crate::config::LimitsConfig;
use crate::connection::{Asked, Connection, Peer};

/// Connections whose peers are known, and that wait to be served.
const KNOWN_MAX: usize = 64;

/// What every caller passes.
struct Door {
    roles: Roles,
    users: Users,
    unshown: Unshown,
    first_request: Duration,
    connections: mpsc::Sender<std::io::Result<Connection>>,
}

/// Accepts callers at `listeners` until `stop`, by `tasks`.
pub(super) fn serve(
    listeners: Vec<UnixListener>,
    roles: Roles,
    limits: &LimitsConfig,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> ReceiverStream<std::io::Result<Connection>> {
    let (connections, known) = mpsc::channel(KNOWN_MAX);
    let door = Arc::new(Door {
        roles,
        users: Users::new(limits),
        unshown: Unshown::here(),
        first_request: limits.socket_first_request_timeout.unsigned_abs(),
        connections,
    });
    for listener in listeners {
        let (door, tracker, until) = (door.clone(), tasks.clone(), stop.clone());
        tasks.spawn(async move {
            let accepting = accept(listener, door, tracker, until.clone());
            until.run_until_cancelled(accepting).await;
        });
    }
    ReceiverStream::new(known)
}

async fn accept(
    listener: UnixListener,
    door: Arc<Door>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                accept::failed(error).await;
                continue;
            }
        };
        // Whom the kernel does not know is nobody, and not served.
        let peer = match stream.peer_cred() {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "the kernel does not tell who connects");
                continue;
            }
        };
        if door.unshown.has(peer.uid()) {
            tracing::warn!(
                uid = peer.uid(),
                "turned away who connects: the kernel does not tell who it is to a daemon in this user namespace"
            );
            continue;
        }
        let Some((place, admitted)) = door.users.admit(peer.uid()) else {
            tracing::debug!(uid = peer.uid(), "turned a connection away");
            continue;
        };
        let (door, stop) = (door.clone(), stop.clone());
        tasks.spawn(async move {
            let entering = door.enter(stream, peer, place, admitted);
            stop.run_until_cancelled(entering).await;
        });
    }
}

impl Door {
    /// Finds out in which role it is, and hands the connection on.
    async fn enter(&self, stream: UnixStream, peer: UCred, place: Place, admitted: For) {
        let known = self.known(&peer, admitted).await;
        if let Err(refusal) = &known {
            let (uid, reason) = (peer.uid(), refusal.reason());
            tracing::debug!(uid, reason, "let in to be refused");
        }
        let asked = Arc::new(Asked::default());
        // Who is refused is not heard, and so ends by the time that it has.
        let ends = Ends {
            closed: CancellationToken::new(),
            first_request: match &known {
                Ok(_) => self.first_request,
                Err(_) => REFUSED_FOR,
            },
            asked: asked.clone(),
            not_after: i64::MAX,
        };
        let carrier = Carrier::new(stream, ends, place);
        let connection = Connection::of(carrier, Peer::new(known.map_err(Arc::new), asked));
        // Who serves has ended, else.
        let _ = self.connections.send(Ok(connection)).await;
    }

    async fn known(&self, peer: &UCred, admitted: For) -> Result<Arc<Identity>, Refusal> {
        let uid = peer.uid();
        if admitted == For::Refusal {
            return Err(Refusal::TooManyConnections {
                owner: banger_core::Owner::of_uid(uid),
                most: self.users.per_user_max(),
                setting: "limits.socket_connections_per_user_max",
            });
        }
        let role = self.roles.of(uid, peer.gid()).await?;
        Ok(Arc::new(Identity::of_uid(uid, role)))
    }
}
