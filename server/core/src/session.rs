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

use crate::{SessionId, Timestamp, VmId, WriterId};

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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Both streams are one pipe, in the order in which they are written, told as [`Stream::Stdout`].
    pub merge_output: bool,
    /// Permissions that new files do not get, at most `0o777`; absent means `0o022`.
    pub umask: Option<u16>,
    /// What the kernel lets the process have, at most one for each resource.
    pub limits: Vec<ResourceLimit>,
    /// Processes that the first one leaves behind go on after its end, until the session is removed.
    pub keep_children: bool,
}

/// A limit of getrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// What is limited.
    pub resource: Resource,
    /// What applies, in the resource's unit; absent means no limit. Not above `hard`.
    pub soft: Option<u64>,
    /// How far the process may raise it; absent means no limit.
    pub hard: Option<u64>,
}

/// What can be limited, by its name in getrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Processor time, seconds.
    Cpu,
    /// Size of a file, bytes.
    Fsize,
    /// Data segment, bytes.
    Data,
    /// Stack, bytes.
    Stack,
    /// Core dump, bytes.
    Core,
    /// Open files.
    Nofile,
    /// Address space, bytes.
    As,
    /// Processes of the user.
    Nproc,
    /// Locked memory, bytes.
    Memlock,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Cpu,
        Self::Fsize,
        Self::Data,
        Self::Stack,
        Self::Core,
        Self::Nofile,
        Self::As,
        Self::Nproc,
        Self::Memlock,
    ];

    /// The number that Linux gives it, on every processor that banger runs on.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Cpu => 0,
            Self::Fsize => 1,
            Self::Data => 2,
            Self::Stack => 3,
            Self::Core => 4,
            Self::Nproc => 6,
            Self::Nofile => 7,
            Self::Memlock => 8,
            Self::As => 9,
        }
    }
}

/// What the processes of a session use, as the guest tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionUsage {
    /// Processor time of all of them so far.
    pub cpu_time: Duration,
    /// Memory now, the files' that they have open included.
    pub memory_bytes: u64,
    /// Processes now.
    pub process_count: u32,
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
    /// What its processes use; absent where the guest cannot tell.
    pub usage: Option<SessionUsage>,
    /// Of the command or the environment a part is missing, as in lists.
    pub is_spec_shortened: bool,
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
    /// So many bytes before the end, as far as they are kept.
    TailBytes(u64),
    /// So many lines before the end, of all streams together, as far as they are kept.
    TailLines(u64),
    /// At the first output that the guest read then or later.
    Since(Timestamp),
    /// After the newest byte; what a terminal shows comes first, as [`SessionEvent::Screen`]. Attaching only.
    Screen,
}

impl ReadFrom {
    /// Lines before the end that may be asked for.
    pub const LINES_MAX: u64 = 1_000_000;
}

/// Who writes to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writing {
    /// This one too, beside others. The terminal is as large as that of who attached last.
    #[default]
    Shared,
    /// This one: who writes now is detached, with [`crate::guest::GuestError::WriterReplaced`].
    Steal,
    /// Not this one: it only reads.
    Nobody,
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
    /// Whether it writes.
    pub writing: Writing,
    /// Whose bytes are numbered by themselves; otherwise with those of all who have no name.
    pub writer: Option<WriterId>,
}

/// How a reader begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The session as it is.
    pub session: Session,
    /// Of the first byte that this reader gets.
    pub start_offset: u64,
    /// Of the byte of standard input that is expected next of this writer.
    pub stdin_offset: u64,
}

/// What an attached reader receives.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    /// First: the session as it is, from which the reader knows where it stands.
    Attached(Box<Attached>),
    /// What the terminal shows: once, after that, where it was asked for.
    Screen {
        /// The output after this many bytes changes it.
        offset: u64,
        /// What makes a cleared terminal of the same size show the same; empty where it is not known.
        data: Bytes,
    },
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

impl SessionEvent {
    /// Where the output goes on after this event, if it tells.
    #[must_use]
    pub fn output_end(&self) -> Option<u64> {
        match self {
            Self::Attached(attached) => Some(attached.start_offset),
            Self::Screen { offset, .. } => Some(*offset),
            Self::Output { offset, data, .. } => Some(offset + data.len() as u64),
            Self::Gap { offset, lost_bytes } => Some(offset + lost_bytes),
            Self::Exited { end_offset, .. } => Some(*end_offset),
            Self::StdinAck { .. } | Self::Heartbeat => None,
        }
    }
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
