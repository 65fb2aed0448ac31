//! Kernels: rows of `kernels`, of which at most one is the default.

use banger_core::kernel::Kernel;
use banger_core::{KernelId, Name};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::error::{failed, is_unique_violation};
use crate::row::{Columns, integer, json, nanoseconds};
use crate::store::{DeleteOutcome, Durability, users};
use crate::{Page, Store, StoreError};

/// What became of a replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplaceOutcome {
    /// The old kernel is gone; this is the new one as it is kept.
    Replaced(Box<Kernel>),
    /// There is no such old kernel; nothing was changed.
    Missing,
    /// VMs need the old kernel; nothing was changed. Some of them, by name, at most 16.
    UsedBy(Vec<Name>),
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT id, name, release, digest, size_bytes, modules, origin, is_default, inspection, \
             create_time FROM kernels ",
            $tail
        )
    };
}

const USERS: &str = "SELECT id, name FROM vms WHERE kernel_id = ? ORDER BY name LIMIT ?";

fn decode(row: &SqliteRow) -> Result<Kernel, StoreError> {
    let columns = Columns::new(row, "kernels", "id");
    Ok(Kernel {
        id: columns.parse("id")?,
        name: columns.parse("name")?,
        release: columns.get("release")?,
        digest: columns.parse("digest")?,
        size_bytes: columns.unsigned("size_bytes")?,
        modules: columns.json("modules")?,
        origin: columns.get("origin")?,
        is_default: columns.get("is_default")?,
        inspection: columns.json("inspection")?,
        create_time: columns.time("create_time")?,
    })
}

fn decode_all(rows: &[SqliteRow]) -> Result<Vec<Kernel>, StoreError> {
    rows.iter().map(decode).collect()
}

impl Store {
    /// Adds a kernel and returns it as it is kept. It becomes the default where `make_default` says so or
    /// where it is the only one; `kernel.is_default` is not looked at. Safe from a crash of the host when
    /// it returns.
    ///
    /// # Errors
    /// `NameTaken` while another kernel has the name.
    pub async fn insert_kernel(
        &self,
        kernel: &Kernel,
        make_default: bool,
    ) -> Result<Kernel, StoreError> {
        const DURING: &str = "insert the kernel";
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let kernel = insert_row(&mut transaction, kernel, make_default).await?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(kernel)
    }

    /// Puts `new` in the place of `old`, whose name it may take, and which it follows as the default. Safe
    /// from a crash of the host when it returns.
    ///
    /// # Errors
    /// `NameTaken` while a third kernel has the name.
    pub async fn replace_kernel(
        &self,
        old: KernelId,
        new: &Kernel,
        make_default: bool,
    ) -> Result<ReplaceOutcome, StoreError> {
        const DURING: &str = "replace the kernel";
        let old = old.to_string();
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let users = users(&mut transaction, USERS, &old).await?;
        if !users.is_empty() {
            return Ok(ReplaceOutcome::UsedBy(users));
        }
        let was_default: Option<bool> =
            sqlx::query_scalar("DELETE FROM kernels WHERE id = ? RETURNING is_default")
                .bind(&old)
                .fetch_optional(&mut *transaction)
                .await
                .map_err(failed(DURING))?;
        let Some(was_default) = was_default else {
            return Ok(ReplaceOutcome::Missing);
        };
        let kernel = insert_row(&mut transaction, new, make_default || was_default).await?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(ReplaceOutcome::Replaced(Box::new(kernel)))
    }

