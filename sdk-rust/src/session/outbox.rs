//! What goes to a process, kept until the guest has it.
//!
//! Standard input is numbered and stays here until it is acknowledged, so that a new connection resends
//! exactly what the guest does not have. At most [`WINDOW_BYTES`] are kept: writers wait for room. Each
//! connection takes its messages from an [`Outgoing`] of its own; an older one ends.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_proto::v1;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::stream::Messages;

/// Standard input that is written and not yet acknowledged.
const WINDOW_BYTES: i64 = 1 << 20;
/// The length of one message of standard input: an eighth of the API's bound.
const CHUNK_BYTES: usize = 128 << 10;
/// Signals that wait for a connection; more are not worth keeping.
const SIGNALS_MAX: usize = 16;

/// A message to a process.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sent {
    /// Standard input.
    Stdin(v1::Stdin),
    /// Its end.
    Close,
    /// A new terminal size.
    Resize(v1::TerminalSize),
    /// A signal to the process group.
    Signal(i32),
}

/// How signals reach a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Signals {
    /// Over the connection itself.
    #[default]
    Carried,
    /// By calls of their own.
    Apart,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Something can be sent, or the connection is over.
    ready: Notify,
    /// Something was acknowledged, or the process has ended.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Counts connections.
    connection: u64,
    /// Whether this connection knows what the guest has, and may send.
    open: bool,
    /// The process has ended.
    ended: bool,
    /// Bytes that the guest has.
    accepted: i64,
    /// Bytes that were written.
    written: i64,
    /// From `accepted` to `written`.
    chunks: VecDeque<Bytes>,
    /// How many of `chunks` this connection has sent.
    sent: usize,
    closed: bool,
    close_sent: bool,
    size: Option<v1::TerminalSize>,
    size_sent: bool,
    /// How this connection has it.
    way: Signals,
    signals: VecDeque<i32>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the numbers as consistent as they were.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a connection: its messages, after `start`. Nothing is sent until [`Outbox::open`].
    pub(super) fn connect<M: Send + 'static>(
        self: &Arc<Self>,
        start: M,
        way: Signals,
        wrap: fn(Sent) -> Option<M>,
    ) -> Messages<M> {
        let connection = {
            let mut state = self.lock();
            state.connection += 1;
            state.open = false;
            state.way = way;
            state.connection
        };
        self.ready.notify_waiters();
        let outbox = Arc::clone(self);
        let rest = stream::unfold(outbox, move |outbox| async move {
            let sent = outbox.next(connection).await?;
            Some((sent, outbox))
        });
        let rest = rest.filter_map(move |sent| async move { wrap(sent) });
        Messages::new(stream::iter([start]).chain(rest))
    }

    /// The guest has `accepted` bytes of standard input: send what follows. A first connection to a
    /// session that others wrote to begins there.
    pub(super) fn open(&self, accepted: i64) {
        let mut state = self.lock();
        if state.written == 0 && state.chunks.is_empty() {
            state.written = accepted;
            state.accepted = accepted;
        }
        state.accept(accepted);
        state.sent = 0;
        state.close_sent = false;
        state.size_sent = false;
        state.open = true;
        drop(state);
        self.ready.notify_waiters();
        self.room.notify_waiters();
    }

    /// The guest has this many bytes of standard input.
    pub(super) fn acknowledge(&self, accepted: i64) {
        self.lock().accept(accepted);
        self.room.notify_waiters();
    }

    /// Bytes that the guest is known to have.
    pub(super) fn accepted(&self) -> i64 {
        self.lock().accepted
    }

    /// The process has ended: nothing is sent any more.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.chunks.clear();
        state.sent = 0;
        drop(state);
        self.ready.notify_waiters();
        self.room.notify_waiters();
    }

    /// Writes standard input; waits for room. Cancel-safe between messages: what was taken is sent once.
    pub(super) async fn write(&self, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(CHUNK_BYTES));
            self.write_chunk(chunk).await?;
        }
        Ok(())
    }

    async fn write_chunk(&self, chunk: Bytes) -> Result<()> {
        let length = i64::try_from(chunk.len()).unwrap_or(i64::MAX);
        loop {
            let room = self.room.notified();
            {
                let mut state = self.lock();
                if state.ended || state.closed {
                    return Err(Error::InputClosed);
                }
                if state.written - state.accepted + length <= WINDOW_BYTES {
                    state.written += length;
                    state.chunks.push_back(chunk);
                    break;
                }
            }
            room.await;
        }
        self.ready.notify_waiters();
        Ok(())
    }

    /// Waits until the guest has all that was written, or the process has ended.
    pub(super) async fn flush(&self) {
        loop {
            let room = self.room.notified();
            {
                let state = self.lock();
                if state.ended || state.accepted >= state.written {
                    return;
                }
            }
            room.await;
        }
    }

    /// Ends standard input after what was written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_waiters();
        self.room.notify_waiters();
    }

    /// The terminal has this size; sent again on every connection.
    pub(super) fn resize(&self, size: v1::TerminalSize) {
        let mut state = self.lock();
        state.size = Some(size);
        state.size_sent = false;
        drop(state);
        self.ready.notify_waiters();
    }

    /// Sends a signal; whether the connection is one that carries signals.
    pub(super) fn signal(&self, signal: i32) -> bool {
        let mut state = self.lock();
        if state.way == Signals::Apart {
            return false;
        }
        if state.signals.len() < SIGNALS_MAX {
            state.signals.push_back(signal);
        }
        drop(state);
        self.ready.notify_waiters();
        true
    }

    /// A signal that waits for a connection which carries it, to be sent otherwise.
    pub(super) fn take_signal(&self) -> Option<i32> {
        self.lock().signals.pop_front()
    }

    /// The next message of a connection; `None` once it is over.
    async fn next(&self, connection: u64) -> Option<Sent> {
        loop {
            let ready = self.ready.notified();
            {
                let mut state = self.lock();
                if state.ended || state.connection != connection {
                    return None;
                }
                if let Some(sent) = state.take() {
                    return Some(sent);
                }
            }
            ready.await;
        }
    }
}

