//! Volumes, and disks that grow.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use banger_core::vmm::{Drive, DriveAccess};
use banger_proto::v1;
use banger_vmm::FakeHost;
use banger_vmm::fake::Faults;
use tonic::{Code, Status};

use crate::agent::greet;
use crate::rig::{Rig, assert_refused, creation, drain, mask};

pub(crate) fn request(name: &str) -> v1::CreateVolumeRequest {
    v1::CreateVolumeRequest {
        name: name.into(),
        size_mib: 64,
        ..Default::default()
    }
}

fn seeded(name: &str, seed: &str) -> v1::CreateVolumeRequest {
    v1::CreateVolumeRequest {
        seed: seed.into(),
        size_mib: 0,
        ..request(name)
    }
}

/// What is made, and the stages that it took.
pub(crate) async fn make(
    rig: &Rig,
    request: v1::CreateVolumeRequest,
) -> Result<(v1::Volume, Vec<String>), Status> {
    use v1::create_volume_response::Message;
    let answers = rig.volumes().create_volume(request).await?.into_inner();
    let mut stages = Vec::new();
    let mut made = None;
    for answer in drain(answers).await? {
        match answer.message.unwrap() {
            Message::Operation(operation) => {
                stages = operation
                    .stages
                    .into_iter()
                    .map(|stage| stage.name)
                    .collect();
            }
            Message::Volume(volume) => made = Some(volume),
            Message::Heartbeat(_) => {}
        }
    }
    Ok((made.expect("the last message is the volume"), stages))
}

pub(crate) async fn get(rig: &Rig, volume: &str) -> Result<v1::Volume, Status> {
    let request = v1::GetVolumeRequest {
        volume: volume.into(),
    };
    let answer = rig.volumes().get_volume(request).await?;
    Ok(answer.into_inner().volume.unwrap())
}

pub(crate) async fn delete(rig: &Rig, volume: &str) -> Result<(), Status> {
    let request = v1::DeleteVolumeRequest {
        volume: volume.into(),
        ..Default::default()
    };
    rig.volumes().delete_volume(request).await.map(drop)
}

pub(crate) async fn grow(rig: &Rig, volume: &str, size_mib: i64) -> Result<v1::Volume, Status> {
    let request = v1::UpdateVolumeRequest {
        volume: volume.into(),
        size_mib,
        update_mask: Some(mask(&["size_mib"])),
        ..Default::default()
    };
    let answer = rig.volumes().update_volume(request).await?;
    Ok(answer.into_inner().volume.unwrap())
}

/// A VM with volumes, each as `name:path` or `name:path:ro`.
pub(crate) fn with(name: &str, volumes: &[&str]) -> v1::CreateVmRequest {
    let mut request = creation(name);
    request.spec.as_mut().unwrap().volumes = volumes
        .iter()
        .map(|text| {
            let mut parts = text.split(':');
            v1::VolumeMount {
                volume: parts.next().unwrap().into(),
                path: parts.next().unwrap().into(),
                read_only: parts.next().is_some(),
            }
        })
        .collect();
    request
}

pub(crate) fn disk(rig: &Rig, volume: &v1::Volume) -> PathBuf {
    rig.dir
        .path()
        .join("state/volumes")
        .join(&volume.id)
        .join("disk.ext4")
}

