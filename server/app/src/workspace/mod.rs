//! Workspaces: the way of a tree with git repositories into a running VM and out of it. What is kept here is what each
//! was made from, so that what was done since can be told though the VM forgets it.
//!
//! ```text
//! caller ─► parts ─► guest ─► prepared ─► remembered ─► told
//! ```
//! A preparation that has all its parts goes on without its caller: what is in the VM then is remembered.

mod base;
mod error;

use std::sync::Arc;

use banger_core::file::FilePlace;
use banger_core::guest::{Guest, GuestError};
use banger_core::workspace::{
    Base, Encoding, ExportEvent, Part, PrepareEvent, PreparedWorkspace, Status,
    WorkspacePreparation, WorkspaceView,
};
use banger_core::{Timestamp, VmId};
use banger_store::Workspace;
use banger_workspace::wire::{kept, kept_base};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

pub use error::WorkspaceError;

use self::base::Collected;
use crate::Context;
use crate::error::AppError;
use crate::vm::{Use, Vms};

/// Events of a preparation that wait for its caller.
const EVENTS_AHEAD: usize = 8;

/// A stream of what becomes of a call.
pub type Told<T> = BoxStream<'static, Result<T, AppError>>;

/// What a caller wants of a preparation.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// The VM's id or name.
    pub vm: String,
    /// Where to, and as whom.
    pub place: FilePlace,
    /// What is there is replaced whatever it is.
    pub overwrite: bool,
    /// The state that is replaced; empty means none.
    pub replaces_state: Bytes,
    /// The name on commits.
    pub author_name: String,
    /// The address on commits.
    pub author_email: String,
    /// A UUID, or empty.
    pub request_id: String,
}

/// What a caller wants to know of a workspace.
#[derive(Debug, Clone)]
pub struct View {
    /// The VM's id or name.
    pub vm: String,
    /// Where it is, and as whom it is looked at.
    pub place: FilePlace,
    /// What the caller has; none means what it was made from.
    pub base: Option<Base>,
    /// The most bytes; 0 means as many as are allowed.
    pub max_bytes: u64,
    /// How contents are told, where that makes them smaller; none: as they are.
    pub encoding: Option<Encoding>,
}

/// The workspaces of this host's VMs.
pub struct Workspaces {
    context: Arc<Context>,
    vms: Arc<Vms>,
}

impl std::fmt::Debug for Workspaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspaces").finish_non_exhaustive()
    }
}

fn failed(source: GuestError) -> AppError {
    AppError::Workspace(Box::new(WorkspaceError::Guest(source)))
}

impl Workspaces {
    pub(crate) fn new(context: &Arc<Context>, vms: &Arc<Vms>) -> Self {
        Self {
            context: context.clone(),
            vms: vms.clone(),
        }
    }

    async fn guest(&self, vm: &str) -> Result<(VmId, Arc<dyn Guest>, Use), AppError> {
        let (vm, guest, used) = self.vms.running(vm).await?;
        Ok((vm.id, guest, used))
    }

