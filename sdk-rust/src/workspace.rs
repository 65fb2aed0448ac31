//! Workspaces: a repository of this machine into a VM, and what was done there back.

use std::path::PathBuf;

use banger_proto::v1;
use banger_workspace::client::land::Place;
use banger_workspace::client::{
    Error as WorkspaceError, Expected, LocalRepository, expected_conflicts,
};
use banger_workspace::command::Cancel;
use banger_workspace::wire::{Base, Status};
use v1::workspace_service_client::WorkspaceServiceClient;

use crate::client::Client;
use crate::error::{Error, Result};

mod export;
mod prepare;
mod tar;

pub use export::{ExportWorkspace, state_directory};
pub use prepare::{PrepareWorkspace, Prepared};
pub use tar::write_tar;

/// A workspace in a VM.
#[derive(Debug, Clone)]
pub struct Workspace {
    client: Client,
    vm: String,
    user: String,
    path: String,
}

/// How contents go: over a network in fewer bytes where both sides can, over a socket as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Socket,
    Network,
}

/// How a workspace differs from what was prepared.
#[derive(Debug, Clone)]
pub struct WorkspaceStatus {
    /// How.
    pub status: Status,
    /// What it is compared with.
    pub base: Base,
}

impl Workspace {
    pub(crate) const fn new(client: Client, vm: String, path: String) -> Self {
        Self {
            client,
            vm,
            user: String::new(),
            path,
        }
    }

    /// As this user of the VM. Without it as the one that it was prepared as, at first the VM's default user.
    #[must_use]
    pub fn as_user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    fn way(&self) -> Way {
        match self.client.host().network() {
            Some(_) => Way::Network,
            None => Way::Socket,
        }
    }

    fn rpc(&self) -> WorkspaceServiceClient<tonic::transport::Channel> {
        WorkspaceServiceClient::new(self.client.channel())
    }

    /// The VM's name, which is part of references here.
    async fn vm_name(&self) -> Result<String> {
        let vm = self.client.vms().get(&self.vm).await?;
        let name = vm.spec.map(|spec| spec.name).unwrap_or_default();
        Ok(match name.is_empty() {
            true => vm.id,
            false => name,
        })
    }

    /// Carries the repository or directory at `from` into the VM.
    pub fn prepare(&self, from: impl Into<PathBuf>) -> PrepareWorkspace {
        PrepareWorkspace::new(self.clone(), from.into())
    }

    /// Brings what was done in the VM to the repository or directory at `to`: checked, as references beneath
    /// `refs/banger/`, the working tree untouched.
    pub fn export(&self, to: impl Into<PathBuf>) -> ExportWorkspace {
        ExportWorkspace::new(self.clone(), to.into())
    }

    /// How it differs from what was prepared, without bringing it.
    ///
    /// # Errors
    /// When there is none, or the daemon cannot be asked.
    pub async fn status(&self) -> Result<WorkspaceStatus> {
        self.status_against(None).await
    }

    /// The same beside the repository at `here`: what was brought there before is not counted again, and files are told
    /// that were changed on both sides since the workspace was prepared.
    ///
    /// # Errors
    /// As [`Workspace::status`], and if the repository here cannot be read.
    pub async fn status_beside(
        &self,
        here: impl Into<PathBuf>,
    ) -> Result<(WorkspaceStatus, Expected)> {
        self.status_from(here.into(), None).await
    }

    /// The same since this commit of the repository at `here`, instead of since the workspace was prepared, and whatever
    /// was brought before: what [`ExportWorkspace::since`] would bring.
    ///
    /// # Errors
    /// As [`Workspace::status_beside`], and if there is no repository here, or none of its commits is `since`.
    pub async fn status_since(
        &self,
        here: impl Into<PathBuf>,
        since: impl Into<String>,
    ) -> Result<(WorkspaceStatus, Expected)> {
        self.status_from(here.into(), Some(since.into())).await
    }

    async fn status_from(
        &self,
        here: PathBuf,
        since: Option<String>,
    ) -> Result<(WorkspaceStatus, Expected)> {
        const CALL: &str = "GetWorkspaceStatus";
        let prepared = self.status().await?.base;
        let vm = self.vm_name().await?;
        let known = tokio::task::spawn_blocking(move || {
            let Some(found) = LocalRepository::find(&here, &Cancel::default())? else {
                return match since {
                    Some(_) => Err(WorkspaceError::NoRepository { path: here }.into()),
                    None => Ok((None, None)),
                };
            };
            let place = Place::of(found);
            let known = base_of(&place, &vm, &prepared, since.as_deref())?;
            Ok((Some(place), Some(known)))
        });
        let (place, known) = joined(known.await, CALL)?;
        let status = self.status_against(known).await?;
        let Some(place) = place else {
            return Ok((status, Expected::default()));
        };
        let compared = tokio::task::spawn_blocking(move || {
            let expected = expected_conflicts(&place, &status.base, &status.status)?;
            Ok((status, expected))
        });
        joined(compared.await, CALL)
    }

    async fn status_against(&self, base: Option<Base>) -> Result<WorkspaceStatus> {
        const CALL: &str = "GetWorkspaceStatus";
        let request = v1::GetWorkspaceStatusRequest {
            vm: self.vm.clone(),
            user: self.user.clone(),
            path: self.path.clone(),
            base,
        };
        let call = || async { self.rpc().get_workspace_status(request.clone()).await };
        let answer = self.client.repeat(CALL, call).await?;
        Ok(WorkspaceStatus {
            status: answer.status.ok_or(Error::Protocol {
                during: CALL,
                detail: "no status",
            })?,
            base: answer.base.unwrap_or_default(),
        })
    }
}

/// What of a workspace is here, or what since a commit is wanted of it.
fn base_of(
    place: &Place,
    vm: &str,
    prepared: &Base,
    since: Option<&str>,
) -> std::result::Result<Base, WorkspaceError> {
    match since {
        Some(commit) => place.base_since(vm, prepared, commit),
        None => place.base(vm, prepared),
    }
}

/// What a thread of ours came to.
fn joined<T>(
    ended: std::result::Result<Result<T>, tokio::task::JoinError>,
    during: &'static str,
) -> Result<T> {
    ended.unwrap_or(Err(Error::Protocol {
        during,
        detail: "a thread of the client ended early",
    }))
}
