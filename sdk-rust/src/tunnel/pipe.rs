//! A tunnel as a byte stream.
//!
//! Reading and writing may be waited for by two tasks, and both depend on what the daemon says: the bytes, and how many
//! of ours were taken. Whoever polls hears all there is, up to the window, and wakes the other if it is concerned; what
//! comes while nobody polls wakes both.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use banger_proto::v1;
use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tonic::Streaming;
use v1::forward_response::Message;

use super::CALL;
use super::outbox::Outbox;
use crate::error::{CodeRan, Error};

/// Bytes of one direction that may be under way, as the API has it.
const WINDOW_BYTES: u64 = 256 << 10;
/// The daemon is told after so many bytes that they were read.
const TELL_BYTES: u64 = WINDOW_BYTES / 4;
/// The longest message.
const CHUNK_BYTES: usize = 64 << 10;

/// A connection to a socket in a VM: what is written goes there, what comes from there is read.
///
/// Shutting it down ends what is written, once the guest's socket has taken all of it, and leaves what is read as it
/// is. Dropping it before it was shut down resets the connection in the guest. A connection that the guest resets is
/// [`io::ErrorKind::ConnectionReset`], never an end; [`Tunnel::failure`] has all that is known of it.
pub struct Tunnel {
    answers: Streaming<v1::ForwardResponse>,
    outbox: Arc<Outbox>,
    wakers: Arc<Wakers>,
    silence: Duration,
    /// Runs while nothing comes.
    quiet: Option<Pin<Box<Sleep>>>,
    inward: Inward,
    outward: Outward,
    /// The daemon has said all.
    is_over: bool,
    failure: Option<Arc<Error>>,
}

/// From the guest.
#[derive(Debug, Default)]
struct Inward {
    chunks: VecDeque<Bytes>,
    read: u64,
    told: u64,
    has_ended: bool,
}

/// To the guest.
#[derive(Debug, Default)]
struct Outward {
    /// With the end as one more.
    written: u64,
    taken: u64,
    is_shut: bool,
}

/// Who waits for the daemon.
#[derive(Debug, Default)]
struct Wakers {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

/// Who polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Reader,
    Writer,
}

impl Tunnel {
    pub(super) fn new(
        answers: Streaming<v1::ForwardResponse>,
        silence: Duration,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self {
            answers,
            outbox,
            wakers: Arc::default(),
            silence,
            quiet: None,
            inward: Inward::default(),
            outward: Outward::default(),
            is_over: false,
            failure: None,
        }
    }

