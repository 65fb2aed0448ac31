//! Logs that outlive their VM's stop: what is kept of its sessions' output is copied out of it first.
//!
//! ```text
//! <VM>/logs.new/<session>    while it is copied, the newest session first
//! <VM>/logs/<session>        once the stop has all it could get; what an earlier stop kept is gone then
//! ```
//! The copy has a deadline and a bound on its size, and whatever goes wrong is told in the stop's outcome: the stop goes
//! on. Nothing on the host is waited for longer, a disk that hangs included.

mod file;
mod read;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use banger_core::guest::{Guest, GuestError, SessionEvents};
use banger_core::session::{AttachOptions, ReadFrom, SessionEvent};
use banger_core::vm::KeptLogs;
use banger_core::{SessionId, VmId, chain};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::Context;
use crate::error::AppError;
use crate::host;

pub(crate) use self::file::Header;
use self::file::Writer;
pub(crate) use self::read::Kept;

/// What stops of one VM keep at most: what its agent has in memory and on the disk of some sessions, not of all.
pub(crate) const KEPT_MAX_BYTES: u64 = 256 << 20;
/// Of the time for keeping, how much is left for the host's disk once the guest was read.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
/// Events that wait for the host's disk: a few megabytes at most.
const AHEAD: usize = 16;

/// What the thread that writes is told.
enum Step {
    Begin(Box<Header>),
    Event(SessionEvent),
}

/// The copying of one VM's logs.
pub(crate) struct Keeping {
    pub(crate) context: Arc<Context>,
    pub(crate) vm: VmId,
}

impl Keeping {
    /// Copies what it can in the time there is, less if somebody is in a hurry. Never fails: the answer tells.
    pub(crate) async fn run(&self, guest: &Arc<dyn Guest>, hurry: &CancellationToken) -> KeptLogs {
        let limit = self.context.config.stop_logs_timeout;
        let end = Instant::now() + limit;
        let copied_by = end - FINISH_WITHIN.min(limit / 2);
        let mut kept = KeptLogs::default();
        if let Err(error) = host::admit_disk(&self.context) {
            kept.problem = Some(error.to_string());
            return kept;
        }
        let (steps, received) = mpsc::channel(AHEAD);
        let dir = self.context.paths.vm(self.vm);
        let writing = self
            .context
            .tasks
            .spawn_blocking(move || write(&dir, received));
        let copied = tokio::select! {
            biased; // who is in a hurry waits for nothing
            // cancel-safe: holds no state
            () = hurry.cancelled() => Err("another request took over".to_owned()),
            // what was copied so far is kept
            copied = timeout_at(copied_by, self.copy(guest, steps)) => match copied {
                Ok(copied) => copied.map_err(|error| error.to_string()),
                Err(_) => Err(format!("not all was copied within {limit:?}")),
            },
        };
        kept.problem = copied.err();
        match timeout_at(end, writing).await {
            Ok(Ok(Ok(written))) => {
                (kept.session_count, kept.size_bytes) = (written.sessions, written.bytes);
                if written.is_full {
                    let most = KEPT_MAX_BYTES >> 20;
                    kept.problem
                        .get_or_insert(format!("they are more than {most} MiB"));
                }
            }
            Ok(Ok(Err(error))) => {
                kept.problem = Some(format!("the host's disk refused them: {error}"));
            }
            Ok(Err(_)) | Err(_) => {
                kept.problem = Some(format!(
                    "the host's disk did not take them within {limit:?}"
                ));
            }
        }
        if let Some(problem) = &kept.problem {
            tracing::warn!(vm = %self.vm, problem, sessions = kept.session_count, "not all logs of a VM that is stopped were kept");
        }
        kept
    }

