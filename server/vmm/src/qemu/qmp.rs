//! A client of QMP, QEMU's control protocol: one JSON object per line over a unix socket.
//!
//! Our own, since it needs a handful of commands and three things that a general client lacks: a bound on each line,
//! a deadline on each command, and the reason of the last shutdown kept for whoever asks later. QEMU is
//! trusted less than ourselves (a guest may have taken it over): a line that is too long or no JSON ends the
//! connection, never the daemon.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use banger_core::vmm::VmmError;
use futures::StreamExt;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longer than any line that QEMU sends for our commands.
const MAX_LINE: usize = 64 * 1024;

/// The most of QEMU's words that an error carries.
const MAX_WORDS: usize = 500;

/// Events that tell of a VM that is stuck or losing data, though its QEMU lives.
const TROUBLE: [&str; 3] = ["BLOCK_IO_ERROR", "MEMORY_FAILURE", "GUEST_PANICKED"];

/// A connection on which commands are accepted.
#[derive(Debug)]
pub(crate) struct Qmp {
    /// Holding it makes commands take turns.
    writer: tokio::sync::Mutex<Writer>,
    shared: Arc<Shared>,
    limit: Duration,
}

#[derive(Debug)]
struct Writer {
    half: OwnedWriteHalf,
    next_id: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    reason: ShutdownReason,
}

#[derive(Debug, Default)]
struct State {
    awaited: Option<(u64, oneshot::Sender<Reply>)>,
    closed: bool,
    told_trouble: bool,
}

type Reply = Result<serde_json::Value, String>;

/// Why QEMU said that it shuts down; shared, so that it outlives the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShutdownReason(Arc<Mutex<Option<String>>>);

impl ShutdownReason {
    /// The reason, if QEMU said one.
    pub(crate) fn get(&self) -> Option<String> {
        self.0.lock().expect("no holder panics").clone()
    }

    fn set(&self, reason: String) {
        *self.0.lock().expect("no holder panics") = Some(reason);
    }
}

