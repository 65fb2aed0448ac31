//! Agents that run no processes: each command is a rule.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use banger_core::guest::{
    AttachTarget, BoxedChannel, Guest, GuestConfig, GuestConnector, GuestError, GuestInfo,
    SessionEvents, SessionInputs, TreePieces, TreeSource,
};
use banger_core::session::{
    AttachOptions, Exit, Session, SessionEvent, SessionInput, SessionSpec, SessionState,
    SignalTarget, Stream,
};
use banger_core::tree::{Changes, DiskWrites, PathKind, TreeEntry, TreeKind, TreePiece, TreePlace};
use banger_core::{SessionId, Timestamp, VmId};
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

#[derive(Default)]
pub(crate) struct FakeConnector {
    /// Sessions that were deleted while their process ran.
    pub(crate) killed: Arc<Mutex<Vec<SessionId>>>,
    sessions: Arc<Mutex<BTreeMap<SessionId, Running>>>,
}

struct Running {
    session: Session,
    signal: watch::Sender<Option<i32>>,
}

struct FakeGuest {
    vm: VmId,
    channel: tokio::sync::Mutex<BoxedChannel>,
    killed: Arc<Mutex<Vec<SessionId>>>,
    sessions: Arc<Mutex<BTreeMap<SessionId, Running>>>,
}

#[tonic::async_trait]
impl GuestConnector for FakeConnector {
    async fn connect(
        &self,
        vm: VmId,
        channel: BoxedChannel,
    ) -> Result<(Arc<dyn Guest>, GuestInfo), GuestError> {
        let guest = FakeGuest {
            vm,
            channel: channel.into(),
            killed: self.killed.clone(),
            sessions: self.sessions.clone(),
        };
        let info = GuestInfo {
            generation: 1,
            agent_version: "fake".into(),
            kernel_release: "fake".into(),
            boot_id: vm.to_string(),
            is_configured: false,
            boot_steps: Vec::new(),
        };
        Ok((Arc::new(guest), info))
    }
}

impl FakeGuest {
    fn begin(&self, id: SessionId, spec: &SessionSpec) -> Result<Session, GuestError> {
        let program = spec.command[0].clone();
        if program == "missing" {
            return Err(GuestError::ProgramNotFound { program });
        }
        let session = Session {
            id,
            vm: self.vm,
            spec: spec.clone(),
            state: SessionState::Running,
            pid: 7,
            start_time: Timestamp::now(),
            end_time: None,
            log_start_offset: 0,
            log_end_offset: 0,
            stdin_offset: 0,
        };
        let running = Running {
            session: session.clone(),
            signal: watch::Sender::new(None),
        };
        self.sessions.lock().unwrap().entry(id).or_insert(running);
        Ok(session)
    }

    fn look(&self, id: SessionId) -> Result<(Session, watch::Receiver<Option<i32>>), GuestError> {
        let sessions = self.sessions.lock().unwrap();
        let running = sessions.get(&id).ok_or(GuestError::UnknownSession { id })?;
        Ok((running.session.clone(), running.signal.subscribe()))
    }

    fn events(&self, id: SessionId, input: SessionInputs) -> Result<SessionEvents, GuestError> {
        let (session, signal) = self.look(id)?;
        let command = session.spec.command.clone();
        let attached = stream::iter([Ok(SessionEvent::Attached(Box::new(session)))]);
        let end = |exit, end_offset| Ok(SessionEvent::Exited { exit, end_offset });
        let rest = match command[0].as_str() {
            "echo" => {
                let data = Bytes::from(command[1..].join(" "));
                let length = data.len() as u64;
                stream::iter([Ok(output(0, data)), end(Exit::Code(0), length)]).boxed()
            }
            "lose" => stream::iter([Ok(SessionEvent::Gap {
                offset: 0,
                lost_bytes: 5,
            })])
            .chain(stream::pending())
            .boxed(),
            "cat" => cat(input),
            "sleep" => sleep(input, signal),
            _ => stream::iter([end(Exit::Code(0), 0)]).boxed(),
        };
        Ok(attached.chain(rest).boxed())
    }
}

fn output(offset: u64, data: Bytes) -> SessionEvent {
    SessionEvent::Output {
        offset,
        stream: Stream::Stdout,
        time: Timestamp::now(),
        data,
    }
}

fn cat(input: SessionInputs) -> SessionEvents {
    let echo = |input| match input {
        SessionInput::Stdin { offset, data } => {
            let accepted = offset + data.len() as u64;
            vec![
                Ok(SessionEvent::StdinAck { offset: accepted }),
                Ok(output(offset, data)),
            ]
        }
        SessionInput::CloseStdin => vec![Ok(SessionEvent::Exited {
            exit: Exit::Code(0),
            end_offset: 0,
        })],
        SessionInput::Resize(_) => Vec::new(),
    };
    input
        .flat_map(move |input| stream::iter(echo(input)))
        .chain(stream::pending())
        .boxed()
}

