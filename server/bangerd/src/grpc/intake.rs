//! What a caller sends, until it is decoded: how long it may take, and how much of it there may be.
//!
//! ```text
//!             the head ── first message ─▶│      the head ── message ── end ─▶│
//! a stream:   └──── request_timeout ──────┘      one call: └─ request_timeout ┘
//! ```
//! A message that has begun and is not whole is in the daemon's memory, and HTTP/2's windows do not count it any more.
//! Such messages of one caller, over all its connections, have [`BEGUN_BYTES_MAX`] together: one that finds no room
//! waits, nothing more of its call is read, and so the caller waits too. Later messages of a stream may take any time:
//! whoever takes them knows how long a silence may last.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use banger_core::Owner;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::PollSemaphore;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::access::table::{self, Sends};
use super::caller;
use super::request::RequestError;

/// A message of gRPC begins with a byte for its compression and four for its length.
const HEAD: usize = 5;
/// A longer message is refused by whoever decodes it, before it is read.
const MESSAGE_BYTES_MAX: u32 = 8 << 20;
/// The most bytes of one caller's messages that have begun and are not whole: as much as dozens of the largest.
const BEGUN_BYTES_MAX: u32 = 256 << 20;

/// The room for what callers have begun to send.
#[derive(Debug, Clone, Default)]
struct Rooms(Arc<Mutex<HashMap<Owner, Arc<Semaphore>>>>);

impl Rooms {
    fn with<T>(&self, change: impl FnOnce(&mut HashMap<Owner, Arc<Semaphore>>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn of(&self, owner: &Owner) -> Arc<Semaphore> {
        let full = || Arc::new(Semaphore::new(BEGUN_BYTES_MAX as usize));
        self.with(|rooms| rooms.entry(owner.clone()).or_insert_with(full).clone())
    }

    /// Forgets a room of which nobody else has anything.
    fn leave(&self, owner: &Owner) {
        self.with(|rooms| {
            if rooms
                .get(owner)
                .is_some_and(|room| Arc::strong_count(room) == 1)
            {
                rooms.remove(owner);
            }
        });
    }
}

/// Bounds what callers send before it is decoded. Inside of what finds out who calls.
#[derive(Debug, Clone)]
pub struct IntakeLayer {
    within: Duration,
    rooms: Rooms,
}

impl IntakeLayer {
    /// A request, or the first message of a stream, is to be whole `within` this time.
    #[must_use]
    pub fn new(within: Duration) -> Self {
        Self {
            within,
            rooms: Rooms::default(),
        }
    }
}

impl<S> Layer<S> for IntakeLayer {
    type Service = Intake<S>;

    fn layer(&self, inner: S) -> Intake<S> {
        Intake {
            inner,
            layer: self.clone(),
        }
    }
}

/// See [`IntakeLayer`].
#[derive(Debug, Clone)]
pub struct Intake<S> {
    inner: S,
    layer: IntakeLayer,
}

impl<S> Service<Request<Body>> for Intake<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let sends = table::find(request.uri().path()).map_or(Sends::One, table::Rpc::sends);
        let owner = caller::identity(request.extensions()).map(|caller| caller.owner.clone());
        let (within, rooms) = (self.layer.within, self.layer.rooms.clone());
        self.inner.call(request.map(|body| {
            let owner = owner.unwrap_or_else(Owner::daemon);
            Body::new(Arriving::new(body, sends, within, Room::new(rooms, owner)))
        }))
    }
}

/// One call's part of its caller's room.
struct Room {
    rooms: Rooms,
    owner: Owner,
    turn: Option<PollSemaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Room {
    const fn new(rooms: Rooms, owner: Owner) -> Self {
        Self {
            rooms,
            owner,
            turn: None,
            held: None,
        }
    }

    /// Waits for room for `bytes` of a message.
    fn poll_hold(&mut self, task: &mut Context<'_>, bytes: u32) -> Poll<()> {
        let (rooms, owner) = (&self.rooms, &self.owner);
        let turn = self
            .turn
            .get_or_insert_with(|| PollSemaphore::new(rooms.of(owner)));
        // It is never closed.
        self.held = ready!(turn.poll_acquire_many(task, bytes));
        Poll::Ready(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held = None;
        if self.turn.take().is_some() {
            self.rooms.leave(&self.owner);
        }
    }
}

/// How far the messages have come that pass by.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Messages {
    /// Those that are whole.
    whole: u64,
    /// What came of the next one's head.
    head: [u8; HEAD],
    head_length: usize,
    /// How long the one is whose head is whole, and how much of it is missing.
    length: u32,
    missing: u32,
}

impl Messages {
    fn hear(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.head_length < HEAD {
                let taken = data.len().min(HEAD - self.head_length);
                let (head, rest) = data.split_at(taken);
                self.head[self.head_length..][..taken].copy_from_slice(head);
                self.head_length += taken;
                data = rest;
                let [_, length @ ..] = self.head;
                self.length = u32::from_be_bytes(length);
                self.missing = self.length;
            } else {
                let here = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let taken = self.missing.min(here);
                self.missing -= taken;
                data = &data[taken as usize..];
            }
            if self.head_length == HEAD && self.missing == 0 {
                self.whole += 1;
                self.head_length = 0;
            }
        }
    }

    /// The length of the message that has begun, as far as it is known.
    const fn begun(&self) -> Option<u32> {
        match self.head_length {
            HEAD => Some(self.length),
            _ => None,
        }
    }
}

/// A request's body.
struct Arriving {
    body: Body,
    sends: Sends,
    within: Duration,
    /// `None` when what has a deadline has come.
    due: Option<Pin<Box<Sleep>>>,
    messages: Messages,
    room: Room,
    /// Waits for room for the message that begins in it.
    kept: Option<Frame<Bytes>>,
}

impl Arriving {
    fn new(body: Body, sends: Sends, within: Duration, room: Room) -> Self {
        Self {
            body,
            sends,
            within,
            due: Some(Box::pin(sleep_until(Instant::now() + within))),
            messages: Messages::default(),
            room,
            kept: None,
        }
    }

    /// Hears a frame, and says whether it is more than may come.
    fn hear(&mut self, data: &[u8]) -> Result<(), RequestError> {
        let before = self.messages.whole;
        self.messages.hear(data);
        if self.messages.whole > before {
            self.room.held = None;
        }
        match self.sends {
            Sends::One if self.messages.whole > 1 => Err(RequestError::SecondMessage),
            Sends::Many if self.messages.whole > 0 => {
                self.due = None;
                Ok(())
            }
            Sends::One | Sends::Many => Ok(()),
        }
    }

    /// What is to be passed on next.
    fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(frame) = self.kept.take() {
                if let Some(length) = self.messages.begun()
                    && self.room.held.is_none()
                    && self
                        .room
                        .poll_hold(task, length.min(MESSAGE_BYTES_MAX))
                        .is_pending()
                {
                    self.kept = Some(frame);
                    return Poll::Pending;
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(task)) {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.hear(data)?;
                    }
                    self.kept = Some(frame);
                }
                other => {
                    self.due = None;
                    return Poll::Ready(other);
                }
            }
        }
    }

    fn late(&self) -> RequestError {
        let within = self.within;
        match self.sends {
            Sends::One => RequestError::RequestLate { within },
            Sends::Many => RequestError::FirstMessageLate { within },
        }
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(next) = self.poll_next(task) {
            return Poll::Ready(next);
        }
        match &mut self.due {
            Some(due) => {
                ready!(due.as_mut().poll(task));
                self.due = None;
                Poll::Ready(Some(Err(self.late().into())))
            }
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests;