/// Any line of QEMU, with the fields that matter.
#[derive(Debug, Deserialize)]
struct Line {
    id: Option<u64>,
    #[serde(rename = "QMP")]
    greeting: Option<IgnoredAny>,
    #[serde(rename = "return")]
    answer: Option<serde_json::Value>,
    error: Option<Fault>,
    event: Option<String>,
    data: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Fault {
    desc: String,
}

type Lines = FramedRead<OwnedReadHalf, LinesCodec>;

impl Qmp {
    /// Awaits QEMU's greeting and enters command mode. `limits` are those of the greeting and of each
    /// command. The connection is read on `tracker` until it ends or `stop` is cancelled.
    pub(crate) async fn open(
        stream: UnixStream,
        (greeting_limit, limit): (Duration, Duration),
        tracker: &TaskTracker,
        reason: ShutdownReason,
        stop: CancellationToken,
    ) -> Result<Self, VmmError> {
        let (reading, writing) = stream.into_split();
        let mut lines = FramedRead::new(reading, LinesCodec::new_with_max_length(MAX_LINE));
        within(greeting_limit, "greeting", greeted(&mut lines)).await??;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            reason,
        });
        tracker.spawn(read(lines, Arc::clone(&shared), stop));
        let writer = tokio::sync::Mutex::new(Writer {
            half: writing,
            next_id: first_id(),
        });
        let qmp = Self {
            writer,
            shared,
            limit,
        };
        qmp.execute("qmp_capabilities").await?;
        Ok(qmp)
    }

    /// Whether the connection has ended: then every command fails.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Runs a command that has no arguments. See [`Qmp::execute_with`].
    pub(crate) async fn execute(
        &self,
        command: &'static str,
    ) -> Result<serde_json::Value, VmmError> {
        self.execute_with(command, &serde_json::json!({})).await
    }

    /// Runs a command, within the limit. Safe to drop: the answer of a command that nobody awaits any more is
    /// ignored.
    pub(crate) async fn execute_with(
        &self,
        command: &'static str,
        arguments: &serde_json::Value,
    ) -> Result<serde_json::Value, VmmError> {
        let reply = within(self.limit, command, self.exchange(command, arguments)).await?;
        let reply = reply.map_err(|source| VmmError::Control {
            during: command,
            source,
        })?;
        reply.map_err(|detail| VmmError::Refused {
            during: command,
            detail,
        })
    }

    async fn exchange(&self, command: &str, arguments: &serde_json::Value) -> io::Result<Reply> {
        let mut writer = self.writer.lock().await;
        let id = writer.next_id;
        writer.next_id += 1;
        let answer = self.shared.expect_answer(id)?;
        let mut line =
            serde_json::json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        writer.half.write_all(line.as_bytes()).await?;
        answer
            .await
            .map_err(|_closed| io::ErrorKind::ConnectionAborted.into())
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn expect_answer(&self, id: u64) -> io::Result<oneshot::Receiver<Reply>> {
        let mut state = self.lock();
        if state.closed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let (sender, receiver) = oneshot::channel();
        state.awaited = Some((id, sender));
        Ok(receiver)
    }

    fn take(&self, line: Line) {
        let mut state = self.lock();
        let reason = line
            .data
            .as_ref()
            .and_then(|data| data.get("reason")?.as_str());
        match line.event.as_deref() {
            Some("SHUTDOWN") => self.reason.set(cut(reason.unwrap_or_default().to_owned())),
            // Once: a guest can cause as many as it likes.
            Some(event) if TROUBLE.contains(&event) && !state.told_trouble => {
                state.told_trouble = true;
                tracing::warn!(event, reason, "QEMU reports trouble with a VM");
            }
            Some(_) | None => {}
        }
        let (Some(id), Some((awaited, _))) = (line.id, &state.awaited) else {
            return;
        };
        if id == *awaited
            && let Some((_, sender)) = state.awaited.take()
        {
            // Nobody receives it where the command was dropped.
            let _ = sender.send(match line.error {
                Some(fault) => Err(cut(fault.desc)),
                None => Ok(line.answer.unwrap_or_default()),
            });
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.awaited = None;
    }
}

async fn greeted(lines: &mut Lines) -> Result<(), VmmError> {
    let failed = |source| VmmError::Control {
        during: "greeting",
        source,
    };
    match next(lines).await.map_err(failed)? {
        Some(Line {
            greeting: Some(_), ..
        }) => Ok(()),
        Some(_) => Err(failed(io::ErrorKind::InvalidData.into())),
        None => Err(failed(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Takes lines until the connection ends, or breaks the protocol, or nobody wants it any more.
async fn read(mut lines: Lines, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let line = tokio::select! {
            // cancel-safe: holds no state
            () = stop.cancelled() => break,
            // cancel-safe: an unfinished line stays in the decoder
            line = next(&mut lines) => line,
        };
        match line {
            Ok(Some(line)) => shared.take(line),
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "QEMU's control socket broke its protocol: it is closed");
                break;
            }
        }
    }
    shared.close();
}

async fn next(lines: &mut Lines) -> io::Result<Option<Line>> {
    match lines.next().await {
        None => Ok(None),
        Some(line) => {
            let line = line.map_err(io::Error::other)?;
            Ok(Some(serde_json::from_str(&line)?))
        }
    }
}

async fn within<T>(
    limit: Duration,
    during: &'static str,
    step: impl Future<Output = T>,
) -> Result<T, VmmError> {
    let ended = tokio::time::timeout(limit, step).await;
    ended.map_err(|_elapsed| VmmError::Deadline { during, limit })
}

/// A late answer to a command of an earlier connection must not look like one of ours.
fn first_id() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 >> 16
}

fn cut(words: String) -> String {
    match words.char_indices().nth(MAX_WORDS) {
        None => words,
        Some((end, _)) => words[..end].to_owned(),
    }
}

#[cfg(test)]
mod tests;
