//! A reader of a session: what it is sent, in which order, and when it is only told that all is well.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use banger_proto::guest::v1::{Exit, ReadOptions};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Session;
use super::input::Numbers;
use super::log::{Found, Frame, Hold};
use crate::refusal::Refusal;

/// After this long a silence the reader is told that the agent is alive.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// What a reader is sent.
#[derive(Debug)]
pub enum Event {
    /// Output.
    Output(Frame),
    /// Output that is no longer kept.
    Gap {
        /// Of the first lost byte.
        offset: u64,
        /// How many.
        lost_bytes: u64,
    },
    /// Standard input accepted up to here.
    StdinAck(u64),
    /// Nothing to say, still alive.
    Heartbeat,
    /// The end.
    Exited {
        /// How.
        exit: Exit,
        /// After the last byte of output.
        end_offset: u64,
    },
}

/// What goes on at the end of what there is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// What comes, up to the exit.
    Exit,
    /// Nothing: stop there.
    Stop,
}

/// What serves a writer on behalf of a reader: it ends with the first refusal, and with the reader.
pub type Writer = JoinSet<Result<(), Refusal>>;

/// How much of a writer's input was accepted, and how much of that was told.
#[derive(Debug)]
struct Acknowledged {
    accepted: watch::Receiver<u64>,
    acked: u64,
}

impl Acknowledged {
    /// What is to be told.
    fn news(&mut self) -> Option<u64> {
        let accepted = *self.accepted.borrow_and_update();
        (accepted > self.acked).then(|| {
            self.acked = accepted;
            accepted
        })
    }
}

/// Resolves when more was accepted.
async fn more(input: &mut Option<Acknowledged>) {
    match input {
        // The session, which the reader holds, has the sender.
        Some(input) => drop(input.accepted.changed().await),
        None => std::future::pending().await,
    }
}

/// A reader.
#[derive(Debug)]
pub struct Reader {
    session: Arc<Session>,
    position: u64,
    /// Where to stop, if not at the exit.
    stop_at: Option<u64>,
    hold: Option<Hold>,
    /// A segment on its way from the disk.
    loading: Option<JoinHandle<Vec<Frame>>>,
    /// What of it is still to be sent.
    loaded: VecDeque<Frame>,
    changed: watch::Receiver<()>,
    /// Of whom it is told what was accepted.
    input: Option<Acknowledged>,
    writer: Writer,
    is_done: bool,
}

impl Reader {
    /// A reader of `session` from `position` on, whose log ended at `end` when the reader was told of it: what was
    /// evicted since is a gap.
    #[must_use]
    pub fn new(
        session: Arc<Session>,
        (position, end): (u64, u64),
        options: ReadOptions,
        follow: Follow,
    ) -> Self {
        let hold = options.hold_process.then(|| session.log.hold(position));
        Self {
            position,
            stop_at: (follow == Follow::Stop).then_some(end),
            hold,
            loading: None,
            loaded: VecDeque::new(),
            changed: session.log.subscribe(),
            input: None,
            session,
            writer: Writer::new(),
            is_done: false,
        }
    }

    /// Lets `writer` live as long as this reader, which is told what is accepted by `numbers` beyond `acked`.
    #[must_use]
    pub fn with_writer(mut self, writer: Writer, numbers: &Numbers, acked: u64) -> Self {
        self.writer = writer;
        self.input = Some(Acknowledged {
            accepted: numbers.subscribe(),
            acked,
        });
        self
    }

    /// The next event; none after the last.
    ///
    /// # Errors
    /// The writer's refusal.
    pub async fn next(&mut self) -> Result<Option<Event>, Refusal> {
        loop {
            if self.is_done {
                return Ok(None);
            }
            if let Some(Ok(Err(refusal))) = self.writer.try_join_next() {
                return Err(refusal);
            }
            if let Some(loading) = &mut self.loading {
                match timeout(HEARTBEAT, loading).await {
                    // Nothing came where it was evicted meanwhile, or cannot be read: the next look tells.
                    Ok(loaded) => self.loaded = loaded.unwrap_or_default().into(),
                    Err(_) => return Ok(Some(Event::Heartbeat)),
                }
                self.loading = None;
            }
            // Before the look, so that no change after it is missed.
            self.changed.mark_unchanged();
            if let Some(event) = self.look() {
                return Ok(Some(event));
            }
            if self.is_done {
                return Ok(None);
            }
            if self.loading.is_some() {
                continue;
            }
            tokio::select! {
                // cancel-safe: each only waits
                _ = self.changed.changed() => {}
                () = more(&mut self.input) => {}
                Some(Ok(Err(refusal))) = self.writer.join_next() => return Err(refusal),
                () = sleep(HEARTBEAT) => return Ok(Some(Event::Heartbeat)),
            }
        }
    }

    fn look(&mut self) -> Option<Event> {
        if let Some(accepted) = self.input.as_mut().and_then(Acknowledged::news) {
            return Some(Event::StdinAck(accepted));
        }
        if self.stop_at.is_some_and(|stop| self.position >= stop) {
            // Nothing more was asked for, but how it ended belongs to what there is.
            self.is_done = true;
            return self.exited();
        }
        if let Some(frame) = self.take_loaded() {
            self.advance(frame.end());
            return Some(Event::Output(frame));
        }
        match self.session.log.find(self.position) {
            Found::Spilled(segment) => {
                self.loading = Some(self.session.log.load(segment));
                None
            }
            Found::Output(frame) => {
                self.advance(frame.offset + frame.data.len() as u64);
                Some(Event::Output(frame))
            }
            Found::Gap { offset, lost_bytes } => {
                self.advance(offset + lost_bytes);
                Some(Event::Gap { offset, lost_bytes })
            }
            Found::Nothing => None,
            Found::End => {
                self.is_done = true;
                self.exited()
            }
        }
    }

    /// The next of what came from the disk.
    fn take_loaded(&mut self) -> Option<Frame> {
        while let Some(frame) = self.loaded.pop_front() {
            if frame.end() > self.position {
                return Some(frame.from(self.position));
            }
        }
        None
    }

    fn exited(&self) -> Option<Event> {
        let exit = self.session.exit()?;
        (self.position == self.session.log.range().1).then_some(Event::Exited {
            exit,
            end_offset: self.position,
        })
    }

    fn advance(&mut self, position: u64) {
        self.position = position;
        if let Some(hold) = &self.hold {
            hold.advance(position);
        }
    }
}
