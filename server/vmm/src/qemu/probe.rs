//! Finding out by trying whether KVM can run the guest kernel; see [`crate::trial`].

use std::path::Path;

use banger_core::chain;
use banger_core::vmm::{Accelerator, VmmError};

use super::machine::QemuMachine;
use super::{AcceleratorChoice, Found, QemuDriver};
use crate::trial::{self, Audible, Key, Names, Trials, Tried, device_opens};

/// What tries are called below the driver's directory.
const NAMES: Names = Names {
    file: "accelerators.json",
    dir_prefix: "probe-",
};

/// What runs guests here, and why not something better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) accelerator: Accelerator,
    pub(super) warning: Option<String>,
}

/// The answers that are known.
#[derive(Debug)]
pub(super) struct Accelerators(Trials);

impl Accelerators {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self(Trials::new(state_dir, NAMES))
    }

    /// Ends the tries that a daemon left which died during them.
    pub(super) fn sweep(&self) {
        self.0.sweep();
    }

    /// What runs `kernel` here. Safe to drop: a try that nobody awaits is ended.
    pub(super) async fn answer(
        &self,
        driver: &QemuDriver,
        found: &Found,
        kernel: &Path,
        initramfs: &Path,
    ) -> Result<Answer, VmmError> {
        let choice = driver.config.accelerator;
        if choice == AcceleratorChoice::Tcg {
            return Ok(Answer {
                accelerator: Accelerator::Tcg,
                warning: None,
            });
        }
        let tried = match device_opens() {
            Ok(()) => self.tried(driver, found, kernel, initramfs).await?,
            failure => failure,
        };
        match (tried, choice) {
            (Ok(()), _) => Ok(Answer {
                accelerator: Accelerator::Kvm,
                warning: None,
            }),
            (Err(detail), AcceleratorChoice::Kvm) => Err(VmmError::NoAccelerator {
                detail: format!("KVM: {detail}"),
            }),
            (Err(detail), AcceleratorChoice::Auto | AcceleratorChoice::Tcg) => Ok(Answer {
                accelerator: Accelerator::Tcg,
                warning: Some(format!(
                    "KVM cannot be used here ({detail}); QEMU translates the guest's instructions instead, \
                     which is many times slower"
                )),
            }),
        }
    }

    async fn tried(
        &self,
        driver: &QemuDriver,
        found: &Found,
        kernel: &Path,
        initramfs: &Path,
    ) -> Result<Tried, VmmError> {
        let key = Key::of(&found.program, &found.version, kernel, initramfs)?;
        let boot = Box::pin(self.boot(driver, kernel, initramfs)); // rare and large
        self.0.answer(key, boot).await
    }

    /// Boots once under KVM. Leaves no process and no file, however it ends.
    async fn boot(
        &self,
        driver: &QemuDriver,
        kernel: &Path,
        initramfs: &Path,
    ) -> Result<Tried, VmmError> {
        let (dir, plan) = self.0.plan(kernel, initramfs)?;
        let started = driver.start(&plan, Accelerator::Kvm, &|_identity| Ok(()));
        Ok(match started.await {
            Ok(machine) => trial::listen(machine, driver.config.probe_timeout, dir.path()).await,
            Err(error) => Err(chain(&error)),
        })
    }
}

impl Audible for QemuMachine {
    async fn hear_agent(&self) -> Result<(), VmmError> {
        Self::hear_agent(self).await
    }
}
