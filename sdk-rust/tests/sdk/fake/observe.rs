//! What VMs use, who listens in them, and what happens.

use banger_proto::v1;
use futures::{StreamExt, stream};
use tonic::Status;
use v1::watch_events_response::Message as Told;
use v1::watch_vm_stats_response::Message;

use super::{Answer, State, time};

fn span(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// The more of a round came before it, the more it uses.
pub(super) fn stats(vm: &v1::Vm, before: u32) -> v1::VmStats {
    let spec = vm.spec.clone().unwrap();
    let host = v1::HostStats {
        cpu_time: span(12),
        cpu_percent: Some(f64::from(before) * 10.0 + 12.5),
        rss_bytes: 100 << 20,
        pss_bytes: Some(90 << 20),
        thread_count: 4,
        drives: vec![v1::DriveStats {
            name: "upper".into(),
            read_bytes: 4096,
            written_bytes: 8192,
            read_count: 1,
            write_count: 2,
        }],
        read_bytes_per_second: Some(1024.0),
        written_bytes_per_second: Some(2048.0),
    };
    let guest = v1::GuestStats {
        memory_total_bytes: 512 << 20,
        memory_available_bytes: 384 << 20,
        memory_cached_bytes: 64 << 20,
        load_1m: 0.25,
        uptime: span(3661),
        cpu: Some(v1::GuestCpuTimes {
            user: span(5),
            ..v1::GuestCpuTimes::default()
        }),
        disk_total_bytes: 8 << 30,
        disk_used_bytes: 1 << 30,
        process_count: 7,
        interfaces: vec![v1::NetworkStats {
            name: "eth0".into(),
            received_bytes: 500,
            sent_bytes: 700,
        }],
        ..v1::GuestStats::default()
    };
    let is_running = vm.state() == v1::vm::State::Running;
    v1::VmStats {
        vm: vm.id.clone(),
        name: spec.name,
        state: vm.state,
        time: time(0),
        host: is_running.then_some(host),
        guest: is_running.then_some(guest),
        guest_error: None,
        disk_size_bytes: 8 << 30,
        disk_allocated_bytes: 20 << 20,
        disk_error: None,
    }
}

/// Rounds for ever, of the VM that is asked for or of all.
pub(super) fn watch_stats(
    state: std::sync::Arc<State>,
    wanted: String,
) -> Answer<v1::WatchVmStatsResponse> {
    let rounds = stream::unfold(false, move |later| {
        let (state, wanted) = (state.clone(), wanted.clone());
        async move {
            if later {
                tokio::time::sleep(super::HEARTBEAT).await;
            }
            let vms = state.vms.lock().unwrap();
            let wanted = |vm: &&v1::Vm| wanted.is_empty() || vm.id == wanted;
            let mut round: Vec<Message> = (0..)
                .zip(vms.values().filter(wanted))
                .map(|(before, vm)| Message::Stats(stats(vm, before)))
                .collect();
            let vm_count = i32::try_from(round.len()).unwrap();
            round.push(Message::Round(v1::StatsRound { vm_count }));
            Some((stream::iter(round), true))
        }
    });
    let wrap = |(sequence, message)| {
        Ok::<_, Status>(v1::WatchVmStatsResponse {
            sequence,
            message: Some(message),
        })
    };
    stream::iter(1..).zip(rounds.flatten()).map(wrap).boxed()
}

pub(super) fn ports(probe: bool) -> v1::ListPortsResponse {
    let http = probe.then(|| v1::PortAnswer {
        status: 200,
        title: "Hello".into(),
    });
    let tcp = v1::Port {
        protocol: v1::port::Protocol::Tcp.into(),
        address: "0.0.0.0".into(),
        port: 8080,
        uid: 1000,
        process: Some(v1::PortProcess {
            pid: 7,
            name: "httpd".into(),
            uid: 1000,
        }),
        http,
    };
    let udp = v1::Port {
        protocol: v1::port::Protocol::Udp.into(),
        address: "::1".into(),
        port: 53,
        ..v1::Port::default()
    };
    v1::ListPortsResponse {
        ports: vec![tcp, udp],
        is_truncated: false,
    }
}

fn told(dropped_count: i64, message: Told) -> Result<v1::WatchEventsResponse, Status> {
    Ok(v1::WatchEventsResponse {
        dropped_count,
        message: Some(message),
    })
}

pub(super) fn event(sequence: i64) -> v1::Event {
    let vm = v1::VmEvent {
        id: "00000000-0000-7000-8000-000000000001".into(),
        name: "web".into(),
        from_state: v1::vm::State::Running.into(),
        to_state: v1::vm::State::Failed.into(),
        reason: "VM_ENDED".into(),
    };
    v1::Event {
        sequence,
        time: time(sequence),
        kind: v1::event::Kind::VmStateChanged.into(),
        subject: Some(v1::event::Subject::Vm(vm)),
    }
}

/// Kept events 1 and 2, then a snapshot, then 3; after that what was asked for, one each time, and silence.
pub(super) fn watch_events(request: v1::WatchEventsRequest) -> Answer<v1::WatchEventsResponse> {
    use v1::watch_events_request::Start;
    let snapshot = v1::EventsSnapshot {
        epoch: "epoch-1".into(),
        sequence: 2,
        vms: vec![v1::VmSummary {
            id: "00000000-0000-7000-8000-000000000001".into(),
            name: "web".into(),
            state: v1::vm::State::Running.into(),
        }],
    };
    let snapshot = |dropped_count| told(dropped_count, Told::Snapshot(snapshot.clone()));
    let event = |sequence| told(0, Told::Event(event(sequence)));
    let messages = match request.start {
        Some(Start::Kept(true)) => vec![event(1), event(2), snapshot(0), event(3)],
        Some(Start::After(after)) if after.epoch == "epoch-1" => vec![event(after.sequence + 1)],
        Some(Start::After(_)) => vec![snapshot(5)],
        _ => vec![snapshot(0), event(3)],
    };
    let beats = stream::unfold((), |()| async {
        tokio::time::sleep(super::HEARTBEAT).await;
        Some((told(0, Told::Heartbeat(v1::Heartbeat {})), ()))
    });
    stream::iter(messages).chain(beats).boxed()
}