    /// The kernel with this id.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn get_kernel(&self, id: KernelId) -> Result<Option<Kernel>, StoreError> {
        let row = sqlx::query(select!("WHERE id = ?"))
            .bind(id.to_string())
            .fetch_optional(self.reader())
            .await
            .map_err(failed("read the kernel"))?;
        row.as_ref().map(decode).transpose()
    }

    /// The kernel with this name.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn find_kernel(&self, name: &Name) -> Result<Option<Kernel>, StoreError> {
        let row = sqlx::query(select!("WHERE name = ?"))
            .bind(name.as_str())
            .fetch_optional(self.reader())
            .await
            .map_err(failed("find the kernel"))?;
        row.as_ref().map(decode).transpose()
    }

    /// The kernel that VMs get for which neither caller nor image names one.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn default_kernel(&self) -> Result<Option<Kernel>, StoreError> {
        let row = sqlx::query(select!("WHERE is_default = 1"))
            .fetch_optional(self.reader())
            .await
            .map_err(failed("find the default kernel"))?;
        row.as_ref().map(decode).transpose()
    }

    /// A page of kernels, newest first.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn list_kernels(&self, page: Page) -> Result<Vec<Kernel>, StoreError> {
        let rows = sqlx::query(select!(
            "WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2"
        ))
        .bind(page.before)
        .bind(page.limit)
        .fetch_all(self.reader())
        .await
        .map_err(failed("list the kernels"))?;
        decode_all(&rows)
    }

    /// Every kernel, oldest first.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn all_kernels(&self) -> Result<Vec<Kernel>, StoreError> {
        let rows = sqlx::query(select!("ORDER BY id"))
            .fetch_all(self.reader())
            .await
            .map_err(failed("list the kernels"))?;
        decode_all(&rows)
    }

    /// Removes a kernel, unless VMs need it. Where it was the default, none is afterwards. Safe from a
    /// crash of the host when it returns.
    ///
    /// **Remove its files afterwards**: a file without a row is swept, a row without its file is a lie.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn delete_kernel(&self, id: KernelId) -> Result<DeleteOutcome, StoreError> {
        self.delete_where(id, "DELETE FROM kernels WHERE id = ?")
            .await
    }

    /// As [`Store::delete_kernel`], but a kernel whose name an image has stays, as if it were `Missing`.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn delete_kernel_unless_named(
        &self,
        id: KernelId,
    ) -> Result<DeleteOutcome, StoreError> {
        let unnamed = "DELETE FROM kernels WHERE id = ? \
                       AND NOT EXISTS (SELECT 1 FROM images WHERE images.kernel = kernels.name)";
        self.delete_where(id, unnamed).await
    }

    async fn delete_where(
        &self,
        id: KernelId,
        statement: &'static str,
    ) -> Result<DeleteOutcome, StoreError> {
        const DURING: &str = "delete the kernel";
        let id = id.to_string();
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let users = users(&mut transaction, USERS, &id).await?;
        if !users.is_empty() {
            return Ok(DeleteOutcome::UsedBy(users));
        }
        let done = sqlx::query(statement)
            .bind(&id)
            .execute(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(match done.rows_affected() {
            0 => DeleteOutcome::Missing,
            _ => DeleteOutcome::Deleted,
        })
    }
}

async fn insert_row(
    connection: &mut SqliteConnection,
    kernel: &Kernel,
    make_default: bool,
) -> Result<Kernel, StoreError> {
    const DURING: &str = "insert the kernel";
    let is_default = make_default || is_empty(connection).await?;
    if is_default {
        sqlx::query("UPDATE kernels SET is_default = 0 WHERE is_default = 1")
            .execute(&mut *connection)
            .await
            .map_err(failed(DURING))?;
    }
    let row = sqlx::query(
        "INSERT INTO kernels (id, name, release, digest, size_bytes, modules, origin, is_default, inspection, \
         create_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
    )
    .bind(kernel.id.to_string())
    .bind(kernel.name.as_str())
    .bind(&kernel.release)
    .bind(kernel.digest.to_string())
    .bind(integer("size_bytes", kernel.size_bytes)?)
    .bind(json("modules", &kernel.modules)?)
    .bind(&kernel.origin)
    .bind(is_default)
    .bind(json("inspection", &kernel.inspection)?)
    .bind(nanoseconds("create_time", kernel.create_time)?)
    .fetch_one(connection)
    .await
    .map_err(|source| refused(kernel, source, DURING))?;
    decode(&row)
}

fn refused(kernel: &Kernel, source: sqlx::Error, during: &'static str) -> StoreError {
    if is_unique_violation(&source, "kernels.name") {
        StoreError::NameTaken {
            resource: "kernel",
            name: kernel.name.clone(),
        }
    } else if is_unique_violation(&source, "kernels.id") {
        StoreError::IdTaken {
            resource: "kernel",
            id: kernel.id.to_string(),
        }
    } else {
        failed(during)(source)
    }
}

async fn is_empty(connection: &mut SqliteConnection) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT NOT EXISTS (SELECT 1 FROM kernels)")
        .fetch_one(connection)
        .await
        .map_err(failed("count the kernels"))
}
