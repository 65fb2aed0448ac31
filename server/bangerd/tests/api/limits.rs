//! Limits: what is refused before anything is made, with which numbers, and what waits for its turn.

use std::collections::BTreeMap;
use std::time::Duration;

use banger_app::config::Ratio;
use banger_app::vm::Limits;
use banger_core::Owner;
use banger_proto::v1;
use banger_vmm::fake::Faults;
use futures::future::join_all;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::rig::{PATIENCE, Rig, assert_refused, config, creation, drain};

/// The most of one thing.
fn at_most(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits);
    limits
}

fn me() -> String {
    Owner::of_uid(rustix::process::geteuid().as_raw()).to_string()
}

async fn usage(rig: &Rig) -> v1::HostUsage {
    let answer = rig.hosts().get_usage(v1::GetUsageRequest {}).await.unwrap();
    answer.into_inner().usage.unwrap()
}

fn numbers(promise: Option<v1::Promise>) -> (i64, Option<i64>) {
    let promise = promise.unwrap();
    (promise.promised, promise.limit)
}

async fn create(rig: &Rig, name: &str, shape: (i32, i64, i64)) -> Result<(), Status> {
    let mut request = creation(name);
    let spec = request.spec.as_mut().unwrap();
    (spec.vcpu_count, spec.memory_mib, spec.disk_mib) = shape;
    let answers = rig.vms().create_vm(request).await?.into_inner();
    drain(answers).await.map(drop)
}

/// Checks that a refusal says what of which resource, in its text, its metadata and its quota violation.
fn assert_numbers(status: &Status, reason: &str, subject: &str, numbers: [(&str, String); 4]) {
    assert_refused(status, Code::ResourceExhausted, reason, None);
    let details = status.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    let quota = details.quota_failure().unwrap();
    assert_eq!(quota.violations[0].subject, subject);
    for (key, value) in numbers {
        assert_eq!(metadata[key], value, "{key} of {metadata:?}");
        if key != "resource" {
            assert!(
                status.message().contains(&value),
                "{value} in {}",
                status.message()
            );
            assert!(quota.violations[0].description.contains(&value));
        }
    }
}

