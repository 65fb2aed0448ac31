//! Sessions whose processes are a few lines each.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use banger_proto::v1;
use futures::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::{Code, Request, Response, Status, Streaming};
use v1::exit::How;
use v1::session_service_server::SessionService;

use super::running::{Running, Sent, Told};
use super::vm::page;
use super::{Answer, Daemon, HEARTBEAT, State, refuse};

/// Ends a session when its only caller is gone.
struct KillOnDrop(Option<Arc<Running>>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(running) = &self.0 {
            running.signal(9);
        }
    }
}

struct Conversation<S> {
    running: Arc<Running>,
    changed: watch::Receiver<u64>,
    incoming: Option<Streaming<S>>,
    read: fn(S) -> Sent,
    offset: i64,
    begun: bool,
    ended: bool,
    state: Arc<State>,
    _kill: KillOnDrop,
}

impl<S: Send + 'static> Conversation<S> {
    async fn next(&mut self) -> Option<Result<Told, Status>> {
        if self.ended {
            return None;
        }
        if !self.begun {
            self.begun = true;
            let session = Box::new(self.running.session.lock().unwrap().clone());
            return Some(Ok(Told::Session(session, self.offset)));
        }
        loop {
            if self.state.silent.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            let (draining, silent) = (&self.state.draining, &self.state.agent_silent);
            for (left, code, reason) in [
                (draining, Code::Unavailable, "DRAINING"),
                (silent, Code::DeadlineExceeded, "AGENT_SILENT"),
            ] {
                if left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                    .is_ok()
                {
                    self.ended = true;
                    return Some(Err(refuse(code, reason, "the stream was ended", &[])));
                }
            }
            if let Some(told) = self.running.told(&mut self.offset) {
                self.ended = matches!(told, Told::Exited(_));
                return Some(Ok(told));
            }
            let incoming = async {
                match &mut self.incoming {
                    Some(incoming) => incoming.message().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                sent = incoming => match sent {
                    Ok(Some(sent)) => match self.running.sent((self.read)(sent)) {
                        Ok(Some(accepted)) => return Some(Ok(Told::Ack(accepted))),
                        Ok(None) => {}
                        Err(status) => { self.ended = true; return Some(Err(status)); }
                    },
                    Ok(None) | Err(_) => self.incoming = None,
                },
                _ = self.changed.changed() => {}
                () = sleep(HEARTBEAT) => return Some(Ok(Told::Idle)),
            }
        }
    }
}

impl Daemon {
    fn begin(&self, vm: &str, spec: Option<v1::SessionSpec>) -> Result<Arc<Running>, Status> {
        let vm = self
            .vms
            .lock()
            .unwrap()
            .values()
            .find(|v| v.id == vm || v.spec.as_ref().unwrap().name == vm)
            .cloned();
        let missing = || {
            let remedy = ("remedy", "List the VMs: banger vm list.");
            refuse(Code::NotFound, "VM_NOT_FOUND", "no such VM", &[remedy])
        };
        let vm = vm.ok_or_else(missing)?;
        let spec = spec.unwrap_or_default();
        let program = |reason, message: &str| {
            let pairs = [
                ("program", spec.command[0].as_str()),
                ("code_ran", "no"),
                ("remedy", "Nothing ran."),
            ];
            refuse(Code::InvalidArgument, reason, message, &pairs)
        };
        match spec.command.first().map(String::as_str) {
            Some("missing") => {
                return Err(program(
                    "PROGRAM_NOT_FOUND",
                    "there is no program `missing`",
                ));
            }
            Some("plain") => {
                return Err(program(
                    "PROGRAM_NOT_EXECUTABLE",
                    "`plain` cannot be executed",
                ));
            }
            _ => {}
        }
        let running = Arc::new(Running::new(self.id(), vm.id, spec));
        let id = running.session.lock().unwrap().id.clone();
        self.sessions.lock().unwrap().insert(id, running.clone());
        running.start();
        Ok(running)
    }

    fn session(&self, id: &str) -> Result<Arc<Running>, Status> {
        let found = self.sessions.lock().unwrap().get(id).cloned();
        found.ok_or_else(|| {
            refuse(
                Code::NotFound,
                "SESSION_NOT_FOUND",
                "no such session",
                &[("session", id)],
            )
        })
    }

