//! From columns to domain values and back.
//!
//! Nothing read from the database is trusted to be what was written: a value that does not parse is an
//! error that names table, column and row, never a panic.

use std::fmt::Display;
use std::str::FromStr;

use banger_core::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{Decode, Row, Type};

use crate::StoreError;

/// The most characters of an explanation of what is wrong with a stored value.
const DETAIL_CHARS_MAX: usize = 200;

/// A row being read, with the words that name it in errors.
pub(crate) struct Columns<'r> {
    row: &'r SqliteRow,
    table: &'static str,
    key: &'static str,
}

impl<'r> Columns<'r> {
    /// `key` is the column that names the row.
    pub(crate) const fn new(row: &'r SqliteRow, table: &'static str, key: &'static str) -> Self {
        Self { row, table, key }
    }

    fn corrupt(&self, column: &'static str, detail: impl Display) -> StoreError {
        StoreError::Corrupt {
            table: self.table,
            column,
            id: self.row.try_get(self.key).unwrap_or_default(),
            detail: detail.to_string().chars().take(DETAIL_CHARS_MAX).collect(),
        }
    }

    /// The value as SQLite holds it.
    pub(crate) fn get<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite>,
    {
        self.row
            .try_get(column)
            .map_err(|source| self.corrupt(column, source))
    }

    /// A value written by `Display`.
    pub(crate) fn parse<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: FromStr<Err: Display>,
    {
        let text: &str = self.get(column)?;
        text.parse().map_err(|error| self.corrupt(column, error))
    }

    /// A value written by `Display`, or none.
    pub(crate) fn parse_optional<T>(&self, column: &'static str) -> Result<Option<T>, StoreError>
    where
        T: FromStr<Err: Display>,
    {
        let text: Option<&str> = self.get(column)?;
        text.map(|text| text.parse().map_err(|error| self.corrupt(column, error)))
            .transpose()
    }

    /// A value written by [`json`].
    pub(crate) fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, StoreError> {
        let text: &str = self.get(column)?;
        serde_json::from_str(text).map_err(|error| self.corrupt(column, error))
    }

    /// A value written by [`json`], or none.
    pub(crate) fn json_optional<T: DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.get(column)?;
        text.map(|text| serde_json::from_str(text).map_err(|error| self.corrupt(column, error)))
            .transpose()
    }

    /// A number written by [`integer`].
    pub(crate) fn unsigned<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: TryFrom<i64, Error: Display>,
    {
        let value: i64 = self.get(column)?;
        T::try_from(value).map_err(|error| self.corrupt(column, error))
    }

    /// A time written by [`nanoseconds`].
    pub(crate) fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        let value: i64 = self.get(column)?;
        self.instant(column, value)
    }

    /// A time written by [`nanoseconds`], or none.
    pub(crate) fn time_optional(
        &self,
        column: &'static str,
    ) -> Result<Option<Timestamp>, StoreError> {
        let value: Option<i64> = self.get(column)?;
        value.map(|value| self.instant(column, value)).transpose()
    }

    fn instant(&self, column: &'static str, value: i64) -> Result<Timestamp, StoreError> {
        Timestamp::from_nanosecond(value.into()).map_err(|error| self.corrupt(column, error))
    }

    /// The error for columns that contradict each other; `column` is the one to look at.
    pub(crate) fn contradiction(&self, column: &'static str) -> StoreError {
        self.corrupt(column, "it contradicts the row's other columns")
    }
}

/// `value` as JSON text.
pub(crate) fn json<T: Serialize + ?Sized>(
    column: &'static str,
    value: &T,
) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Encode { column, source })
}

/// A count as SQLite holds it.
pub(crate) fn integer(column: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::OutOfRange { column })
}

/// A time as SQLite holds it: nanoseconds since the Unix epoch, which reach from 1677 to 2262.
pub(crate) fn nanoseconds(column: &'static str, time: Timestamp) -> Result<i64, StoreError> {
    i64::try_from(time.as_nanosecond()).map_err(|_| StoreError::OutOfRange { column })
}

/// A time as SQLite holds it, or none.
pub(crate) fn nanoseconds_optional(
    column: &'static str,
    time: Option<Timestamp>,
) -> Result<Option<i64>, StoreError> {
    time.map(|time| nanoseconds(column, time)).transpose()
}

/// A count of rows, which SQLite never makes negative.
pub(crate) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
