//! A session's output: a bounded log of frames that any number of readers follow by offset.
//!
//! ```text
//!        start                                   end
//!   ░░░░░░░│▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓│ ← append
//!   evicted        ↑ reader   ↑ holding reader
//! ```
//! A reader that falls behind `start` gets a gap. A *holding* reader stops the writer instead: while the
//! window between it and `end` is full, nothing more is taken from the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use banger_proto::guest::v1::Stream;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::watch;

/// Output kept for a session, frames' overhead included.
pub const LOG_MAX_BYTES: usize = 1 << 20;
/// Output kept for all sessions together; above it each keeps [`LOG_LEAST_BYTES`] when it writes.
pub const LOGS_MAX_BYTES: usize = 32 << 20;
/// Output that a session keeps when the common bound is reached.
pub const LOG_LEAST_BYTES: usize = 64 << 10;
/// What a frame costs besides its bytes.
const FRAME_COST_BYTES: usize = 128;
/// Frames grow up to this size, so that a process that writes single bytes does not fill the log with
/// frames.
const MERGE_MAX_BYTES: usize = 4 << 10;
/// Frames further apart than this are not merged.
const MERGE_WITHIN: Duration = Duration::from_millis(100);

/// A piece of output.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Of the first byte.
    pub offset: u64,
    /// Which stream.
    pub stream: Stream,
    /// When it was read from the process.
    pub time: SystemTime,
    /// At least one byte.
    pub data: Bytes,
}

impl Frame {
    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    fn cost(&self) -> usize {
        self.data.len() + FRAME_COST_BYTES
    }
}

/// What a reader finds at its offset.
#[derive(Debug)]
pub enum Found {
    /// Output from there on.
    Output(Frame),
    /// Output that is no longer kept.
    Gap {
        /// Of the first lost byte.
        offset: u64,
        /// How many.
        lost_bytes: u64,
    },
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    End,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    start: u64,
    end: u64,
    cost: usize,
    /// Offsets of the holding readers, by their key.
    holders: BTreeMap<u64, u64>,
    next_key: u64,
    is_closed: bool,
    /// Holding readers no longer count.
    is_abandoned: bool,
}

impl State {
    fn slowest_holder(&self) -> Option<u64> {
        if self.is_abandoned {
            return None;
        }
        self.holders.values().min().copied()
    }
}

/// Bytes that all logs of an agent keep together.
#[derive(Debug, Default)]
pub struct Total(AtomicUsize);

/// The log of one session.
#[derive(Debug)]
pub struct Log {
    state: Mutex<State>,
    total: Arc<Total>,
    changed: watch::Sender<()>,
    taken: watch::Sender<()>,
}