/// Reads its input to the end, as an agent does, and ends by a signal.
fn sleep(input: SessionInputs, mut signal: watch::Receiver<Option<i32>>) -> SessionEvents {
    let ended = stream::once(async move {
        let signal = *signal.wait_for(Option::is_some).await.unwrap();
        Ok(SessionEvent::Exited {
            exit: Exit::Signal(signal.unwrap()),
            end_offset: 0,
        })
    });
    let ignored = input.filter_map(async |_| None).chain(stream::pending());
    stream::select(ended, ignored).boxed()
}

/// A file with five bytes.
fn file(path: &str) -> Vec<TreePiece> {
    let entry = TreeEntry {
        path: path.into(),
        kind: TreeKind::File { size: 5 },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (1_000_000_000, 0),
        xattrs: BTreeMap::new(),
    };
    let data = Bytes::from_static(b"hello");
    vec![TreePiece::Entry(Box::new(entry)), TreePiece::Data(data)]
}

#[tonic::async_trait]
impl Guest for FakeGuest {
    async fn configure(&self, _: &GuestConfig) -> Result<(), GuestError> {
        Ok(())
    }

    async fn start_session(
        &self,
        id: SessionId,
        spec: &SessionSpec,
    ) -> Result<Session, GuestError> {
        self.begin(id, spec)
    }

    async fn get_session(&self, id: SessionId) -> Result<Session, GuestError> {
        Ok(self.look(id)?.0)
    }

    async fn list_sessions(&self) -> Result<Vec<Session>, GuestError> {
        let sessions = self.sessions.lock().unwrap();
        Ok(sessions
            .values()
            .map(|running| running.session.clone())
            .filter(|session| session.vm == self.vm)
            .collect())
    }

    async fn attach(
        &self,
        target: AttachTarget,
        _: AttachOptions,
        input: SessionInputs,
    ) -> Result<SessionEvents, GuestError> {
        match target {
            AttachTarget::Existing(id) => self.events(id, input),
            AttachTarget::Start { id, spec, .. } => {
                self.begin(id, &spec)?;
                self.events(id, input)
            }
        }
    }

    async fn read_log(
        &self,
        id: SessionId,
        _: AttachOptions,
        _: bool,
    ) -> Result<SessionEvents, GuestError> {
        self.events(id, stream::pending().boxed())
    }

    async fn wait_session(&self, id: SessionId) -> Result<Exit, GuestError> {
        let (_, mut signal) = self.look(id)?;
        let signal = *signal.wait_for(Option::is_some).await.unwrap();
        Ok(Exit::Signal(signal.unwrap()))
    }

    async fn signal_session(
        &self,
        id: SessionId,
        signal: i32,
        _: SignalTarget,
    ) -> Result<(), GuestError> {
        self.look(id)?;
        self.sessions.lock().unwrap()[&id]
            .signal
            .send_replace(Some(signal));
        Ok(())
    }

    async fn delete_session(&self, id: SessionId) -> Result<(), GuestError> {
        if self.sessions.lock().unwrap().remove(&id).is_some() {
            self.killed.lock().unwrap().push(id);
        }
        Ok(())
    }

    async fn resolve_user(&self, user: &str) -> Result<(u32, u32), GuestError> {
        match user {
            "" | "0" | "root" => Ok((0, 0)),
            user => Err(GuestError::UnknownUser { user: user.into() }),
        }
    }

    async fn list_directory(&self, _: &[u8]) -> Result<PathKind, GuestError> {
        Ok(PathKind::Missing)
    }

    async fn put_tree(&self, _: &TreePlace, mut source: TreeSource) -> Result<(), GuestError> {
        while source.next().await.is_some() {}
        Ok(())
    }

    async fn get_tree(&self, _: &[u8]) -> Result<TreePieces, GuestError> {
        Ok(stream::iter(file("")).map(Ok).boxed())
    }

    /// What a build's steps have made: one file.
    async fn get_changes(&self, _: Changes) -> Result<TreePieces, GuestError> {
        Ok(stream::iter(file("built")).map(Ok).boxed())
    }

    async fn set_disk_writes(&self, _: DiskWrites) -> Result<(), GuestError> {
        Ok(())
    }

    async fn power_off(&self) -> Result<(), GuestError> {
        Ok(())
    }

    async fn closed(&self) {
        let mut byte = [0];
        while self
            .channel
            .lock()
            .await
            .read(&mut byte)
            .await
            .is_ok_and(|read| read > 0)
        {}
    }
}
