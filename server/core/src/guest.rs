//! The port to a guest's agent: what the host asks of process 1, in domain types.
//!
//! The guest is hostile. An implementation bounds everything that it says and never forwards its words
//! as our own: [`GuestError`] holds the judgement of the host.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::file::{FileProblem, GuestFiles};
use crate::port::{Listeners, Probe};
use crate::session::{
    AttachOptions, Exit, Session, SessionEvent, SessionInput, SessionSpec, SignalTarget,
};
use crate::setup::Secret;
use crate::stats::GuestStats;
use crate::tree::{Changes, DiskWrites, DownloadPiece, PathKind, TreePiece, TreePlace};
use crate::tunnel::{TunnelEvent, TunnelFault, TunnelInput, TunnelTarget};
use crate::vmm::Accelerator;
use crate::workspace::{GuestWorkspaces, WorkspaceProblem};
use crate::{Explain, FailureKind, SessionId, VmId};

/// A byte stream between host and agent on which both ends start afresh.
pub trait Channel: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Channel for T {}

/// A [`Channel`] of some driver.
pub type BoxedChannel = Box<dyn Channel>;

/// What an agent tells of itself when a channel opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestInfo {
    /// The protocol generation both sides use: the lower of the two.
    pub generation: u32,
    /// The agent's version.
    pub agent_version: String,
    /// The guest kernel's release.
    pub kernel_release: String,
    /// Differs for each boot; equal after a mere reconnection.
    pub boot_id: String,
    /// Whether all of the set-up was done since boot: [`Guest::configure`], and [`Guest::start_init`] where there is
    /// an init to start.
    pub is_configured: bool,
    /// How long the guest's own steps took, in order: kernel, modules, disks, pivot, …
    pub boot_steps: Vec<(String, Duration)>,
}

/// What a guest is told once after boot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestConfig {
    /// The host name.
    pub hostname: String,
    /// Environment of every session, below the session's own: the image's, then the VM's.
    pub env: BTreeMap<String, String>,
    /// Default user of sessions; empty means root.
    pub user: String,
    /// Default working directory; empty means `/`.
    pub working_dir: String,
    /// The address of `eth0`; absent means no network.
    pub network: Option<GuestNetwork>,
    /// Nothing that banger writes for the guest reaches its disk.
    pub keep_pristine: bool,
    /// Volumes to mount before the first session.
    pub volumes: Vec<GuestVolume>,
}

/// A volume as a guest is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestVolume {
    /// The serial number of its disk.
    pub serial: String,
    /// Where it is mounted.
    pub path: String,
    /// Whether it is mounted for reading only.
    pub read_only: bool,
}

/// Who a guest's default user is to others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestIdentity {
    /// The user; empty means root.
    pub user: String,
    /// The name of git commits; empty means none.
    pub git_name: String,
    /// The mail address of git commits; empty means none.
    pub git_email: String,
    /// Public keys that may log in.
    pub ssh_authorized_keys: Vec<String>,
    /// Files that prove who somebody is.
    pub files: Vec<SecretFile>,
}

/// A file whose content is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// Absolute in the guest, or beneath the user's home by `~/`.
    pub path: String,
    /// Permission bits.
    pub mode: u16,
    /// All of it.
    pub content: Secret,
}

/// How a guest's first network interface is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestNetwork {
    /// IPv4 address with prefix length, e.g. `10.0.2.15/24`.
    pub address: String,
    /// IPv4 address of the default gateway.
    pub gateway: String,
    /// Addresses of name servers.
    pub dns: Vec<String>,
}

/// To which session to attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachTarget {
    /// One that was started before.
    Existing(SessionId),
    /// One that is started now, in the same round trip. An id that exists is attached to as it is.
    Start {
        /// Of the new session.
        id: SessionId,
        /// What to run.
        spec: Box<SessionSpec>,
        /// The agent forgets the session once this reader has its exit.
        remove_after_exit: bool,
    },
}

