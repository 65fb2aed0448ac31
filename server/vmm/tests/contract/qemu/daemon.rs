//! VMs whose daemon really dies: another process launches them and aborts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use banger_core::VmId;
use banger_core::vmm::{Machine, ProcessIdentity, VmmExit};
use banger_vmm::process::kill_exactly;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Qemu, qemu};
use crate::rules::{Bench, STEP, echoes, ended, opened};

/// Where the other process writes what it launched. Its absence means that this is no such process.
const REPORT: &str = "BANGER_TEST_DAEMON_REPORT";

/// What the other process journalled.
type Report = (VmId, PathBuf, ProcessIdentity);

/// The other process: launches a VM into `dir`, writes the journal, talks to the guest, and aborts.
#[tokio::test]
#[ignore = "started by the tests below"]
async fn a_daemon_that_aborts() {
    let Some(report) = std::env::var_os(REPORT) else {
        return;
    };
    let bench = bench!("a_daemon_that_aborts");
    let driver = bench.driver();
    let mut plan = bench.plan("echo");
    plan.dir = Path::new(&report)
        .parent()
        .unwrap()
        .join(plan.vm.to_string());
    fs::create_dir(&plan.dir).unwrap();
    let journal = |identity: &ProcessIdentity| {
        let text = serde_json::to_vec(&(plan.vm, &plan.dir, identity))?;
        fs::write(&report, text)
    };
    let machine = timeout(STEP, driver.launch(&plan, &journal))
        .await
        .unwrap()
        .unwrap();
    echoes(&mut opened(&machine).await, "from the first daemon\n").await;
    // What this process holds is not dropped: its end is as sudden as a SIGKILL.
    std::process::abort();
}

/// Runs the other process to its abort, and adopts what it left as a daemon that starts then does.
async fn adopted(bench: &Qemu) -> (Arc<dyn Machine>, Report) {
    let report = bench.vms_dir().join("report");
    let mut other = Command::new(std::env::current_exe().unwrap());
    other
        .args(["--exact", "qemu::daemon::a_daemon_that_aborts", "--ignored"])
        .env(REPORT, &report)
        // It cleans nothing up.
        .env("TMPDIR", bench.vms_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let status = tokio::task::spawn_blocking(move || other.status())
        .await
        .unwrap()
        .unwrap();
    assert!(!status.success(), "it aborted");
    let report: Report = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let (vm, dir, identity) = &report;
    let driver = bench.driver();
    assert_eq!(
        driver.find_strays(bench.vms_dir()).await.unwrap(),
        [(*vm, identity.clone())]
    );
    let machine = driver.adopt(*vm, dir, identity).await.unwrap().unwrap();
    (machine, report)
}

#[tokio::test]
async fn a_vm_survives_the_sudden_death_of_its_daemon() {
    let bench = bench!("a_vm_survives_the_sudden_death_of_its_daemon");
    let (machine, (_, dir, _)) = adopted(&bench).await;
    let mut channel = opened(&machine).await;
    echoes(&mut channel, "from the second daemon\n").await;
    machine.power_button().await.unwrap();
    let console = bench
        .driver()
        .console(&dir)
        .read(0, 1 << 20)
        .await
        .unwrap()
        .data;
    let console = String::from_utf8_lossy(&console).into_owned();
    assert!(console.contains("test guest: up"), "{console}");
    assert!(
        console.contains("the daemon restarted"),
        "the gap is marked: {console}"
    );
    channel.write_all(b"!poweroff\n").await.unwrap();
    assert_eq!(
        ended(&machine).await,
        VmmExit::GuestPowerOff,
        "though it is no child of ours"
    );
}

#[tokio::test]
async fn the_death_of_an_adopted_vmm_is_told_without_its_status() {
    let bench = bench!("the_death_of_an_adopted_vmm_is_told_without_its_status");
    let (machine, (_, _, identity)) = adopted(&bench).await;
    let mut channel = opened(&machine).await;
    assert!(kill_exactly(&identity).unwrap());
    let VmmExit::Other { detail } = ended(&machine).await else {
        panic!("a kill is no end of the guest's own");
    };
    assert!(detail.contains("unknown"), "{detail}");
    assert!(channel.read_u8().await.is_err());
}
