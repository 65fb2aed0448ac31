//! The contract once more, with each Firecracker in its jail; and what a jail is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use banger_core::VmId;
use banger_core::vmm::{Drive, DriveAccess, LaunchPlan, ProcessLimits, Vmm, VmmError, VmmExit};
use banger_vmm::CgroupChoice;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Firecracker, JAILER, made, named};
use crate::guest::skipped;
use crate::impostor::refused;
use crate::rules::{
    Bench, GLIMPSE, STEP, asked, echoes, ended, killed, launched, opened, strays, suite,
};

/// With a jail.
fn jailed(rule: &str) -> Option<Firecracker> {
    let jailer = named(JAILER, rule)?;
    if !rustix::process::geteuid().is_root() {
        skipped(rule, "only root can use the jailer");
        return None;
    }
    made(rule, jailer)
}

suite!(jailed);

/// A base disk, shared with the other VMs of the bench, and an upper one.
fn give_disks(plan: &mut LaunchPlan) {
    let base = plan.dir.parent().unwrap().join("base");
    let upper = plan.dir.join("upper");
    for path in [&base, &upper] {
        fs::File::create(path).unwrap().set_len(1 << 20).unwrap();
    }
    let drive = |path, access, serial: &str| Drive {
        path,
        access,
        serial: serial.into(),
    };
    plan.drives = vec![
        drive(base, DriveAccess::ReadOnly, "base"),
        drive(upper, DriveAccess::ReadWrite, "upper"),
    ];
}

