//! What happens on the host, as watchers are told.

use banger_proto::v1;
use tonic::{Code, Status, Streaming};
use v1::event::{Kind, Subject};
use v1::vm::State;
use v1::watch_events_request::Start;
use v1::watch_events_response::Message;

use crate::rig::{PATIENCE, Rig, assert_refused};

pub(crate) async fn watch(
    rig: &Rig,
    request: v1::WatchEventsRequest,
) -> Result<Streaming<v1::WatchEventsResponse>, Status> {
    Ok(rig.hosts().watch_events(request).await?.into_inner())
}

/// The next thing that is told, but no heartbeat.
async fn next(stream: &mut Streaming<v1::WatchEventsResponse>) -> Message {
    loop {
        let told = tokio::time::timeout(PATIENCE, stream.message())
            .await
            .expect("in time")
            .unwrap()
            .expect("the stream goes on");
        assert_eq!(told.dropped_count, 0);
        match told.message.unwrap() {
            Message::Heartbeat(_) => {}
            message => return message,
        }
    }
}

pub(crate) async fn snapshot(
    stream: &mut Streaming<v1::WatchEventsResponse>,
) -> v1::EventsSnapshot {
    match next(stream).await {
        Message::Snapshot(snapshot) => snapshot,
        other => panic!("{other:?} is no snapshot"),
    }
}

