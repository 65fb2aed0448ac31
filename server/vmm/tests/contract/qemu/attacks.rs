//! What goes wrong with real processes and hostile guests.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use banger_core::vmm::{Accelerator, Drive, DriveAccess, LaunchPlan, Vmm, VmmError, VmmExit};
use banger_vmm::process::{find_strays, kill_exactly};
use banger_vmm::{AcceleratorChoice, QemuConfig, QemuDriver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::qemu;
use crate::rules::{BOOT, Bench, GLIMPSE, STEP, echoes, ended, killed, launched, opened};

macro_rules! bench {
    ($rule:literal) => {
        match qemu($rule) {
            Some(bench) => bench,
            None => return,
        }
    };
}

/// A program that answers `--version` and then does what `script` says.
fn impostor(dir: &Path, script: &str) -> PathBuf {
    let path = dir.join("impostor");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec echo QEMU emulator version 9.9\n{script}\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A plan that no guest is needed for.
fn bare_plan(dir: &Path) -> LaunchPlan {
    let vm = banger_core::VmId::new();
    let vm_dir = dir.join(vm.to_string());
    fs::create_dir(&vm_dir).unwrap();
    LaunchPlan {
        vm,
        dir: vm_dir,
        kernel: "/nonexistent/vmlinux".into(),
        initramfs: "/nonexistent/initramfs".into(),
        kernel_args: Vec::new(),
        vcpu_count: 1,
        memory_mib: 128,
        drives: Vec::new(),
        network: banger_core::vmm::NetworkPlan::None,
    }
}

fn tcg(dir: &Path, program: impl Into<PathBuf>) -> QemuDriver {
    let mut config = QemuConfig::new(dir.to_owned());
    config.accelerator = AcceleratorChoice::Tcg;
    config.program = program.into();
    config.launch_timeout = Duration::from_millis(500);
    QemuDriver::new(config)
}

async fn refused(driver: &QemuDriver, plan: &LaunchPlan) -> VmmError {
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
    let program = impostor(dir.path(), "echo the disk is on fire >&2; exit 3");
    let error = refused(&tcg(dir.path(), program), &bare_plan(dir.path())).await;
    let VmmError::EndedEarly { detail } = error else {
        panic!("{error:?}");
    };
    assert!(detail.contains("the disk is on fire"), "{detail}");
}

#[tokio::test]
async fn a_qemu_that_never_answers_ends_at_the_deadline_and_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let program = impostor(dir.path(), "exec sleep 60");
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
    let program = impostor(dir.path(), "exec sleep 60");
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
    assert!(matches!(
        machine.power_button().await,
        Err(VmmError::Control { .. })
    ));
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
async fn a_read_only_disk_is_shared_and_a_writable_one_is_not() {
    let bench = bench!("a_read_only_disk_is_shared_and_a_writable_one_is_not");
    let disk = |name: &str| {
        let path = bench.vms_dir().join(name);
        fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
        path
    };
    let (base, upper) = (disk("base, with=comma"), disk("upper"));
    let drives = vec![
        Drive {
            path: base.clone(),
            access: DriveAccess::ReadOnly,
            serial: "base".into(),
        },
        Drive {
            path: upper.clone(),
            access: DriveAccess::ReadWrite,
            serial: "upper".into(),
        },
    ];
    let driver = bench.driver();
    let first = LaunchPlan {
        drives: drives.clone(),
        ..bench.plan("echo")
    };
    let machine = launched(&driver, &first).await;
    let second = LaunchPlan {
        drives: drives.clone(),
        ..bench.plan("echo")
    };
    let error = driver.launch(&second, &|_identity| Ok(())).await.err();
    assert!(
        matches!(&error, Some(VmmError::EndedEarly { detail }) if detail.contains("lock")),
        "{error:?}"
    );
    let third = LaunchPlan {
        drives: drives[..1].to_vec(),
        ..bench.plan("echo")
    };
    let other = launched(&driver, &third).await;
    let mut channel = opened(&machine).await;
    assert_eq!(asked(&mut channel, "!write,vda").await, "refused");
    assert_eq!(asked(&mut channel, "!write,vdb").await, "written");
    assert_eq!(asked(&mut channel, "!serial,vda").await, "base");
    assert_eq!(asked(&mut channel, "!serial,vdb").await, "upper");
    killed(&machine).await;
    killed(&other).await;
    assert_eq!(
        fs::metadata(&base).unwrap().blocks(),
        0,
        "nothing reached the base disk"
    );
    assert!(
        fs::read(&upper).unwrap().starts_with(b"written"),
        "the kill lost nothing"
    );
}

async fn asked(channel: &mut banger_core::guest::BoxedChannel, question: &str) -> String {
    channel
        .write_all(format!("{question}\n").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        answer.push(timeout(STEP, channel.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8_lossy(&answer).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_boot_at_the_same_time_all_boot() {
    let bench = bench!("guests_that_boot_at_the_same_time_all_boot");
    let driver = bench.driver();
    let boots = (0..4).map(|_| async {
        let begin = Instant::now();
        let machine = launched(&driver, &bench.plan("echo")).await;
        let mut channel = opened(&machine).await;
        echoes(&mut channel, "up\n").await;
        println!("parallel boot of 4: {:?}", begin.elapsed());
        machine
    });
    for machine in futures::future::join_all(boots).await {
        killed(&machine).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_accelerator_is_found_by_booting_once_and_remembered() {
    let bench = bench!("the_accelerator_is_found_by_booting_once_and_remembered");
    let mut config = bench.config();
    config.accelerator = AcceleratorChoice::Auto;
    let driver = bench.driver_with(config.clone());
    let guest = bench.guest.clone();
    let probe = || timeout(BOOT, driver.probe(&guest.kernel, &guest.initramfs));
    let begin = Instant::now();
    let (first, second) = tokio::join!(probe(), probe());
    let info = first.unwrap().unwrap();
    let took = begin.elapsed();
    println!("probe: {took:?} {info:?}");
    assert_eq!(info, second.unwrap().unwrap());
    assert!(
        took < config.probe_timeout + Duration::from_secs(5),
        "{took:?}: the try is shared"
    );
    assert_eq!(
        info.accelerator == Accelerator::Tcg,
        info.accelerator_warning.is_some()
    );
    assert_eq!(find_strays(bench.vms_dir()).unwrap(), []);
    let left: Vec<_> = fs::read_dir(bench.vms_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        left.iter().all(|name| name == "accelerators.json"),
        "{left:?}"
    );
    // A later daemon remembers, and so does the same one.
    let begin = Instant::now();
    assert_eq!(probe().await.unwrap().unwrap(), info);
    assert!(begin.elapsed() < GLIMPSE);
    let later = bench.driver_with(config);
    let begin = Instant::now();
    assert_eq!(
        later.probe(&guest.kernel, &guest.initramfs).await.unwrap(),
        info
    );
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_probe_that_is_dropped_leaves_nothing() {
    let bench = bench!("a_probe_that_is_dropped_leaves_nothing");
    let mut config = bench.config();
    config.accelerator = AcceleratorChoice::Auto;
    let driver = bench.driver_with(config);
    let probe = driver.probe(&bench.guest.kernel, &bench.guest.initramfs);
    let _ = timeout(Duration::from_millis(400), probe).await;
    drop(driver);
    let gone = async {
        while !find_strays(bench.vms_dir()).unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(STEP, gone).await.expect("the try is ended");
}

/// QEMU with some of its arguments replaced: pairs of the old one and the new one.
fn altered(dir: &Path, name: &str, replacements: &[(&str, &str)], kernel_words: &str) -> PathBuf {
    let cases: String = replacements
        .iter()
        .map(|(old, new)| format!("'{old}') arg='{new}' ;;\n"))
        .collect();
    let script = format!(
        "#!/bin/sh\nfor arg do\nshift\ncase \"$arg\" in\n{cases}console=*) arg=\"$arg {kernel_words}\" ;;\nesac\n\
         set -- \"$@\" \"$arg\"\ndone\nexec qemu-system-x86_64 \"$@\"\n"
    );
    let path = dir.join(name);
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Whether this user may open the device; a line says so where not.
fn kvm_opens(rule: &str) -> bool {
    let opens = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    if !opens {
        println!("SKIPPED {rule}: /dev/kvm does not open");
    }
    opens
}

#[tokio::test]
async fn a_guest_that_hangs_under_kvm_means_tcg_at_the_deadline() {
    let rule = "a_guest_that_hangs_under_kvm_means_tcg_at_the_deadline";
    let bench = bench!("a_guest_that_hangs_under_kvm_means_tcg_at_the_deadline");
    if !kvm_opens(rule) {
        return;
    }
    let program_dir = tempfile::tempdir().unwrap();
    // In place of KVM, an accelerator under which the guest stays silent on every host.
    let silent = [
        ("kvm", "tcg"),
        ("host", "max"),
        (
            "virtserialport,chardev=agent,name=banger.agent,nr=1",
            "virtserialport,chardev=agent,name=other,nr=1",
        ),
    ];
    let mut config = bench.config();
    config.accelerator = AcceleratorChoice::Auto;
    config.program = altered(program_dir.path(), "silent", &silent, "");
    config.probe_timeout = Duration::from_secs(2);
    let driver = bench.driver_with(config.clone());
    let begin = Instant::now();
    let info = driver
        .probe(&bench.guest.kernel, &bench.guest.initramfs)
        .await
        .unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(info.accelerator, Accelerator::Tcg);
    assert!(info.accelerator_warning.unwrap().contains("within 2s"));
    assert_eq!(find_strays(bench.vms_dir()).unwrap(), []);
    config.accelerator = AcceleratorChoice::Kvm;
    let strict = bench.driver_with(config);
    let answer = strict
        .probe(&bench.guest.kernel, &bench.guest.initramfs)
        .await;
    assert!(
        matches!(answer, Err(VmmError::NoAccelerator { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn an_accelerator_under_which_the_agent_speaks_is_used() {
    let rule = "an_accelerator_under_which_the_agent_speaks_is_used";
    let bench = bench!("an_accelerator_under_which_the_agent_speaks_is_used");
    if !kvm_opens(rule) {
        return;
    }
    let program_dir = tempfile::tempdir().unwrap();
    let mut config = bench.config();
    config.accelerator = AcceleratorChoice::Auto;
    // Translated, though the driver believes in KVM: such a guest must be told its clock's frequency.
    let replacements = [("kvm", "tcg"), ("host", "max")];
    let words = "tsc=reliable tsc_early_khz=2500000";
    config.program = altered(program_dir.path(), "works", &replacements, words);
    let driver = bench.driver_with(config);
    let info = driver
        .probe(&bench.guest.kernel, &bench.guest.initramfs)
        .await
        .unwrap();
    assert_eq!(
        (info.accelerator, info.accelerator_warning),
        (Accelerator::Kvm, None)
    );
}

/// What the driver gives a translated guest.
const TCG_CPU: &str = "max,erms=off";

/// Prints figures: run with `--ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn measure_boots() {
    let bench = bench!("measure_boots");
    let program_dir = tempfile::tempdir().unwrap();
    let mut variants = Vec::new();
    for cpu in std::env::var("BANGER_TEST_CPUS")
        .unwrap_or_else(|_| TCG_CPU.into())
        .split(' ')
    {
        let mut config = bench.config();
        config.program = altered(
            program_dir.path(),
            &cpu.replace([',', '='], "_"),
            &[(TCG_CPU, cpu)],
            "",
        );
        variants.push((cpu.to_owned(), bench.driver_with(config), Vec::new()));
    }
    for _ in 0..7 {
        for (cpu, driver, times) in &mut variants {
            let driver: Arc<dyn Vmm> = Arc::clone(driver) as _;
            driver
                .probe(&bench.guest.kernel, &bench.guest.initramfs)
                .await
                .unwrap();
            let begin = Instant::now();
            let machine = launched(&driver, &bench.plan("echo")).await;
            let launch = begin.elapsed();
            let mut channel = opened(&machine).await;
            times.push((begin.elapsed(), launch));
            println!(
                "{cpu}: {:?} copy {}",
                times.last().unwrap(),
                asked(&mut channel, "!copy").await
            );
            killed(&machine).await;
        }
    }
    for (cpu, _, times) in &mut variants {
        times.sort_unstable();
        println!(
            "{cpu}: launch to channel ready: min {:?} median {:?}; launch alone in the median {:?}",
            times[0].0, times[3].0, times[3].1
        );
    }
}
