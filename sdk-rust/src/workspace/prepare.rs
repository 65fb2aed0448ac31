//! A workspace on its way into a VM.

use std::future::IntoFuture;
use std::path::PathBuf;

use banger_proto::v1;
use banger_workspace::client::collect::{Options, Source};
use banger_workspace::client::land::Place;
use banger_workspace::client::plain::Carried;
use banger_workspace::client::{Error as WorkspaceError, LocalRepository};
use banger_workspace::command::Cancel;
use banger_workspace::wire::encoding::Encoder;
use banger_workspace::wire::{Entry, KnownRepository, Note, Part, chosen};
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;
use v1::prepare_workspace_request::Message;
use v1::prepare_workspace_response::Message as Answer;

use super::export::state_directory;
use super::{Way, Workspace, joined};
use crate::error::{Error, Result};
use crate::stream::Messages;

const CALL: &str = "PrepareWorkspace";
/// Parts on their way: a few megabytes.
const PARTS_AHEAD: usize = 4;
/// Answers that wait for the thread that sends.
const ANSWERS_WAITING: usize = 64;

/// A workspace that is carried into a VM when this is awaited. When the connection breaks it is begun anew, and what the
/// VM has by then is not sent again.
#[must_use = "nothing is sent until this is awaited"]
pub struct PrepareWorkspace {
    workspace: Workspace,
    from: PathBuf,
    options: Options,
    start: v1::PrepareWorkspaceStart,
    state: PathBuf,
    progress: Box<dyn FnMut(u64) + Send>,
}

/// A workspace is in a VM.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Where, as an absolute path.
    pub path: String,
    /// What could not be collected here or made there, and what else the caller must know.
    pub notes: Vec<Note>,
    /// The top of what was carried.
    pub top: PathBuf,
    /// Whether that is a repository.
    pub is_git: bool,
}

