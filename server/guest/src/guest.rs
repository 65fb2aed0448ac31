//! One connection to one agent, as the domain sees it.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use banger_core::guest::{
    AttachTarget, Guest, GuestConfig, GuestError, GuestIdentity, SessionEvents, SessionInputs,
    TreePieces, TreeSource, TunnelEvents, TunnelInputs,
};
use banger_core::port::{Listeners, Probe};
use banger_core::session::{AttachOptions, Exit, Session, SessionInput, SessionSpec, SignalTarget};
use banger_core::stats::GuestStats;
use banger_core::tree::{Changes, DiskWrites, PathKind, TreePlace};
use banger_core::tunnel::TunnelTarget;
use banger_core::{SessionId, Timestamp, VmId};
use banger_proto::guest::v1::agent_service_client::AgentServiceClient;
use banger_proto::guest::v1::attach_session_request::Message as Sent;
use banger_proto::guest::v1::file_service_client::FileServiceClient;
use banger_proto::guest::v1::workspace_service_client::WorkspaceServiceClient;
use banger_proto::guest::{GENERATION, v1 as proto};
use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use hyper::Uri;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

use crate::coding::Coding;
use crate::connector::{Deadlines, LEAST_GENERATION};
use crate::convert::{self, required};
use crate::events::{Checker, Ending};
use crate::judge::{Asked, Call, judge};
use crate::limits::{
    EVENT_MAX_BYTES, MESSAGE_MAX_BYTES, SESSION_EVENT_MAX_BYTES, STDIN_PIECE_BYTES,
};
use crate::link::{Link, Requests, Waits};
use crate::{observe, tree, tunnel};

/// HTTP/2 wants to know whom it speaks to, though on a channel there is only the agent.
static ORIGIN: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("http://agent.banger"));

/// How long an agent may be silent that is asked for something long: one that is starved of processor time is slow, not
/// dead.
const DEAD_WITHIN: Duration = Duration::from_secs(60);

type Client = AgentServiceClient<Requests>;
type FileClient = FileServiceClient<Requests>;
type WorkspaceClient = WorkspaceServiceClient<Requests>;

/// One connection to one agent.
#[derive(Debug)]
pub(crate) struct RemoteGuest {
    vm: VmId,
    pub(crate) link: Arc<Link>,
    pub(crate) deadlines: Deadlines,
    pub(crate) coding: Coding,
    /// Agreed on; the least until then.
    pub(crate) generation: u32,
}

impl RemoteGuest {
    pub(crate) fn new(vm: VmId, link: Link, deadlines: Deadlines, coding: Coding) -> Self {
        Self {
            vm,
            link: Arc::new(link),
            deadlines,
            coding,
            generation: LEAST_GENERATION,
        }
    }

    pub(crate) fn files(&self, message_max_bytes: usize) -> FileClient {
        FileServiceClient::with_origin(self.link.requests(), ORIGIN.clone())
            .max_decoding_message_size(message_max_bytes)
    }

    pub(crate) fn workspaces(&self, message_max_bytes: usize) -> WorkspaceClient {
        WorkspaceServiceClient::with_origin(self.link.requests(), ORIGIN.clone())
            .max_decoding_message_size(message_max_bytes)
    }

    pub(crate) fn client(&self, message_max_bytes: usize) -> Client {
        AgentServiceClient::with_origin(self.link.requests(), ORIGIN.clone())
            .max_decoding_message_size(message_max_bytes)
    }

    /// Refuses what an agent of an earlier generation would do otherwise than it is asked.
    fn needs(&self, least: u32, is_needed: bool) -> Result<(), GuestError> {
        let generation = self.generation;
        if is_needed && generation < least {
            return Err(GuestError::TooOld { generation, least });
        }
        Ok(())
    }

