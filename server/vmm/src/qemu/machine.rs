//! A QEMU that runs: its supervisor, its agent channel, and the rungs by which it is stopped.
//!
//! ```text
//! supervisor ── pidfd readable ──► reaped ──► console and control socket drained ──► exit published
//! ```
//!
//! The exit is published only when the console log holds the guest's last words and the control socket's last
//! event was read, since that event tells a power-off from a reset.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use banger_core::guest::BoxedChannel;
use banger_core::vmm::{
    Accelerator, DriveMetrics, Machine, ProcessIdentity, VmmError, VmmExit, VmmMetrics,
};
use rustix::process::Signal;
use serde_json::json;
use tokio::net::UnixStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::launch::SOCKETS;
use super::qmp::{Qmp, ShutdownReason};
use super::{QemuDriver, adopt, drives};
use crate::ceilings::Holder;
use crate::channel::{AgentChannel, CurrentChannel};
use crate::console::{self, ConsoleWriter};
use crate::dir::VmDir;
use crate::exit::Exit;
use crate::log;
use crate::process::{Ending, Process, usage};

/// How long QEMU may take to tell of its drives, before what the host knows is told without them.
const DRIVES_WITHIN: Duration = Duration::from_secs(1);
/// How long the last words of a QEMU that ended may take to be read. They are in a socket buffer.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// The most of an exit's detail that is kept, in characters.
const MAX_DETAIL: usize = 1500;

/// A process with the task that watches it.
#[derive(Debug)]
pub(super) struct Supervised {
    pub(super) process: Arc<Process>,
    exit: Exit,
    reason: ShutdownReason,
    /// The tasks that read what QEMU says.
    readers: TaskTracker,
    /// Stops the readers; reaping goes on.
    let_go: CancellationToken,
    /// What holds the process.
    pub(super) holder: Holder,
    /// Does so when nobody holds the process any more, which frees its sockets for the next to adopt it.
    _on_drop: DropGuard,
}

impl Supervised {
    /// Starts the supervisor. `log_start` is where the process's words in its log begin.
    pub(super) fn start(
        driver: &QemuDriver,
        process: Process,
        holder: Holder,
        dir: PathBuf,
        log_start: u64,
    ) -> Self {
        let (teller, exit) = Exit::untold();
        let let_go = driver.stop.child_token();
        let supervised = Self {
            process: Arc::new(process),
            holder: holder.clone(),
            exit,
            reason: ShutdownReason::default(),
            readers: TaskTracker::new(),
            _on_drop: let_go.clone().drop_guard(),
            let_go,
        };
        let process = Arc::clone(&supervised.process);
        let readers = supervised.readers.clone();
        let reason = supervised.reason.clone();
        let stop = driver.stop.clone();
        driver.supervisors.spawn(async move {
            let ending = tokio::select! {
                // cancel-safe: holds no state
                () = stop.cancelled() => None,
                // cancel-safe: looks at a level, and reaps without waiting
                ending = process.ended() => Some(ending),
            };
            readers.close();
            let drained = tokio::time::timeout(DRAIN_LIMIT, readers.wait()).await;
            if let Some(ending) = ending {
                let ending = ending.unwrap_or(Ending::Unknown);
                let tail = log::tail(&dir, log_start);
                let killed_at_mib = holder.killed_at_mib();
                let exit = match (reason.get(), killed_at_mib) {
                    (None, Some(limit_mib)) => VmmExit::MemoryLimit { limit_mib },
                    (reason, _) => judge(reason.as_deref(), ending, &tail),
                };
                holder.remove();
                let pid = process.identity().pid;
                tracing::debug!(
                    pid,
                    ?ending,
                    ?exit,
                    drained = drained.is_ok(),
                    "a QEMU ended"
                );
                teller.tell(exit);
            }
        });
        supervised
    }

    /// Resolves when the process is gone. Safe to drop.
    pub(super) async fn gone(&self) -> VmmExit {
        self.exit.gone().await
    }

    pub(super) fn follow_console(&self, stream: UnixStream, writer: ConsoleWriter) {
        let let_go = self.let_go.clone();
        self.readers.spawn(async move {
            let_go
                .run_until_cancelled(console::pump(stream, writer))
                .await;
        });
    }

    /// `limits` are those of QEMU's greeting and of each command.
    pub(super) async fn open_control(
        &self,
        stream: UnixStream,
        limits: (Duration, Duration),
    ) -> Result<Arc<Qmp>, VmmError> {
        let stop = self.let_go.clone();
        Qmp::open(stream, limits, &self.readers, self.reason.clone(), stop)
            .await
            .map(Arc::new)
    }
}

/// How a QEMU ended, from the last event of its control socket, its exit status and the end of its log.
fn judge(reason: Option<&str>, ending: Ending, tail: &str) -> VmmExit {
    match reason {
        Some("guest-shutdown") => VmmExit::GuestPowerOff,
        Some("guest-reset" | "guest-panic") => VmmExit::GuestReset,
        other => {
            let mut detail = ending.to_string();
            for words in [other.unwrap_or_default(), tail] {
                if !words.is_empty() {
                    detail.push_str("; ");
                    detail.push_str(words);
                }
            }
            VmmExit::Other {
                detail: detail.chars().take(MAX_DETAIL).collect(),
            }
        }
    }
}

