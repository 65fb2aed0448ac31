//! Which VM a session belongs to: rows of `sessions`. The session itself lives in the guest.

use banger_core::{SessionId, VmId};
use sqlx::Row;

use crate::error::{failed, is_foreign_key_violation};
use crate::row::Columns;
use crate::store::Durability;
use crate::{Store, StoreError};

impl Store {
    /// Records a session. Recording it again for the same VM changes nothing.
    ///
    /// # Errors
    /// `IdTaken` when the id is a session of another VM; `VmMissing` when the VM is gone.
    pub async fn insert_session(&self, id: SessionId, vm: VmId) -> Result<(), StoreError> {
        const DURING: &str = "insert the session";
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        // An update that changes nothing, so that RETURNING tells whose it is.
        let row = sqlx::query(
            "INSERT INTO sessions (id, vm_id) VALUES (?, ?) \
             ON CONFLICT (id) DO UPDATE SET id = excluded.id RETURNING vm_id",
        )
        .bind(id.to_string())
        .bind(vm.to_string())
        .fetch_one(&mut *transaction)
        .await
        .map_err(|source| {
            if is_foreign_key_violation(&source) {
                StoreError::VmMissing { id: vm }
            } else {
                failed(DURING)(source)
            }
        })?;
        let owner: String = row.try_get("vm_id").map_err(failed(DURING))?;
        if owner != vm.to_string() {
            return Err(StoreError::IdTaken {
                resource: "session",
                id: id.to_string(),
            });
        }
        transaction.commit().await.map_err(failed(DURING))
    }

    /// The VM of a session.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn find_session(&self, id: SessionId) -> Result<Option<VmId>, StoreError> {
        let row = sqlx::query("SELECT id, vm_id FROM sessions WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(self.reader())
            .await
            .map_err(failed("find the session"))?;
        row.map(|row| Columns::new(&row, "sessions", "id").parse("vm_id"))
            .transpose()
    }

    /// Forgets a session; false where there was none.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn delete_session(&self, id: SessionId) -> Result<bool, StoreError> {
        let gone = self
            .delete_sessions("DELETE FROM sessions WHERE id = ?", id.to_string())
            .await?;
        Ok(gone == 1)
    }

    /// Forgets all sessions of a VM; says how many there were.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn delete_sessions_of(&self, vm: VmId) -> Result<u64, StoreError> {
        self.delete_sessions("DELETE FROM sessions WHERE vm_id = ?", vm.to_string())
            .await
    }

    async fn delete_sessions(
        &self,
        statement: &'static str,
        id: String,
    ) -> Result<u64, StoreError> {
        const DURING: &str = "delete the session";
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        let done = sqlx::query(statement)
            .bind(id)
            .execute(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(done.rows_affected())
    }
}
