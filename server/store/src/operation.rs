//! Operations: rows of `operations`, and the request ids that began them.

use std::fmt;
use std::str::FromStr;

use banger_core::operation::{Operation, OperationState};
use banger_core::{OperationId, Owner, Timestamp};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::error::{failed, is_unique_violation};
use crate::request::{self, Known, RequestKey};
use crate::row::{Columns, json, nanoseconds, nanoseconds_optional};
use crate::store::Durability;
use crate::{Page, Store, StoreError};

/// What became of a new operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertOperation {
    /// It was recorded: do the work.
    Inserted,
    /// The same call was made before and began this one: watch it. Nothing was recorded.
    Joined(OperationId),
    /// The request id was used for another call. Nothing was recorded.
    Conflict,
}

/// Which ended operations are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// None that ended before.
    pub since: Timestamp,
    /// Of each owner as many of the newest,
    pub at_most: u32,
    /// and all that ended since then and have a request id, however many: whoever makes many calls finds again what each
    /// of them began.
    pub repeats_since: Timestamp,
    /// But of each owner, however recent, no more than this.
    pub repeats_at_most: u32,
}

/// What became of a change to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationOutcome {
    /// It is as given.
    Updated,
    /// It had ended already, and stays as it was.
    Final,
    /// There is none.
    Missing,
}

/// The stored word of an operation's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Running,
    Succeeded,
    Failed,
}

impl Word {
    const ALL: [Self; 3] = [Self::Running, Self::Succeeded, Self::Failed];

    const fn of(state: &OperationState) -> Self {
        match state {
            OperationState::Running => Self::Running,
            OperationState::Succeeded => Self::Succeeded,
            OperationState::Failed { .. } => Self::Failed,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for Word {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|word| word.as_str() == text)
            .ok_or(UnknownWord)
    }
}

/// A stored word that is no state.
#[derive(Debug)]
struct UnknownWord;

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is no state of an operation")
    }
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT id, kind, owner, target, state, failure, stages, create_time, end_time FROM operations ",
            $tail
        )
    };
}

fn decode(row: &SqliteRow) -> Result<Operation, StoreError> {
    let columns = Columns::new(row, "operations", "id");
    let state = match (columns.parse("state")?, columns.json_optional("failure")?) {
        (Word::Running, None) => OperationState::Running,
        (Word::Succeeded, None) => OperationState::Succeeded,
        (Word::Failed, Some(failure)) => OperationState::Failed { failure },
        (Word::Failed, None) | (Word::Running | Word::Succeeded, Some(_)) => {
            return Err(columns.contradiction("failure"));
        }
    };
    Ok(Operation {
        id: columns.parse("id")?,
        kind: columns.parse("kind")?,
        owner: columns.parse("owner")?,
        target: columns.get("target")?,
        state,
        stages: columns.json("stages")?,
        create_time: columns.time("create_time")?,
        end_time: columns.time_optional("end_time")?,
    })
}

fn decode_all(rows: &[SqliteRow]) -> Result<Vec<Operation>, StoreError> {
    rows.iter().map(decode).collect()
}

fn failure_of(state: &OperationState) -> Result<Option<String>, StoreError> {
    match state {
        OperationState::Failed { failure } => json("failure", failure).map(Some),
        OperationState::Running | OperationState::Succeeded => Ok(None),
    }
}

impl Store {
    /// Records an operation and, with it, the request that began it.
    ///
    /// # Errors
    /// `IdTaken` when the id is used.
    pub async fn insert_operation(
        &self,
        operation: &Operation,
        request: Option<&RequestKey>,
    ) -> Result<InsertOperation, StoreError> {
        const DURING: &str = "insert the operation";
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        if let Some(key) = request
            && let Some(known) = request::find(&mut transaction, key).await?
        {
            return joined(&known);
        }
        insert_row(&mut transaction, operation).await?;
        if let Some(key) = request {
            let id = operation.id.to_string();
            request::insert(
                &mut transaction,
                key,
                Some(&id),
                None,
                operation.create_time,
            )
            .await?;
        }
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(InsertOperation::Inserted)
    }

