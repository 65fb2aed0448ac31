//! The journal of VMM processes: rows of `vm_processes`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use banger_core::VmId;
use banger_core::vmm::ProcessIdentity;

use crate::error::{failed, is_foreign_key_violation};
use crate::row::{Columns, integer};
use crate::store::Durability;
use crate::{Store, StoreError};

impl Store {
    /// Records the VMM process of a VM, in place of the one recorded before.
    ///
    /// **Call it before the guest runs.**
    ///
    /// # Errors
    /// `VmMissing` when the VM is gone.
    pub async fn put_process(
        &self,
        vm: VmId,
        identity: &ProcessIdentity,
    ) -> Result<(), StoreError> {
        const DURING: &str = "record the VMM process";
        let start_ticks = integer("start_ticks", identity.start_ticks)?;
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        sqlx::query(
            "INSERT INTO vm_processes (vm_id, pid, start_ticks, executable, host_boot_id) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (vm_id) DO UPDATE SET pid = excluded.pid, start_ticks = excluded.start_ticks, \
             executable = excluded.executable, host_boot_id = excluded.host_boot_id",
        )
        .bind(vm.to_string())
        .bind(identity.pid)
        .bind(start_ticks)
        .bind(identity.executable.as_os_str().as_bytes())
        .bind(&identity.host_boot_id)
        .execute(&mut *transaction)
        .await
        .map_err(|source| {
            if is_foreign_key_violation(&source) {
                StoreError::VmMissing { id: vm }
            } else {
                failed(DURING)(source)
            }
        })?;
        transaction.commit().await.map_err(failed(DURING))
    }

    /// The recorded VMM process of a VM.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn get_process(&self, vm: VmId) -> Result<Option<ProcessIdentity>, StoreError> {
        let row = sqlx::query(
            "SELECT vm_id, pid, start_ticks, executable, host_boot_id FROM vm_processes WHERE vm_id = ?",
        )
        .bind(vm.to_string())
        .fetch_optional(self.reader())
        .await
        .map_err(failed("read the VMM process"))?;
        let Some(row) = row else { return Ok(None) };
        let columns = Columns::new(&row, "vm_processes", "vm_id");
        Ok(Some(ProcessIdentity {
            pid: columns.unsigned("pid")?,
            start_ticks: columns.unsigned("start_ticks")?,
            executable: OsString::from_vec(columns.get("executable")?).into(),
            host_boot_id: columns.get("host_boot_id")?,
        }))
    }

    /// Forgets the VMM process of a VM; nothing happens where there is none.
    ///
    /// **Call it when the process is gone.**
    ///
    /// # Errors
    /// Of the database only.
    pub async fn erase_process(&self, vm: VmId) -> Result<(), StoreError> {
        const DURING: &str = "erase the VMM process";
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        sqlx::query("DELETE FROM vm_processes WHERE vm_id = ?")
            .bind(vm.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))
    }
}
