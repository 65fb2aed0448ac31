//! A session's output: a bounded log of frames that any number of readers follow by offset.
//!
//! ```text
//!        start                                   end
//!   ░░░░░░░│▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒│▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓│ ← append
//!   evicted   on the disk      in memory
//!                  ↑ reader         ↑ holding reader
//! ```
//! What is too much for the memory goes to the disk, and what is too much for the disk is evicted. The process waits
//! for the disk as it would for a file, but not for a disk that hangs: its oldest output is then evicted instead.
//!
//! A reader that falls behind `start` gets a gap. A *holding* reader stops the writer instead: while the
//! window between it and `end` is full, nothing more is taken from the process.
//!
//! A log that *passes* is that of a command whose output goes to one holding reader and is then forgotten. What that
//! reader was sent stays in memory while it can still be on its way, so that the reader can come back for it, and is
//! then evicted without having been on the disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use banger_proto::guest::v1::Stream;
use bytes::{BufMut, Bytes, BytesMut};
use rustix::termios::Winsize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::locate::Part;
use super::screen::Screen;
use super::spill::{Home, Ring, SEGMENT_BYTES, SEGMENT_FRAMES, Segment};

/// Output kept in memory for a session, frames' overhead included.
pub const LOG_MAX_BYTES: usize = 1 << 20;
/// Output kept for all sessions together; above it each keeps [`LOG_LEAST_BYTES`] when it writes.
pub const LOGS_MAX_BYTES: usize = 32 << 20;
/// Output that a session keeps when the common bound is reached.
pub const LOG_LEAST_BYTES: usize = 64 << 10;
/// Of a log that passes: what its reader was sent and may not have, when its connection breaks. More than the windows
/// and buffers on the way from here to a client hold.
pub const PASSING_BYTES: usize = 8 << 20;
/// What such a log may have in memory: that, the window of its reader, and what frames cost.
const PASSING_MAX_BYTES: usize = PASSING_BYTES + 2 * LOG_MAX_BYTES;
/// What a frame costs besides its bytes.
const FRAME_COST_BYTES: usize = 128;
/// Frames grow up to this size, so that a process that writes single bytes does not fill the log with
/// frames.
const MERGE_MAX_BYTES: usize = 4 << 10;
/// How long a process waits for the disk to take what it wrote.
const SPILL_WITHIN: Duration = Duration::from_secs(30);
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
    /// After the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    /// What of it begins at `offset`, which is in it.
    #[must_use]
    pub fn from(&self, offset: u64) -> Self {
        let skip = usize::try_from(offset - self.offset).unwrap_or(usize::MAX);
        Self {
            offset,
            data: self.data.slice(skip.min(self.data.len())..),
            ..*self
        }
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
    /// Output on the disk, in this segment.
    Spilled(Segment),
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

/// What goes on between a log and its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spilling {
    Idle,
    /// A segment is being written.
    Busy,
    /// It takes too long: nobody waits for it any more.
    Late,
}

#[derive(Debug)]
struct State {
    /// Older than the frames.
    ring: Ring,
    frames: VecDeque<Frame>,
    spilling: Spilling,
    /// What a terminal shows after the newest byte.
    screen: Option<Screen>,
    start: u64,
    end: u64,
    cost: usize,
    /// Offsets of the holding readers, by their key.
    holders: BTreeMap<u64, u64>,
    next_key: u64,
    is_closed: bool,
    /// Holding readers no longer count.
    is_abandoned: bool,
    /// What a holding reader has is kept for nobody else.
    passes: bool,
}

impl State {
    fn slowest_holder(&self) -> Option<u64> {
        if self.is_abandoned {
            return None;
        }
        self.holders.values().min().copied()
    }

    /// The oldest frames that make a segment. The newest frame stays: it may grow.
    fn batch(&self) -> Vec<Frame> {
        let mut length = 0;
        let fits = |frame: &&Frame| {
            length += frame.data.len();
            length <= SEGMENT_BYTES || length == frame.data.len()
        };
        let all_but_one = self.frames.len().saturating_sub(1);
        let frames = self.frames.iter().take(all_but_one.min(SEGMENT_FRAMES));
        frames.take_while(fits).cloned().collect()
    }

