//! Taking over a QEMU that an earlier daemon started.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use banger_core::VmId;
use banger_core::vmm::{ProcessIdentity, VmmError};

use super::QemuDriver;
use super::launch::SOCKETS;
use super::machine::{Control, QemuMachine, Supervised};
use super::qmp::Qmp;
use crate::ceilings::Holder;
use crate::console::ConsoleWriter;
use crate::dir::VmDir;
use crate::log;
use crate::process::Process;

/// How often a control socket is connected to before the VM is adopted without one.
const CONTROL_TRIES: usize = 3;

/// What QEMU calls a guest that was never let run.
const HELD: &str = "prelaunch";

/// Adopts the process that `identity` describes, if it lives. A process whose control socket is broken is
/// adopted all the same: it must be possible to end it.
pub(super) async fn adopt(
    driver: &QemuDriver,
    vm: VmId,
    dir: &Path,
    identity: &ProcessIdentity,
) -> Result<Option<QemuMachine>, VmmError> {
    let found = Process::find(identity).map_err(|source| VmmError::Signal { source })?;
    let Some(process) = found else {
        return Ok(None);
    };
    let vm_dir = VmDir::open(dir).map_err(|source| VmmError::Control {
        during: "adoption",
        source,
    })?;
    if let Err(error) = log::trim(dir) {
        tracing::warn!(%vm, %error, "the VMM's log could not be bounded");
    }
    let log_start = log::end(dir);
    let supervised = Supervised::start(
        driver,
        process,
        Holder::new(driver.cgroups().of(vm, identity.pid)),
        dir.to_owned(),
        log_start,
    );
    if let Err(error) = follow_console(driver, &supervised, dir, &vm_dir).await {
        tracing::warn!(%vm, %error, "the console of an adopted VM cannot be followed");
    }
    let limit = driver.config.control_timeout;
    let control = match patient_control(&supervised, &vm_dir, limit).await {
        Ok(control) => Some(control),
        Err(error) => {
            tracing::warn!(%vm, %error, "an adopted VM has no control socket: until one can be had, which is tried whenever it is needed, the VM cannot be paused, its power button not pressed, its disk not grown, and nobody tells what its drives do");
            None
        }
    };
    let control = Control::new(control, limit);
    Ok(Some(QemuMachine::new(supervised, vm_dir, control)))
}

async fn follow_console(
    driver: &QemuDriver,
    supervised: &Supervised,
    dir: &Path,
    vm_dir: &VmDir,
) -> std::io::Result<()> {
    let mut writer = ConsoleWriter::open(dir, driver.config.console_max_bytes)?;
    let connecting = vm_dir.connect(SOCKETS.console);
    let stream = tokio::time::timeout(driver.config.control_timeout, connecting).await??;
    writer.mark("the daemon restarted; what the guest wrote meanwhile is missing");
    supervised.follow_console(stream, writer);
    Ok(())
}

/// Connects to the control socket; `limit` is that of each step. Tries again where the end of an earlier connection
/// spoilt this one. Safe to drop.
pub(super) async fn patient_control(
    supervised: &Supervised,
    vm_dir: &VmDir,
    limit: Duration,
) -> Result<Arc<Qmp>, VmmError> {
    for _ in 1..CONTROL_TRIES {
        match control(supervised, vm_dir, limit).await {
            Err(error @ (VmmError::Control { .. } | VmmError::Refused { .. })) => {
                tracing::debug!(%error, "a control socket is connected to again");
            }
            result => return result,
        }
    }
    control(supervised, vm_dir, limit).await
}

async fn control(
    supervised: &Supervised,
    vm_dir: &VmDir,
    limit: Duration,
) -> Result<Arc<Qmp>, VmmError> {
    let connected = tokio::time::timeout(limit, vm_dir.connect(SOCKETS.control)).await;
    let connected = connected.map_err(|_elapsed| VmmError::Deadline {
        during: "adoption",
        limit,
    })?;
    let stream = connected.map_err(|source| VmmError::Control {
        during: "adoption",
        source,
    })?;
    let control = supervised.open_control(stream, (limit, limit)).await?;
    let status = control.execute("query-status").await?;
    // The earlier daemon died between recording the process and letting its guest run.
    if status.get("status").and_then(|status| status.as_str()) == Some(HELD) {
        control.execute("cont").await?;
    }
    Ok(control)
}
