//! Disks of VMs that grow: at once, or at the next start.

use banger_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, assert_refused, mask};

async fn grow_vm(rig: &Rig, vm: &str, disk_mib: i64) -> Result<v1::Vm, Status> {
    let request = v1::UpdateVmRequest {
        vm: vm.into(),
        spec: Some(v1::VmSpec {
            disk_mib,
            ..Default::default()
        }),
        update_mask: Some(mask(&["disk_mib"])),
        ..Default::default()
    };
    Ok(rig.vms().update_vm(request).await?.into_inner().vm.unwrap())
}

fn upper(rig: &Rig, vm: &v1::Vm) -> u64 {
    let path = rig
        .dir
        .path()
        .join("state/vms")
        .join(&vm.id)
        .join("upper.ext4");
    std::fs::metadata(path).unwrap().len()
}

async fn look(rig: &Rig, vm: &str) -> v1::Vm {
    let request = v1::GetVmRequest { vm: vm.into() };
    rig.vms()
        .get_vm(request)
        .await
        .unwrap()
        .into_inner()
        .vm
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_a_vm_grows_while_it_runs() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let vm = rig.create("web").await.unwrap();
    assert!(
        rig.disks.lock().unwrap().grown.is_empty(),
        "a new disk is as large as it is to be"
    );
    let grown = grow_vm(&rig, "web", 128).await.unwrap();
    assert_eq!(
        (grown.state(), grown.pending_fields.len()),
        (v1::vm::State::Running, 0)
    );
    assert_eq!(upper(&rig, &vm), 128 << 20);
    assert_eq!(
        rig.disks.lock().unwrap().grown,
        [("upper".to_owned(), 128 << 20)]
    );
    let refused = grow_vm(&rig, "web", 64).await.unwrap_err();
    assert_refused(
        &refused,
        Code::InvalidArgument,
        "INVALID_FIELD",
        Some("spec.disk_mib"),
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_a_vm_that_is_off_grows_at_its_next_start() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let vm = rig.create("web").await.unwrap();
    rig.stop_vm("web").await;
    grow_vm(&rig, "web", 128).await.unwrap();
    assert_eq!(upper(&rig, &vm), 64 << 20);
    let started = rig.start_vm("web").await.unwrap();
    assert!(started.pending_fields.is_empty());
    assert_eq!(upper(&rig, &vm), 128 << 20);
    assert_eq!(
        rig.disks.lock().unwrap().grown,
        [("upper".to_owned(), 128 << 20)]
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_grow_leaves_its_vm_running_and_waiting() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    rig.disks.lock().unwrap().growth_fails = true;
    let refused = grow_vm(&rig, "web", 128).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "DISK_NOT_GROWN", None);
    let details = refused.get_error_details();
    assert_eq!(
        details.error_info().unwrap().metadata["cause"],
        "GUEST_NOT_SET_UP"
    );
    let vm = look(&rig, "web").await;
    assert_eq!(
        (vm.state(), vm.pending_fields),
        (v1::vm::State::Running, vec!["disk_mib".to_owned()])
    );
    rig.disks.lock().unwrap().growth_fails = false;
    let grown = grow_vm(&rig, "web", 128).await.expect("the same again");
    assert!(grown.pending_fields.is_empty());
    // At a start too a VM runs with what it has.
    rig.stop_vm("web").await;
    grow_vm(&rig, "web", 256).await.unwrap();
    rig.disks.lock().unwrap().growth_fails = true;
    let started = rig.start_vm("web").await.unwrap();
    assert_eq!(started.pending_fields, ["disk_mib"]);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_growth_that_hangs_holds_nothing_up() {
    let rig = Rig::start().await;
    rig.furnish().await;
    for (name, verb) in [("a", "pause"), ("b", "stop"), ("c", "delete")] {
        rig.create(name).await.unwrap();
        rig.disks.lock().unwrap().growth_hangs = true;
        let mut vms = rig.vms();
        let growing = tokio::join!(grow_vm(&rig, name, 128), async {
            // The record says it before the work begins.
            while look(&rig, name).await.spec.unwrap().disk_mib != 128 {
                tokio::task::yield_now().await;
            }
            let vm = name.to_owned();
            let request_id = String::new();
            match verb {
                "pause" => vms
                    .pause_vm(v1::PauseVmRequest { vm, request_id })
                    .await
                    .map(drop),
                "stop" => vms
                    .stop_vm(v1::StopVmRequest {
                        vm,
                        request_id,
                        keep_logs: false,
                    })
                    .await
                    .map(drop),
                _ => vms
                    .delete_vm(v1::DeleteVmRequest { vm, request_id })
                    .await
                    .map(drop),
            }
            .unwrap();
        })
        .0;
        assert_refused(
            &growing.unwrap_err(),
            Code::FailedPrecondition,
            "DISK_NOT_GROWN",
            None,
        );
        rig.disks.lock().unwrap().growth_hangs = false;
    }
    assert_eq!(look(&rig, "a").await.state(), v1::vm::State::Paused);
    assert_eq!(look(&rig, "b").await.state(), v1::vm::State::Stopped);
    let resume = v1::ResumeVmRequest {
        vm: "a".into(),
        ..Default::default()
    };
    rig.vms().resume_vm(resume).await.unwrap();
    // What waited is done by itself.
    let mut watch = rig
        .vms()
        .watch_vm(v1::WatchVmRequest { vm: "a".into() })
        .await
        .unwrap()
        .into_inner();
    while let Some(message) = watch.message().await.unwrap() {
        if let Some(v1::watch_vm_response::Message::Vm(vm)) = message.message
            && vm.pending_fields.is_empty()
        {
            break;
        }
    }
    rig.stopped().await;
}
