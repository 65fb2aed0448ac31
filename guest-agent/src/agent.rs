//! The agent itself: what it knows of its guest, and the answers to the calls of the host.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::configure::{Lent, Settings};
use crate::file::FileCalls;
use crate::init::Init;
use crate::reap::{Reaper, Reaping};
use crate::refusal::Refusal;
use crate::session::registry::Registry;
use crate::volume::Volumes;
use crate::workspace::WorkspaceCalls;

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where `etc/passwd` and the like are.
    pub root: PathBuf,
    /// The cgroup v2 directory under which sessions get theirs; one that is none means no cgroups.
    pub cgroups: Option<PathBuf>,
    /// Whose children are reaped.
    pub reaping: Reaping,
    /// What the agent may do to the machine.
    pub machine: Machine,
    /// The image's own init, where it is to be process 1.
    pub init: Option<Arc<Init>>,
}

/// What the agent may do to the machine it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// It is process 1, or beside the image's: it sets the guest up and powers it off.
    Owned,
    /// It is a guest itself: it only runs sessions.
    Foreign,
}

/// How the boot went.
#[derive(Debug, Clone, Default)]
pub struct Boot {
    /// The steps, in order.
    pub steps: Vec<(&'static str, Duration)>,
    /// Why the guest is of no use.
    pub failure: Option<String>,
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    /// All sessions.
    pub sessions: Arc<Registry>,
    /// Waits for children.
    pub reaper: Arc<Reaper>,
    /// What was configured last.
    pub settings: Mutex<Option<Settings>>,
    /// What may be done to the machine.
    pub machine: Machine,
    /// Beneath which paths of the guest are resolved.
    pub root: PathBuf,
    /// Files that lie over the image's own while sessions run; none in ordinary guests.
    pub lent: std::sync::Mutex<Option<Lent>>,
    /// Held while what the guest uses is looked up.
    pub observing: Arc<Mutex<()>>,
    /// The calls about files that go on.
    pub file_calls: FileCalls,
    /// The calls about workspaces that go on.
    pub workspace_calls: WorkspaceCalls,
    /// Volumes that are mounted.
    pub volumes: Volumes,
    /// The image's own init, where it is to be process 1.
    pub init: Option<Arc<Init>>,
    /// Cancelled when the machine is to be powered off.
    pub power_off: CancellationToken,
    /// The tasks of all connections and sessions.
    pub tasks: TaskTracker,
    boot: watch::Sender<Option<Boot>>,
}

impl Agent {
    /// An agent whose guest has booted already.
    #[must_use]
    pub fn new(options: &Options) -> Arc<Self> {
        let agent = Self::booting(options);
        agent.booted(Boot::default());
        agent
    }

    /// An agent whose guest boots: it answers once [`Agent::booted`] was called.
    #[must_use]
    pub fn booting(options: &Options) -> Arc<Self> {
        let reaper = Arc::new(Reaper::new(options.reaping));
        let tasks = TaskTracker::new();
        Arc::new(Self {
            sessions: Arc::new(Registry::new(options, Arc::clone(&reaper), tasks.clone())),
            reaper,
            settings: Mutex::new(None),
            machine: options.machine,
            root: options.root.clone(),
            lent: std::sync::Mutex::default(),
            observing: Arc::default(),
            file_calls: FileCalls::default(),
            workspace_calls: WorkspaceCalls::default(),
            volumes: Volumes::default(),
            init: options.init.clone(),
            power_off: CancellationToken::new(),
            tasks,
            boot: watch::Sender::new(None),
        })
    }

    /// The boot has ended, well or not.
    pub fn booted(&self, boot: Boot) {
        self.boot.send_replace(Some(boot));
    }

    /// Waits for the end of the boot.
    pub async fn boot(&self) -> Boot {
        let mut boot = self.boot.subscribe();
        match boot.wait_for(Option::is_some).await {
            Ok(boot) => boot.clone().unwrap_or_default(),
            Err(_) => Boot::default(), // The sender lives in `self`.
        }
    }

    /// Waits for the end of a boot that went well.
    ///
    /// # Errors
    /// Why the guest is of no use.
    pub async fn ready(&self) -> Result<(), Refusal> {
        match self.boot().await.failure {
            None => Ok(()),
            Some(detail) => Err(Refusal::Setup { detail }),
        }
    }

    /// Listens for children that end. Never returns while it can listen.
    ///
    /// # Errors
    /// If the signal cannot be listened for.
    pub async fn reap(&self) -> std::io::Result<()> {
        self.reaper.run().await
    }
}

/// The text of a small file of the kernel, without the newline.
#[must_use]
pub fn kernel_text(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}
