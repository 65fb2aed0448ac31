//! The answers to the host's calls about workspaces.

use std::sync::Arc;
use std::time::Duration;

use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::export_workspace_response::Message as Exported;
use banger_proto::guest::v1::prepare_workspace_request::Message as Sent;
use banger_proto::guest::v1::prepare_workspace_response::Message as Told;
use banger_proto::guest::v1::workspace_service_server::WorkspaceService;
use banger_proto::workspace::v1::Part;
use banger_workspace::command::Cancel;
use banger_workspace::guest::{
    Answer, Export, Restore, Restored, StatusRequest, export, restore, status,
};
use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::{CALLS_MAX, Parents, place, refusal};
use crate::agent::Agent;
use crate::file::{Here, enter};
use crate::refusal::Refusal;
use crate::service::Events;

type Reply<T> = Result<Response<T>, Status>;

/// Messages between a thread and the channel: a few megabytes at most.
const MESSAGES_AHEAD: usize = 4;
/// The longest silence of a call that goes on.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// States of workspaces that may be replaced.
const STATES_MAX: usize = 16;
/// Bytes of a name or an address on commits.
const AUTHOR_MAX_BYTES: usize = 1024;

/// The part of the guest protocol about workspaces, over an [`Agent`].
#[derive(Debug)]
pub(crate) struct GuestWorkspaceService {
    agent: Arc<Agent>,
}

impl GuestWorkspaceService {
    /// Answers for `agent`.
    pub(crate) fn new(agent: Arc<Agent>) -> Self {
        Self { agent }
    }

    /// Does `work` as `user` where it may block, and delivers what it says. It is ended when nobody listens any more.
    async fn stream<M: Send + 'static>(
        &self,
        user: String,
        beat: fn() -> M,
        work: impl FnOnce(
            &Arc<Agent>,
            &Here,
            &Cancel,
            &(dyn Fn(M) -> bool + Sync),
        ) -> Result<(), Refusal>
        + Send
        + 'static,
    ) -> Result<Events<M>, Status> {
        self.agent.ready().await.map_err(Status::from)?;
        let places = Arc::clone(&self.agent.workspace_calls.0);
        let place = places
            .try_acquire_owned()
            .map_err(|_| Refusal::TooManyWorkspaceCalls { limit: CALLS_MAX })?;
        let (sender, receiver) = mpsc::channel::<Result<M, Status>>(MESSAGES_AHEAD);
        let cancel = Cancel::default();
        let (watched, cancelled) = (sender.clone(), cancel.clone());
        let (done, is_done) = tokio::sync::oneshot::channel::<()>();
        self.agent.tasks.spawn(async move {
            tokio::select! {
                // cancel-safe: holds no state
                () = watched.closed() => cancelled.cancel(),
                // cancel-safe: it has ended by itself
                _ = is_done => {}
            }
        });
        let agent = Arc::clone(&self.agent);
        self.agent.tasks.spawn_blocking(move || {
            let (_place, _done) = (place, done);
            let deliver = |message| sender.blocking_send(Ok(message)).is_ok();
            if let Err(refusal) = enter(&agent, &user, |here| work(&agent, here, &cancel, &deliver))
            {
                // Nobody waits for it where the host has gone.
                let _ = sender.blocking_send(Err(refusal.into()));
            }
        });
        Ok(beating(receiver, beat))
    }
}

/// What comes, with something in every silence.
fn beating<M: Send + 'static>(
    receiver: mpsc::Receiver<Result<M, Status>>,
    beat: fn() -> M,
) -> Events<M> {
    let next = move |mut receiver: mpsc::Receiver<Result<M, Status>>| async move {
        let item = match timeout(HEARTBEAT, receiver.recv()).await {
            Ok(item) => item?,
            Err(_) => Ok(beat()),
        };
        Some((item, receiver))
    };
    Box::pin(stream::unfold(receiver, next))
}

fn told(message: Told) -> proto::PrepareWorkspaceResponse {
    proto::PrepareWorkspaceResponse {
        message: Some(message),
    }
}

fn exported(message: Exported) -> proto::ExportWorkspaceResponse {
    proto::ExportWorkspaceResponse {
        message: Some(message),
    }
}

/// Where a workspace is.
fn wanted(place: Option<proto::WorkspacePlace>) -> Result<proto::WorkspacePlace, Refusal> {
    place.ok_or_else(|| Refusal::invalid("there is no place"))
}

/// How a workspace is made, by the first message.
fn request(start: &proto::PrepareWorkspaceStart) -> Result<Restore, Refusal> {
    let authors = [&start.author_name, &start.author_email];
    let is_fit =
        |text: &&String| text.len() <= AUTHOR_MAX_BYTES && !text.contains(char::is_control);
    if start.replaceable_states.len() > STATES_MAX || !authors.iter().all(is_fit) {
        return Err(Refusal::invalid("the first message has too much in it"));
    }
    Ok(Restore {
        overwrite: start.overwrite,
        replaceable_states: start.replaceable_states.clone(),
        author_name: start.author_name.clone(),
        author_email: start.author_email.clone(),
    })
}

