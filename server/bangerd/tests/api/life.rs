//! VMs between their making and their end: held, restarted, changed, and what they do by themselves.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use banger_proto::v1;
use banger_proto::v1::vm::State;
use banger_proto::v1::vm_spec::RestartPolicy;
use banger_vmm::fake::Faults;
use tonic::{Code, Status};

use crate::agent::Told;
use crate::rig::{PATIENCE, Rig, assert_refused, creation, drain};

/// A VM by name.
fn named() -> String {
    "web".to_owned()
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

async fn pause(rig: &Rig) -> Result<v1::Vm, Status> {
    let request = v1::PauseVmRequest {
        vm: named(),
        ..Default::default()
    };
    let answer = rig.vms().pause_vm(request).await?;
    Ok(answer.into_inner().vm.unwrap())
}

async fn resume(rig: &Rig) -> Result<v1::Vm, Status> {
    let request = v1::ResumeVmRequest {
        vm: named(),
        ..Default::default()
    };
    let answer = rig.vms().resume_vm(request).await?;
    Ok(answer.into_inner().vm.unwrap())
}

async fn restart(rig: &Rig) -> Result<v1::Vm, Status> {
    let request = v1::RestartVmRequest {
        vm: named(),
        ..Default::default()
    };
    let answer = rig.vms().restart_vm(request).await?;
    Ok(answer.into_inner().vm.unwrap())
}

async fn stop(rig: &Rig) -> Result<v1::Vm, Status> {
    let request = v1::StopVmRequest {
        vm: named(),
        ..Default::default()
    };
    let answer = rig.vms().stop_vm(request).await?;
    Ok(answer.into_inner().vm.unwrap())
}

async fn update(rig: &Rig, spec: v1::VmSpec, paths: &[&str], etag: &str) -> Result<v1::Vm, Status> {
    let request = v1::UpdateVmRequest {
        vm: named(),
        spec: Some(spec),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
        }),
        etag: etag.to_owned(),
        ..Default::default()
    };
    let answer = rig.vms().update_vm(request).await?;
    Ok(answer.into_inner().vm.unwrap())
}

async fn create_with(rig: &Rig, change: impl FnOnce(&mut v1::VmSpec)) -> Result<v1::Vm, Status> {
    let mut request = creation("web");
    change(request.spec.as_mut().unwrap());
    let answers = rig.vms().create_vm(request).await?.into_inner();
    match drain(answers).await?.pop().and_then(|last| last.message) {
        Some(v1::create_vm_response::Message::Vm(vm)) => Ok(vm),
        other => panic!("the last message is {other:?}"),
    }
}

/// A daemon with a VM that is started again as this policy says.
async fn restarting(policy: RestartPolicy) -> (Rig, v1::Vm) {
    let rig = Rig::start().await;
    rig.furnish().await;
    let made = create_with(&rig, |spec| spec.set_restart_policy(policy)).await;
    (rig, made.unwrap())
}

async fn get(rig: &Rig) -> Result<v1::Vm, Status> {
    let answer = rig.vms().get_vm(v1::GetVmRequest { vm: named() }).await?;
    Ok(answer.into_inner().vm.unwrap())
}

