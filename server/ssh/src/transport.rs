//! The two ends of a connection's bytes: a tunnel of the API on one side, a stream that ssh is spoken on on the other.
//!
//! What comes from the caller is taken off the call at once, so that what the caller says about its own reading is never
//! stuck behind bytes; both directions are held to the windows of tunnels.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use banger_app::AppError;
use banger_app::tunnel::Events;
use banger_core::guest::TunnelInputs;
use banger_core::tunnel::{TunnelEvent, TunnelInput, WINDOW_BYTES};
use bytes::{Buf as _, BytesMut};
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::PIECE;

/// How much is taken before the caller is told: often enough that it never waits for it.
const TOLD_EVERY: u64 = WINDOW_BYTES / 8;

/// The end that ssh is spoken on. Dropping it ends the tunnel when what was written is sent.
pub(crate) struct Transport(Arc<Mutex<State>>);

/// The end of the call.
struct Call {
    state: Arc<Mutex<State>>,
    input: Option<TunnelInputs>,
}

#[derive(Default)]
struct State {
    /// From the caller, not yet read.
    inward: BytesMut,
    /// No more comes from the caller.
    inward_ended: bool,
    /// The call is gone.
    is_broken: bool,
    /// Bytes of the caller that were read, and an end as one more.
    taken: u64,
    told: u64,
    /// For the caller, not yet sent.
    outward: BytesMut,
    /// Bytes that were sent to the caller, and how many of them it has taken.
    sent: u64,
    sent_taken: u64,
    /// No more is written.
    outward_ended: bool,
    end_told: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    caller: Option<Waker>,
}

/// Breaks a connection off whose other users do not let go of it.
pub(crate) struct Cutter(Arc<Mutex<State>>);

impl Cutter {
    /// Whoever reads or writes is told that the caller has gone, and the caller that the server has.
    pub(crate) fn cut(&self) {
        lock(&self.0).break_off();
    }
}

impl Transport {
    /// The means to break it off later.
    pub(crate) fn cutter(&self) -> Cutter {
        Cutter(self.0.clone())
    }
}