/// Events of an attached session, ended by [`SessionEvent::Exited`] or an error.
pub type SessionEvents = BoxStream<'static, Result<SessionEvent, GuestError>>;
/// Input of an attached session. Its end leaves standard input as it is; dropping the events detaches.
pub type SessionInputs = BoxStream<'static, SessionInput>;

/// A tree on its way out of a guest, or the reason why it is not whole.
pub type TreePieces = BoxStream<'static, Result<TreePiece, GuestError>>;
/// The same, with what it lacks.
pub type DownloadPieces = BoxStream<'static, Result<DownloadPiece, GuestError>>;
/// A tree on its way into a guest. Its end says that it is whole.
pub type TreeSource = BoxStream<'static, TreePiece>;

/// Events of a connected tunnel: it has ended in both directions where they end, and dropping them before resets it.
pub type TunnelEvents = BoxStream<'static, Result<TunnelEvent, GuestError>>;
/// Input of a tunnel. If it ends before [`TunnelInput::End`] the connection is reset; if it ends after it, everything
/// counts as taken.
pub type TunnelInputs = BoxStream<'static, TunnelInput>;

/// Makes a [`Guest`] of a fresh channel.
#[async_trait]
pub trait GuestConnector: Send + Sync + 'static {
    /// Negotiates with the agent behind `channel`, within the connector's own deadline. How long a silence tells that
    /// the guest is dead depends on what runs it.
    async fn connect(
        &self,
        vm: VmId,
        channel: BoxedChannel,
        accelerator: Accelerator,
    ) -> Result<(Arc<dyn Guest>, GuestInfo), GuestError>;
}

/// One connection to one agent. Calls may run side by side; each is safe to drop at any await.
#[async_trait]
pub trait Guest: GuestFiles + GuestWorkspaces + Send + Sync + 'static {
    /// Sets the guest up. Done once after each boot, before the first session.
    async fn configure(&self, config: &GuestConfig) -> Result<(), GuestError>;

    /// Starts a session, or returns the one that has this id.
    async fn start_session(&self, id: SessionId, spec: &SessionSpec)
    -> Result<Session, GuestError>;

    /// A session as it is now.
    async fn get_session(&self, id: SessionId) -> Result<Session, GuestError>;

    /// All sessions the agent knows, oldest first.
    async fn list_sessions(&self) -> Result<Vec<Session>, GuestError>;

    /// Attaches a reader and writer.
    async fn attach(
        &self,
        target: AttachTarget,
        options: AttachOptions,
        input: SessionInputs,
    ) -> Result<SessionEvents, GuestError>;

    /// Reads the log: what is kept from `options.from` on, then, if `follow`, what comes until the exit.
    async fn read_log(
        &self,
        id: SessionId,
        options: AttachOptions,
        follow: bool,
    ) -> Result<SessionEvents, GuestError>;

    /// Waits until the session has ended. No deadline: the caller has its own.
    async fn wait_session(&self, id: SessionId) -> Result<Exit, GuestError>;

    /// Sends a signal by number, 1 to 64.
    async fn signal_session(
        &self,
        id: SessionId,
        signal: i32,
        target: SignalTarget,
    ) -> Result<(), GuestError>;

    /// Kills what is left of a session and forgets it with its log. A session that is gone is no error.
    async fn delete_session(&self, id: SessionId) -> Result<(), GuestError>;

    /// User and group id of a user, by the guest's own databases: `user`, `uid`, `user:group` or `uid:gid`.
    async fn resolve_user(&self, user: &str) -> Result<(u32, u32), GuestError>;

    /// What a path is, and the names in it if it is a directory.
    async fn list_directory(&self, path: &[u8]) -> Result<PathKind, GuestError>;

    /// Puts a tree into the guest. Dropping the call before its end leaves a part of it there.
    async fn put_tree(&self, place: &TreePlace, source: TreeSource) -> Result<(), GuestError>;

    /// What is at a path, its last link followed; the first entry has an empty path.
    async fn get_tree(&self, path: &[u8]) -> Result<TreePieces, GuestError>;

    /// What the guest's disk has, without what banger itself put there.
    async fn get_changes(&self, changes: Changes) -> Result<TreePieces, GuestError>;

    /// Makes the disk's file on the host one that can be copied, or lets the guest go on.
    async fn set_disk_writes(&self, writes: DiskWrites) -> Result<(), GuestError>;

    /// What the guest says that it uses, now.
    async fn stats(&self) -> Result<GuestStats, GuestError>;

    /// Who the guest says listens in it.
    async fn list_ports(&self, probe: Probe) -> Result<Listeners, GuestError>;

    /// Connects to a socket of the guest, within `limit`.
    async fn open_tunnel(
        &self,
        target: &TunnelTarget,
        limit: Duration,
        input: TunnelInputs,
    ) -> Result<TunnelEvents, GuestError>;

    /// Makes the file system on a disk as large as the disk, which has `size_bytes` or is about to. One that is as
    /// large already stays so.
    async fn grow_disk(&self, serial: &str, size_bytes: u64) -> Result<(), GuestError>;

    /// Gives the default user its identity. What is so already stays.
    async fn set_identity(&self, identity: &GuestIdentity) -> Result<(), GuestError>;

    /// Starts the image's own init, in a guest whose kernel command line wants it. **The last step of the set-up.**
    async fn start_init(&self) -> Result<(), GuestError>;

    /// Asks the guest to flush its disks and power off. An init of the image's own has `init_patience` for it before
    /// the agent does it. Returns when it is under way.
    async fn power_off(&self, init_patience: Duration) -> Result<(), GuestError>;

    /// Whether the VM's vCPUs are held: a guest that stands still is not dead, however silent it is.
    fn set_held(&self, is_held: bool);

    /// Resolves when this connection is of no more use.
    async fn closed(&self);
}

