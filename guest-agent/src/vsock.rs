//! The agent channel over vsock: the agent dials the host, at its start, after every lost connection, and after
//! the machine was restored from a snapshot, which breaks every connection.
//!
//! A host that does not listen refuses at once, and nothing tells when it listens again: the agent goes on
//! dialling, ever more slowly up to [`LONGEST_PAUSE`].

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::io::AsyncWriteExt;

use crate::agent::Agent;
use crate::handshake::{ANNOUNCEMENT, accept};
use crate::port::Port;
use crate::serve::serve;
use crate::sys;

/// The host's port of the agent's channel.
const CHANNEL_PORT: u32 = 1024;
/// The host's port for the one thing that the channel cannot tell: that the reset to come is a power-off.
const FAREWELL_PORT: u32 = 1025;
/// Between two tries to reach the host: at first, and at most.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Serves hosts for ever.
pub async fn run(agent: &Arc<Agent>) {
    let mut pause = SHORTEST_PAUSE;
    let mut has_told = false;
    loop {
        match one_host(agent).await {
            Ok(()) => {
                pause = SHORTEST_PAUSE;
                has_told = false;
                continue;
            }
            // A host that hung up before it said a word wants to be dialled again.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => {
                if !has_told {
                    eprintln!("banger-agent: the host cannot be reached yet: {error}");
                }
                has_told = true;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One conversation, from the dialling to its end. Well as soon as it began.
async fn one_host(agent: &Arc<Agent>) -> io::Result<()> {
    let socket = tokio::task::spawn_blocking(|| dial(CHANNEL_PORT)).await??;
    let mut port = Port::new(Arc::new(socket))?;
    port.write_all(ANNOUNCEMENT).await?;
    let stream = accept(port).await?;
    // How a host ends its HTTP/2 is its own affair: the next one starts afresh.
    let _ = serve(agent, stream).await;
    Ok(())
}

/// Connects to the host. Blocks, for two seconds at most: the kernel's own limit.
fn dial(port: u32) -> io::Result<OwnedFd> {
    let socket = sys::connect_host(port)?;
    let flags = fcntl_getfl(&socket)?;
    fcntl_setfl(&socket, flags | OFlags::NONBLOCK)?;
    Ok(socket)
}

/// Tells the host that the machine powers off, just before it resets. Blocks as dialling does.
pub fn say_farewell() {
    // Without a host there is nobody to tell.
    let _ = sys::connect_host(FAREWELL_PORT);
}
