//! What goes wrong with real processes, and impostors in their place: most of it needs no Firecracker.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_core::Explain;
use banger_core::vmm::{Drive, DriveAccess, LaunchPlan, NetworkPlan, VmmError};
use banger_vmm::process::{find_strays, kill_exactly};
use banger_vmm::{FirecrackerConfig, FirecrackerDriver};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::bare;
use crate::impostor::{bare_plan, impostor, refused};
use crate::rules::{Bench, STEP, killed, launched};

/// What an impostor says of itself.
const VERSION: &str = "Firecracker v9.9.9";

fn driver(dir: &Path, program: impl Into<PathBuf>) -> FirecrackerDriver {
    let mut config = FirecrackerConfig::new(dir.to_owned());
    config.program = program.into();
    config.jailer = PathBuf::new();
    config.launch_timeout = Duration::from_secs(2);
    FirecrackerDriver::new(config)
}

#[tokio::test]
async fn a_missing_firecracker_names_the_key_and_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let error = refused(
        &driver(dir.path(), "/nonexistent/fc"),
        &bare_plan(dir.path()),
    )
    .await;
    assert_eq!(error.reason(), "VMM_MISSING");
    let remedy = error.remedy().unwrap();
    assert!(
        remedy.contains("`firecracker`") && remedy.contains("qemu"),
        "{remedy}"
    );
}

#[tokio::test]
async fn the_user_mode_network_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let program = impostor(dir.path(), VERSION, "exit 1");
    let plan = LaunchPlan {
        network: NetworkPlan::User,
        ..bare_plan(dir.path())
    };
    let error = refused(&driver(dir.path(), program), &plan).await;
    assert!(
        matches!(
            error,
            VmmError::Unsupported {
                driver: "firecracker",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.remedy().unwrap().contains("--network none"));
}

#[tokio::test]
async fn names_of_disks_that_would_split_the_kernels_line_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let program = impostor(dir.path(), VERSION, "exit 1");
    let drive = Drive {
        path: "/nonexistent".into(),
        access: DriveAccess::ReadOnly,
        serial: "a init=/evil".into(),
    };
    let plan = LaunchPlan {
        drives: vec![drive],
        ..bare_plan(dir.path())
    };
    let error = refused(&driver(dir.path(), &program), &plan).await;
    assert!(matches!(error, VmmError::Refused { .. }), "{error:?}");
    let plan = LaunchPlan {
        kernel_args: vec!["x".repeat(2000)],
        ..bare_plan(dir.path())
    };
    let error = refused(&driver(dir.path(), &program), &plan).await;
    assert!(error.to_string().contains("command line"), "{error}");
}

#[tokio::test]
async fn a_firecracker_that_ends_at_once_is_explained_by_its_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let program = impostor(dir.path(), VERSION, "echo the disk is on fire >&2; exit 3");
    let error = refused(&driver(dir.path(), program), &bare_plan(dir.path())).await;
    let VmmError::EndedEarly { detail } = error else {
        panic!("{error:?}");
    };
    assert!(detail.contains("the disk is on fire"), "{detail}");
}

#[tokio::test]
async fn a_firecracker_that_never_answers_ends_at_the_deadline_and_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let program = impostor(dir.path(), VERSION, "exec sleep 60");
    let error = refused(&driver(dir.path(), program), &bare_plan(dir.path())).await;
    assert!(
        matches!(
            error,
            VmmError::Deadline {
                during: "its start",
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
    let error = refused(&driver(dir.path(), program), &bare_plan(dir.path())).await;
    assert!(matches!(error, VmmError::Spawn { .. }), "{error:?}");
}

#[tokio::test]
async fn a_vm_directory_that_is_gone_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let program = impostor(dir.path(), VERSION, "exec sleep 60");
    let plan = bare_plan(dir.path());
    fs::remove_dir_all(&plan.dir).unwrap();
    let error = refused(&driver(dir.path(), program), &plan).await;
    assert!(matches!(error, VmmError::Spawn { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_no_kernel_is_told_by_firecracker() {
    let bench = bench!(bare, "what_is_no_kernel_is_told_by_firecracker");
    let mut plan = bench.plan("echo");
    plan.kernel = plan.initramfs.clone();
    let error = refused(&*bench.driver_with(bench.config()), &plan).await;
    let VmmError::Refused { during, detail } = error else {
        panic!("{error:?}");
    };
    assert_eq!(during, "InstanceStart");
    assert!(detail.to_lowercase().contains("kernel"), "{detail}");
}

#[tokio::test]
async fn a_firecracker_that_is_killed_while_it_starts_is_told() {
    let bench = bench!(bare, "a_firecracker_that_is_killed_while_it_starts_is_told");
    let kill = |identity: &banger_core::vmm::ProcessIdentity| kill_exactly(identity).map(drop);
    let result = bench.driver().launch(&bench.plan("echo"), &kill).await;
    let error = result.err();
    assert!(
        matches!(&error, Some(VmmError::EndedEarly { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn sockets_that_an_earlier_firecracker_left_are_no_obstacle() {
    let bench = bench!(
        bare,
        "sockets_that_an_earlier_firecracker_left_are_no_obstacle"
    );
    let driver = bench.driver();
    let plan = bench.plan("mute");
    for _ in 0..2 {
        let machine = launched(&driver, &plan).await;
        killed(&machine).await;
        assert!(plan.dir.join("api.sock").exists(), "it leaves them");
    }
}

#[tokio::test]
async fn a_kernel_that_does_not_reach_its_agent_in_time_does_not_work_and_that_is_remembered() {
    let rule =
        "a_kernel_that_does_not_reach_its_agent_in_time_does_not_work_and_that_is_remembered";
    let Some(bench) = bare(rule) else { return };
    let plan = bench.plan("echo");
    let mut config = bench.config();
    config.probe_timeout = Duration::from_millis(300);
    let driver = bench.driver_with(config.clone());
    let detail = driver
        .works(&plan.kernel, &plan.initramfs)
        .await
        .unwrap()
        .unwrap_err();
    assert!(detail.contains("within 300ms"), "{detail}");
    assert_eq!(find_strays(plan.dir.parent().unwrap()).unwrap(), []);
    // A later daemon remembers, however long it would wait.
    config.probe_timeout = Duration::from_secs(600);
    let later = bench.driver_with(config);
    let again = later.works(&plan.kernel, &plan.initramfs);
    assert_eq!(timeout(STEP, again).await.unwrap().unwrap(), Err(detail));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firecracker_that_is_silent_is_measured_all_the_same_and_heard_again() {
    let rule = "a_firecracker_that_is_silent_is_measured_all_the_same_and_heard_again";
    let Some(bench) = bare(rule) else { return };
    let machine = launched(&bench.driver(), &bench.plan("mute")).await;
    let pid = i32::try_from(machine.identity().pid).unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    // More than once: what is asked in vain must not be in the way later.
    for _ in 0..3 {
        let metrics = timeout(STEP, machine.metrics()).await.unwrap().unwrap();
        assert!(metrics.rss_bytes > 0 && metrics.thread_count > 0);
        assert!(metrics.drives.is_empty(), "{metrics:?}");
    }
    kill_process(pid, Signal::CONT).unwrap();
    let heard = async {
        // On a busy host an answer may be late once more.
        while machine.metrics().await.unwrap().drives.len() != 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(STEP, heard).await.unwrap();
    killed(&machine).await;
}