    /// Waits for the answer of a call, within `limit`, for which a guest that is held stands still. A guest that is dead
    /// is known before a long one.
    pub(crate) async fn answer<T>(
        &self,
        call: Call,
        limit: Option<Duration>,
        answer: impl Future<Output = Result<Response<T>, Status>> + Send,
    ) -> Result<T, GuestError> {
        let during = call.during;
        let answered = match limit {
            None => answer.await,
            Some(limit) => tokio::select! {
                biased; // what came is not late
                // a call that is dropped is given up
                answered = self.link.within(limit, answer) => {
                    answered.ok_or(GuestError::Deadline { during, limit })?
                }
                // cancel-safe: holds no state
                limit = self.fallen_silent(DEAD_WITHIN), if limit > DEAD_WITHIN => {
                    return Err(GuestError::Deadline { during, limit });
                }
            },
        };
        match answered {
            Ok(response) => Ok(response.into_inner()),
            Err(_) if self.link.has_ended() => Err(GuestError::Lost { during }),
            Err(status) => Err(judge(&status, &call)),
        }
    }

    /// How long it may take to give content.
    pub(crate) fn waits(&self) -> Waits {
        Waits {
            silence: self.deadlines.silence,
            taking: self.deadlines.taking,
        }
    }

    /// Resolves when the agent has not answered for `limit`, which it tells: what ends a call that is answered only when
    /// something happens in the guest.
    pub(crate) async fn fallen_silent(&self, limit: Duration) -> Duration {
        loop {
            tokio::time::sleep(limit / 2).await;
            let mut client = self.client(EVENT_MAX_BYTES);
            let asked = client.hello(proto::HelloRequest {
                generation: GENERATION,
            });
            // A broken connection is told by the call itself.
            if self.link.within(limit / 2, asked).await.is_none() {
                return limit;
            }
        }
    }

    pub(crate) async fn hello(
        &self,
        request: proto::HelloRequest,
    ) -> Result<proto::HelloResponse, GuestError> {
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.hello(request);
        self.answer(plain("hello"), Some(self.deadlines.hello), answer)
            .await
    }
}

/// A call that is about no session.
pub(crate) fn plain(during: &'static str) -> Call {
    Call {
        during,
        session: None,
        asked: None,
    }
}

/// A call about a session.
fn about(during: &'static str, id: SessionId) -> Call {
    Call {
        session: Some(id),
        ..plain(during)
    }
}

fn starting(during: &'static str, id: SessionId, spec: &SessionSpec) -> Call {
    Call {
        during,
        session: Some(id),
        asked: Some(Asked {
            program: spec.command.first().cloned().unwrap_or_default(),
            user: spec.user.clone(),
            working_dir: spec.working_dir.clone(),
        }),
    }
}

#[async_trait]
impl Guest for RemoteGuest {
    async fn configure(&self, config: &GuestConfig) -> Result<(), GuestError> {
        let request = convert::config(config, Timestamp::now());
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.configure(request);
        self.answer(plain("configure"), Some(self.deadlines.configure), answer)
            .await?;
        Ok(())
    }

    async fn start_session(
        &self,
        id: SessionId,
        spec: &SessionSpec,
    ) -> Result<Session, GuestError> {
        self.needs(2, convert::needs_second_generation(spec))?;
        let request = proto::StartSessionRequest {
            id: id.to_string(),
            spec: Some(convert::spec(spec)),
        };
        let mut client = self.client(MESSAGE_MAX_BYTES);
        let answer = client.start_session(request);
        let call = starting("start", id, spec);
        let answer = self
            .answer(call, Some(self.deadlines.start), answer)
            .await?;
        convert::session(required(answer.session, "the session")?, self.vm, Some(id))
    }

    async fn get_session(&self, id: SessionId) -> Result<Session, GuestError> {
        let request = proto::GetSessionRequest { id: id.to_string() };
        let mut client = self.client(MESSAGE_MAX_BYTES);
        let answer = client.get_session(request);
        let answer = self
            .answer(about("get", id), Some(self.deadlines.call), answer)
            .await?;
        convert::session(required(answer.session, "the session")?, self.vm, Some(id))
    }

