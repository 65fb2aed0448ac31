//! What can go wrong with the store, and how SQLite's codes become the words of the domain.

use std::path::PathBuf;
use std::time::Duration;

use banger_core::{Explain, FailureKind, Name, VmId};
use sqlx::error::ErrorKind;
use sqlx::migrate::MigrateError;

/// How long a caller should wait before it tries again when the database was busy.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Low byte of a SQLite result code (<https://www.sqlite.org/rescode.html>): another connection holds the lock.
const SQLITE_BUSY: i32 = 5;
/// Within a shared cache, likewise.
const SQLITE_LOCKED: i32 = 6;
/// The file system or the page limit is full.
const SQLITE_FULL: i32 = 13;
/// The file's content makes no sense.
const SQLITE_CORRUPT: i32 = 11;
/// Not a database at all.
const SQLITE_NOTADB: i32 = 26;
/// Reading or writing failed.
const SQLITE_IOERR: i32 = 10;
/// The shared index of the log could not grow, which only a full disk refuses.
const SQLITE_IOERR_SHMSIZE: i32 = 4874;

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not be opened or created.
    #[error("could not open the database `{}`", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The file is not a database of ours.
    #[error("`{}` is not a database of banger", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// A newer version wrote the database.
    #[error("the database `{}` has schema {found}, and this version knows up to {known}", path.display())]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The schema it has.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// The schema could not be brought up to date.
    #[error("could not bring the database's schema up to date")]
    Migrate {
        /// Why.
        #[source]
        source: MigrateError,
    },
    /// The database is locked by another process, or the queue for its one writer is too long.
    #[error("the database was busy for too long to {during}")]
    Busy {
        /// What was being done.
        during: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The disk of the state directory is full.
    #[error("the disk is full: could not {during}")]
    DiskFull {
        /// What was being done.
        during: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The disk of the state directory could not be read or written.
    #[error("the disk of the database fails: could not {during}")]
    DiskFailed {
        /// What was being done.
        during: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The store was closed, because the daemon ends.
    #[error("the store is closed: could not {during}")]
    Closed {
        /// What was being done.
        during: &'static str,
    },
    /// What was read is no database: the file is damaged, or the disk does not give what is in it.
    #[error("the database is damaged, or its disk fails: could not {during}")]
    Damaged {
        /// What was being done.
        during: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A stored value is not what was ever stored there.
    #[error("column {column} of {table} `{id}` holds no valid value ({detail})")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key.
        id: String,
        /// What is wrong with it, bounded.
        detail: String,
    },
    /// A value is beyond what the database can hold.
    #[error("{column} is out of the range that can be stored")]
    OutOfRange {
        /// The column.
        column: &'static str,
    },
    /// A value could not be written as JSON.
    #[error("could not encode {column}")]
    Encode {
        /// The column.
        column: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The name belongs to another.
    #[error("the name `{name}` is taken by another {resource}")]
    NameTaken {
        /// `vm`, `kernel`, `catalog` or `volume`.
        resource: &'static str,
        /// The name.
        name: Name,
    },
    /// The id belongs to another.
    #[error("the id `{id}` is taken by another {resource}")]
    IdTaken {
        /// The kind of resource.
        resource: &'static str,
        /// The id.
        id: String,
    },
    /// The VM that a row should belong to is gone.
    #[error("VM `{id}` does not exist")]
    VmMissing {
        /// Which.
        id: VmId,
    },
    /// The image or kernel that a VM names is gone.
    #[error("the {resource} `{id}` of the VM no longer exists")]
    PartMissing {
        /// `image`, `kernel` or `volume`.
        resource: &'static str,
        /// Its id.
        id: String,
    },
    /// SQLite refused a statement: a defect of ours, or a fault of the host.
    #[error("could not {during}")]
    Query {
        /// What was being done.
        during: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
}

/// What a database error means, whatever was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Busy,
    DiskFull,
    DiskFailed,
    Damaged,
    NotADatabase,
    Closed,
    Other,
}

/// SQLite's extended result code, where `source` comes from SQLite.
fn code(source: &sqlx::Error) -> Option<i32> {
    source.as_database_error()?.code()?.parse().ok()
}

pub(crate) fn meaning(source: &sqlx::Error) -> Meaning {
    match source {
        sqlx::Error::PoolTimedOut => return Meaning::Busy,
        sqlx::Error::PoolClosed => return Meaning::Closed,
        _ => {}
    }
    match code(source) {
        Some(SQLITE_IOERR_SHMSIZE) => Meaning::DiskFull,
        Some(code) => match code & 0xff {
            SQLITE_BUSY | SQLITE_LOCKED => Meaning::Busy,
            SQLITE_FULL => Meaning::DiskFull,
            SQLITE_IOERR => Meaning::DiskFailed,
            SQLITE_CORRUPT => Meaning::Damaged,
            SQLITE_NOTADB => Meaning::NotADatabase,
            _ => Meaning::Other,
        },
        None => Meaning::Other,
    }
}

/// Whether a unique or primary key refused the row.
pub(crate) fn is_unique_violation(source: &sqlx::Error, columns: &str) -> bool {
    source.as_database_error().is_some_and(|error| {
        error.kind() == ErrorKind::UniqueViolation && error.message().ends_with(columns)
    })
}

/// Whether a row refers to one that is not there.
pub(crate) fn is_foreign_key_violation(source: &sqlx::Error) -> bool {
    source
        .as_database_error()
        .is_some_and(|error| error.kind() == ErrorKind::ForeignKeyViolation)
}

/// For `map_err`: what `source` means while doing `during`, an infinitive such as `insert the VM`.
pub(crate) fn failed(during: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| match meaning(&source) {
        Meaning::Busy => StoreError::Busy { during, source },
        Meaning::DiskFull => StoreError::DiskFull { during, source },
        Meaning::DiskFailed => StoreError::DiskFailed { during, source },
        Meaning::Damaged | Meaning::NotADatabase => StoreError::Damaged { during, source },
        Meaning::Closed => StoreError::Closed { during },
        Meaning::Other => StoreError::Query { during, source },
    }
}

impl StoreError {
    /// What a failed migration means.
    pub(crate) fn migrate(source: MigrateError) -> Self {
        const DURING: &str = "bring the database's schema up to date";
        match source {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)
                if meaning(&source) != Meaning::Other =>
            {
                failed(DURING)(source)
            }
            source => Self::Migrate { source },
        }
    }
}

impl Explain for StoreError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Busy { .. } | Self::Closed { .. } => FailureKind::Unavailable {
                retry_after: RETRY_AFTER,
            },
            Self::DiskFull { .. } => FailureKind::ResourceExhausted {
                subject: "host/disk".into(),
            },
            Self::NotOurs { .. } | Self::Newer { .. } => FailureKind::FailedPrecondition {
                subject: "host/database".into(),
            },
            Self::NameTaken { resource, name } => FailureKind::AlreadyExists {
                resource: (*resource).into(),
                name: name.to_string(),
            },
            Self::IdTaken { resource, id } => FailureKind::AlreadyExists {
                resource: (*resource).into(),
                name: id.clone(),
            },
            Self::VmMissing { id } => FailureKind::NotFound {
                resource: "vm".into(),
                name: id.to_string(),
            },
            Self::PartMissing { resource, id } => FailureKind::NotFound {
                resource: (*resource).into(),
                name: id.clone(),
            },
            Self::Open { .. }
            | Self::Migrate { .. }
            | Self::DiskFailed { .. }
            | Self::Damaged { .. }
            | Self::Corrupt { .. }
            | Self::OutOfRange { .. }
            | Self::Encode { .. }
            | Self::Query { .. } => FailureKind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Open { .. } => "STORE_NOT_OPENED",
            Self::NotOurs { .. } => "STORE_NOT_OURS",
            Self::Newer { .. } => "STORE_NEWER",
            Self::Migrate { .. } => "STORE_NOT_MIGRATED",
            Self::Busy { .. } => "STORE_BUSY",
            Self::DiskFull { .. } => "DISK_FULL",
            Self::DiskFailed { .. } => "STORE_DISK_FAILED",
            Self::Closed { .. } => "STORE_CLOSED",
            Self::Damaged { .. } => "STORE_DAMAGED",
            Self::Corrupt { .. } => "STORE_VALUE_CORRUPT",
            Self::OutOfRange { .. } => "STORE_VALUE_OUT_OF_RANGE",
            Self::Encode { .. } => "STORE_VALUE_NOT_ENCODED",
            Self::NameTaken { .. } => "NAME_TAKEN",
            Self::IdTaken { .. } => "ID_TAKEN",
            Self::VmMissing { .. } => "VM_NOT_FOUND",
            Self::PartMissing { .. } => "VM_PART_MISSING",
            Self::Query { .. } => "STORE_FAILED",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::Open { .. } => {
                "Check that the state directory exists and belongs to the daemon's user."
            }
            Self::NotOurs { .. } => "Name another state directory, or move the file away.",
            Self::Newer { .. } => "Install the version that wrote it, or a later one.",
            Self::Busy { .. } => {
                "Try again. If it stays so, look for another program that has the database open."
            }
            Self::DiskFull { .. } => {
                "Free space on the file system of the state directory: delete VMs and images that are not needed."
            }
            Self::Closed { .. } => "Try again when the daemon has been started again.",
            Self::DiskFailed { .. } => {
                "Look in the kernel's log why the disk of the state directory fails, and whether a quota is used up there. Start bangerd again when it is mended."
            }
            Self::Damaged { .. } => {
                "Look in the kernel's log whether the disk fails. If so, mend it and start bangerd again; else restore the state directory from a backup."
            }
            Self::NameTaken { .. } => "Choose another name, or delete the one that has it.",
            Self::PartMissing { resource, .. } => {
                return Some(format!(
                    "The {resource} was deleted in the meantime: get it again, then retry."
                ));
            }
            Self::Migrate { .. }
            | Self::Corrupt { .. }
            | Self::OutOfRange { .. }
            | Self::Encode { .. }
            | Self::IdTaken { .. }
            | Self::VmMissing { .. }
            | Self::Query { .. } => return None,
        };
        Some(text.into())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Open { path, .. } | Self::NotOurs { path } => {
                vec![("path", path.display().to_string())]
            }
            Self::Newer { path, found, known } => vec![
                ("path", path.display().to_string()),
                ("found", found.to_string()),
                ("known", known.to_string()),
            ],
            Self::Busy { during, .. }
            | Self::DiskFull { during, .. }
            | Self::DiskFailed { during, .. }
            | Self::Closed { during }
            | Self::Damaged { during, .. }
            | Self::Query { during, .. } => vec![("during", (*during).into())],
            Self::Corrupt {
                table,
                column,
                id,
                detail,
            } => vec![
                ("table", (*table).into()),
                ("column", (*column).into()),
                ("id", id.clone()),
                ("detail", detail.clone()),
            ],
            Self::OutOfRange { column } | Self::Encode { column, .. } => {
                vec![("column", (*column).into())]
            }
            Self::NameTaken { resource, name } => {
                vec![("resource", (*resource).into()), ("name", name.to_string())]
            }
            Self::IdTaken { resource, id } | Self::PartMissing { resource, id } => {
                vec![("resource", (*resource).into()), ("id", id.clone())]
            }
            Self::VmMissing { id } => vec![("id", id.to_string())],
            Self::Migrate { .. } => Vec::new(),
        }
    }
}
