//! The answers to the calls of the host: each checks, asks the agent and converts.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use banger_proto::guest::GENERATION;
use banger_proto::guest::v1::agent_service_server::AgentService;
use banger_proto::guest::v1::attach_session_request::Message as Incoming;
use banger_proto::guest::v1::read_options::From as ReadFrom;
use banger_proto::guest::v1::{self as proto, SignalTarget};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::agent::{Agent, Machine, kernel_text};
use crate::configure::configure;
use crate::convert::{attached, logged, signed};
use crate::files::{self, lend};
use crate::observe;
use crate::refusal::Refusal;
use crate::session::Session;
use crate::session::input::{Ends, Numbers};
use crate::session::locate::locate;
use crate::session::log::Hold;
use crate::session::plan::window;
use crate::session::reader::{Event, Follow, Reader, Writer};
use crate::session::registry::Keeping;
use crate::session::users::Users;
use crate::session::writers::Joined;
use crate::{tunnel, volume};

/// What is read of a writer ahead of a process that takes nothing, so that a size may come through: messages.
const AHEAD_MAX: usize = 64;
/// And bytes, beyond which one more message comes.
const AHEAD_MAX_BYTES: usize = 64 << 10;

type Answer<T> = Result<Response<T>, Status>;
pub(crate) type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The guest protocol over an [`Agent`].
#[derive(Debug)]
pub struct GuestService {
    agent: Arc<Agent>,
}

impl GuestService {
    /// Answers for `agent`.
    #[must_use]
    pub fn new(agent: Arc<Agent>) -> Self {
        Self { agent }
    }

    async fn start(
        &self,
        id: &str,
        spec: proto::SessionSpec,
        keeping: Keeping,
    ) -> Result<(Arc<Session>, Option<Hold>), Refusal> {
        self.agent.ready().await?;
        lend(&self.agent);
        self.agent.sessions.start(id, spec, keeping).await
    }

    /// Refuses what only the agent of a guest may do.
    fn owned(&self) -> Result<(), Refusal> {
        match self.agent.machine {
            Machine::Owned => Ok(()),
            Machine::Foreign => Err(Refusal::invalid("this agent does not own its machine")),
        }
    }
}

#[tonic::async_trait]
impl AgentService for GuestService {
    async fn hello(&self, request: Request<proto::HelloRequest>) -> Answer<proto::HelloResponse> {
        let boot = self.agent.boot().await;
        let steps = boot.steps.iter().map(|(name, duration)| proto::BootStep {
            name: (*name).to_owned(),
            duration: prost_types::Duration::try_from(*duration).ok(),
        });
        Ok(Response::new(proto::HelloResponse {
            generation: request.into_inner().generation.min(GENERATION),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: kernel_text("/proc/sys/kernel/osrelease"),
            boot_id: kernel_text("/proc/sys/kernel/random/boot_id"),
            is_configured: self.agent.settings.lock().await.is_some()
                && self
                    .agent
                    .init
                    .as_ref()
                    .is_none_or(|init| init.is_started()),
            boot_steps: steps.collect(),
        }))
    }

    async fn configure(
        &self,
        request: Request<proto::ConfigureRequest>,
    ) -> Answer<proto::ConfigureResponse> {
        self.agent.ready().await?;
        configure(&self.agent, request.into_inner()).await?;
        Ok(Response::new(proto::ConfigureResponse {}))
    }

    async fn start_session(
        &self,
        request: Request<proto::StartSessionRequest>,
    ) -> Answer<proto::StartSessionResponse> {
        let request = request.into_inner();
        let spec = required(request.spec, "spec")?;
        let keeping = Keeping {
            holding: false,
            lives_with_call: false,
        };
        let (session, _) = self.start(&request.id, spec, keeping).await?;
        Ok(Response::new(proto::StartSessionResponse {
            session: Some(session.describe()),
        }))
    }

    async fn get_session(
        &self,
        request: Request<proto::GetSessionRequest>,
    ) -> Answer<proto::GetSessionResponse> {
        let session = self.agent.sessions.get(&request.into_inner().id)?;
        Ok(Response::new(proto::GetSessionResponse {
            session: Some(session.describe()),
        }))
    }

    async fn list_sessions(
        &self,
        _: Request<proto::ListSessionsRequest>,
    ) -> Answer<proto::ListSessionsResponse> {
        let sessions = self.agent.sessions.list();
        Ok(Response::new(proto::ListSessionsResponse {
            sessions: sessions
                .iter()
                .map(|session| session.describe_briefly())
                .collect(),
        }))
    }

    type AttachSessionStream = Events<proto::AttachSessionResponse>;

