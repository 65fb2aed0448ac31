//! The store itself: opening, closing, and the two ways to the database.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_core::{Name, Owner};
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Connection, Transaction};

use crate::StoreError;
use crate::error::{Meaning, failed, meaning};
use crate::migrate::{latest, migrate};
use crate::row::Columns;

/// `bngr`: marks the file as ours (SQLite's `application_id`, bytes 68 to 71 of the file).
const APPLICATION_ID: i64 = 0x626e_6772;
/// How long SQLite waits for a lock that another process holds.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long a call waits for a connection: outlasts [`LOCK_WAIT`], and the queue for the one writer.
const CONNECTION_WAIT: Duration = Duration::from_secs(30);
/// Connections that read at once. Reads are short, so few serve many callers; each costs a thread and a cache.
const READERS: u32 = 4;
/// How long a reader is kept that nobody uses.
const READER_IDLE: Duration = Duration::from_secs(60);
/// The page cache of each connection, in KiB, as SQLite wants it: negative.
const CACHE_KIB: &str = "-1024";
/// The log is cut back to this when it is reset, so that one burst does not keep its space for ever.
const LOG_BYTES_KEPT: &str = "8388608";

/// The state of banger.
///
/// Cheap to clone: all clones share the connections.
#[derive(Clone)]
pub struct Store {
    path: PathBuf,
    reader: SqlitePool,
    writer: SqlitePool,
}

/// What became of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// It is gone.
    Deleted,
    /// There was none.
    Missing,
    /// VMs need it. Some of them, by name, at most 16.
    UsedBy(Vec<Name>),
}

/// When a transaction is safe from a crash of the host. From a crash of the daemon each always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Some time after it ended (`synchronous=NORMAL`). For what a crash of the host makes moot anyway: a
    /// lost last state, process or progress is found out again when the daemon starts.
    Soon,
    /// When it ended (`synchronous=FULL`, one more fsync, which covers all transactions before it too). For
    /// rows that own files: files without a row are swept, so losing the row would lose a user's disk, image
    /// or kernel; and a row without its files would promise what is gone.
    AtOnce,
}

impl Durability {
    /// Sets the durability, which SQLite allows outside transactions only, then takes the write lock.
    const fn begin(self) -> &'static str {
        match self {
            Self::Soon => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
            Self::AtOnce => "PRAGMA synchronous = FULL; BEGIN IMMEDIATE",
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database at `path`, creating it if it is not there, and brings its schema up to date.
    ///
    /// The directory must exist. The caller keeps other daemons away from it.
    ///
    /// # Errors
    /// `NotOurs` and `Newer` leave the file as it was.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        claim(path).await?;
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECTION_WAIT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            // A transaction that SQLite undid by itself (disk full) leaves sqlx believing that it goes on:
            // such a connection is thrown away, and the next call makes a new one.
            .after_release(|connection, _| {
                Box::pin(async move {
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
            .connect_with(options(path).create_if_missing(true))
            .await
            .map_err(|source| not_opened(path, source))?;
        migrate(&writer).await?;
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(CONNECTION_WAIT)
            .idle_timeout(READER_IDLE)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(options(path).pragma("query_only", "ON"));
        Ok(Self {
            path: path.to_owned(),
            reader,
            writer,
        })
    }

    /// Closes the database. Calls that run end first; later ones are refused as `Closed`.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await; // last, so that its log is folded into the file
    }

    /// The database file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where to read: every committed change is seen.
    pub(crate) const fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// Waits for the writer, then begins a transaction. Dropped without a commit, it is undone.
    pub(crate) async fn begin(
        &self,
        durability: Durability,
        during: &'static str,
    ) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer
            .begin_with(durability.begin())
            .await
            .map_err(failed(during))
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(LOCK_WAIT)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("cache_size", CACHE_KIB)
        .pragma("journal_size_limit", LOG_BYTES_KEPT)
        .pragma("trusted_schema", "OFF")
        .thread_name(|id| format!("sqlite-{id}"))
}

/// Makes sure that the file is ours, or new, before anything is changed in it; marks a new one.
async fn claim(path: &Path) -> Result<(), StoreError> {
    let bare = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(LOCK_WAIT);
    let mut connection = SqliteConnection::connect_with(&bare)
        .await
        .map_err(|source| not_opened(path, source))?;
    let claimed = claim_open(path, &mut connection).await;
    let closed = connection
        .close()
        .await
        .map_err(|source| not_opened(path, source));
    claimed.and(closed)
}

async fn claim_open(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let unreadable = |source| not_opened(path, source);
    let (application, tables): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_schema)",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(unreadable)?;
    match (application, tables) {
        (APPLICATION_ID, 0) => Ok(()),
        (APPLICATION_ID, _) => refuse_newer(path, connection).await,
        (0, 0) => sqlx::query("PRAGMA application_id = 0x626e6772")
            .execute(connection)
            .await
            .map(|_| ())
            .map_err(unreadable),
        _ => Err(StoreError::NotOurs {
            path: path.to_owned(),
        }),
    }
}

async fn refuse_newer(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await
        .map_err(|source| not_opened(path, source))?;
    match found {
        Some(found) if found > latest() => Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: latest(),
        }),
        _ => Ok(()),
    }
}