#[tonic::async_trait]
impl WorkspaceService for GuestWorkspaceService {
    type PrepareWorkspaceStream = Events<proto::PrepareWorkspaceResponse>;

    async fn prepare_workspace(
        &self,
        request: Request<Streaming<proto::PrepareWorkspaceRequest>>,
    ) -> Reply<Self::PrepareWorkspaceStream> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|first| first.message);
        let Some(Sent::Start(start)) = first else {
            return Err(Refusal::invalid("the first message is not `start`").into());
        };
        let wish = self::request(&start)?;
        let at = wanted(start.place)?;
        let user = at.user.clone();
        let (sender, mut parts) = mpsc::channel::<Part>(MESSAGES_AHEAD);
        self.agent.tasks.spawn(feed(incoming, sender));
        let work = move |agent: &Arc<Agent>,
                         here: &Here,
                         cancel: &Cancel,
                         deliver: &(dyn Fn(_) -> bool + Sync)| {
            let place = place(agent, here, &at.path, Parents::Made, cancel)?;
            let mut answer = |answer| {
                deliver(told(match answer {
                    Answer::Known(known) => Told::Known(known),
                    Answer::Needed(needed) => Told::Needed(needed),
                    Answer::Progress(bytes) => {
                        Told::ProgressBytes(i64::try_from(bytes).unwrap_or(i64::MAX))
                    }
                }))
            };
            let made = restore(&place, &wish, &mut || parts.blocking_recv(), &mut answer);
            let Restored {
                state,
                notes,
                former,
            } = made.map_err(|error| refusal(&error, &at.path))?;
            deliver(told(Told::Prepared(proto::PreparedWorkspace {
                path: Bytes::from(place.path.into_os_string().into_encoded_bytes()),
                state: Bytes::copy_from_slice(&state),
                notes,
            })));
            drop(former);
            Ok(())
        };
        let beat = || told(Told::Heartbeat(proto::Heartbeat {}));
        Ok(Response::new(self.stream(user, beat, work).await?))
    }

    type ExportWorkspaceStream = Events<proto::ExportWorkspaceResponse>;

    async fn export_workspace(
        &self,
        request: Request<proto::ExportWorkspaceRequest>,
    ) -> Reply<Self::ExportWorkspaceStream> {
        let request = request.into_inner();
        let at = wanted(request.place)?;
        let wish = Export {
            base: request.base.unwrap_or_default(),
            had_git: request.had_git,
            max_bytes: u64::try_from(request.max_bytes).unwrap_or_default(),
        };
        let user = at.user.clone();
        let work = move |agent: &Arc<Agent>,
                         here: &Here,
                         cancel: &Cancel,
                         deliver: &(dyn Fn(_) -> bool + Sync)| {
            let place = place(agent, here, &at.path, Parents::Left, cancel)?;
            let mut deliver = |part| deliver(exported(Exported::Part(part)));
            export(&place, &wish, &mut deliver).map_err(|error| refusal(&error, &at.path))
        };
        let beat = || exported(Exported::Heartbeat(proto::Heartbeat {}));
        Ok(Response::new(self.stream(user, beat, work).await?))
    }

    async fn get_workspace_status(
        &self,
        request: Request<proto::GetWorkspaceStatusRequest>,
    ) -> Reply<proto::GetWorkspaceStatusResponse> {
        let request = request.into_inner();
        let at = wanted(request.place)?;
        let wish = StatusRequest {
            base: request.base.unwrap_or_default(),
            had_git: request.had_git,
        };
        let user = at.user.clone();
        let work = move |agent: &Arc<Agent>,
                         here: &Here,
                         cancel: &Cancel,
                         deliver: &(dyn Fn(_) -> bool + Sync)| {
            let found = match place(agent, here, &at.path, Parents::Left, cancel) {
                Ok(place) => status(&place, &wish).map_err(|error| refusal(&error, &at.path))?,
                // Not even the directory in which it would be.
                Err(Refusal::Path {
                    problem: crate::refusal::Problem::NotFound,
                    ..
                }) => banger_proto::workspace::v1::Status::default(),
                Err(other) => return Err(other),
            };
            deliver(Some(found));
            Ok(())
        };
        let mut answers = self.stream(user, || None, work).await?;
        loop {
            match futures::StreamExt::next(&mut answers).await {
                Some(Ok(None)) => {}
                Some(Ok(status)) => {
                    return Ok(Response::new(proto::GetWorkspaceStatusResponse { status }));
                }
                Some(Err(status)) => return Err(status),
                None => return Err(Refusal::invalid("the agent's thread panicked").into()),
            }
        }
    }
}

/// Hands on the parts. A stream that is cut looks like one that ends, which the snapshot's own end tells apart.
async fn feed(mut incoming: Streaming<proto::PrepareWorkspaceRequest>, parts: mpsc::Sender<Part>) {
    while let Ok(Some(request)) = incoming.message().await {
        let Some(Sent::Part(part)) = request.message else {
            return;
        };
        if parts.send(part).await.is_err() {
            return; // The work has failed and says why.
        }
    }
}
