//! All sessions of the guest, by id.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use banger_proto::guest::v1::SessionSpec;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::Session;
use super::cgroup::Parent;
use super::log::{Hold, Log, Total};
use super::plan::{Defaults, Plan};
use super::screen::Cells;
use super::spill::Home;
use super::start::start;
use super::users::{Identity, Users};
use crate::agent::Options;
use crate::reap::Reaper;
use crate::refusal::Refusal;

/// Sessions at once, ended ones that were not deleted included.
pub const SESSIONS_MAX: usize = 1024;
/// Longest id. The host's are UUIDs.
const ID_MAX_BYTES: usize = 64;
/// A session that removes itself is kept this long after its exit was sent, for a host that lost the
/// connection just then and asks again.
const LINGER: Duration = Duration::from_secs(30);
/// Sessions that linger at once.
const LINGERING_MAX: usize = 16;

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    /// When it began to linger.
    lingers_since: Option<Instant>,
}

/// All sessions.
#[derive(Debug)]
pub struct Registry {
    /// Oldest first.
    entries: Mutex<Vec<Entry>>,
    defaults: Mutex<Defaults>,
    root: PathBuf,
    cgroups: Option<PathBuf>,
    /// Looked for when the first session starts: the boot mounts it.
    parent: OnceLock<Option<Parent>>,
    reaper: Arc<Reaper>,
    total: Arc<Total>,
    spills: Arc<Home>,
    cells: Arc<Cells>,
    tasks: TaskTracker,
}

impl Registry {
    /// No session yet.
    #[must_use]
    pub fn new(options: &Options, reaper: Arc<Reaper>, tasks: TaskTracker) -> Self {
        Self {
            entries: Mutex::default(),
            defaults: Mutex::default(),
            root: options.root.clone(),
            cgroups: options.cgroups.clone(),
            parent: OnceLock::new(),
            reaper,
            total: Arc::default(),
            spills: Arc::default(),
            cells: Arc::default(),
            tasks,
        }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Every section leaves the list consistent, so a panic elsewhere spoils nothing.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs spill to files without a name in this directory from now on.
    pub fn spill_to(&self, directory: Arc<OwnedFd>) {
        self.spills.set(directory);
    }

    /// Bytes of all logs on the disk.
    #[must_use]
    pub fn spilled_bytes(&self) -> u64 {
        self.spills.used()
    }

    /// Gives up what logs have on the disk, for good: it is about to be marked clean, which open files hinder.
    pub fn close_spills(&self) {
        self.spills.close();
        for entry in self.entries().iter() {
            entry.session.log.close_spill();
        }
    }

    /// What sessions start from, from now on.
    pub fn set_defaults(&self, defaults: Defaults) {
        *self.defaults.lock().unwrap_or_else(PoisonError::into_inner) = defaults;
    }

    fn defaults(&self) -> Defaults {
        self.defaults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Who `user` is to sessions: the default one where it is empty.
    ///
    /// # Errors
    /// [`Refusal::UnknownUser`].
    pub fn identity(&self, user: &str) -> Result<Identity, Refusal> {
        let default = self.defaults().user;
        let user = if user.is_empty() { &default } else { user };
        Users::read(&self.root).resolve(user)
    }

    /// The session `id`.
    ///
    /// # Errors
    /// [`Refusal::UnknownSession`].
    pub fn get(&self, id: &str) -> Result<Arc<Session>, Refusal> {
        find(&self.entries(), id).ok_or(Refusal::UnknownSession)
    }

    /// All sessions but those that linger, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Session>> {
        let entries = self.entries();
        let shown = entries.iter().filter(|entry| entry.lingers_since.is_none());
        shown.map(|entry| Arc::clone(&entry.session)).collect()
    }

    /// Starts a session, or returns the one that has the id. With `holding`, one that is started waits for
    /// a reader from its first byte on, for as long as the hold lives.
    ///
    /// # Errors
    /// Why nothing runs.
    pub fn start(
        &self,
        id: &str,
        spec: SessionSpec,
        holding: bool,
    ) -> Result<(Arc<Session>, Option<Hold>), Refusal> {
        check_id(id)?;
        // Held over the whole start, so that two requests with one id start one process.
        let mut entries = self.entries();
        if let Some(session) = find(&entries, id) {
            return Ok((session, None));
        }
        expire(&mut entries);
        if entries.len() >= SESSIONS_MAX {
            return Err(Refusal::TooManySessions {
                limit: SESSIONS_MAX,
            });
        }
        let plan = Plan::new(spec, &self.defaults(), &Users::read(&self.root))?;
        let parent = self
            .parent
            .get_or_init(|| self.cgroups.as_deref().and_then(Parent::at));
        let started = start(&plan, id, parent.as_ref(), &self.reaper)?;
        let log = Log::new(Arc::clone(&self.total), Arc::clone(&self.spills));
        let reaper = Arc::clone(&self.reaper);
        let (session, life) = Session::new(id.to_owned(), plan, started, log, &self.cells, reaper);
        let session = Arc::new(session);
        entries.push(Entry {
            session: Arc::clone(&session),
            lingers_since: None,
        });
        let hold = holding.then(|| session.log.hold(0));
        let living = Arc::clone(&session);
        self.tasks.spawn(async move { living.live(life).await });
        Ok((session, hold))
    }

    /// Kills what is left of the session and forgets it.
    pub async fn delete(&self, id: &str) {
        let session = find(&self.entries(), id);
        if let Some(session) = session {
            session.end().await;
            self.entries().retain(|entry| entry.session.id != id);
        }
    }

    /// The exit of this session was sent, and it is to be forgotten.
    pub fn linger(&self, id: &str) {
        let mut entries = self.entries();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.session.id == id) {
            entry.lingers_since = Some(Instant::now());
            let log = Arc::clone(&entry.session.log);
            log.set_passing(false);
            // The memory is for those that go on.
            self.tasks.spawn(async move { log.settle().await });
        }
        expire(&mut entries);
    }
}

fn find(entries: &[Entry], id: &str) -> Option<Arc<Session>> {
    let entry = entries.iter().find(|entry| entry.session.id == id)?;
    Some(Arc::clone(&entry.session))
}

/// Drops those that have lingered long enough, and the oldest of those that are too many.
fn expire(entries: &mut Vec<Entry>) {
    let lingering = entries.iter().filter(|entry| entry.lingers_since.is_some());
    let mut surplus = lingering.count().saturating_sub(LINGERING_MAX);
    entries.retain(|entry| match entry.lingers_since {
        None => true,
        Some(_) if surplus > 0 => {
            surplus -= 1;
            false
        }
        Some(since) => since.elapsed() < LINGER,
    });
}

/// Ids name cgroup directories too, so they are of few characters.
fn check_id(id: &str) -> Result<(), Refusal> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if id.is_empty() || id.len() > ID_MAX_BYTES || !id.bytes().all(is_allowed) {
        return Err(Refusal::invalid(
            "a session's id has 1 to 64 letters, digits and hyphens",
        ));
    }
    Ok(())
}
