//! Starts git as a user of the guest. The threads that want it have that user's rights alone, so a task of the agent's
//! starts it.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{Arc, mpsc};

use banger_workspace::command::{Ending, Launcher, Plan, Running};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::agent::Agent;
use crate::reap::{self, Reaper};
use crate::session::users::Identity;
use crate::sys::{self, Launch, Step, launch};

/// Permissions that git's files do not get.
const UMASK: u32 = 0o022;

/// Starts programs as one user.
#[derive(Debug)]
pub(super) struct UserLauncher {
    reaper: Arc<Reaper>,
    tasks: TaskTracker,
    /// Of the agent: whoever wants a process is on a thread of its own.
    runtime: Handle,
    identity: Identity,
}

impl UserLauncher {
    /// For `identity`. **Called within the agent's runtime.**
    pub(super) fn new(agent: &Arc<Agent>, identity: Identity) -> Self {
        Self {
            reaper: Arc::clone(&agent.reaper),
            tasks: agent.tasks.clone(),
            runtime: Handle::current(),
            identity,
        }
    }
}

/// A process's words, without zero bytes.
fn word(word: OsString) -> io::Result<CString> {
    CString::new(word.into_vec()).map_err(io::Error::from)
}

/// Everything that a launch needs, owned.
struct Owned {
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    directory: CString,
    stdio: [OwnedFd; 3],
    identity: Identity,
}

impl Owned {
    fn of(plan: Plan, identity: Identity) -> io::Result<Self> {
        let path = plan.environment.iter().find(|(name, _)| name == "PATH");
        let path = path.map_or(&b""[..], |(_, path)| path.as_bytes()).to_vec();
        let program = plan.arguments.first().cloned().unwrap_or_default();
        let candidates = path
            .split(|&byte| byte == b':')
            .map(|directory| CString::new([directory, b"/", program.as_bytes()].concat()));
        let environment = plan
            .environment
            .into_iter()
            .map(|(name, value)| word([name, value].join("=".as_ref())));
        Ok(Self {
            candidates: candidates.collect::<Result<_, _>>()?,
            arguments: plan
                .arguments
                .into_iter()
                .map(word)
                .collect::<Result<_, _>>()?,
            environment: environment.collect::<Result<_, _>>()?,
            directory: word(plan.directory.into_os_string())?,
            stdio: plan.stdio,
            identity,
        })
    }

    fn start(
        &self,
        reaper: &Reaper,
    ) -> io::Result<(i32, tokio::sync::oneshot::Receiver<reap::Ending>)> {
        let identity = &self.identity;
        let launched = Launch {
            candidates: &self.candidates,
            arguments: &self.arguments,
            environment: &self.environment,
            working_dir: &self.directory,
            identity: Some((identity.uid, identity.gid, &identity.groups)),
            stdio: [
                self.stdio[0].as_fd(),
                self.stdio[1].as_fd(),
                self.stdio[2].as_fd(),
            ],
            controls_terminal: false,
            cgroup: None,
            umask: UMASK,
            limits: &[],
        };
        reaper
            .start(|| launch(&launched))
            .map_err(|error| match error.step {
                Step::Execute => error.source,
                // Only the program itself may be told as missing.
                step => io::Error::other(format!("{step:?}: {}", error.source)),
            })
    }
}

impl Launcher for UserLauncher {
    fn launch(&self, plan: Plan) -> io::Result<Running> {
        let owned = Owned::of(plan, self.identity.clone())?;
        let reaper = Arc::clone(&self.reaper);
        let (started, answer) = mpsc::sync_channel(1);
        let (told, ending) = mpsc::sync_channel(1);
        let task = async move {
            let (pid, ended) = match owned.start(&reaper) {
                Ok((pid, ended)) => (Ok(pid), Some(ended)),
                Err(error) => (Err(error), None),
            };
            // Its own ends: only the process has them from now on.
            drop(owned);
            // Whoever asked waits for it, and there is room for one.
            let _ = started.send(pid);
            if let Some(ended) = ended
                && let Ok(ended) = ended.await
            {
                let _ = told.send(match ended {
                    reap::Ending::Code(code) => Ending::Code(code),
                    reap::Ending::Signal(signal) => Ending::Signal(signal),
                });
            }
        };
        self.tasks.spawn_on(task, &self.runtime);
        let pid = answer
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the agent ends")))?;
        let reaper = Arc::clone(&self.reaper);
        let kill = move || {
            // A group that has gone already is none to kill.
            let _ = reaper.while_alive(pid, || sys::kill(-pid, libc::SIGKILL));
        };
        Ok(Running {
            ending,
            kill: Arc::new(kill),
        })
    }
}
