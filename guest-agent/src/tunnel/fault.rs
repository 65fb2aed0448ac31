//! Why a socket was not connected, or broke: one word for each.

use std::io;

use rustix::io::Errno;

use crate::refusal::{Refusal, describe};

/// Why a socket was not connected, or broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelFault {
    /// Nobody listens there.
    Refused,
    /// The path does not exist.
    NoSocket,
    /// The kernel does not allow it.
    Denied,
    /// There is no way there.
    Unreachable,
    /// Nobody answered in time.
    TimedOut,
    /// Another error of connecting.
    NotConnected,
    /// The connection broke.
    Reset,
}

impl TunnelFault {
    /// The stable word.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Refused => "TUNNEL_REFUSED",
            Self::NoSocket => "TUNNEL_SOCKET_NOT_FOUND",
            Self::Denied => "TUNNEL_DENIED",
            Self::Unreachable => "TUNNEL_UNREACHABLE",
            Self::TimedOut => "TUNNEL_CONNECT_TIMEOUT",
            Self::NotConnected => "TUNNEL_NOT_CONNECTED",
            Self::Reset => "TUNNEL_RESET",
        }
    }

    /// Of an error of connect(2).
    pub(super) fn of_connect(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::CONNREFUSED | Errno::CONNRESET) => Self::Refused,
            Some(Errno::NOENT | Errno::NOTDIR) => Self::NoSocket,
            Some(Errno::ACCESS | Errno::PERM) => Self::Denied,
            Some(
                Errno::NETUNREACH
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::HOSTDOWN
                | Errno::ADDRNOTAVAIL
                | Errno::AFNOSUPPORT,
            ) => Self::Unreachable,
            Some(Errno::TIMEDOUT) => Self::TimedOut,
            _ => Self::NotConnected,
        }
    }
}

/// The refusal that tells of an error of connect(2).
pub(super) fn refused(error: &io::Error) -> Refusal {
    Refusal::Tunnel {
        fault: TunnelFault::of_connect(error),
        detail: describe(error),
    }
}

/// The refusal of a connection that broke.
pub(super) fn reset(error: &io::Error) -> Refusal {
    Refusal::Tunnel {
        fault: TunnelFault::Reset,
        detail: describe(error),
    }
}
