//! A Firecracker that runs: its supervisor, its API, its agent's channel, and the rungs by which it is stopped.
//!
//! ```text
//! supervisor ── connections of the guest ──► doorstep
//!            └─ pidfd readable ──► reaped ──► console drained ──► jail removed ──► exit published
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use banger_core::VmId;
use banger_core::guest::BoxedChannel;
use banger_core::vmm::{
    Accelerator, DriveMetrics, Machine, ProcessIdentity, VmmError, VmmExit, VmmMetrics,
};
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::api::model::{Action, VmChange, VmConfig};
use super::api::{Api, Call};
use super::command::{self, API_SOCKET};
use super::doorstep::{Caller, Doorstep};
use super::launch::{Home, last_words};
use super::metrics::Counters;
use super::{FirecrackerDriver, jail};
use crate::ceilings::Holder;
use crate::channel::{AgentChannel, CurrentChannel};
use crate::console::{self, ConsoleWriter};
use crate::exit::Exit;
use crate::log;
use crate::process::{Ending, Process, usage};

/// How long Firecracker may take to tell of its drives, before what the host knows is told without them.
const DRIVES_WITHIN: Duration = Duration::from_secs(1);
/// How long the last words of a Firecracker that ended may take to be read. They are in a pipe.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// What errors call two steps.
const METRICS: &str = "FlushMetrics";
const GROW: &str = "drive growth";

/// The most of an exit's detail that is kept, in characters.
const MAX_DETAIL: usize = 1500;

/// A process with the task that watches it.
#[derive(Debug)]
pub(super) struct Supervised {
    pub(super) process: Arc<Process>,
    exit: Exit,
    caller: Arc<Caller>,
    counters: Arc<Counters>,
    /// The tasks that read what Firecracker says.
    readers: TaskTracker,
    /// Stops the readers, and the taking of connections; reaping goes on.
    let_go: CancellationToken,
    /// What holds the process.
    pub(super) holder: Holder,
    /// Set when the process has ended.
    ended: CancellationToken,
    /// Does so when nobody holds the process any more: the next to adopt it reads the same pipes.
    _on_drop: DropGuard,
}

impl Supervised {
    /// Starts the supervisor of the VM in a directory; `log_start` is where the process's words in its log begin.
    pub(super) fn start(
        driver: &FirecrackerDriver,
        process: Process,
        (vm, dir, log_start): (VmId, PathBuf, u64),
        doorstep: Doorstep,
        holder: Holder,
    ) -> Self {
        let (teller, exit) = Exit::untold();
        let let_go = driver.stop.child_token();
        let supervised = Self {
            process: Arc::new(process),
            holder: holder.clone(),
            exit,
            caller: Arc::default(),
            counters: Arc::default(),
            readers: TaskTracker::new(),
            ended: let_go.child_token(),
            _on_drop: let_go.clone().drop_guard(),
            let_go: let_go.clone(),
        };
        let process = Arc::clone(&supervised.process);
        let readers = supervised.readers.clone();
        let caller = Arc::clone(&supervised.caller);
        let ended = supervised.ended.clone();
        let stop = driver.stop.clone();
        driver.supervisors.spawn(async move {
            let watched = watch(&process, doorstep, &caller, &let_go);
            // cancel-safe: holds nothing but connections that nobody has taken
            let watched = stop.run_until_cancelled(watched).await;
            ended.cancel();
            readers.close();
            let drained = tokio::time::timeout(DRAIN_LIMIT, readers.wait()).await;
            let Some((ending, has_said_farewell)) = watched else {
                return;
            };
            let words = [log::tail(&dir, log_start), last_words(&dir)];
            let exit = match holder.killed_at_mib() {
                Some(limit_mib) => VmmExit::MemoryLimit { limit_mib },
                None => judge(has_said_farewell, ending, &words),
            };
            if let Err(error) = jail::clear(&dir) {
                tracing::warn!(%vm, %error, "the jail of a VMM that is gone could not be removed");
            }
            holder.remove();
            let pid = process.identity().pid;
            tracing::debug!(
                pid,
                ?ending,
                ?exit,
                drained = drained.is_ok(),
                "a Firecracker ended"
            );
            teller.tell(exit);
        });
        supervised
    }