/// Both ends.
pub(crate) fn pair(input: TunnelInputs) -> (Transport, Events) {
    let state = Arc::new(Mutex::new(State::default()));
    let call = Call {
        state: state.clone(),
        input: Some(input),
    };
    (Transport(state), call.boxed())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl State {
    fn hear(&mut self, input: TunnelInput) {
        match input {
            TunnelInput::Data(data) => {
                self.inward.extend_from_slice(&data);
                wake(&mut self.reader);
            }
            TunnelInput::End => {
                self.inward_ended = true;
                wake(&mut self.reader);
            }
            TunnelInput::Taken(taken) => {
                self.sent_taken = taken;
                wake(&mut self.writer);
            }
        }
    }

    /// The caller's stream is over: well after its end, or it broke off.
    fn caller_done(&mut self) {
        if self.inward_ended {
            self.sent_taken = u64::MAX;
            wake(&mut self.writer);
        } else {
            self.break_off();
        }
    }

    fn break_off(&mut self) {
        self.is_broken = true;
        wake(&mut self.reader);
        wake(&mut self.writer);
        wake(&mut self.caller);
    }

    /// How much may be written now.
    fn room(&self) -> u64 {
        let under_way = self.sent.saturating_sub(self.sent_taken) + self.outward.len() as u64;
        WINDOW_BYTES.saturating_sub(under_way)
    }

    /// What the caller is told next, if there is anything.
    fn tell(&mut self) -> Option<TunnelEvent> {
        let is_last = self.inward_ended && self.inward.is_empty();
        if self.taken > self.told && (is_last || self.taken - self.told >= TOLD_EVERY) {
            self.told = self.taken;
            return Some(TunnelEvent::Taken(self.taken));
        }
        if !self.outward.is_empty() {
            let length = self.outward.len().min(PIECE);
            let piece = self.outward.split_to(length).freeze();
            self.sent += piece.len() as u64;
            return Some(TunnelEvent::Data(piece));
        }
        (self.outward_ended && !std::mem::replace(&mut self.end_told, true))
            .then_some(TunnelEvent::End)
    }
}

impl Stream for Call {
    type Item = Result<TunnelEvent, AppError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while let Some(input) = &mut this.input {
            let Poll::Ready(heard) = input.poll_next_unpin(task) else {
                break;
            };
            let mut state = lock(&this.state);
            match heard {
                Some(heard) => state.hear(heard),
                None => {
                    state.caller_done();
                    this.input = None;
                }
            }
        }
        let mut state = lock(&this.state);
        if let Some(event) = state.tell() {
            return Poll::Ready(Some(Ok(event)));
        }
        if state.end_told || state.is_broken {
            return Poll::Ready(None);
        }
        state.caller = Some(task.waker().clone());
        Poll::Pending
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        lock(&self.state).break_off();
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.outward_ended = true;
        // Nobody reads it any more.
        state.taken += state.inward.len() as u64;
        state.inward = BytesMut::new();
        wake(&mut state.caller);
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        if state.inward.is_empty() {
            if state.is_broken {
                return Poll::Ready(Err(gone()));
            }
            if state.inward_ended {
                return Poll::Ready(Ok(()));
            }
            state.reader = Some(task.waker().clone());
            return Poll::Pending;
        }
        let length = state.inward.len().min(buffer.remaining());
        buffer.put_slice(&state.inward[..length]);
        state.inward.advance(length);
        state.taken += length as u64;
        if state.inward_ended && state.inward.is_empty() {
            state.taken += 1;
        }
        wake(&mut state.caller);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        if state.is_broken || state.outward_ended {
            return Poll::Ready(Err(gone()));
        }
        let room = usize::try_from(state.room()).unwrap_or(usize::MAX);
        if room == 0 {
            state.writer = Some(task.waker().clone());
            return Poll::Pending;
        }
        let length = data.len().min(room);
        state.outward.extend_from_slice(&data[..length]);
        wake(&mut state.caller);
        Poll::Ready(Ok(length))
    }

    /// What was written is sent when the caller takes it: who closes must not wait for that.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        state.outward_ended = true;
        wake(&mut state.caller);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::channel::mpsc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn data(bytes: &'static [u8]) -> TunnelInput {
        TunnelInput::Data(Bytes::from_static(bytes))
    }

    fn rig() -> (mpsc::UnboundedSender<TunnelInput>, Transport, Events) {
        let (sender, input) = mpsc::unbounded();
        let (transport, events) = pair(input.boxed());
        (sender, transport, events)
    }

    #[tokio::test]
    async fn bytes_and_ends_go_both_ways() {
        let (caller, mut transport, mut events) = rig();
        caller.unbounded_send(data(b"ab")).unwrap();
        caller.unbounded_send(TunnelInput::End).unwrap();
        transport.write_all(b"hello").await.unwrap();
        let told = events.next().await.unwrap().unwrap();
        assert_eq!(told, TunnelEvent::Data("hello".into()));
        let mut read = Vec::new();
        transport.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"ab");
        drop(transport);
        let rest: Vec<_> = events.map(|event| event.unwrap()).collect().await;
        assert_eq!(rest, [TunnelEvent::Taken(3), TunnelEvent::End]);
    }

    #[tokio::test]
    async fn what_the_caller_has_not_taken_holds_the_writer_and_not_the_reader() {
        let (caller, mut transport, mut events) = rig();
        let window = usize::try_from(WINDOW_BYTES).unwrap();
        transport.write_all(&vec![7; window]).await.unwrap();
        let mut sent = 0;
        while sent < window {
            match events.next().await.unwrap().unwrap() {
                TunnelEvent::Data(data) => sent += data.len(),
                other => panic!("{other:?}"),
            }
        }
        let more = futures::poll!(std::pin::pin!(transport.write(b"x")));
        assert!(more.is_pending());
        caller.unbounded_send(data(b"in")).unwrap();
        caller.unbounded_send(TunnelInput::Taken(1)).unwrap();
        assert!(futures::poll!(events.next()).is_pending());
        assert_eq!(transport.read_u16().await.unwrap(), 0x696e);
        assert_eq!(transport.write(b"xy").await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_call_that_breaks_off_is_an_error_and_an_end_is_not() {
        let (caller, mut transport, events) = rig();
        drop(events);
        let error = transport.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(transport.write(b"x").await.is_err());
        drop(caller);
        let (caller, mut transport, mut events) = rig();
        caller.unbounded_send(data(b"a")).unwrap();
        drop(caller);
        assert!(events.next().await.is_none());
        assert_eq!(transport.read_u8().await.unwrap(), b'a');
        assert!(transport.read_u8().await.is_err());
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_ends_at_both_ends() {
        let (_caller, mut transport, mut events) = rig();
        let cutter = transport.cutter();
        let (read, ended) = tokio::join!(transport.read_u8(), async {
            assert!(futures::poll!(events.next()).is_pending());
            cutter.cut();
            events.next().await
        });
        assert!(read.is_err() && ended.is_none());
    }

    #[tokio::test]
    async fn a_server_that_goes_ends_the_call_though_the_caller_does_not() {
        let (_caller, mut transport, events) = rig();
        transport.write_all(b"bye").await.unwrap();
        drop(transport);
        let told: Vec<_> = events.map(|event| event.unwrap()).collect().await;
        assert_eq!(told, [TunnelEvent::Data("bye".into()), TunnelEvent::End]);
    }
}
