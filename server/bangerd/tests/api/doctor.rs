//! The doctor: what it tells, what it mends, what it leaves alone, and what the documents say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use banger_core::VmId;
use banger_core::vmm::{LaunchPlan, NetworkPlan, Vmm as _};
use banger_proto::v1;
use banger_proto::v1::doctor_check::Status;
use banger_proto::v1::doctor_response::Message;
use banger_vmm::{
    AutoDriver, DriverChoice, FirecrackerConfig, FirecrackerDriver, QemuConfig, QemuDriver,
};
use tonic::Code;

use crate::rig::{Rig, assert_refused, drain};

/// The check that the command makes by itself.
const COMMANDS_OWN: &str = "DAEMON_REACHABLE";
/// The documents hold these, and more.
const CHECKS_AT_LEAST: usize = 40;

async fn look(rig: &Rig, fix: bool, checks: &[&str]) -> Vec<v1::DoctorResponse> {
    let request = v1::DoctorRequest {
        fix,
        checks: checks.iter().map(|&id| id.to_owned()).collect(),
    };
    let told = rig.hosts().doctor(request).await.unwrap();
    drain(told.into_inner()).await.unwrap()
}

fn checks(told: Vec<v1::DoctorResponse>) -> BTreeMap<String, v1::DoctorCheck> {
    let checks = told
        .into_iter()
        .filter_map(|response| match response.message {
            Some(Message::Check(check)) => Some((check.id.clone(), check)),
            _ => None,
        });
    checks.collect()
}

