//! A QEMU that runs: its supervisor, its agent channel, and the rungs by which it is stopped.
//!
//! ```text
//! supervisor ── pidfd readable ──► reaped ──► console and control socket drained ──► exit published
//! ```
//!
//! The exit is published only when the console log holds the guest's last words and the control socket's last
//! event was read, since that event tells a power-off from a reset.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use banger_core::guest::BoxedChannel;
use banger_core::vmm::{Machine, ProcessIdentity, VmmError, VmmExit};
use rustix::fs::{Mode, OFlags};
use rustix::net::Shutdown;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::launch::SOCKETS;
use super::qmp::{Qmp, ShutdownReason};
use super::{QemuDriver, log};
use crate::console::{self, ConsoleWriter};
use crate::handshake;
use crate::process::{Ending, Process};

/// How long the last words of a QEMU that ended may take to be read. They are in a socket buffer.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// How long a broken channel waits for the news that the whole QEMU ended.
const SIGN_TO_END: Duration = Duration::from_millis(200);

/// Between two tries to connect to a QEMU whose queue is full: at first, and at most.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The most of an exit's detail that is kept, in characters.
const MAX_DETAIL: usize = 1500;

/// A VM's directory, held open: socket paths are limited to 107 bytes, and this one is short.
#[derive(Debug)]
pub(super) struct VmDir(OwnedFd);

