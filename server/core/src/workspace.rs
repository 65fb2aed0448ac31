//! Workspaces of a guest, and the port to them: trees with git repositories that are carried in and out.
//!
//! The parts of a snapshot are [`banger_workspace::wire`]'s on every hop: what they mean is the same for all of them, and
//! whoever receives one judges it there.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use banger_workspace::wire::{Base, Encoding, Known, Needed, Note, Part, Status};

use crate::FailureKind;
use crate::file::FilePlace;
use crate::guest::GuestError;

/// How a workspace is carried into a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspacePreparation {
    /// Where to, and as whom.
    pub place: FilePlace,
    /// What is there is replaced whatever it is.
    pub overwrite: bool,
    /// What is there is replaced if its state has one of these digests.
    pub replaceable_states: Vec<Bytes>,
    /// The name on commits; empty: as the guest has it.
    pub author_name: String,
    /// The address on commits; empty: as the guest has it.
    pub author_email: String,
}

/// A workspace, and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkspaceView {
    /// Where it is, and as whom it is looked at.
    pub place: FilePlace,
    /// What whoever asks has already.
    pub base: Base,
    /// It was prepared with git.
    pub had_git: bool,
    /// The most bytes of packs and contents; 0 means as many as are allowed.
    pub max_bytes: u64,
    /// How contents are told to whoever asks, where that makes them smaller; none: as they are.
    pub encoding: Option<Encoding>,
}

/// A workspace that is in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedWorkspace {
    /// Where, as an absolute path. The guest says so.
    pub path: Vec<u8>,
    /// Digest of its state.
    pub state: Bytes,
    /// What the sender must know.
    pub notes: Vec<Note>,
}

/// What becomes of a preparation.
#[derive(Debug, Clone, PartialEq)]
pub enum PrepareEvent {
    /// What is there.
    Known(Known),
    /// Whose content is wanted.
    Needed(Needed),
    /// Bytes that were taken.
    Progress(u64),
    /// It is in its place; the last event.
    Prepared(PreparedWorkspace),
    /// Still at work.
    Heartbeat,
}

/// What comes of an export.
#[derive(Debug, Clone, PartialEq)]
pub enum ExportEvent {
    /// The next part.
    Part(Part),
    /// Still at work.
    Heartbeat,
}

/// A snapshot on its way into a guest. One that ends before its own end was given up. Its contents may be encoded.
pub type WorkspaceParts = BoxStream<'static, Part>;
/// What becomes of a preparation, up to its end or an error.
pub type PrepareEvents = BoxStream<'static, Result<PrepareEvent, GuestError>>;
/// A snapshot on its way out of a guest. One that ends without an error is whole.
pub type ExportEvents = BoxStream<'static, Result<ExportEvent, GuestError>>;

/// The part of a guest's port that is about workspaces.
#[async_trait]
pub trait GuestWorkspaces: Send + Sync + 'static {
    /// Carries a workspace in. Dropped before its end, nothing was changed, or all of it.
    async fn prepare_workspace(
        &self,
        preparation: &WorkspacePreparation,
        parts: WorkspaceParts,
    ) -> Result<PrepareEvents, GuestError>;

    /// Tells all that was done in a workspace.
    async fn export_workspace(&self, view: &WorkspaceView) -> Result<ExportEvents, GuestError>;

    /// Tells how much was done in a workspace.
    async fn workspace_status(&self, view: &WorkspaceView) -> Result<Status, GuestError>;
}

/// What is wrong with a workspace. The words are the agent's reasons too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkspaceProblem {
    /// A repository needs git, and the guest has none.
    NoGit,
    /// The guest's git failed.
    GitFailed,
    /// A file could not be read or made.
    File,
    /// The snapshot is malformed.
    SnapshotInvalid,
    /// A content is not what its entry says.
    ContentMismatch,
    /// There is none.
    NotFound,
    /// Something is there that would be lost.
    HasWork,
    /// More than is allowed.
    TooLarge,
    /// Another preparation of it goes on.
    Busy,
    /// Another file system is mounted at its path.
    MountPoint,
    /// The snapshot was cut.
    Cut,
}

impl WorkspaceProblem {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NoGit,
        Self::GitFailed,
        Self::File,
        Self::SnapshotInvalid,
        Self::ContentMismatch,
        Self::NotFound,
        Self::HasWork,
        Self::TooLarge,
        Self::Busy,
        Self::MountPoint,
        Self::Cut,
    ];

    /// The stable word for it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoGit => "WORKSPACE_NO_GIT",
            Self::GitFailed => "WORKSPACE_GIT_FAILED",
            Self::File => "WORKSPACE_FILE",
            Self::SnapshotInvalid => "WORKSPACE_SNAPSHOT_INVALID",
            Self::ContentMismatch => "WORKSPACE_CONTENT_MISMATCH",
            Self::NotFound => "WORKSPACE_NOT_FOUND",
            Self::HasWork => "WORKSPACE_HAS_WORK",
            Self::TooLarge => "WORKSPACE_TOO_LARGE",
            Self::Busy => "WORKSPACE_BUSY",
            Self::MountPoint => "WORKSPACE_MOUNT_POINT",
            Self::Cut => "WORKSPACE_CUT",
        }
    }

    /// The problem that a word stands for.
    #[must_use]
    pub fn from_reason(reason: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|problem| problem.reason() == reason)
    }

    /// The kind of failure that it is.
    #[must_use]
    pub fn kind(self, path: &str) -> FailureKind {
        let precondition = |subject: &str| FailureKind::FailedPrecondition {
            subject: subject.to_owned(),
        };
        match self {
            Self::NoGit | Self::GitFailed => precondition("guest/git"),
            Self::File => precondition("guest/files"),
            Self::HasWork | Self::MountPoint => precondition("guest/workspace"),
            Self::SnapshotInvalid | Self::ContentMismatch => FailureKind::InvalidArgument {
                field: "part".into(),
            },
            Self::NotFound => FailureKind::NotFound {
                resource: "workspace".into(),
                name: path.to_owned(),
            },
            Self::TooLarge => FailureKind::ResourceExhausted {
                subject: "workspace/bytes".into(),
            },
            Self::Busy => FailureKind::Aborted,
            Self::Cut => FailureKind::Cancelled,
        }
    }

    /// What helps.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NoGit => {
                "Install git in the VM or in its image, or carry the tree as a plain directory, which needs none."
            }
            Self::GitFailed => {
                "Read what git says. Where the repository in the VM is damaged, copy its files with `banger cp`."
            }
            Self::File => {
                "Choose a path in a directory that the user may write to, on a disk with room for a second copy of what changes."
            }
            Self::SnapshotInvalid | Self::ContentMismatch => {
                "Send the snapshot as banger/workspace/v1/snapshot.proto says; the tree must not change while it is read."
            }
            Self::NotFound => "Give the path that the workspace was prepared at.",
            Self::HasWork => {
                "Export what was done there first, or choose another path, or have it overwritten."
            }
            Self::TooLarge => "Allow more bytes, or export with a later base.",
            Self::Busy => "Ask again when the other one has ended.",
            Self::MountPoint => {
                "Choose a path in a directory of that file system, as PATH/work: a workspace is replaced as a whole, and a mount cannot be."
            }
            Self::Cut => "Nothing was changed: send all of it again.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_word_of_its_own() {
        for problem in WorkspaceProblem::ALL {
            let reason = problem.reason();
            assert_eq!(WorkspaceProblem::from_reason(reason), Some(problem));
        }
        assert_eq!(WorkspaceProblem::from_reason("GUEST_SAYS_SO"), None);
    }
}