    async fn attach_session(
        &self,
        request: Request<Streaming<proto::AttachSessionRequest>>,
    ) -> Answer<Self::AttachSessionStream> {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|first| first.message);
        let Some(Incoming::Attach(attach)) = first else {
            return Err(Refusal::invalid("the first message is not `attach`").into());
        };
        let options = attach.options.unwrap_or_default();
        // The first hold lives until the reader has its own.
        let (session, hold) = match attach.start {
            Some(spec) => {
                let keeping = Keeping {
                    holding: options.hold_process,
                    lives_with_call: attach.remove_after_exit,
                };
                self.start(&attach.id, spec, keeping).await?
            }
            None => (self.agent.sessions.get(&attach.id)?, None),
        };
        let caller = session.attach();
        if hold.is_some() && attach.remove_after_exit {
            session.log.let_pass();
        }
        let writing = proto::Writing::try_from(attach.writing)
            .map_err(|_| Refusal::invalid("who writes is unknown"))?;
        let wants_screen = options.from == Some(ReadFrom::Screen(true));
        let screen = wants_screen.then(|| session.log.screen());
        let numbers = session.input.numbers(&attach.writer)?;
        // Before the session is described: what is accepted since is told.
        let acked = numbers.accepted();
        let (range, first) = session.snapshot();
        let position = match &screen {
            Some((offset, _)) => *offset,
            None => locate(&session.log, range, &options).await?,
        };
        let first = proto::AttachSessionResponse {
            message: Some(proto::attach_session_response::Message::Attached(first)),
            start_offset: signed(position),
            writer_offset: Some(signed(acked)),
        };
        let screen = screen.map(|(offset, data)| proto::AttachSessionResponse {
            message: Some(proto::attach_session_response::Message::Screen(
                proto::Screen {
                    offset: signed(offset),
                    data,
                },
            )),
            start_offset: 0,
            writer_offset: None,
        });
        let writer = writer(&session, writing, &attach.writer, numbers.clone(), incoming)?;
        let end = range.1.max(position);
        let reader = Reader::new(session, (position, end), options, Follow::Exit)
            .with_writer(writer, &numbers, acked);
        drop(hold);
        // Its caller, who may be back, holds the process; others only look on.
        let is_caller = attach.remove_after_exit
            || (options.hold_process && self.agent.sessions.lives_with_call(&attach.id));
        let forget = is_caller.then(|| (Arc::clone(&self.agent), attach.id));
        let events = events(reader, forget).map(move |event| {
            let _is_there = &caller;
            event.map(attached)
        });
        let first = std::iter::once(first).chain(screen).map(Ok);
        Ok(Response::new(Box::pin(stream::iter(first).chain(events))))
    }

    type ReadSessionLogStream = Events<proto::ReadSessionLogResponse>;

    async fn read_session_log(
        &self,
        request: Request<proto::ReadSessionLogRequest>,
    ) -> Answer<Self::ReadSessionLogStream> {
        let request = request.into_inner();
        let session = self.agent.sessions.get(&request.id)?;
        let options = request.options.unwrap_or_default();
        let (range, first) = session.snapshot();
        let position = locate(&session.log, range, &options).await?;
        let first = proto::ReadSessionLogResponse {
            message: Some(proto::read_session_log_response::Message::Attached(first)),
            start_offset: signed(position),
        };
        let follow = if request.follow {
            Follow::Exit
        } else {
            Follow::Stop
        };
        let reader = Reader::new(session, (position, range.1), options, follow);
        let events = events(reader, None).filter_map(|event| async move {
            match event {
                Ok(event) => logged(event).map(Ok),
                Err(status) => Some(Err(status)),
            }
        });
        let answer = stream::iter([Ok(first)]).chain(events);
        Ok(Response::new(Box::pin(answer)))
    }

    async fn wait_session(
        &self,
        request: Request<proto::WaitSessionRequest>,
    ) -> Answer<proto::WaitSessionResponse> {
        let session = self.agent.sessions.get(&request.into_inner().id)?;
        let exit = Some(session.wait().await);
        Ok(Response::new(proto::WaitSessionResponse { exit }))
    }

    async fn signal_session(
        &self,
        request: Request<proto::SignalSessionRequest>,
    ) -> Answer<proto::SignalSessionResponse> {
        let request = request.into_inner();
        let target = SignalTarget::try_from(request.target)
            .map_err(|_| Refusal::invalid("the target is unknown"))?;
        let session = self.agent.sessions.get(&request.id)?;
        session.signal(request.signal, target)?;
        Ok(Response::new(proto::SignalSessionResponse {}))
    }

    async fn delete_session(
        &self,
        request: Request<proto::DeleteSessionRequest>,
    ) -> Answer<proto::DeleteSessionResponse> {
        self.agent.sessions.delete(&request.into_inner().id).await;
        Ok(Response::new(proto::DeleteSessionResponse {}))
    }

    async fn resolve_user(
        &self,
        request: Request<proto::ResolveUserRequest>,
    ) -> Answer<proto::ResolveUserResponse> {
        self.agent.ready().await?;
        let identity = Users::read(&self.agent.root).resolve(&request.into_inner().user)?;
        Ok(Response::new(proto::ResolveUserResponse {
            uid: identity.uid,
            gid: identity.gid,
        }))
    }

    async fn list_directory(
        &self,
        request: Request<proto::ListDirectoryRequest>,
    ) -> Answer<proto::ListDirectoryResponse> {
        let path = request.into_inner().path;
        Ok(Response::new(files::list(&self.agent, path).await?))
    }

    async fn put_tree(
        &self,
        request: Request<Streaming<proto::PutTreeRequest>>,
    ) -> Answer<proto::PutTreeResponse> {
        let put = files::put(&self.agent, request.into_inner()).await?;
        Ok(Response::new(put))
    }

    type GetTreeStream = Events<proto::TreePiece>;

    async fn get_tree(
        &self,
        request: Request<proto::GetTreeRequest>,
    ) -> Answer<Self::GetTreeStream> {
        let request = request.into_inner();
        Ok(Response::new(files::get(&self.agent, request).await?))
    }

    type GetChangesStream = Events<proto::TreePiece>;

    async fn get_changes(
        &self,
        request: Request<proto::GetChangesRequest>,
    ) -> Answer<Self::GetChangesStream> {
        let everything = request.into_inner().everything;
        Ok(Response::new(
            files::changes(&self.agent, everything).await?,
        ))
    }

    async fn freeze_disk(
        &self,
        request: Request<proto::FreezeDiskRequest>,
    ) -> Answer<proto::FreezeDiskResponse> {
        files::freeze(&self.agent, request.into_inner().frozen).await?;
        Ok(Response::new(proto::FreezeDiskResponse {}))
    }

    async fn get_stats(
        &self,
        _: Request<proto::GetStatsRequest>,
    ) -> Answer<proto::GetStatsResponse> {
        Ok(Response::new(observe::stats(&self.agent).await?))
    }

    async fn list_ports(
        &self,
        request: Request<proto::ListPortsRequest>,
    ) -> Answer<proto::ListPortsResponse> {
        let asks = request.into_inner().probe;
        Ok(Response::new(observe::ports(&self.agent, asks).await?))
    }

    type OpenTunnelStream = Events<proto::OpenTunnelResponse>;

    async fn open_tunnel(
        &self,
        request: Request<Streaming<proto::OpenTunnelRequest>>,
    ) -> Answer<Self::OpenTunnelStream> {
        let opened = tunnel::open(&self.agent, request.into_inner()).await?;
        Ok(Response::new(opened))
    }

    async fn grow_disk(
        &self,
        request: Request<proto::GrowDiskRequest>,
    ) -> Answer<proto::GrowDiskResponse> {
        volume::grow_disk(&self.agent, request.into_inner()).await?;
        Ok(Response::new(proto::GrowDiskResponse {}))
    }

    async fn set_identity(
        &self,
        request: Request<proto::SetIdentityRequest>,
    ) -> Answer<proto::SetIdentityResponse> {
        self.owned()?;
        files::set_identity(&self.agent, request.into_inner()).await?;
        Ok(Response::new(proto::SetIdentityResponse {}))
    }

    async fn start_init(
        &self,
        _: Request<proto::StartInitRequest>,
    ) -> Answer<proto::StartInitResponse> {
        let init = self.agent.init.clone();
        let init = init.ok_or_else(|| Refusal::invalid("the agent is process 1 itself"))?;
        files::blocking(&self.agent, move |_| init.start()).await?;
        Ok(Response::new(proto::StartInitResponse {}))
    }

    async fn power_off(
        &self,
        request: Request<proto::PowerOffRequest>,
    ) -> Answer<proto::PowerOffResponse> {
        self.owned()?;
        if let Some(init) = &self.agent.init {
            let patience = request.into_inner().init_patience.unwrap_or_default();
            // A negative one is none.
            init.set_patience(Duration::try_from(patience).unwrap_or_default());
        }
        self.agent.power_off.cancel();
        Ok(Response::new(proto::PowerOffResponse {}))
    }
}