impl VmDir {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }

    /// Connects to a socket in the directory. Waits while the queue of connections is full: QEMU keeps it at
    /// one, and empties it as soon as its main loop runs. Safe to drop.
    pub(super) async fn connect(&self, name: &str) -> io::Result<UnixStream> {
        let mut pause = SHORTEST_PAUSE;
        loop {
            match UnixStream::connect(self.path_of(name)).await {
                // The kernel has no event that tells a non-blocking connect of a free place.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                connected => return connected,
            }
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

/// A process with the task that watches it.
#[derive(Debug)]
pub(super) struct Supervised {
    pub(super) process: Arc<Process>,
    /// Set once.
    exit: watch::Receiver<Option<VmmExit>>,
    reason: ShutdownReason,
    /// The tasks that read what QEMU says.
    readers: TaskTracker,
    /// Stops the readers; reaping goes on.
    let_go: CancellationToken,
    /// Does so when nobody holds the process any more, which frees its sockets for the next to adopt it.
    _on_drop: DropGuard,
}

impl Supervised {
    /// Starts the supervisor. `log_start` is where the process's words in its log begin.
    pub(super) fn start(
        driver: &QemuDriver,
        process: Process,
        dir: PathBuf,
        log_start: u64,
    ) -> Self {
        let (publish, exit) = watch::channel(None);
        let let_go = driver.stop.child_token();
        let supervised = Self {
            process: Arc::new(process),
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
                let exit = judge(reason.get().as_deref(), ending, &tail);
                let pid = process.identity().pid;
                tracing::debug!(
                    pid,
                    ?ending,
                    ?exit,
                    drained = drained.is_ok(),
                    "a QEMU ended"
                );
                publish.send_replace(Some(exit));
            }
        });
        supervised
    }

    /// Resolves when the process is gone. Safe to drop.
    pub(super) async fn gone(&self) -> VmmExit {
        let mut exit = self.exit.clone();
        match exit
            .wait_for(Option::is_some)
            .await
            .map(|exit| exit.clone())
        {
            Ok(Some(exit)) => exit,
            // The driver was closed: whether the process lives is no longer ours to say.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    pub(super) fn follow_console(&self, stream: UnixStream, writer: ConsoleWriter) {
        let let_go = self.let_go.clone();
        self.readers.spawn(async move {
            let_go
                .run_until_cancelled(console::pump(stream, writer))
                .await;
        });
    }

    pub(super) async fn open_control(
        &self,
        driver: &QemuDriver,
        stream: UnixStream,
        greeting_limit: Duration,
    ) -> Result<Arc<Qmp>, VmmError> {
        let limits = (greeting_limit, driver.config.control_timeout);
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

/// A QEMU of this driver.
#[derive(Debug)]
pub(super) struct QemuMachine {
    supervised: Supervised,
    dir: VmDir,
    control: Option<Arc<Qmp>>,
    /// The connection of the channel that was opened last, for as long as it lives.
    channel: Mutex<Weak<OwnedFd>>,
}

impl QemuMachine {
    pub(super) fn new(supervised: Supervised, dir: VmDir, control: Option<Arc<Qmp>>) -> Self {
        Self {
            supervised,
            dir,
            control,
            channel: Mutex::default(),
        }
    }

    /// Resolves when any agent has spoken, before and without a handshake.
    pub(super) async fn hear_agent(&self) -> Result<(), VmmError> {
        let heard = async {
            let mut connection = self.connect_agent().await?;
            handshake::hear_agent(&mut connection.stream).await
        };
        self.or_gone(heard).await
    }

    /// Connects to the agent's port after ending the connection before: QEMU serves one at a time.
    async fn connect_agent(&self) -> io::Result<AgentChannel> {
        self.end_channel();
        let stream = self.dir.connect(SOCKETS.agent).await?;
        let link = Arc::new(rustix::io::fcntl_dupfd_cloexec(&stream, 0)?);
        let mut channel = self.channel.lock().expect("no holder panics");
        // Another call may have connected meanwhile: the last one stays.
        shut_down(&std::mem::replace(&mut *channel, Arc::downgrade(&link)));
        Ok(AgentChannel {
            stream,
            rest: Vec::new(),
            _link: link,
        })
    }

    fn end_channel(&self) {
        shut_down(&std::mem::take(
            &mut *self.channel.lock().expect("no holder panics"),
        ));
    }

    async fn or_gone<T>(&self, step: impl Future<Output = io::Result<T>>) -> Result<T, VmmError> {
        tokio::select! {
            biased; // a dead VMM explains every failure of its sockets
            // cancel-safe: looks at a level
            _exit = self.wait() => Err(VmmError::Gone),
            // cancel-safe: dropping it closes the connection
            result = step => match result {
                Ok(value) => Ok(value),
                Err(source) => match tokio::time::timeout(SIGN_TO_END, self.wait()).await {
                    Ok(_exit) => Err(VmmError::Gone),
                    Err(_elapsed) => Err(VmmError::Channel { source }),
                },
            },
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), VmmError> {
        // Gone already is what the caller wants.
        let sent = self.supervised.process.signal(signal);
        sent.map(drop).map_err(|source| VmmError::Signal { source })
    }
}

fn shut_down(link: &Weak<OwnedFd>) {
    if let Some(link) = link.upgrade() {
        // An error means that the connection has ended by itself.
        let _ = rustix::net::shutdown(&*link, Shutdown::Both);
    }
}

#[async_trait]
impl Machine for QemuMachine {
    fn identity(&self) -> &ProcessIdentity {
        self.supervised.process.identity()
    }

    async fn wait(&self) -> VmmExit {
        self.supervised.gone().await
    }

    async fn open_channel(&self) -> Result<BoxedChannel, VmmError> {
        let opened = async {
            let mut channel = self.connect_agent().await?;
            channel.rest = handshake::greet(&mut channel.stream, &handshake::nonce()).await?;
            channel.rest.reverse();
            Ok(Box::new(channel) as BoxedChannel)
        };
        self.or_gone(opened).await
    }

    async fn power_button(&self) -> Result<(), VmmError> {
        const COMMAND: &str = "system_powerdown";
        let Some(control) = &self.control else {
            let source = io::ErrorKind::NotConnected.into();
            return Err(VmmError::Control {
                during: COMMAND,
                source,
            });
        };
        control.execute(COMMAND).await.map(drop)
    }

    fn terminate(&self) -> Result<(), VmmError> {
        self.signal(Signal::TERM)
    }

    fn kill(&self) -> Result<(), VmmError> {
        self.signal(Signal::KILL)
    }
}

/// The stream of one conversation with the agent. Dropping it hangs up.
#[derive(Debug)]
struct AgentChannel {
    stream: UnixStream,
    /// Bytes that came with the end of the handshake, last first.
    rest: Vec<u8>,
    /// By which the machine can end the connection.
    _link: Arc<OwnedFd>,
}

impl AsyncRead for AgentChannel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        while buffer.remaining() > 0
            && let Some(byte) = self.rest.pop()
        {
            buffer.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AgentChannel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
