//! Agents that run no processes: each command is a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use banger_core::guest::{
    AttachTarget, BoxedChannel, Guest, GuestConfig, GuestConnector, GuestError, GuestIdentity,
    GuestInfo, GuestVolume, SessionEvents, SessionInputs, TreePieces, TreeSource, TunnelEvents,
    TunnelInputs,
};
use banger_core::port::{HttpAnswer, Listener, Listeners, ListeningProcess, PortProtocol, Probe};
use banger_core::session::{
    AttachOptions, Attached, Exit, Session, SessionEvent, SessionInput, SessionSpec, SessionState,
    SignalTarget, Stream,
};
use banger_core::stats::GuestStats;
use banger_core::tree::{Changes, DiskWrites, PathKind, TreeEntry, TreeKind, TreePiece, TreePlace};
use banger_core::tunnel::TunnelTarget;
use banger_core::vmm::Accelerator;
use banger_core::{SessionId, Timestamp, VmId};
use banger_vmm::fake::Agent;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::watch;

use crate::file_agent::{FakeFileSystem, FakeFiles};
use crate::tunnels;

/// How long a growth may take with an agent that does not answer.
const GROWTH_LIMIT: Duration = Duration::from_millis(300);
/// What tells a fake VM to power off.
pub(crate) const POWER_OFF: &[u8] = b"!";

/// What runs in a fake VM: it powers off when it is told to.
pub(crate) fn agent() -> Agent {
    Arc::new(|mut guest| {
        Box::pin(async move {
            guest.say(b"booted\n");
            greet(&mut guest).await;
            let mut byte = [0];
            match guest.stream.read(&mut byte).await {
                Ok(1) => guest.power_off(),
                _ => std::future::pending().await,
            }
        })
    })
}

/// The agent's first word: which boot this is.
pub(crate) async fn greet(guest: &mut banger_vmm::fake::FakeGuest) {
    let boot = guest.boot();
    // Who does not listen has hung up.
    let _ = guest.stream.write_u64(boot).await;
}

/// The sessions of all VMs, which know nothing of daemons. Clones are the same.
#[derive(Default, Clone)]
pub(crate) struct Sessions(Arc<Mutex<BTreeMap<u64, BTreeMap<SessionId, Running>>>>);

impl Sessions {
    fn of(&self, boot: u64) -> MappedSessions<'_> {
        MappedSessions {
            all: self.0.lock().unwrap(),
            boot,
        }
    }
}

/// The sessions of one boot.
struct MappedSessions<'a> {
    all: MutexGuard<'a, BTreeMap<u64, BTreeMap<SessionId, Running>>>,
    boot: u64,
}

impl Deref for MappedSessions<'_> {
    type Target = BTreeMap<SessionId, Running>;

    fn deref(&self) -> &Self::Target {
        static NONE: BTreeMap<SessionId, Running> = BTreeMap::new();
        self.all.get(&self.boot).unwrap_or(&NONE)
    }
}

impl DerefMut for MappedSessions<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.all.entry(self.boot).or_default()
    }
}

#[derive(Default)]
pub(crate) struct FakeConnector {
    /// What guests were told of their volumes, and which disks they grew to which size.
    pub(crate) disks: Arc<Mutex<Disks>>,
    /// Sessions that were deleted while their process ran.
    pub(crate) killed: Arc<Mutex<Vec<SessionId>>>,
    /// Whether agents have stopped answering.
    pub(crate) is_mute: Arc<AtomicBool>,
    /// What guests were told while they were set up.
    pub(crate) setup: Arc<Setup>,
    /// The files of all guests.
    pub(crate) files: FakeFiles,
    pub(crate) sessions: Sessions,
    pub(crate) late: Arc<Mutex<BTreeSet<SessionId>>>,
}

/// What guests did with their disks.
#[derive(Debug, Default)]
pub(crate) struct Disks {
    /// The volumes of each guest that was set up.
    pub(crate) mounted: Vec<Vec<GuestVolume>>,
    /// Serial numbers and sizes.
    pub(crate) grown: Vec<(String, u64)>,
    /// From now on no file system grows.
    pub(crate) growth_fails: bool,
    /// From now on growing never ends.
    pub(crate) growth_hangs: bool,
}

/// What guests were told while they were set up, in order; and where they do not go on.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) told: Mutex<Vec<Told>>,
    /// The step that never ends.
    pub(crate) stuck_in: Mutex<&'static str>,
    /// From now on agents say that they are set up.
    pub(crate) is_done: AtomicBool,
}

/// One step of a guest's set-up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    /// Directory, name, mode, owner and length of a file.
    File(String, String, u16, (u32, u32), u64),
    Identity(GuestIdentity),
    Configure,
    Init,
}

impl Setup {
    async fn step(&self, name: &'static str, told: Told) {
        let is_stuck = *self.stuck_in.lock().unwrap() == name;
        if is_stuck {
            std::future::pending::<()>().await;
        }
        self.told.lock().unwrap().push(told);
    }
}

