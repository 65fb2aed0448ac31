//! What VMs use and who listens in them.

use std::sync::atomic::Ordering;

use banger_proto::v1;
use banger_proto::v1::watch_vm_stats_response::Message;
use tonic::{Code, Status, Streaming};
use v1::vm::State;

use crate::disk::Trouble;
use crate::rig::{PATIENCE, Rig, assert_refused, drain};

fn named() -> String {
    "web".to_owned()
}

async fn stats(rig: &Rig) -> Result<v1::VmStats, Status> {
    let request = v1::GetVmStatsRequest { vm: named() };
    let answer = rig.vms().get_vm_stats(request).await?;
    Ok(answer.into_inner().stats.unwrap())
}

async fn watch(rig: &Rig, vm: &str) -> Result<Streaming<v1::WatchVmStatsResponse>, Status> {
    let request = v1::WatchVmStatsRequest {
        vm: vm.to_owned(),
        interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 500_000_000,
        }),
    };
    Ok(rig.vms().watch_vm_stats(request).await?.into_inner())
}

/// The VMs of the next measurement, by name.
async fn round(stream: &mut Streaming<v1::WatchVmStatsResponse>) -> Vec<v1::VmStats> {
    let mut found = Vec::new();
    loop {
        let message = tokio::time::timeout(PATIENCE, stream.message())
            .await
            .expect("in time")
            .unwrap()
            .expect("the stream goes on");
        match message.message.unwrap() {
            Message::Stats(stats) => found.push(stats),
            Message::Round(end) => {
                assert_eq!(usize::try_from(end.vm_count).unwrap(), found.len());
                found.sort_by(|one, other| one.name.cmp(&other.name));
                return found;
            }
            Message::Heartbeat(_) => {}
            Message::Deleted(_) => panic!("the VM is there"),
        }
    }
}

fn reason(stats: &v1::VmStats) -> String {
    let error = stats.guest_error.as_ref().expect("there is an error");
    let found = error.details.iter().find_map(|detail| {
        use prost::Message as _;
        tonic_types::pb::ErrorInfo::decode(&*detail.value).ok()
    });
    found.unwrap().reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_vm_tells_of_host_and_guest() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let made = rig.create("web").await.unwrap();
    let found = stats(&rig).await.unwrap();
    assert_eq!((&found.vm, found.state()), (&made.id, State::Running));
    let host = found.host.unwrap();
    assert_eq!(host.rss_bytes, 96 << 20);
    assert!(host.cpu_percent.is_some(), "measured over a time");
    assert!(host.written_bytes_per_second.is_some());
    assert_eq!(host.drives.len(), 2);
    assert_eq!(found.guest.unwrap().process_count, 3);
    assert!(found.guest_error.is_none());
    assert_eq!(found.disk_size_bytes, 64 << 20);
    assert!(found.disk_allocated_bytes > 0);
    assert!(found.disk_allocated_bytes < found.disk_size_bytes);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_answer_costs_its_own_half_only() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    rig.is_mute.store(true, Ordering::Relaxed);
    let found = stats(&rig).await.unwrap();
    assert!(found.host.is_some() && found.guest.is_none());
    assert_eq!(reason(&found), "AGENT_SILENT");
    rig.is_mute.store(false, Ordering::Relaxed);
    assert!(stats(&rig).await.unwrap().guest.is_some());
    rig.stopped().await;
}