/// The only check that was asked for.
async fn one(rig: &Rig, fix: bool, id: &str) -> v1::DoctorCheck {
    checks(look(rig, fix, &[id]).await).remove(id).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_is_told_once_and_then_their_sum() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let told = look(&rig, false, &[]).await;
    for (index, response) in told.iter().enumerate() {
        assert_eq!(response.sequence, i64::try_from(index + 1).unwrap());
    }
    let Some(Message::Summary(summary)) = told.last().unwrap().message.clone() else {
        panic!("the last message is {:?}", told.last());
    };
    let count = told
        .iter()
        .filter(|told| matches!(told.message, Some(Message::Check(_))))
        .count();
    let checks = checks(told);
    assert_eq!(count, checks.len(), "each once");
    let sum = summary.ok_count
        + summary.warning_count
        + summary.problem_count
        + summary.skipped_count
        + summary.fixed_count;
    assert_eq!(usize::try_from(sum).unwrap(), checks.len());
    let positions: BTreeSet<i32> = checks.values().map(|check| check.position).collect();
    assert_eq!(positions.len(), checks.len());
    for check in checks.values() {
        let is_bad = matches!(check.status(), Status::Warning | Status::Problem);
        assert_eq!(is_bad, !check.cause.is_empty(), "{check:?}");
        assert!(is_bad || !check.fixable, "{check:?}");
        assert!(!check.found.is_empty() && !check.title.is_empty() && check.took.is_some());
        assert_ne!(check.status(), Status::Fixed, "nobody asked");
    }
    for id in [
        "DEFAULT_KERNEL",
        "DATABASE_INTEGRITY",
        "IMAGES_PRESENT",
        "STATE_DIRECTORIES",
        "SOCKET_MODE",
    ] {
        assert_eq!(checks[id].status(), Status::Ok, "{:?}", checks[id]);
    }
    assert_eq!(
        checks["AGENT_PRESENT"].status(),
        Status::Problem,
        "a text is no agent"
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_of_kernels_and_images_is_a_problem() {
    let rig = Rig::start().await;
    assert_eq!(
        one(&rig, false, "DEFAULT_KERNEL").await.status(),
        Status::Problem
    );
    assert_eq!(
        one(&rig, false, "IMAGES_PRESENT").await.status(),
        Status::Warning
    );
    assert_eq!(
        one(&rig, false, "KVM_BOOTS_GUEST").await.status(),
        Status::Skipped
    );
    rig.furnish().await;
    let state = rig.dir.path().join("state");
    for dir in ["rootfs", "kernels"] {
        std::fs::remove_dir_all(state.join(dir)).unwrap();
    }
    assert_eq!(
        one(&rig, false, "DEFAULT_KERNEL").await.status(),
        Status::Problem
    );
    assert_eq!(
        one(&rig, false, "IMAGES_PRESENT").await.status(),
        Status::Problem
    );
    assert_eq!(
        one(&rig, false, "STATE_DIRECTORIES").await.status(),
        Status::Problem
    );
    let made = one(&rig, true, "STATE_DIRECTORIES").await;
    assert_eq!(made.status(), Status::Fixed);
    assert!(made.changed.contains("rootfs") && state.join("kernels").is_dir());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_too_wide_are_told_and_mended_only_if_asked() {
    let rig = Rig::start().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (state, socket) = (rig.dir.path().join("state"), rig.dir.path().join("s"));
    for (id, path, wide, narrow) in [
        ("STATE_PERMISSIONS", &state, 0o755, 0o700),
        ("SOCKET_MODE", &socket, 0o666, mode(&socket)),
    ] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(wide)).unwrap();
        let told = one(&rig, false, id).await;
        assert!(
            matches!(told.status(), Status::Warning | Status::Problem),
            "{told:?}"
        );
        assert!(told.fixable && told.changed.is_empty() && mode(path) == wide);
        let mended = one(&rig, true, id).await;
        assert_eq!(mended.status(), Status::Fixed, "{mended:?}");
        assert!(!mended.changed.is_empty() && !mended.fixable);
        assert_eq!(mode(path), narrow);
        assert_eq!(
            one(&rig, true, id).await.status(),
            Status::Ok,
            "twice does no harm"
        );
    }
    rig.stopped().await;
}

fn plan(vm: VmId, dir: &Path) -> LaunchPlan {
    LaunchPlan {
        vm,
        dir: dir.join(vm.to_string()),
        kernel: "/k".into(),
        initramfs: "/i".into(),
        kernel_args: Vec::new(),
        vcpu_count: 1,
        memory_mib: 64,
        drives: Vec::new(),
        network: NetworkPlan::None,
        limits: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_record_owns_is_removed_and_living_vms_are_left_alone() {
    const LEFTOVERS: [&str; 7] = [
        "LEFTOVER_PROCESSES",
        "LEFTOVER_VM_DIRECTORIES",
        "LEFTOVER_VOLUMES",
        "LEFTOVER_KERNELS",
        "LEFTOVER_IMAGE_FILES",
        "LEFTOVER_TEMPORARY_FILES",
        "LEFTOVER_CGROUPS",
    ];
    let rig = Rig::start().await;
    rig.furnish().await;
    let kept = rig.create("web").await.unwrap();
    let state = rig.dir.path().join("state");
    for check in checks(look(&rig, true, &LEFTOVERS).await).values() {
        assert_eq!(
            check.status(),
            Status::Ok,
            "nothing is left over yet: {check:?}"
        );
    }
    let stray = VmId::new();
    let vms = state.join("vms");
    std::fs::create_dir(vms.join(stray.to_string())).unwrap();
    rig.host
        .driver()
        .launch(&plan(stray, &vms), &|_| Ok(()))
        .await
        .unwrap();
    std::fs::write(vms.join("not-a-vm"), "x").unwrap();
    let volume = make_volume(&rig, "data").await;
    let volumes = state.join("volumes");
    std::fs::create_dir(volumes.join(banger_core::VolumeId::new().to_string())).unwrap();
    std::fs::write(volumes.join("not-a-volume"), "x").unwrap();
    let kernel = state
        .join("kernels")
        .join(banger_core::KernelId::new().to_string());
    std::fs::create_dir(&kernel).unwrap();
    std::fs::write(state.join("blobs/sha256").join("0".repeat(64)), "x").unwrap();
    let old = std::fs::File::create(state.join("tmp/old")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    let told = checks(look(&rig, false, &LEFTOVERS).await);
    for id in &LEFTOVERS[..6] {
        assert_eq!(told[*id].status(), Status::Warning, "{:?}", told[*id]);
        assert!(told[*id].fixable);
    }
    assert_eq!(rig.host.living().len(), 2, "it only tells");
    let mended = checks(look(&rig, true, &LEFTOVERS).await);
    for id in &LEFTOVERS[..6] {
        assert_eq!(mended[*id].status(), Status::Fixed, "{:?}", mended[*id]);
    }
    let kept: VmId = kept.id.parse().unwrap();
    assert_eq!(rig.host.living(), [kept]);
    let names = |dir: &Path| -> Vec<_> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(&vms), [kept.to_string().as_str()]);
    assert_eq!(names(&volumes), [volume.as_str()]);
    assert!(!kernel.exists() && !state.join("tmp/old").exists());
    assert_eq!(
        one(&rig, false, "IMAGES_PRESENT").await.status(),
        Status::Ok
    );
    assert_eq!(
        one(&rig, false, "DEFAULT_KERNEL").await.status(),
        Status::Ok
    );
    rig.stopped().await;
}

/// The id of a volume that is made.
async fn make_volume(rig: &Rig, name: &str) -> String {
    let request = v1::CreateVolumeRequest {
        name: name.into(),
        size_mib: 64,
        ..Default::default()
    };
    let answers = rig.volumes().create_volume(request).await.unwrap();
    let made = drain(answers.into_inner()).await.unwrap().pop();
    match made.unwrap().message.unwrap() {
        v1::create_volume_response::Message::Volume(volume) => volume.id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_disk_is_gone_or_damaged_is_a_problem_and_stays() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let disk = |id: &str| {
        let volumes = rig.dir.path().join("state/volumes");
        volumes.join(id).join("disk.ext4")
    };
    let data = make_volume(&rig, "data").await;
    make_volume(&rig, "home").await;
    let well = one(&rig, false, "VOLUMES_WHOLE").await;
    assert_eq!(
        (well.status(), well.found.as_str()),
        (Status::Ok, "2 volumes")
    );
    let cut = std::fs::File::options()
        .write(true)
        .open(disk(&data))
        .unwrap();
    cut.set_len(1 << 20).unwrap();
    let damaged = one(&rig, true, "VOLUMES_WHOLE").await;
    assert_eq!(damaged.status(), Status::Problem);
    assert!(
        damaged.found.starts_with("1 volumes are damaged: data ("),
        "{damaged:?}"
    );
    std::fs::remove_file(disk(&data)).unwrap();
    let lost = one(&rig, true, "VOLUMES_WHOLE").await;
    assert_eq!(
        (lost.status(), lost.found.as_str()),
        (Status::Problem, "the disks of 1 volumes are gone: data")
    );
    assert!(!lost.fixable && !lost.remedy.is_empty());
    // What it advises mends it.
    let remove = v1::DeleteVolumeRequest {
        volume: "data".into(),
        ..Default::default()
    };
    rig.volumes().delete_volume(remove).await.unwrap();
    assert_eq!(one(&rig, false, "VOLUMES_WHOLE").await.status(), Status::Ok);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_looked_at_where_the_daemon_has_some() {
    let rig = Rig::start().await;
    for id in ["LISTEN_ADDRESSES", "LISTEN_PORTS_RESERVED"] {
        assert_eq!(one(&rig, false, id).await.status(), Status::Skipped);
    }
    let local = one(&rig, false, "LOCAL_PORTS").await;
    assert!(
        local.status() == Status::Ok || local.status() == Status::Warning,
        "{local:?}"
    );
    assert!(local.found.contains(" in use ("), "{local:?}");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_there_is_none_of_is_refused() {
    let rig = Rig::start().await;
    for ids in [
        vec!["NO_SUCH_CHECK".to_owned()],
        vec!["SWAP".to_owned(); 257],
    ] {
        let request = v1::DoctorRequest {
            fix: true,
            checks: ids,
        };
        let refused = rig.hosts().doctor(request).await.unwrap_err();
        assert_refused(
            &refused,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some("checks"),
        );
    }
    let twice = look(&rig, false, &["SWAP", "SWAP"]).await;
    assert_eq!(twice.len(), 2, "a check is made once");
    rig.stopped().await;
}

/// `docs/doctor.md` has one row for each check, with its id and what it asserts, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn every_check_is_documented_and_nothing_else_is() {
    let rig = Rig::start().await;
    let mut expected: BTreeMap<String, String> = checks(look(&rig, false, &[]).await)
        .into_iter()
        .map(|(id, check)| (id, check.title))
        .collect();
    let state = rig.dir.path().to_owned();
    let driver = AutoDriver::new(
        DriverChoice::Auto,
        QemuDriver::new(QemuConfig::new(state.clone())),
        FirecrackerDriver::new(FirecrackerConfig::new(state)),
    );
    for diagnosis in driver.diagnose() {
        expected.insert(diagnosis.id.to_owned(), diagnosis.title.to_owned());
    }
    expected.insert(COMMANDS_OWN.to_owned(), "The daemon answers".to_owned());
    assert!(expected.len() >= CHECKS_AT_LEAST, "{}", expected.len());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/doctor.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let id = cells.next()?.strip_suffix('`')?;
        let is_id = id
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        is_id.then(|| Some((id.to_owned(), cells.next()?.to_owned())))?
    });
    let documented: BTreeMap<String, String> = rows.collect();
    assert_eq!(documented, expected);
    rig.stopped().await;
}
