//! Scopes: where systemd runs the daemon, each VMM gets a unit of its own, so that whatever is done to the daemon's
//! unit is not done to VMs.
//!
//! ```text
//!   VMM started, in the daemon's unit ──► StartTransientUnit(banger-vm-ID-PID.scope, PIDs=…) ──► JobRemoved
//! ```
//! A scope is asked for after the VMM is recorded and before its guest runs, over D-Bus
//! (org.freedesktop.systemd1(5)). It carries the VMM's ceilings, and goes by itself when the VMM is gone. Without one
//! the VMM stays in the daemon's unit, in a cgroup of ours where there is one; `KillMode=process` of that unit then
//! keeps it alive.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use banger_core::VmId;
use banger_core::vmm::ProcessLimits;
use futures::StreamExt as _;
use zbus::proxy::CacheProperties;
use zbus::{Connection, ObjectPath, OwnedObjectPath, Variant};

/// How long systemd has for a scope. It takes some milliseconds; a VM is launched without one after that.
const LIMIT: Duration = Duration::from_secs(5);
/// Where systemd is the host's service manager (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// What systemd sets for what it starts (systemd.exec(5)).
const STARTED_BY_SYSTEMD: &str = "INVOCATION_ID";
/// All VMs of the host, for whoever wants to limit or see them together.
const SLICE: &str = "banger.slice";

/// Whether VMMs get scopes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ScopeChoice {
    /// Where systemd started the daemon: of the system's for root, else of the user's.
    #[default]
    Auto,
    /// Never.
    Off,
    /// From whoever is `org.freedesktop.systemd1` on this bus.
    Bus(String),
}

/// The way to the service manager.
#[derive(Debug)]
pub(crate) struct Scopes {
    choice: ScopeChoice,
    /// Made when it is needed, and again when it broke.
    connection: tokio::sync::Mutex<Option<Connection>>,
}

/// Why there is no scope.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScopeError {
    /// The bus, or an answer from it.
    #[error("systemd did not make a scope")]
    Bus(#[from] zbus::Error),
    /// The job ended otherwise than well.
    #[error("systemd's job for the scope ended as `{0}`")]
    Job(String),
    /// The connection ended before the job did.
    #[error("the connection to systemd ended")]
    Closed,
    /// It took too long.
    #[error("systemd did not make a scope within {LIMIT:?}")]
    Deadline,
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;

    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        aux: &[(&str, &[(&str, Variant<'_>)])],
    ) -> zbus::Result<OwnedObjectPath>;

    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

impl Scopes {
    pub(crate) fn new(choice: ScopeChoice) -> Self {
        Self {
            choice,
            connection: tokio::sync::Mutex::default(),
        }
    }

    /// Whether there are any.
    fn is_on(&self) -> bool {
        match self.choice {
            ScopeChoice::Off => false,
            ScopeChoice::Bus(_) => true,
            ScopeChoice::Auto => {
                std::env::var_os(STARTED_BY_SYSTEMD).is_some() && Path::new(BOOTED).is_dir()
            }
        }
    }

    /// Moves a VMM into a scope of its own. Whether it did; what went wrong is logged, and the VMM stays where it is.
    /// Safe to drop: a scope that is made all the same ends with the VMM.
    pub(crate) async fn take(&self, vm: VmId, pid: u32, limits: Option<&ProcessLimits>) -> bool {
        if !self.is_on() {
            return false;
        }
        let taken = tokio::time::timeout(LIMIT, self.try_take(vm, pid, limits)).await;
        match taken.unwrap_or(Err(ScopeError::Deadline)) {
            Ok(()) => true,
            Err(error) => {
                // The next VM gets another connection.
                *self.connection.lock().await = None;
                let error = banger_core::chain(&error);
                tracing::warn!(%vm, pid, error, "a VMM gets no scope of its own and stays in the daemon's unit");
                false
            }
        }
    }

    async fn try_take(
        &self,
        vm: VmId,
        pid: u32,
        limits: Option<&ProcessLimits>,
    ) -> Result<(), ScopeError> {
        let connection = self.connected().await?;
        // Nothing of its properties is read.
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let mut ended = manager.receive_job_removed().await?;
        manager.subscribe().await?;
        let name = unit_name(vm, pid);
        let job = manager
            .start_transient_unit(&name, "fail", &properties(vm, pid, limits), &[])
            .await?;
        while let Some(signal) = ended.next().await {
            let removed = signal.args()?;
            if removed.job.as_str() == job.as_str() {
                return match removed.result {
                    "done" => Ok(()),
                    other => Err(ScopeError::Job(other.to_owned())),
                };
            }
        }
        Err(ScopeError::Closed)
    }

    async fn connected(&self) -> zbus::Result<Connection> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let made = match &self.choice {
            ScopeChoice::Bus(address) => {
                zbus::connection::Builder::address(address.as_str())
                    .build()
                    .await?
            }
            ScopeChoice::Auto | ScopeChoice::Off => match rustix::process::geteuid().is_root() {
                true => Connection::system().await?,
                false => Connection::session().await?,
            },
        };
        *connection = Some(made.clone());
        Ok(made)
    }
}

/// Before the VM in a scope's name, and at its end.
const NAME: (&str, &str) = ("banger-vm-", ".scope");

/// Whether a unit is one of ours.
pub(crate) fn is_ours(unit: &str) -> bool {
    unit.starts_with(NAME.0) && unit.ends_with(NAME.1)
}

/// A VM that starts again is another process: its former scope may not be gone yet.
fn unit_name(vm: impl fmt::Display, pid: u32) -> String {
    format!("{}{vm}-{pid}{}", NAME.0, NAME.1)
}

/// systemd.resource-control(5), systemd.unit(5), systemd.scope(5).
fn properties(
    vm: VmId,
    pid: u32,
    limits: Option<&ProcessLimits>,
) -> Vec<(&'static str, Variant<'static>)> {
    let mut properties = vec![
        ("PIDs", Variant::from(vec![pid])),
        ("Description", Variant::from(format!("banger VM {vm}"))),
        ("Slice", Variant::from(SLICE)),
        // One that failed is kept for nobody.
        ("CollectMode", Variant::from("inactive-or-failed")),
    ];
    if let Some(limits) = limits {
        properties.extend([
            ("MemoryMax", Variant::from(limits.memory_mib << 20)),
            ("TasksMax", Variant::from(u64::from(limits.thread_count))),
            ("CPUWeight", Variant::from(u64::from(limits.cpu_weight))),
        ]);
    }
    properties
}

#[cfg(test)]
mod tests;