    /// What the same call, made before, began: `None` where it is the first.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn begun_by(
        &self,
        request: &RequestKey,
    ) -> Result<Option<InsertOperation>, StoreError> {
        const DURING: &str = "find the request";
        let mut reader = self.reader().acquire().await.map_err(failed(DURING))?;
        let known = request::find(&mut reader, request).await?;
        known.as_ref().map(joined).transpose()
    }

    /// Sets target, state, stages and end time of an operation that has not ended. One that ends has an
    /// end time, one that runs has none.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn update_operation(
        &self,
        operation: &Operation,
    ) -> Result<OperationOutcome, StoreError> {
        const DURING: &str = "update the operation";
        let id = operation.id.to_string();
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        let done = sqlx::query(
            "UPDATE operations SET target = ?, state = ?, failure = ?, stages = ?, end_time = ? \
             WHERE id = ? AND state = 'running'",
        )
        .bind(&operation.target)
        .bind(Word::of(&operation.state).as_str())
        .bind(failure_of(&operation.state)?)
        .bind(json("stages", &operation.stages)?)
        .bind(nanoseconds_optional("end_time", operation.end_time)?)
        .bind(&id)
        .execute(&mut *transaction)
        .await
        .map_err(failed(DURING))?;
        if done.rows_affected() == 1 {
            transaction.commit().await.map_err(failed(DURING))?;
            return Ok(OperationOutcome::Updated);
        }
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM operations WHERE id = ?)")
                .bind(&id)
                .fetch_one(&mut *transaction)
                .await
                .map_err(failed(DURING))?;
        Ok(if exists {
            OperationOutcome::Final
        } else {
            OperationOutcome::Missing
        })
    }

    /// The operation with this id.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn get_operation(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        let row = sqlx::query(select!("WHERE id = ?"))
            .bind(id.to_string())
            .fetch_optional(self.reader())
            .await
            .map_err(failed("read the operation"))?;
        row.as_ref().map(decode).transpose()
    }

    /// A page of operations, of one owner or of all, newest first.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn list_operations(
        &self,
        page: Page,
        owner: Option<&Owner>,
    ) -> Result<Vec<Operation>, StoreError> {
        let rows = sqlx::query(select!(
            "WHERE (?1 IS NULL OR id < ?1) AND (?3 IS NULL OR owner = ?3) ORDER BY id DESC LIMIT ?2"
        ))
        .bind(page.before)
        .bind(page.limit)
        .bind(owner.map(Owner::as_str))
        .fetch_all(self.reader())
        .await
        .map_err(failed("list the operations"))?;
        decode_all(&rows)
    }

    /// Every operation that has not ended, oldest first.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn running_operations(&self) -> Result<Vec<Operation>, StoreError> {
        let rows = sqlx::query(select!("WHERE state = 'running' ORDER BY id"))
            .fetch_all(self.reader())
            .await
            .map_err(failed("list the operations"))?;
        decode_all(&rows)
    }

    /// Forgets ended operations, with their request ids, all but those that `keep` says. Running ones stay. Says how many
    /// went.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn prune_operations(&self, keep: Keep) -> Result<u64, StoreError> {
        const DURING: &str = "prune the operations";
        let since = nanoseconds("end_time", keep.since)?;
        let repeats_since = nanoseconds("end_time", keep.repeats_since)?;
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        let done = sqlx::query(
            "DELETE FROM operations WHERE id IN (SELECT id FROM \
             (SELECT id, end_time, row_number() OVER (PARTITION BY owner ORDER BY id DESC) AS rank \
             FROM operations WHERE state <> 'running') AS ended \
             WHERE end_time < ?1 OR rank > ?4 OR rank > ?2 AND (end_time < ?3 \
             OR NOT EXISTS (SELECT 1 FROM requests WHERE operation_id = ended.id)))",
        )
        .bind(since)
        .bind(keep.at_most)
        .bind(repeats_since)
        .bind(keep.repeats_at_most)
        .execute(&mut *transaction)
        .await
        .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(done.rows_affected())
    }
}

fn joined(known: &Known) -> Result<InsertOperation, StoreError> {
    match known {
        Known::Operation(id) => {
            id.parse()
                .map(InsertOperation::Joined)
                .map_err(|error| StoreError::Corrupt {
                    table: "requests",
                    column: "operation_id",
                    id: id.clone(),
                    detail: error.to_string(),
                })
        }
        Known::Answer(_) | Known::Other => Ok(InsertOperation::Conflict),
    }
}

async fn insert_row(
    connection: &mut SqliteConnection,
    operation: &Operation,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO operations (id, kind, owner, target, state, failure, stages, create_time, end_time) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(operation.id.to_string())
    .bind(operation.kind.as_str())
    .bind(operation.owner.as_str())
    .bind(&operation.target)
    .bind(Word::of(&operation.state).as_str())
    .bind(failure_of(&operation.state)?)
    .bind(json("stages", &operation.stages)?)
    .bind(nanoseconds("create_time", operation.create_time)?)
    .bind(nanoseconds_optional("end_time", operation.end_time)?)
    .execute(connection)
    .await
    .map_err(|source| {
        if is_unique_violation(&source, "operations.id") {
            StoreError::IdTaken {
                resource: "operation",
                id: operation.id.to_string(),
            }
        } else {
            failed("insert the operation")(source)
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_text() {
        for word in Word::ALL {
            assert_eq!(word.as_str().parse::<Word>().unwrap(), word);
        }
    }
}
