//! The socket at the other end of a tunnel, as people write it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use banger_proto::v1;

/// Where a tunnel leads: a socket that a guest can reach, as `80`, `localhost:80`, `10.0.2.15:80`, `[::1]:80` or
/// `/run/app.sock`, or the VM's ssh server, as `ssh`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TunnelTarget {
    /// A TCP port.
    Tcp {
        /// None means the guest's loopback, by IPv4 and, if nobody listens there, by IPv6.
        address: Option<IpAddr>,
        /// Not 0.
        port: u16,
    },
    /// A unix socket, by its absolute path in the guest.
    Unix(String),
    /// The ssh server that the daemon keeps for the VM; nothing of the image is needed for it.
    Ssh,
}

/// How [`TunnelTarget::Ssh`] is written.
const SSH: &str = "ssh";

/// Why a text names no socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no socket in a VM: write PORT, ADDRESS:PORT with an IP address, an absolute path, or ssh"
)]
pub struct TargetError {
    text: String,
}

impl TunnelTarget {
    /// This port of the guest's loopback.
    #[must_use]
    pub const fn port(port: u16) -> Self {
        Self::Tcp {
            address: None,
            port,
        }
    }

    pub(super) fn message(&self) -> v1::forward_start::Target {
        use v1::forward_start::Target;
        match self {
            Self::Tcp { address, port } => Target::Tcp(v1::TcpTarget {
                address: address
                    .map(|address| address.to_string())
                    .unwrap_or_default(),
                port: i32::from(*port),
            }),
            Self::Unix(path) => Target::UnixPath(path.clone()),
            Self::Ssh => Target::Ssh(v1::SshTarget {}),
        }
    }
}

impl fmt::Display for TunnelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp {
                address: None,
                port,
            } => write!(f, "localhost:{port}"),
            Self::Tcp {
                address: Some(address),
                port,
            } => write!(f, "{}", SocketAddr::new(*address, *port)),
            Self::Unix(path) => f.write_str(path),
            Self::Ssh => f.write_str(SSH),
        }
    }
}

impl FromStr for TunnelTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let port = |text: &str| text.parse().ok().filter(|&port: &u16| port > 0);
        let found = if text.starts_with('/') {
            Some(Self::Unix(text.to_owned()))
        } else if text == SSH {
            Some(Self::Ssh)
        } else if let Some(number) = text.strip_prefix("localhost:") {
            port(number).map(Self::port)
        } else if let Ok(address) = text.parse::<SocketAddr>() {
            (address.port() > 0).then(|| Self::Tcp {
                address: Some(address.ip()),
                port: address.port(),
            })
        } else {
            port(text).map(Self::port)
        };
        found.ok_or_else(|| TargetError {
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_written() {
        for text in [
            "localhost:80",
            "10.0.2.15:65535",
            "[::1]:1",
            "/run/app.sock",
            "ssh",
        ] {
            let target: TunnelTarget = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
        assert_eq!("80".parse(), Ok(TunnelTarget::port(80)));
    }

    #[test]
    fn what_is_no_socket_is_refused_with_an_example() {
        for text in [
            "",
            "0",
            "65536",
            "-1",
            "web:80",
            "::1:80",
            "run/x",
            "1.2.3.4:",
            "1.2.3.4:0",
        ] {
            let refused = text.parse::<TunnelTarget>().unwrap_err().to_string();
            assert!(refused.contains("write PORT"), "{refused}");
        }
    }
}