impl Log {
    /// An empty log that counts into `total`.
    #[must_use]
    pub fn new(total: Arc<Total>) -> Self {
        Self {
            state: Mutex::default(),
            total,
            changed: watch::Sender::new(()),
            taken: watch::Sender::new(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every section leaves the log consistent, so a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offsets of the oldest byte kept and after the newest.
    #[must_use]
    pub fn range(&self) -> (u64, u64) {
        let state = self.state();
        (state.start, state.end)
    }

    /// Told whenever there may be something new to read.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Wakes the readers for another reason than output.
    pub fn wake(&self) {
        self.changed.send_replace(());
    }

    /// Waits until no holding reader has a full window. Safe to drop.
    pub async fn room(&self) {
        if self.has_room() {
            return;
        }
        let mut taken = self.taken.subscribe();
        while !self.has_room() {
            if taken.changed().await.is_err() {
                return;
            }
        }
    }

    fn has_room(&self) -> bool {
        let state = self.state();
        let window = LOG_MAX_BYTES as u64;
        state
            .slowest_holder()
            .is_none_or(|offset| state.end.saturating_sub(offset) < window)
    }

    /// Adds output and evicts what is too much.
    pub fn append(&self, stream: Stream, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let mut state = self.state();
        let before = state.cost;
        let time = SystemTime::now();
        let offset = state.end;
        state.end += data.len() as u64;
        if let Some(data) = merge(&mut state, stream, time, data) {
            let frame = Frame {
                offset,
                stream,
                time,
                data,
            };
            state.cost += frame.cost();
            state.frames.push_back(frame);
        }
        self.evict(&mut state, before);
        drop(state);
        self.wake();
    }

    /// Evicts down to the bound, but nothing that a holding reader has yet to take.
    fn evict(&self, state: &mut State, before: usize) {
        let others = self.total.0.load(Ordering::Relaxed).saturating_sub(before);
        let bound = if others + state.cost > LOGS_MAX_BYTES {
            LOG_LEAST_BYTES
        } else {
            LOG_MAX_BYTES
        };
        let holder = state.slowest_holder().unwrap_or(u64::MAX);
        while state.cost > bound && state.frames.len() > 1 && state.frames[0].end() <= holder {
            if let Some(frame) = state.frames.pop_front() {
                state.cost -= frame.cost();
                state.start = frame.end();
            }
        }
        self.recount(before, state.cost);
    }

    fn recount(&self, before: usize, after: usize) {
        if after >= before {
            self.total.0.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.total.0.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// What there is at `offset`.
    #[must_use]
    pub fn find(&self, offset: u64) -> Found {
        let state = self.state();
        if offset < state.start {
            return Found::Gap {
                offset,
                lost_bytes: state.start - offset,
            };
        }
        let index = state.frames.partition_point(|frame| frame.end() <= offset);
        match state.frames.get(index) {
            Some(frame) => {
                let skip = usize::try_from(offset - frame.offset).unwrap_or(usize::MAX);
                Found::Output(Frame {
                    offset,
                    data: frame.data.slice(skip.min(frame.data.len())..),
                    ..*frame
                })
            }
            None if state.is_closed => Found::End,
            None => Found::Nothing,
        }
    }

    /// Ends the log: nothing is appended any more.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.wake();
    }

    /// Lets the process go on whatever holding readers do.
    pub fn abandon(&self) {
        self.state().is_abandoned = true;
        self.taken.send_replace(());
    }

    /// Makes the process wait for the reader that stands at `offset` while the guard lives.
    #[must_use]
    pub fn hold(self: &Arc<Self>, offset: u64) -> Hold {
        let mut state = self.state();
        let key = state.next_key;
        state.next_key += 1;
        state.holders.insert(key, offset);
        Hold {
            log: Arc::clone(self),
            key,
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let cost = self.state().cost;
        self.recount(cost, 0);
    }
}

/// Merges small output into the last frame; gives back what needs a frame of its own.
fn merge(state: &mut State, stream: Stream, time: SystemTime, data: Bytes) -> Option<Bytes> {
    let Some(last) = state.frames.back_mut() else {
        return Some(data);
    };
    let age = time.duration_since(last.time).unwrap_or_default();
    if last.stream != stream || last.data.len() + data.len() > MERGE_MAX_BYTES || age > MERGE_WITHIN
    {
        return Some(data);
    }
    state.cost += data.len();
    // In place where no reader holds the bytes.
    let mut merged = std::mem::take(&mut last.data)
        .try_into_mut()
        .unwrap_or_else(|shared| {
            let mut copy = BytesMut::with_capacity(shared.len() + data.len());
            copy.put_slice(&shared);
            copy
        });
    merged.put_slice(&data);
    last.data = merged.freeze();
    None
}

/// A holding reader's place in the log.
#[derive(Debug)]
pub struct Hold {
    log: Arc<Log>,
    key: u64,
}

impl Hold {
    /// The reader stands at `offset` now.
    pub fn advance(&self, offset: u64) {
        self.log.state().holders.insert(self.key, offset);
        self.log.taken.send_replace(());
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.log.state().holders.remove(&self.key);
        self.log.taken.send_replace(());
    }
}

#[cfg(test)]
mod tests;
