//! What a guest and its QEMU can reach: disks, network, descriptors.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use banger_core::vmm::{Drive, DriveAccess, LaunchPlan, NetworkPlan, VmmError};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::qemu;
use crate::rules::{Bench, STEP, asked, killed, launched, opened};

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

#[tokio::test]
async fn a_qemu_leads_its_own_session_and_inherits_nothing() {
    let bench = bench!("a_qemu_leads_its_own_session_and_inherits_nothing");
    let leaked = tempfile::NamedTempFile::new().unwrap();
    // As a careless library would open it: kept open over exec.
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let plan = bench.plan("echo");
    let machine = launched(&bench.driver(), &plan).await;
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::CLOEXEC).unwrap();
    let pid = machine.identity().pid;
    let proc = Path::new("/proc").join(pid.to_string());
    for entry in fs::read_dir(proc.join("fd")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap();
        assert_ne!(target, leaked.path());
        let is_known = target.starts_with("/dev")
            || target == plan.dir.join("vmm.log")
            || target == plan.drives[0].path;
        let is_anonymous = !target.is_absolute();
        assert!(is_known || is_anonymous, "{target:?}");
    }
    assert!(leaked.as_raw_fd() > 2);
    let stat = fs::read_to_string(proc.join("stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let pid = pid.to_string();
    assert_eq!(
        (fields[2], fields[3]),
        (pid.as_str(), pid.as_str()),
        "process group and session"
    );
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), plan.dir);
    let status = fs::read_to_string(proc.join("status")).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    killed(&machine).await;
}

#[tokio::test]
async fn the_power_button_is_pressed_and_may_be_ignored() {
    let bench = bench!("the_power_button_is_pressed_and_may_be_ignored");
    let machine = launched(&bench.driver(), &bench.plan("echo")).await;
    let mut channel = opened(&machine).await;
    machine.power_button().await.unwrap();
    assert_eq!(asked(&mut channel, "still here").await, "still here");
    killed(&machine).await;
}

#[tokio::test]
async fn the_user_network_carries_connections() {
    let bench = bench!("the_user_network_carries_connections");
    // The gateway's address stands for the host's loopback: see the driver's documentation.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let plan = LaunchPlan {
        network: NetworkPlan::User,
        ..bench.plan("echo")
    };
    let machine = launched(&bench.driver(), &plan).await;
    let mut channel = opened(&machine).await;
    let question = format!("!connect,10.0.2.2:{port}");
    let (answer, accepted) = tokio::join!(asked(&mut channel, &question), async {
        let (mut stream, _peer) = timeout(STEP, listener.accept()).await.unwrap().unwrap();
        stream.write_all(b"from the host\n").await.unwrap();
    });
    assert_eq!((answer.as_str(), accepted), ("from the host", ()));
    killed(&machine).await;
}

#[tokio::test]
async fn a_vm_without_network_has_none() {
    let bench = bench!("a_vm_without_network_has_none");
    let machine = launched(&bench.driver(), &bench.plan("echo")).await;
    let mut channel = opened(&machine).await;
    let answer = timeout(
        Duration::from_secs(10),
        asked(&mut channel, "!connect,10.0.2.2:9"),
    )
    .await;
    assert_eq!(answer.unwrap(), "no network");
    killed(&machine).await;
}