impl State {
    /// Signals and sizes overtake standard input, which may be blocked.
    fn take(&mut self) -> Option<Sent> {
        if !self.open {
            return None;
        }
        if self.way == Signals::Carried
            && let Some(signal) = self.signals.pop_front()
        {
            return Some(Sent::Signal(signal));
        }
        if let Some(size) = self.size.filter(|_| !self.size_sent) {
            self.size_sent = true;
            return Some(Sent::Resize(size));
        }
        if let Some(data) = self.chunks.get(self.sent) {
            let before: usize = self.chunks.iter().take(self.sent).map(Bytes::len).sum();
            let offset = self.accepted + i64::try_from(before).unwrap_or(i64::MAX);
            self.sent += 1;
            return Some(Sent::Stdin(v1::Stdin {
                offset,
                data: data.clone(),
            }));
        }
        if self.closed && !self.close_sent {
            self.close_sent = true;
            return Some(Sent::Close);
        }
        None
    }

    /// Forgets what the guest has. A number beyond what was written, or below what was accepted before,
    /// is the guest's lie and changes nothing.
    fn accept(&mut self, accepted: i64) {
        if accepted > self.written {
            return;
        }
        while let Some(chunk) = self.chunks.front_mut() {
            let have = usize::try_from(accepted - self.accepted).unwrap_or(0);
            if have == 0 {
                return;
            }
            if have < chunk.len() {
                // The part that is left keeps its place: it was sent with the whole.
                let _ = chunk.split_to(have);
                self.accepted = accepted;
                return;
            }
            self.accepted += i64::try_from(chunk.len()).unwrap_or(0);
            self.chunks.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
