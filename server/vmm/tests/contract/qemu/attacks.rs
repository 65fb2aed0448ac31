//! What goes wrong with real processes and hostile guests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use banger_core::vmm::{Vmm, VmmError, VmmExit};
use banger_vmm::process::{Process, kill_exactly};
use banger_vmm::{AcceleratorChoice, QemuConfig, QemuDriver};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::qemu;
use crate::impostor::{bare_plan, impostor, refused};
use crate::rules::{BOOT, Bench, STEP, echoes, ended, killed, launched, opened};

/// What an impostor says of itself.
const VERSION: &str = "QEMU emulator version 9.9";

fn tcg(dir: &Path, program: impl Into<PathBuf>) -> QemuDriver {
    let mut config = QemuConfig::new(dir.to_owned());
    config.accelerator = AcceleratorChoice::Tcg;
    config.program = program.into();
    config.launch_timeout = Duration::from_millis(500);
    QemuDriver::new(config)
}

#[tokio::test]
async fn a_missing_qemu_names_its_package() {
    let dir = tempfile::tempdir().unwrap();
    for program in ["qemu-system-that-is-not-there", "/nonexistent/qemu"] {
        let error = refused(&tcg(dir.path(), program), &bare_plan(dir.path())).await;
        assert!(
            matches!(
                error,
                VmmError::ProgramMissing {
                    package: "qemu-system-x86",
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_qemu_that_ends_at_once_is_explained_by_its_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let program = impostor(dir.path(), VERSION, "echo the disk is on fire >&2; exit 3");
    let error = refused(&tcg(dir.path(), program), &bare_plan(dir.path())).await;
    let VmmError::EndedEarly { detail } = error else {
        panic!("{error:?}");
    };
    assert!(detail.contains("the disk is on fire"), "{detail}");
}

#[tokio::test]
async fn a_qemu_that_never_answers_ends_at_the_deadline_and_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let program = impostor(dir.path(), VERSION, "exec sleep 60");
    let error = refused(&tcg(dir.path(), program), &bare_plan(dir.path())).await;
    assert!(
        matches!(
            error,
            VmmError::Deadline {
                during: "greeting",
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_is_no_program_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("text");
    fs::write(&program, "not a program").unwrap();
    let error = refused(&tcg(dir.path(), program), &bare_plan(dir.path())).await;
    assert!(matches!(error, VmmError::Spawn { .. }), "{error:?}");
}

#[tokio::test]
async fn a_vm_directory_that_is_gone_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let program = impostor(dir.path(), VERSION, "exec sleep 60");
    let plan = bare_plan(dir.path());
    fs::remove_dir_all(&plan.dir).unwrap();
    let error = refused(&tcg(dir.path(), program), &plan).await;
    assert!(matches!(error, VmmError::Spawn { .. }), "{error:?}");
}

#[tokio::test]
async fn a_missing_kernel_is_told_by_qemu() {
    let bench = bench!("a_missing_kernel_is_told_by_qemu");
    let mut plan = bench.plan("echo");
    plan.kernel = "/nonexistent/vmlinux".into();
    let result = bench.driver().launch(&plan, &|_identity| Ok(())).await;
    let Some(VmmError::EndedEarly { detail }) = result.err() else {
        panic!("the launch is refused");
    };
    assert!(detail.contains("/nonexistent/vmlinux"), "{detail}");
}

#[tokio::test]
async fn a_guest_that_floods_its_channel_costs_bounded_memory_and_can_be_killed() {
    let bench = bench!("a_guest_that_floods_its_channel_costs_bounded_memory_and_can_be_killed");
    let machine = launched(&bench.driver(), &bench.plan("garbage")).await;
    assert!(
        timeout(Duration::from_secs(6), machine.open_channel())
            .await
            .is_err()
    );
    killed(&machine).await;
}

#[tokio::test]
async fn a_guest_that_floods_its_console_fills_no_disk() {
    let bench = bench!("a_guest_that_floods_its_console_fills_no_disk");
    let mut config = bench.config();
    config.console_max_bytes = 20_000;
    let plan = bench.plan("flood");
    let driver: Arc<dyn Vmm> = bench.driver_with(config);
    let console = driver.console(&plan.dir);
    let machine = launched(&driver, &plan).await;
    let mut offset = 0;
    while offset < 100_000 {
        timeout(BOOT, console.grown(offset)).await.unwrap().unwrap();
        let chunk = console.read(offset, 1 << 20).await.unwrap();
        offset = chunk.offset + u64::try_from(chunk.data.len()).unwrap();
    }
    let size: u64 = fs::read_dir(plan.dir.join("console"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size <= 20_000, "{size}");
    killed(&machine).await;
    let oldest = console.read(0, 10).await.unwrap().offset;
    assert!(oldest + 20_000 >= offset, "{oldest} {offset}");
}

#[tokio::test]
async fn a_panic_is_a_reset_and_its_last_words_are_kept() {
    let bench = bench!("a_panic_is_a_reset_and_its_last_words_are_kept");
    let driver = bench.driver();
    let plan = bench.plan("panic");
    let machine = launched(&driver, &plan).await;
    assert_eq!(
        timeout(BOOT, machine.wait()).await.unwrap(),
        VmmExit::GuestReset
    );
    let words = driver
        .console(&plan.dir)
        .read(0, 1 << 20)
        .await
        .unwrap()
        .data;
    let words = String::from_utf8_lossy(&words);
    assert!(words.contains("last words"), "{words}");
    assert!(words.contains("Kernel panic"), "{words}");
}

#[tokio::test]
async fn a_qemu_that_is_killed_from_outside_is_reaped_and_told() {
    let bench = bench!("a_qemu_that_is_killed_from_outside_is_reaped_and_told");
    let machine = launched(&bench.driver(), &bench.plan("echo")).await;
    let mut channel = opened(&machine).await;
    assert!(kill_exactly(machine.identity()).unwrap());
    let VmmExit::Other { detail } = ended(&machine).await else {
        panic!("a kill is no end of the guest's own");
    };
    assert!(detail.contains("signal 9"), "{detail}");
    assert!(channel.read_u8().await.is_err());
    assert!(
        !Path::new(&format!("/proc/{}", machine.identity().pid)).exists(),
        "no zombie"
    );
    assert!(matches!(machine.power_button().await, Err(VmmError::Gone)));
}

#[tokio::test]
async fn a_qemu_that_is_killed_while_it_starts_is_told() {
    let bench = bench!("a_qemu_that_is_killed_while_it_starts_is_told");
    let kill = |identity: &banger_core::vmm::ProcessIdentity| kill_exactly(identity).map(drop);
    let result = bench.driver().launch(&bench.plan("echo"), &kill).await;
    let error = result.err();
    assert!(
        matches!(&error, Some(VmmError::EndedEarly { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_daemon_that_died_before_its_guest_ran_leaves_a_vm_that_adoption_starts() {
    let bench = bench!("a_daemon_that_died_before_its_guest_ran_leaves_a_vm_that_adoption_starts");
    let driver = bench.driver();
    let plan = bench.plan("echo");
    // The future is forgotten in the journal call: nothing of it runs again, not even its clean-up.
    let (send, mut recorded) = tokio::sync::mpsc::channel(1);
    let other = Arc::clone(&driver);
    let copy = plan.clone();
    let daemon = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let journal = move |identity: &banger_core::vmm::ProcessIdentity| {
                send.try_send(identity.clone()).unwrap();
                loop {
                    std::thread::park();
                }
            };
            let _never = other.launch(&copy, &journal).await;
        });
    });
    let identity = timeout(STEP, recorded.recv()).await.unwrap().unwrap();
    drop(daemon);
    let next = bench.driver();
    let machine = next
        .adopt(plan.vm, &plan.dir, &identity)
        .await
        .unwrap()
        .unwrap();
    echoes(&mut opened(&machine).await, "it runs\n").await;
    killed(&machine).await;
}

#[tokio::test]
async fn a_qemu_that_hangs_is_adopted_without_control_and_can_be_killed() {
    let bench = bench!("a_qemu_that_hangs_is_adopted_without_control_and_can_be_killed");
    let plan = bench.plan("echo");
    let machine = launched(&bench.driver(), &plan).await;
    let identity = machine.identity().clone();
    drop(opened(&machine).await);
    drop(machine);
    let process = Process::find(&identity).unwrap().unwrap();
    process.signal(Signal::STOP).unwrap();
    let mut config = bench.config();
    config.control_timeout = Duration::from_millis(200);
    let driver = bench.driver_with(config);
    let adopted = timeout(STEP, driver.adopt(plan.vm, &plan.dir, &identity))
        .await
        .unwrap();
    let machine = adopted.unwrap().unwrap();
    assert!(matches!(
        machine.power_button().await,
        Err(VmmError::Control { .. } | VmmError::Deadline { .. })
    ));
    assert!(
        timeout(Duration::from_millis(100), machine.open_channel())
            .await
            .is_err()
    );
    machine.terminate().unwrap();
    assert!(
        timeout(Duration::from_millis(100), machine.wait())
            .await
            .is_err()
    );
    killed(&machine).await;
}

#[tokio::test]
async fn a_qemu_that_hung_at_its_adoption_gets_its_control_socket_back() {
    let bench = bench!("a_qemu_that_hung_at_its_adoption_gets_its_control_socket_back");
    let plan = bench.plan("echo");
    let machine = launched(&bench.driver(), &plan).await;
    let identity = machine.identity().clone();
    drop(machine);
    let process = Process::find(&identity).unwrap().unwrap();
    process.signal(Signal::STOP).unwrap();
    let mut config = bench.config();
    config.control_timeout = Duration::from_millis(200);
    let driver = bench.driver_with(config);
    let adopted = timeout(STEP, driver.adopt(plan.vm, &plan.dir, &identity)).await;
    let machine = adopted.unwrap().unwrap().unwrap();
    machine.pause().await.unwrap_err();
    process.signal(Signal::CONT).unwrap();
    let back = async {
        // Short limits, and a host that may be busy.
        while machine.pause().await.is_err() {}
    };
    timeout(STEP, back).await.unwrap();
    machine.resume().await.unwrap();
    killed(&machine).await;
}

#[tokio::test]
async fn an_adoption_that_is_dropped_leaves_the_vm_to_the_next() {
    let bench = bench!("an_adoption_that_is_dropped_leaves_the_vm_to_the_next");
    let plan = bench.plan("echo");
    let machine = launched(&bench.driver(), &plan).await;
    let identity = machine.identity().clone();
    echoes(&mut opened(&machine).await, "before\n").await;
    drop(machine);
    let driver = bench.driver();
    for microseconds in [0, 100, 500, 1000, 2000] {
        let limit = Duration::from_micros(microseconds);
        let _ = timeout(limit, driver.adopt(plan.vm, &plan.dir, &identity)).await;
    }
    let machine = driver
        .adopt(plan.vm, &plan.dir, &identity)
        .await
        .unwrap()
        .unwrap();
    machine.power_button().await.unwrap();
    let mut channel = opened(&machine).await;
    let console = driver.console(&plan.dir);
    channel.write_all(b"!say,heard-again\n").await.unwrap();
    let mut text = String::new();
    let mut offset = 0;
    while !text.contains("heard-again") {
        timeout(STEP, console.grown(offset)).await.unwrap().unwrap();
        let chunk = console.read(offset, 1 << 20).await.unwrap();
        offset = chunk.offset + u64::try_from(chunk.data.len()).unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk.data));
    }
    killed(&machine).await;
}