struct Running {
    session: Session,
    signal: watch::Sender<Option<i32>>,
    begin: Instant,
}

/// Lines of a session that counts, at most.
const COUNTED_MAX: u128 = 5_000;

/// What a session that counts has written so far: a line each hundredth of a second.
fn counted(begin: Instant) -> Bytes {
    let lines = (begin.elapsed().as_millis() / 10).min(COUNTED_MAX);
    let text: String = (1..=lines).map(|line| format!("{line}\n")).collect();
    Bytes::from(text)
}

pub(crate) struct FakeGuest {
    vm: VmId,
    /// What the VM says; it ends with the conversation.
    from_vm: tokio::sync::Mutex<ReadHalf<BoxedChannel>>,
    to_vm: tokio::sync::Mutex<WriteHalf<BoxedChannel>>,
    /// Whether the agent has stopped answering.
    is_mute: Arc<AtomicBool>,
    disks: Arc<Mutex<Disks>>,
    setup: Arc<Setup>,
    killed: Arc<Mutex<Vec<SessionId>>>,
    pub(crate) files: FakeFileSystem,
    sessions: Sessions,
    boot: u64,
    /// Starts that did not reach the guest.
    late: Arc<Mutex<BTreeSet<SessionId>>>,
}

#[tonic::async_trait]
impl GuestConnector for FakeConnector {
    async fn connect(
        &self,
        vm: VmId,
        mut channel: BoxedChannel,
        _: Accelerator,
    ) -> Result<(Arc<dyn Guest>, GuestInfo), GuestError> {
        let boot = channel.read_u64().await;
        let boot = boot.map_err(|_| GuestError::Lost { during: "hello" })?;
        let (from_vm, to_vm) = tokio::io::split(channel);
        let guest = FakeGuest {
            vm,
            from_vm: from_vm.into(),
            to_vm: to_vm.into(),
            is_mute: self.is_mute.clone(),
            disks: self.disks.clone(),
            setup: self.setup.clone(),
            killed: self.killed.clone(),
            files: FakeFileSystem(self.files.clone()),
            sessions: self.sessions.clone(),
            boot,
            late: self.late.clone(),
        };
        let info = GuestInfo {
            generation: 2,
            agent_version: "fake".into(),
            kernel_release: "fake".into(),
            boot_id: vm.to_string(),
            is_configured: self.setup.is_done.load(Ordering::Relaxed),
            boot_steps: Vec::new(),
        };
        Ok((Arc::new(guest), info))
    }
}

