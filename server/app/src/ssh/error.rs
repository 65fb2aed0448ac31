//! Why nobody can connect to a VM's ssh server.

use std::io;

use banger_core::{Explain, FailureKind, Name};

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The VM has as many as it may.
    #[error("VM `{vm}` already has {limit} ssh connections")]
    TooMany {
        /// The VM's name.
        vm: Name,
        /// The bound.
        limit: usize,
    },
    /// The VM's host key could be neither read nor made.
    #[error("the ssh host key of VM `{vm}` could be neither read nor made")]
    HostKey {
        /// The VM's name.
        vm: Name,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Explain for SshError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::TooMany { vm, .. } => FailureKind::ResourceExhausted {
                subject: format!("vm/{vm}/ssh"),
            },
            Self::HostKey { vm, .. } => FailureKind::FailedPrecondition {
                subject: format!("vm/{vm}/ssh-host-key"),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::TooMany { .. } => "TOO_MANY_SSH_CONNECTIONS",
            Self::HostKey { .. } => "SSH_HOST_KEY_UNUSABLE",
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::TooMany { .. } => {
                "Close connections that are not needed any more, or let them share one (ControlMaster).".into()
            }
            Self::HostKey { .. } => {
                "Check the state directory's file system. If the file `ssh-host-key` in the VM's directory is damaged, remove it: the VM then gets a new one.".into()
            }
        })
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::TooMany { vm, limit } => {
                vec![("vm", vm.to_string()), ("limit", limit.to_string())]
            }
            Self::HostKey { vm, .. } => vec![("vm", vm.to_string())],
        }
    }
}