/// What a QEMU runs its guest with, by its own command line: one that was adopted tells nothing else. Where that cannot
/// be read the guest counts as translated, which is never too impatient.
fn accelerator_of(pid: u32) -> Accelerator {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
    match words
        .windows(2)
        .any(|pair| pair == [&b"-accel"[..], b"kvm"])
    {
        true => Accelerator::Kvm,
        false => Accelerator::Tcg,
    }
}

/// A QEMU of this driver.
#[derive(Debug)]
pub(super) struct QemuMachine {
    supervised: Supervised,
    dir: VmDir,
    control: Control,
    channel: CurrentChannel,
    accelerator: Accelerator,
}

/// The control socket. A VM may be adopted without one, and a connection may break: whoever needs it then connects
/// again.
#[derive(Debug)]
pub(super) struct Control {
    current: tokio::sync::Mutex<Option<Arc<Qmp>>>,
    /// For connecting, and for each command.
    limit: Duration,
}

impl Control {
    pub(super) fn new(current: Option<Arc<Qmp>>, limit: Duration) -> Self {
        Self {
            current: current.into(),
            limit,
        }
    }

    /// The connection, or a new one. Safe to drop.
    async fn get(&self, supervised: &Supervised, dir: &VmDir) -> Result<Arc<Qmp>, VmmError> {
        let mut current = self.current.lock().await;
        if let Some(open) = current.as_ref().filter(|open| !open.is_closed()) {
            return Ok(Arc::clone(open));
        }
        let again = adopt::patient_control(supervised, dir, self.limit).await?;
        let pid = supervised.process.identity().pid;
        tracing::info!(pid, "connected to a QEMU's control socket again");
        *current = Some(Arc::clone(&again));
        Ok(again)
    }
}

impl QemuMachine {
    pub(super) fn new(supervised: Supervised, dir: VmDir, control: Control) -> Self {
        Self {
            accelerator: accelerator_of(supervised.process.identity().pid),
            supervised,
            dir,
            control,
            channel: CurrentChannel::default(),
        }
    }

    /// Resolves when any agent has spoken, before and without a handshake.
    pub(super) async fn hear_agent(&self) -> Result<(), VmmError> {
        let heard = async { self.connect_agent().await?.hear().await };
        self.supervised.exit.or_gone(heard).await
    }

    /// Connects to the agent's port after ending the connection before: QEMU serves one at a time.
    async fn connect_agent(&self) -> io::Result<AgentChannel> {
        self.channel.end();
        self.channel.replace(self.dir.connect(SOCKETS.agent).await?)
    }

    async fn drive_metrics(&self) -> Result<Vec<DriveMetrics>, VmmError> {
        const COMMAND: &str = "query-blockstats";
        let asked = async { self.control().await?.execute(COMMAND).await };
        let answer = tokio::time::timeout(DRIVES_WITHIN, asked).await;
        drives::metrics(answer.map_err(|_| VmmError::Deadline {
            during: COMMAND,
            limit: DRIVES_WITHIN,
        })??)
    }

    async fn control(&self) -> Result<Arc<Qmp>, VmmError> {
        let connected = self.control.get(&self.supervised, &self.dir);
        tokio::select! {
            biased; // a QEMU that is gone is not waited for
            // cancel-safe: looks at a level
            _exit = self.supervised.gone() => Err(VmmError::Gone),
            // cancel-safe: what is dropped half-way is not used again
            connected = connected => connected,
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), VmmError> {
        // Gone already is what the caller wants.
        let sent = self.supervised.process.signal(signal);
        sent.map(drop).map_err(|source| VmmError::Signal { source })
    }
}

#[async_trait]
impl Machine for QemuMachine {
    fn identity(&self) -> &ProcessIdentity {
        self.supervised.process.identity()
    }

    fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    async fn wait(&self) -> VmmExit {
        self.supervised.gone().await
    }

    async fn open_channel(&self) -> Result<BoxedChannel, VmmError> {
        let opened = async {
            let mut channel = self.connect_agent().await?;
            channel.greet().await?;
            Ok(Box::new(channel) as BoxedChannel)
        };
        self.supervised.exit.or_gone(opened).await
    }

    async fn power_button(&self) -> Result<(), VmmError> {
        const COMMAND: &str = "system_powerdown";
        self.control().await?.execute(COMMAND).await.map(drop)
    }

    async fn pause(&self) -> Result<(), VmmError> {
        self.control().await?.execute("stop").await.map(drop)
    }

    async fn resume(&self) -> Result<(), VmmError> {
        self.control().await?.execute("cont").await.map(drop)
    }

    async fn metrics(&self) -> Result<VmmMetrics, VmmError> {
        let usage = usage::of(self.supervised.process.identity().pid);
        let mut metrics = usage.map_err(|_gone| VmmError::Gone)?;
        match self.drive_metrics().await {
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
        const COMMAND: &str = "block_resize";
        let control = self.control().await?;
        let blocks = control.execute("query-block").await?;
        let arguments = json!({ "node-name": drives::node(blocks, serial)?, "size": size_bytes });
        control.execute_with(COMMAND, &arguments).await.map(drop)
    }

    fn terminate(&self) -> Result<(), VmmError> {
        self.signal(Signal::TERM)
    }

    fn kill(&self) -> Result<(), VmmError> {
        self.signal(Signal::KILL)
    }
}

#[cfg(test)]
mod tests;