    /// Carries a workspace into a VM. `parts` is used until the snapshot's end.
    ///
    /// # Errors
    /// If the VM does not run, or its agent does not answer.
    pub async fn prepare(
        &self,
        preparation: Preparation,
        parts: BoxStream<'static, Part>,
    ) -> Result<Told<PrepareEvent>, AppError> {
        let (vm, guest, used) = self.guest(&preparation.vm).await?;
        let path = &preparation.place.path;
        let earlier = self.context.store.find_workspace(vm, path).await?;
        if let Some(done) = earlier.as_ref().filter(|earlier| {
            !preparation.request_id.is_empty() && earlier.request_id == preparation.request_id
        }) {
            let prepared = PreparedWorkspace {
                path: done.path.clone(),
                state: Bytes::copy_from_slice(&done.state),
                notes: Vec::new(),
            };
            let told = stream::iter([Ok(PrepareEvent::Prepared(prepared))]);
            return Ok(told.boxed());
        }
        let mut replaceable_states = vec![preparation.replaces_state.clone()];
        replaceable_states.extend(earlier.map(|earlier| Bytes::from(earlier.state)));
        replaceable_states.retain(|state| !state.is_empty());
        let asked = WorkspacePreparation {
            place: preparation.place.clone(),
            overwrite: preparation.overwrite,
            replaceable_states,
            author_name: preparation.author_name.clone(),
            author_email: preparation.author_email.clone(),
        };
        let collected = Collected::default();
        let parts = collected.watching(parts);
        let mut events = guest
            .prepare_workspace(&asked, parts)
            .await
            .map_err(failed)?;
        let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
        let context = self.context.clone();
        // Without its caller it goes on: when the caller has gone, so have the parts, or all of them came.
        self.context.tasks.spawn(async move {
            let _used = used;
            loop {
                let next = tokio::select! {
                    // cancel-safe: what is given up is the whole
                    next = events.next() => next,
                    // cancel-safe: holds no state
                    () = context.shutdown.cancelled() => return,
                };
                let Some(event) = next else {
                    return;
                };
                let (event, is_last) = match event {
                    // The agent goes on to remove what was there before: nobody waits for that.
                    Ok(PrepareEvent::Prepared(prepared)) => (
                        remember(&context, vm, &preparation, &collected, prepared).await,
                        true,
                    ),
                    other => (other.map_err(failed), false),
                };
                // Nobody need listen.
                let _ = sender.send(event).await;
                if is_last {
                    return;
                }
            }
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }

    /// Tells all that was done in a workspace.
    ///
    /// # Errors
    /// If the VM does not run, or its agent does not answer.
    pub async fn export(&self, view: View) -> Result<Told<ExportEvent>, AppError> {
        let (vm, guest, used) = self.guest(&view.vm).await?;
        let view = self.view(vm, view).await?;
        let events = guest.export_workspace(&view).await.map_err(failed)?;
        let told = stream::unfold((events, used), async |(mut events, used)| {
            let event = events.next().await?.map_err(failed);
            Some((event, (events, used)))
        });
        Ok(told.boxed())
    }

    /// Tells how much was done in a workspace, and what it is compared with.
    ///
    /// # Errors
    /// If the VM does not run, or its agent does not answer.
    pub async fn status(&self, view: View) -> Result<(Status, Base), AppError> {
        let (vm, guest, _used) = self.guest(&view.vm).await?;
        let view = self.view(vm, view).await?;
        let status = guest.workspace_status(&view).await.map_err(failed)?;
        Ok((status, view.base))
    }

    /// What is asked of the guest: what the caller does not say is what the workspace was made from.
    async fn view(&self, vm: VmId, view: View) -> Result<WorkspaceView, AppError> {
        let known = self
            .context
            .store
            .find_workspace(vm, &view.place.path)
            .await?;
        let mut place = view.place;
        if let Some(known) = known.as_ref().filter(|_| place.user.is_empty()) {
            place.user.clone_from(&known.user);
        }
        let base = match (view.base, &known) {
            (Some(base), _) => base,
            (None, Some(known)) => kept_base(&known.base).map_err(WorkspaceError::kept)?,
            (None, None) => Base::default(),
        };
        Ok(WorkspaceView {
            place,
            base,
            had_git: known.is_some_and(|known| known.has_git),
            max_bytes: view.max_bytes,
            encoding: view.encoding,
        })
    }
}

/// Keeps what a workspace was made from, before its caller knows that it is there.
async fn remember(
    context: &Context,
    vm: VmId,
    preparation: &Preparation,
    collected: &Collected,
    prepared: PreparedWorkspace,
) -> Result<PrepareEvent, AppError> {
    let base = collected.base();
    let workspace = Workspace {
        vm,
        path: prepared.path.clone(),
        asked_path: preparation.place.path.clone(),
        user: preparation.place.user.clone(),
        has_git: collected.has_git(),
        base: kept(&base),
        state: prepared.state.to_vec(),
        request_id: preparation.request_id.clone(),
        create_time: Timestamp::now(),
    };
    // A VM that is being removed takes the workspace with it.
    context.store.put_workspace(&workspace).await?;
    Ok(PrepareEvent::Prepared(prepared))
}