    pub(super) const fn exit(&self) -> &Exit {
        &self.exit
    }

    pub(super) fn follow_console(&self, pipe: pipe::Receiver, writer: ConsoleWriter) {
        let let_go = self.let_go.clone();
        self.readers.spawn(async move {
            let_go
                .run_until_cancelled(console::pump(pipe, writer))
                .await;
        });
    }

    /// Until the process ends: the pipe of one that never opened it would not end, and nobody counts for the dead.
    pub(super) fn follow_metrics(&self, pipe: pipe::Receiver) {
        let ended = self.ended.clone();
        let counters = Arc::clone(&self.counters);
        self.readers.spawn(async move {
            ended.run_until_cancelled(counters.follow(pipe)).await;
        });
    }
}

/// Takes connections until the process ends; how it did, and whether its guest had said that it powers off.
async fn watch(
    process: &Process,
    mut doorstep: Doorstep,
    caller: &Caller,
    let_go: &CancellationToken,
) -> (Ending, bool) {
    let ending = tokio::select! {
        // cancel-safe: looks at a level, and reaps without waiting
        ending = process.ended() => ending,
        // cancel-safe: see `Doorstep::serve`
        () = doorstep.serve(caller) => unreachable!("it serves for ever"),
        // cancel-safe: holds no state
        () = let_go.cancelled() => {
            let has_said_farewell = doorstep.has_said_farewell();
            drop(doorstep);
            return (process.ended().await.unwrap_or(Ending::Unknown), has_said_farewell);
        }
    };
    (
        ending.unwrap_or(Ending::Unknown),
        doorstep.has_said_farewell(),
    )
}

/// How a Firecracker ended: its exit code is 0 when its guest reset, and a guest that powers off does so by a
/// reset, after it has said farewell.
fn judge(has_said_farewell: bool, ending: Ending, words: &[String]) -> VmmExit {
    match (ending, has_said_farewell) {
        (Ending::Code(0) | Ending::Unknown, true) => VmmExit::GuestPowerOff,
        (Ending::Code(0), false) => VmmExit::GuestReset,
        (other, _) => {
            let mut detail = other.to_string();
            for words in words.iter().filter(|words| !words.is_empty()) {
                detail.push_str("; ");
                detail.push_str(words);
            }
            VmmExit::Other {
                detail: detail.chars().take(MAX_DETAIL).collect(),
            }
        }
    }
}

/// The API of a process whose identity is known.
#[derive(Debug)]
pub(super) struct Control {
    api: Api,
    identity: ProcessIdentity,
    limit: Duration,
}

impl Control {
    pub(super) fn new(
        driver: &FirecrackerDriver,
        supervised: &Supervised,
        home: &Home,
        identity: ProcessIdentity,
    ) -> Result<Self, VmmError> {
        let dir = home.dir.try_clone().map_err(|source| VmmError::Control {
            during: "connection",
            source,
        })?;
        let (readers, stop) = (supervised.readers.clone(), supervised.let_go.clone());
        Ok(Self {
            api: Api::new(dir, API_SOCKET, readers, stop),
            identity,
            limit: driver.config.control_timeout,
        })
    }

