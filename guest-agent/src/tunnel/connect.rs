//! Connecting to a socket of the guest, within a limit.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::fault::{TunnelFault, refused};
use super::socket::Socket;
use crate::refusal::Refusal;

/// A unix socket whose queue is full tells nobody when it has room: how long until the next try.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);

/// To what to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Whoever listens on the loopback at this port, by IPv4 or IPv6.
    Loopback(u16),
    /// A TCP port of an address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// A connected socket.
///
/// # Errors
/// Why there is none.
pub(super) async fn connect(target: &Target, limit: Duration) -> Result<Socket, Refusal> {
    let attempt = async {
        match target {
            Target::Loopback(port) => loopback(*port).await,
            Target::Tcp(address) => tcp(*address).await,
            Target::Unix(path) => unix(path).await,
        }
    };
    match timeout(limit, attempt).await {
        Ok(connected) => connected.map_err(|error| refused(&error)),
        Err(_) => Err(Refusal::Tunnel {
            fault: TunnelFault::TimedOut,
            detail: String::new(),
        }),
    }
}

/// By IPv4; where nobody listens there, by IPv6. Many a server listens on one of them alone.
async fn loopback(port: u16) -> io::Result<Socket> {
    let at = |address: IpAddr| SocketAddr::new(address, port);
    match tcp(at(Ipv4Addr::LOCALHOST.into())).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            // A guest without IPv6 is one in which nobody listens there.
            tcp(at(Ipv6Addr::LOCALHOST.into())).await.map_err(|_| error)
        }
        connected => connected,
    }
}

async fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let stream = TcpStream::connect(address).await?;
    // Whoever sends a little at a time wants it there at once.
    stream.set_nodelay(true)?;
    Socket::new(stream.into_std()?.into())
}

async fn unix(path: &Path) -> io::Result<Socket> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(QUEUE_PAUSE).await,
            connected => return Socket::new(connected?.into_std()?.into()),
        }
    }
}
