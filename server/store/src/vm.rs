//! VMs: rows of `vms`.

use banger_core::vm::{Phase, Vm, VmState};
use banger_core::{Name, VmId};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::error::{failed, is_foreign_key_violation, is_unique_violation};
use crate::row::{Columns, count, integer, json, nanoseconds, nanoseconds_optional};
use crate::store::Durability;
use crate::{Page, Store, StoreError, volume};

/// What became of a compare-and-set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CasOutcome {
    /// It is as given.
    Updated,
    /// Another change came first: read again.
    Stale,
    /// There is none.
    Missing,
}

/// How many VMs there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VmCounts {
    /// In any state.
    pub total: u64,
    /// Of them, in state RUNNING.
    pub running: u64,
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT id, name, owner, generation, phase, failure, spec, image_id, kernel_id, shape, \
             restart_count, boot_timing, last_stop, create_time, start_time, stop_time FROM vms ",
            $tail
        )
    };
}

/// A VM as columns.
struct Row {
    id: String,
    name: String,
    owner: String,
    generation: i64,
    phase: &'static str,
    failure: Option<String>,
    spec: String,
    image_id: Option<String>,
    kernel_id: Option<String>,
    shape: Option<String>,
    restart_count: i64,
    boot_timing: String,
    last_stop: Option<String>,
    create_time: i64,
    start_time: Option<i64>,
    stop_time: Option<i64>,
}

impl Row {
    fn of(vm: &Vm) -> Result<Self, StoreError> {
        let failure = match &vm.state {
            VmState::Failed(failure) => Some(json("failure", failure)?),
            _ => None,
        };
        let (shape, last_stop) = (vm.shape.as_ref(), vm.last_stop.as_ref());
        Ok(Self {
            id: vm.id.to_string(),
            name: vm.spec.name.to_string(),
            owner: vm.owner.to_string(),
            generation: integer("generation", vm.generation)?,
            phase: vm.state.phase().as_str(),
            failure,
            spec: json("spec", &vm.spec)?,
            image_id: vm.image.map(|id| id.to_string()),
            kernel_id: vm.kernel.map(|id| id.to_string()),
            shape: shape.map(|shape| json("shape", shape)).transpose()?,
            restart_count: i64::from(vm.restart_count),
            boot_timing: json("boot_timing", &vm.boot_timing)?,
            last_stop: last_stop.map(|stop| json("last_stop", stop)).transpose()?,
            create_time: nanoseconds("create_time", vm.create_time)?,
            start_time: nanoseconds_optional("start_time", vm.start_time)?,
            stop_time: nanoseconds_optional("stop_time", vm.stop_time)?,
        })
    }
}

fn decode(row: &SqliteRow) -> Result<Vm, StoreError> {
    let columns = Columns::new(row, "vms", "id");
    Ok(Vm {
        id: columns.parse("id")?,
        spec: columns.json("spec")?,
        owner: columns.parse("owner")?,
        image: columns.parse_optional("image_id")?,
        kernel: columns.parse_optional("kernel_id")?,
        state: decode_state(&columns)?,
        shape: columns.json_optional("shape")?,
        restart_count: columns.unsigned("restart_count")?,
        generation: columns.unsigned("generation")?,
        boot_timing: columns.json("boot_timing")?,
        last_stop: columns.json_optional("last_stop")?,
        create_time: columns.time("create_time")?,
        start_time: columns.time_optional("start_time")?,
        stop_time: columns.time_optional("stop_time")?,
        stuck: None,
    })
}

fn decode_state(columns: &Columns<'_>) -> Result<VmState, StoreError> {
    let failure = columns.json_optional("failure")?;
    match (columns.parse("phase")?, failure) {
        (Phase::Failed, Some(failure)) => Ok(VmState::Failed(Box::new(failure))),
        (Phase::Creating, None) => Ok(VmState::Creating),
        (Phase::Starting, None) => Ok(VmState::Starting),
        (Phase::Running, None) => Ok(VmState::Running),
        (Phase::Pausing, None) => Ok(VmState::Pausing),
        (Phase::Paused, None) => Ok(VmState::Paused),
        (Phase::Resuming, None) => Ok(VmState::Resuming),
        (Phase::Stopping, None) => Ok(VmState::Stopping),
        (Phase::Stopped, None) => Ok(VmState::Stopped),
        (Phase::Deleting, None) => Ok(VmState::Deleting),
        (Phase::Failed, None)
        | (
            Phase::Creating
            | Phase::Starting
            | Phase::Running
            | Phase::Pausing
            | Phase::Paused
            | Phase::Resuming
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Deleting,
            Some(_),
        ) => Err(columns.contradiction("failure")),
    }
}

