//! What a client has sent in one channel and nobody has taken yet.
//!
//! The protocol's library lets a client send more when bytes have arrived, not when they are taken, and reads nothing
//! else of the connection while it hands them over. So a connection is slowed by who does not take, the more the more
//! waits, and only stopped when there is no room at all: what the client says of the other direction comes by the same
//! way, and a program that waits for its output to be read may be waiting for just that.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::limits::{BACKLOG_MAX, BACKLOG_PAUSE, BACKLOG_SLOWED, BACKLOG_WITHIN, PIECE};

/// What waits in all channels of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlog(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    /// Something was taken, or thrown away.
    taken: Notify,
}

impl Backlog {
    /// That of a channel.
    pub(crate) fn inbox(&self) -> Inbox {
        Inbox(Arc::new(Shared {
            held: Mutex::default(),
            changed: Notify::default(),
            backlog: self.clone(),
        }))
    }

    fn is_full(&self) -> bool {
        self.0.bytes.load(Ordering::Relaxed) > BACKLOG_MAX
    }

    fn grow(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrink(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.0.taken.notify_one();
    }
}

/// Where the connection puts what comes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    held: Mutex<Held>,
    changed: Notify,
    backlog: Backlog,
}

#[derive(Debug, Default)]
struct Held {
    bytes: BytesMut,
    has_ended: bool,
    /// Nobody takes anything any more: what comes is thrown away.
    is_closed: bool,
}

/// Where a channel's task takes it from. When it is dropped, what comes is thrown away.
#[derive(Debug)]
pub(crate) struct Source(Inbox);

impl Inbox {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts bytes; how many wait then.
    pub(crate) fn put(&self, data: &[u8]) -> usize {
        let mut held = self.held();
        if held.is_closed {
            return 0;
        }
        held.bytes.extend_from_slice(data);
        self.0.backlog.grow(data.len());
        self.0.changed.notify_one();
        held.bytes.len()
    }

    /// Puts bytes, and holds the connection up as long as it is to be slower.
    ///
    /// # Errors
    /// TIMEDOUT if there is no room, and nobody made any in all the time there was.
    pub(crate) async fn receive(&self, data: &[u8]) -> io::Result<()> {
        let waiting = self.put(data);
        if self.0.backlog.is_full() {
            let room = self.until(|inbox| !inbox.0.backlog.is_full());
            let problem = "too much input waits, and no program reads any of it";
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, problem);
            return timeout(BACKLOG_WITHIN, room).await.map_err(late);
        }
        if let Ok(steps @ 1..) = u32::try_from(waiting / BACKLOG_SLOWED) {
            let room = self.until(|inbox| inbox.held().bytes.len() < BACKLOG_SLOWED);
            // Without room it goes on all the same: there is more.
            let _ = timeout(BACKLOG_PAUSE * steps, room).await;
        }
        Ok(())
    }

    async fn until(&self, is_enough: impl Fn(&Self) -> bool) {
        loop {
            let taken = self.0.backlog.0.taken.notified();
            if is_enough(self) {
                return;
            }
            taken.await;
        }
    }

    /// No more comes.
    pub(crate) fn end(&self) {
        self.held().has_ended = true;
        self.0.changed.notify_one();
    }

    /// Where it is taken from; there is one of a channel.
    pub(crate) fn source(&self) -> Source {
        Source(self.clone())
    }

    /// The next piece, or the end; dropping the call loses nothing.
    pub(crate) async fn take(&self) -> Option<Bytes> {
        loop {
            let changed = self.0.changed.notified();
            {
                let mut held = self.held();
                if !held.bytes.is_empty() {
                    let length = held.bytes.len().min(PIECE);
                    let piece = held.bytes.split_to(length).freeze();
                    self.0.backlog.shrink(length);
                    return Some(piece);
                }
                if held.has_ended {
                    return None;
                }
            }
            changed.await;
        }
    }

    fn close(&self) {
        let mut held = self.held();
        held.is_closed = true;
        let thrown_away = std::mem::take(&mut held.bytes);
        self.0.backlog.shrink(thrown_away.len());
    }
}

impl Source {
    /// The next bytes, or none at the end. Dropping the call loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.0.take().await
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.backlog.shrink(held.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_slowed_by_who_does_not_take_and_stops_only_without_room() {
        let backlog = Backlog::default();
        let (slow, other) = (backlog.inbox(), backlog.inbox());
        let _source = slow.source();
        let begin = Instant::now();
        slow.receive(&vec![0; BACKLOG_SLOWED - 1]).await.unwrap();
        assert_eq!(begin.elapsed(), Duration::ZERO);
        slow.receive(&[0; 1]).await.unwrap();
        assert_eq!(begin.elapsed(), BACKLOG_PAUSE);
        slow.receive(&vec![0; MIB]).await.unwrap();
        assert_eq!(begin.elapsed(), BACKLOG_PAUSE * 3);
        // Another channel goes on as before.
        other.receive(&[0; 1]).await.unwrap();
        assert_eq!(begin.elapsed(), BACKLOG_PAUSE * 3);
        let full = slow.receive(&vec![0; BACKLOG_MAX]).await;
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed(), BACKLOG_PAUSE * 3 + BACKLOG_WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_or_leaves_makes_room() {
        let backlog = Backlog::default();
        let inbox = backlog.inbox();
        let mut source = inbox.source();
        let putting = async {
            for _ in 0..256 {
                inbox.receive(&vec![7; MIB / 2]).await.unwrap();
            }
            inbox.end();
        };
        let taking = async {
            let mut taken = 0;
            while let Some(piece) = source.next().await {
                taken += piece.len();
            }
            taken
        };
        let ((), taken) = tokio::join!(putting, taking);
        assert_eq!(taken, 128 * MIB);
        let begin = Instant::now();
        let leaving = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(source);
        };
        let filling = async {
            let _ = inbox.receive(&vec![7; BACKLOG_MAX + 1]).await;
            inbox.receive(&vec![7; BACKLOG_MAX + 1]).await.unwrap();
        };
        tokio::join!(leaving, filling);
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
        assert!(!backlog.is_full());
    }
}
