//! The one place where children are waited for.
//!
//! As process 1 the agent inherits every orphan of the guest, so it waits for *any* child; elsewhere it
//! waits only for those it started, because others in the process have children too. Launching holds the
//! table's lock, so that no child can be reaped before it is entered.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// Whose children are reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaping {
    /// Every child, as process 1 must.
    All,
    /// Only those started through the reaper.
    Own,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It returned this code.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
}

type Waiting = HashMap<i32, oneshot::Sender<Ending>>;

/// Waits for children and tells whom it concerns.
#[derive(Debug)]
pub struct Reaper {
    reaping: Reaping,
    waiting: Mutex<Waiting>,
    childless: watch::Sender<bool>,
}

impl Reaper {
    /// A reaper with nobody to wait for.
    #[must_use]
    pub fn new(reaping: Reaping) -> Self {
        Self {
            reaping,
            waiting: Mutex::default(),
            childless: watch::Sender::new(false),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // The table is consistent between any two statements, so a panic elsewhere spoils nothing.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a child by `launch`, which returns its pid, and waits for it from now on.
    ///
    /// # Errors
    /// Those of `launch`.
    pub fn start<E>(
        &self,
        launch: impl FnOnce() -> Result<i32, E>,
    ) -> Result<(i32, oneshot::Receiver<Ending>), E> {
        let mut waiting = self.waiting();
        let pid = launch()?;
        let (sender, receiver) = oneshot::channel();
        waiting.insert(pid, sender);
        self.childless.send_replace(false);
        Ok((pid, receiver))
    }

    /// Runs `signal` unless the child `pid` has been reaped, so that a number in reuse is never hit.
    pub fn while_alive(&self, pid: i32, signal: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let waiting = self.waiting();
        if waiting.contains_key(&pid) {
            signal()
        } else {
            Ok(())
        }
    }

    /// Reaps on every SIGCHLD. Never returns.
    ///
    /// # Errors
    /// If the signal cannot be listened for.
    pub async fn run(&self) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        loop {
            self.reap();
            if children.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    /// Waits until no child is left, as far as the last SIGCHLD tells.
    pub async fn wait_childless(&self) {
        let mut childless = self.childless.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let _ = childless.wait_for(|childless| *childless).await;
    }

    /// Takes every child that has ended.
    pub fn reap(&self) {
        let mut waiting = self.waiting();
        match self.reaping {
            Reaping::All => self.reap_all(&mut waiting),
            Reaping::Own => reap_own(&mut waiting),
        }
    }

    fn reap_all(&self, waiting: &mut Waiting) {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => tell(waiting, pid.as_raw_nonzero().get(), status),
                Err(Errno::INTR) => {}
                Err(Errno::CHILD) => {
                    self.childless.send_replace(true);
                    return;
                }
                Ok(None) | Err(_) => return,
            }
        }
    }
}

fn reap_own(waiting: &mut Waiting) {
    let pids: Vec<i32> = waiting.keys().copied().collect();
    for pid in pids {
        let ended = Pid::from_raw(pid).map(|pid| waitpid(Some(pid), WaitOptions::NOHANG));
        if let Some(Ok(Some((_, status)))) = ended {
            tell(waiting, pid, status);
        }
    }
}

fn tell(waiting: &mut Waiting, pid: i32, status: WaitStatus) {
    let Some(sender) = waiting.remove(&pid) else {
        return; // An orphan that was given to us.
    };
    let ending = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Code(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::Code(0), // Stops are not waited for, so this does not happen.
    };
    // Nobody may be waiting any more.
    let _ = sender.send(ending);
}
