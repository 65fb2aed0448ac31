//! Standard input: numbered, so that a writer that comes back neither repeats nor skips, and taken no
//! faster than the process reads it.
//!
//! A writer that has a name has numbers of its own, which hold on whatever connection it comes: what others write
//! meanwhile changes them not. Those without a name share one row of numbers.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};
use tokio::sync::{Mutex, watch};

use super::start::End;
use crate::refusal::{Refusal, describe};

/// What a standard input pipe holds once more than its first size was written at once.
const PIPE_MAX_BYTES: usize = 1 << 20;
/// Longest name of a writer. The host's are UUIDs.
const NAME_MAX_BYTES: usize = 64;
/// Writers whose numbers are kept.
const NAMED_MAX: usize = 1024;
/// The first size.
const PIPE_BYTES: usize = 64 << 10;
/// The end-of-file character of a terminal that does not tell its own.
const DEFAULT_EOF: u8 = 4;

#[derive(Debug)]
enum Sink {
    /// The process was given none.
    None,
    Pipe {
        end: End,
        is_enlarged: bool,
    },
    Terminal {
        end: End,
        /// The last byte that it was sent.
        last: Option<u8>,
    },
    /// Closed by us, on request.
    Closed,
    /// Closed by the process, which ends without reading all that it was sent: what comes is dropped.
    Unread,
}

/// How often a writer has ended its input at one place, as a terminal lets it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    offset: u64,
    count: u64,
}

impl Ends {
    /// One more, at `offset`.
    fn add(&mut self, offset: u64) {
        if self.offset != offset {
            *self = Self { offset, count: 0 };
        }
        self.count += 1;
    }
}

/// How many bytes were accepted of a writer, and which of its ends.
#[derive(Debug, Clone)]
pub struct Numbers(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    accepted: watch::Sender<u64>,
    ends: std::sync::Mutex<Ends>,
    /// Somebody took over from whoever writes by them.
    is_replaced: AtomicBool,
}

impl Numbers {
    fn new() -> Self {
        Self(Arc::new(Counted {
            accepted: watch::Sender::new(0),
            ends: std::sync::Mutex::default(),
            is_replaced: AtomicBool::new(false),
        }))
    }

    /// Bytes accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        *self.0.accepted.borrow()
    }

    /// Told whenever more was accepted.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.accepted.subscribe()
    }

    fn add(&self, bytes: u64) {
        self.0.accepted.send_modify(|accepted| *accepted += bytes);
    }

    fn ends(&self) -> std::sync::MutexGuard<'_, Ends> {
        // It is set whole, so a panic elsewhere spoils nothing.
        self.0.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody took over from whoever writes by them, who is a writer again only by taking over in turn.
    #[must_use]
    pub fn are_replaced(&self) -> bool {
        self.0.is_replaced.load(Ordering::Relaxed)
    }

    /// Whether somebody writes by them now.
    fn are_used(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// The writing side of a session.
#[derive(Debug)]
pub struct Input {
    sink: Mutex<Sink>,
    /// A second handle on the terminal, for its size.
    terminal: Option<std::os::fd::OwnedFd>,
    /// Bytes of all writers together.
    accepted: AtomicU64,
    /// Of those that have no name.
    nameless: Numbers,
    /// Of those that have names, the oldest first.
    named: std::sync::Mutex<Vec<(String, Numbers)>>,
}

impl Input {
    fn new(sink: Sink) -> Self {
        let terminal = match &sink {
            // A terminal whose handle cannot be doubled keeps its size.
            Sink::Terminal { end, .. } => end.get_ref().try_clone().ok(),
            _ => None,
        };
        Self {
            sink: Mutex::new(sink),
            terminal,
            accepted: AtomicU64::new(0),
            nameless: Numbers::new(),
            named: std::sync::Mutex::default(),
        }
    }

    /// A pipe, or nothing.
    #[must_use]
    pub fn pipe(end: Option<End>) -> Self {
        Self::new(end.map_or(Sink::None, |end| Sink::Pipe {
            end,
            is_enlarged: false,
        }))
    }

    /// A terminal.
    #[must_use]
    pub fn terminal(end: End) -> Self {
        Self::new(Sink::Terminal { end, last: None })
    }

    /// Bytes accepted so far, of all writers together.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// The numbers of this writer; empty means those of all who have no name. One that is new begins at 0. Of those that have left, the
    /// oldest is forgotten when there are too many.
    ///
    /// # Errors
    /// A name that is too long, or more writers at once than there may be.
    pub fn numbers(&self, writer: &str) -> Result<Numbers, Refusal> {
        if writer.is_empty() {
            return Ok(self.nameless.clone());
        }
        if writer.len() > NAME_MAX_BYTES {
            return Err(Refusal::invalid("a writer's name is too long"));
        }
        // Each section leaves the list consistent, so a panic elsewhere spoils nothing.
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = named.iter().find(|(name, _)| name == writer) {
            return Ok(known.clone());
        }
        if named.len() >= NAMED_MAX {
            let Some(gone) = named.iter().position(|(_, numbers)| !numbers.are_used()) else {
                return Err(Refusal::invalid("too many write to it at once"));
            };
            named.remove(gone);
        }
        let numbers = Numbers::new();
        named.push((writer.to_owned(), numbers.clone()));
        Ok(numbers)
    }

    /// `writer` takes over from all others who have names.
    pub fn replace_all_but(&self, writer: &str) {
        // Each section leaves the list consistent, so a panic elsewhere spoils nothing.
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, numbers) in named.iter() {
            let is_replaced = name != writer;
            numbers.0.is_replaced.store(is_replaced, Ordering::Relaxed);
        }
    }

    /// Writes `data`, whose first byte has number `offset` among `numbers`, as the process takes it. What was accepted
    /// before is skipped. Dropped half-way, it has accepted what it counted.
    ///
    /// # Errors
    /// [`Refusal::StdinRefused`] for a hole, and where there is no standard input.
    pub async fn write(
        &self,
        numbers: &Numbers,
        offset: u64,
        mut data: Bytes,
    ) -> Result<(), Refusal> {
        let mut sink = self.sink.lock().await;
        let accepted = numbers.accepted();
        if offset > accepted {
            let detail = format!("it has accepted {accepted} bytes and byte {offset} came next");
            return Err(Refusal::StdinRefused { detail });
        }
        let known = usize::try_from(accepted - offset).unwrap_or(usize::MAX);
        data = data.slice(known.min(data.len())..);
        while !data.is_empty() {
            let written = sink.write(&data).await?;
            data = data.slice(written..);
            self.accepted.fetch_add(written as u64, Ordering::Relaxed);
            numbers.add(written as u64);
        }
        Ok(())
    }

    /// Ends it: a pipe is closed, a terminal gets its end-of-file character. `ends` has those that came on the same
    /// connection: one that came on another one before, and is sent again, is skipped.
    ///
    /// # Errors
    /// [`Refusal::StdinRefused`] where the terminal has gone.
    pub async fn close(&self, numbers: &Numbers, ends: &mut Ends) -> Result<(), Refusal> {
        let mut sink = self.sink.lock().await;
        match &mut *sink {
            Sink::Pipe { .. } => *sink = Sink::Closed,
            Sink::Terminal { end, last } => {
                ends.add(numbers.accepted());
                let known = *numbers.ends();
                if known.offset == ends.offset && known.count >= ends.count {
                    return Ok(());
                }
                let state = tcgetattr(end.get_ref());
                let code = state.as_ref().map_or(DEFAULT_EOF, |state| {
                    state.special_codes[SpecialCodeIndex::VEOF]
                });
                let has_lines =
                    state.is_ok_and(|state| state.local_modes.contains(LocalModes::ICANON));
                let is_within_line =
                    last.is_some_and(|last| !matches!(last, b'\n' | b'\r') && last != code);
                // Within a line, the first only hands over what there is of it.
                let count = if has_lines && is_within_line { 2 } else { 1 };
                for _ in 0..count {
                    sink.write(&[code]).await?;
                }
                *numbers.ends() = *ends;
            }
            Sink::None | Sink::Closed | Sink::Unread => {}
        }
        Ok(())
    }

    /// Sets the terminal's size; without a terminal there is none to set.
    pub fn resize(&self, size: Winsize) {
        if let Some(terminal) = &self.terminal {
            // A terminal that has gone has no size.
            let _ = tcsetwinsize(terminal, size);
        }
    }

    /// Lets go of the process's standard input, once it has ended.
    pub async fn release(&self) {
        *self.sink.lock().await = Sink::Unread;
    }
}

