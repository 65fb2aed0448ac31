//! The audit log: rows of `audit`.

use std::time::Duration;

use banger_core::Timestamp;
use banger_core::audit::{AuditFilter, AuditRecord};
use sqlx::sqlite::SqliteRow;

use crate::error::failed;
use crate::row::{Columns, nanoseconds, nanoseconds_optional};
use crate::store::Durability;
use crate::{Store, StoreError};

/// Forgets what is beyond so many records: each is ranked among those of its owner, method and kind of end, newest
/// first, and those of the lowest ranks stay.
const MANY: &str = "DELETE FROM audit WHERE sequence IN (SELECT sequence FROM (SELECT sequence, row_number() OVER \
                    (PARTITION BY owner, method, code <> 0 ORDER BY sequence DESC) AS rank FROM audit) \
                    ORDER BY rank, sequence DESC LIMIT -1 OFFSET ?)";

fn decode(row: &SqliteRow) -> Result<AuditRecord, StoreError> {
    // Rows have a number where others have an id: it is told as text where a row is broken.
    let columns = Columns::new(row, "audit", "row_id");
    let natural = |name| -> Result<u64, StoreError> {
        let number: i64 = columns.get(name)?;
        Ok(u64::try_from(number).unwrap_or(0))
    };
    let code: i64 = columns.get("code")?;
    Ok(AuditRecord {
        sequence: natural("sequence")?,
        time: columns.time("time")?,
        duration: Duration::from_nanos(natural("duration")?),
        owner: columns.parse("owner")?,
        role: columns.parse("role")?,
        via: columns.get("via")?,
        method: columns.get("method")?,
        object: columns.get("object")?,
        request_id: columns.get("request_id")?,
        code: i32::try_from(code).unwrap_or(i32::MAX),
        reason: columns.get("reason")?,
        lost: natural("lost")?,
    })
}

fn whole(number: u128) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Store {
    /// Writes records, in their order, all or none. Their sequences are given here.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn insert_audit(&self, records: &[AuditRecord]) -> Result<(), StoreError> {
        const DURING: &str = "write the audit log";
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        for record in records {
            sqlx::query(
                "INSERT INTO audit (time, duration, owner, role, via, method, object, request_id, code, reason, lost) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(nanoseconds("time", record.time)?)
            .bind(whole(record.duration.as_nanos()))
            .bind(record.owner.as_str())
            .bind(record.role.as_str())
            .bind(&record.via)
            .bind(&record.method)
            .bind(&record.object)
            .bind(&record.request_id)
            .bind(record.code)
            .bind(&record.reason)
            .bind(whole(record.lost.into()))
            .execute(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        }
        transaction.commit().await.map_err(failed(DURING))
    }

    /// Up to `limit` records that `filter` wants, newest first, from before the one with the sequence `before`.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn list_audit(
        &self,
        limit: u32,
        before: Option<u64>,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT CAST(sequence AS TEXT) AS row_id, sequence, time, duration, owner, role, via, method, object, \
             request_id, code, reason, lost FROM audit WHERE (?1 IS NULL OR sequence < ?1) \
             AND (?2 IS NULL OR owner = ?2) AND (?3 IS NULL OR time >= ?3) AND (?4 IS NULL OR method = ?4) \
             AND (?5 = 0 OR code <> 0) ORDER BY sequence DESC LIMIT ?6",
        )
        .bind(before.map(|before| whole(before.into())))
        .bind(filter.owner.as_ref().map(banger_core::Owner::as_str))
        .bind(nanoseconds_optional("time", filter.since)?)
        .bind(filter.method.as_deref())
        .bind(filter.failed)
        .bind(limit)
        .fetch_all(self.reader())
        .await
        .map_err(failed("read the audit log"))?;
        rows.iter().map(decode).collect()
    }

    /// Up to `limit` records that `filter` wants, oldest first, from after the one with the sequence `after`.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn list_audit_after(
        &self,
        limit: u32,
        after: u64,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT CAST(sequence AS TEXT) AS row_id, sequence, time, duration, owner, role, via, method, object, \
             request_id, code, reason, lost FROM audit WHERE sequence > ?1 \
             AND (?2 IS NULL OR owner = ?2) AND (?3 IS NULL OR time >= ?3) AND (?4 IS NULL OR method = ?4) \
             AND (?5 = 0 OR code <> 0) ORDER BY sequence LIMIT ?6",
        )
        .bind(whole(after.into()))
        .bind(filter.owner.as_ref().map(banger_core::Owner::as_str))
        .bind(nanoseconds_optional("time", filter.since)?)
        .bind(filter.method.as_deref())
        .bind(filter.failed)
        .bind(limit)
        .fetch_all(self.reader())
        .await
        .map_err(failed("read the audit log"))?;
        rows.iter().map(decode).collect()
    }

    /// Forgets the records of calls that came before `before`, and of the others all but `keep_at_most`: the oldest of
    /// which there are most go first, where those of one owner, one method and one kind of end (well or not) are
    /// counted together. So nobody's calls make the log forget those of another, nor many of one kind the few of
    /// others. Says how many went.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn prune_audit(
        &self,
        before: Timestamp,
        keep_at_most: u32,
    ) -> Result<u64, StoreError> {
        const DURING: &str = "prune the audit log";
        let before = nanoseconds("time", before)?;
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        let aged = sqlx::query("DELETE FROM audit WHERE time < ?")
            .bind(before)
            .execute(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM audit")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        let mut gone = aged.rows_affected();
        // Ranking all costs more than counting, and is seldom needed.
        if count > i64::from(keep_at_most) {
            let many = sqlx::query(MANY)
                .bind(keep_at_most)
                .execute(&mut *transaction)
                .await
                .map_err(failed(DURING))?;
            gone += many.rows_affected();
        }
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(gone)
    }
}
