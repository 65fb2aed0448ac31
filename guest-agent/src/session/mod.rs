//! Sessions: one process tree each, with its terminal or pipes, its log, and its end.
//!
//! ```text
//! plan ─► start ─► running ─► leader ended ─► rest killed ─► output drained ─► exited
//! ```
//! The exit is told only after the last byte of output. A session's children die with its first process, or are kept:
//! then what they write after its end goes nowhere.

mod brief;
pub mod cgroup;
pub mod input;
pub mod locate;
pub mod log;
pub mod output;
pub mod plan;
pub mod reader;
pub mod registry;
pub mod screen;
pub mod spill;
pub mod start;
pub mod users;
pub mod writers;

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::exit::How;
use banger_proto::guest::v1::{Exit, SignalTarget, Stream};
use rustix::termios::Winsize;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::cgroup::Cgroup;
use self::input::Input;
use self::log::Log;
use self::output::{Source, discard, pump};
use self::screen::{Cells, Screen};
use self::start::{Ends, Started};
use self::writers::Writers;
use crate::reap::{Ending, Reaper};
use crate::refusal::Refusal;
use crate::sys;

/// How long a session that is deleted is given to end after it was killed.
const END_WITHIN: Duration = Duration::from_secs(5);
/// Longest `/proc/<pid>/stat` that is looked at.
const STAT_MAX_BYTES: usize = 4096;

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Chosen by the host.
    pub id: String,
    /// With the defaults filled in.
    pub spec: proto::SessionSpec,
    /// Its output.
    pub log: Arc<Log>,
    /// Its standard input.
    pub input: Input,
    /// Who writes to it.
    pub writers: Arc<Writers>,
    started: SystemTime,
    leader: i32,
    cgroup: Option<Cgroup>,
    reaper: Arc<Reaper>,
    state: Mutex<State>,
    exited: CancellationToken,
    /// It is being deleted.
    removed: CancellationToken,
    /// How many are attached.
    callers: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    is_reaped: bool,
    /// The agent has killed it, for whatever reason.
    is_killed: bool,
    exit: Option<Exit>,
    ended: Option<SystemTime>,
    /// What was used, once its cgroup is gone.
    used: Option<proto::SessionUsage>,
}

/// What the task that sees a session through needs.
#[derive(Debug)]
pub struct Life {
    ending: oneshot::Receiver<Ending>,
    ends: Vec<(start::End, Source, Stream)>,
    timeout: Option<Duration>,
}

impl Session {
    /// The session of a process that was started.
    #[must_use]
    pub fn new(
        id: String,
        plan: plan::Plan,
        started: Started,
        log: Log,
        cells: &Arc<Cells>,
        reaper: Arc<Reaper>,
    ) -> (Self, Life) {
        let (input, ends) = match started.ends {
            Ends::Pipes {
                stdin,
                stdout,
                stderr,
            } => (
                Input::pipe(stdin),
                [(stdout, Stream::Stdout)]
                    .into_iter()
                    .chain(stderr.map(|stderr| (stderr, Stream::Stderr)))
                    .map(|(end, stream)| (end, Source::Pipe, stream))
                    .collect(),
            ),
            Ends::Terminal { output, input } => (
                Input::terminal(input),
                vec![(output, Source::Terminal, Stream::Stdout)],
            ),
        };
        let life = Life {
            ending: started.ending,
            ends,
            timeout: plan.timeout,
        };
        if let Some(size) = plan.terminal {
            log.show(Screen::new(size, Arc::clone(cells)));
        }
        let session = Self {
            id,
            spec: plan.spec,
            log: Arc::new(log),
            input,
            writers: Arc::default(),
            started: SystemTime::now(),
            leader: started.pid,
            cgroup: started.cgroup,
            reaper,
            state: Mutex::default(),
            exited: CancellationToken::new(),
            removed: CancellationToken::new(),
            callers: watch::Sender::new(0),
        };
        (session, life)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each section sets whole fields, so a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended, once its output is complete.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.state().exit
    }

    /// Waits until it has ended and its output is complete.
    pub async fn wait(&self) -> Exit {
        self.exited.cancelled().await;
        self.exit().unwrap_or_default()
    }

    /// As it is now.
    #[must_use]
    pub fn describe(&self) -> proto::Session {
        self.snapshot().1
    }