fn required<T>(field: Option<T>, name: &str) -> Result<T, Refusal> {
    field.ok_or_else(|| Refusal::invalid(format!("`{name}` is missing")))
}

/// A reader's events as a stream; after the exit, the session is forgotten if that was asked for.
fn events(
    reader: Reader,
    forget: Option<(Arc<Agent>, String)>,
) -> impl Stream<Item = Result<Event, Status>> + Send {
    stream::unfold(Some((reader, forget)), |state| async move {
        let (mut reader, forget) = state?;
        match reader.next().await {
            Ok(Some(event)) => {
                if let (Event::Exited { .. }, Some((agent, id))) = (&event, &forget) {
                    agent.sessions.linger(id);
                }
                Some((Ok(event), Some((reader, forget))))
            }
            Ok(None) => None,
            Err(refusal) => Some((Err(refusal.into()), None)),
        }
    })
}

/// What serves who attached, as far as it writes. One who takes over is a writer from here on; one who was taken over from
/// is none by coming back.
fn writer(
    session: &Arc<Session>,
    writing: proto::Writing,
    name: &str,
    numbers: Numbers,
    incoming: Streaming<proto::AttachSessionRequest>,
) -> Result<Writer, Refusal> {
    let mut writer = Writer::new();
    match writing {
        proto::Writing::None => {
            writer.spawn(deny(incoming));
            return Ok(writer);
        }
        proto::Writing::Steal => {
            // Those who are away first: who comes back meanwhile is told either way.
            session.input.replace_all_but(name);
            session.writers.replace_all();
        }
        proto::Writing::Unspecified => {}
    }
    let resized = Arc::clone(session);
    let joined = session.writers.join(move |size| resized.resize(size));
    if numbers.are_replaced() {
        return Err(Refusal::WriterReplaced);
    }
    let session = Arc::clone(session);
    writer.spawn(async move {
        tokio::select! {
            // cancel-safe: what was not accepted is sent again by nobody, as after a broken connection
            written = write(&session, &joined, &numbers, incoming) => written,
            // cancel-safe: only waits
            () = joined.replaced() => Err(Refusal::WriterReplaced),
        }
    });
    Ok(writer)
}

