//! Callers from other hosts: TCP, and on it TLS with certificates on both sides. There is nothing else on these
//! sockets: who speaks no TLS, or shows no certificate that is let in, gets no answer.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use banger_core::access::Via;
use banger_core::{Explain as _, Identity, Owner};
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept;
use super::carrier::{Carrier, Ends, REFUSED_FOR};
use super::misses::Misses;
use super::refusal::Refusal;
use super::reload::{Entry, Keeper, Register, Reread};
use super::rule;
use super::slots::{Handshake, Place, Seat, Slots};
use super::tls::{Tls, TlsError};
use crate::config::TcpConfig;
use crate::connection::{Asked, Connection, Peer};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// Connections whose peers are known, and that wait to be served.
const KNOWN_MAX: usize = 64;
/// The first byte of TLS: a record with a handshake (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Why TCP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// An address cannot be had.
    #[error("could not listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket that was handed over cannot be used.
    #[error("could not take the socket of the service manager")]
    Activated(#[source] io::Error),
    /// There is a socket, and no certificates.
    #[error(
        "the service manager hands over a TCP socket, and [tcp] of the configuration names no cert_file, key_file and client_ca_files: TCP is served with mutual TLS only"
    )]
    NoTls,
    /// TLS cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// SIGHUP cannot be taken.
    #[error("could not take SIGHUP")]
    Signal(#[source] io::Error),
}

/// The sockets and what TLS goes by, before anything is accepted.
#[derive(Debug)]
pub struct Tcp {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    config: TcpConfig,
    tls: Arc<Tls>,
}

impl Tcp {
    /// Listens on the addresses of `config`, and takes what the service manager hands over. `None` where there is
    /// neither.
    ///
    /// # Errors
    /// If an address or TLS cannot be had.
    pub fn open(config: &TcpConfig, activated: Vec<StdListener>) -> Result<Option<Self>, TcpError> {
        if config.listen.is_empty() && activated.is_empty() {
            return Ok(None);
        }
        if !config.has_tls() {
            return Err(TcpError::NoTls);
        }
        let tls = Arc::new(Tls::load(config)?);
        let mut listeners = Vec::new();
        for socket in activated {
            socket.set_nonblocking(true).map_err(TcpError::Activated)?;
            listeners.push(TcpListener::from_std(socket).map_err(TcpError::Activated)?);
        }
        for &address in &config.listen {
            let listener =
                listen(address).map_err(|source| TcpError::Listen { address, source })?;
            listeners.push(listener);
        }
        let addresses = listeners.iter().map(TcpListener::local_addr);
        let addresses = addresses.collect::<io::Result<_>>();
        Ok(Some(Self {
            addresses: addresses.map_err(TcpError::Activated)?,
            listeners,
            config: config.clone(),
            tls,
        }))
    }

    /// Where it is served: with the ports that the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accepts callers until `stop`, and keeps certificates up to date meanwhile; `tasks` are what does so.
    ///
    /// # Errors
    /// If SIGHUP cannot be taken.
    pub fn accept(
        self,
        reread: Option<Reread>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<ReceiverStream<io::Result<Connection>>, TcpError> {
        let (connections, known) = mpsc::channel(KNOWN_MAX);
        let (current, tls) = watch::channel(self.tls);
        let register = Register::default();
        let keeper = Keeper::new(self.config.clone(), reread, current, register.clone())
            .map_err(TcpError::Signal)?;
        let until = stop.clone();
        tasks.spawn(async move { until.run_until_cancelled(keeper.keep()).await });
        let door = Arc::new(Door {
            slots: Slots::new(&self.config),
            misses: Misses::new(self.config.misses_per_address_max),
            handshake_timeout: self.config.handshake_timeout.unsigned_abs(),
            first_request: self.config.first_request_timeout.unsigned_abs(),
            connections_per_identity_max: self.config.connections_per_identity_max,
            tls,
            register,
            connections,
        });
        for listener in self.listeners {
            let (door, tracker, until) = (door.clone(), tasks.clone(), stop.clone());
            tasks.spawn(async move {
                let accepting = accept(listener, door, tracker, until.clone());
                until.run_until_cancelled(accepting).await;
            });
        }
        Ok(ReceiverStream::new(known))
    }
}

/// A socket that can be had again as soon as a daemon has ended.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // IPv4 is listened to by an address of its own, and counted once.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What every caller passes.
struct Door {
    slots: Slots,
    misses: Misses,
    handshake_timeout: Duration,
    first_request: Duration,
    connections_per_identity_max: usize,
    tls: watch::Receiver<Arc<Tls>>,
    register: Register,
    connections: mpsc::Sender<io::Result<Connection>>,
}

async fn accept(
    listener: TcpListener,
    door: Arc<Door>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                accept::failed(error).await;
                continue;
            }
        };
        if !door.misses.allow(from.ip()) {
            continue;
        }
        let (place, handshake) = match door.slots.admit(from.ip()) {
            Ok(places) => places,
            Err(full) => {
                tracing::debug!(%from, limit = full.setting(), "turned a connection away");
                continue;
            }
        };
        let (door, stop) = (door.clone(), stop.clone());
        tasks.spawn(async move {
            let entering = door.enter(stream, from, place, handshake);
            stop.run_until_cancelled(entering).await;
        });
    }
}