    /// As it is now, for a list: of a long command, and of a long environment, only the beginning.
    #[must_use]
    pub fn describe_briefly(&self) -> proto::Session {
        let session = self.describe();
        let (spec, is_spec_shortened) = brief::spec(session.spec.unwrap_or_default());
        proto::Session {
            spec: Some(spec),
            is_spec_shortened,
            ..session
        }
    }

    /// As it is now, with the range of its log: where a reader that is told of it begins.
    #[must_use]
    pub fn snapshot(&self) -> ((u64, u64), proto::Session) {
        let range = self.log.range();
        (range, self.describe_with(range))
    }

    fn describe_with(&self, (log_start, log_end): (u64, u64)) -> proto::Session {
        let signed = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
        let state = self.state();
        proto::Session {
            id: self.id.clone(),
            spec: Some(self.spec.clone()),
            exit: state.exit,
            pid: if state.is_reaped { 0 } else { self.leader },
            start_time: Some(self.started.into()),
            end_time: state.exit.and(state.ended).map(Into::into),
            log_start_offset: signed(log_start),
            log_end_offset: signed(log_end),
            stdin_offset: signed(self.input.accepted()),
            usage: state.used.or_else(|| self.cgroup.as_ref()?.usage()),
            is_spec_shortened: false,
        }
    }

    /// Sends a signal. One that has ended has nobody to signal, which is no error.
    ///
    /// # Errors
    /// A number that is no signal, or what the kernel refuses.
    pub fn signal(&self, signal: i32, target: SignalTarget) -> Result<(), Refusal> {
        if !(1..=64).contains(&signal) {
            return Err(Refusal::invalid("a signal has a number from 1 to 64"));
        }
        if signal == libc::SIGKILL {
            self.state().is_killed = true;
        }
        let sent = match target {
            SignalTarget::Unspecified | SignalTarget::Group => {
                self.signal_leader(-self.leader, signal)
            }
            SignalTarget::Leader => self.signal_leader(self.leader, signal),
            SignalTarget::All => {
                self.signal_all(signal);
                Ok(())
            }
        };
        match sent {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(Refusal::invalid(
                format!("the signal was not sent: {error}"),
            )),
            _ => Ok(()),
        }
    }

    fn signal_leader(&self, pid: i32, signal: i32) -> std::io::Result<()> {
        self.reaper
            .while_alive(self.leader, || sys::kill(pid, signal))
    }

    fn signal_all(&self, signal: i32) {
        match &self.cgroup {
            Some(cgroup) if signal == libc::SIGKILL => cgroup.kill(),
            Some(cgroup) => cgroup.signal(signal),
            None => {
                for pid in members(self.leader) {
                    // One that has ended meanwhile is none to signal.
                    let _ = sys::kill(pid, signal);
                }
            }
        }
    }

    /// Kills every process of it.
    pub fn kill(&self) {
        self.state().is_killed = true;
        // Those that have ended meanwhile are none to kill.
        let _ = self.signal_leader(-self.leader, libc::SIGKILL);
        self.signal_all(libc::SIGKILL);
    }

    /// Kills it and lets go of whoever makes it wait, then waits a bounded time for its end.
    pub async fn end(&self) {
        self.removed.cancel();
        self.log.abandon();
        if self.exit().is_none() {
            self.kill();
            // What cannot be killed is left to the kernel.
            let _ = timeout(END_WITHIN, self.wait()).await;
        }
        if let Some(cgroup) = self.cgroup.as_ref().filter(|_| self.spec.keep_children) {
            cgroup.kill();
            cgroup.wait_empty().await;
        }
    }

    /// Somebody is attached while the value lives.
    #[must_use]
    pub fn attach(self: &Arc<Self>) -> Caller {
        self.callers.send_modify(|callers| *callers += 1);
        Caller(Arc::clone(self))
    }

    /// Resolves when nobody has been attached for so long, or when it is being deleted.
    pub async fn left_alone(&self, patience: Duration) {
        let mut callers = self.callers.subscribe();
        let alone = async {
            // The sender lives in `self`, so no wait fails.
            while callers.wait_for(|callers| *callers == 0).await.is_ok() {
                let back = callers.wait_for(|callers| *callers > 0);
                if timeout(patience, back).await.is_err() {
                    return;
                }
            }
        };
        self.removed.run_until_cancelled(alone).await;
    }

    /// Sets the terminal's size.
    pub fn resize(&self, size: Winsize) {
        self.input.resize(size);
        self.log.resize(size);
    }