    /// Why it broke, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&Error> {
        self.failure.as_deref()
    }

    /// The same, for its owner; none also where an [`io::Error`] of it is still held.
    #[must_use]
    pub fn into_failure(mut self) -> Option<Error> {
        self.failure.take().and_then(Arc::into_inner)
    }

    /// Hears what the daemon has said; whoever polls is woken when it says more.
    fn hear(&mut self, side: Side, context: &Context<'_>) {
        match side {
            Side::Reader => self.wakers.reader.register(context.waker()),
            Side::Writer => self.wakers.writer.register(context.waker()),
        }
        let waker = Waker::from(Arc::clone(&self.wakers));
        let mut both = Context::from_waker(&waker);
        while !self.is_over && self.failure.is_none() {
            match self.answers.poll_next_unpin(&mut both) {
                Poll::Ready(Some(Ok(answer))) => {
                    self.quiet = None;
                    self.take(side, answer.message);
                }
                Poll::Ready(Some(Err(status))) => {
                    self.fail(Error::from_status(status, CALL));
                }
                Poll::Ready(None) => self.finish(),
                Poll::Pending => return self.watch_silence(&mut both),
            }
        }
    }

    fn take(&mut self, side: Side, message: Option<Message>) {
        let protocol = |detail| Error::Protocol {
            during: CALL,
            detail,
        };
        let concerned = match message {
            Some(Message::Data(_) | Message::End(_)) if self.inward.has_ended => {
                return self.fail(protocol("bytes after their end"));
            }
            Some(Message::Data(data)) => {
                self.inward.chunks.push_back(data);
                Side::Reader
            }
            Some(Message::End(_)) => {
                self.inward.has_ended = true;
                Side::Reader
            }
            Some(Message::Taken(taken)) => {
                let taken = u64::try_from(taken).unwrap_or_default();
                if taken < self.outward.taken || taken > self.outward.written {
                    return self.fail(protocol("bytes taken that were not sent"));
                }
                self.outward.taken = taken;
                Side::Writer
            }
            Some(Message::Heartbeat(_)) => return,
            Some(Message::Connected(_)) | None => {
                return self.fail(protocol("a message that makes no sense"));
            }
        };
        match concerned {
            _ if concerned == side => {}
            Side::Reader => self.wakers.reader.wake(),
            Side::Writer => self.wakers.writer.wake(),
        }
    }

    /// The call has ended well, which it does when both directions have.
    fn finish(&mut self) {
        if self.inward.has_ended && self.outward.is_shut {
            self.is_over = true;
            self.outward.taken = self.outward.written;
            self.outbox.close();
        } else {
            self.fail(Error::cut_short(CALL));
        }
    }

    fn fail(&mut self, error: Error) {
        self.failure = Some(Arc::new(error));
        self.outbox.close();
        self.wakers.wake_by_ref();
    }

    fn watch_silence(&mut self, both: &mut Context<'_>) {
        let silence = self.silence;
        let quiet = self.quiet.get_or_insert_with(|| Box::pin(sleep(silence)));
        if quiet.as_mut().poll(both).is_ready() {
            self.fail(Error::ConnectionSilent {
                during: CALL,
                silent: silence,
                code_ran: CodeRan::Maybe,
                process: None,
            });
        }
    }

    /// The failure as whoever reads or writes is told of it.
    fn broken(&self) -> Option<io::Error> {
        let failure = self.failure.as_ref()?;
        let kind = match failure.reason() {
            "TUNNEL_RESET" => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::ConnectionAborted,
        };
        Some(io::Error::new(kind, Arc::clone(failure)))
    }
}

impl Inward {
    /// Gives the reader what fits.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        while let Some(chunk) = self.chunks.front_mut() {
            let length = chunk.len().min(buffer.remaining());
            if length == 0 {
                return;
            }
            buffer.put_slice(&chunk[..length]);
            chunk.advance(length);
            self.read += length as u64;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    /// What the daemon is to be told that was read.
    fn untold(&mut self) -> Option<u64> {
        if self.read - self.told < TELL_BYTES {
            return None;
        }
        self.told = self.read;
        Some(self.read)
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.hear(Side::Reader, context);
        if !self.inward.chunks.is_empty() || buffer.remaining() == 0 {
            self.inward.give(buffer);
            if let Some(read) = self.inward.untold() {
                self.outbox.taken(read);
            }
            return Poll::Ready(Ok(()));
        }
        if self.inward.has_ended {
            return Poll::Ready(Ok(()));
        }
        self.broken()
            .map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.hear(Side::Writer, context);
        if let Some(error) = self.broken() {
            return Poll::Ready(Err(error));
        }
        if self.outward.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let under_way = self.outward.written - self.outward.taken;
        let room = usize::try_from(WINDOW_BYTES.saturating_sub(under_way)).unwrap_or(CHUNK_BYTES);
        let length = data.len().min(room).min(CHUNK_BYTES);
        if length == 0 && !data.is_empty() {
            return Poll::Pending;
        }
        if length > 0 {
            self.outward.written += length as u64;
            self.outbox.push(Bytes::copy_from_slice(&data[..length]));
        }
        Poll::Ready(Ok(length))
    }

    /// What is written is sent at once.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.outward.is_shut {
            self.outward.is_shut = true;
            self.outward.written += 1;
            self.outbox.end();
        }
        self.hear(Side::Writer, context);
        if self.outward.taken == self.outward.written {
            return Poll::Ready(Ok(()));
        }
        self.broken()
            .map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("inward", &self.inward)
            .field("outward", &self.outward)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}
