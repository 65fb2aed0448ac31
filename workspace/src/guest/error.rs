//! Why a workspace could not be made, told or looked at.

use std::io;
use std::path::Path;

use crate::command::GitError;
use crate::wire::Fault;

/// Why the half in the VM did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// git is needed, and there is none.
    #[error("the VM has no git, which a repository needs")]
    NoGit,
    /// git failed.
    #[error("git failed")]
    Git(#[source] GitError),
    /// A file could not be read or made.
    #[error("{step} `{path}`")]
    File {
        /// What was done.
        step: &'static str,
        /// To which.
        path: String,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// The snapshot that came is none.
    #[error("the snapshot is malformed")]
    Snapshot(#[source] Fault),
    /// A file's content is not what its entry says.
    #[error("the content of `{path}` is not what its entry says")]
    Content {
        /// Which.
        path: String,
    },
    /// There is nothing at the path.
    #[error("there is no workspace at `{path}`")]
    NotFound {
        /// Where.
        path: String,
    },
    /// Something is there that would be lost.
    #[error("`{path}` holds work that was not exported: {detail}")]
    Occupied {
        /// Where.
        path: String,
        /// What.
        detail: String,
    },
    /// The snapshot has more than is allowed.
    #[error("the workspace's history has more than {limit} bytes that were not sent before")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// Another preparation of the same workspace goes on.
    #[error("another preparation of `{path}` goes on")]
    Busy {
        /// Where.
        path: String,
    },
    /// Another file system is mounted at the path, and no tree can take its place.
    #[error(
        "another file system is mounted at `{path}`, and a workspace takes the place of what is at its path"
    )]
    MountPoint {
        /// Where.
        path: String,
    },
    /// The host has gone.
    #[error("the host has gone")]
    Gone,
}

impl WorkError {
    /// A stable word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoGit => "WORKSPACE_NO_GIT",
            Self::Git(_) => "WORKSPACE_GIT_FAILED",
            Self::File { .. } => "WORKSPACE_FILE",
            Self::Snapshot(_) => "WORKSPACE_SNAPSHOT_INVALID",
            Self::Content { .. } => "WORKSPACE_CONTENT_MISMATCH",
            Self::NotFound { .. } => "WORKSPACE_NOT_FOUND",
            Self::Occupied { .. } => "WORKSPACE_HAS_WORK",
            Self::TooLarge { .. } => "WORKSPACE_TOO_LARGE",
            Self::Busy { .. } => "WORKSPACE_BUSY",
            Self::MountPoint { .. } => "WORKSPACE_MOUNT_POINT",
            Self::Gone => "WORKSPACE_CUT",
        }
    }

    pub(super) fn file(
        step: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        move |source| Self::File { step, path, source }
    }
}

impl From<GitError> for WorkError {
    fn from(error: GitError) -> Self {
        match error {
            GitError::NotFound => Self::NoGit,
            GitError::Cancelled => Self::Gone,
            error => Self::Git(error),
        }
    }
}

impl From<Fault> for WorkError {
    fn from(fault: Fault) -> Self {
        Self::Snapshot(fault)
    }
}