/// Events up to the one of this kind.
pub(crate) async fn until(
    stream: &mut Streaming<v1::WatchEventsResponse>,
    last: Kind,
) -> Vec<v1::Event> {
    let mut events = Vec::new();
    loop {
        let Message::Event(event) = next(stream).await else {
            panic!("an event")
        };
        let is_last = event.kind() == last;
        events.push(event);
        if is_last {
            return events;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_vm_is_told_in_order_and_without_a_hole() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let mut stream = watch(&rig, v1::WatchEventsRequest::default())
        .await
        .unwrap();
    let begin = snapshot(&mut stream).await;
    assert!(begin.vms.is_empty());
    let made = rig.create("web").await.unwrap();
    rig.stop_vm("web").await;
    rig.delete_vm("web").await;
    let events = until(&mut stream, Kind::VmDeleted).await;
    let sequences: Vec<i64> = events.iter().map(|event| event.sequence).collect();
    let expected: Vec<i64> = (begin.sequence + 1..).take(events.len()).collect();
    assert_eq!(sequences, expected);
    let kinds: Vec<Kind> = events.iter().map(v1::Event::kind).collect();
    assert_eq!(kinds[..2], [Kind::OperationBegun, Kind::VmCreated]);
    let moves: Vec<(State, State, String)> = events
        .iter()
        .filter_map(|event| match event.subject.clone() {
            Some(Subject::Vm(vm)) => {
                assert_eq!((&vm.id, vm.name.as_str()), (&made.id, "web"));
                Some((vm.from_state(), vm.to_state(), vm.reason))
            }
            _ => None,
        })
        .collect();
    let step = |from, to, reason: &str| (from, to, reason.to_owned());
    assert_eq!(
        moves,
        [
            step(State::Unspecified, State::Creating, ""),
            step(State::Creating, State::Running, ""),
            step(State::Running, State::Stopping, ""),
            step(State::Stopping, State::Stopped, "agent"),
            step(State::Stopped, State::Deleting, ""),
            step(State::Deleting, State::Unspecified, ""),
        ]
    );
    let ended = events.iter().find_map(|event| match &event.subject {
        Some(Subject::Operation(operation)) if event.kind() == Kind::OperationEnded => {
            Some((operation.state(), operation.target.clone()))
        }
        _ => None,
    });
    assert_eq!(ended, Some((v1::operation::State::Succeeded, made.id)));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_and_kernels_come_and_go() {
    let rig = Rig::start().await;
    let mut stream = watch(
        &rig,
        v1::WatchEventsRequest {
            kinds: vec![
                Kind::ImageAdded.into(),
                Kind::ImageRemoved.into(),
                Kind::KernelAdded.into(),
                Kind::KernelRemoved.into(),
            ],
            ..Default::default()
        },
    )
    .await
    .unwrap();
    snapshot(&mut stream).await;
    rig.furnish().await;
    let image = v1::DeleteImageRequest {
        image: "web:1".into(),
        ..Default::default()
    };
    rig.images().delete_image(image).await.unwrap();
    let kernel = v1::DeleteKernelRequest {
        kernel: "k".into(),
        ..Default::default()
    };
    rig.kernels().delete_kernel(kernel).await.unwrap();
    let events = until(&mut stream, Kind::KernelRemoved).await;
    let kinds: Vec<Kind> = events.iter().map(v1::Event::kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::ImageAdded,
            Kind::KernelAdded,
            Kind::ImageRemoved,
            Kind::KernelRemoved
        ]
    );
    assert!(
        matches!(&events[0].subject, Some(Subject::Image(image)) if image.reference.ends_with("web:1")),
        "{:?}",
        events[0]
    );
    assert!(matches!(&events[3].subject, Some(Subject::Kernel(kernel)) if kernel.name == "k"));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_by_vm_leaves_the_others_out() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let made = rig.create("web").await.unwrap();
    rig.create("other").await.unwrap();
    let request = v1::WatchEventsRequest {
        vm: "web".into(),
        ..Default::default()
    };
    let mut stream = watch(&rig, request).await.unwrap();
    let begin = snapshot(&mut stream).await;
    assert_eq!(begin.vms.len(), 1);
    assert_eq!(
        (&begin.vms[0].id, begin.vms[0].state()),
        (&made.id, State::Running)
    );
    rig.stop_vm("other").await;
    rig.delete_vm("other").await;
    rig.delete_vm("web").await;
    let events = until(&mut stream, Kind::VmDeleted).await;
    assert!(
        events
            .iter()
            .all(|event| matches!(&event.subject, Some(Subject::Vm(vm)) if vm.id == made.id)),
        "{events:?}"
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_where_it_was_until_the_daemon_is_another() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let from = |start| v1::WatchEventsRequest {
        start: Some(start),
        ..Default::default()
    };
    let mut kept = watch(&rig, from(Start::Kept(true))).await.unwrap();
    let mut seen = Vec::new();
    let begin = loop {
        match next(&mut kept).await {
            Message::Event(event) => seen.push(event.sequence),
            Message::Snapshot(snapshot) => break snapshot,
            Message::Heartbeat(_) => unreachable!("left out"),
        }
    };
    let all: Vec<i64> = (1..=begin.sequence).collect();
    assert_eq!(seen, all, "what is kept comes first");
    drop(kept);
    rig.create("web").await.unwrap();
    let after = |epoch: &str| {
        from(Start::After(v1::EventPosition {
            epoch: epoch.into(),
            sequence: begin.sequence,
        }))
    };
    let mut again = watch(&rig, after(&begin.epoch)).await.unwrap();
    let Message::Event(event) = next(&mut again).await else {
        panic!("no snapshot where nothing is lost")
    };
    assert_eq!(event.sequence, begin.sequence + 1);
    let (dir, host) = rig.stopped().await;
    let rig = Rig::start_in(dir, host).await;
    let mut other = watch(&rig, after(&begin.epoch)).await.unwrap();
    let fresh = snapshot(&mut other).await;
    assert_ne!(fresh.epoch, begin.epoch);
    assert_eq!(fresh.vms.len(), 1, "VMs of the daemon before are in it");
    assert_eq!(fresh.vms[0].state(), State::Running);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_filters_are_refused_by_field() {
    let rig = Rig::start().await;
    let unknown = v1::WatchEventsRequest {
        kinds: vec![77],
        ..Default::default()
    };
    let refused = watch(&rig, unknown).await.unwrap_err();
    assert_refused(
        &refused,
        Code::InvalidArgument,
        "INVALID_FIELD",
        Some("kinds"),
    );
    let missing = v1::WatchEventsRequest {
        vm: "web".into(),
        ..Default::default()
    };
    let refused = watch(&rig, missing).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "VM_NOT_FOUND", None);
    rig.stopped().await;
}