    pub(super) const fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    fn call(&self, during: &'static str, path: &str) -> Call {
        Call {
            during,
            path: path.to_owned(),
            limit: self.limit,
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        during: &'static str,
        path: &str,
    ) -> Result<T, VmmError> {
        self.api.get(self.call(during, path)).await
    }

    pub(super) async fn put(
        &self,
        during: &'static str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), VmmError> {
        self.api.put(self.call(during, path), body).await
    }

    /// A call that takes longer than others.
    pub(super) async fn put_within(
        &self,
        limit: Duration,
        during: &'static str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), VmmError> {
        let call = Call {
            limit,
            ..self.call(during, path)
        };
        self.api.put(call, body).await
    }

    pub(super) async fn patch(
        &self,
        during: &'static str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), VmmError> {
        self.api.patch(self.call(during, path), body).await
    }
}

/// A Firecracker of this driver.
#[derive(Debug)]
pub(super) struct FirecrackerMachine {
    supervised: Supervised,
    home: Home,
    control: Control,
    channel: CurrentChannel,
    /// Which call of `open_channel` came last.
    opening: watch::Sender<u64>,
}

impl FirecrackerMachine {
    pub(super) fn new(supervised: Supervised, home: Home, control: Control) -> Self {
        Self {
            supervised,
            home,
            control,
            channel: CurrentChannel::default(),
            opening: watch::Sender::default(),
        }
    }

    /// A conversation with the next agent that dials in and answers.
    async fn converse(&self) -> io::Result<AgentChannel> {
        // The agent dials again as soon as it notices.
        self.channel.end();
        let mut stream = self.supervised.caller.next().await;
        loop {
            let mut channel = self.channel.replace(stream)?;
            stream = tokio::select! {
                // cancel-safe: a conversation that is given up is hung up on, and the agent dials again
                greeted = channel.greet() => match greeted {
                    Ok(()) => return Ok(channel),
                    // Dialled by an agent that is gone, perhaps: the next one counts.
                    Err(_) => self.supervised.caller.next().await,
                },
                // cancel-safe: takes a connection only when it resolves
                newer = self.supervised.caller.next() => newer,
            };
        }
    }

    /// Resolves when another call has taken over.
    async fn superseded(&self, mine: u64) -> io::Error {
        let mut opening = self.opening.subscribe();
        // The sender lives in `self`.
        let _ = opening.wait_for(|last| *last != mine).await;
        io::ErrorKind::ConnectionAborted.into()
    }

    fn signal(&self, signal: Signal) -> Result<(), VmmError> {
        // Gone already is what the caller wants.
        let sent = self.supervised.process.signal(signal);
        sent.map(drop).map_err(|source| VmmError::Signal { source })
    }

    async fn config(&self) -> Result<VmConfig, VmmError> {
        self.control.get("configuration", "/vm/config").await
    }

    /// What the guest did with each drive, in their order. Asks Firecracker for a line of metrics and awaits it.
    async fn drives(&self) -> Result<Vec<DriveMetrics>, VmmError> {
        let counters = &self.supervised.counters;
        let former = counters.lines();
        self.control
            .put(METRICS, "/actions", &Action::FlushMetrics)
            .await?;
        let limit = self.control.limit;
        let counted = tokio::time::timeout(limit, counters.after(former)).await;
        let counted = counted.map_err(|_elapsed| VmmError::Deadline {
            during: METRICS,
            limit,
        })?;
        let config = self.config().await?;
        let drives = config.names().into_iter().enumerate();
        let metrics = |(index, name): (usize, &str)| {
            let io = counted.drives.get(&command::drive_id(index));
            io.copied().unwrap_or_default().of(name)
        };
        Ok(drives.map(metrics).collect())
    }

    async fn change(&self, during: &'static str, change: VmChange) -> Result<(), VmmError> {
        self.control.patch(during, "/vm", &change).await
    }
}

impl crate::trial::Audible for FirecrackerMachine {
    async fn hear_agent(&self) -> Result<(), VmmError> {
        let heard = async {
            let stream = self.supervised.caller.next().await;
            self.channel.replace(stream)?.hear().await
        };
        self.supervised.exit.or_gone(heard).await
    }
}

#[async_trait]
impl Machine for FirecrackerMachine {
    fn identity(&self) -> &ProcessIdentity {
        self.control.identity()
    }

    fn accelerator(&self) -> Accelerator {
        Accelerator::Kvm
    }

    async fn wait(&self) -> VmmExit {
        self.supervised.exit.gone().await
    }

