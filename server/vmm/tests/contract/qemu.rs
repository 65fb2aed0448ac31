//! QEMU against the contract, with real guests; and attacks that only a real process can suffer.

use std::path::Path;
use std::sync::{Arc, Mutex};

use banger_core::VmId;
use banger_core::vmm::{Drive, DriveAccess, LaunchPlan, NetworkPlan, ProcessLimits, Vmm};
use banger_vmm::{AcceleratorChoice, QemuConfig, QemuDriver, process};
use tempfile::TempDir;

use crate::guest::{Guest, guest};
use crate::rules::{Bench, DRIVE_BYTES, suite};

/// The bench of a rule, or the end of the test where there is no guest kernel.
macro_rules! bench {
    ($rule:literal) => {
        match qemu($rule) {
            Some(bench) => bench,
            None => return,
        }
    };
}
mod accelerator;
mod attacks;
mod daemon;
mod isolation;

/// A directory of VMs and the drivers that were made for it.
pub(crate) struct Qemu {
    guest: Guest,
    dir: TempDir,
    drivers: Mutex<Vec<Arc<QemuDriver>>>,
}

pub(crate) fn qemu(rule: &str) -> Option<Qemu> {
    let guest = guest(rule)?;
    let dir = tempfile::Builder::new()
        .prefix("banger-vmm-")
        .tempdir()
        .unwrap();
    Some(Qemu {
        guest,
        dir,
        drivers: Mutex::default(),
    })
}

impl Qemu {
    pub(crate) fn config(&self) -> QemuConfig {
        let mut config = QemuConfig::new(self.dir.path().to_owned());
        config.accelerator = AcceleratorChoice::Tcg;
        config
    }

    pub(crate) fn driver_with(&self, config: QemuConfig) -> Arc<QemuDriver> {
        let driver = Arc::new(QemuDriver::new(config));
        self.drivers.lock().unwrap().push(Arc::clone(&driver));
        driver
    }

    pub(crate) fn vms_dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Qemu {
    /// A test that failed leaves no VM either.
    fn drop(&mut self) {
        for stray in process::find_strays(self.dir.path()).unwrap_or_default() {
            let _ = process::kill_exactly(&stray.identity);
        }
    }
}

impl Bench for Qemu {
    fn driver(&self) -> Arc<dyn Vmm> {
        self.driver_with(self.config())
    }

    fn plan(&self, behaviour: &str) -> LaunchPlan {
        let vm = VmId::new();
        let dir = self.dir.path().join(vm.to_string());
        std::fs::create_dir(&dir).unwrap();
        let drive = Drive {
            path: dir.join("disk"),
            access: DriveAccess::ReadWrite,
            serial: "data".into(),
        };
        let file = std::fs::File::create(&drive.path).unwrap();
        file.set_len(DRIVE_BYTES).unwrap();
        LaunchPlan {
            vm,
            dir,
            kernel: self.guest.kernel.clone(),
            initramfs: self.guest.initramfs.clone(),
            kernel_args: vec![format!("banger.test={behaviour}")],
            vcpu_count: 1,
            memory_mib: 256,
            drives: vec![drive],
            network: NetworkPlan::None,
            limits: Some(ProcessLimits::of(1, 256, 512)),
        }
    }

    async fn end_daemon(&self) {
        let drivers = std::mem::take(&mut *self.drivers.lock().unwrap());
        for driver in drivers {
            driver.close().await;
        }
    }
}

suite!(qemu);