impl std::fmt::Debug for PrepareWorkspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrepareWorkspace")
            .field("from", &self.from)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl PrepareWorkspace {
    pub(super) fn new(workspace: Workspace, from: PathBuf) -> Self {
        let start = v1::PrepareWorkspaceStart {
            vm: workspace.vm.clone(),
            user: workspace.user.clone(),
            path: workspace.path.clone(),
            request_id: Uuid::new_v4().to_string(),
            ..v1::PrepareWorkspaceStart::default()
        };
        Self {
            workspace,
            from,
            options: Options::default(),
            start,
            state: state_directory(),
            progress: Box::new(|_| {}),
        }
    }

    /// The tree of this revision, instead of the working tree with what is not committed.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.options.revision = Some(revision.into());
        self
    }

    /// Only so many commits back; then without branches and tags but those that are named.
    pub const fn depth(mut self, commits: u32) -> Self {
        self.options.depth = commits;
        self
    }

    /// This branch, and not all branches and tags; again for more.
    pub fn branch(mut self, branch: impl Into<String>) -> Self {
        self.options.branches.push(branch.into());
        self
    }

    /// Ignored files whose paths fit this pattern too; again for more.
    pub fn include(mut self, pattern: impl Into<String>) -> Self {
        self.options.include.push(pattern.into());
        self
    }

    /// The directory with all that is in it, without git.
    pub const fn plain(mut self) -> Self {
        self.options.plain = true;
        self
    }

    /// Replaces what is at the path in the VM, whatever was done there.
    pub const fn overwrite(mut self) -> Self {
        self.start.overwrite = true;
        self
    }

    /// Name and address on commits that are made in the VM.
    pub fn author(mut self, name: impl Into<String>, email: impl Into<String>) -> Self {
        self.start.author_name = name.into();
        self.start.author_email = email.into();
        self
    }

    /// Remembers what a directory without a repository was beneath this one, instead of in the user's directory of state.
    pub fn state_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state = directory.into();
        self
    }

    /// Calls back with how many bytes the VM has taken.
    pub fn progress(mut self, callback: impl FnMut(u64) + Send + 'static) -> Self {
        self.progress = Box::new(callback);
        self
    }

    async fn run(mut self) -> Result<Prepared> {
        let name = self.workspace.vm_name().await?;
        let (from, vm, state) = (self.from.clone(), name.clone(), self.state.clone());
        let plain = self.options.plain;
        let told = tokio::task::spawn_blocking(move || Ok(told_here(&from, &vm, &state, plain)));
        let (state, author) = joined(told.await, CALL)?;
        self.start.replaces_state = state.into();
        if self.start.author_name.is_empty()
            && let Some((name, email)) = author
        {
            self.start.author_name = name;
            self.start.author_email = email;
        }
        let mut retry = self.workspace.client.retry();
        loop {
            match self.once(&name).await {
                Ok(prepared) => return Ok(prepared),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    async fn once(&mut self, vm: &str) -> Result<Prepared> {
        let (out, requests) = mpsc::channel(PARTS_AHEAD);
        let (answers, told) = mpsc::channel(ANSWERS_WAITING);
        let cancel = Cancel::default();
        let _ends = Ends(cancel.clone());
        let start = v1::PrepareWorkspaceRequest {
            message: Some(Message::Start(self.start.clone())),
        };
        let (from, options) = (self.from.clone(), self.options.clone());
        let (vm, state) = (vm.to_owned(), self.state.clone());
        let way = self.workspace.way();
        let sending = tokio::task::spawn_blocking(move || -> Result<Sent> {
            let source = Source::open(&from, &options, &cancel)?;
            send(source, &out, start, told, way, |top| {
                Carried::of(top, &vm, &state).ok()
            })
        });
        let taking = self.take(requests, answers);
        tokio::pin!(sending, taking);
        // The one that fails first says why; both must end well.
        let (sent, prepared) = tokio::select! {
            // kept: the other is awaited too, unless this failed
            sent = &mut sending => {
                let sent = joined(sent, CALL);
                match sent {
                    Ok(sent) => (sent, taking.await?),
                    Err(Error::Workspace(WorkspaceError::Gone)) => {
                        taking.await?;
                        return Err(Error::cut_short(CALL));
                    }
                    Err(error) => return Err(error),
                }
            }
            // kept: the thread ends by itself when nobody takes what it sends
            prepared = &mut taking => {
                let prepared = prepared?;
                (joined(sending.await, CALL)?, prepared)
            }
        };
        if let Some((carried, entries)) = sent.carried {
            let kept = tokio::task::spawn_blocking(move || Ok(carried.sent(&entries)));
            // Nothing is lost without it: what is not known to be as it was carried, no apply overwrites.
            let _ = joined(kept.await, CALL)?;
        }
        let mut notes = sent.notes;
        notes.extend(prepared.notes);
        Ok(Prepared {
            path: prepared.path,
            notes,
            top: sent.top,
            is_git: sent.is_git,
        })
    }

    async fn take(
        &mut self,
        requests: mpsc::Receiver<v1::PrepareWorkspaceRequest>,
        answers: mpsc::Sender<Answer>,
    ) -> Result<v1::PreparedWorkspace> {
        let requests = Messages::new(ReceiverStream::new(requests));
        let answer = self.workspace.rpc().prepare_workspace(requests).await;
        let mut stream = self.workspace.client.watched(answer, CALL)?;
        while let Some(answer) = stream.next().await? {
            match answer.message {
                Some(answer @ (Answer::Known(_) | Answer::Needed(_))) => {
                    // Whoever sends may have failed, and then says why.
                    let _ = answers.send(answer).await;
                }
                Some(Answer::ProgressBytes(bytes)) => {
                    (self.progress)(u64::try_from(bytes).unwrap_or_default());
                }
                Some(Answer::Prepared(prepared)) => return Ok(prepared),
                Some(Answer::Heartbeat(_)) | None => {}
            }
        }
        Err(Error::cut_short(CALL))
    }
}

impl IntoFuture for PrepareWorkspace {
    type Output = Result<Prepared>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// Ends git when whoever wanted it has gone.
pub(super) struct Ends(pub(super) Cancel);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// What the thread that sends has to tell.
struct Sent {
    top: PathBuf,
    is_git: bool,
    notes: Vec<Note>,
    /// Where it is remembered what a directory without git was, and that.
    carried: Option<(Carried, Vec<Entry>)>,
}

/// Sends a workspace, in step with what the other side says.
fn send(
    mut source: Source,
    out: &mpsc::Sender<v1::PrepareWorkspaceRequest>,
    start: v1::PrepareWorkspaceRequest,
    mut told: mpsc::Receiver<Answer>,
    way: Way,
    carried: impl FnOnce(&std::path::Path) -> Option<Carried>,
) -> Result<Sent> {
    let gone = || Error::Workspace(WorkspaceError::Gone);
    out.blocking_send(start).map_err(|_| gone())?;
    let mut known: Vec<KnownRepository> = Vec::new();
    let accepted = loop {
        if let Answer::Known(more) = told.blocking_recv().ok_or_else(gone)? {
            known.extend(more.repositories);
            if more.is_last {
                break more.encodings;
            }
        }
    };
    let encoding = chosen(&accepted).filter(|_| way == Way::Network);
    let mut encoder = encoding.map(Encoder::new);
    let mut sink = |mut part: Part| {
        if let Some(encoder) = &mut encoder {
            encoder.encode(&mut part);
        }
        let message = v1::PrepareWorkspaceRequest {
            message: Some(Message::Part(part)),
        };
        out.blocking_send(message).map_err(|_| WorkspaceError::Gone)
    };
    source.send_manifest(&known, &mut sink)?;
    let mut needed = Vec::new();
    loop {
        if let Answer::Needed(more) = told.blocking_recv().ok_or_else(gone)? {
            needed.extend(more.entries);
            if more.is_last {
                break;
            }
        }
    }
    let mut kept = None;
    if let Some(entries) = source.plain_entries()
        && let Some(carried) = carried(source.top())
    {
        // From here on the VM may have it. Without this, as where it cannot be written, an apply refuses more.
        let _ = carried.sending(entries);
        kept = Some((carried, entries.to_vec()));
    }
    source.send_contents(&needed, &mut sink)?;
    Ok(Sent {
        carried: kept,
        top: source.top().to_owned(),
        is_git: source.is_git(),
        notes: source.notes().to_vec(),
    })
}

/// The state that was exported last, and who makes commits here. That neither is known is no failure.
fn told_here(
    from: &std::path::Path,
    vm: &str,
    state: &std::path::Path,
    plain: bool,
) -> (Vec<u8>, Option<(String, String)>) {
    let Ok(place) = Place::find(from, state, plain, &Cancel::default()) else {
        return (Vec::new(), None);
    };
    let identity = place.repository().map(LocalRepository::identity);
    let identity = identity.and_then(|told| told.ok().flatten());
    (place.exported_state(vm).unwrap_or_default(), identity)
}
