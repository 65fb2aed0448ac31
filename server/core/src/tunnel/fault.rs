//! Why a tunnel's socket was not connected, or broke.

use std::time::Duration;

use super::TunnelTarget;
use crate::{Explain, FailureKind};

/// Why a tunnel's socket was not connected, or broke, as the host judges what the guest says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TunnelFault {
    /// Nobody listens there.
    #[error("nobody listens at {target} in the VM")]
    Refused {
        /// Where.
        target: TunnelTarget,
    },
    /// The unix socket does not exist.
    #[error("there is no socket {target} in the VM")]
    NoSocket {
        /// Which.
        target: TunnelTarget,
    },
    /// The guest's kernel does not allow it.
    #[error("connecting to {target} is not permitted in the VM ({detail})")]
    Denied {
        /// Where.
        target: TunnelTarget,
        /// The errno's text, bounded.
        detail: String,
    },
    /// The guest has no way there.
    #[error("{target} cannot be reached from the VM ({detail})")]
    Unreachable {
        /// Where.
        target: TunnelTarget,
        /// The errno's text, bounded.
        detail: String,
    },
    /// Nobody answered.
    #[error("{target} did not answer in the VM within {limit:?}")]
    TimedOut {
        /// Where.
        target: TunnelTarget,
        /// The limit that ran out.
        limit: Duration,
    },
    /// It could not be connected for another reason.
    #[error("{target} could not be connected in the VM ({detail})")]
    NotConnected {
        /// Where.
        target: TunnelTarget,
        /// The errno's text, bounded.
        detail: String,
    },
    /// The connection broke after it was made.
    #[error("the connection to {target} was reset in the VM")]
    Reset {
        /// Where.
        target: TunnelTarget,
    },
}

impl TunnelFault {
    const fn target(&self) -> &TunnelTarget {
        match self {
            Self::Refused { target }
            | Self::NoSocket { target }
            | Self::Denied { target, .. }
            | Self::Unreachable { target, .. }
            | Self::TimedOut { target, .. }
            | Self::NotConnected { target, .. }
            | Self::Reset { target } => target,
        }
    }
}

impl Explain for TunnelFault {
    fn kind(&self) -> FailureKind {
        let precondition = |subject: &str| FailureKind::FailedPrecondition {
            subject: subject.to_owned(),
        };
        match self {
            Self::NoSocket { target } => FailureKind::NotFound {
                resource: "socket".into(),
                name: target.to_string(),
            },
            Self::Refused { .. } | Self::Denied { .. } | Self::NotConnected { .. } => {
                precondition("guest/socket")
            }
            Self::Unreachable { .. } => precondition("guest/network"),
            Self::TimedOut { .. } => FailureKind::DeadlineExceeded,
            Self::Reset { .. } => FailureKind::Aborted,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "TUNNEL_REFUSED",
            Self::NoSocket { .. } => "TUNNEL_SOCKET_NOT_FOUND",
            Self::Denied { .. } => "TUNNEL_DENIED",
            Self::Unreachable { .. } => "TUNNEL_UNREACHABLE",
            Self::TimedOut { .. } => "TUNNEL_CONNECT_TIMEOUT",
            Self::NotConnected { .. } => "TUNNEL_NOT_CONNECTED",
            Self::Reset { .. } => "TUNNEL_RESET",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Refused { .. } => {
                "Start the server in the VM, or look where it listens: banger vm ports VM."
            }
            Self::NoSocket { .. } => {
                "Give the absolute path of a unix socket in the VM, and start its server."
            }
            Self::Denied { .. } => {
                "Look at what guards sockets in the VM: its packet filter, or its security module."
            }
            Self::Unreachable { .. } => {
                "Give an address that the VM itself can reach: its own, or one that its network leads to."
            }
            Self::TimedOut { .. } => {
                "Look whether the server in the VM accepts connections, or give it more time to."
            }
            Self::NotConnected { .. } => {
                "Look at the server in the VM, and whether its socket is one for streams."
            }
            Self::Reset { .. } => {
                "Connect again; the server's own log in the VM tells why it broke the connection."
            }
        };
        Some(text.to_owned())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        let target = ("target", self.target().to_string());
        match self {
            Self::Denied { detail, .. }
            | Self::Unreachable { detail, .. }
            | Self::NotConnected { detail, .. } => vec![target, ("detail", detail.clone())],
            Self::TimedOut { limit, .. } => {
                vec![target, ("limit_ms", limit.as_millis().to_string())]
            }
            Self::Refused { .. } | Self::NoSocket { .. } | Self::Reset { .. } => vec![target],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_names_its_target_and_says_what_to_do() {
        let target = TunnelTarget::Tcp {
            address: None,
            port: 80,
        };
        let detail = String::from("No route to host");
        let limit = Duration::from_secs(10);
        let faults = [
            TunnelFault::Refused {
                target: target.clone(),
            },
            TunnelFault::NoSocket {
                target: target.clone(),
            },
            TunnelFault::Denied {
                target: target.clone(),
                detail: detail.clone(),
            },
            TunnelFault::Unreachable {
                target: target.clone(),
                detail: detail.clone(),
            },
            TunnelFault::TimedOut {
                target: target.clone(),
                limit,
            },
            TunnelFault::NotConnected {
                target: target.clone(),
                detail,
            },
            TunnelFault::Reset { target },
        ];
        let mut reasons: Vec<_> = faults.iter().map(Explain::reason).collect();
        for fault in &faults {
            assert!(fault.to_string().contains("localhost:80"), "{fault}");
            assert!(fault.remedy().is_some(), "{fault}");
            let is_named = fault.metadata().iter().any(|(key, _)| *key == "target");
            assert!(is_named, "{fault}");
        }
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), faults.len());
    }
}
