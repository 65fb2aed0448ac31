//! What can be wrong with a call about a VM's workspaces.

use banger_core::guest::GuestError;
use banger_core::{Explain, FailureKind};
use banger_workspace::wire::Fault;

use crate::error::AppError;

/// Why a call about a workspace failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The guest.
    #[error("{0}")]
    Guest(GuestError),
    /// What is remembered of the workspace cannot be read.
    #[error("what is remembered of the workspace cannot be read")]
    Kept {
        /// Why.
        #[source]
        source: Fault,
    },
}

impl WorkspaceError {
    pub(super) fn kept(source: Fault) -> AppError {
        AppError::Workspace(Box::new(Self::Kept { source }))
    }
}

impl Explain for WorkspaceError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Guest(GuestError::UnknownUser { .. }) => FailureKind::InvalidArgument {
                field: "user".into(),
            },
            Self::Guest(error) => error.kind(),
            Self::Kept { .. } => FailureKind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Guest(error) => error.reason(),
            Self::Kept { .. } => "WORKSPACE_RECORD_INVALID",
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Guest(error) => error.remedy(),
            Self::Kept { .. } => Some("Say in the request what the base is.".to_owned()),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Guest(error) => error.metadata(),
            Self::Kept { .. } => Vec::new(),
        }
    }
}