    async fn list_sessions(&self) -> Result<Vec<Session>, GuestError> {
        let mut client = self.client(MESSAGE_MAX_BYTES);
        let answer = client.list_sessions(proto::ListSessionsRequest {});
        let answer = self
            .answer(plain("list"), Some(self.deadlines.call), answer)
            .await?;
        convert::sessions(answer.sessions, self.vm)
    }

    async fn attach(
        &self,
        target: AttachTarget,
        options: AttachOptions,
        input: SessionInputs,
    ) -> Result<SessionEvents, GuestError> {
        if let AttachTarget::Start { spec, .. } = &target {
            self.needs(2, convert::needs_second_generation(spec))?;
        }
        self.needs(2, convert::needs_newer_reader(options))?;
        let (id, call, first) = attaching(target, options);
        let mut client = self.client(SESSION_EVENT_MAX_BYTES);
        let answer = client.attach_session(requests(first, input));
        let messages = self
            .answer(call, Some(self.deadlines.start), answer)
            .await?;
        let checker = Checker::new(self.vm, id, "attach", options, self.deadlines.silence);
        Ok(checker.events(messages, Arc::clone(&self.link)))
    }

    async fn read_log(
        &self,
        id: SessionId,
        options: AttachOptions,
        follow: bool,
    ) -> Result<SessionEvents, GuestError> {
        self.needs(2, convert::needs_newer_reader(options))?;
        let request = proto::ReadSessionLogRequest {
            id: id.to_string(),
            options: Some(convert::options(options)),
            follow,
        };
        let mut client = self.client(SESSION_EVENT_MAX_BYTES);
        let answer = client.read_session_log(request);
        let messages = self
            .answer(about("read", id), Some(self.deadlines.call), answer)
            .await?;
        let mut checker = Checker::new(self.vm, id, "read", options, self.deadlines.silence);
        if !follow {
            checker.ending = Ending::Anywhere;
        }
        Ok(checker.events(messages, Arc::clone(&self.link)))
    }

    async fn wait_session(&self, id: SessionId) -> Result<Exit, GuestError> {
        let request = proto::WaitSessionRequest { id: id.to_string() };
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.wait_session(request);
        let answer = tokio::select! {
            // cancel-safe: whoever waits asks again
            answer = self.answer(about("wait", id), None, answer) => answer?,
            // cancel-safe: holds no state
            limit = self.fallen_silent(self.deadlines.silence) => return Err(GuestError::Deadline { during: "wait", limit }),
        };
        convert::exit(required(answer.exit, "the exit")?)
    }

    async fn signal_session(
        &self,
        id: SessionId,
        signal: i32,
        target: SignalTarget,
    ) -> Result<(), GuestError> {
        let request = proto::SignalSessionRequest {
            id: id.to_string(),
            signal,
            target: convert::target(target).into(),
        };
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.signal_session(request);
        self.answer(about("signal", id), Some(self.deadlines.call), answer)
            .await?;
        Ok(())
    }

    async fn delete_session(&self, id: SessionId) -> Result<(), GuestError> {
        let request = proto::DeleteSessionRequest { id: id.to_string() };
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.delete_session(request);
        self.answer(about("delete", id), Some(self.deadlines.delete), answer)
            .await?;
        Ok(())
    }

    async fn resolve_user(&self, user: &str) -> Result<(u32, u32), GuestError> {
        let request = proto::ResolveUserRequest { user: user.into() };
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.resolve_user(request);
        let call = Call {
            asked: Some(Asked {
                user: user.into(),
                program: String::new(),
                working_dir: String::new(),
            }),
            ..plain("resolve_user")
        };
        let answer = self.answer(call, Some(self.deadlines.call), answer).await?;
        Ok((answer.uid, answer.gid))
    }

