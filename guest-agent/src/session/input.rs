//! Standard input: numbered, so that a writer that comes back neither repeats nor skips, and taken no
//! faster than the process reads it.

use std::os::fd::AsFd;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use rustix::termios::{SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize};
use tokio::sync::{Mutex, watch};

use super::start::End;
use crate::refusal::{Refusal, describe};

/// What a standard input pipe holds once more than its first size was written at once.
const PIPE_MAX_BYTES: usize = 1 << 20;
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
    Terminal(End),
    /// Closed by us, on request.
    Closed,
    /// Closed by the process, which ends without reading all that it was sent: what comes is dropped.
    Unread,
}

/// The writing side of a session.
#[derive(Debug)]
pub struct Input {
    sink: Mutex<Sink>,
    /// A second handle on the terminal, for its size.
    terminal: Option<std::os::fd::OwnedFd>,
    accepted: watch::Sender<u64>,
}

impl Input {
    fn new(sink: Sink) -> Self {
        let terminal = match &sink {
            // A terminal whose handle cannot be doubled keeps its size.
            Sink::Terminal(end) => end.get_ref().try_clone().ok(),
            _ => None,
        };
        Self {
            sink: Mutex::new(sink),
            terminal,
            accepted: watch::Sender::new(0),
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
        Self::new(Sink::Terminal(end))
    }

    /// Bytes accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        *self.accepted.borrow()
    }

    /// Told whenever more was accepted.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.accepted.subscribe()
    }

    /// Writes `data`, whose first byte has number `offset`, as the process takes it. What was accepted
    /// before is skipped. Dropped half-way, it has accepted what it counted.
    ///
    /// # Errors
    /// [`Refusal::StdinRefused`] for a hole, and where there is no standard input.
    pub async fn write(&self, offset: u64, mut data: Bytes) -> Result<(), Refusal> {
        let mut sink = self.sink.lock().await;
        let accepted = self.accepted();
        if offset > accepted {
            let detail = format!("it has accepted {accepted} bytes and byte {offset} came next");
            return Err(Refusal::StdinRefused { detail });
        }
        let known = usize::try_from(accepted - offset).unwrap_or(usize::MAX);
        data = data.slice(known.min(data.len())..);
        while !data.is_empty() {
            let written = sink.write(&data).await?;
            data = data.slice(written..);
            self.accepted
                .send_modify(|accepted| *accepted += written as u64);
        }
        Ok(())
    }

    /// Ends it: a pipe is closed, a terminal gets its end-of-file character.
    ///
    /// # Errors
    /// [`Refusal::StdinRefused`] where the terminal has gone.
    pub async fn close(&self) -> Result<(), Refusal> {
        let mut sink = self.sink.lock().await;
        match &mut *sink {
            Sink::Pipe { .. } => *sink = Sink::Closed,
            Sink::Terminal(end) => {
                let code = tcgetattr(end.get_ref()).map_or(DEFAULT_EOF, |state| {
                    state.special_codes[SpecialCodeIndex::VEOF]
                });
                sink.write(&[code]).await?;
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
            Self::Terminal(end) => end,
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
                Ok(written) => return Ok(written),
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
