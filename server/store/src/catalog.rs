//! Catalogs: rows of `catalogs`.

use banger_core::catalog::Catalog;
use banger_core::{Failure, Name};
use sqlx::sqlite::SqliteRow;

use crate::error::{failed, is_unique_violation};
use crate::row::{Columns, integer, json, nanoseconds};
use crate::store::Durability;
use crate::{Store, StoreError};

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT name, url, public_key, version, payload, expire_time, create_time, refresh_time, \
             refresh_error FROM catalogs ",
            $tail
        )
    };
}

/// What became of a new index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogOutcome {
    /// It is kept.
    Kept,
    /// There is no such catalog, or not the same any more, or it has a newer index already.
    Overtaken,
}

fn decode(row: &SqliteRow) -> Result<Catalog, StoreError> {
    let columns = Columns::new(row, "catalogs", "name");
    Ok(Catalog {
        name: columns.parse("name")?,
        url: columns.get("url")?,
        public_key: columns.get("public_key")?,
        version: columns.unsigned("version")?,
        payload: columns.get("payload")?,
        expire_time: columns.time("expire_time")?,
        create_time: columns.time("create_time")?,
        refresh_time: columns.time("refresh_time")?,
        refresh_error: columns.json_optional("refresh_error")?,
    })
}

impl Store {
    /// Adds a catalog. Safe from a crash of the host when it returns: the version it was seen with must not be
    /// forgotten.
    ///
    /// # Errors
    /// `NameTaken` while another catalog has the name.
    pub async fn insert_catalog(&self, catalog: &Catalog) -> Result<(), StoreError> {
        const DURING: &str = "insert the catalog";
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let refresh_error = catalog.refresh_error.as_ref();
        let done = sqlx::query(
            "INSERT INTO catalogs (name, url, public_key, version, payload, expire_time, create_time, \
             refresh_time, refresh_error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(catalog.name.as_str())
        .bind(&catalog.url)
        .bind(&catalog.public_key)
        .bind(integer("version", catalog.version)?)
        .bind(&catalog.payload)
        .bind(nanoseconds("expire_time", catalog.expire_time)?)
        .bind(nanoseconds("create_time", catalog.create_time)?)
        .bind(nanoseconds("refresh_time", catalog.refresh_time)?)
        .bind(refresh_error.map(|error| json("refresh_error", error)).transpose()?)
        .execute(&mut *transaction)
        .await;
        done.map_err(|error| match is_unique_violation(&error, "catalogs.name") {
            true => StoreError::NameTaken {
                resource: "catalog",
                name: catalog.name.clone(),
            },
            false => failed(DURING)(error),
        })?;
        transaction.commit().await.map_err(failed(DURING))
    }

    /// Keeps a newer index of a catalog that has the same address and key as `catalog`, and never an older one. Safe
    /// from a crash of the host when it returns.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn keep_index(&self, catalog: &Catalog) -> Result<CatalogOutcome, StoreError> {
        const DURING: &str = "keep the catalog's index";
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let version = integer("version", catalog.version)?;
        let done = sqlx::query(
            "UPDATE catalogs SET version = ?, payload = ?, expire_time = ?, refresh_time = ?, refresh_error = NULL \
             WHERE name = ? AND url = ? AND public_key = ? AND (version < ? OR (version = ? AND payload = ?))",
        )
        .bind(version)
        .bind(&catalog.payload)
        .bind(nanoseconds("expire_time", catalog.expire_time)?)
        .bind(nanoseconds("refresh_time", catalog.refresh_time)?)
        .bind(catalog.name.as_str())
        .bind(&catalog.url)
        .bind(&catalog.public_key)
        .bind(version)
        .bind(version)
        .bind(&catalog.payload)
        .execute(&mut *transaction)
        .await
        .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(match done.rows_affected() {
            0 => CatalogOutcome::Overtaken,
            _ => CatalogOutcome::Kept,
        })
    }

    /// Remembers why a catalog could not be refreshed; its index stays.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn set_refresh_error(&self, name: &Name, error: &Failure) -> Result<(), StoreError> {
        const DURING: &str = "remember the catalog's failure";
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        sqlx::query("UPDATE catalogs SET refresh_error = ? WHERE name = ?")
            .bind(json("refresh_error", error)?)
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))
    }

    /// The catalog with this name.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn find_catalog(&self, name: &Name) -> Result<Option<Catalog>, StoreError> {
        let row = sqlx::query(select!("WHERE name = ?"))
            .bind(name.as_str())
            .fetch_optional(self.reader())
            .await
            .map_err(failed("read the catalog"))?;
        row.as_ref().map(decode).transpose()
    }

    /// The names of all catalogs, in the order in which they were added. Their indexes may be large: read them one at
    /// a time.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn catalog_names(&self) -> Result<Vec<Name>, StoreError> {
        let rows = sqlx::query("SELECT name FROM catalogs ORDER BY create_time, name")
            .fetch_all(self.reader())
            .await
            .map_err(failed("list the catalogs"))?;
        let name = |row| Columns::new(row, "catalogs", "name").parse("name");
        rows.iter().map(name).collect()
    }

    /// Forgets a catalog. Returns whether it was there.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn delete_catalog(&self, name: &Name) -> Result<bool, StoreError> {
        const DURING: &str = "delete the catalog";
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let done = sqlx::query("DELETE FROM catalogs WHERE name = ?")
            .bind(name.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(done.rows_affected() > 0)
    }
}
