//! What a forwarding command tells.

use std::net::SocketAddr;

use banger_sdk::types::vm::State;
use banger_sdk::{Error, TunnelTarget};
use serde::Serialize;

use super::word;

/// One line of a forwarding command in JSON, told apart by `type`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ForwardItem {
    /// Connections are taken here.
    Listening {
        address: String,
        port: u16,
        target: String,
    },
    /// A connection came to nothing, or broke otherwise than by a reset in the VM.
    Failed {
        peer: String,
        target: String,
        reason: String,
        message: String,
    },
    /// The VM has stopped, or runs again.
    Vm { name: String, state: String },
}

impl ForwardItem {
    pub(crate) fn listening(address: SocketAddr, target: &TunnelTarget) -> Self {
        Self::Listening {
            address: address.ip().to_string(),
            port: address.port(),
            target: target.to_string(),
        }
    }

    pub(crate) fn failed(peer: SocketAddr, target: &TunnelTarget, error: &Error) -> Self {
        Self::Failed {
            peer: peer.to_string(),
            target: target.to_string(),
            reason: error.reason().to_owned(),
            message: error.to_string(),
        }
    }

    pub(crate) fn vm(name: &str, state: State) -> Self {
        Self::Vm {
            name: name.to_owned(),
            state: word(state.as_str_name(), "STATE_"),
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Listening {
                address,
                port,
                target,
            } => {
                let address = if address.contains(':') {
                    format!("[{address}]:{port}")
                } else {
                    format!("{address}:{port}")
                };
                format!("{address} -> {target}")
            }
            Self::Failed { peer, message, .. } => format!("{peer}: {message}"),
            Self::Vm { name, state } if state == "running" => format!("VM `{name}` runs again"),
            Self::Vm { name, state } => {
                format!("VM `{name}` is {state}; connections are refused until it runs")
            }
        }
    }
}
