//! Tunnels: connections to sockets of a guest.
//!
//! Each side may send [`WINDOW_BYTES`] more than the other has taken, so that a tunnel that nobody reads costs
//! everybody on the way that much and no more, and stops no other. A [`Window`] counts one direction.
//!
//! ```text
//! caller ── data*, end ─────▶ guest's socket        each tells how much it has `taken`;
//! caller ◀───── data*, end ── guest's socket        an end counts as one more byte
//! ```

mod fault;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

pub use fault::TunnelFault;

/// Bytes of one direction of a tunnel that may be under way.
pub const WINDOW_BYTES: u64 = 256 << 10;
/// Tunnels of one VM at once: what all of them may hold is a quarter of a small guest's memory.
pub const TUNNELS_MAX: usize = 256;
/// The longest path of a unix socket, as the kernel has it, bytes.
pub const UNIX_PATH_MAX_BYTES: usize = 107;
/// How long connecting may take where the caller does not say.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a caller may say.
pub const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(120);

/// A socket that a guest can reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TunnelTarget {
    /// A TCP port.
    Tcp {
        /// None means the loopback: by IPv4 and, if nobody listens there, by IPv6.
        address: Option<IpAddr>,
        /// Not 0.
        port: u16,
    },
    /// A unix socket, by its absolute path in the guest.
    Unix {
        /// At most [`UNIX_PATH_MAX_BYTES`].
        path: String,
    },
}

impl fmt::Display for TunnelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp {
                address: None,
                port,
            } => write!(f, "localhost:{port}"),
            Self::Tcp {
                address: Some(IpAddr::V6(address)),
                port,
            } => write!(f, "[{address}]:{port}"),
            Self::Tcp {
                address: Some(address),
                port,
            } => write!(f, "{address}:{port}"),
            Self::Unix { path } => f.write_str(path),
        }
    }
}

/// What a caller sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelInput {
    /// Bytes for the socket; not empty.
    Data(Bytes),
    /// Their end.
    End,
    /// The caller has taken this many of the guest's bytes, since the beginning.
    Taken(u64),
}

/// What a connected guest sends. Its last event is an error, or there is none once both directions have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelEvent {
    /// Bytes from the socket; not empty.
    Data(Bytes),
    /// Their end.
    End,
    /// The socket has taken this many of the caller's bytes, since the beginning; an end counts as one more.
    Taken(u64),
    /// Nothing new.
    Heartbeat,
}

/// How one direction stands, as somebody sees it who trusts neither side.
#[derive(Debug, Default)]
pub struct Window {
    sent: AtomicU64,
    taken: AtomicU64,
}

/// A side that did what the other does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// It sent more than the other can hold.
    #[error("more than {WINDOW_BYTES} bytes were sent beyond what was taken")]
    Overrun,
    /// It took what nobody sent, or took back what it had taken.
    #[error("{taken} bytes were taken, after {before}, of {sent} that were sent")]
    Untrue {
        /// What it says that it has taken.
        taken: u64,
        /// What it had taken before.
        before: u64,
        /// What was sent.
        sent: u64,
    },
}

impl Window {
    /// One side sends `bytes`.
    ///
    /// # Errors
    /// If the other has no room for them.
    pub fn send(&self, bytes: u64) -> Result<(), WindowError> {
        let sent = self.sent.load(Ordering::SeqCst).saturating_add(bytes);
        self.sent.store(sent, Ordering::SeqCst);
        let room = self
            .taken
            .load(Ordering::SeqCst)
            .saturating_add(WINDOW_BYTES);
        if sent > room {
            return Err(WindowError::Overrun);
        }
        Ok(())
    }

    /// One side ends, which counts as a byte that always has room.
    pub fn end(&self) {
        self.sent.fetch_add(1, Ordering::SeqCst);
    }

    /// The other has taken `taken` in all.
    ///
    /// # Errors
    /// If that cannot be.
    pub fn take(&self, taken: u64) -> Result<(), WindowError> {
        let before = self.taken.load(Ordering::SeqCst);
        let sent = self.sent.load(Ordering::SeqCst);
        if taken < before || taken > sent {
            return Err(WindowError::Untrue {
                taken,
                before,
                sent,
            });
        }
        self.taken.store(taken, Ordering::SeqCst);
        Ok(())
    }

    /// The other does not tell any more what it takes: everything has room.
    pub fn lift(&self) {
        self.taken.store(u64::MAX, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_room_for_what_was_taken_and_no_more() {
        let window = Window::default();
        assert_eq!(window.send(WINDOW_BYTES), Ok(()));
        assert_eq!(window.take(10), Ok(()));
        assert_eq!(window.send(10), Ok(()));
        assert_eq!(window.send(1), Err(WindowError::Overrun));
        window.lift();
        assert_eq!(window.send(u64::MAX), Ok(()));
    }

    #[test]
    fn nobody_takes_what_was_not_sent_nor_takes_it_back() {
        let window = Window::default();
        window.send(5).unwrap();
        assert!(window.take(6).is_err());
        assert_eq!(window.take(5), Ok(()));
        assert!(window.take(4).is_err());
        window.end();
        assert_eq!(window.take(6), Ok(()));
        assert_eq!(
            window.take(9).unwrap_err().to_string(),
            "9 bytes were taken, after 6, of 6 that were sent"
        );
    }

    #[test]
    fn targets_are_written_as_people_write_them() {
        let tcp = |address: Option<&str>| TunnelTarget::Tcp {
            address: address.map(|text| text.parse().unwrap()),
            port: 80,
        };
        let path = "/run/app.sock".to_owned();
        let texts = [
            (tcp(None), "localhost:80"),
            (tcp(Some("10.0.2.15")), "10.0.2.15:80"),
            (tcp(Some("::1")), "[::1]:80"),
            (TunnelTarget::Unix { path }, "/run/app.sock"),
        ];
        for (target, text) in texts {
            assert_eq!(target.to_string(), text);
        }
    }
}
