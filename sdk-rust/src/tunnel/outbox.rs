//! What goes to the daemon on a tunnel. Its bound is the window, which whoever puts bytes in keeps to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use banger_proto::v1;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use futures::task::AtomicWaker;
use v1::forward_request::Message;

use crate::stream::Messages;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// Of whoever sends.
    sender: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Bytes>,
    /// What was read of the guest's bytes, where that is to be told.
    taken: Option<i64>,
    /// The end comes after the chunks.
    ends: bool,
    /// Nothing more is sent.
    is_closed: bool,
}

impl Outbox {
    /// All that is sent, `start` first.
    pub(super) fn messages(
        self: &Arc<Self>,
        start: v1::ForwardStart,
    ) -> Messages<v1::ForwardRequest> {
        let outbox = Arc::clone(self);
        let rest = stream::poll_fn(move |context| outbox.poll_next(context));
        let messages = stream::iter([Message::Start(start)]).chain(rest);
        Messages::new(messages.map(|message| v1::ForwardRequest {
            message: Some(message),
        }))
    }

    /// Sends bytes.
    pub(super) fn push(&self, data: Bytes) {
        self.change(|state| state.chunks.push_back(data));
    }

    /// Sends the end, after the bytes.
    pub(super) fn end(&self) {
        self.change(|state| state.ends = true);
    }

    /// Tells how much was read, in all.
    pub(super) fn taken(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.change(|state| state.taken = Some(bytes));
    }

    /// Ends the call's requests.
    pub(super) fn close(&self) {
        self.change(|state| state.is_closed = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.sender.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the queue as whole as it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.sender.register(context.waker());
        let mut state = self.lock();
        if state.is_closed {
            return Poll::Ready(None);
        }
        match state.next() {
            Some(message) => Poll::Ready(Some(message)),
            None => Poll::Pending,
        }
    }
}

impl State {
    /// What was read overtakes what is written, so that neither direction waits for the other.
    fn next(&mut self) -> Option<Message> {
        if let Some(taken) = self.taken.take() {
            return Some(Message::Taken(taken));
        }
        if let Some(data) = self.chunks.pop_front() {
            return Some(Message::Data(data));
        }
        std::mem::take(&mut self.ends).then(|| Message::End(v1::TunnelEnd {}))
    }
}
