//! Request ids: what each stands for, so that a repeated call is recognised. Rows of `requests`.

use banger_core::{Digest, Owner, Timestamp};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::error::failed;
use crate::row::{Columns, nanoseconds};
use crate::store::Durability;
use crate::{Store, StoreError};

/// What identifies a mutating call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The caller's `request_id`, a UUID as text, at most 64 bytes.
    pub id: String,
    /// Who calls: the ids of one caller say nothing of another's.
    pub owner: Owner,
    /// The full name of the method.
    pub method: String,
    /// Of the request's body, so that a reused id with another body is noticed.
    pub body_digest: Digest,
}

impl RequestKey {
    /// The same call, made by `owner`.
    #[must_use]
    pub fn of(&self, owner: &Owner) -> Self {
        Self {
            owner: owner.clone(),
            ..self.clone()
        }
    }

    /// What the row is found by: as long as an id may be, whoever's it is.
    fn stored(&self) -> String {
        match self.owner == Owner::daemon() {
            true => self.id.clone(),
            false => Digest::of(format!("{}\0{}", self.owner, self.id).as_bytes()).hex(),
        }
    }
}

/// What is known of an earlier call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// There was none.
    None,
    /// It got this answer.
    Stored(Vec<u8>),
    /// The id was used for another call.
    Conflict,
}

/// How many of each owner's answers are kept: the newest, as many as this and no more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerBounds {
    /// How many,
    pub count_max: u32,
    /// and of how many bytes together, whatever their number.
    pub bytes_max: u64,
}

impl AnswerBounds {
    /// More calls than a caller makes while it asks for the answer to one of them again; some of their answers have a
    /// whole VM in them, with its environment.
    pub const KEPT: Self = Self {
        count_max: 20_000,
        bytes_max: 64 << 20,
    };
}

/// What a request id stands for.
pub(crate) enum Known {
    Operation(String),
    Answer(Vec<u8>),
    Other,
}

fn decode(row: &SqliteRow, key: &RequestKey) -> Result<Known, StoreError> {
    let columns = Columns::new(row, "requests", "id");
    let method: &str = columns.get("method")?;
    let body_digest: &str = columns.get("body_digest")?;
    if method != key.method || body_digest != key.body_digest.to_string() {
        return Ok(Known::Other);
    }
    let operation: Option<String> = columns.get("operation_id")?;
    let answer: Option<Vec<u8>> = columns.get("answer")?;
    match (operation, answer) {
        (Some(operation), None) => Ok(Known::Operation(operation)),
        (None, Some(answer)) => Ok(Known::Answer(answer)),
        (None, None) | (Some(_), Some(_)) => Err(columns.contradiction("answer")),
    }
}

const FIND: &str =
    "SELECT id, method, body_digest, operation_id, answer FROM requests WHERE id = ?";

/// What `key` stands for, within a transaction.
pub(crate) async fn find(
    connection: &mut SqliteConnection,
    key: &RequestKey,
) -> Result<Option<Known>, StoreError> {
    let row = sqlx::query(FIND)
        .bind(key.stored())
        .fetch_optional(connection)
        .await
        .map_err(failed("find the request"))?;
    row.map(|row| decode(&row, key)).transpose()
}

/// Records what `key` stands for, within a transaction; false where the id stands for something already.
pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    key: &RequestKey,
    operation_id: Option<&str>,
    answer: Option<&[u8]>,
    create_time: Timestamp,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO requests (id, owner, method, body_digest, operation_id, answer, create_time) \
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
    )
    .bind(key.stored())
    .bind(key.owner.as_str())
    .bind(&key.method)
    .bind(key.body_digest.to_string())
    .bind(operation_id)
    .bind(answer)
    .bind(nanoseconds("create_time", create_time)?)
    .execute(connection)
    .await
    .map_err(failed("record the request"))?;
    Ok(done.rows_affected() == 1)
}

/// Whether an owner has more answers than it may. The newest is kept however long it is.
async fn is_beyond(
    connection: &mut SqliteConnection,
    owner: &Owner,
    bounds: AnswerBounds,
) -> Result<bool, StoreError> {
    let bytes_max = i64::try_from(bounds.bytes_max).unwrap_or(i64::MAX);
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM answers WHERE owner = ? AND count > 1 AND (count > ? OR bytes > ?))",
    )
    .bind(owner.as_str())
    .bind(bounds.count_max)
    .bind(bytes_max)
    .fetch_one(connection)
    .await
    .map_err(failed("count the answers"))
}

async fn forget_oldest(connection: &mut SqliteConnection, owner: &Owner) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM requests WHERE rowid = (SELECT rowid FROM requests \
         WHERE owner = ? AND answer IS NOT NULL ORDER BY create_time, rowid LIMIT 1)",
    )
    .bind(owner.as_str())
    .execute(connection)
    .await
    .map_err(failed("forget an old answer"))?;
    Ok(())
}

impl Store {
    /// The answer that an earlier call with this key got.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn get_answer(&self, key: &RequestKey) -> Result<Answer, StoreError> {
        let row = sqlx::query(FIND)
            .bind(key.stored())
            .fetch_optional(self.reader())
            .await
            .map_err(failed("find the request"))?;
        Ok(match row.map(|row| decode(&row, key)).transpose()? {
            None => Answer::None,
            Some(Known::Answer(answer)) => Answer::Stored(answer),
            Some(Known::Operation(_) | Known::Other) => Answer::Conflict,
        })
    }

    /// Keeps the answer to a call, in place of its owner's oldest where that has too many. The first answer to an id
    /// stays: false where there was one.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn put_answer(&self, key: &RequestKey, answer: &[u8]) -> Result<bool, StoreError> {
        self.put_answer_within(key, answer, AnswerBounds::KEPT)
            .await
    }

    /// As [`Store::put_answer`], with other bounds.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn put_answer_within(
        &self,
        key: &RequestKey,
        answer: &[u8],
        bounds: AnswerBounds,
    ) -> Result<bool, StoreError> {
        const DURING: &str = "record the answer";
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        let inserted = insert(&mut transaction, key, None, Some(answer), Timestamp::now()).await?;
        while inserted && is_beyond(&mut transaction, &key.owner, bounds).await? {
            forget_oldest(&mut transaction, &key.owner).await?;
        }
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(inserted)
    }

    /// Forgets the answer to a call that came to nothing, so that it can be made again.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn delete_answer(&self, key: &RequestKey) -> Result<(), StoreError> {
        const DURING: &str = "forget the answer";
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        sqlx::query("DELETE FROM requests WHERE answer IS NOT NULL AND id = ?")
            .bind(key.stored())
            .execute(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(())
    }

    /// Forgets the answers given before `before`; says how many.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn prune_answers(&self, before: Timestamp) -> Result<u64, StoreError> {
        const DURING: &str = "prune the answers";
        let before = nanoseconds("create_time", before)?;
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        let done = sqlx::query("DELETE FROM requests WHERE answer IS NOT NULL AND create_time < ?")
            .bind(before)
            .execute(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(done.rows_affected())
    }
}