/// The names of what is in a directory of the state directory.
pub(crate) fn names(rig: &Rig, dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(rig.dir.path().join("state").join(dir)).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Volumes that are being made.
pub(crate) fn halves(rig: &Rig) -> Vec<String> {
    let mut names = names(rig, "tmp");
    names.retain(|name| name.starts_with("volume-"));
    names
}

/// A host that keeps the disks with which its VMs are launched.
fn watched() -> (FakeHost, Arc<Mutex<Vec<Drive>>>) {
    let drives = Arc::new(Mutex::new(Vec::new()));
    let kept = drives.clone();
    let host = FakeHost::new(Arc::new(move |guest| {
        *kept.lock().unwrap() = guest.plan().drives.clone();
        Box::pin(async move {
            let mut guest = guest;
            greet(&mut guest).await;
            std::future::pending::<()>().await;
        })
    }));
    (host, drives)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_shown_listed_changed_and_removed() {
    let rig = Rig::start().await;
    let (made, stages) = make(&rig, request("data")).await.unwrap();
    assert_eq!(stages, ["disk"]);
    assert_eq!((made.name.as_str(), made.size_mib), ("data", 64));
    assert!(made.owner.starts_with("uid:") && made.users.is_empty());
    let file = std::fs::metadata(disk(&rig, &made)).unwrap();
    assert_eq!(file.len(), 64 << 20);
    assert!(made.allocated_bytes > 0 && made.allocated_bytes < 1 << 20);
    assert_eq!(
        get(&rig, &made.id).await.unwrap(),
        get(&rig, "data").await.unwrap()
    );

    let labels = [("team".to_owned(), "web".to_owned())].into();
    let change = v1::UpdateVolumeRequest {
        volume: "data".into(),
        labels,
        update_mask: Some(mask(&["labels"])),
        etag: made.etag.clone(),
        ..Default::default()
    };
    let changed = rig.volumes().update_volume(change.clone()).await.unwrap();
    let changed = changed.into_inner().volume.unwrap();
    assert_eq!(
        (changed.labels["team"].as_str(), changed.size_mib),
        ("web", 64)
    );
    let stale = rig.volumes().update_volume(change).await.unwrap_err();
    assert_refused(&stale, Code::Aborted, "VOLUME_CHANGED", None);

    make(&rig, request("other")).await.unwrap();
    let list = async |labels: &[(&str, &str)], page_size, page_token: &str| {
        let request = v1::ListVolumesRequest {
            page_size,
            page_token: page_token.into(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
        };
        let page = rig
            .volumes()
            .list_volumes(request)
            .await
            .unwrap()
            .into_inner();
        let names: Vec<_> = page.volumes.into_iter().map(|volume| volume.name).collect();
        (names, page.next_page_token)
    };
    let (first, token) = list(&[], 1, "").await;
    assert_eq!(first, ["other"]);
    assert_eq!(
        list(&[], 1, &token).await,
        (vec!["data".to_owned()], String::new())
    );
    assert_eq!(list(&[("team", "web")], 0, "").await.0, ["data"]);

    delete(&rig, "data").await.unwrap();
    let gone = delete(&rig, "data").await.unwrap_err();
    assert_refused(&gone, Code::NotFound, "VOLUME_NOT_FOUND", None);
    assert_eq!(names(&rig, "volumes").len(), 1);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_volume_is_refused_and_leaves_nothing() {
    let rig = Rig::start().await;
    make(&rig, request("data")).await.unwrap();
    let large = v1::CreateVolumeRequest {
        size_mib: 4_194_305,
        ..request("large")
    };
    let small = v1::CreateVolumeRequest {
        size_mib: 63,
        ..request("small")
    };
    let shrunk = v1::CreateVolumeRequest {
        seed: "data".into(),
        size_mib: 63,
        ..request("clone")
    };
    let labelled = v1::CreateVolumeRequest {
        labels: [(String::new(), String::new())].into(),
        ..request("labelled")
    };
    for (wrong, field) in [
        (request(""), "name"),
        (request("A"), "name"),
        (large, "size_mib"),
        (small, "size_mib"),
        (shrunk, "size_mib"),
        (labelled, "labels"),
    ] {
        let refused = make(&rig, wrong).await.unwrap_err();
        assert_refused(
            &refused,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some(field),
        );
    }
    let taken = make(&rig, request("data")).await.unwrap_err();
    assert_refused(&taken, Code::AlreadyExists, "NAME_TAKEN", None);
    let missing = make(&rig, seeded("clone", "none")).await.unwrap_err();
    assert_refused(&missing, Code::NotFound, "VOLUME_NOT_FOUND", None);
    assert_eq!((names(&rig, "volumes").len(), halves(&rig).len()), (1, 0));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_requests_for_one_name_make_one_volume() {
    let rig = Rig::start().await;
    let (first, second) = tokio::join!(make(&rig, request("data")), make(&rig, request("data")));
    let refused = [first, second]
        .into_iter()
        .find_map(Result::err)
        .expect("one is refused");
    assert_refused(&refused, Code::AlreadyExists, "NAME_TAKEN", None);
    let repeated = v1::CreateVolumeRequest {
        request_id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        ..request("again")
    };
    let first = make(&rig, repeated.clone()).await.unwrap().0;
    let second = make(&rig, repeated).await.unwrap().0;
    assert_eq!(first.id, second.id, "a repeat joins");
    assert_eq!(names(&rig, "volumes").len(), 2);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_has_the_content_of_its_seed_and_changes_nothing_there() {
    let rig = Rig::start().await;
    let seed = make(&rig, request("seed")).await.unwrap().0;
    let place = 40 << 20;
    let open = |volume| {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(disk(&rig, volume))
            .unwrap()
    };
    open(&seed).write_all_at(b"warm", place).unwrap();
    let larger = v1::CreateVolumeRequest {
        size_mib: 128,
        ..seeded("clone", &seed.id)
    };
    let (clone, stages) = make(&rig, larger).await.unwrap();
    assert_eq!(stages, ["copy"]);
    assert_eq!((clone.seed.as_str(), clone.size_mib), ("seed", 128));
    let read = |volume| {
        let mut bytes = [0; 4];
        open(volume).read_exact_at(&mut bytes, place).unwrap();
        bytes
    };
    assert_eq!(read(&clone), *b"warm");
    open(&clone).write_all_at(b"cold", place).unwrap();
    assert_eq!(read(&seed), *b"warm");
    // The seed may go; its name stays for people.
    delete(&rig, "seed").await.unwrap();
    assert_eq!(get(&rig, "clone").await.unwrap().seed, "seed");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_follow_the_disks_of_the_vm_as_the_host_opens_them() {
    let (host, drives) = watched();
    let rig = Rig::start_in(tempfile::tempdir().unwrap(), host).await;
    rig.furnish().await;
    let data = make(&rig, request("data")).await.unwrap().0;
    make(&rig, request("cache")).await.unwrap();
    let vm = rig
        .create_as(with("web", &["data:/srv/data", "cache:/cache:ro"]))
        .await
        .unwrap();
    let drives: Vec<_> = drives
        .lock()
        .unwrap()
        .iter()
        .map(|drive| (drive.serial.clone(), drive.access))
        .collect();
    let expected = [
        ("base", DriveAccess::ReadOnly),
        ("upper", DriveAccess::ReadWrite),
        ("vol0", DriveAccess::ReadWrite),
        ("vol1", DriveAccess::ReadOnly),
    ];
    assert_eq!(
        drives,
        expected.map(|(serial, access)| (serial.to_owned(), access))
    );
    let told = rig.disks.lock().unwrap().mounted.last().unwrap().clone();
    let told: Vec<_> = told
        .iter()
        .map(|volume| {
            (
                volume.serial.as_str(),
                volume.path.as_str(),
                volume.read_only,
            )
        })
        .collect();
    assert_eq!(
        told,
        [("vol0", "/srv/data", false), ("vol1", "/cache", true)]
    );
    let shown = vm.spec.unwrap().volumes;
    assert_eq!(
        (shown[0].volume.as_str(), shown[1].read_only),
        ("data", true)
    );
    let user = get(&rig, "data").await.unwrap().users.remove(0);
    assert_eq!(
        (user.vm.as_str(), user.read_only, user.is_attached),
        ("web", false, true)
    );
    assert!(disk(&rig, &data).exists());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_vm_writes_or_many_read() {
    let rig = Rig::start().await;
    rig.furnish().await;
    make(&rig, request("data")).await.unwrap();
    rig.create_as(with("writer", &["data:/data"]))
        .await
        .unwrap();
    for volume in ["data:/data", "data:/data:ro"] {
        let refused = rig.create_as(with("second", &[volume])).await.unwrap_err();
        assert_refused(&refused, Code::FailedPrecondition, "VOLUME_ATTACHED", None);
        assert!(
            refused.message().contains("written by VM `writer`"),
            "{refused:?}"
        );
    }
    let busy = make(&rig, seeded("clone", "data")).await.unwrap_err();
    assert_refused(&busy, Code::FailedPrecondition, "VOLUME_ATTACHED", None);
    let busy = grow(&rig, "data", 128).await.unwrap_err();
    assert_refused(&busy, Code::FailedPrecondition, "VOLUME_ATTACHED", None);

    rig.stop_vm("writer").await;
    assert!(!get(&rig, "data").await.unwrap().users[0].is_attached);
    for name in ["reader", "other"] {
        rig.create_as(with(name, &["data:/data:ro"])).await.unwrap();
    }
    make(&rig, seeded("clone", "data"))
        .await
        .expect("what is only read can be copied");
    let refused = rig.start_vm("writer").await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "VOLUME_ATTACHED", None);
    assert!(refused.message().contains("read by VM"), "{refused:?}");
    for name in ["reader", "other"] {
        rig.delete_vm(name).await;
    }
    rig.start_vm("writer")
        .await
        .expect("nobody has it any more");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_let_go_on_every_way_down() {
    let rig = Rig::start().await;
    rig.furnish().await;
    make(&rig, request("data")).await.unwrap();
    let is_free = async || {
        !get(&rig, "data")
            .await
            .unwrap()
            .users
            .iter()
            .any(|user| user.is_attached)
    };

    rig.host.set_faults(Faults {
        launch_fails: true,
        ..Faults::default()
    });
    assert!(rig.create_as(with("a", &["data:/data"])).await.is_err());
    assert!(is_free().await && get(&rig, "data").await.unwrap().users.is_empty());

    rig.host.set_faults(Faults::default());
    rig.create_as(with("a", &["data:/data"])).await.unwrap();
    assert!(!is_free().await);
    let kill = v1::KillVmRequest {
        vm: "a".into(),
        ..Default::default()
    };
    rig.vms().kill_vm(kill).await.unwrap();
    assert!(is_free().await);

    rig.start_vm("a").await.unwrap();
    let restart = v1::RestartVmRequest {
        vm: "a".into(),
        ..Default::default()
    };
    rig.vms().restart_vm(restart).await.unwrap();
    assert!(!is_free().await);
    rig.host.crash(rig.host.living()[0]);
    let mut watch = rig
        .vms()
        .watch_vm(v1::WatchVmRequest { vm: "a".into() })
        .await
        .unwrap()
        .into_inner();
    while let Some(message) = watch.message().await.unwrap() {
        let Some(v1::watch_vm_response::Message::Vm(vm)) = message.message else {
            continue;
        };
        if vm.state() == v1::vm::State::Failed {
            break;
        }
    }
    assert!(is_free().await);

    rig.start_vm("a").await.unwrap();
    rig.delete_vm("a").await;
    assert!(is_free().await);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_stays_its_vms_over_a_restart_of_the_daemon() {
    let rig = Rig::start().await;
    rig.furnish().await;
    make(&rig, request("data")).await.unwrap();
    rig.create_as(with("writer", &["data:/data"]))
        .await
        .unwrap();
    let (dir, host) = rig.stopped().await;
    let rig = Rig::start_in(dir, host).await;
    assert!(get(&rig, "data").await.unwrap().users[0].is_attached);
    let refused = rig
        .create_as(with("second", &["data:/data:ro"]))
        .await
        .unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "VOLUME_ATTACHED", None);
    // A VM that ended while no daemon was there has nothing any more.
    let (dir, host) = rig.stopped().await;
    host.crash(host.living()[0]);
    let rig = Rig::start_in(dir, host).await;
    rig.create_as(with("second", &["data:/data:ro"]))
        .await
        .unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_a_vm_names_cannot_be_removed() {
    let rig = Rig::start().await;
    rig.furnish().await;
    make(&rig, request("data")).await.unwrap();
    rig.create_as(with("web", &["data:/data"])).await.unwrap();
    rig.stop_vm("web").await;
    let refused = delete(&rig, "data").await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "IN_USE", None);
    assert!(refused.message().contains("VM `web`"), "{refused:?}");
    rig.delete_vm("web").await;
    delete(&rig, "data").await.unwrap();
    assert!(names(&rig, "volumes").is_empty());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_mounts_are_refused_before_anything_is_made() {
    let rig = Rig::start().await;
    rig.furnish().await;
    for name in ["a", "b"] {
        make(&rig, request(name)).await.unwrap();
    }
    let many: Vec<String> = (0..17).map(|number| format!("a:/{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for volumes in [
        &["a:data"][..],
        &["a:/"],
        &["a:/dev/x"],
        &["a:/x/../y"],
        &["a:/x", "b:/x"],
        &["a:/x", "a:/y"],
        &many,
    ] {
        let refused = rig.create_as(with("web", volumes)).await.unwrap_err();
        assert_refused(
            &refused,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some("spec.volumes"),
        );
    }
    let missing = rig.create_as(with("web", &["none:/x"])).await.unwrap_err();
    assert_refused(&missing, Code::NotFound, "VOLUME_NOT_FOUND", None);
    assert_eq!(rig.host.launches(), 0);
    assert!(names(&rig, "vms").is_empty());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_unmounted_cannot_be_mounted_for_reading() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let made = make(&rig, request("data")).await.unwrap().0;
    // The word of an ext4 superblock whose bit 2 says that its journal is to be replayed.
    let word = 1024 + 0x60;
    let opened = std::fs::File::options()
        .read(true)
        .write(true)
        .open(disk(&rig, &made))
        .unwrap();
    let mut byte = [0];
    opened.read_exact_at(&mut byte, word).unwrap();
    opened.write_all_at(&[byte[0] | 4], word).unwrap();
    let refused = rig
        .create_as(with("web", &["data:/data:ro"]))
        .await
        .unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "VOLUME_NOT_CLEAN", None);
    assert_eq!(rig.host.launches(), 0);
    rig.create_as(with("web", &["data:/data"]))
        .await
        .expect("a writer replays it");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_grows_while_nobody_has_it_and_never_shrinks() {
    let rig = Rig::start().await;
    let made = make(&rig, request("data")).await.unwrap().0;
    let grown = grow(&rig, "data", 128).await.unwrap();
    assert_eq!(grown.size_mib, 128);
    assert_eq!(
        std::fs::metadata(disk(&rig, &made)).unwrap().len(),
        128 << 20
    );
    let refused = grow(&rig, "data", 64).await.unwrap_err();
    assert_refused(
        &refused,
        Code::InvalidArgument,
        "INVALID_FIELD",
        Some("size_mib"),
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_killed_leaves_no_half_volume() {
    let rig = Rig::start().await;
    let made = make(&rig, request("data")).await.unwrap().0;
    let (dir, host) = rig.stopped().await;
    let state = dir.path().join("state");
    // Killed while it was made; killed before it was recorded; killed while it was removed.
    let half = state.join("tmp/volume-01890a5d-ac96-774b-bcce-b302099a8057");
    let unrecorded = state.join("volumes/01890a5d-ac96-774b-bcce-b302099a8057");
    for left in [&half, &unrecorded, &state.join("volumes/not-an-id")] {
        std::fs::create_dir(left).unwrap();
        std::fs::write(left.join("disk.ext4"), "half").unwrap();
    }
    // Killed between the record and the file of a growth.
    let disk_file = state.join("volumes").join(&made.id).join("disk.ext4");
    let opened = std::fs::File::options()
        .write(true)
        .open(&disk_file)
        .unwrap();
    opened.set_len(32 << 20).unwrap();
    let rig = Rig::start_in(dir, host).await;
    assert_eq!(names(&rig, "volumes"), std::slice::from_ref(&made.id));
    assert!(halves(&rig).is_empty());
    rig.furnish().await;
    rig.create_as(with("web", &["data:/data"])).await.unwrap();
    assert_eq!(
        std::fs::metadata(disk(&rig, &made)).unwrap().len(),
        64 << 20,
        "it is as its record says"
    );
    rig.stopped().await;
}
