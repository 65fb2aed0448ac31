//! What was done in a workspace, on its way back.

use std::future::IntoFuture;
use std::path::PathBuf;

use banger_proto::v1;
use banger_workspace::client::Error as WorkspaceError;
use banger_workspace::client::land::{Landed, Landing, Limits, Place};
use banger_workspace::command::Cancel;
use banger_workspace::wire::encoding::{decode, needs_decoding};
use banger_workspace::wire::{Base, Encoding, Fault, Part, Piece};
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::mpsc;
use v1::export_workspace_response::Message;

use super::prepare::Ends;
use super::{Way, Workspace, base_of, joined};
use crate::error::{Error, Result};

const CALL: &str = "ExportWorkspace";
/// Parts that wait to be written.
const PARTS_WAITING: usize = 4;

/// What was done in a workspace, brought here when this is awaited. When the connection breaks it is begun anew; until
/// all of it was checked nothing of it is in the repository.
#[must_use = "nothing is brought until this is awaited"]
pub struct ExportWorkspace {
    workspace: Workspace,
    to: PathBuf,
    state: PathBuf,
    plain: bool,
    since: Option<String>,
    limits: Limits,
    progress: Box<dyn FnMut(u64) + Send>,
}

impl std::fmt::Debug for ExportWorkspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExportWorkspace")
            .field("to", &self.to)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl ExportWorkspace {
    pub(super) fn new(workspace: Workspace, to: PathBuf) -> Self {
        Self {
            workspace,
            to,
            state: state_directory(),
            plain: false,
            since: None,
            limits: Limits::default(),
            progress: Box::new(|_| {}),
        }
    }

    /// As a directory without git, though it may lie in a repository.
    pub const fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// Brings all that this commit of the repository here does not lead to, whatever was brought before. So it needs not
    /// have been carried in: a repository that was cloned in the VM comes too. The VM may have only commits before it;
    /// where it has none of these, all of its history comes. Repositories inside come as they do without it.
    pub fn since(mut self, commit: impl Into<String>) -> Self {
        self.since = Some(commit.into());
        self
    }

    /// Refuses more than this.
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Keeps what comes for directories without a repository beneath this one, instead of in the user's directory of
    /// state.
    pub fn state_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state = directory.into();
        self
    }

    /// Calls back with how many bytes came.
    pub fn progress(mut self, callback: impl FnMut(u64) + Send + 'static) -> Self {
        self.progress = Box::new(callback);
        self
    }

    async fn run(mut self) -> Result<Landed> {
        let vm = self.workspace.vm_name().await?;
        let mut retry = self.workspace.client.retry();
        loop {
            match self.once(&vm).await {
                Ok(landed) => return Ok(landed),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    async fn once(&mut self, vm: &str) -> Result<Landed> {
        let cancel = Cancel::default();
        let _ends = Ends(cancel.clone());
        let (to, state, plain) = (self.to.clone(), self.state.clone(), self.plain);
        let found = tokio::task::spawn_blocking(move || {
            Place::find(&to, &state, plain, &cancel).map_err(Error::from)
        });
        let place = joined(found.await, CALL)?;
        let prepared = self.workspace.status().await?.base;
        let (here, name, since) = (place.clone(), vm.to_owned(), self.since.clone());
        let base = tokio::task::spawn_blocking(move || {
            Ok(base_of(&here, &name, &prepared, since.as_deref())?)
        });
        let base = joined(base.await, CALL)?;
        let (parts, mut come) = mpsc::channel::<Part>(PARTS_WAITING);
        let (name, limits, known) = (vm.to_owned(), self.limits, base.clone());
        let landing = tokio::task::spawn_blocking(move || -> Result<Landed> {
            let mut landing = Landing::begin(&place, &name, &known, limits)?;
            while let Some(part) = come.blocking_recv() {
                landing.part(part)?;
            }
            Ok(landing.finish()?)
        });
        let taken = self.take(base, parts).await;
        let landed = joined(landing.await, CALL);
        match (taken, landed) {
            // What came was refused: that it was then not taken to its end says nothing.
            (_, Err(error)) if !is_cut(&error) => Err(error),
            (Err(error), _) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(landed)) => Ok(landed),
        }
    }

    async fn take(&mut self, base: Base, parts: mpsc::Sender<Part>) -> Result<()> {
        let way = self.workspace.way();
        let bytes = i64::try_from(self.limits.bytes).unwrap_or(i64::MAX);
        let request = v1::ExportWorkspaceRequest {
            vm: self.workspace.vm.clone(),
            user: self.workspace.user.clone(),
            path: self.workspace.path.clone(),
            base: Some(base),
            max_bytes: bytes,
            accepted_encodings: match way {
                Way::Network => vec![Encoding::Zlib.into()],
                Way::Socket => Vec::new(),
            },
        };
        let answer = self.workspace.rpc().export_workspace(request).await;
        let mut stream = self.workspace.client.watched(answer, CALL)?;
        let mut came: u64 = 0;
        while let Some(answer) = stream.next().await? {
            let Some(Message::Part(part)) = answer.message else {
                continue;
            };
            let part = match way {
                Way::Network => decoded(part).await?,
                Way::Socket => part,
            };
            came += match &part.part {
                Some(Piece::Pack(pack)) => pack.data.len() as u64,
                Some(Piece::Content(content)) => content.data.len() as u64,
                _ => 0,
            };
            (self.progress)(came);
            if parts.send(part).await.is_err() {
                // Whoever takes it has refused it, and says why.
                return Ok(());
            }
        }
        Ok(())
    }
}

impl IntoFuture for ExportWorkspace {
    type Output = Result<Landed>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// The part as it is.
async fn decoded(mut part: Part) -> Result<Part> {
    if !needs_decoding(&part) {
        return Ok(part);
    }
    let decoding = tokio::task::spawn_blocking(move || {
        decode(&mut part).map_err(WorkspaceError::Snapshot)?;
        Ok(part)
    });
    joined(decoding.await, CALL)
}

fn is_cut(error: &Error) -> bool {
    matches!(
        error,
        Error::Workspace(WorkspaceError::Snapshot(Fault::Cut))
    )
}

/// Where what is known of directories without a repository is kept: `$XDG_STATE_HOME/banger/workspaces`.
#[must_use]
pub fn state_directory() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = variable("XDG_STATE_HOME").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = state.or_else(home).unwrap_or_else(std::env::temp_dir);
    state.join("banger/workspaces")
}
