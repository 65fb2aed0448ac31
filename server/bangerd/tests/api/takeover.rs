//! What a daemon does with what an earlier one left: VMs that cannot be taken over, many of them, old operations.

use std::time::Duration;

use banger_app::config::Ratio;
use banger_proto::v1;
use banger_proto::v1::vm::State;
use banger_vmm::fake::Faults;
use tonic::Code;

use crate::rig::{PATIENCE, Rig, assert_refused, config};

async fn look(rig: &Rig, vm: &str) -> v1::Vm {
    let request = v1::GetVmRequest { vm: vm.into() };
    let answer = rig.vms().get_vm(request).await;
    answer.unwrap().into_inner().vm.unwrap()
}

fn unadoptable() -> Faults {
    Faults {
        adoption_fails: true,
        ..Faults::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vms_that_cannot_be_taken_over_keep_no_daemon_from_serving() {
    let rig = Rig::start().await;
    rig.furnish().await;
    for name in ["a", "b", "off"] {
        rig.create(name).await.unwrap();
    }
    rig.stop_vm("off").await;
    let (dir, host) = rig.stopped().await;
    host.set_faults(unadoptable());
    let rig = Rig::start_in(dir, host).await;
    assert_eq!(look(&rig, "off").await.state(), State::Stopped);
    for name in ["a", "b"] {
        let vm = look(&rig, name).await;
        assert_eq!(vm.state(), State::Failed);
        let failure = vm.failure.unwrap();
        assert!(failure.message.contains("taken over"), "{failure:?}");
    }
    // It may have the disk still.
    let refused = rig.start_vm("a").await.unwrap_err();
    assert_refused(&refused, Code::Internal, "VMM_NOT_SIGNALLED", None);
    assert_eq!(rig.host.launches(), 3);
    rig.host.set_faults(Faults::default());
    // Each is ended before anything else happens.
    assert_eq!(rig.start_vm("a").await.unwrap().state(), State::Running);
    rig.delete_vm("b").await;
    assert_eq!((rig.host.launches(), rig.host.living().len()), (4, 1));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_vms_than_are_taken_over_at_once_are_all_taken_over() {
    const MANY: usize = 40;
    let rig = Rig::start_with(|config| {
        config.max_vms = 100;
        config.vcpu_overcommit = Ratio::of_whole(1000);
        config.memory_overcommit = Ratio::of_whole(1000);
    })
    .await;
    rig.furnish().await;
    for index in 0..MANY {
        rig.create(&format!("vm{index}")).await.unwrap();
    }
    let (dir, host) = rig.stopped().await;
    let rig = Rig::start_in(dir, host).await;
    let listed = v1::ListVmsRequest {
        page_size: 100,
        ..Default::default()
    };
    let vms = rig.vms().list_vms(listed).await.unwrap().into_inner().vms;
    assert_eq!(vms.len(), MANY);
    assert!(vms.iter().all(|vm| vm.state() == State::Running));
    assert_eq!(rig.host.living().len(), MANY);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_forgotten_as_they_age() {
    let rig = Rig::start_with(|config| config.operation_retention = "1s".parse().unwrap()).await;
    rig.furnish().await;
    let listed = async || {
        let request = v1::ListOperationsRequest::default();
        let listed = rig.operations().list_operations(request).await;
        listed.unwrap().into_inner().operations.len()
    };
    assert!(listed().await > 0, "two operations furnish a daemon");
    let gone = async {
        while listed().await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("forgotten");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_is_being_removed_when_the_daemon_ends_is_removed_by_the_next() {
    let rig = Rig::start_with(|config| config.stop_kill_timeout = "200ms".parse().unwrap()).await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    rig.host.set_faults(Faults {
        ignores_kill: true,
        ..Faults::default()
    });
    let request = v1::DeleteVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    rig.vms().delete_vm(request).await.unwrap_err();
    let kept = config(&rig.dir);
    rig.stop.cancel();
    rig.host.set_faults(Faults::default());
    let (dir, host) = rig.stopped().await;
    let rig = Rig::start_configured(dir, host, kept).await;
    let gone = async {
        let list = v1::ListVmsRequest::default();
        while !rig
            .vms()
            .list_vms(list.clone())
            .await
            .unwrap()
            .into_inner()
            .vms
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("gone");
    assert!(rig.host.living().is_empty());
    rig.stopped().await;
}