impl Sink {
    /// Writes a part of `data`, waiting until the process takes some. Safe to drop.
    async fn write(&mut self, data: &[u8]) -> Result<usize, Refusal> {
        let refused = |detail: &str| Refusal::StdinRefused {
            detail: detail.to_owned(),
        };
        let end = match self {
            Self::None => return Err(refused("the session was started without one")),
            Self::Closed => return Err(refused("it was closed")),
            Self::Unread => return Ok(data.len()),
            Self::Terminal { end, .. } => end,
            Self::Pipe { end, is_enlarged } => {
                if data.len() > PIPE_BYTES && !*is_enlarged {
                    *is_enlarged = true;
                    // Where the kernel refuses, the pipe stays as it is.
                    let _ = fcntl_setpipe_size(end.get_ref().as_fd(), PIPE_MAX_BYTES);
                }
                end
            }
        };
        loop {
            let mut guard = end
                .writable()
                .await
                .map_err(|error| refused(&describe(&error)))?;
            match rustix::io::write(end.get_ref(), data) {
                Ok(written) => {
                    if let Self::Terminal { last, .. } = self {
                        *last = data[..written].last().copied();
                    }
                    return Ok(written);
                }
                // A full terminal that nobody has open any more never takes another byte, and never says so.
                Err(Errno::AGAIN) if guard.ready().is_write_closed() => {
                    drop(guard);
                    *self = Self::Unread;
                    return Ok(data.len());
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::IO) => {
                    drop(guard);
                    *self = Self::Unread;
                    return Ok(data.len());
                }
                Err(error) => return Err(refused(&describe(&error.into()))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_who_left_the_oldest_is_forgotten_and_nobody_who_writes() {
        let input = Input::pipe(None);
        assert!(input.numbers(&"x".repeat(NAME_MAX_BYTES + 1)).is_err());
        let kept = input.numbers("kept").unwrap();
        kept.add(7);
        input.numbers("left").unwrap().add(7);
        for index in 2..NAMED_MAX + 1 {
            input.numbers(&format!("writer-{index}")).unwrap();
        }
        assert_eq!(input.numbers("kept").unwrap().accepted(), 7);
        assert_eq!(input.numbers("left").unwrap().accepted(), 0);
        let all: Vec<_> = (0..NAMED_MAX - 1)
            .map(|index| input.numbers(&format!("busy-{index}")).unwrap())
            .collect();
        assert!(input.numbers("one-more").is_err());
        drop(all);
        assert!(input.numbers("one-more").is_ok());
    }
}
