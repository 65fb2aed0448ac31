//! What was carried into VMs: rows of `workspaces`.

use banger_core::{Timestamp, VmId};
use sqlx::sqlite::SqliteRow;

use crate::error::{failed, is_foreign_key_violation};
use crate::row::{Columns, nanoseconds};
use crate::store::Durability;
use crate::{Store, StoreError};

/// Workspaces of a VM that are remembered; of more, the oldest are forgotten.
pub const WORKSPACES_MAX: i64 = 64;

/// A workspace that was carried into a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Which VM.
    pub vm: VmId,
    /// Where it is, as the VM says: an absolute path.
    pub path: Vec<u8>,
    /// Where it was to be, as its caller said.
    pub asked_path: Vec<u8>,
    /// As whom it was made, as its caller said; may be empty.
    pub user: String,
    /// The commits that its caller has, as they are kept.
    pub base: Vec<u8>,
    /// It has a git repository.
    pub has_git: bool,
    /// Digest of the state in which it was made, 32 bytes.
    pub state: Vec<u8>,
    /// The call that made it; may be empty.
    pub request_id: String,
    /// When it was made.
    pub create_time: Timestamp,
}

fn decode(row: &SqliteRow) -> Result<Workspace, StoreError> {
    let columns = Columns::new(row, "workspaces", "vm_id");
    Ok(Workspace {
        vm: columns.parse("vm_id")?,
        path: columns.get("path")?,
        asked_path: columns.get("asked_path")?,
        user: columns.get("user")?,
        base: columns.get("base")?,
        has_git: columns.get("has_git")?,
        state: columns.get("state")?,
        request_id: columns.get("request_id")?,
        create_time: columns.time("create_time")?,
    })
}

impl Store {
    /// Remembers a workspace, instead of what was remembered of its place. False where the VM is gone.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn put_workspace(&self, workspace: &Workspace) -> Result<bool, StoreError> {
        const DURING: &str = "remember the workspace";
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let vm = workspace.vm.to_string();
        let put = sqlx::query(
            "INSERT INTO workspaces (vm_id, path, asked_path, user, base, has_git, state, request_id, create_time) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (vm_id, path) DO UPDATE SET asked_path = \
             excluded.asked_path, user = excluded.user, base = excluded.base, has_git = excluded.has_git, \
             state = excluded.state, request_id = excluded.request_id, create_time = excluded.create_time",
        )
        .bind(&vm)
        .bind(&workspace.path)
        .bind(&workspace.asked_path)
        .bind(&workspace.user)
        .bind(&workspace.base)
        .bind(workspace.has_git)
        .bind(&workspace.state)
        .bind(&workspace.request_id)
        .bind(nanoseconds("create_time", workspace.create_time)?)
        .execute(&mut *transaction)
        .await;
        match put {
            Ok(_) => {}
            Err(error) if is_foreign_key_violation(&error) => return Ok(false),
            Err(error) => return Err(failed(DURING)(error)),
        }
        sqlx::query(
            "DELETE FROM workspaces WHERE vm_id = ?1 AND path NOT IN (SELECT path FROM workspaces WHERE vm_id = ?1 \
             ORDER BY create_time DESC, path LIMIT ?2)",
        )
        .bind(&vm)
        .bind(WORKSPACES_MAX)
        .execute(&mut *transaction)
        .await
        .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(true)
    }

    /// What was carried to a path of a VM last, by whichever of its names.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn find_workspace(
        &self,
        vm: VmId,
        path: &[u8],
    ) -> Result<Option<Workspace>, StoreError> {
        let row = sqlx::query(
            "SELECT vm_id, path, asked_path, user, base, has_git, state, request_id, create_time FROM workspaces \
             WHERE vm_id = ?1 AND (path = ?2 OR asked_path = ?2) ORDER BY create_time DESC LIMIT 1",
        )
        .bind(vm.to_string())
        .bind(path)
        .fetch_optional(self.reader())
        .await
        .map_err(failed("find the workspace"))?;
        row.as_ref().map(decode).transpose()
    }
}
