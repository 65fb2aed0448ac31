//! Programs that stand in for a VMM, to do what none should.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use banger_core::VmId;
use banger_core::vmm::{LaunchPlan, NetworkPlan, Vmm, VmmError};
use banger_vmm::process::find_strays;
use tokio::time::timeout;

use crate::rules::STEP;

/// A program that answers `--version` with `version` and else does what `script` says.
pub(crate) fn impostor(dir: &Path, version: &str, script: &str) -> PathBuf {
    let path = dir.join("impostor");
    let text = format!("#!/bin/sh\n[ \"$1\" = --version ] && exec echo {version}\n{script}\n");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A plan that no guest is needed for.
pub(crate) fn bare_plan(dir: &Path) -> LaunchPlan {
    let vm = VmId::new();
    let vm_dir = dir.join(vm.to_string());
    fs::create_dir(&vm_dir).unwrap();
    for name in ["vmlinux", "initramfs"] {
        fs::write(dir.join(name), "no kernel").unwrap();
    }
    LaunchPlan {
        vm,
        dir: vm_dir,
        kernel: dir.join("vmlinux"),
        initramfs: dir.join("initramfs"),
        kernel_args: Vec::new(),
        vcpu_count: 1,
        memory_mib: 128,
        drives: Vec::new(),
        network: NetworkPlan::None,
        limits: None,
    }
}

/// Launches what must not come up, and leaves nothing behind.
pub(crate) async fn refused(driver: &dyn Vmm, plan: &LaunchPlan) -> VmmError {
    let result = timeout(STEP, driver.launch(plan, &|_identity| Ok(())))
        .await
        .unwrap();
    assert_eq!(
        find_strays(plan.dir.parent().unwrap()).unwrap(),
        [],
        "nothing is left"
    );
    result.err().expect("the launch is refused")
}