/// Why an agent did not do what it was asked, as the host judges it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// No session has this id.
    #[error("session {id} is not known to the VM's agent")]
    UnknownSession {
        /// The id.
        id: SessionId,
    },
    /// The program was not found; nothing ran.
    #[error("program `{program}` was not found in the VM")]
    ProgramNotFound {
        /// As given.
        program: String,
    },
    /// The program cannot be executed; nothing ran.
    #[error("program `{program}` cannot be executed in the VM ({detail})")]
    ProgramNotExecutable {
        /// As given.
        program: String,
        /// The errno's name or text, bounded.
        detail: String,
    },
    /// The user or group does not exist in the VM; nothing ran.
    #[error("user `{user}` does not exist in the VM")]
    UnknownUser {
        /// As given.
        user: String,
    },
    /// The working directory cannot be entered; nothing ran.
    #[error("working directory `{path}` cannot be entered in the VM ({detail})")]
    WorkingDirectory {
        /// As given.
        path: String,
        /// The errno's name or text, bounded.
        detail: String,
    },
    /// Arguments and environment are more than the VM's kernel takes; nothing ran.
    #[error("the command and its environment are more than the VM's kernel takes ({detail})")]
    ArgumentsTooLong {
        /// The sizes, bounded.
        detail: String,
    },
    /// The process could not be made; nothing ran.
    #[error("the VM could not start the process ({detail})")]
    StartProcess {
        /// The errno's name or text, bounded.
        detail: String,
    },
    /// The agent's bound on sessions is reached; nothing ran.
    #[error("the VM already has {limit} sessions")]
    TooManySessions {
        /// The bound.
        limit: u32,
    },
    /// Standard input left a hole, or the process closed it.
    #[error("standard input was refused ({detail})")]
    StdinRefused {
        /// Why, bounded.
        detail: String,
    },
    /// Another one took over the writing.
    #[error("another one attached to the session and took over")]
    WriterReplaced,
    /// A file or directory of the VM could not be read or made.
    #[error("`{path}` in the VM: {detail}")]
    File {
        /// What is wrong with it.
        problem: FileProblem,
        /// In the VM, bounded.
        path: String,
        /// The step and its errno, bounded.
        detail: String,
    },
    /// As many calls about files go on in the guest as may.
    #[error("{limit} calls about files go on in the VM already")]
    TooManyFileCalls {
        /// The bound.
        limit: u32,
    },
    /// A workspace of the VM could not be made, told or looked at.
    #[error("workspace `{path}`: {detail}")]
    Workspace {
        /// What is wrong with it.
        problem: WorkspaceProblem,
        /// As it was asked for, bounded.
        path: String,
        /// In the agent's words, bounded.
        detail: String,
    },
    /// As many calls about workspaces go on in the guest as may.
    #[error("{limit} calls about workspaces go on in the VM already")]
    TooManyWorkspaceCalls {
        /// The bound.
        limit: u32,
    },
    /// The image has no init where one is wanted; nothing ran.
    #[error("the image has no init at {path}")]
    InitNotFound {
        /// Where it was looked for, bounded.
        path: String,
    },
    /// The image's init cannot be executed; nothing ran.
    #[error("the image's init `{path}` cannot be executed ({detail})")]
    InitNotExecutable {
        /// Which, bounded.
        path: String,
        /// The errno's text, bounded.
        detail: String,
    },
    /// Disks or network could not be set up in the guest; nothing ran.
    #[error("the VM's disks or network could not be set up ({detail})")]
    NotSetUp {
        /// The step and its errno, bounded.
        detail: String,
    },
    /// A tunnel's socket was not connected, or broke.
    #[error(transparent)]
    Tunnel(TunnelFault),
    /// The agent refused the request as malformed: a defect of one side.
    #[error("the VM's agent refused the request ({detail})")]
    Refused {
        /// What it said, bounded.
        detail: String,
    },
    /// The agent's generation is below the least this daemon understands.
    #[error(
        "the VM's agent speaks protocol generation {generation}, and this daemon needs {least}"
    )]
    TooOld {
        /// The agent's.
        generation: u32,
        /// The daemon's least.
        least: u32,
    },
    /// The guest broke the protocol.
    #[error("the VM's agent broke the protocol ({detail})")]
    Protocol {
        /// How, bounded.
        detail: String,
    },
    /// The connection ended; whether the request was carried out is not known.
    #[error("the connection to the VM's agent was lost during {during}")]
    Lost {
        /// The verb.
        during: &'static str,
    },
    /// The agent did not answer in time.
    #[error("the VM's agent did not answer {during} within {limit:?}")]
    Deadline {
        /// The verb.
        during: &'static str,
        /// The limit that ran out.
        limit: Duration,
    },
}

