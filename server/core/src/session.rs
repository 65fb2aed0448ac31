//! Sessions: one process tree in the guest with its terminal or pipes and its log.
//!
//! A session's output is a log of frames. A frame's *offset* is the count of output bytes, of all
//! streams together, that came before it; so one number says exactly where a reader stands. What the
//! bounded log had to evict is announced by a gap, never skipped in silence. Standard input is numbered
//! the same way, so that a resumed writer neither repeats nor skips.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{SessionId, Timestamp, VmId};

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines, 1 to 65535.
    pub rows: u16,
    /// Characters in a line, 1 to 65535.
    pub columns: u16,
}

impl Default for TerminalSize {
    fn default() -> Self {
        Self {
            rows: 24,
            columns: 80,
        }
    }
}

/// What to run and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSpec {
    /// Program and arguments; the program is looked up in the session's PATH. Never empty.
    pub command: Vec<String>,
    /// Added to the VM's and the image's environment; these win.
    pub env: BTreeMap<String, String>,
    /// Absolute; empty means the image's, or `/`.
    pub working_dir: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means the image's, or root.
    pub user: String,
    /// A terminal of this size; absent means three pipes.
    pub terminal: Option<TerminalSize>,
    /// Whether the process gets a standard input that stays open until closed; otherwise it reads end of
    /// file at once. A terminal always has one.
    pub stdin: bool,
    /// The process tree is killed when it has run this long; absent means never.
    pub timeout: Option<Duration>,
}

/// Which of a session's streams a frame came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// File descriptor 1, or the terminal.
    Stdout,
    /// File descriptor 2; never with a terminal.
    Stderr,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// The process returned this code, 0 to 255.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
    /// The guest kernel killed it for want of memory.
    OutOfMemory,
    /// Its [`SessionSpec::timeout`] ran out.
    Deadline,
    /// The VM stopped or its agent was lost; the process is gone, its result unknown.
    VmGone,
}

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "exit")]
pub enum SessionState {
    /// The process runs, or its output is not yet drained.
    Running,
    /// Ended, and its output is complete.
    Exited(Exit),
}

/// A session as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Chosen by the host, so that a repeated start is recognised.
    pub id: SessionId,
    /// Whose.
    pub vm: VmId,
    /// What runs, with the image's and VM's defaults filled in by the agent.
    pub spec: SessionSpec,
    /// Where it is.
    pub state: SessionState,
    /// In the guest; 0 once reaped.
    pub pid: u32,
    /// When the process was started, by the guest's clock.
    pub start_time: Timestamp,
    /// When it ended.
    pub end_time: Option<Timestamp>,
    /// Offset of the oldest output byte still kept.
    pub log_start_offset: u64,
    /// Offset after the newest output byte.
    pub log_end_offset: u64,
    /// How many bytes of standard input the agent has accepted.
    pub stdin_offset: u64,
}

/// Where in the log a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadFrom {
    /// At the oldest byte that is still kept.
    #[default]
    Start,
    /// After the newest byte.
    End,
    /// At this offset; a gap tells what of it is no longer kept.
    Offset(u64),
}

/// What becomes of output that a reader has not taken when the log's window is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backpressure {
    /// The oldest is evicted, and this reader gets a gap: it slows nobody.
    #[default]
    DropOldest,
    /// The process waits, as it would on a full pipe: this reader loses nothing while it is attached.
    HoldProcess,
}

/// How to attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttachOptions {
    /// Where to begin.
    pub from: ReadFrom,
    /// Whether the process waits for this reader.
    pub backpressure: Backpressure,
}

/// What an attached reader receives.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    /// First: the session as it is, from which the reader knows where it stands.
    Attached(Box<Session>),
    /// Output.
    Output {
        /// Of the first byte.
        offset: u64,
        /// Which stream.
        stream: Stream,
        /// When the agent read it.
        time: Timestamp,
        /// At least one byte.
        data: Bytes,
    },
    /// Output that is no longer kept.
    Gap {
        /// Of the first lost byte.
        offset: u64,
        /// How many are lost.
        lost_bytes: u64,
    },
    /// The agent has accepted standard input up to here.
    StdinAck {
        /// Bytes in all.
        offset: u64,
    },
    /// Nothing to say, still alive.
    Heartbeat,
    /// Last: all output has been sent.
    Exited {
        /// How.
        exit: Exit,
        /// After the last byte of output.
        end_offset: u64,
    },
}

/// What an attached writer sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionInput {
    /// Standard input. Bytes below what was already accepted are skipped; a hole is refused.
    Stdin {
        /// Of the first byte.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// End of standard input; on a terminal, its end-of-file character.
    CloseStdin,
    /// A new terminal size.
    Resize(TerminalSize),
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalTarget {
    /// The process group of the session's first process.
    #[default]
    Group,
    /// The first process alone.
    Leader,
    /// Every process of the session, found by its cgroup where the guest has one.
    All,
}