/// What a failure to open means.
fn not_opened(path: &Path, source: sqlx::Error) -> StoreError {
    match meaning(&source) {
        Meaning::NotADatabase => StoreError::NotOurs {
            path: path.to_owned(),
        },
        Meaning::Other => StoreError::Open {
            path: path.to_owned(),
            source,
        },
        Meaning::Busy
        | Meaning::DiskFull
        | Meaning::DiskFailed
        | Meaning::Damaged
        | Meaning::Closed => failed("open the database")(source),
    }
}

/// The most VMs that [`DeleteOutcome::UsedBy`] names.
const USERS_NAMED_MAX: u32 = 16;

/// The first names of the VMs that use something; `statement` takes its id and the most rows.
pub(crate) async fn users(
    connection: &mut SqliteConnection,
    statement: &'static str,
    id: &str,
) -> Result<Vec<Name>, StoreError> {
    let rows = sqlx::query(statement)
        .bind(id)
        .bind(USERS_NAMED_MAX)
        .fetch_all(connection)
        .await
        .map_err(failed("find the VMs that use it"))?;
    names(&rows)
}

/// The same of one owner's VMs; `statement` takes the id, the owner and the most rows.
pub(crate) async fn users_of(
    connection: &mut SqliteConnection,
    statement: &'static str,
    id: &str,
    owner: &Owner,
) -> Result<Vec<Name>, StoreError> {
    let rows = sqlx::query(statement)
        .bind(id)
        .bind(owner.as_str())
        .bind(USERS_NAMED_MAX)
        .fetch_all(connection)
        .await
        .map_err(failed("find the VMs that use it"))?;
    names(&rows)
}

fn names(rows: &[SqliteRow]) -> Result<Vec<Name>, StoreError> {
    rows.iter()
        .map(|row| Columns::new(row, "vms", "id").parse("name"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_transaction_has_the_durability_that_was_asked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("banger.db")).await.unwrap();
        for (durability, level) in [
            (Durability::AtOnce, 2),
            (Durability::Soon, 1),
            (Durability::AtOnce, 2),
        ] {
            let mut transaction = store.begin(durability, "test").await.unwrap();
            let actual: i64 = sqlx::query_scalar("PRAGMA synchronous")
                .fetch_one(&mut *transaction)
                .await
                .unwrap();
            assert_eq!(actual, level);
        }
    }

    #[tokio::test]
    async fn a_reader_cannot_write() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("banger.db")).await.unwrap();
        let error = sqlx::query("DELETE FROM vms")
            .execute(store.reader())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("readonly"), "{error}");
    }
}
