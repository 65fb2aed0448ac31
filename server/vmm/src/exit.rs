//! How a VMM ended: set once by its supervisor, the same answer for everyone.

use std::io;
use std::time::Duration;

use banger_core::vmm::{VmmError, VmmExit};
use tokio::sync::watch;

/// How long a broken socket of a VMM waits for the news that the whole VMM ended.
const SIGN_TO_END: Duration = Duration::from_millis(200);

/// Where a supervisor tells the end. Dropped without a word, the driver was closed.
#[derive(Debug)]
pub(crate) struct ExitTeller(watch::Sender<Option<VmmExit>>);

impl ExitTeller {
    /// Tells everyone, once.
    pub(crate) fn tell(self, exit: VmmExit) {
        self.0.send_replace(Some(exit));
    }
}

/// The end of a VMM, now or later.
#[derive(Debug, Clone)]
pub(crate) struct Exit(watch::Receiver<Option<VmmExit>>);

impl Exit {
    /// An end that was not told yet.
    pub(crate) fn untold() -> (ExitTeller, Self) {
        let (teller, exit) = watch::channel(None);
        (ExitTeller(teller), Self(exit))
    }

    /// Resolves when the process is gone. Safe to drop.
    pub(crate) async fn gone(&self) -> VmmExit {
        let mut exit = self.0.clone();
        match exit
            .wait_for(Option::is_some)
            .await
            .map(|exit| exit.clone())
        {
            Ok(Some(exit)) => exit,
            // The driver was closed: whether the process lives is no longer ours to say.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// A step on the agent's channel, or the news that its VMM is gone. Safe to drop if `step` is.
    pub(crate) async fn or_gone<T>(
        &self,
        step: impl Future<Output = io::Result<T>>,
    ) -> Result<T, VmmError> {
        tokio::select! {
            biased; // a dead VMM explains every failure of its sockets
            // cancel-safe: looks at a level
            _exit = self.gone() => Err(VmmError::Gone),
            // cancel-safe: dropping it closes the connection
            result = step => match result {
                Ok(value) => Ok(value),
                Err(source) => match tokio::time::timeout(SIGN_TO_END, self.gone()).await {
                    Ok(_exit) => Err(VmmError::Gone),
                    Err(_elapsed) => Err(VmmError::Channel { source }),
                },
            },
        }
    }
}