    /// One session after the other, the newest first: of old ones less may be wanted.
    async fn copy(
        &self,
        guest: &Arc<dyn Guest>,
        steps: mpsc::Sender<Step>,
    ) -> Result<(), AppError> {
        let mut left = KEPT_MAX_BYTES;
        for session in super::oldest_first(&**guest).await?.into_iter().rev() {
            if self.context.store.find_session(session.id).await?.is_none() {
                continue; // An exec's: it ends with its call.
            }
            let size = session.log_end_offset - session.log_start_offset;
            let from = match size > left {
                true => ReadFrom::TailBytes(left),
                false => ReadFrom::Start,
            };
            let options = AttachOptions {
                from,
                ..AttachOptions::default()
            };
            match guest.read_log(session.id, options, false).await {
                Ok(events) => left = left.saturating_sub(copy_one(events, &steps).await?),
                // It was removed meanwhile.
                Err(GuestError::UnknownSession { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Copies the log of one session; the answer is how many bytes it has.
async fn copy_one(mut events: SessionEvents, steps: &mpsc::Sender<Step>) -> Result<u64, AppError> {
    let mut bytes = 0;
    while let Some(event) = events.next().await {
        let step = match event? {
            SessionEvent::Attached(begun) => Step::Begin(Box::new(Header::of(*begun))),
            event @ (SessionEvent::Output { .. } | SessionEvent::Gap { .. }) => {
                if let SessionEvent::Output { data, .. } = &event {
                    bytes += data.len() as u64;
                }
                Step::Event(event)
            }
            SessionEvent::Screen { .. }
            | SessionEvent::StdinAck { .. }
            | SessionEvent::Heartbeat
            | SessionEvent::Exited { .. } => continue,
        };
        if steps.send(step).await.is_err() {
            // The thread has ended, and says why.
            break;
        }
    }
    Ok(bytes)
}

/// What was written.
#[derive(Default)]
struct Written {
    sessions: u32,
    bytes: u64,
    is_full: bool,
}

/// Writes what comes, and puts it in the place of what was kept before.
fn write(dir: &Path, mut steps: mpsc::Receiver<Step>) -> io::Result<Written> {
    let fresh = dir.join("logs.new");
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&fresh)?;
    let mut written = Written::default();
    let mut writer: Option<Writer> = None;
    while let Some(step) = steps.blocking_recv() {
        match (step, &mut writer) {
            (Step::Begin(header), _) => {
                if let Some(writer) = writer.take() {
                    written.bytes += writer.finish()?;
                }
                let path = fresh.join(header.session.id.to_string());
                writer = Some(Writer::create(&path, &header)?);
                written.sessions += 1;
            }
            (Step::Event(event), Some(writer)) if !written.is_full => {
                writer.event(&event)?;
                written.is_full = written.bytes + writer.bytes() > KEPT_MAX_BYTES * 2;
            }
            // Nothing comes before a session; what is beyond the bound is told of.
            (Step::Event(_), _) => {}
        }
    }
    if let Some(writer) = writer {
        written.bytes += writer.finish()?;
    }
    let place = dir.join("logs");
    match fs::remove_dir_all(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::rename(&fresh, &place)?,
    }
    Ok(written)
}

/// Where the logs are that were kept of a VM.
fn place(context: &Context, vm: VmId) -> PathBuf {
    context.paths.vm(vm).join("logs")
}

/// The log of a session that was kept, if it was.
pub(crate) async fn find(
    context: &Arc<Context>,
    vm: VmId,
    session: SessionId,
) -> Result<Option<Kept>, AppError> {
    let path = place(context, vm).join(session.to_string());
    open(context, path).await
}

/// All that were kept of a VM, the oldest session first; nothing where none were.
pub(crate) async fn list(context: &Arc<Context>, vm: VmId) -> Result<Vec<Kept>, AppError> {
    let dir = place(context, vm);
    let unreadable = |source| AppError::ReadDirectory {
        path: dir.clone(),
        source,
    };
    let mut entries = match tokio::fs::read_dir(&dir).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(unreadable)? {
        names.extend(
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<SessionId>().ok()),
        );
    }
    names.sort_unstable();
    let mut all = Vec::new();
    for session in names {
        all.extend(find(context, vm, session).await?);
    }
    Ok(all)
}

/// Removes the log that was kept of a session; one that is not there is no error.
pub(crate) async fn remove(context: &Context, vm: VmId, session: SessionId) {
    let path = place(context, vm).join(session.to_string());
    if let Err(error) = tokio::fs::remove_file(&path).await
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%vm, %session, error = chain(&error), "could not remove the log of a session; it goes with the VM");
    }
}

async fn open(context: &Arc<Context>, path: PathBuf) -> Result<Option<Kept>, AppError> {
    let opening = context.tasks.spawn_blocking({
        let path = path.clone();
        move || Kept::open(&path)
    });
    match opening.await.map_err(|_| AppError::Interrupted)? {
        Ok(kept) => Ok(Some(kept)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AppError::ReadDirectory { path, source }),
    }
}
