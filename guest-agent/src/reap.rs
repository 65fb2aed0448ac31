//! The one place where children are waited for.
//!
//! As process 1 the agent inherits every orphan of the guest, so it waits for *any* child; elsewhere it
//! waits only for those it started, because others in the process have children too. A launch may take as long as a
//! program's file system does, so it holds no lock: the ending of a child that was not entered yet is kept for it.

use std::collections::{HashMap, VecDeque};
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

/// Endings of unknown children that are kept while something is launched. Between a child's end and its entry lie a few
/// instructions.
const EARLY_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<i32, oneshot::Sender<Ending>>,
    /// Launches under way.
    launching: usize,
    /// Children that nobody waits for, the oldest first: one of them may be what is being launched.
    early: VecDeque<(i32, Ending)>,
}

/// Waits for children and tells whom it concerns.
#[derive(Debug)]
pub struct Reaper {
    reaping: Reaping,
    table: Mutex<Table>,
    childless: watch::Sender<bool>,
}

impl Reaper {
    /// A reaper with nobody to wait for.
    #[must_use]
    pub fn new(reaping: Reaping) -> Self {
        Self {
            reaping,
            table: Mutex::default(),
            childless: watch::Sender::new(false),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is consistent between any two statements, so a panic elsewhere spoils nothing.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a child by `launch`, which returns its pid, and waits for it from now on.
    ///
    /// # Errors
    /// Those of `launch`.
    pub fn start<E>(
        &self,
        launch: impl FnOnce() -> Result<i32, E>,
    ) -> Result<(i32, oneshot::Receiver<Ending>), E> {
        let _launching = Launching::begin(self);
        let pid = launch()?;
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        table.waiting.insert(pid, sender);
        self.childless.send_replace(false);
        table.catch_up(pid);
        drop(table);
        Ok((pid, receiver))
    }

    /// Runs `signal` unless the child `pid` has been reaped, so that a number in reuse is never hit.
    pub fn while_alive(&self, pid: i32, signal: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let table = self.table();
        if table.waiting.contains_key(&pid) {
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
        let mut table = self.table();
        match self.reaping {
            Reaping::All => self.reap_all(&mut table),
            Reaping::Own => table.reap_own(),
        }
    }

    fn reap_all(&self, table: &mut Table) {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => table.tell(pid.as_raw_nonzero().get(), ending(status)),
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

/// A launch under way, up to its end.
struct Launching<'a>(&'a Reaper);

impl<'a> Launching<'a> {
    fn begin(reaper: &'a Reaper) -> Self {
        reaper.table().launching += 1;
        Self(reaper)
    }
}

impl Drop for Launching<'_> {
    fn drop(&mut self) {
        let mut table = self.0.table();
        table.launching -= 1;
        if table.launching == 0 {
            table.early.clear();
        }
    }
}

impl Table {
    fn reap_own(&mut self) {
        let pids: Vec<i32> = self.waiting.keys().copied().collect();
        for pid in pids {
            if let Ok(Some(ending)) = look(pid) {
                self.tell(pid, ending);
            }
        }
    }

    /// What the child `pid`, which was entered just now, has done until then.
    fn catch_up(&mut self, pid: i32) {
        match look(pid) {
            Ok(Some(ending)) => self.tell(pid, ending),
            // It is no child of ours any more: it was reaped, the last of those that had its number.
            Err(Errno::CHILD) => {
                let early = self.early.iter().rposition(|(early, _)| *early == pid);
                let ending = early.and_then(|index| self.early.remove(index));
                self.tell(pid, ending.map_or(Ending::Code(0), |(_, ending)| ending));
            }
            Ok(None) | Err(_) => {}
        }
    }

    fn tell(&mut self, pid: i32, ending: Ending) {
        let Some(sender) = self.waiting.remove(&pid) else {
            // An orphan that was given to us, or what is being launched.
            if self.launching > 0 {
                if self.early.len() == EARLY_MAX {
                    self.early.pop_front();
                }
                self.early.push_back((pid, ending));
            }
            return;
        };
        // Nobody may be waiting any more.
        let _ = sender.send(ending);
    }
}

/// How the child `pid` ended, if it has.
fn look(pid: i32) -> rustix::io::Result<Option<Ending>> {
    let ended = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG)?;
    Ok(ended.map(|(_, status)| ending(status)))
}

fn ending(status: WaitStatus) -> Ending {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Code(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::Code(0), // Stops are not waited for, so this does not happen.
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_launch_that_hangs_stops_nobody_and_an_early_end_is_told() {
        let reaper = Arc::new(Reaper::new(Reaping::Own));
        let (go, hung) = mpsc::channel::<()>();
        let other = Arc::clone(&reaper);
        let hanging = std::thread::spawn(move || {
            other.start(|| {
                // Its end is waited for, as by a reaper that is faster.
                let mut child = Command::new("true").spawn().unwrap();
                let pid = i32::try_from(child.id()).unwrap();
                let status = child.wait().unwrap();
                other
                    .table()
                    .tell(pid, Ending::Code(status.code().unwrap() + 7));
                hung.recv().unwrap();
                Ok::<_, io::Error>(pid)
            })
        });
        let child = || {
            let child = Command::new("false").spawn();
            child.map(|child| i32::try_from(child.id()).unwrap())
        };
        let (_, mut ended) = reaper.start(child).unwrap();
        let ending = loop {
            reaper.reap();
            match ended.try_recv() {
                Ok(ending) => break ending,
                Err(_) => std::thread::yield_now(),
            }
        };
        assert_eq!(ending, Ending::Code(1));
        go.send(()).unwrap();
        let (_, mut ended) = hanging.join().unwrap().unwrap();
        assert_eq!(ended.try_recv(), Ok(Ending::Code(7)));
        assert!(reaper.table().early.is_empty());
    }
}