/// What the disks take, and how many could not be looked at.
async fn disks(rig: &Rig) -> (i64, i32) {
    let asked = rig.hosts();
    let usage = async move {
        let mut asked = asked;
        asked.get_usage(v1::GetUsageRequest {}).await
    };
    let usage = tokio::time::timeout(PATIENCE, usage).await;
    let usage = usage.expect("in time").unwrap().into_inner();
    let usage = usage.usage.unwrap();
    (usage.disk_used_bytes, usage.unmeasured_disk_count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_stands_still_costs_what_it_takes_and_nothing_else() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let request = v1::CreateVolumeRequest {
        name: "data".into(),
        size_mib: 64,
        ..Default::default()
    };
    let made = rig.volumes().create_volume(request).await.unwrap();
    drain(made.into_inner()).await.unwrap();
    let whole = disks(&rig).await;
    assert!(whole.0 > 0 && whole.1 == 0, "{whole:?}");
    let state = rig.dir.path().join("state");
    let vms = Trouble::holds_looks(&state.join("vms"));
    let of_volumes = disks(&rig).await;
    assert!(
        of_volumes.0 < whole.0 && of_volumes.1 == 1,
        "{of_volumes:?}"
    );
    let found = stats(&rig).await.unwrap();
    assert!(found.host.is_some() && found.guest.is_some());
    assert!(found.disk_error.is_some());
    let volumes = Trouble::holds_looks(&state.join("volumes"));
    assert_eq!(disks(&rig).await, (0, 2));
    drop((vms, volumes));
    assert_eq!(disks(&rig).await, whole);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_run_has_no_guest_and_that_is_no_error() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let request = v1::PauseVmRequest {
        vm: named(),
        ..Default::default()
    };
    rig.vms().pause_vm(request).await.unwrap();
    let paused = stats(&rig).await.unwrap();
    assert_eq!(paused.state(), State::Paused);
    assert!(paused.host.is_some() && paused.guest.is_none() && paused.guest_error.is_none());
    let request = v1::StopVmRequest {
        vm: named(),
        ..Default::default()
    };
    rig.vms().stop_vm(request).await.unwrap();
    let stopped = stats(&rig).await.unwrap();
    assert_eq!(stopped.state(), State::Stopped);
    assert!(stopped.host.is_none() && stopped.guest.is_none() && stopped.guest_error.is_none());
    assert!(stopped.disk_allocated_bytes > 0);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_vms_are_measured_round_after_round() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("one").await.unwrap();
    rig.create("two").await.unwrap();
    let mut stream = watch(&rig, "").await.unwrap();
    let first = round(&mut stream).await;
    let names: Vec<&str> = first.iter().map(|stats| stats.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    let rates = |stats: &v1::VmStats| stats.host.as_ref().unwrap().cpu_percent;
    assert!(first.iter().all(|stats| rates(stats).is_none()));
    let second = round(&mut stream).await;
    assert!(second.iter().all(|stats| rates(stats).is_some()));
    let request = v1::DeleteVmRequest {
        vm: "one".into(),
        ..Default::default()
    };
    rig.vms().delete_vm(request).await.unwrap();
    rig.create("three").await.unwrap();
    // A measurement that was under way has the one that is gone.
    let third = loop {
        let third = round(&mut stream).await;
        if third.iter().all(|stats| stats.name != "one") && third.len() == 2 {
            break third;
        }
    };
    assert_eq!(
        (third[0].name.as_str(), third[1].name.as_str()),
        ("three", "two")
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_one_vm_ends_with_it() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let mut stream = watch(&rig, "web").await.unwrap();
    assert_eq!(round(&mut stream).await.len(), 1);
    let request = v1::DeleteVmRequest {
        vm: named(),
        ..Default::default()
    };
    rig.vms().delete_vm(request).await.unwrap();
    let rest = drain(stream).await.unwrap();
    let last = rest.last().unwrap();
    assert_eq!(last.message, Some(Message::Deleted(v1::VmDeleted {})));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_are_refused_by_field() {
    let rig = Rig::start().await;
    let missing = stats(&rig).await.unwrap_err();
    assert_refused(&missing, Code::NotFound, "VM_NOT_FOUND", None);
    let missing = watch(&rig, "web").await.unwrap_err();
    assert_refused(&missing, Code::NotFound, "VM_NOT_FOUND", None);
    for (seconds, nanos) in [(0, 1), (61, 0), (-1, 0)] {
        let request = v1::WatchVmStatsRequest {
            vm: String::new(),
            interval: Some(prost_types::Duration { seconds, nanos }),
        };
        let refused = rig.vms().watch_vm_stats(request).await.unwrap_err();
        assert_refused(
            &refused,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some("interval"),
        );
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_are_told_of_a_running_vm_only() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let ask = async |probe| {
        let request = v1::ListPortsRequest { vm: named(), probe };
        rig.vms().list_ports(request).await
    };
    let port = ask(false).await.unwrap().into_inner().ports.remove(0);
    assert_eq!((port.address.as_str(), port.port), ("::", 8080));
    assert_eq!(port.process.unwrap().name, "httpd");
    assert!(port.http.is_none());
    let port = ask(true).await.unwrap().into_inner().ports.remove(0);
    assert_eq!(port.http.unwrap().title, "Hello");
    let request = v1::StopVmRequest {
        vm: named(),
        ..Default::default()
    };
    rig.vms().stop_vm(request).await.unwrap();
    let refused = ask(false).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "WRONG_STATE", None);
    rig.stopped().await;
}
