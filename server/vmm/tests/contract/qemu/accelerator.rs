//! Which accelerator is found, and how fast guests boot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use banger_core::vmm::{Accelerator, Vmm, VmmError};
use banger_vmm::AcceleratorChoice;
use banger_vmm::process::find_strays;
use tokio::time::timeout;

use super::qemu;
use crate::guest::skipped;
use crate::rules::{BOOT, Bench, GLIMPSE, STEP, asked, echoes, killed, launched, opened};

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
        skipped(rule, "/dev/kvm does not open");
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
