//! Sockets that the service manager made and hands over (sd_listen_fds(3)): they are there before the daemon is, and
//! outlive its restarts.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

/// What was handed over.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For callers on this host. Their rights are the service manager's.
    pub unix: Vec<UnixListener>,
    /// For callers from others, with mutual TLS like all of TCP.
    pub tcp: Vec<TcpListener>,
}

/// Why a socket that was handed over cannot be served.
#[derive(Debug, thiserror::Error)]
#[error(
    "socket {number} that the service manager hands over is neither a Unix nor a TCP socket that listens"
)]
pub struct ActivationError {
    /// Which, from zero.
    pub number: usize,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Sockets {
    /// Takes all, from the environment. **Before any thread is started**: the environment is changed.
    ///
    /// # Errors
    /// If one is of no use.
    pub fn take() -> Result<Self, ActivationError> {
        let mut handed = ListenFd::from_env();
        let mut sockets = Self::default();
        for number in 0..handed.len() {
            if let Ok(Some(socket)) = handed.take_unix_listener(number) {
                sockets.unix.push(socket);
                continue;
            }
            let failed = |source| ActivationError { number, source };
            sockets
                .tcp
                .extend(handed.take_tcp_listener(number).map_err(failed)?);
        }
        Ok(sockets)
    }
}
