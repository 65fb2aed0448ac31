//! Firecracker against the contract, with real guests; and what only a real process can show.
//!
//! `BANGER_TEST_FIRECRACKER` is the program, `BANGER_TEST_FIRECRACKER_KERNEL` a `vmlinux` that boots through this
//! host's KVM and has everything built in (serial console, virtio over MMIO, vsock, ext4, the keyboard
//! controller), and `BANGER_TEST_JAILER` the jailer, with which the whole contract is run once more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use banger_core::VmId;
use banger_core::vmm::{Drive, DriveAccess, LaunchPlan, NetworkPlan, ProcessLimits, Vmm};
use banger_vmm::{FirecrackerConfig, FirecrackerDriver, process};
use tempfile::TempDir;

use crate::guest::{Guest, guest_of, skipped};
use crate::rules::{Bench, DRIVE_BYTES, suite};

/// The bench of a rule, or the end of the test where it cannot be tested here.
macro_rules! bench {
    ($maker:ident, $rule:literal) => {
        match $maker($rule) {
            Some(bench) => bench,
            None => return,
        }
    };
}
mod attacks;
mod jailed;

const PROGRAM: &str = "BANGER_TEST_FIRECRACKER";
const JAILER: &str = "BANGER_TEST_JAILER";
const KERNEL: &str = "BANGER_TEST_FIRECRACKER_KERNEL";

/// A directory of VMs and the drivers that were made for it.
pub(crate) struct Firecracker {
    guest: Guest,
    program: PathBuf,
    /// Empty for no jail.
    jailer: PathBuf,
    dir: TempDir,
    drivers: Mutex<Vec<Arc<FirecrackerDriver>>>,
}

/// What a variable names; a line says so where it names nothing.
fn named(variable: &str, rule: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        skipped(rule, &format!("{variable} is not set"));
    }
    path
}

fn made(rule: &str, jailer: PathBuf) -> Option<Firecracker> {
    let program = named(PROGRAM, rule)?;
    let guest = guest_of(named(KERNEL, rule)?);
    let dir = tempfile::Builder::new()
        .prefix("banger-vmm-")
        // Beside the kernel: a jail is filled by hard links.
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap();
    Some(Firecracker {
        guest: linked(&guest, dir.path()),
        program,
        jailer,
        dir,
        drivers: Mutex::default(),
    })
}

/// Copies on the file system of the VMs, as a daemon's state directory has them.
fn linked(guest: &Guest, dir: &Path) -> Guest {
    let copy = |path: &Path, name: &str| {
        let to = dir.join(name);
        std::fs::copy(path, &to).unwrap();
        to
    };
    Guest {
        kernel: copy(&guest.kernel, "vmlinux"),
        initramfs: copy(&guest.initramfs, "initramfs"),
    }
}

/// Without a jail.
pub(crate) fn bare(rule: &str) -> Option<Firecracker> {
    made(rule, PathBuf::new())
}

impl Firecracker {
    pub(crate) fn config(&self) -> FirecrackerConfig {
        let mut config = FirecrackerConfig::new(self.dir.path().to_owned());
        config.program = self.program.clone();
        config.jailer = self.jailer.clone();
        config
    }

    pub(crate) fn driver_with(&self, config: FirecrackerConfig) -> Arc<FirecrackerDriver> {
        let driver = Arc::new(FirecrackerDriver::new(config));
        self.drivers.lock().unwrap().push(Arc::clone(&driver));
        driver
    }
}

impl Drop for Firecracker {
    /// A test that failed leaves no VM either.
    fn drop(&mut self) {
        for stray in process::find_strays(self.dir.path()).unwrap_or_default() {
            let _ = process::kill_exactly(&stray.identity);
        }
    }
}

impl Bench for Firecracker {
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
            memory_mib: 128,
            drives: vec![drive],
            network: NetworkPlan::None,
            limits: Some(ProcessLimits::of(1, 128, 512)),
        }
    }

    async fn end_daemon(&self) {
        let drivers = std::mem::take(&mut *self.drivers.lock().unwrap());
        for driver in drivers {
            driver.close().await;
        }
    }
}

suite!(bare);