/// Refuses whatever one who only reads sends.
async fn deny(mut incoming: Streaming<proto::AttachSessionRequest>) -> Result<(), Refusal> {
    match incoming.message().await {
        Ok(Some(_)) => Err(Refusal::StdinRefused {
            detail: "it was attached to for reading only".into(),
        }),
        _ => Ok(()),
    }
}

/// What a writer gave, for a process that has yet to take it.
enum Given {
    /// Bytes, the first of which has this number.
    Bytes(u64, Bytes),
    /// There are no more.
    End,
}

/// Serves a writer until its end, which leaves standard input as it is. The size of its terminal does not wait for a process
/// that reads nothing.
async fn write(
    session: &Session,
    joined: &Joined,
    numbers: &Numbers,
    mut incoming: Streaming<proto::AttachSessionRequest>,
) -> Result<(), Refusal> {
    let mut ends = Ends::default();
    let mut waiting = VecDeque::new();
    let mut waiting_bytes = 0;
    let mut is_open = true;
    loop {
        let request = match waiting.front() {
            None if is_open => incoming.message().await,
            None => return Ok(()),
            Some(Given::End) => {
                session.input.close(numbers, &mut ends).await?;
                waiting.pop_front();
                continue;
            }
            Some(Given::Bytes(offset, data)) => {
                let may_come =
                    is_open && waiting.len() < AHEAD_MAX && waiting_bytes <= AHEAD_MAX_BYTES;
                tokio::select! {
                    biased; // what the process takes it is given
                    // dropped half-way, it goes on after what it has counted
                    written = session.input.write(numbers, *offset, data.clone()) => {
                        written?;
                        waiting_bytes -= data.len();
                        waiting.pop_front();
                        continue;
                    }
                    // cancel-safe: what has come in part stays in the stream
                    request = incoming.message(), if may_come => request,
                }
            }
        };
        // A connection that ends ends the writer, after what it gave; the reader tells of it.
        let Ok(Some(request)) = request else {
            is_open = false;
            continue;
        };
        match request.message {
            Some(Incoming::Stdin(stdin)) => {
                let offset = u64::try_from(stdin.offset)
                    .map_err(|_| Refusal::invalid("an offset is negative"))?;
                waiting_bytes += stdin.data.len();
                waiting.push_back(Given::Bytes(offset, stdin.data));
            }
            Some(Incoming::CloseStdin(_)) => waiting.push_back(Given::End),
            Some(Incoming::Resize(size)) => joined.resize(window(size)?),
            Some(Incoming::Attach(_)) => {
                return Err(Refusal::invalid("`attach` came twice"));
            }
            None => return Err(Refusal::invalid("a message is empty")),
        }
    }
}