    fn converse<S: Send + 'static, M: Send + 'static>(
        &self,
        running: &Arc<Running>,
        from: Option<v1::ReadOptions>,
        incoming: Option<Streaming<S>>,
        read: fn(S) -> Sent,
        wrap: fn(Told) -> M,
        kill: bool,
    ) -> Answer<M> {
        use v1::read_options::From;
        let session = running.session.lock().unwrap();
        let offset = match from.unwrap_or_default().from {
            Some(From::Offset(offset)) => offset,
            Some(From::End(_)) => session.log_end_offset,
            Some(From::TailBytes(bytes)) => (session.log_end_offset - bytes).max(0),
            // It knows neither lines nor times nor screens.
            Some(From::TailLines(_) | From::Since(_) | From::Screen(_)) | None => {
                session.log_start_offset
            }
        };
        drop(session);
        let conversation = Conversation {
            running: running.clone(),
            changed: running.changed.subscribe(),
            incoming,
            read,
            offset,
            begun: false,
            ended: false,
            state: self.0.clone(),
            _kill: KillOnDrop(kill.then(|| running.clone())),
        };
        stream::unfold(conversation, move |mut conversation| async move {
            let told = conversation.next().await?;
            Some((told.map(wrap), conversation))
        })
        .boxed()
    }
}

