//! What a daemon does with what an earlier one left: VMs that cannot be taken over, many of them, old operations.

use std::time::Duration;

use banger_app::config::Ratio;
use banger_proto::v1;
use banger_proto::v1::stop_outcome::Rung;
use banger_proto::v1::vm::State;
use banger_vmm::fake::Faults;
use sqlx::{Connection as _, SqliteConnection};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::rig::{PATIENCE, Rig, assert_refused, config, creation, drain};

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
    assert_refused(&refused, Code::FailedPrecondition, "VMM_NOT_ADOPTED", None);
    assert!(refused.message().contains("signal"), "{refused}");
    assert_eq!(rig.host.launches(), 3);
    rig.host.set_faults(Faults::default());
    // Each is ended before anything else happens, unless it was taken over since.
    assert_eq!(rig.start_vm("a").await.unwrap().state(), State::Running);
    rig.delete_vm("b").await;
    assert_eq!(rig.host.living().len(), 1);
    assert!((3..=4).contains(&rig.host.launches()));
    rig.stopped().await;
}

async fn down(rig: &Rig, verb: &str, vm: &str) -> Result<v1::Vm, Status> {
    let (vm, request_id) = (vm.to_owned(), String::new());
    let found = match verb {
        "kill" => {
            let request = v1::KillVmRequest { vm, request_id };
            rig.vms().kill_vm(request).await?.into_inner().vm
        }
        _ => {
            let request = v1::StopVmRequest {
                vm,
                request_id,
                keep_logs: false,
            };
            rig.vms().stop_vm(request).await?.into_inner().vm
        }
    };
    Ok(found.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_could_not_be_taken_over_is_killed_or_stopped_or_it_is_told_why_not() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let cases = [
        ("kill", Rung::Kill),
        ("stop", Rung::Agent),
        ("gone", Rung::AlreadyGone),
    ];
    for (name, _) in cases {
        rig.create(name).await.unwrap();
    }
    let (dir, host) = rig.stopped().await;
    host.set_faults(unadoptable());
    let rig = Rig::start_in(dir, host).await;
    let gone = look(&rig, "gone").await.id;
    rig.host.crash(gone.parse().unwrap());
    for (verb, _) in cases {
        let refused = down(&rig, verb, verb).await.unwrap_err();
        assert_refused(&refused, Code::FailedPrecondition, "VMM_NOT_ADOPTED", None);
        assert_eq!(look(&rig, verb).await.state(), State::Failed);
    }
    assert_eq!(rig.host.living().len(), 2);
    rig.host.set_faults(Faults::default());
    for (verb, rung) in cases {
        let stopped = down(&rig, verb, verb).await.unwrap();
        assert_eq!(stopped.state(), State::Stopped, "{verb}");
        assert_eq!(stopped.last_stop.unwrap().rung(), rung, "{verb}");
        // It is off now, as far as anybody can know.
        down(&rig, verb, verb).await.unwrap();
    }
    assert!(rig.host.living().is_empty());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_could_not_be_taken_over_and_does_not_end_is_told_as_such() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let (dir, host) = rig.stopped().await;
    host.set_faults(unadoptable());
    let mut changed = config(&dir);
    changed.stop_kill_timeout = "200ms".parse().unwrap();
    let rig = Rig::start_configured(dir, host, changed).await;
    rig.host.set_faults(Faults {
        ignores_kill: true,
        ..Faults::default()
    });
    for _ in 0..2 {
        let refused = down(&rig, "kill", "web").await.unwrap_err();
        assert_refused(&refused, Code::DeadlineExceeded, "VMM_UNKILLABLE", None);
    }
    rig.host.set_faults(Faults::default());
    let off = until(&rig, "web", |vm| vm.state() == State::Stopped).await;
    assert_eq!(off.failure, None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_may_live_keeps_its_volume_until_somebody_knows() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let volume = v1::CreateVolumeRequest {
        name: "data".into(),
        size_mib: 64,
        ..Default::default()
    };
    drain(
        rig.volumes()
            .create_volume(volume)
            .await
            .unwrap()
            .into_inner(),
    )
    .await
    .unwrap();
    let with_volume = |name: &str| {
        let mut request = creation(name);
        request.spec.as_mut().unwrap().volumes = vec![v1::VolumeMount {
            volume: "data".into(),
            path: "/data".into(),
            read_only: false,
        }];
        request
    };
    rig.create_as(with_volume("first")).await.unwrap();
    let (dir, host) = rig.stopped().await;
    host.set_faults(unadoptable());
    let rig = Rig::start_in(dir, host).await;
    rig.host.set_faults(Faults::default());
    let refused = rig.create_as(with_volume("second")).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "VOLUME_ATTACHED", None);
    // Its own start ends what is left, and has its volume again.
    assert_eq!(rig.start_vm("first").await.unwrap().state(), State::Running);
    assert_eq!(rig.host.living().len(), 1);
    down(&rig, "kill", "first").await.unwrap();
    rig.create_as(with_volume("second")).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_may_live_is_not_gone_before_its_process_is() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let (dir, host) = rig.stopped().await;
    host.set_faults(unadoptable());
    let mut changed = config(&dir);
    changed.stop_kill_timeout = "200ms".parse().unwrap();
    changed.remove_timeout = "200ms".parse().unwrap();
    let rig = Rig::start_configured(dir, host, changed).await;
    let delete = || v1::DeleteVmRequest {
        vm: "web".into(),
        ..Default::default()
    };
    let refused = rig.vms().delete_vm(delete()).await.unwrap_err();
    assert_refused(&refused, Code::DeadlineExceeded, "VM_NOT_REMOVED", None);
    assert!(refused.message().contains("taken over"), "{refused}");
    assert_eq!(look(&rig, "web").await.state(), State::Deleting);
    assert_eq!(rig.host.living().len(), 1);
    rig.host.set_faults(Faults::default());
    match rig.vms().delete_vm(delete()).await {
        Ok(_) => {}
        Err(error) => assert_refused(&error, Code::NotFound, "VM_NOT_FOUND", None),
    }
    assert!(rig.host.living().is_empty());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_whose_start_was_cut_off_and_whose_agent_stays_silent_has_failed_of_that() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let database = rig.dir.path().join("state/banger.db");
    let (dir, host) = rig.stopped().await;
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", database.display()))
        .await
        .unwrap();
    // As where the daemon was killed while it waited for the agent.
    sqlx::query("UPDATE vms SET phase = 'starting'")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    host.set_faults(Faults {
        never_answers: true,
        ..Faults::default()
    });
    let mut changed = config(&dir);
    changed.boot_timeout = "2s".parse().unwrap();
    let rig = Rig::start_configured(dir, host, changed).await;
    let failed = until(&rig, "web", |vm| vm.state() == State::Failed).await;
    let failure = failed.failure.unwrap();
    assert!(failure.message.contains("did not report"), "{failure:?}");
    assert_eq!(failed.last_stop.unwrap().rung(), Rung::Kill);
    assert!(rig.host.living().is_empty());
    rig.host.set_faults(Faults::default());
    assert_eq!(rig.start_vm("web").await.unwrap().state(), State::Running);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_away_is_told_with_why_it_is_not_reached() {
    let rig = Rig::start_with(|config| {
        config.boot_timeout = "2s".parse().unwrap();
        config.reconnect_timeout = "500ms".parse().unwrap();
    })
    .await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    rig.host.set_faults(Faults {
        never_answers: true,
        ..Faults::default()
    });
    rig.host.cut(rig.host.living()[0]);
    let told = async {
        loop {
            let request = v1::ListSessionsRequest {
                vm: "web".into(),
                ..Default::default()
            };
            // One that came before the break was noticed is lost with the stream.
            let Err(refused) = rig.sessions().list_sessions(request).await else {
                continue;
            };
            let details = refused.get_error_details();
            let info = details.error_info().unwrap();
            if info.reason == "AGENT_AWAY" && info.metadata.contains_key("cause") {
                return (info.metadata["cause"].clone(), refused);
            }
        }
    };
    let (cause, refused) = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(cause, "BOOT_TIMEOUT");
    assert!(refused.message().contains("did not report"), "{refused}");
    rig.stopped().await;
}

/// Watches until the VM satisfies a condition.
async fn until(rig: &Rig, vm: &str, condition: impl Fn(&v1::Vm) -> bool) -> v1::Vm {
    let watched = async {
        let request = v1::WatchVmRequest { vm: vm.into() };
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
    tokio::time::timeout(PATIENCE, watched).await.expect(vm)
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
