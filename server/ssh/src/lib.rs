//! The ssh servers of VMs: one connection of an ssh client, carried by a call of the API, becomes sessions, files and
//! tunnels of one VM. No image needs an sshd, no guest a network, and no host a port.
//!
//! ```text
//!  ssh ── ProxyCommand ── TunnelService.Forward ── transport ── russh ── handler ─┬─ process ─▶ app.sessions
//!                          (who may call)                    (who may log in)     ├─ sftp ────▶ app.files
//!                                                                                 └─ tunnel ──▶ app.tunnels
//! ```
//! The client is hostile, and so is the guest: see [`limits`]. What a client sends in a channel that nobody reads waits
//! there, and slows the connection down ([`inbox`]). Rules about VMs are the application's; nothing of ssh leaves this crate.
#![forbid(unsafe_code)]

mod connection;
mod handler;
mod inbox;
mod limits;
mod login;
mod process;
mod sftp;
mod signal;
mod transport;
mod tunnel;

use std::sync::Arc;

use banger_app::tunnel::Events;
use banger_app::{App, AppError};
use banger_core::guest::TunnelInputs;

/// Serves one connection to a VM's ssh server, whose bytes are the tunnel's. Dropping the events breaks it off.
///
/// # Errors
/// If the VM does not run or has too many connections, or its host key can be neither read nor made.
pub async fn connect(app: &Arc<App>, vm: &str, input: TunnelInputs) -> Result<Events, AppError> {
    let admission = app.ssh.admit(vm).await?;
    let (transport, events) = transport::pair(input);
    let serving = connection::serve(app.clone(), admission, transport);
    app.tasks().spawn(serving);
    Ok(events)
}
