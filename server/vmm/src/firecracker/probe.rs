//! Finding out by trying whether Firecracker can run the guest kernel; see [`crate::trial`].

use std::path::Path;

use banger_core::chain;
use banger_core::vmm::VmmError;

use super::FirecrackerDriver;
use crate::trial::{self, Key, Names, Trials, Tried, device_opens};

/// What tries are called below the driver's directory.
const NAMES: Names = Names {
    file: "firecracker.json",
    dir_prefix: "firecracker-probe-",
};

/// The answers that are known below `state_dir`.
pub(super) fn trials(state_dir: &Path) -> Trials {
    Trials::new(state_dir, NAMES)
}

/// Whether `kernel` boots to its agent. Safe to drop: a try that nobody awaits is ended.
pub(super) async fn works(
    driver: &FirecrackerDriver,
    kernel: &Path,
    initramfs: &Path,
) -> Result<Tried, VmmError> {
    if let Err(failure) = device_opens() {
        return Ok(Err(failure));
    }
    let found = match driver.found().await {
        Ok(found) => found,
        // Nothing to remember: it may be installed at any time.
        Err(error) => return Ok(Err(chain(&error))),
    };
    let key = Key::of(&found.program, &found.version, kernel, initramfs)?;
    let boot = async {
        let (dir, plan) = driver.trials.plan(kernel, initramfs)?;
        Ok(match driver.start(&plan, &|_identity| Ok(())).await {
            Ok(machine) => trial::listen(machine, driver.config.probe_timeout, dir.path()).await,
            Err(error) => Err(chain(&error)),
        })
    };
    driver.trials.answer(key, Box::pin(boot)).await // rare and large
}