/// Watches until the VM satisfies a condition.
async fn until(rig: &Rig, what: &str, condition: impl Fn(&v1::Vm) -> bool) -> v1::Vm {
    let watched = async {
        let request = v1::WatchVmRequest { vm: named() };
        let mut changes = rig.vms().watch_vm(request).await.unwrap().into_inner();
        loop {
            let message = changes.message().await.unwrap().unwrap().message;
            if let Some(v1::watch_vm_response::Message::Vm(vm)) = message
                && condition(&vm)
            {
                return vm;
            }
        }
    };
    tokio::time::timeout(PATIENCE, watched).await.expect(what)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_vm_is_not_used_until_it_goes_on() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    assert_eq!(pause(&rig).await.unwrap().state(), State::Paused);
    assert_eq!(pause(&rig).await.unwrap().state(), State::Paused);
    let list = v1::ListSessionsRequest {
        vm: named(),
        ..Default::default()
    };
    let refused = rig
        .sessions()
        .list_sessions(list.clone())
        .await
        .unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "WRONG_STATE", None);
    assert_eq!(resume(&rig).await.unwrap().state(), State::Running);
    assert_eq!(resume(&rig).await.unwrap().state(), State::Running);
    rig.sessions().list_sessions(list).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_vm_stops_as_gently_as_any() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    pause(&rig).await.unwrap();
    let stopped = stop(&rig).await.unwrap();
    let rung = stopped.last_stop.unwrap().rung();
    assert_eq!(rung, v1::stop_outcome::Rung::Agent);
    assert!(pause(&rig).await.is_err(), "what is off cannot be held");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_vm_is_paused_for_the_next_daemon() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    pause(&rig).await.unwrap();
    let (dir, host) = rig.stopped().await;
    let rig = Rig::start_in(dir, host).await;
    assert_eq!(get(&rig).await.unwrap().state(), State::Paused);
    assert_eq!(resume(&rig).await.unwrap().state(), State::Running);
    let list = v1::ListSessionsRequest {
        vm: named(),
        ..Default::default()
    };
    rig.sessions().list_sessions(list).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_told_the_time_that_was_held_under_an_earlier_daemon() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    pause(&rig).await.unwrap();
    let (dir, host) = rig.stopped().await;
    let rig = Rig::start_in(dir, host).await;
    rig.setup.is_done.store(true, Ordering::Relaxed);
    resume(&rig).await.unwrap();
    let list = v1::ListSessionsRequest {
        vm: named(),
        ..Default::default()
    };
    rig.sessions().list_sessions(list).await.unwrap();
    assert_eq!(*rig.setup.told.lock().unwrap(), [Told::Configure]);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_cannot_take_up_waits_for_its_restart() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let made = rig.create("web").await.unwrap();
    let spec = v1::VmSpec {
        vcpu_count: 3,
        memory_mib: 128,
        labels: BTreeMap::from([("team".to_owned(), "web".to_owned())]),
        ..Default::default()
    };
    let paths = ["vcpu_count", "memory_mib", "labels"];
    let changed = update(&rig, spec.clone(), &paths, &made.etag)
        .await
        .unwrap();
    assert_eq!(changed.pending_fields, ["vcpu_count", "memory_mib"]);
    let raced = update(&rig, spec, &paths, &made.etag).await.unwrap_err();
    assert_refused(&raced, Code::Aborted, "VM_CHANGED", None);
    let restarted = restart(&rig).await.unwrap();
    assert_eq!(restarted.state(), State::Running);
    assert!(restarted.pending_fields.is_empty());
    assert_ne!(restarted.start_time, made.start_time);
    assert_eq!(rig.host.launches(), 2);
    stop(&rig).await.unwrap();
    assert_eq!(restart(&rig).await.unwrap().state(), State::Running);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_makes_no_sense_changes_nothing() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let made = rig.create("web").await.unwrap();
    let cases = [
        (
            v1::VmSpec {
                disk_mib: 1 << 40,
                ..Default::default()
            },
            "disk_mib",
        ),
        (
            v1::VmSpec {
                vcpu_count: 1000,
                ..Default::default()
            },
            "vcpu_count",
        ),
        (
            v1::VmSpec {
                ttl: Some(seconds(-1)),
                ..Default::default()
            },
            "ttl",
        ),
        (
            v1::VmSpec {
                ttl: Some(seconds(1 << 40)),
                ..Default::default()
            },
            "ttl",
        ),
        (
            v1::VmSpec {
                restart_policy: 9,
                ..Default::default()
            },
            "restart_policy",
        ),
        (v1::VmSpec::default(), "image"),
    ];
    for (spec, path) in cases {
        let refused = update(&rig, spec, &[path], "").await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{path}: {refused}");
    }
    let labels = BTreeMap::from([("banger.dev/build".to_owned(), "1".to_owned())]);
    let reserved = v1::VmSpec {
        labels,
        ..Default::default()
    };
    let refused = update(&rig, reserved, &["labels"], "").await.unwrap_err();
    assert_refused(
        &refused,
        Code::InvalidArgument,
        "INVALID_FIELD",
        Some("spec.labels"),
    );
    assert_eq!(get(&rig).await.unwrap().etag, made.etag);
    let ephemeral = create_with(&rig, |spec| {
        spec.name = "other".into();
        spec.ephemeral = true;
        spec.set_restart_policy(RestartPolicy::Always);
    });
    assert_eq!(ephemeral.await.unwrap_err().code(), Code::InvalidArgument);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_whose_time_is_over_is_gone() {
    let rig = Rig::start().await;
    rig.furnish().await;
    create_with(&rig, |spec| spec.ttl = Some(seconds(1)))
        .await
        .unwrap();
    let gone = async {
        while get(&rig).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("gone");
    assert!(rig.host.living().is_empty());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_to_live_that_passed_without_a_daemon_holds_at_the_next_start() {
    let rig = Rig::start().await;
    rig.furnish().await;
    create_with(&rig, |spec| spec.ttl = Some(seconds(1)))
        .await
        .unwrap();
    stop(&rig).await.unwrap();
    let (dir, host) = rig.stopped().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rig = Rig::start_in(dir, host).await;
    let gone = async {
        while get(&rig).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("gone");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_nobody_uses_stops_itself_and_one_with_a_session_does_not() {
    let rig = Rig::start().await;
    rig.furnish().await;
    create_with(&rig, |spec| spec.idle_timeout = Some(seconds(1)))
        .await
        .unwrap();
    let start = v1::StartSessionRequest {
        vm: named(),
        spec: Some(v1::SessionSpec {
            command: vec!["sleep".into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let session = rig
        .sessions()
        .start_session(start)
        .await
        .unwrap()
        .into_inner();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(get(&rig).await.unwrap().state(), State::Running);
    let session = session.session.unwrap().id;
    let delete = v1::DeleteSessionRequest {
        session,
        ..Default::default()
    };
    rig.sessions().delete_session(delete).await.unwrap();
    let stopped = until(&rig, "idle", |vm| vm.state() == State::Stopped).await;
    assert_eq!(
        stopped.last_stop.unwrap().rung(),
        v1::stop_outcome::Rung::Agent
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_vm_is_started_again_if_its_policy_says_so() {
    let (rig, made) = restarting(RestartPolicy::OnFailure).await;
    rig.host.crash(rig.host.living()[0]);
    let again = until(&rig, "started again", |vm| {
        vm.state() == State::Running && vm.restart_count == 1
    })
    .await;
    assert_eq!(again.id, made.id);
    // What a caller stopped stays stopped.
    stop(&rig).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(get(&rig).await.unwrap().state(), State::Stopped);
    assert_eq!(rig.host.launches(), 2);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_holds_against_the_next_start_by_policy() {
    let (rig, _) = restarting(RestartPolicy::Always).await;
    rig.host.crash(rig.host.living()[0]);
    until(&rig, "failed", |vm| vm.state() == State::Failed).await;
    // It waits for its next start, or has just had it.
    stop(&rig).await.unwrap();
    let launches = rig.host.launches();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_ne!(get(&rig).await.unwrap().state(), State::Running);
    assert_eq!(rig.host.launches(), launches);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_fails_is_tried_again() {
    let (rig, _) = restarting(RestartPolicy::Always).await;
    rig.host.set_faults(Faults {
        launch_fails: true,
        ..Faults::default()
    });
    rig.host.crash(rig.host.living()[0]);
    until(&rig, "failed once", |vm| {
        vm.state() == State::Failed && vm.restart_count == 1
    })
    .await;
    rig.host.set_faults(Faults::default());
    until(&rig, "started again", |vm| {
        vm.state() == State::Running && vm.restart_count == 2
    })
    .await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_lost_with_its_host_is_started_again_if_its_policy_says_so() {
    let (rig, _) = restarting(RestartPolicy::OnFailure).await;
    let vm = rig.host.living()[0];
    let (dir, host) = rig.stopped().await;
    host.crash(vm);
    let rig = Rig::start_in(dir, host).await;
    until(&rig, "started again", |vm| vm.state() == State::Running).await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_by_policy_that_is_due_survives_the_daemon() {
    let (rig, _) = restarting(RestartPolicy::Always).await;
    rig.host.power_off(rig.host.living()[0]);
    until(&rig, "off, or started again", |vm| {
        vm.state() == State::Stopped || vm.restart_count == 1
    })
    .await;
    let (dir, host) = rig.stopped().await;
    let rig = Rig::start_in(dir, host).await;
    let again = until(&rig, "started again", |vm| vm.state() == State::Running).await;
    assert_eq!(again.restart_count, 1);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_holds_against_the_policy_for_the_next_daemon_too() {
    let (rig, _) = restarting(RestartPolicy::Always).await;
    rig.host.crash(rig.host.living()[0]);
    until(&rig, "failed", |vm| vm.state() == State::Failed).await;
    // It waits for its next start, or has just had it.
    stop(&rig).await.unwrap();
    let launches = rig.host.launches();
    let (dir, host) = rig.stopped().await;
    let rig = Rig::start_in(dir, host).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_ne!(get(&rig).await.unwrap().state(), State::Running);
    assert_eq!(rig.host.launches(), launches);
    rig.stopped().await;
}
