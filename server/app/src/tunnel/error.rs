//! Why a tunnel is not there, beside what its guest says.

use banger_core::{Explain, FailureKind, Name};

/// Why a tunnel was not made or has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// The VM has as many as it may.
    #[error("VM `{vm}` already has {limit} tunnels")]
    TooMany {
        /// The VM's name.
        vm: Name,
        /// The bound.
        limit: usize,
    },
    /// The VM ended.
    #[error("VM `{vm}` has ended, and its connections with it")]
    VmGone {
        /// The VM's name.
        vm: Name,
    },
}

impl Explain for TunnelError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::TooMany { vm, .. } => FailureKind::ResourceExhausted {
                subject: format!("vm/{vm}/tunnels"),
            },
            Self::VmGone { vm } => FailureKind::FailedPrecondition {
                subject: format!("vm/{vm}"),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::TooMany { .. } => "TOO_MANY_TUNNELS",
            Self::VmGone { .. } => "TUNNEL_VM_GONE",
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::TooMany { .. } => "Close connections that are not needed any more.".into(),
            Self::VmGone { vm } => {
                format!("Start the VM, and connect again: banger vm start {vm}")
            }
        })
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::TooMany { vm, limit } => {
                vec![("vm", vm.to_string()), ("limit", limit.to_string())]
            }
            Self::VmGone { vm } => vec![("vm", vm.to_string())],
        }
    }
}