    async fn list_directory(&self, path: &[u8]) -> Result<PathKind, GuestError> {
        let path = Bytes::copy_from_slice(path);
        let mut client = self.client(MESSAGE_MAX_BYTES);
        let answer = client.list_directory(proto::ListDirectoryRequest { path });
        let call = plain("list_directory");
        let answer = self.answer(call, Some(self.deadlines.call), answer).await?;
        tree::path_kind(answer)
    }

    async fn put_tree(&self, place: &TreePlace, source: TreeSource) -> Result<(), GuestError> {
        let start = stream::iter([tree::start(place)]);
        let source = Outgoing(start.chain(source.map(tree::put)).boxed());
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.put_tree(source);
        self.answer(plain("put_tree"), Some(self.deadlines.put), answer)
            .await?;
        Ok(())
    }

    async fn get_tree(&self, path: &[u8]) -> Result<TreePieces, GuestError> {
        let path = Bytes::copy_from_slice(path);
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.get_tree(proto::GetTreeRequest {
            path,
            ..proto::GetTreeRequest::default()
        });
        let call = plain("get_tree");
        let pieces = self.answer(call, Some(self.deadlines.call), answer).await?;
        let top = tree::Top::Entry;
        Ok(tree::pieces(pieces, top, self.waits(), &self.link))
    }

    async fn get_changes(&self, changes: Changes) -> Result<TreePieces, GuestError> {
        let everything = changes == Changes::Everything;
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.get_changes(proto::GetChangesRequest { everything });
        let call = plain("get_changes");
        let pieces = self.answer(call, Some(self.deadlines.call), answer).await?;
        let top = tree::Top::Directory;
        Ok(tree::pieces(pieces, top, self.waits(), &self.link))
    }

    async fn set_disk_writes(&self, writes: DiskWrites) -> Result<(), GuestError> {
        let frozen = writes == DiskWrites::Hold;
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.freeze_disk(proto::FreezeDiskRequest { frozen });
        let call = plain("freeze_disk");
        self.answer(call, Some(self.deadlines.flush), answer)
            .await?;
        Ok(())
    }

    async fn stats(&self) -> Result<GuestStats, GuestError> {
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.get_stats(proto::GetStatsRequest {});
        let call = plain("get_stats");
        let answer = self.answer(call, Some(self.deadlines.call), answer).await?;
        observe::stats(answer)
    }

    async fn list_ports(&self, probe: Probe) -> Result<Listeners, GuestError> {
        let probe = probe == Probe::Http;
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.list_ports(proto::ListPortsRequest { probe });
        let call = plain("list_ports");
        let answer = self.answer(call, Some(self.deadlines.call), answer).await?;
        observe::listeners(answer)
    }

    async fn open_tunnel(
        &self,
        target: &TunnelTarget,
        limit: Duration,
        input: TunnelInputs,
    ) -> Result<TunnelEvents, GuestError> {
        let flow = Arc::default();
        let first = stream::iter([tunnel::start(target, limit)]);
        // The stream of requests ends with the events: HTTP/2 does not reset a call of which one half is held.
        let stop = CancellationToken::new();
        let rest = tunnel::requests(Arc::clone(&flow), input);
        let rest = rest.take_until(stop.clone().cancelled_owned());
        let stop = stop.drop_guard();
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.open_tunnel(Outgoing(first.chain(rest).boxed()));
        // The agent's own limit comes first.
        let within = limit + self.deadlines.call;
        let during = tunnel::call().during;
        let answered = self.link.within(within, answer).await;
        let answered = answered.ok_or(GuestError::Deadline {
            during,
            limit: within,
        })?;
        let messages = match answered {
            Ok(response) => response.into_inner(),
            Err(_) if self.link.has_ended() => return Err(GuestError::Lost { during }),
            Err(status) => return Err(tunnel::judge_tunnel(&status, target, limit)),
        };
        let checker = tunnel::Checker::new(target.clone(), limit, self.deadlines.silence, flow);
        let held = (Arc::clone(&self.link), stop);
        checker.events(messages, held).await
    }

