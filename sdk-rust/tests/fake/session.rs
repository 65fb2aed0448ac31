//! Sessions whose processes are a few lines each.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use banger_proto::v1;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::{Code, Request, Response, Status, Streaming};
use v1::exit::How;
use v1::session_service_server::SessionService;

use super::vm::page;
use super::{Answer, Daemon, HEARTBEAT, State, refuse, time};

/// The length of a message of output.
const CHUNK: usize = 64 << 10;

/// A session.
pub struct Running {
    pub session: Mutex<v1::Session>,
    log: Mutex<Vec<v1::Output>>,
    changed: watch::Sender<u64>,
    /// What was written to it.
    pub input: Mutex<Vec<u8>>,
    pub signals: Mutex<Vec<i32>>,
}

/// What a client sent, of Exec and of AttachSession.
enum Sent {
    Stdin(v1::Stdin),
    Close,
    Resize(v1::TerminalSize),
    Signal(i32),
    Nothing,
}

/// What is answered, to both.
enum Told {
    Session(v1::Session),
    Output(v1::Output),
    Gap(v1::Gap),
    Ack(i64),
    Idle,
    Exited(v1::Exited),
}

impl Running {
    fn new(id: String, vm_id: String, spec: v1::SessionSpec) -> Self {
        let session = v1::Session {
            id,
            vm_id,
            spec: Some(spec),
            state: v1::session::State::Running.into(),
            pid: 7,
            start_time: time(3),
            ..v1::Session::default()
        };
        Self {
            session: Mutex::new(session),
            log: Mutex::default(),
            changed: watch::Sender::new(0),
            input: Mutex::default(),
            signals: Mutex::default(),
        }
    }

    fn command(&self) -> Vec<String> {
        self.session
            .lock()
            .unwrap()
            .spec
            .as_ref()
            .unwrap()
            .command
            .clone()
    }

