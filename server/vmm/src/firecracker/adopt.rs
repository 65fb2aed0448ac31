//! Taking over a Firecracker that an earlier daemon started.

use std::path::Path;

use banger_core::VmId;
use banger_core::vmm::{ProcessIdentity, VmmError};

use super::api::model::{Action, InstanceInfo, NOT_STARTED};
use super::doorstep::Doorstep;
use super::launch::{Home, open_console};
use super::machine::{Control, FirecrackerMachine, Supervised};
use super::{FirecrackerDriver, jail, metrics};
use crate::ceilings::Holder;
use crate::console::ConsoleWriter;
use crate::log;
use crate::process::{JAIL_DIR, Process, strays_below};

/// Adopts the process that `identity` describes, if it lives. A process whose API does not answer is adopted all
/// the same: it must be possible to end it.
pub(super) async fn adopt(
    driver: &FirecrackerDriver,
    vm: VmId,
    dir: &Path,
    identity: &ProcessIdentity,
) -> Result<Option<FirecrackerMachine>, VmmError> {
    let found = Process::find(identity).map_err(|source| VmmError::Signal { source })?;
    let Some(process) = found else {
        clear_jail(vm, dir).await?;
        return Ok(None);
    };
    let failed = |source| VmmError::Control {
        during: "adoption",
        source,
    };
    let home = match jail::find(dir) {
        Some((root, user)) => Home::open(root, Some(user)),
        None => Home::open(dir.to_owned(), None),
    };
    let home = home.map_err(failed)?;
    if let Err(error) = log::trim(dir) {
        tracing::warn!(%vm, %error, "the VMM's log could not be bounded");
    }
    let doorstep = Doorstep::open(&home.dir, home.user).map_err(failed)?;
    let place = (vm, dir.to_owned(), log::end(dir));
    let holder = Holder::new(driver.cgroups().of(vm, identity.pid));
    let supervised = Supervised::start(driver, process, place, doorstep, holder);
    if let Err(error) = follow(driver, &supervised, dir, &home) {
        tracing::warn!(%vm, %error, "console or metrics of an adopted VM cannot be followed");
    }
    let control = Control::new(driver, &supervised, &home, identity.clone())?;
    if let Err(error) = start_if_held(driver, &control).await {
        tracing::warn!(%vm, %error, "the API of an adopted VM does not answer");
    }
    Ok(Some(FirecrackerMachine::new(supervised, home, control)))
}

/// Removes the jail of a VMM that is gone. One in which another process lives, which nobody recorded, stays: by it
/// that process is found.
async fn clear_jail(vm: VmId, dir: &Path) -> Result<(), VmmError> {
    if !dir.join(JAIL_DIR).exists() {
        return Ok(());
    }
    let strays = strays_below(dir.parent().unwrap_or(dir)).await?;
    if strays.iter().any(|(stray, _)| *stray == vm) {
        tracing::warn!(%vm, "a VMM that no record names lives in the jail of one that is gone");
    } else if let Err(error) = jail::clear(dir) {
        tracing::warn!(%vm, %error, "the jail of a VMM that is gone could not be removed");
    }
    Ok(())
}

fn follow(
    driver: &FirecrackerDriver,
    supervised: &Supervised,
    dir: &Path,
    home: &Home,
) -> std::io::Result<()> {
    let mut writer = ConsoleWriter::open(dir, driver.config.console_max_bytes)?;
    let console = open_console(&home.root)?;
    writer.mark("the daemon restarted; of what the guest wrote meanwhile, 64 KiB are kept");
    supervised.follow_console(console, writer);
    supervised.follow_metrics(metrics::open(&home.root)?);
    Ok(())
}

/// The earlier daemon died between configuring the process and letting its guest run.
async fn start_if_held(driver: &FirecrackerDriver, control: &Control) -> Result<(), VmmError> {
    let info: InstanceInfo = control.get("state", "/").await?;
    if info.state != NOT_STARTED {
        return Ok(());
    }
    let limit = driver.config.launch_timeout;
    control
        .put_within(limit, "InstanceStart", "/actions", &Action::InstanceStart)
        .await
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use banger_core::vmm::Vmm;

    use super::super::FirecrackerConfig;
    use super::*;
    use crate::process::{NAME_PREFIX, identify};

    #[tokio::test]
    async fn a_jail_goes_with_its_vmm_and_not_while_another_process_of_the_vm_lives() {
        let state = tempfile::tempdir().unwrap();
        let vm = VmId::new();
        let dir = state.path().join(vm.to_string());
        let root = dir.join(format!("{JAIL_DIR}/firecracker/{NAME_PREFIX}{vm}/root"));
        std::fs::create_dir_all(&root).unwrap();
        let driver = FirecrackerDriver::new(FirecrackerConfig::new(state.path().to_owned()));
        let mut child = Command::new("sh")
            .args(["-c", "read end", "sh", "--id"])
            .arg(format!("{NAME_PREFIX}{vm}"))
            .current_dir(&dir)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut gone = identify(child.id()).unwrap();
        gone.start_ticks += 1;
        assert!(driver.adopt(vm, &dir, &gone).await.unwrap().is_none());
        assert!(root.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(driver.adopt(vm, &dir, &gone).await.unwrap().is_none());
        assert!(!dir.join(JAIL_DIR).exists());
    }
}