    async fn grow_disk(&self, serial: &str, size_bytes: u64) -> Result<(), GuestError> {
        let request = proto::GrowDiskRequest {
            serial: serial.to_owned(),
            size_bytes: convert::signed(size_bytes),
        };
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.grow_disk(request);
        self.answer(plain("grow_disk"), Some(self.deadlines.grow), answer)
            .await?;
        Ok(())
    }

    async fn set_identity(&self, identity: &GuestIdentity) -> Result<(), GuestError> {
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.set_identity(convert::identity(identity));
        let call = plain("set_identity");
        self.answer(call, Some(self.deadlines.configure), answer)
            .await?;
        Ok(())
    }

    async fn start_init(&self) -> Result<(), GuestError> {
        let mut client = self.client(EVENT_MAX_BYTES);
        let answer = client.start_init(proto::StartInitRequest {});
        let call = plain("start_init");
        self.answer(call, Some(self.deadlines.configure), answer)
            .await?;
        Ok(())
    }

    async fn power_off(&self, init_patience: Duration) -> Result<(), GuestError> {
        let mut client = self.client(EVENT_MAX_BYTES);
        // Longer than the protocol can say is as good as not at all.
        let init_patience = prost_types::Duration::try_from(init_patience).ok();
        let answer = client.power_off(proto::PowerOffRequest { init_patience });
        self.answer(plain("power_off"), Some(self.deadlines.call), answer)
            .await?;
        Ok(())
    }

    fn set_held(&self, is_held: bool) {
        self.link.set_held(is_held);
    }

    async fn closed(&self) {
        self.link.ended().await;
    }
}

/// The session, the call and the first message of an attachment.
fn attaching(
    target: AttachTarget,
    options: AttachOptions,
) -> (SessionId, Call, proto::AttachSessionRequest) {
    let (id, call, start, remove_after_exit) = match target {
        AttachTarget::Existing(id) => (id, about("attach", id), None, false),
        AttachTarget::Start {
            id,
            spec,
            remove_after_exit,
        } => (
            id,
            starting("attach", id, &spec),
            Some(convert::spec(&spec)),
            remove_after_exit,
        ),
    };
    let attach = proto::Attach {
        id: id.to_string(),
        start,
        remove_after_exit,
        options: Some(convert::options(options)),
        writing: convert::writing(options.writing).into(),
        writer: options
            .writer
            .map(|writer| writer.to_string())
            .unwrap_or_default(),
    };
    let first = proto::AttachSessionRequest {
        message: Some(Sent::Attach(attach)),
    };
    (id, call, first)
}

/// What an attached writer sends, the attaching itself first.
fn requests(
    first: proto::AttachSessionRequest,
    input: SessionInputs,
) -> Outgoing<proto::AttachSessionRequest> {
    let input = input.flat_map(pieces).map(convert::input);
    Outgoing(stream::iter([first]).chain(input).boxed())
}

/// A stream of requests by a name of its own.
struct Outgoing<M>(BoxStream<'static, M>);

impl<M> Stream for Outgoing<M> {
    type Item = M;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

/// Standard input in pieces that one message holds.
fn pieces(input: SessionInput) -> impl Stream<Item = SessionInput> {
    let pieces: Vec<SessionInput> = match input {
        SessionInput::Stdin { offset, data } if data.len() > STDIN_PIECE_BYTES => (0..data.len())
            .step_by(STDIN_PIECE_BYTES)
            .map(|start| SessionInput::Stdin {
                offset: offset + start as u64,
                data: data.slice(start..data.len().min(start + STDIN_PIECE_BYTES)),
            })
            .collect(),
        other => vec![other],
    };
    stream::iter(pieces)
}
