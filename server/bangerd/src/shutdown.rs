//! When to stop: the first SIGTERM or SIGINT asks the daemon to end in good order, the second to end now.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The signals that end the daemon.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Taken so that it ends nobody; `listen::reload` takes it too.
    _hangup: Signal,
}

impl Signals {
    /// Takes the signals from now on.
    ///
    /// # Errors
    /// If the host refuses.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            // cancel-safe: `recv` of both
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Cancels `stop` at the first signal and resolves at the second.
    pub async fn ask_then_insist(&mut self, stop: &CancellationToken) {
        let name = self.next().await;
        tracing::info!(
            signal = name,
            "stopping; VMs run on; another signal ends the daemon at once"
        );
        stop.cancel();
        let name = self.next().await;
        tracing::warn!(
            signal = name,
            "ending at once; what was going on is undone at the next start"
        );
    }
}