impl Explain for GuestError {
    fn kind(&self) -> FailureKind {
        let precondition = |subject: &str| FailureKind::FailedPrecondition {
            subject: subject.to_owned(),
        };
        let invalid = |field: &str| FailureKind::InvalidArgument {
            field: field.to_owned(),
        };
        match self {
            Self::UnknownSession { id } => FailureKind::NotFound {
                resource: "session".into(),
                name: id.to_string(),
            },
            Self::ProgramNotFound { .. }
            | Self::ProgramNotExecutable { .. }
            | Self::ArgumentsTooLong { .. } => invalid("spec.command"),
            Self::UnknownUser { .. } => invalid("spec.user"),
            Self::WorkingDirectory { .. } => invalid("spec.working_dir"),
            Self::StdinRefused { .. } => invalid("stdin"),
            Self::WriterReplaced => FailureKind::Aborted,
            Self::StartProcess { .. } => precondition("guest/processes"),
            Self::TooManySessions { .. } => FailureKind::ResourceExhausted {
                subject: "guest/sessions".into(),
            },
            Self::File { problem, path, .. } => problem.kind(path),
            Self::TooManyFileCalls { .. } => FailureKind::ResourceExhausted {
                subject: "guest/file-calls".into(),
            },
            Self::Workspace { problem, path, .. } => problem.kind(path),
            Self::TooManyWorkspaceCalls { .. } => FailureKind::ResourceExhausted {
                subject: "guest/workspace-calls".into(),
            },
            Self::NotSetUp { .. } => precondition("guest/boot"),
            Self::InitNotFound { .. } | Self::InitNotExecutable { .. } => {
                precondition("guest/init")
            }
            Self::TooOld { .. } => precondition("guest/agent"),
            Self::Tunnel(fault) => fault.kind(),
            Self::Refused { .. } | Self::Protocol { .. } => FailureKind::Internal,
            Self::Lost { .. } => FailureKind::Unavailable {
                retry_after: Duration::from_secs(1),
            },
            Self::Deadline { .. } => FailureKind::DeadlineExceeded,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::UnknownSession { .. } => "SESSION_NOT_FOUND",
            Self::ProgramNotFound { .. } => "PROGRAM_NOT_FOUND",
            Self::ProgramNotExecutable { .. } => "PROGRAM_NOT_EXECUTABLE",
            Self::UnknownUser { .. } => "USER_NOT_FOUND",
            Self::WorkingDirectory { .. } => "WORKING_DIRECTORY_UNUSABLE",
            Self::ArgumentsTooLong { .. } => "ARGUMENTS_TOO_LONG",
            Self::StartProcess { .. } => "PROCESS_NOT_STARTED",
            Self::TooManySessions { .. } => "TOO_MANY_SESSIONS",
            Self::StdinRefused { .. } => "STDIN_REFUSED",
            Self::WriterReplaced => "WRITER_REPLACED",
            Self::File { problem, .. } => problem.reason(),
            Self::TooManyFileCalls { .. } => "TOO_MANY_FILE_CALLS",
            Self::Workspace { problem, .. } => problem.reason(),
            Self::TooManyWorkspaceCalls { .. } => "TOO_MANY_WORKSPACE_CALLS",
            Self::NotSetUp { .. } => "GUEST_NOT_SET_UP",
            Self::InitNotFound { .. } => "INIT_NOT_FOUND",
            Self::InitNotExecutable { .. } => "INIT_NOT_EXECUTABLE",
            Self::Tunnel(fault) => fault.reason(),
            Self::Refused { .. } => "AGENT_REFUSED",
            Self::TooOld { .. } => "AGENT_TOO_OLD",
            Self::Protocol { .. } => "AGENT_PROTOCOL_BROKEN",
            Self::Lost { .. } => "AGENT_LOST",
            Self::Deadline { .. } => "AGENT_SILENT",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::UnknownSession { .. } => {
                "List the VM's sessions; one that was removed, or that ran before the VM's last stop, is gone."
            }
            Self::ProgramNotFound { .. } => {
                "Nothing ran. Give a program that the image contains, by a path or by a name in its PATH."
            }
            Self::ProgramNotExecutable { .. } => {
                "Nothing ran. Check the file's mode, its interpreter line and its architecture."
            }
            Self::UnknownUser { .. } => {
                "Nothing ran. Give a user of the image's /etc/passwd, or a numeric uid or uid:gid."
            }
            Self::WorkingDirectory { .. } => {
                "Nothing ran. Give a directory that exists in the VM and that the user may enter."
            }
            Self::ArgumentsTooLong { .. } => {
                "Nothing ran. Pass the data through standard input or a file (banger cp). Together they may come to a quarter of the stack's limit, 6 MiB at most (--ulimit stack=unlimited); a single one to 128 KiB."
            }
            Self::StartProcess { .. } => {
                "Nothing ran. The VM is short of memory or processes: end some, or give it more memory."
            }
            Self::TooManySessions { .. } => "Nothing ran. Remove sessions that have ended.",
            Self::StdinRefused { .. } => {
                "Attach again, and continue from the standard input offset that the session reports."
            }
            Self::WriterReplaced => {
                "The session goes on. Attach again, for reading only or to take it back."
            }
            Self::File { problem, .. } => problem.remedy(),
            Self::Workspace { problem, .. } => problem.remedy(),
            Self::TooManyFileCalls { .. } | Self::TooManyWorkspaceCalls { .. } => {
                "Nothing was done. Ask again when some of them have ended."
            }
            Self::InitNotFound { .. } => {
                "Nothing ran. Leave the agent as process 1 (--init agent), name the image's init by its path (--init PATH), or use an image with one, such as one with systemd-sysv installed."
            }
            Self::InitNotExecutable { .. } => {
                "Nothing ran. Check the init's mode, its interpreter and its architecture, or leave the agent as process 1 (--init agent)."
            }
            Self::NotSetUp { .. } => {
                "Nothing ran. Read the VM's console; try another kernel or image, or pull the image again."
            }
            Self::Tunnel(fault) => return fault.remedy(),
            Self::TooOld { .. } => "Stop and start the VM: it then boots with this daemon's agent.",
            Self::Refused { .. } | Self::Protocol { .. } => {
                "Stop and start the VM. If it happens again, report it with the daemon's log."
            }
            Self::Lost { .. } => {
                "Look at the VM's state and its sessions before repeating: the request may have been carried out."
            }
            Self::Deadline { .. } => {
                "Look at the VM's console and its sessions before repeating: the request may have been carried out."
            }
        };
        Some(text.to_owned())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::WriterReplaced => Vec::new(),
            Self::UnknownSession { id } => vec![("session", id.to_string())],
            Self::ProgramNotFound { program } => vec![("program", program.clone())],
            Self::ProgramNotExecutable { program, detail } => {
                vec![("program", program.clone()), ("detail", detail.clone())]
            }
            Self::UnknownUser { user } => vec![("user", user.clone())],
            Self::InitNotFound { path } => vec![("path", path.clone())],
            Self::WorkingDirectory { path, detail }
            | Self::File { path, detail, .. }
            | Self::Workspace { path, detail, .. }
            | Self::InitNotExecutable { path, detail } => {
                vec![("path", path.clone()), ("detail", detail.clone())]
            }
            Self::StartProcess { detail }
            | Self::ArgumentsTooLong { detail }
            | Self::StdinRefused { detail }
            | Self::NotSetUp { detail }
            | Self::Refused { detail }
            | Self::Protocol { detail } => {
                vec![("detail", detail.clone())]
            }
            Self::TooManySessions { limit }
            | Self::TooManyFileCalls { limit }
            | Self::TooManyWorkspaceCalls { limit } => {
                vec![("limit", limit.to_string())]
            }
            Self::Tunnel(fault) => fault.metadata(),
            Self::TooOld { generation, least } => vec![
                ("generation", generation.to_string()),
                ("least", least.to_string()),
            ],
            Self::Lost { during } => vec![("during", (*during).to_owned())],
            Self::Deadline { during, limit } => vec![
                ("during", (*during).to_owned()),
                ("limit_ms", limit.as_millis().to_string()),
            ],
        }
    }
}

impl GuestError {
    /// Whether the user's code is known not to have run, so that a repeat is safe.
    #[must_use]
    pub const fn nothing_ran(&self) -> bool {
        matches!(
            self,
            Self::ProgramNotFound { .. }
                | Self::ProgramNotExecutable { .. }
                | Self::UnknownUser { .. }
                | Self::WorkingDirectory { .. }
                | Self::ArgumentsTooLong { .. }
                | Self::StartProcess { .. }
                | Self::TooManySessions { .. }
                | Self::TooOld { .. }
                | Self::NotSetUp { .. }
                | Self::InitNotFound { .. }
                | Self::InitNotExecutable { .. }
        )
    }
}
