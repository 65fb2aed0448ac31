//! Volumes: rows of `volumes`, and of `vm_volumes`, which say what VMs name them.

use std::collections::BTreeMap;

use banger_core::volume::{Volume, VolumeUser};
use banger_core::{Name, Owner, VolumeId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::error::{failed, is_unique_violation};
use crate::row::{Columns, integer, json, nanoseconds};
use crate::store::{DeleteOutcome, Durability, users};
use crate::vm::CasOutcome;
use crate::{Page, Store, StoreError};

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT id, name, owner, labels, size_mib, seed, generation, create_time FROM volumes ",
            $tail
        )
    };
}

const USERS: &str = "SELECT id, name FROM vms JOIN vm_volumes ON vm_id = id WHERE volume_id = ? ORDER BY name LIMIT ?";

fn decode(row: &SqliteRow) -> Result<Volume, StoreError> {
    let columns = Columns::new(row, "volumes", "id");
    Ok(Volume {
        id: columns.parse("id")?,
        name: columns.parse("name")?,
        owner: columns.parse("owner")?,
        labels: columns.json("labels")?,
        size_mib: columns.unsigned("size_mib")?,
        seed: columns.parse_optional("seed")?,
        generation: columns.unsigned("generation")?,
        create_time: columns.time("create_time")?,
    })
}

fn decode_all(rows: &[SqliteRow]) -> Result<Vec<Volume>, StoreError> {
    rows.iter().map(decode).collect()
}

impl Store {
    /// Adds a volume whose files are there. Safe from a crash of the host when it returns.
    ///
    /// # Errors
    /// `NameTaken` while another volume has the name.
    pub async fn insert_volume(&self, volume: &Volume) -> Result<(), StoreError> {
        const DURING: &str = "insert the volume";
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        sqlx::query(
            "INSERT INTO volumes (id, name, owner, labels, size_mib, seed, generation, create_time) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(volume.id.to_string())
        .bind(volume.name.as_str())
        .bind(volume.owner.as_str())
        .bind(json("labels", &volume.labels)?)
        .bind(integer("size_mib", volume.size_mib)?)
        .bind(volume.seed.as_ref().map(Name::as_str))
        .bind(integer("generation", volume.generation)?)
        .bind(nanoseconds("create_time", volume.create_time)?)
        .execute(&mut *transaction)
        .await
        .map_err(|source| refused(volume, source, DURING))?;
        transaction.commit().await.map_err(failed(DURING))
    }

    /// Sets labels and size of a volume, if the stored generation is the one before `volume.generation`. Safe from
    /// a crash of the host when it returns.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn update_volume(&self, volume: &Volume) -> Result<CasOutcome, StoreError> {
        const DURING: &str = "update the volume";
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let id = volume.id.to_string();
        let done = sqlx::query(
            "UPDATE volumes SET labels = ?1, size_mib = ?2, generation = ?3 WHERE id = ?4 AND generation = ?3 - 1",
        )
        .bind(json("labels", &volume.labels)?)
        .bind(integer("size_mib", volume.size_mib)?)
        .bind(integer("generation", volume.generation)?)
        .bind(&id)
        .execute(&mut *transaction)
        .await
        .map_err(failed(DURING))?;
        let outcome = match done.rows_affected() {
            0 if exists(&mut transaction, &id, DURING).await? => CasOutcome::Stale,
            0 => CasOutcome::Missing,
            _ => CasOutcome::Updated,
        };
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(outcome)
    }