#[tonic::async_trait]
impl SessionService for Daemon {
    async fn start_session(
        &self,
        request: Request<v1::StartSessionRequest>,
    ) -> Result<Response<v1::StartSessionResponse>, Status> {
        let request = request.into_inner();
        let running = self.begin(&request.vm, request.spec)?;
        let session = Some(running.session.lock().unwrap().clone());
        Ok(Response::new(v1::StartSessionResponse { session }))
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Result<Response<v1::GetSessionResponse>, Status> {
        let running = self.session(&request.into_inner().session)?;
        let session = Some(running.session.lock().unwrap().clone());
        Ok(Response::new(v1::GetSessionResponse { session }))
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let sessions = self.sessions.lock().unwrap();
        let mut all: Vec<_> = sessions
            .values()
            .map(|s| s.session.lock().unwrap().clone())
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        let (sessions, next_page_token) = page(&all, &request.into_inner().page_token);
        Ok(Response::new(v1::ListSessionsResponse {
            sessions,
            next_page_token,
        }))
    }

    type AttachSessionStream = Answer<v1::AttachSessionResponse>;

    async fn attach_session(
        &self,
        request: Request<Streaming<v1::AttachSessionRequest>>,
    ) -> Result<Response<Self::AttachSessionStream>, Status> {
        use v1::attach_session_request::Message as In;
        use v1::attach_session_response::Message as Out;
        let mut incoming = request.into_inner();
        let Some(In::Start(start)) = incoming.message().await?.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("no start"));
        };
        self.call("AttachSession");
        if self.refuses_attach.load(Ordering::Relaxed) {
            return Err(refuse(
                Code::FailedPrecondition,
                "VM_WRONG_STATE",
                "the VM is stopping",
                &[("code_ran", "no")],
            ));
        }
        let running = self.session(&start.session)?;
        let read = |sent: v1::AttachSessionRequest| match sent.message {
            Some(In::Stdin(stdin)) => Sent::Stdin(stdin),
            Some(In::CloseStdin(_)) => Sent::Close,
            Some(In::Resize(size)) => Sent::Resize(size),
            _ => Sent::Nothing,
        };
        let wrap = |told| {
            let mut start_offset = 0;
            let message = match told {
                Told::Session(session, start) => {
                    start_offset = start;
                    Out::Attached(*session)
                }
                Told::Output(output) => Out::Output(output),
                Told::Gap(gap) => Out::Gap(gap),
                Told::Ack(offset) => Out::StdinAck(offset),
                Told::Idle => Out::Heartbeat(v1::Heartbeat {}),
                Told::Exited(exited) => Out::Exited(exited),
            };
            v1::AttachSessionResponse {
                start_offset,
                stdin_offset: None,
                message: Some(message),
            }
        };
        Ok(Response::new(self.converse(
            &running,
            start.options,
            Some(incoming),
            read,
            wrap,
            false,
        )))
    }

    type ReadSessionLogStream = Answer<v1::ReadSessionLogResponse>;

    async fn read_session_log(
        &self,
        request: Request<v1::ReadSessionLogRequest>,
    ) -> Result<Response<Self::ReadSessionLogStream>, Status> {
        use v1::read_session_log_response::Message as Out;
        let request = request.into_inner();
        let running = self.session(&request.session)?;
        let wrap = |told| {
            let mut start_offset = 0;
            let message = match told {
                Told::Session(session, start) => {
                    start_offset = start;
                    Out::Attached(*session)
                }
                Told::Output(output) => Out::Output(output),
                Told::Gap(gap) => Out::Gap(gap),
                Told::Ack(_) | Told::Idle => Out::Heartbeat(v1::Heartbeat {}),
                Told::Exited(exited) => Out::Exited(exited),
            };
            v1::ReadSessionLogResponse {
                start_offset,
                message: Some(message),
            }
        };
        let read = |()| Sent::Nothing;
        let stream = self.converse(
            &running,
            request.options,
            None::<Streaming<()>>,
            read,
            wrap,
            false,
        );
        if request.follow {
            return Ok(Response::new(stream));
        }
        let more = |answer: &Result<v1::ReadSessionLogResponse, Status>| {
            let idle = matches!(answer, Ok(m) if matches!(m.message, Some(Out::Heartbeat(_))));
            futures::future::ready(!idle)
        };
        Ok(Response::new(stream.take_while(more).boxed()))
    }

    async fn signal_session(
        &self,
        request: Request<v1::SignalSessionRequest>,
    ) -> Result<Response<v1::SignalSessionResponse>, Status> {
        let request = request.into_inner();
        self.call(format!(
            "SignalSession {} {}",
            request.signal, request.target
        ));
        self.session(&request.session)?.signal(request.signal);
        Ok(Response::new(v1::SignalSessionResponse {}))
    }

    async fn wait_session(
        &self,
        request: Request<v1::WaitSessionRequest>,
    ) -> Result<Response<v1::WaitSessionResponse>, Status> {
        let running = self.session(&request.into_inner().session)?;
        let mut changed = running.changed.subscribe();
        loop {
            let exit = running.session.lock().unwrap().exit;
            if exit.is_some() {
                return Ok(Response::new(v1::WaitSessionResponse { exit }));
            }
            changed.changed().await.unwrap();
        }
    }

    async fn delete_session(
        &self,
        request: Request<v1::DeleteSessionRequest>,
    ) -> Result<Response<v1::DeleteSessionResponse>, Status> {
        let id = request.into_inner().session;
        self.call("DeleteSession");
        let running = self.session(&id)?;
        running.end(How::Signal(9));
        self.sessions.lock().unwrap().remove(&id);
        Ok(Response::new(v1::DeleteSessionResponse {}))
    }

    type ExecStream = Answer<v1::ExecResponse>;

    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        use v1::exec_request::Message as In;
        use v1::exec_response::Message as Out;
        let mut incoming = request.into_inner();
        let Some(In::Start(start)) = incoming.message().await?.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("no start"));
        };
        self.call("Exec");
        let running = self.begin(&start.vm, start.spec)?;
        let read = |sent: v1::ExecRequest| match sent.message {
            Some(In::Stdin(stdin)) => Sent::Stdin(stdin),
            Some(In::CloseStdin(_)) => Sent::Close,
            Some(In::Resize(size)) => Sent::Resize(size),
            Some(In::Signal(signal)) => Sent::Signal(signal),
            _ => Sent::Nothing,
        };
        let wrap = |told| {
            let message = match told {
                Told::Session(session, _) => Out::Started(*session),
                Told::Output(output) => Out::Output(output),
                Told::Ack(offset) => Out::StdinAck(offset),
                Told::Idle | Told::Gap(_) => Out::Heartbeat(v1::Heartbeat {}),
                Told::Exited(exited) => Out::Exited(exited),
            };
            v1::ExecResponse {
                message: Some(message),
            }
        };
        let kill = !self.keep_exec.load(Ordering::Relaxed);
        Ok(Response::new(self.converse(
            &running,
            None,
            Some(incoming),
            read,
            wrap,
            kill,
        )))
    }
}