/// A line of `/proc/<pid>/status`.
fn status(pid: u32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jail_is_a_user_and_a_root_of_its_own_and_goes_with_its_process() {
    let rule = "a_jail_is_a_user_and_a_root_of_its_own_and_goes_with_its_process";
    let Some(bench) = jailed(rule) else { return };
    let driver = bench.driver();
    let mut plans = [bench.plan("mute"), bench.plan("mute")];
    plans.iter_mut().for_each(give_disks);
    let machines = [
        launched(&driver, &plans[0]).await,
        launched(&driver, &plans[1]).await,
    ];
    let mut users = Vec::new();
    for (machine, plan) in machines.iter().zip(&plans) {
        let pid = machine.identity().pid;
        let uids = status(pid, "Uid");
        let uid: u32 = uids.split_whitespace().next().unwrap().parse().unwrap();
        assert!(bench.config().jail_users.contains(&uid), "{uids}");
        assert_eq!(status(pid, "CapEff"), "0000000000000000");
        assert_eq!(status(pid, "Seccomp"), "2", "its filters are on");
        assert_eq!(fs::metadata(plan.dir.join("upper")).unwrap().uid(), uid);
        let root = fs::metadata(format!("/proc/{pid}/root")).unwrap();
        assert_ne!(root.ino(), fs::metadata("/").unwrap().ino());
        let names: Vec<String> = fs::read_dir(format!("/proc/{pid}/root"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        assert!(names.iter().any(|name| name == "drive1"), "{names:?}");
        users.push(uid);
    }
    assert_ne!(users[0], users[1]);
    assert_eq!(
        strays(&driver, &plans[0]).await.len(),
        2,
        "found without a path"
    );
    for (machine, plan) in machines.iter().zip(&plans) {
        killed(machine).await;
        assert!(!plan.dir.join("jail").exists());
        assert!(plan.dir.join("upper").exists());
        ended(machine).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_cgroup_limits_threads_the_jails_user_has_no_more() {
    let rule = "where_no_cgroup_limits_threads_the_jails_user_has_no_more";
    let Some(bench) = jailed(rule) else { return };
    let mut config = bench.config();
    config.cgroups = CgroupChoice::Off;
    let driver: Arc<dyn Vmm> = bench.driver_with(config);
    let plan = LaunchPlan {
        vcpu_count: 4,
        limits: Some(ProcessLimits::of(4, 128, 512)),
        ..bench.plan("mute")
    };
    let machine = launched(&driver, &plan).await;
    let pid = machine.identity().pid;
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |row: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(row));
        let mut words = line.unwrap().split_whitespace();
        (words.next().unwrap(), words.next().unwrap())
    };
    assert_eq!(limit("Max processes"), ("100", "100"));
    // Its own thread, the API's and four vCPUs'; KVM may add one of its own.
    let threads: u32 = status(pid, "Threads").parse().unwrap();
    assert!((6..20).contains(&threads), "{threads}");
    // The jailer lowers it once more.
    assert_eq!(limit("Max open files"), ("2048", "2048"));
    assert_eq!(limit("Max core file size"), ("0", "0"));
    killed(&machine).await;
    // It binds: the second of its vCPUs would be the fourth thread.
    let mut plan = LaunchPlan {
        vm: VmId::new(),
        ..plan
    };
    plan.limits.as_mut().unwrap().thread_count = 3;
    let error = refused(&*driver, &plan).await;
    assert!(
        matches!(
            error,
            VmmError::Refused { .. } | VmmError::EndedEarly { .. }
        ),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_silent_is_adopted_measured_and_killed_all_the_same() {
    let rule = "one_that_is_silent_is_adopted_measured_and_killed_all_the_same";
    let Some(bench) = jailed(rule) else { return };
    let plan = bench.plan("mute");
    let machine = launched(&bench.driver(), &plan).await;
    let identity = machine.identity().clone();
    drop(machine);
    bench.end_daemon().await;
    let pid = Pid::from_raw(i32::try_from(identity.pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();

    let mut config = bench.config();
    config.control_timeout = GLIMPSE;
    let driver = bench.driver_with(config);
    let adopted = driver.adopt(plan.vm, &plan.dir, &identity);
    let adopted = timeout(STEP, adopted).await.unwrap().unwrap();
    let machine = adopted.unwrap();
    assert!(machine.pause().await.is_err());
    let metrics = machine.metrics().await.unwrap();
    assert!(metrics.rss_bytes > 0 && metrics.drives.is_empty());
    killed(&machine).await;
    assert!(!plan.dir.join("jail").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_from_boot_over_pause_growth_and_another_daemon_to_power_off() {
    let rule = "a_life_from_boot_over_pause_growth_and_another_daemon_to_power_off";
    let Some(bench) = jailed(rule) else { return };
    let driver = bench.driver();
    let mut plan = bench.plan("echo");
    give_disks(&mut plan);
    let machine = launched(&driver, &plan).await;
    let identity = machine.identity().clone();
    let mut channel = opened(&machine).await;

    // Disks: read-only is the host's word.
    assert_eq!(asked(&mut channel, "!write,vda").await, "refused");
    assert_eq!(asked(&mut channel, "!write,vdb").await, "written");
    let metrics = machine.metrics().await.unwrap();
    let [base, upper] = &metrics.drives[..] else {
        panic!("{metrics:?}");
    };
    assert_eq!((base.serial.as_str(), base.written_bytes), ("base", 0));
    assert!(upper.serial == "upper" && upper.write_operations > 0);
    assert!(metrics.rss_bytes > 0 && metrics.pss_bytes.is_some());

    // Held, it does nothing; twice is once.
    machine.pause().await.unwrap();
    machine.pause().await.unwrap();
    channel.write_all(b"while paused\n").await.unwrap();
    assert!(timeout(GLIMPSE, channel.read_u8()).await.is_err());
    machine.resume().await.unwrap();
    machine.resume().await.unwrap();
    let mut answer = [0; 13];
    timeout(STEP, channel.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"while paused\n");

    // Growth: the guest sees it at once, and a disk that does not have the size is none.
    assert_eq!(asked(&mut channel, "!size,vdb").await, "2048");
    assert!(machine.grow_drive("upper", 2 << 20).await.is_err());
    let file = fs::File::options().write(true).open(plan.dir.join("upper"));
    file.unwrap().set_len(2 << 20).unwrap();
    machine.grow_drive("upper", 2 << 20).await.unwrap();
    assert_eq!(asked(&mut channel, "!size,vdb").await, "4096");
    assert!(machine.grow_drive("volume", 1).await.is_err());

    // Another daemon.
    drop((channel, machine, driver));
    bench.end_daemon().await;
    let driver = bench.driver();
    assert_eq!(strays(&driver, &plan).await, [(plan.vm, identity.clone())]);
    let machine = driver
        .adopt(plan.vm, &plan.dir, &identity)
        .await
        .unwrap()
        .unwrap();
    let mut channel = opened(&machine).await;
    echoes(&mut channel, "second daemon\n").await;
    assert_eq!(machine.metrics().await.unwrap().drives.len(), 2);
    channel.write_all(b"!poweroff\n").await.unwrap();
    assert_eq!(ended(&machine).await, VmmExit::GuestPowerOff);
    assert!(!plan.dir.join("jail").exists());
    let disk = fs::read(plan.dir.join("upper")).unwrap();
    assert_eq!((&disk[..7], disk.len()), (&b"written"[..], 2 << 20));
}