    /// Writes output.
    pub fn write(&self, stream: v1::Stream, data: &[u8]) {
        let mut session = self.session.lock().unwrap();
        for data in data.chunks(CHUNK) {
            let offset = session.log_end_offset;
            session.log_end_offset += i64::try_from(data.len()).unwrap();
            let data = Bytes::copy_from_slice(data);
            let output = v1::Output {
                offset,
                stream: stream.into(),
                time: time(4),
                data,
            };
            self.log.lock().unwrap().push(output);
        }
        drop(session);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Forgets output before this offset.
    pub fn evict(&self, before: i64) {
        self.log
            .lock()
            .unwrap()
            .retain(|output| output.offset >= before);
        self.session.lock().unwrap().log_start_offset = before;
    }

    pub fn end(&self, how: How) {
        let mut session = self.session.lock().unwrap();
        if session.exit.is_none() {
            session.exit = Some(v1::Exit { how: Some(how) });
            session.end_time = time(5);
            session.set_state(v1::session::State::Exited);
        }
        drop(session);
        self.changed.send_modify(|n| *n += 1);
    }

    fn start(&self) {
        let command = self.command();
        let argument = command.get(1).map(String::as_str).unwrap_or_default();
        let number = argument.parse::<i32>().unwrap_or_default();
        let stdout = |text: &str| self.write(v1::Stream::Stdout, text.as_bytes());
        match command
            .first()
            .map(String::as_str)
            .unwrap_or("image-command")
        {
            "echo" => stdout(&(command[1..].join(" ") + "\n")),
            "both" => {
                stdout("out\n");
                self.write(v1::Stream::Stderr, b"err\n");
            }
            "image-command" => stdout("the image's command\n"),
            "/bin/sh" if command.len() == 1 => stdout("a shell\n"),
            "env" => {
                let spec = self.session.lock().unwrap().spec.clone().unwrap();
                for (key, value) in &spec.env {
                    stdout(&format!("{key}={value}\n"));
                }
                stdout(&format!("user={} dir={}\n", spec.user, spec.working_dir));
            }
            "bytes" => {
                let length = usize::try_from(number).unwrap();
                self.write(v1::Stream::Stdout, &pattern(length));
            }
            "exit" => return self.end(How::Code(number)),
            "die" => return self.end(How::Signal(number)),
            "oom" => return self.end(How::OutOfMemory(true)),
            "deadline" => return self.end(How::Deadline(true)),
            "vm-gone" => return self.end(How::VmGone(true)),
            "terminal" => {
                let size = self.session.lock().unwrap().spec.as_ref().unwrap().terminal;
                match size {
                    Some(size) => stdout(&format!("size {} {}\r\n", size.rows, size.columns)),
                    None => stdout("no terminal\n"),
                }
                if size.is_some() {
                    return;
                }
            }
            "cat" | "sink" if self.session.lock().unwrap().spec.as_ref().unwrap().stdin => return,
            "cat" | "sink" => {}
            "sleep" => return stdout("ready\n"),
            other => panic!("no program called {other}"),
        }
        self.end(How::Code(0));
    }

    /// Takes standard input; how much was taken in all.
    fn stdin(&self, stdin: &v1::Stdin) -> Result<i64, Status> {
        let mut session = self.session.lock().unwrap();
        let skip = session.stdin_offset - stdin.offset;
        let Ok(skip) = usize::try_from(skip) else {
            return Err(refuse(
                Code::InvalidArgument,
                "STDIN_REFUSED",
                "a hole",
                &[],
            ));
        };
        let new = stdin.data.get(skip..).unwrap_or_default();
        session.stdin_offset += i64::try_from(new.len()).unwrap();
        let accepted = session.stdin_offset;
        drop(session);
        self.input.lock().unwrap().extend_from_slice(new);
        match self.command()[0].as_str() {
            "cat" => self.write(v1::Stream::Stdout, new),
            "terminal" => {
                self.write(v1::Stream::Stdout, new);
                if new.contains(&b'q') {
                    self.end(How::Code(0));
                }
            }
            _ => {}
        }
        Ok(accepted)
    }

    fn sent(&self, sent: Sent) -> Result<Option<i64>, Status> {
        match sent {
            Sent::Stdin(stdin) => return self.stdin(&stdin).map(Some),
            Sent::Close => {
                if self.command()[0] == "sink" {
                    let length = self.input.lock().unwrap().len();
                    self.write(v1::Stream::Stdout, format!("{length}\n").as_bytes());
                }
                if self.command()[0] != "sleep" {
                    self.end(How::Code(0));
                }
            }
            Sent::Resize(size) => {
                let text = format!("size {} {}\r\n", size.rows, size.columns);
                self.write(v1::Stream::Stdout, text.as_bytes());
            }
            Sent::Signal(signal) => self.signal(signal),
            Sent::Nothing => {}
        }
        Ok(None)
    }

    fn signal(&self, signal: i32) {
        self.signals.lock().unwrap().push(signal);
        if self.command().get(1).map(String::as_str) == Some("trap") && signal != 9 {
            return self.write(v1::Stream::Stdout, format!("signal {signal}\n").as_bytes());
        }
        self.end(How::Signal(signal));
    }

    /// What follows `offset`, or the exit; `None` if there is nothing yet.
    fn told(&self, offset: &mut i64) -> Option<Told> {
        let session = self.session.lock().unwrap();
        if *offset < session.log_start_offset {
            let gap = v1::Gap {
                offset: *offset,
                lost_bytes: session.log_start_offset - *offset,
            };
            *offset = session.log_start_offset;
            return Some(Told::Gap(gap));
        }
        let log = self.log.lock().unwrap();
        let index = log.partition_point(|output| output.offset + length(output) <= *offset);
        if let Some(output) = log.get(index) {
            let mut output = output.clone();
            let known = usize::try_from(*offset - output.offset).unwrap();
            drop(output.data.split_to(known));
            output.offset = *offset;
            *offset += length(&output);
            return Some(Told::Output(output));
        }
        let exit = session.exit?;
        Some(Told::Exited(v1::Exited {
            exit: Some(exit),
            end_offset: session.log_end_offset,
        }))
    }
}

fn length(output: &v1::Output) -> i64 {
    i64::try_from(output.data.len()).unwrap()
}

/// Bytes of every value, in an order that shows what is missing.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| u8::try_from((i * 31 + i / 256) % 256).unwrap())
        .collect()
}

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
            return Some(Ok(Told::Session(
                self.running.session.lock().unwrap().clone(),
            )));
        }
        loop {
            if self.state.silent.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            let draining = &self.state.draining;
            if draining
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok()
            {
                self.ended = true;
                let message = "the daemon is stopping";
                return Some(Err(refuse(Code::Unavailable, "DRAINING", message, &[])));
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
            None => session.log_start_offset,
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
        let running = self.session(&start.session)?;
        let read = |sent: v1::AttachSessionRequest| match sent.message {
            Some(In::Stdin(stdin)) => Sent::Stdin(stdin),
            Some(In::CloseStdin(_)) => Sent::Close,
            Some(In::Resize(size)) => Sent::Resize(size),
            _ => Sent::Nothing,
        };
        let wrap = |told| {
            let message = match told {
                Told::Session(session) => Out::Attached(session),
                Told::Output(output) => Out::Output(output),
                Told::Gap(gap) => Out::Gap(gap),
                Told::Ack(offset) => Out::StdinAck(offset),
                Told::Idle => Out::Heartbeat(v1::Heartbeat {}),
                Told::Exited(exited) => Out::Exited(exited),
            };
            v1::AttachSessionResponse {
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
            let message = match told {
                Told::Session(session) => Out::Attached(session),
                Told::Output(output) => Out::Output(output),
                Told::Gap(gap) => Out::Gap(gap),
                Told::Ack(_) | Told::Idle => Out::Heartbeat(v1::Heartbeat {}),
                Told::Exited(exited) => Out::Exited(exited),
            };
            v1::ReadSessionLogResponse {
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
                Told::Session(session) => Out::Started(session),
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
