//! How callers come: the unix socket, and TCP with mutual TLS.
//!
//! ```text
//! unix socket ─▶ admit (user, total) ───▶ who (the kernel's word) ──┐
//! TCP ─▶ admit (address, total) ─▶ TLS ─▶ who (certificate, rules) ─┼─▶ Connection ─▶ gRPC
//!                                   ▲                               │
//!                    reload (SIGHUP, files) ─▶ closes who is no longer let in
//! ```
//! Nobody is served here: what comes out are connections whose peers are known, or known to be refused and why.

mod accept;
pub mod activation;
pub mod calls;
pub mod carrier;
mod listed;
pub mod misses;
pub mod rate;
pub mod refusal;
pub mod reload;
mod revoked;
pub mod rule;
pub mod slots;
pub mod tcp;
pub mod tls;
mod trust;
mod uncounted;
mod unix;
mod unshown;
pub mod users;
mod watch;
pub mod windows;

use std::io;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Roles;
use crate::config::{Config, LimitsConfig};
use crate::connection::Connection;
use crate::lock::StateLock;
use crate::socket::{self, Socket, SocketError};
use activation::Sockets;
use reload::Reread;
use tcp::{Tcp, TcpError};

/// Callers as they come.
pub type Connections = BoxStream<'static, io::Result<Connection>>;

/// What a daemon is given beside its configuration.
#[derive(Default)]
pub struct Outside {
    /// Callers who do not come by one of the daemon's own listeners, and whom its embedder knows.
    pub connections: Option<Connections>,
    /// Sockets that the service manager made. A Unix one takes the place of the configured one.
    pub sockets: Sockets,
    /// How the configuration is read anew; without it, only the files that it names are.
    pub reread: Option<Reread>,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside")
            .field("sockets", &self.sockets)
            .field("reread", &self.reread)
            .finish_non_exhaustive()
    }
}

impl From<Connections> for Outside {
    fn from(connections: Connections) -> Self {
        Self {
            connections: Some(connections),
            ..Self::default()
        }
    }
}

/// Why what the API is to be served on cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DoorsError {
    /// The Unix socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The one that the service manager made.
    #[error("could not take the Unix socket of the service manager")]
    Activated(#[source] io::Error),
    /// TCP.
    #[error(transparent)]
    Tcp(#[from] TcpError),
}

/// All that the API is served on, before anybody is let in.
#[derive(Debug)]
pub struct Doors {
    unix: Vec<UnixListener>,
    /// Removed at the end, where the daemon made it.
    socket: Option<Socket>,
    tcp: Option<Tcp>,
    roles: Roles,
    limits: LimitsConfig,
    others: Option<Others>,
    reread: Option<Reread>,
}

/// Connections, of which nothing can be shown.
struct Others(Connections);

impl std::fmt::Debug for Others {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Others")
    }
}

impl Doors {
    /// Listens on everything. The lock of the state directory must be held.
    ///
    /// # Errors
    /// If something cannot be had.
    pub async fn open(
        config: &Config,
        outside: Outside,
        lock: &StateLock,
    ) -> Result<Self, DoorsError> {
        // TCP first: it can be wrong in more ways, and leaves nothing behind.
        let tcp = Tcp::open(&config.tcp, outside.sockets.tcp)?;
        let mut unix = Vec::new();
        let mut socket = None;
        if outside.sockets.unix.is_empty() {
            let made = socket::listen(&config.socket, &config.socket_group, lock).await?;
            unix.push(made.0);
            socket = Some(made.1);
        }
        for activated in outside.sockets.unix {
            activated
                .set_nonblocking(true)
                .map_err(DoorsError::Activated)?;
            unix.push(UnixListener::from_std(activated).map_err(DoorsError::Activated)?);
        }
        Ok(Self {
            unix,
            socket,
            tcp,
            roles: Roles::new(&config.access),
            limits: config.limits.clone(),
            others: outside.connections.map(Others),
            reread: outside.reread,
        })
    }

    /// Where TCP is served.
    #[must_use]
    pub fn addresses(&self) -> &[std::net::SocketAddr] {
        self.tcp.as_ref().map_or(&[], Tcp::addresses)
    }

    /// Lets callers in until `stop`, by `tasks`. The socket is to be kept until nobody is served any more.
    ///
    /// # Errors
    /// If SIGHUP cannot be taken.
    pub fn accept(
        self,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(Connections, Option<Socket>), DoorsError> {
        let mut all = stream::SelectAll::new();
        all.push(unix::serve(self.unix, self.roles, &self.limits, tasks, stop).boxed());
        if let Some(tcp) = self.tcp {
            all.push(tcp.accept(self.reread, tasks, stop)?.boxed());
        }
        all.extend(self.others.map(|others| others.0));
        Ok((all.boxed(), self.socket))
    }
}
