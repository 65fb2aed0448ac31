//! VMMs of which nobody knows whether they live: until somebody does, the VM keeps what they may use; it then is where it
//! should be, without anybody asking.

use banger_proto::v1;
use banger_proto::v1::stop_outcome::Rung;
use banger_proto::v1::vm::State;
use banger_proto::v1::vm_spec::RestartPolicy;
use banger_vmm::fake::Faults;
use tonic::Code;

use crate::rig::{PATIENCE, Rig, assert_refused, creation, drain};
use crate::stop::until;

fn unadoptable() -> Faults {
    Faults {
        adoption_fails: true,
        ..Faults::default()
    }
}

async fn find(rig: &Rig, vm: &str) -> Option<v1::Vm> {
    let request = v1::GetVmRequest { vm: vm.into() };
    let answer = rig.vms().get_vm(request).await;
    answer.ok()?.into_inner().vm
}

async fn until_state(rig: &Rig, vm: &str, state: State) -> v1::Vm {
    until(vm, async || {
        find(rig, vm).await.is_some_and(|vm| vm.state() == state)
    })
    .await;
    find(rig, vm).await.unwrap()
}

/// A daemon that could not take over the VMs of the one before it, but can now.
async fn blind_at_first(rig: Rig) -> Rig {
    let (dir, host) = rig.stopped().await;
    host.set_faults(unadoptable());
    Rig::start_in(dir, host).await
}

async fn create_volume(rig: &Rig) {
    let request = v1::CreateVolumeRequest {
        name: "data".into(),
        size_mib: 64,
        ..Default::default()
    };
    let answers = rig.volumes().create_volume(request).await.unwrap();
    drain(answers.into_inner()).await.unwrap();
}

/// A VM that writes to the volume.
fn writer(name: &str) -> v1::CreateVmRequest {
    let mut request = creation(name);
    request.spec.as_mut().unwrap().volumes = vec![v1::VolumeMount {
        volume: "data".into(),
        path: "/data".into(),
        read_only: false,
    }];
    request
}

async fn pause(rig: &Rig, vm: &str) {
    let request = v1::PauseVmRequest {
        vm: vm.into(),
        ..Default::default()
    };
    rig.vms().pause_vm(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_could_not_be_taken_over_goes_on_when_it_can_be() {
    let rig = Rig::start().await;
    rig.furnish().await;
    for name in ["runs", "held"] {
        rig.create(name).await.unwrap();
    }
    pause(&rig, "held").await;
    let rig = blind_at_first(rig).await;
    for name in ["runs", "held"] {
        let failed = find(&rig, name).await.unwrap();
        assert!(failed.failure.unwrap().message.contains("taken over"));
    }
    rig.host.set_faults(Faults::default());
    for (name, state) in [("runs", State::Running), ("held", State::Paused)] {
        assert_eq!(until_state(&rig, name, state).await.failure, None);
    }
    assert_eq!((rig.host.launches(), rig.host.living().len()), (2, 2));
    // Its agent is reached again.
    let request = || v1::ListSessionsRequest {
        vm: "runs".into(),
        ..Default::default()
    };
    let listed = async { while rig.sessions().list_sessions(request()).await.is_err() {} };
    tokio::time::timeout(PATIENCE, listed).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_ended_while_nobody_could_know_is_off_or_started_by_its_policy() {
    let rig = Rig::start().await;
    rig.furnish().await;
    create_volume(&rig).await;
    rig.create_as(writer("off")).await.unwrap();
    let mut again = creation("again");
    again.spec.as_mut().unwrap().restart_policy = RestartPolicy::OnFailure.into();
    rig.create_as(again).await.unwrap();
    let mut brief = creation("brief");
    brief.spec.as_mut().unwrap().ephemeral = true;
    rig.create_as(brief).await.unwrap();
    let rig = blind_at_first(rig).await;
    for vm in rig.host.living() {
        rig.host.crash(vm);
    }
    let refused = rig.create_as(writer("other")).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "VOLUME_ATTACHED", None);
    rig.host.set_faults(Faults::default());
    let off = until_state(&rig, "off", State::Stopped).await;
    assert_eq!(off.last_stop.unwrap().rung(), Rung::AlreadyGone);
    rig.create_as(writer("other")).await.unwrap();
    let again = until_state(&rig, "again", State::Running).await;
    assert_eq!(again.restart_count, 1);
    until("the ephemeral one is gone", async || {
        find(&rig, "brief").await.is_none()
    })
    .await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_to_be_ended_is_ended_when_it_can_be() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let rig = blind_at_first(rig).await;
    let request = v1::KillVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    let refused = rig.vms().kill_vm(request).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "VMM_NOT_ADOPTED", None);
    rig.host.set_faults(Faults::default());
    let off = until_state(&rig, "web", State::Stopped).await;
    assert_eq!(off.last_stop.unwrap().rung(), Rung::Kill);
    assert!(rig.host.living().is_empty());
    rig.stopped().await;
}

/// Launches are cut off, and nobody finds out whether anything is left.
fn cut_off() -> Faults {
    Faults {
        launch_cut_off: true,
        ..unadoptable()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_failed_keeps_its_volume_until_its_vmm_is_known_to_be_gone() {
    let rig = Rig::start().await;
    rig.furnish().await;
    create_volume(&rig).await;
    for is_dead in [false, true] {
        rig.create_as(writer("first")).await.unwrap();
        rig.stop_vm("first").await;
        rig.host.set_faults(cut_off());
        let failed = rig.start_vm("first").await.unwrap_err();
        assert_refused(&failed, Code::Internal, "VMM_ENDED_EARLY", None);
        let refused = rig.create_as(writer("second")).await.unwrap_err();
        assert_refused(&refused, Code::FailedPrecondition, "VOLUME_ATTACHED", None);
        if is_dead {
            rig.host.crash(rig.host.living()[0]);
        }
        rig.host.set_faults(Faults::default());
        until("its VMM is gone", async || rig.host.living().is_empty()).await;
        // It tells what it has failed of, and not what nobody knew for a while.
        let failed = until_state(&rig, "first", State::Failed).await;
        let failure = failed.failure.unwrap();
        assert!(
            failure.message.contains("ended while it started"),
            "{failure:?}"
        );
        until("the volume is free", async || {
            rig.create_as(writer("second")).await.is_ok()
        })
        .await;
        rig.delete_vm("second").await;
        assert_eq!(rig.start_vm("first").await.unwrap().state(), State::Running);
        rig.delete_vm("first").await;
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_failed_is_undone_when_its_vmm_is_known_to_be_gone() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.host.set_faults(cut_off());
    let failed = rig.create("web").await.unwrap_err();
    assert_refused(&failed, Code::Internal, "VMM_ENDED_EARLY", None);
    assert_eq!(find(&rig, "web").await.unwrap().state(), State::Deleting);
    assert_eq!(rig.host.living().len(), 1);
    rig.host.set_faults(Faults::default());
    until("undone", async || find(&rig, "web").await.is_none()).await;
    assert!(rig.host.living().is_empty());
    rig.stopped().await;
}