fn decode_all(rows: &[SqliteRow]) -> Result<Vec<Vm>, StoreError> {
    rows.iter().map(decode).collect()
}

impl Store {
    /// Adds a VM. Safe from a crash of the host when it returns.
    ///
    /// # Errors
    /// `NameTaken` while another VM has the name, in whatever state; `PartMissing` when its image, its
    /// kernel or one of its volumes is gone.
    pub async fn insert_vm(&self, vm: &Vm) -> Result<(), StoreError> {
        const DURING: &str = "insert the VM";
        let row = Row::of(vm)?;
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let inserted = sqlx::query(
            "INSERT INTO vms (id, name, owner, generation, phase, failure, spec, image_id, kernel_id, shape, \
             restart_count, boot_timing, last_stop, create_time, start_time, stop_time) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&row.id)
        .bind(&row.name)
        .bind(&row.owner)
        .bind(row.generation)
        .bind(row.phase)
        .bind(&row.failure)
        .bind(&row.spec)
        .bind(&row.image_id)
        .bind(&row.kernel_id)
        .bind(&row.shape)
        .bind(row.restart_count)
        .bind(&row.boot_timing)
        .bind(&row.last_stop)
        .bind(row.create_time)
        .bind(row.start_time)
        .bind(row.stop_time)
        .execute(&mut *transaction)
        .await;
        let inserted = match inserted {
            Ok(_) => volume::insert_mounts(&mut transaction, vm).await,
            Err(source) => Err(source),
        };
        if let Err(source) = inserted {
            return Err(refused(&mut transaction, vm, source, DURING).await);
        }
        transaction.commit().await.map_err(failed(DURING))
    }

    /// Sets everything of a VM but its id, its owner and its `create_time`, if the stored generation is the one before
    /// `vm.generation`.
    ///
    /// # Errors
    /// As [`Store::insert_vm`].
    pub async fn update_vm(&self, vm: &Vm) -> Result<CasOutcome, StoreError> {
        self.update_vm_since(vm, vm.generation.saturating_sub(1))
            .await
    }

    /// As [`Store::update_vm`], if the stored generation is any from `known` to the one before `vm.generation`: for
    /// the one writer of a VM whose updates after `known` failed, of which each may or may not be stored.
    ///
    /// # Errors
    /// As [`Store::insert_vm`].
    pub async fn update_vm_since(&self, vm: &Vm, known: u64) -> Result<CasOutcome, StoreError> {
        const DURING: &str = "update the VM";
        let row = Row::of(vm)?;
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        let updated = sqlx::query(
            "UPDATE vms SET name = ?, generation = ?, phase = ?, failure = ?, spec = ?, image_id = ?, \
             kernel_id = ?, shape = ?, restart_count = ?, boot_timing = ?, last_stop = ?, start_time = ?, \
             stop_time = ? \
             WHERE id = ? AND generation >= ? AND generation < ?",
        )
        .bind(&row.name)
        .bind(row.generation)
        .bind(row.phase)
        .bind(&row.failure)
        .bind(&row.spec)
        .bind(&row.image_id)
        .bind(&row.kernel_id)
        .bind(&row.shape)
        .bind(row.restart_count)
        .bind(&row.boot_timing)
        .bind(&row.last_stop)
        .bind(row.start_time)
        .bind(row.stop_time)
        .bind(&row.id)
        .bind(integer("generation", known)?)
        .bind(row.generation)
        .execute(&mut *transaction)
        .await;
        let outcome = match updated {
            Ok(done) if done.rows_affected() == 1 => CasOutcome::Updated,
            Ok(_) => {
                if exists(&mut transaction, "vm", &row.id, DURING).await? {
                    CasOutcome::Stale
                } else {
                    CasOutcome::Missing
                }
            }
            Err(source) => return Err(refused(&mut transaction, vm, source, DURING).await),
        };
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(outcome)
    }

    /// The VM with this id.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn get_vm(&self, id: VmId) -> Result<Option<Vm>, StoreError> {
        let row = sqlx::query(select!("WHERE id = ?"))
            .bind(id.to_string())
            .fetch_optional(self.reader())
            .await
            .map_err(failed("read the VM"))?;
        row.as_ref().map(decode).transpose()
    }