/// What a connection holds as long as it is open.
type Held = (Place, Option<Seat>, Entry);

impl Door {
    /// Finds out who it is, and hands the connection on.
    async fn enter(&self, stream: TcpStream, from: SocketAddr, place: Place, handshake: Handshake) {
        let tls = self.tls.borrow().clone();
        let shaken = timeout(self.handshake_timeout, shake(stream, &tls)).await;
        drop(handshake);
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.misses.count(from.ip());
                tracing::debug!(%from, %error, "let nobody in");
                return;
            }
            Err(_) => {
                self.misses.count(from.ip());
                tracing::debug!(%from, "let nobody in: the handshake took too long");
                return;
            }
        };
        let connection = self.connection(stream, from, place, &tls);
        // Who serves has ended, else.
        let _ = self.connections.send(Ok(connection)).await;
    }

    fn connection(
        &self,
        stream: TlsStream<TcpStream>,
        from: SocketAddr,
        place: Place,
        tls: &Arc<Tls>,
    ) -> Connection {
        let (_, session) = stream.get_ref();
        let chain: Vec<CertificateDer<'static>> = session
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        let (known, not_after) = who(&chain, tls);
        let (known, seat) = match known {
            Ok(identity) => self.seated(identity),
            Err(refusal) => (Err(refusal), None),
        };
        match &known {
            Ok(identity) => {
                tracing::debug!(%from, owner = %identity.owner, role = %identity.role, "let in");
            }
            Err(refusal) => {
                // Who has too many connections is somebody.
                if !matches!(refusal, Refusal::TooManyConnections { .. }) {
                    self.misses.count(from.ip());
                }
                tracing::debug!(%from, reason = refusal.reason(), "let in to be refused");
            }
        }
        let closed = CancellationToken::new();
        let identity = known.as_ref().ok().cloned();
        let entry = self.register.enter(chain, identity, closed.clone());
        // What was reloaded since the handshake began did not see this one.
        let newest = self.tls.borrow().clone();
        if !Arc::ptr_eq(&newest, tls) {
            entry.judge(&newest);
        }
        let asked = Arc::new(Asked::default());
        let held: Held = (place, seat, entry);
        // Who is refused is not heard, and so ends by the time that it has.
        let ends = Ends {
            closed,
            first_request: match &known {
                Ok(_) => self.first_request,
                Err(_) => REFUSED_FOR,
            },
            asked: asked.clone(),
            not_after,
        };
        let carrier = Carrier::new(stream, ends, held);
        Connection::of(carrier, Peer::new(known.map_err(Arc::new), asked))
    }

    fn seated(&self, identity: Identity) -> (Result<Arc<Identity>, Refusal>, Option<Seat>) {
        match self.slots.seat(&identity.owner) {
            Some(seat) => (Ok(Arc::new(identity)), Some(seat)),
            None => {
                let refusal = Refusal::TooManyConnections {
                    owner: identity.owner,
                    most: self.connections_per_identity_max,
                    setting: "tcp.connections_per_identity_max",
                };
                (Err(refusal), None)
            }
        }
    }
}

/// The TLS handshake, for those who begin one.
async fn shake(stream: TcpStream, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] != TLS_HANDSHAKE {
        // Not even an alert: what listens here is nobody's business.
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no TLS"));
    }
    stream.set_nodelay(true)?;
    TlsAcceptor::from(tls.server.clone()).accept(stream).await
}

/// Whom a verified certificate names, and when it ends to be valid.
fn who(chain: &[CertificateDer<'_>], tls: &Tls) -> (Result<Identity, Refusal>, i64) {
    let Some(read) = chain.first().and_then(|own| rule::read(own)) else {
        return (Err(Refusal::Unreadable), i64::MAX);
    };
    let judged = tls.rules.judge(&read.names);
    let identity = |(owner, role): (Owner, _)| Identity {
        owner,
        role,
        via: Via::Certificate {
            serial: read.serial.clone(),
        },
    };
    let known = judged
        .map(identity)
        .map_err(|why| Refusal::unmapped(&read.names, &why));
    (known, read.not_after)
}