    /// Sees the session through to its end.
    pub async fn live(&self, life: Life) {
        let ended = CancellationToken::new();
        let mut pumps = JoinSet::new();
        for (end, source, stream) in life.ends {
            pumps.spawn(pump(
                end,
                source,
                stream,
                Arc::clone(&self.log),
                ended.clone(),
                self.spec.keep_children,
            ));
        }
        let (ending, is_late) = self.leader_ended(life.ending, life.timeout).await;
        let exit = Exit {
            how: Some(self.judged(ending, is_late)),
        };
        {
            let mut state = self.state();
            state.is_reaped = true;
            state.ended = Some(SystemTime::now());
        }
        if !self.spec.keep_children {
            self.kill_rest();
        }
        ended.cancel();
        let mut open = JoinSet::new();
        while let Some(pumped) = pumps.join_next().await {
            if let Ok(Some(end)) = pumped
                && self.spec.keep_children
            {
                open.spawn(discard(end));
            }
        }
        self.state().exit = Some(exit);
        self.log.close();
        self.exited.cancel();
        self.input.release().await;
        if let Some(cgroup) = self.cgroup.as_ref().filter(|_| !self.spec.keep_children) {
            cgroup.wait_empty().await;
            let used = cgroup.usage();
            self.state().used = used;
            cgroup.remove();
        }
        // Those who were kept may write as long as they live.
        let read = async { while open.join_next().await.is_some() {} };
        self.removed.run_until_cancelled(read).await;
    }

    async fn leader_ended(
        &self,
        ending: oneshot::Receiver<Ending>,
        limit: Option<Duration>,
    ) -> (Ending, bool) {
        // The reaper outlives every session; were it gone, nobody could know the ending.
        let unknown = Ending::Signal(libc::SIGKILL);
        let Some(limit) = limit else {
            return (ending.await.unwrap_or(unknown), false);
        };
        let mut ending = ending;
        match timeout(limit, &mut ending).await {
            Ok(ending) => (ending.unwrap_or(unknown), false),
            Err(_) => {
                self.kill();
                (ending.await.unwrap_or(unknown), true)
            }
        }
    }

    fn judged(&self, ending: Ending, is_late: bool) -> How {
        let is_killed = self.state().is_killed;
        let out_of_memory = || self.cgroup.as_ref().is_some_and(Cgroup::ran_out_of_memory);
        judge(ending, is_late, is_killed, out_of_memory)
    }

    /// Kills what the first process left behind. Its own number may be in use again by now, so only the
    /// cgroup and the kernel's session id are followed.
    fn kill_rest(&self) {
        self.signal_all(libc::SIGKILL);
    }
}

/// Somebody who is attached to a session.
#[derive(Debug)]
pub struct Caller(Arc<Session>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.callers.send_modify(|callers| *callers -= 1);
    }
}

/// What an ending means. The kernel tells only that it has killed somebody of the session for want of memory, and not
/// whom: where the agent itself sent SIGKILL, that was it.
fn judge(
    ending: Ending,
    is_late: bool,
    is_killed: bool,
    out_of_memory: impl FnOnce() -> bool,
) -> How {
    match ending {
        _ if is_late => How::Deadline(true),
        Ending::Code(code) => How::Code(code),
        Ending::Signal(libc::SIGKILL) if !is_killed && out_of_memory() => How::OutOfMemory(true),
        Ending::Signal(signal) => How::Signal(signal),
    }
}

/// The processes of the kernel's session `leader`.
fn members(leader: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&pid| session_of(pid) == Some(leader))
        .collect()
}

/// The kernel's session id of a process: the fourth field after its name, which is in parentheses.
fn session_of(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat[..stat.len().min(STAT_MAX_BYTES)]).into_owned();
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(3)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_the_agent_killed_did_not_run_out_of_memory() {
        let killed = Ending::Signal(libc::SIGKILL);
        assert_eq!(judge(killed, false, false, || true), How::OutOfMemory(true));
        assert_eq!(
            judge(killed, false, true, || true),
            How::Signal(libc::SIGKILL)
        );
        assert_eq!(
            judge(killed, false, false, || false),
            How::Signal(libc::SIGKILL)
        );
        assert_eq!(judge(killed, true, true, || true), How::Deadline(true));
        assert_eq!(judge(Ending::Code(3), false, true, || true), How::Code(3));
    }
}