    /// The VM with this name.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn find_vm(&self, name: &Name) -> Result<Option<Vm>, StoreError> {
        let row = sqlx::query(select!("WHERE name = ?"))
            .bind(name.as_str())
            .fetch_optional(self.reader())
            .await
            .map_err(failed("find the VM"))?;
        row.as_ref().map(decode).transpose()
    }

    /// A page of VMs, newest first.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn list_vms(&self, page: Page) -> Result<Vec<Vm>, StoreError> {
        let rows = sqlx::query(select!(
            "WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2"
        ))
        .bind(page.before)
        .bind(page.limit)
        .fetch_all(self.reader())
        .await
        .map_err(failed("list the VMs"))?;
        decode_all(&rows)
    }

    /// Every VM, oldest first.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn all_vms(&self) -> Result<Vec<Vm>, StoreError> {
        let rows = sqlx::query(select!("ORDER BY id"))
            .fetch_all(self.reader())
            .await
            .map_err(failed("list the VMs"))?;
        decode_all(&rows)
    }

    /// Removes a VM with its sessions and its process, and frees its name; false where there was none.
    ///
    /// **Call it last, when the VM's files and processes are gone.**
    ///
    /// # Errors
    /// Of the database only.
    pub async fn delete_vm(&self, id: VmId) -> Result<bool, StoreError> {
        const DURING: &str = "delete the VM";
        let mut transaction = self.begin(Durability::Soon, DURING).await?;
        let done = sqlx::query("DELETE FROM vms WHERE id = ?")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(done.rows_affected() == 1)
    }

    /// How many VMs there are.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn count_vms(&self) -> Result<VmCounts, StoreError> {
        let (total, running): (i64, i64) =
            sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE phase = 'running') FROM vms")
                .fetch_one(self.reader())
                .await
                .map_err(failed("count the VMs"))?;
        Ok(VmCounts {
            total: count(total),
            running: count(running),
        })
    }
}

/// Why SQLite refused a VM's row, in words of the domain.
async fn refused(
    connection: &mut SqliteConnection,
    vm: &Vm,
    source: sqlx::Error,
    during: &'static str,
) -> StoreError {
    if is_unique_violation(&source, "vms.name") {
        return StoreError::NameTaken {
            resource: "vm",
            name: vm.spec.name.clone(),
        };
    }
    if is_unique_violation(&source, "vms.id") {
        return StoreError::IdTaken {
            resource: "vm",
            id: vm.id.to_string(),
        };
    }
    if is_foreign_key_violation(&source) {
        let image = vm.image.map(|id| ("image", id.to_string()));
        let kernel = vm.kernel.map(|id| ("kernel", id.to_string()));
        let volumes = vm.spec.volumes.iter();
        let volumes = volumes.map(|mount| ("volume", mount.volume.to_string()));
        for (resource, id) in [image, kernel].into_iter().flatten().chain(volumes) {
            match exists(connection, resource, &id, during).await {
                Ok(true) => {}
                Ok(false) => return StoreError::PartMissing { resource, id },
                Err(error) => return error,
            }
        }
    }
    failed(during)(source)
}

/// Whether the table of this resource has a row with this id.
async fn exists(
    connection: &mut SqliteConnection,
    resource: &'static str,
    id: &str,
    during: &'static str,
) -> Result<bool, StoreError> {
    let statement = match resource {
        "image" => "SELECT EXISTS (SELECT 1 FROM images WHERE id = ?)",
        "kernel" => "SELECT EXISTS (SELECT 1 FROM kernels WHERE id = ?)",
        "volume" => "SELECT EXISTS (SELECT 1 FROM volumes WHERE id = ?)",
        _ => "SELECT EXISTS (SELECT 1 FROM vms WHERE id = ?)",
    };
    sqlx::query_scalar(statement)
        .bind(id)
        .fetch_one(connection)
        .await
        .map_err(failed(during))
}
