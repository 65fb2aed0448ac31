//! All sessions of the guest, by id.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use banger_proto::guest::v1::SessionSpec;
use prost::Message as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
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
/// A session that removes itself is kept this long after its exit was sent, for a caller who lost the
/// connection just then and asks again.
const LINGER: Duration = CALLER_BACK_WITHIN;
/// What sessions that linger may have in memory together.
const LINGERING_MAX_BYTES: usize = 16 << 20;
/// What one counts besides its output and what was asked for.
const LINGERING_LEAST_BYTES: usize = 4 << 10;
/// Sessions that are being started at once: a file system that hangs holds the thread of each.
const STARTING_MAX: usize = 16;
/// How long a start waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(30);
/// How long the id of a deleted session stays taken: a start that was given up may still be on its way. Longer than the
/// host waits for one.
const DELETED_FOR: Duration = Duration::from_secs(120);
/// Such ids.
const DELETED_MAX: usize = 1024;
/// How long the command of a call goes on without its caller, who may have lost the connection, or the daemon.
pub const CALLER_BACK_WITHIN: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    lingers: Option<Lingering>,
    lives_with_call: bool,
}

/// A session whose exit was sent.
#[derive(Debug)]
struct Lingering {
    since: Instant,
    /// What it has in memory: counted once, as the list is gone through whenever a command begins or ends.
    bytes: usize,
}

impl Lingering {
    fn begin(session: &Session) -> Self {
        let (spec, log) = (session.spec.encoded_len(), session.log.cost());
        Self {
            since: Instant::now(),
            bytes: LINGERING_LEAST_BYTES + spec + log,
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    /// Oldest first.
    entries: Vec<Entry>,
    /// Those that are being started; cancelled when they are, or are not.
    starting: HashMap<String, CancellationToken>,
    /// Oldest first.
    deleted: VecDeque<(String, Instant)>,
}

/// What becomes of a session that is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// It waits for a reader from its first byte on, for as long as the hold lives.
    pub holding: bool,
    /// It is forgotten when its exit was told, and ended when its caller stays away.
    pub lives_with_call: bool,
}

/// All sessions.
#[derive(Debug)]
pub struct Registry {
    table: Mutex<Table>,
    defaults: Mutex<Defaults>,
    root: PathBuf,
    cgroups: Option<PathBuf>,
    /// Looked for when the first session starts: the boot mounts it.
    parent: OnceLock<Option<Parent>>,
    starts: Arc<Semaphore>,
    patience: Mutex<Duration>,
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
            table: Mutex::default(),
            defaults: Mutex::default(),
            root: options.root.clone(),
            cgroups: options.cgroups.clone(),
            parent: OnceLock::new(),
            starts: Arc::new(Semaphore::new(STARTING_MAX)),
            patience: Mutex::new(CALLER_BACK_WITHIN),
            reaper,
            total: Arc::default(),
            spills: Arc::default(),
            cells: Arc::default(),
            tasks,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every section leaves the table consistent, so a panic elsewhere spoils nothing.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commands that live with their calls wait so long for a caller from now on, instead of [`CALLER_BACK_WITHIN`].
    pub fn wait_for_callers(&self, patience: Duration) {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner) = patience;
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
        for entry in &self.table().entries {
            entry.session.log.close_spill();
        }
    }

    /// What sessions start from, from now on.
    pub fn set_defaults(&self, defaults: Defaults) {
        *self.defaults.lock().unwrap_or_else(PoisonError::into_inner) = defaults;
    }

    fn patience(&self) -> Duration {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner)
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
        find(&self.table().entries, id).ok_or(Refusal::UnknownSession)
    }

    /// All sessions but those that linger, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Session>> {
        let table = self.table();
        let shown = table.entries.iter().filter(|entry| entry.lingers.is_none());
        shown.map(|entry| Arc::clone(&entry.session)).collect()
    }

    /// Starts a session, or returns the one that has the id. It is started also where nobody waits for it any more.
    ///
    /// # Errors
    /// Why nothing runs.
    pub async fn start(
        self: &Arc<Self>,
        id: &str,
        spec: SessionSpec,
        keeping: Keeping,
    ) -> Result<(Arc<Session>, Option<Hold>), Refusal> {
        check_id(id)?;
        let reserved = loop {
            // Two requests with one id start one process: the second waits for what becomes of the first.
            let first = match self.reserve(id)? {
                Reservation::Made(reserved) => break reserved,
                Reservation::Exists(session) => return Ok((session, None)),
                Reservation::Starting(first) => first,
            };
            first.cancelled().await;
        };
        let turn = timeout(TURN_WITHIN, Arc::clone(&self.starts).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            let detail = "too many others are being started, and the guest's file system does not answer them";
            return Err(Refusal::StartProcess {
                detail: detail.into(),
            });
        };
        // What the guest's files make wait, makes nobody else wait.
        let starting = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            reserved.start(spec, keeping)
        });
        starting
            .await
            .unwrap_or_else(|_| Err(Refusal::invalid("the agent's thread panicked")))
    }

    fn reserve(self: &Arc<Self>, id: &str) -> Result<Reservation, Refusal> {
        let mut table = self.table();
        if let Some(session) = find(&table.entries, id) {
            return Ok(Reservation::Exists(session));
        }
        if let Some(first) = table.starting.get(id) {
            return Ok(Reservation::Starting(first.clone()));
        }
        if table.is_deleted(id) {
            return Err(deleted());
        }
        let starting = table.starting.len();
        expire(&mut table.entries, SESSIONS_MAX.saturating_sub(starting));
        if table.entries.len() + starting >= SESSIONS_MAX {
            return Err(Refusal::TooManySessions {
                limit: SESSIONS_MAX,
            });
        }
        table
            .starting
            .insert(id.to_owned(), CancellationToken::new());
        Ok(Reservation::Made(Reserved {
            registry: Arc::clone(self),
            id: id.to_owned(),
        }))
    }

    /// Kills what is left of the session and forgets it. One that is only being started ends when it is.
    pub async fn delete(&self, id: &str) {
        let session = {
            let mut table = self.table();
            if id.len() <= ID_MAX_BYTES {
                table.note_deleted(id);
            }
            find(&table.entries, id)
        };
        if let Some(session) = session {
            session.end().await;
            self.table().entries.retain(|entry| entry.session.id != id);
        }
    }

    /// Whether this session is that of a call, and ends with it.
    #[must_use]
    pub fn lives_with_call(&self, id: &str) -> bool {
        let table = self.table();
        let entry = table.entries.iter().find(|entry| entry.session.id == id);
        entry.is_some_and(|entry| entry.lives_with_call)
    }

    /// The exit of this session was sent to its caller, and it is to be forgotten.
    pub fn linger(&self, id: &str) {
        let mut table = self.table();
        let entry = table.entries.iter_mut();
        if let Some(entry) = entry.into_iter().find(|entry| entry.session.id == id) {
            entry.lingers = Some(Lingering::begin(&entry.session));
        }
        expire(&mut table.entries, SESSIONS_MAX);
    }
}

