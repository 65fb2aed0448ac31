//! What carries a caller's bytes, and ends it: when no request comes, and by TCP at a reload that lets its certificate in
//! no longer, and when that expires.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::connection::Asked;

/// The clock is looked at anew after this long: it may have been set, and a timer holds no years.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// Who is refused has this long to ask why.
pub(super) const REFUSED_FOR: Duration = Duration::from_secs(5);

/// A stream that may be ended, and what is given back when it has.
pub struct Carrier<S, H> {
    stream: S,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    timer: Pin<Box<Sleep>>,
    first_by: Option<Instant>,
    asked: Arc<Asked>,
    /// Seconds since the Unix epoch.
    not_after: i64,
    /// Why it has ended, if it has.
    ended: Option<&'static str>,
    _held: H,
}

/// When a carrier ends by itself.
#[derive(Debug)]
pub struct Ends {
    /// Ends it at once.
    pub closed: CancellationToken,
    /// How long the first request may take, from now.
    pub first_request: Duration,
    /// What was asked for by it.
    pub asked: Arc<Asked>,
    /// When the caller's certificate ends to be valid: seconds since the Unix epoch.
    pub not_after: i64,
}

impl<S, H> Carrier<S, H> {
    /// Carries by `stream`, and drops `held` with it.
    pub fn new(stream: S, ends: Ends, held: H) -> Self {
        let first_by = Instant::now() + ends.first_request;
        let mut carrier = Self {
            stream,
            closed: Box::pin(ends.closed.cancelled_owned()),
            timer: Box::pin(sleep_until(first_by)),
            first_by: Some(first_by),
            asked: ends.asked,
            not_after: ends.not_after,
            ended: None,
            _held: held,
        };
        let next = carrier.next_look();
        carrier.timer.as_mut().reset(next);
        carrier
    }

    fn left(&self) -> Duration {
        let left = self
            .not_after
            .saturating_sub(jiff::Timestamp::now().as_second());
        Duration::from_secs(u64::try_from(left).unwrap_or(0))
    }

    fn next_look(&self) -> Instant {
        let look = Instant::now() + self.left().min(LOOK_AGAIN);
        self.first_by.map_or(look, |first| first.min(look))
    }

    /// Ends it, and says so once.
    fn end(&mut self, why: &'static str) -> Poll<io::Error> {
        if self.ended.replace(why).is_none() {
            tracing::info!(why, "closed a connection");
        }
        Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, why))
    }

    /// Why it ends, if it does.
    fn poll_end(&mut self, task: &mut Context<'_>) -> Poll<io::Error> {
        use std::future::Future as _;
        if let Some(why) = self.ended {
            return self.end(why);
        }
        if self.closed.as_mut().poll(task).is_ready() {
            return self.end("its certificate is no longer let in");
        }
        if self.asked.is_refused_enough() {
            tracing::debug!("who is refused asks on");
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        while self.timer.as_mut().poll(task).is_ready() {
            if self.left().is_zero() {
                return self.end("its certificate has expired");
            }
            if let Some(first) = self.first_by.filter(|first| *first <= Instant::now()) {
                if !self.asked.is_served() {
                    tracing::debug!(by = ?first, "no request came in time");
                    return Poll::Ready(io::ErrorKind::TimedOut.into());
                }
                self.first_by = None;
            }
            let next = self.next_look();
            self.timer.as_mut().reset(next);
        }
        Poll::Pending
    }
}

impl<S, H> std::fmt::Debug for Carrier<S, H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carrier")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin, H: Unpin> AsyncRead for Carrier<S, H> {
    // Whoever serves a connection reads all the time: it learns of the end here.
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(why) = self.poll_end(task) {
            return Poll::Ready(Err(why));
        }
        Pin::new(&mut self.stream).poll_read(task, buffer)
    }
}

impl<S: AsyncWrite + Unpin, H: Unpin> AsyncWrite for Carrier<S, H> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(why) = self.poll_end(task) {
            return Poll::Ready(Err(why));
        }
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(why) = self.poll_end(task) {
            return Poll::Ready(Err(why));
        }
        Pin::new(&mut self.stream).poll_write_vectored(task, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