    async fn open_channel(&self) -> Result<BoxedChannel, VmmError> {
        let mut mine = 0;
        self.opening.send_modify(|last| {
            *last += 1;
            mine = *last;
        });
        let opened = async {
            tokio::select! {
                // cancel-safe: see there
                opened = self.converse() => opened,
                // cancel-safe: looks at a level
                error = self.superseded(mine) => Err(error),
            }
        };
        let channel = self.supervised.exit.or_gone(opened).await?;
        Ok(Box::new(channel))
    }

    /// Presses Ctrl+Alt+Del: the agent, or the image's own init, powers off when it hears of it.
    async fn power_button(&self) -> Result<(), VmmError> {
        self.control
            .put("SendCtrlAltDel", "/actions", &Action::SendCtrlAltDel)
            .await
    }

    async fn pause(&self) -> Result<(), VmmError> {
        self.change("pause", VmChange::Paused).await
    }

    async fn resume(&self) -> Result<(), VmmError> {
        self.change("resume", VmChange::Resumed).await
    }

    async fn metrics(&self) -> Result<VmmMetrics, VmmError> {
        let usage = usage::of(self.control.identity.pid);
        let mut metrics = usage.map_err(|_gone| VmmError::Gone)?;
        let drives = tokio::time::timeout(DRIVES_WITHIN, self.drives()).await;
        let drives = drives.unwrap_or(Err(VmmError::Deadline {
            during: METRICS,
            limit: DRIVES_WITHIN,
        }));
        match drives {
            Ok(drives) => metrics.drives = drives,
            // What the host's kernel tells is told all the same: it needs no VMM that answers.
            Err(error) => {
                tracing::debug!(
                    error = banger_core::chain(&error),
                    "a VMM does not tell of its drives"
                );
            }
        }
        Ok(metrics)
    }

    async fn grow_drive(&self, serial: &str, size_bytes: u64) -> Result<(), VmmError> {
        let config = self.config().await?;
        let refused = |detail| VmmError::Refused {
            during: GROW,
            detail,
        };
        let drive = config
            .drive(serial)
            .ok_or_else(|| refused(format!("no drive `{serial}`")))?;
        let path = self.home.on_host(&drive.path_on_host);
        let length = std::fs::metadata(path);
        let length = length.map_err(|source| VmmError::Control {
            during: GROW,
            source,
        })?;
        if length.len() != size_bytes {
            let length = length.len();
            return Err(refused(format!(
                "the file has {length} bytes, not {size_bytes}"
            )));
        }
        let call = format!("/drives/{}", drive.drive_id);
        self.control.patch(GROW, &call, drive).await
    }

    /// Firecracker has no handler for SIGTERM: it ends at once.
    fn terminate(&self) -> Result<(), VmmError> {
        self.signal(Signal::TERM)
    }

    fn kill(&self) -> Result<(), VmmError> {
        self.signal(Signal::KILL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farewell_tells_a_power_off_from_a_reset() {
        let table = [
            (true, Ending::Code(0), VmmExit::GuestPowerOff),
            (true, Ending::Unknown, VmmExit::GuestPowerOff),
            (false, Ending::Code(0), VmmExit::GuestReset),
        ];
        for (farewell, ending, exit) in table {
            assert_eq!(judge(farewell, ending, &[]), exit);
        }
    }

    #[test]
    fn any_other_end_carries_what_is_known() {
        let detail = |farewell, ending, words: &[String]| match judge(farewell, ending, words) {
            VmmExit::Other { detail } => detail,
            exit => panic!("{exit:?}"),
        };
        let words = [String::new(), "bad memory".into()];
        assert_eq!(
            detail(true, Ending::Signal(9), &words),
            "signal 9; bad memory"
        );
        assert_eq!(detail(false, Ending::Code(1), &[]), "exit code 1");
        assert!(detail(false, Ending::Unknown, &[]).contains("earlier daemon"));
        let long = detail(false, Ending::Code(1), &["é".repeat(9999)]);
        assert_eq!(long.chars().count(), MAX_DETAIL);
    }
}
