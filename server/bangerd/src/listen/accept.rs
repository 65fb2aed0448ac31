//! Accepting, whatever the socket is: what is of one connection ends nothing, and what is of the host is waited out.

use std::io;
use std::time::Duration;

use tokio::time::sleep;

/// With no descriptor left for a connection, the next one is waited for this long.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until it makes sense to accept again, after `error`.
pub(super) async fn failed(error: io::Error) {
    if !is_of_one(&error) {
        tracing::warn!(%error, "could not accept a connection; trying again");
        sleep(PAUSE).await;
    }
}

/// Whether an error is of the connection, not of the socket that listens (accept(2)).
fn is_of_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
    )
}
