//! Connections: each is a tunnel of its own. An end of one direction stays an end, and a reset a reset, both ways.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use banger_sdk::{Client, Error, Tunnel, TunnelTarget};
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Stdout, stdin, stdout};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::tell::Teller;
use crate::failure::Failure;

/// Connections of one listener at once: as many as the daemon lets a VM have. More wait until they are accepted.
const CONNECTIONS_MAX: usize = 256;
/// What is carried at once.
const COPY_BYTES: usize = 64 << 10;
/// After a connection could not be accepted, as when there are too many files: how long until the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections lead.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) client: Client,
    /// The VM's id: its name may go to another.
    pub(super) vm: String,
    pub(super) target: TunnelTarget,
    pub(super) connect_timeout: Duration,
    pub(super) teller: Teller,
}

/// Takes connections for ever. Dropping it ends them.
pub(super) async fn serve(door: Arc<Door>, listener: TcpListener) -> Result<Infallible, Failure> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // cancel-safe: a connection that was not accepted waits
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((local, peer)) => {
                    connections.spawn(carry(Arc::clone(&door), local, peer));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            // cancel-safe: what has ended stays in the set
            Some(carried) = connections.join_next() => match carried {
                Ok(told) => told?,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            },
        }
    }
}

/// Carries one connection to its end. The error is one of telling.
async fn carry(door: Arc<Door>, mut local: TcpStream, peer: SocketAddr) -> Result<(), Failure> {
    let carried = through(&door, &mut local).await;
    let Err(error) = carried else {
        return Ok(());
    };
    // A local side that cannot be reset has gone already.
    let _ = rustix::net::sockopt::set_socket_linger(&local, Some(Duration::ZERO));
    drop(local);
    match error {
        // Both sides know of it.
        Some(error) if error.reason() == "TUNNEL_RESET" => Ok(()),
        Some(error) => door.teller.failed(peer, &door.target, &error),
        None => Ok(()),
    }
}

/// The error of the tunnel; none where the local side broke.
async fn through(door: &Door, local: &mut TcpStream) -> Result<(), Option<Error>> {
    let open = door
        .client
        .tunnels()
        .open(door.vm.as_str(), door.target.clone());
    let mut tunnel = open.connect_timeout(door.connect_timeout).await?;
    // Whoever sends a little at a time wants it there at once; one that has gone is found by the copying.
    let _ = local.set_nodelay(true);
    let (reader, writer) = local.split();
    let carried = both(reader, writer, &mut tunnel).await;
    carried.map_err(|_| tunnel.into_failure())
}

/// Carries standard input and output to the end of both.
pub(crate) async fn stdio(mut tunnel: Tunnel) -> Result<u8, Failure> {
    match both(stdin(), Output(stdout()), &mut tunnel).await {
        Ok(()) => Ok(0),
        Err(Broken::From(error)) => Err(Failure::Read(error)),
        Err(Broken::To(error)) => Err(Failure::write(error)),
        Err(Broken::Tunnel) => Err(tunnel
            .into_failure()
            .map_or(Failure::BrokenPipe, Failure::from)),
    }
}

/// What broke.
enum Broken {
    /// Where bytes come from, here.
    From(io::Error),
    /// Where bytes go, here.
    To(io::Error),
    /// The tunnel, which knows how.
    Tunnel,
}

/// Carries both directions to their ends. What came through the tunnel before it broke is written first.
async fn both(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    tunnel: &mut Tunnel,
) -> Result<(), Broken> {
    let (reader, writer) = tokio::io::split(tunnel);
    let up = async {
        match pour(from, writer).await {
            Ok(()) => Ok(true),
            Err(Poured::From(error)) => Err(Broken::From(error)),
            // Told after what is left to read.
            Err(Poured::To(_)) => Ok(false),
        }
    };
    let down = async {
        pour(reader, to).await.map_err(|error| match error {
            Poured::From(_) => Broken::Tunnel,
            Poured::To(error) => Broken::To(error),
        })
    };
    match futures::future::try_join(up, down).await? {
        (true, ()) => Ok(()),
        (false, ()) => Err(Broken::Tunnel),
    }
}

/// Which side of one direction broke.
enum Poured {
    From(io::Error),
    To(io::Error),
}

/// Carries one direction to its end.
async fn pour(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> Result<(), Poured> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let length = from.read(&mut buffer).await.map_err(Poured::From)?;
        if length == 0 {
            return to.shutdown().await.map_err(Poured::To);
        }
        to.write_all(&buffer[..length]).await.map_err(Poured::To)?;
        to.flush().await.map_err(Poured::To)?;
    }
}

/// Standard output, which ends where it is shut down, so that whoever reads it learns of the end.
struct Output(Stdout);

impl AsyncWrite for Output {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(context))?;
        let nowhere = rustix::fs::open("/dev/null", OFlags::WRONLY, Mode::empty())?;
        rustix::stdio::dup2_stdout(nowhere)?;
        Poll::Ready(Ok(()))
    }
}