impl FakeGuest {
    /// Never returns where the agent does not answer.
    async fn unless_mute(&self) {
        if self.is_mute.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

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
            usage: None,
            is_spec_shortened: false,
        };
        let running = Running {
            session: session.clone(),
            signal: watch::Sender::new(None),
            begin: Instant::now(),
        };
        self.sessions.of(self.boot).entry(id).or_insert(running);
        Ok(session)
    }

    fn look(&self, id: SessionId) -> Result<(Session, watch::Receiver<Option<i32>>), GuestError> {
        let sessions = self.sessions.of(self.boot);
        let running = sessions.get(&id).ok_or(GuestError::UnknownSession { id })?;
        Ok((running.session.clone(), running.signal.subscribe()))
    }

    /// When a session began.
    fn begin_of(&self, id: SessionId) -> Instant {
        self.sessions.of(self.boot)[&id].begin
    }

    fn events(&self, id: SessionId, input: SessionInputs) -> Result<SessionEvents, GuestError> {
        let (session, signal) = self.look(id)?;
        let command = session.spec.command.clone();
        let attached = stream::iter([Ok(SessionEvent::Attached(Box::new(Attached {
            session,
            start_offset: 0,
            stdin_offset: 0,
        })))]);
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
            "count" => stream::iter([Ok(output(0, counted(self.begin_of(id))))]).boxed(),
            "break" => {
                let limit = Duration::from_secs(30);
                let during = "attach";
                stream::iter([
                    Ok(SessionEvent::StdinAck { offset: 3 }),
                    Ok(output(0, Bytes::from_static(b"hello"))),
                    Err(GuestError::Deadline { during, limit }),
                ])
                .boxed()
            }
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
    async fn configure(&self, config: &GuestConfig) -> Result<(), GuestError> {
        self.unless_mute().await;
        let volumes = config.volumes.clone();
        self.disks.lock().unwrap().mounted.push(volumes);
        self.setup.step("configure", Told::Configure).await;
        Ok(())
    }

    async fn set_identity(&self, identity: &GuestIdentity) -> Result<(), GuestError> {
        let told = Told::Identity(identity.clone());
        self.setup.step("identity", told).await;
        Ok(())
    }

    async fn start_init(&self) -> Result<(), GuestError> {
        self.setup.step("init", Told::Init).await;
        Ok(())
    }

    async fn start_session(
        &self,
        id: SessionId,
        spec: &SessionSpec,
    ) -> Result<Session, GuestError> {
        if spec.command[0] == "late" && self.late.lock().unwrap().insert(id) {
            return Err(GuestError::Lost { during: "start" });
        }
        self.begin(id, spec)
    }

    async fn get_session(&self, id: SessionId) -> Result<Session, GuestError> {
        Ok(self.look(id)?.0)
    }

    async fn list_sessions(&self) -> Result<Vec<Session>, GuestError> {
        self.unless_mute().await;
        let sessions = self.sessions.of(self.boot);
        // An agent's order is that in which starts ended, which is any.
        Ok(sessions
            .values()
            .rev()
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
        self.sessions.of(self.boot)[&id]
            .signal
            .send_replace(Some(signal));
        Ok(())
    }

    async fn delete_session(&self, id: SessionId) -> Result<(), GuestError> {
        if self.sessions.of(self.boot).remove(&id).is_some() {
            self.killed.lock().unwrap().push(id);
        }
        Ok(())
    }

    async fn resolve_user(&self, user: &str) -> Result<(u32, u32), GuestError> {
        match user {
            "" | "0" | "root" => Ok((0, 0)),
            "app" => Ok((1000, 1001)),
            user => Err(GuestError::UnknownUser { user: user.into() }),
        }
    }

    async fn list_directory(&self, _: &[u8]) -> Result<PathKind, GuestError> {
        Ok(PathKind::Missing)
    }

    /// A directory is in the way at `/taken`.
    async fn put_tree(&self, place: &TreePlace, mut source: TreeSource) -> Result<(), GuestError> {
        let mut length = 0;
        while let Some(piece) = source.next().await {
            let TreePiece::Entry(entry) = piece else {
                continue;
            };
            if let TreeKind::File { size } = entry.kind {
                length = size;
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (directory, name) = (text(&place.path), text(&entry.path));
            if name == "taken" {
                return Err(GuestError::File {
                    problem: banger_core::file::FileProblem::IsDirectory,
                    path: "words of the guest".into(),
                    detail: "Is a directory".into(),
                });
            }
            let owner = (entry.uid, entry.gid);
            let told = Told::File(directory, name, entry.mode, owner, length);
            self.setup.step("files", told).await;
        }
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

    async fn stats(&self) -> Result<GuestStats, GuestError> {
        self.unless_mute().await;
        Ok(GuestStats {
            memory_total_bytes: 64 << 20,
            process_count: 3,
            ..GuestStats::default()
        })
    }

    async fn list_ports(&self, probe: Probe) -> Result<Listeners, GuestError> {
        self.unless_mute().await;
        let http = (probe == Probe::Http).then(|| HttpAnswer {
            status: 200,
            title: "Hello".into(),
        });
        let listener = Listener {
            protocol: PortProtocol::Tcp,
            address: std::net::Ipv6Addr::UNSPECIFIED.into(),
            port: 8080,
            uid: 1000,
            process: Some(ListeningProcess {
                pid: 7,
                name: "httpd".into(),
                uid: 1000,
            }),
            http,
        };
        Ok(Listeners {
            listeners: vec![listener],
            is_truncated: false,
        })
    }

    async fn open_tunnel(
        &self,
        target: &TunnelTarget,
        _: Duration,
        input: TunnelInputs,
    ) -> Result<TunnelEvents, GuestError> {
        tunnels::connect(target, input)
    }

    async fn grow_disk(&self, serial: &str, size_bytes: u64) -> Result<(), GuestError> {
        if self.is_mute.load(Ordering::Relaxed) {
            // As a real connection: it has a limit of its own.
            tokio::time::sleep(GROWTH_LIMIT).await;
            return Err(GuestError::Deadline {
                during: "grow_disk",
                limit: GROWTH_LIMIT,
            });
        }
        if self.disks.lock().unwrap().growth_hangs {
            std::future::pending::<()>().await;
        }
        let mut disks = self.disks.lock().unwrap();
        if disks.growth_fails {
            return Err(GuestError::NotSetUp {
                detail: "the test asked for it".into(),
            });
        }
        disks.grown.push((serial.to_owned(), size_bytes));
        Ok(())
    }

    async fn power_off(&self, _: Duration) -> Result<(), GuestError> {
        self.unless_mute().await;
        let sent = self.to_vm.lock().await.write_all(POWER_OFF).await;
        sent.map_err(|_| GuestError::Lost {
            during: "power off",
        })
    }

    fn set_held(&self, _: bool) {}

    async fn closed(&self) {
        let mut byte = [0];
        while self
            .from_vm
            .lock()
            .await
            .read(&mut byte)
            .await
            .is_ok_and(|read| read > 0)
        {}
    }
}
