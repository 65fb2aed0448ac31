//! An agent in this process, and a guest connected to it.
#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub
)] // each test binary uses its part
#![allow(clippy::unwrap_used)] // helpers of tests, outside of test functions

pub mod scene;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use banger_agent::agent::{Agent, Machine, Options};
use banger_agent::reap::Reaping;
use banger_agent::serve::serve;
use banger_core::guest::{
    AttachTarget, Guest, GuestConnector, GuestError, SessionEvents, SessionInputs,
};
use banger_core::session::{
    AttachOptions, Backpressure, Exit, ReadFrom, SessionEvent, SessionInput, SessionSpec, Stream,
    TerminalSize,
};
use banger_core::vmm::Accelerator;
use banger_core::{SessionId, VmId};
use banger_guest::{Connector, Deadlines};
use bytes::Bytes;
use futures::StreamExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

/// What no test may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Rig {
    pub agent: Arc<Agent>,
    pub guest: Arc<dyn Guest>,
    pub cgroups: Option<Cgroups>,
}

/// A cgroup of a test's own, which ends with it, and with whatever runs in it.
pub struct Cgroups(pub PathBuf);

impl Cgroups {
    pub fn new() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("banger-test-{}-{number}", std::process::id());
        let path = cgroups()?.join(name);
        std::fs::create_dir(&path).unwrap();
        Some(Self(path))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        for _ in 0..100 {
            for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(entry.path());
            }
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} is left over", self.0.display());
    }
}

/// A directory of cgroup v2 in which this process may make cgroups, if there is one.
pub fn cgroups() -> Option<PathBuf> {
    let candidates = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    candidates.iter().map(Path::new).find_map(|path| {
        let probe = path.join(format!("banger-probe-{}", std::process::id()));
        let is_v2 = path.join("cgroup.procs").exists();
        let made = is_v2 && std::fs::create_dir(&probe).is_ok();
        let _ = std::fs::remove_dir(&probe);
        made.then(|| path.to_owned())
    })
}

pub fn agent(cgroups: Option<PathBuf>) -> Arc<Agent> {
    agent_in(Path::new("/"), cgroups)
}

pub fn agent_in(root: &Path, cgroups: Option<PathBuf>) -> Arc<Agent> {
    let agent = Agent::new(&Options {
        root: root.into(),
        cgroups,
        reaping: Reaping::Own,
        machine: Machine::Foreign,
        init: None,
    });
    let reaping = Arc::clone(&agent);
    agent.tasks.spawn(async move { reaping.reap().await });
    agent
}

pub async fn connect(agent: &Arc<Agent>) -> Arc<dyn Guest> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = Arc::clone(agent);
    agent
        .tasks
        .spawn(async move { serve(&serving, theirs).await });
    let connector = Connector::new(Deadlines::default());
    let (guest, info) = connector
        .connect(VmId::new(), Box::new(ours), Accelerator::Kvm)
        .await
        .unwrap();
    assert_eq!(info.generation, 2);
    guest
}

pub async fn rig() -> Rig {
    let cgroups = Cgroups::new();
    let agent = agent(cgroups.as_ref().map(|cgroups| cgroups.0.clone()));
    let guest = connect(&agent).await;
    Rig {
        agent,
        guest,
        cgroups,
    }
}

/// An agent whose guest's root is this directory.
pub async fn rig_in(root: &Path) -> Rig {
    let agent = agent_in(root, None);
    let guest = connect(&agent).await;
    Rig {
        agent,
        guest,
        cgroups: None,
    }
}

pub fn spec(command: &[&str]) -> SessionSpec {
    SessionSpec {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        env: Default::default(),
        working_dir: String::new(),
        user: String::new(),
        terminal: None,
        stdin: false,
        timeout: None,
        ..SessionSpec::default()
    }
}

pub fn shell(script: &str) -> SessionSpec {
    spec(&["/bin/sh", "-c", script])
}