    /// The oldest byte that is kept.
    fn find_start(&mut self) {
        let on_disk = self.ring.segments().front().map(|segment| segment.offset);
        let in_memory = || self.frames.front().map(|frame| frame.offset);
        self.start = on_disk.or_else(in_memory).unwrap_or(self.end);
    }

    /// Where the reader stands that a passing log is for; none once it is gone.
    fn passed(&self) -> Option<u64> {
        self.slowest_holder().filter(|_| self.passes)
    }

    /// Evicts what the reader of a passing log has by now.
    fn pass(&mut self) {
        let Some(passed) = self.passed() else { return };
        let has = |frame: &Frame| frame.end() + PASSING_BYTES as u64 <= passed;
        let count = self.frames.iter().take_while(|frame| has(frame)).count();
        if count > 0 {
            // What is older goes first.
            self.ring.clear();
            self.drop_oldest(count);
            self.find_start();
        }
    }

    fn drop_oldest(&mut self, count: usize) {
        for frame in self.frames.drain(..count) {
            self.cost -= frame.cost();
        }
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
    spilled: watch::Sender<()>,
}

impl Log {
    /// An empty log that counts into `total`, and spills to `home`.
    #[must_use]
    pub fn new(total: Arc<Total>, home: Arc<Home>) -> Self {
        let state = State {
            ring: Ring::new(home),
            frames: VecDeque::new(),
            spilling: Spilling::Idle,
            screen: None,
            start: 0,
            end: 0,
            cost: 0,
            holders: BTreeMap::new(),
            next_key: 0,
            is_closed: false,
            is_abandoned: false,
            passes: false,
        };
        Self {
            state: Mutex::new(state),
            total,
            changed: watch::Sender::new(()),
            taken: watch::Sender::new(()),
            spilled: watch::Sender::new(()),
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

    /// What it has in memory.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.state().cost
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

    /// Makes the log pass.
    pub fn let_pass(&self) {
        self.state().passes = true;
    }

    /// Keeps what the terminal shows, from now on.
    pub fn show(&self, screen: Screen) {
        self.state().screen = Some(screen);
    }

    /// The terminal has another size.
    pub fn resize(&self, size: Winsize) {
        if let Some(screen) = &mut self.state().screen {
            screen.resize(size);
        }
    }

    /// What the terminal shows, and after which byte.
    #[must_use]
    pub fn screen(&self) -> (u64, Bytes) {
        let state = self.state();
        let drawn = state.screen.as_ref().map(Screen::draw);
        (state.end, drawn.unwrap_or_default())
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
        // What nobody has taken yet is not evicted: where the disk takes nothing, the process waits earlier.
        let is_short = self.total.0.load(Ordering::Relaxed) > LOGS_MAX_BYTES;
        let window = if is_short {
            LOG_LEAST_BYTES
        } else {
            LOG_MAX_BYTES
        } as u64;
        state
            .slowest_holder()
            .is_none_or(|offset| state.end.saturating_sub(offset) < window)
    }

    /// Adds output. **To be followed by [`Log::settle`].**
    pub fn append(&self, stream: Stream, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let mut state = self.state();
        let before = state.cost;
        let time = SystemTime::now();
        let offset = state.end;
        state.end += data.len() as u64;
        if let Some(screen) = &mut state.screen {
            screen.write(&data);
        }
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
        self.recount(before, state.cost);
        drop(state);
        self.wake();
    }

    /// Brings the memory down to the bound: to the disk what it takes, and evicts the rest, but nothing that a holding
    /// reader has yet to take. Safe to drop.
    pub async fn settle(self: &Arc<Self>) {
        loop {
            let mut spilled = self.spilled.subscribe();
            if !self.spill() {
                return;
            }
            if timeout(SPILL_WITHIN, spilled.changed()).await.is_err() {
                let mut state = self.state();
                if state.spilling == Spilling::Busy {
                    state.spilling = Spilling::Late;
                }
            }
        }
    }

    /// Whether the disk has something to do that is to be waited for. What it has no room for is evicted.
    fn spill(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        let before = state.cost;
        state.pass();
        self.recount(before, state.cost);
        if state.cost <= self.bound(&state) {
            return false;
        }
        match state.spilling {
            Spilling::Busy => return true,
            Spilling::Late => {
                self.evict(&mut state);
                return false;
            }
            Spilling::Idle => {}
        }
        let batch = state.batch();
        let keep = state.slowest_holder().unwrap_or(u64::MAX);
        let Some(segment) = state.ring.reserve(&batch, keep) else {
            self.evict(&mut state);
            return false;
        };
        state.find_start();
        state.spilling = Spilling::Busy;
        let (log, disk) = (Arc::clone(self), state.ring.disk());
        drop(state);
        // Not waited for where the disk hangs: the thread ends with the write.
        tokio::task::spawn_blocking(move || {
            let written = disk.write(&segment, &batch).is_ok();
            log.written(segment, batch.len(), written);
        });
        true
    }

    /// A segment of so many frames was written, or was not.
    fn written(&self, segment: Segment, count: usize, is_written: bool) {
        let mut state = self.state();
        let before = state.cost;
        state.spilling = Spilling::Idle;
        // Its frames may have been evicted meanwhile.
        let is_due = state.frames.front().map(|frame| frame.offset) == Some(segment.offset);
        if is_written && is_due {
            state.drop_oldest(count);
            state.ring.push(segment);
            self.recount(before, state.cost);
        } else if !is_written {
            self.evict(&mut state);
        }
        drop(state);
        self.spilled.send_replace(());
    }

    /// What this log may have in memory now.
    fn bound(&self, state: &State) -> usize {
        let all = self.total.0.load(Ordering::Relaxed);
        let others = all.saturating_sub(state.cost);
        if others + state.cost > LOGS_MAX_BYTES {
            LOG_LEAST_BYTES
        } else if state.passed().is_some() {
            PASSING_MAX_BYTES
        } else {
            LOG_MAX_BYTES
        }
    }

    /// Evicts down to the bound, but nothing that a holding reader has yet to take.
    fn evict(&self, state: &mut State) {
        let (before, bound) = (state.cost, self.bound(state));
        let holder = state.slowest_holder().unwrap_or(u64::MAX);
        while state.cost > bound && state.frames.len() > 1 && state.frames[0].end() <= holder {
            // What is older goes first.
            state.ring.clear();
            state.drop_oldest(1);
        }
        state.find_start();
        self.recount(before, state.cost);
    }

    /// Reads a segment from the disk. What cannot be read is lost from then on, and the answer is nothing.
    pub fn load(self: &Arc<Self>, segment: Segment) -> JoinHandle<Vec<Frame>> {
        let log = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let disk = log.state().ring.disk();
            let read = disk.read(&segment);
            let mut state = log.state();
            // What is overwritten was given up before, so what is still kept was read whole.
            if state.ring.find(segment.offset) != Some(segment) {
                return Vec::new();
            }
            read.unwrap_or_else(|_| {
                state.ring.lose(&segment);
                state.find_start();
                Vec::new()
            })
        })
    }

    /// All that is kept, oldest first.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let state = self.state();
        let segments = state.ring.segments().iter().copied().map(Part::Segment);
        segments
            .chain(state.frames.iter().cloned().map(Part::Frame))
            .collect()
    }

    /// Gives up what is on the disk, and the file.
    pub fn close_spill(&self) {
        let mut state = self.state();
        state.ring.close();
        state.find_start();
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
        if let Some(segment) = state.ring.find(offset) {
            return Found::Spilled(segment);
        }
        let index = state.frames.partition_point(|frame| frame.end() <= offset);
        match state.frames.get(index) {
            Some(frame) => Found::Output(frame.from(offset)),
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