fn of(resource: &'static str, asked: i64, in_use: i64, limit: i64) -> [(&'static str, String); 4] {
    [
        ("resource", resource.to_owned()),
        ("asked", asked.to_string()),
        ("in_use", in_use.to_string()),
        ("limit", limit.to_string()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_of_the_host_is_refused_before_anything_is_made() {
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    let rig = Rig::start_with(|config| {
        config.max_vms = 3;
        config.memory_overcommit = Ratio::of_thousandths(50);
        config.disk_overcommit = Ratio::of_thousandths(50);
        config.vcpu_overcommit = Ratio::of_thousandths(2000_u64.div_ceil(cpus));
    })
    .await;
    rig.furnish().await;
    let promises = usage(&rig).await.promises.unwrap();
    let memory = numbers(promises.memory_mib).1.unwrap();
    let disk = numbers(promises.disk_mib).1.unwrap();
    create(&rig, "first", (1, 96, 64)).await.unwrap();
    let table = [
        ((2, 96, 64), "vcpus", of("vcpus", 2, 1, 2)),
        (
            (1, memory - 95, 64),
            "memory_mib",
            of("memory_mib", memory - 95, 96, memory),
        ),
        (
            (1, 96, disk - 63),
            "disk_mib",
            of("disk_mib", disk - 63, 64, disk),
        ),
    ];
    for (shape, subject, told) in table {
        let refused = create(&rig, "next", shape).await.unwrap_err();
        assert_numbers(&refused, "HOST_EXHAUSTED", &format!("host/{subject}"), told);
    }
    assert_eq!(
        (
            rig.host.launches(),
            std::fs::read_dir(rig.dir.path().join("state/vms"))
                .unwrap()
                .count()
        ),
        (1, 1)
    );
    rig.stop_vm("first").await;
    create(&rig, "second", (1, 96, 64)).await.unwrap();
    rig.stop_vm("second").await;
    create(&rig, "third", (1, 96, 64)).await.unwrap();
    let refused = create(&rig, "fourth", (1, 96, 64)).await.unwrap_err();
    assert_numbers(&refused, "TOO_MANY_VMS", "host/vms", of("vms", 1, 3, 3));
    rig.stopped().await;
}

async fn restart(rig: &Rig, vm: &str) -> Result<(), Status> {
    let request = v1::RestartVmRequest {
        vm: vm.into(),
        ..Default::default()
    };
    rig.vms().restart_vm(request).await.map(drop)
}

async fn delete(rig: &Rig, vm: &str) {
    let request = v1::DeleteVmRequest {
        vm: vm.into(),
        ..Default::default()
    };
    rig.vms().delete_vm(request).await.unwrap();
}

async fn grow(rig: &Rig, vm: &str, memory_mib: i64) -> Result<(), Status> {
    let spec = v1::VmSpec {
        memory_mib,
        ..Default::default()
    };
    let request = v1::UpdateVmRequest {
        vm: vm.into(),
        spec: Some(spec),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["memory_mib".into()],
        }),
        ..Default::default()
    };
    rig.vms().update_vm(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_is_held_to_its_quota_at_creation_start_and_growth() {
    let rig = Rig::start_with(|config| {
        config.quota = at_most(|limits| limits.running_vms = Some(0));
        let own = Limits {
            running_vms: Some(1),
            memory_mib: Some(200),
            ..Limits::default()
        };
        config.owners = BTreeMap::from([(me().parse().unwrap(), own)]);
    })
    .await;
    rig.furnish().await;
    create(&rig, "a", (1, 96, 64)).await.unwrap();
    let subject = |resource: &str| format!("owner/{}/{resource}", me());
    let refused = create(&rig, "b", (1, 96, 64)).await.unwrap_err();
    assert_numbers(
        &refused,
        "QUOTA_EXCEEDED",
        &subject("running_vms"),
        of("running_vms", 1, 1, 1),
    );
    let metadata = refused
        .get_error_details()
        .error_info()
        .unwrap()
        .metadata
        .clone();
    assert_eq!(metadata["owner"], me());
    let refused = grow(&rig, "a", 201).await.unwrap_err();
    let told = of("memory_mib", 105, 96, 200);
    assert_numbers(&refused, "QUOTA_EXCEEDED", &subject("memory_mib"), told);
    grow(&rig, "a", 200).await.unwrap();
    let owner = usage(&rig).await.owners.remove(0);
    assert_eq!(owner.owner, me());
    assert_eq!(
        numbers(owner.promises.unwrap().memory_mib),
        (200, Some(200))
    );
    // What is promised to it already is enough.
    restart(&rig, "a").await.unwrap();
    rig.stop_vm("a").await;
    create(&rig, "b", (1, 96, 64)).await.unwrap();
    let refused = rig.start_vm("a").await.unwrap_err();
    let told = of("running_vms", 1, 1, 1);
    assert_numbers(&refused, "QUOTA_EXCEEDED", &subject("running_vms"), told);
    delete(&rig, "b").await;
    rig.start_vm("a").await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_sixteen_at_once_exactly_those_that_fit_are_made() {
    let rig = Rig::start_with(|config| {
        config.quota = at_most(|limits| limits.running_vms = Some(5));
        config.max_parallel_boots = 2;
    })
    .await;
    rig.furnish().await;
    let names: Vec<String> = (0..16).map(|number| format!("vm-{number}")).collect();
    let made = join_all(names.iter().map(|name| create(&rig, name, (1, 96, 64)))).await;
    let refused: Vec<Status> = made.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 11);
    for status in refused {
        assert_refused(&status, Code::ResourceExhausted, "QUOTA_EXCEEDED", None);
    }
    let promises = usage(&rig).await.promises.unwrap();
    assert_eq!(numbers(promises.vms).0, 5);
    assert_eq!(rig.host.living().len(), 5);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_at_once_are_all_made_and_as_many_boot_together_as_may() {
    // All as it comes, but for what the host of a test has to spare.
    let rig = Rig::start().await;
    rig.furnish().await;
    let together = usize::try_from(usage(&rig).await.max_parallel_boots).unwrap();
    assert!(together >= 4, "{together}");
    // No launch goes on before so many are inside: were they one after the other, none ever would.
    rig.host.set_faults(Faults {
        launches_together: together.min(16),
        ..Faults::default()
    });
    let names: Vec<String> = (0..16).map(|number| format!("vm-{number}")).collect();
    let made = join_all(names.iter().map(|name| create(&rig, name, (1, 96, 64)))).await;
    for (name, made) in names.iter().zip(made) {
        made.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    assert_eq!(rig.host.most_launches_at_once(), together.min(16));
    assert_eq!(rig.host.living().len(), 16);
    let after = usage(&rig).await;
    assert_eq!((after.booting_count, after.waiting_count), (0, 0));
    rig.stopped().await;
}

async fn make_volume(rig: &Rig, name: &str, size_mib: i64) -> Result<(), Status> {
    let request = v1::CreateVolumeRequest {
        name: name.into(),
        size_mib,
        ..Default::default()
    };
    let answers = rig.volumes().create_volume(request).await?.into_inner();
    drain(answers).await.map(drop)
}

async fn grow_volume(rig: &Rig, volume: &str, size_mib: i64) -> Result<(), Status> {
    let request = v1::UpdateVolumeRequest {
        volume: volume.into(),
        size_mib,
        update_mask: Some(crate::rig::mask(&["size_mib"])),
        ..Default::default()
    };
    rig.volumes().update_volume(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_count_against_host_and_quota_before_anything_is_made() {
    let rig = Rig::start_with(|config| {
        config.max_volumes = 3;
        config.quota = at_most(|limits| {
            limits.volumes = Some(2);
            limits.disk_mib = Some(400);
        });
    })
    .await;
    rig.furnish().await;
    let subject = |resource: &str| format!("owner/{}/{resource}", me());
    create(&rig, "vm", (1, 96, 100)).await.unwrap();
    make_volume(&rig, "a", 200).await.unwrap();
    let refused = make_volume(&rig, "b", 101).await.unwrap_err();
    let told = of("disk_mib", 101, 300, 400);
    assert_numbers(&refused, "QUOTA_EXCEEDED", &subject("disk_mib"), told);
    let refused = grow_volume(&rig, "a", 301).await.unwrap_err();
    let told = of("disk_mib", 101, 300, 400);
    assert_numbers(&refused, "QUOTA_EXCEEDED", &subject("disk_mib"), told);
    let refused = create(&rig, "next", (1, 96, 101)).await.unwrap_err();
    let told = of("disk_mib", 101, 300, 400);
    assert_numbers(&refused, "QUOTA_EXCEEDED", &subject("disk_mib"), told);
    make_volume(&rig, "b", 64).await.unwrap();
    let refused = make_volume(&rig, "c", 64).await.unwrap_err();
    let told = of("volumes", 1, 2, 2);
    assert_numbers(&refused, "QUOTA_EXCEEDED", &subject("volumes"), told);
    let dir = rig.dir.path().join("state/volumes");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 2);
    grow_volume(&rig, "a", 236).await.unwrap();
    let owner = usage(&rig).await.owners.remove(0);
    let promises = owner.promises.unwrap();
    assert_eq!(numbers(promises.volumes), (2, Some(2)));
    assert_eq!(numbers(promises.disk_mib), (400, Some(400)));
    // A daemon that starts again counts the same; what is removed is free.
    let before = usage(&rig).await;
    let (dir, host) = rig.stopped().await;
    let again = bangerd::config::Config {
        max_volumes: 2,
        ..config(&dir)
    };
    let rig = Rig::start_configured(dir, host, again).await;
    let after = usage(&rig).await.promises.unwrap();
    let before = before.promises.unwrap();
    assert_eq!(numbers(after.volumes), (2, Some(2)));
    assert_eq!(numbers(after.disk_mib).0, numbers(before.disk_mib).0);
    let refused = make_volume(&rig, "c", 64).await.unwrap_err();
    let told = of("volumes", 1, 2, 2);
    assert_numbers(&refused, "TOO_MANY_VOLUMES", "host/volumes", told);
    let request = v1::DeleteVolumeRequest {
        volume: "b".into(),
        ..Default::default()
    };
    rig.volumes().delete_volume(request).await.unwrap();
    make_volume(&rig, "c", 64).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_creation_gives_everything_back() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.host.set_faults(Faults {
        launch_fails: true,
        ..Faults::default()
    });
    create(&rig, "a", (1, 96, 64)).await.unwrap_err();
    let mut missing = creation("b");
    missing.spec.as_mut().unwrap().image = "missing:1".into();
    drain(rig.vms().create_vm(missing).await.unwrap().into_inner())
        .await
        .unwrap_err();
    // The failure is told before the last file is removed.
    let gone = async {
        loop {
            let usage = usage(&rig).await;
            if usage.owners.is_empty() && usage.waiting_count == 0 && usage.booting_count == 0 {
                return usage;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let usage = tokio::time::timeout(PATIENCE, gone).await.unwrap();
    let promises = usage.promises.unwrap();
    assert_eq!(numbers(promises.vms).0, 0);
    assert_eq!(
        (numbers(promises.memory_mib).0, numbers(promises.vcpus).0),
        (0, 0)
    );
    rig.stopped().await;
}

/// The operation that makes a VM, once it waits for its turn.
async fn queued(rig: &Rig, name: &str) -> (String, tonic::Streaming<v1::CreateVmResponse>) {
    use v1::create_vm_response::Message;
    let mut answers = rig
        .vms()
        .create_vm(creation(name))
        .await
        .unwrap()
        .into_inner();
    let waits = async {
        while let Some(answer) = answers.message().await.unwrap() {
            let Some(Message::Operation(operation)) = answer.message else {
                continue;
            };
            let is_queued = |stage: &v1::Stage| stage.name == "queued" && stage.end_time.is_none();
            if operation.stages.iter().any(is_queued) {
                return operation.id;
            }
        }
        panic!("it did not wait")
    };
    let id = tokio::time::timeout(PATIENCE, waits).await.unwrap();
    (id, answers)
}

#[tokio::test(flavor = "multi_thread")]
async fn boots_wait_their_turn_can_be_given_up_there_and_are_refused_beyond_the_queue() {
    let rig = Rig::start_with(|config| {
        config.max_parallel_boots = 1;
        config.boot_queue_max = 1;
    })
    .await;
    rig.furnish().await;
    rig.host.set_faults(Faults {
        never_answers: true,
        ..Faults::default()
    });
    let first = rig.vms().create_vm(creation("first")).await.unwrap();
    let (waiting, answers) = queued(&rig, "second").await;
    let now = usage(&rig).await;
    assert_eq!((now.booting_count, now.waiting_count), (1, 1));
    assert_eq!((now.max_parallel_boots, now.boot_queue_max), (1, 1));
    let refused = create(&rig, "third", (1, 96, 64)).await.unwrap_err();
    assert_refused(&refused, Code::Unavailable, "BOOT_QUEUE_FULL", None);
    let retry = refused
        .get_error_details()
        .retry_info()
        .unwrap()
        .retry_delay;
    assert!(retry.is_some_and(|delay| delay >= Duration::from_secs(1)));

    let cancel = v1::CancelOperationRequest { operation: waiting };
    rig.operations().cancel_operation(cancel).await.unwrap();
    let given_up = drain(answers).await.unwrap_err();
    assert_refused(&given_up, Code::Cancelled, "OPERATION_CANCELLED", None);
    assert_eq!(rig.host.launches(), 1, "it never booted");

    let (_, fourth) = queued(&rig, "fourth").await;
    rig.host.set_faults(Faults::default());
    delete(&rig, "first").await;
    drain(first.into_inner()).await.unwrap_err();
    drain(fourth).await.unwrap();
    assert_eq!(rig.host.living().len(), 1);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_again_counts_what_it_finds() {
    let rig = Rig::start().await;
    rig.furnish().await;
    create(&rig, "runs", (2, 100, 64)).await.unwrap();
    create(&rig, "rests", (1, 96, 64)).await.unwrap();
    rig.stop_vm("rests").await;
    let before = usage(&rig).await;
    let (dir, host) = rig.stopped().await;
    let again = config(&dir);
    let rig = Rig::start_configured(dir, host, again).await;
    let after = usage(&rig).await;
    assert_eq!(
        (&after.promises, &after.owners),
        (&before.promises, &before.owners)
    );
    let promises = after.promises.unwrap();
    assert_eq!(
        (numbers(promises.vms).0, numbers(promises.running_vms).0),
        (2, 1)
    );
    assert_eq!(
        (numbers(promises.vcpus).0, numbers(promises.memory_mib).0),
        (2, 100)
    );
    rig.stopped().await;
}