pub fn holding(from: ReadFrom) -> AttachOptions {
    AttachOptions {
        from,
        backpressure: Backpressure::HoldProcess,
        ..AttachOptions::default()
    }
}

/// An attached session with its input.
pub struct Attached {
    pub id: SessionId,
    pub events: SessionEvents,
    pub input: mpsc::Sender<SessionInput>,
}

impl Rig {
    pub async fn start(&self, spec: SessionSpec) -> Attached {
        self.try_start(spec).await.unwrap()
    }

    pub async fn try_start(&self, spec: SessionSpec) -> Result<Attached, GuestError> {
        let id = SessionId::new();
        let target = AttachTarget::Start {
            id,
            spec: Box::new(spec),
            remove_after_exit: false,
        };
        self.attach(target, id, holding(ReadFrom::Start)).await
    }

    pub async fn attach(
        &self,
        target: AttachTarget,
        id: SessionId,
        options: AttachOptions,
    ) -> Result<Attached, GuestError> {
        let (input, inputs) = mpsc::channel(4);
        let inputs: SessionInputs = ReceiverStream::new(inputs).boxed();
        let events = self.guest.attach(target, options, inputs).await?;
        Ok(Attached { id, events, input })
    }

    pub async fn run(&self, spec: SessionSpec) -> Outcome {
        outcome(self.start(spec).await.events).await
    }
}

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Outcome {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub lost: u64,
    pub acked: u64,
    pub exit: Option<Exit>,
}

impl Outcome {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Attached {
    pub async fn stdin(&self, offset: u64, data: impl Into<Bytes>) {
        let data = data.into();
        self.input
            .send(SessionInput::Stdin { offset, data })
            .await
            .unwrap();
    }

    pub async fn resize(&self, size: TerminalSize) {
        self.input.send(SessionInput::Resize(size)).await.unwrap();
    }

    pub async fn next(&mut self) -> Result<SessionEvent, GuestError> {
        timeout(PATIENCE, self.events.next())
            .await
            .unwrap()
            .unwrap()
    }

    /// Reads until the standard output so far contains `text`.
    pub async fn until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        let all = async {
            loop {
                if let SessionEvent::Output { data, .. } = self.next().await.unwrap() {
                    seen.extend_from_slice(&data);
                }
                let so_far = String::from_utf8_lossy(&seen).into_owned();
                if so_far.contains(text) {
                    return so_far;
                }
            }
        };
        // Heartbeats come for ever: the whole has the limit, not each event.
        let found = timeout(PATIENCE, all).await;
        found.unwrap_or_else(|_| panic!("{text:?} did not come"))
    }
}

/// Everything up to the end.
pub async fn outcome(mut events: SessionEvents) -> Outcome {
    let mut outcome = Outcome::default();
    let all = async {
        while let Some(event) = events.next().await {
            match event.unwrap() {
                SessionEvent::Attached(_)
                | SessionEvent::Screen { .. }
                | SessionEvent::Heartbeat => {}
                SessionEvent::Output { stream, data, .. } => match stream {
                    Stream::Stdout => outcome.stdout.extend_from_slice(&data),
                    Stream::Stderr => outcome.stderr.extend_from_slice(&data),
                },
                SessionEvent::Gap { lost_bytes, .. } => outcome.lost += lost_bytes,
                SessionEvent::StdinAck { offset } => outcome.acked = offset,
                SessionEvent::Exited { exit, .. } => outcome.exit = Some(exit),
            }
        }
    };
    let ended = timeout(PATIENCE, all).await.is_ok();
    assert!(ended, "no end came after {:?}", outcome.text());
    outcome
}

/// Waits until the process `pid` is gone.
pub async fn gone(pid: i32) {
    let path = format!("/proc/{pid}/stat");
    let is_gone = || match std::fs::read_to_string(&path) {
        Ok(stat) => stat.rsplit(')').next().unwrap().trim().starts_with('Z'),
        Err(_) => true,
    };
    let wait = async {
        while !is_gone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), wait)
        .await
        .expect("the process lives on");
}