    /// The volume with this id.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn get_volume(&self, id: VolumeId) -> Result<Option<Volume>, StoreError> {
        let row = sqlx::query(select!("WHERE id = ?"))
            .bind(id.to_string())
            .fetch_optional(self.reader())
            .await
            .map_err(failed("read the volume"))?;
        row.as_ref().map(decode).transpose()
    }

    /// The volume with this name.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn find_volume(&self, name: &Name) -> Result<Option<Volume>, StoreError> {
        let row = sqlx::query(select!("WHERE name = ?"))
            .bind(name.as_str())
            .fetch_optional(self.reader())
            .await
            .map_err(failed("find the volume"))?;
        row.as_ref().map(decode).transpose()
    }

    /// A page of the volumes, of one owner or of all, that have all `labels`, newest first.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn list_volumes(
        &self,
        page: Page,
        owner: Option<&Owner>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<Volume>, StoreError> {
        let rows = sqlx::query(select!(
            "WHERE (?1 IS NULL OR id < ?1) AND (?4 IS NULL OR owner = ?4) AND NOT EXISTS (SELECT 1 FROM json_each(?3) AS wanted WHERE NOT EXISTS \
             (SELECT 1 FROM json_each(labels) AS given WHERE given.key = wanted.key AND given.value = wanted.value)) \
             ORDER BY id DESC LIMIT ?2"
        ))
        .bind(page.before)
        .bind(page.limit)
        .bind(json("labels", labels)?)
        .bind(owner.map(Owner::as_str))
        .fetch_all(self.reader())
        .await
        .map_err(failed("list the volumes"))?;
        decode_all(&rows)
    }

    /// Every volume, oldest first.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn all_volumes(&self) -> Result<Vec<Volume>, StoreError> {
        let rows = sqlx::query(select!("ORDER BY id"))
            .fetch_all(self.reader())
            .await
            .map_err(failed("list the volumes"))?;
        decode_all(&rows)
    }

    /// The VMs that name a volume, by name.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn volume_users(&self, id: VolumeId) -> Result<Vec<VolumeUser>, StoreError> {
        let rows = sqlx::query(
            "SELECT vm_id, name, read_only FROM vm_volumes JOIN vms ON id = vm_id WHERE volume_id = ? ORDER BY name",
        )
        .bind(id.to_string())
        .fetch_all(self.reader())
        .await
        .map_err(failed("find the VMs of the volume"))?;
        let user = |row| {
            let columns = Columns::new(row, "vm_volumes", "vm_id");
            Ok(VolumeUser {
                vm: columns.parse("vm_id")?,
                name: columns.parse("name")?,
                read_only: columns.get("read_only")?,
            })
        };
        rows.iter().map(user).collect()
    }

    /// Removes a volume, unless VMs name it. Safe from a crash of the host when it returns.
    ///
    /// **Remove its files afterwards**: a file without a row is swept, a row without its file is a lie.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn delete_volume(&self, id: VolumeId) -> Result<DeleteOutcome, StoreError> {
        const DURING: &str = "delete the volume";
        let id = id.to_string();
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let users = users(&mut transaction, USERS, &id).await?;
        if !users.is_empty() {
            return Ok(DeleteOutcome::UsedBy(users));
        }
        let done = sqlx::query("DELETE FROM volumes WHERE id = ?")
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

/// Writes which volumes a VM names, in the transaction that adds the VM.
pub(crate) async fn insert_mounts(
    connection: &mut SqliteConnection,
    vm: &banger_core::vm::Vm,
) -> Result<(), sqlx::Error> {
    for mount in &vm.spec.volumes {
        sqlx::query("INSERT INTO vm_volumes (vm_id, volume_id, read_only) VALUES (?, ?, ?)")
            .bind(vm.id.to_string())
            .bind(mount.volume.to_string())
            .bind(mount.read_only)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn exists(
    connection: &mut SqliteConnection,
    id: &str,
    during: &'static str,
) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM volumes WHERE id = ?)")
        .bind(id)
        .fetch_one(connection)
        .await
        .map_err(failed(during))
}

fn refused(volume: &Volume, source: sqlx::Error, during: &'static str) -> StoreError {
    if is_unique_violation(&source, "volumes.name") {
        StoreError::NameTaken {
            resource: "volume",
            name: volume.name.clone(),
        }
    } else if is_unique_violation(&source, "volumes.id") {
        StoreError::IdTaken {
            resource: "volume",
            id: volume.id.to_string(),
        }
    } else {
        failed(during)(source)
    }
}
