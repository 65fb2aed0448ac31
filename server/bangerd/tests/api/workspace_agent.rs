//! The workspaces of agents that are no processes: there are none, and the path says why.

use banger_core::file::FilePlace;
use banger_core::guest::GuestError;
use banger_core::workspace::{
    ExportEvents, GuestWorkspaces, PrepareEvents, Status, WorkspaceParts, WorkspacePreparation,
    WorkspaceProblem, WorkspaceView,
};

use crate::agent::FakeGuest;

/// At `/REASON` the refusal with that reason, at any other path that nothing is there.
fn refused(place: &FilePlace) -> GuestError {
    let path = String::from_utf8_lossy(&place.path).into_owned();
    let reason = path.trim_start_matches('/');
    GuestError::Workspace {
        problem: WorkspaceProblem::from_reason(reason).unwrap_or(WorkspaceProblem::NotFound),
        path,
        detail: "words of the guest".into(),
    }
}

#[tonic::async_trait]
impl GuestWorkspaces for FakeGuest {
    async fn prepare_workspace(
        &self,
        preparation: &WorkspacePreparation,
        _: WorkspaceParts,
    ) -> Result<PrepareEvents, GuestError> {
        Err(refused(&preparation.place))
    }

    async fn export_workspace(&self, view: &WorkspaceView) -> Result<ExportEvents, GuestError> {
        Err(refused(&view.place))
    }

    async fn workspace_status(&self, view: &WorkspaceView) -> Result<Status, GuestError> {
        Err(refused(&view.place))
    }
}
