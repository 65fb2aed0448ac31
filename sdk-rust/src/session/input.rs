//! The writing side of a process.

use std::fmt;
use std::sync::Arc;

use banger_proto::v1;
use bytes::Bytes;

use super::outbox::Outbox;
use super::{Sessions, SignalTarget};
use crate::error::Result;

/// Standard input, terminal size and signals of a process. Clones write to the same process. It works
/// only while somebody reads the [`Process`](super::Process)'s events.
#[derive(Clone)]
pub struct Input {
    pub(super) outbox: Arc<Outbox>,
    pub(super) sessions: Sessions,
    pub(super) session: String,
}

impl Input {
    /// Writes standard input. Returns when it is queued; waits while a megabyte is unacknowledged.
    ///
    /// # Errors
    /// [`Error::InputClosed`](crate::Error::InputClosed) when the process has ended or its input was
    /// closed.
    pub async fn write(&self, data: impl Into<Bytes>) -> Result<()> {
        self.outbox.write(data.into()).await
    }

    /// Waits until the guest has taken all that was written, or the process has ended. A process that
    /// does not read may make this last for ever.
    pub async fn flush(&self) {
        self.outbox.flush().await;
    }

    /// Ends standard input, after what was written.
    pub fn close(&self) {
        self.outbox.close();
    }

    /// Sets the terminal's size.
    pub fn resize(&self, rows: u16, columns: u16) {
        let (rows, columns) = (rows.into(), columns.into());
        self.outbox.resize(v1::TerminalSize { rows, columns });
    }

    /// Sends a signal to the process group.
    ///
    /// # Errors
    /// When an attached session cannot be signalled; to a process begun with `exec`, whose connection has not been lost, it
    /// is only queued.
    pub async fn signal(&self, signal: i32) -> Result<()> {
        if self.outbox.signal(signal) {
            return Ok(());
        }
        self.sessions
            .signal(&self.session, signal, SignalTarget::Group)
            .await
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
