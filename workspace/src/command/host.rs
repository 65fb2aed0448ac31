//! Processes by the standard library, as the user that this process is.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::process::{Ending, Launcher, Plan, Running};

/// Starts processes as this one's children.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostLauncher;

impl Launcher for HostLauncher {
    fn launch(&self, plan: Plan) -> io::Result<Running> {
        let [stdin, stdout, stderr] = plan.stdio;
        let mut words = plan.arguments.into_iter();
        let program = words.next().unwrap_or_default();
        let child = Command::new(program)
            .args(words)
            .env_clear()
            .envs(plan.environment)
            .current_dir(plan.directory)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        let child = Arc::new(Mutex::new(Some(child)));
        let killed = Arc::clone(&child);
        let (sender, ending) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            // Nobody need wait for it any more.
            let _ = sender.send(wait(pid, &child));
        });
        Ok(Running {
            ending,
            kill: Arc::new(move || kill(pid, &killed)),
        })
    }
}

type Shared = Mutex<Option<Child>>;

/// Waits without taking the process's number away, and takes it only under the lock: so [`kill`] never hits another's.
fn wait(pid: Pid, child: &Shared) -> Ending {
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(pid), options) {
            Err(rustix::io::Errno::INTR) => {}
            _ => break,
        }
    }
    let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
    let status = child.take().map(|mut child| child.wait());
    match status {
        Some(Ok(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Code(code),
            (None, signal) => Ending::Signal(signal.unwrap_or_default()),
        },
        // It was waited for by somebody else, whom nobody asked to.
        _ => Ending::Signal(0),
    }
}

fn kill(pid: Pid, child: &Shared) {
    let child = child.lock().unwrap_or_else(PoisonError::into_inner);
    if child.is_some() {
        // A group that has gone already is none to kill.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}