enum Reservation {
    Made(Reserved),
    Exists(Arc<Session>),
    Starting(CancellationToken),
}

/// An id whose session is being started, while the value lives.
struct Reserved {
    registry: Arc<Registry>,
    id: String,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(starting) = self.registry.table().starting.remove(&self.id) {
            starting.cancel();
        }
    }
}

impl Reserved {
    /// Starts the session. May take as long as the guest's file system does.
    fn start(
        self,
        spec: SessionSpec,
        keeping: Keeping,
    ) -> Result<(Arc<Session>, Option<Hold>), Refusal> {
        let registry = &self.registry;
        let plan = Plan::new(spec, &registry.defaults(), &Users::read(&registry.root))?;
        if registry.table().is_deleted(&self.id) {
            return Err(deleted());
        }
        let parent = registry
            .parent
            .get_or_init(|| registry.cgroups.as_deref().and_then(Parent::at));
        let started = start(&plan, &self.id, parent.as_ref(), &registry.reaper)?;
        let log = Log::new(Arc::clone(&registry.total), Arc::clone(&registry.spills));
        let reaper = Arc::clone(&registry.reaper);
        let (session, life) =
            Session::new(self.id.clone(), plan, started, log, &registry.cells, reaper);
        let session = Arc::new(session);
        let hold = keeping.holding.then(|| session.log.hold(0));
        let living = Arc::clone(&session);
        registry.tasks.spawn(async move { living.live(life).await });
        let is_wanted = {
            let mut table = registry.table();
            let is_wanted = !table.is_deleted(&self.id);
            if is_wanted {
                table.entries.push(Entry {
                    session: Arc::clone(&session),
                    lingers: None,
                    lives_with_call: keeping.lives_with_call,
                });
            }
            is_wanted
        };
        if !is_wanted {
            registry.tasks.spawn(async move { session.end().await });
            return Err(deleted());
        }
        if keeping.lives_with_call {
            let (registry, watched) = (Arc::clone(registry), Arc::clone(&session));
            let patience = registry.patience();
            self.registry.tasks.spawn(async move {
                watched.left_alone(patience).await;
                registry.delete(&watched.id).await;
            });
        }
        Ok((session, hold))
    }
}

impl Table {
    fn is_deleted(&self, id: &str) -> bool {
        let mut deleted = self.deleted.iter();
        deleted.any(|(known, when)| known == id && when.elapsed() < DELETED_FOR)
    }

    fn note_deleted(&mut self, id: &str) {
        let is_over = |when: &Instant| when.elapsed() >= DELETED_FOR;
        while let Some((_, when)) = self.deleted.front()
            && (self.deleted.len() >= DELETED_MAX || is_over(when))
        {
            self.deleted.pop_front();
        }
        self.deleted.push_back((id.to_owned(), Instant::now()));
    }
}

/// Nobody wants it any more.
fn deleted() -> Refusal {
    Refusal::invalid("the session was deleted before it began")
}

fn find(entries: &[Entry], id: &str) -> Option<Arc<Session>> {
    let entry = entries.iter().find(|entry| entry.session.id == id)?;
    Some(Arc::clone(&entry.session))
}

/// Drops those that have lingered long enough, and of the others the oldest, until there is room for one more among `most`
/// and they have no more memory than they may.
fn expire(entries: &mut Vec<Entry>, most: usize) {
    let now = Instant::now();
    entries.retain(|entry| {
        let lingers = entry.lingers.as_ref();
        lingers.is_none_or(|lingers| now.duration_since(lingers.since) < LINGER)
    });
    let lingering = entries.iter().filter_map(|entry| entry.lingers.as_ref());
    let mut bytes: usize = lingering.map(|lingers| lingers.bytes).sum();
    let mut surplus = (entries.len() + 1).saturating_sub(most);
    entries.retain(|entry| {
        let Some(lingers) = &entry.lingers else {
            return true;
        };
        let is_kept = surplus == 0 && bytes <= LINGERING_MAX_BYTES;
        if !is_kept {
            surplus = surplus.saturating_sub(1);
            bytes -= lingers.bytes;
        }
        is_kept
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
