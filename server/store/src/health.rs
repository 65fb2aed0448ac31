//! Whether the database file is whole.

use sqlx::Row as _;

use crate::error::failed;
use crate::{Store, StoreError};

/// The most faults that are told.
const FAULTS_MAX: usize = 8;
/// What the log of changes is called, after the database's name.
const LOG_SUFFIX: &str = "-wal";

/// How the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is wrong with it, in SQLite's words, at most a few; empty where nothing is.
    pub faults: Vec<String>,
    /// The length of the file.
    pub file_bytes: u64,
    /// The length of the log of changes that are not folded into the file yet.
    pub log_bytes: u64,
}

impl Store {
    /// Reads the whole database and checks what it is made of, beside everybody else who reads and writes.
    ///
    /// # Errors
    /// If it cannot be read at all.
    pub async fn check_health(&self) -> Result<Health, StoreError> {
        const DURING: &str = "check the database";
        // <https://www.sqlite.org/pragma.html#pragma_quick_check>: `ok`, or one row for each fault.
        let rows = sqlx::query("PRAGMA quick_check(8)")
            .fetch_all(self.reader())
            .await
            .map_err(failed(DURING))?;
        let mut faults = Vec::new();
        for row in rows {
            let text: String = row.try_get(0).map_err(failed(DURING))?;
            if text != "ok" {
                faults.push(text);
            }
        }
        let rows = sqlx::query("SELECT \"table\", rowid FROM pragma_foreign_key_check LIMIT 8")
            .fetch_all(self.reader())
            .await
            .map_err(failed(DURING))?;
        for row in rows {
            let table: String = row.try_get(0).map_err(failed(DURING))?;
            faults.push(format!("a row of {table} names a row that is not there"));
        }
        faults.truncate(FAULTS_MAX);
        let length = |suffix: &str| {
            let mut path = self.path().as_os_str().to_owned();
            path.push(suffix);
            std::fs::metadata(path).map_or(0, |metadata| metadata.len())
        };
        Ok(Health {
            faults,
            file_bytes: length(""),
            log_bytes: length(LOG_SUFFIX),
        })
    }
}
