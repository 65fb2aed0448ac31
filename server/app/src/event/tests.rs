use banger_core::{KernelId, Owner};

use super::*;

fn name(text: &str) -> banger_core::Name {
    text.parse().unwrap()
}

fn kernel() -> Subject {
    Subject::Kernel {
        id: KernelId::new(),
        name: name("k"),
    }
}

fn vm(id: VmId, from: Option<Phase>, to: Option<Phase>) -> Subject {
    Subject::Vm {
        id,
        name: name("web"),
        owner: Owner::of_uid(7),
        from,
        to,
        reason: String::new(),
    }
}

fn happen(events: &Events, count: usize) {
    for _ in 0..count {
        events.publish(EventKind::KernelAdded, kernel());
    }
}

/// The sequences of what is told now.
fn told(watch: &mut Watch) -> Vec<u64> {
    std::iter::from_fn(|| watch.look())
        .map(|told| match told {
            Told::Event(event) => event.sequence,
            Told::Snapshot(snapshot) => 1_000_000 + snapshot.sequence,
        })
        .collect()
}

fn snapshot(watch: &mut Watch) -> Snapshot {
    match watch.look() {
        Some(Told::Snapshot(snapshot)) => snapshot,
        other => panic!("{other:?} is no snapshot"),
    }
}

#[test]
fn a_watch_begins_with_a_snapshot_and_goes_on_without_a_hole() {
    let events = Arc::new(Events::default());
    happen(&events, 3);
    let mut watch = events.watch(&From::Snapshot, Filter::default());
    happen(&events, 2); // before the first look: in the snapshot
    let first = snapshot(&mut watch);
    assert_eq!((first.sequence, first.dropped_count), (5, 0));
    happen(&events, 2);
    assert_eq!(told(&mut watch), [6, 7]);
    assert_eq!(told(&mut watch), Vec::<u64>::new());
}

#[test]
fn kept_events_come_before_their_snapshot() {
    let events = Arc::new(Events::default());
    happen(&events, 3);
    let mut watch = events.watch(&From::Kept, Filter::default());
    assert_eq!(told(&mut watch), [1, 2, 3, 1_000_003]);
    happen(&events, 1);
    assert_eq!(told(&mut watch), [4]);
}

#[test]
fn a_watch_that_is_too_slow_is_told_how_many_it_lost() {
    let events = Arc::new(Events::default());
    let mut watch = events.watch(&From::Snapshot, Filter::default());
    snapshot(&mut watch);
    happen(&events, KEPT_MAX);
    assert!(matches!(watch.look(), Some(Told::Event(event)) if event.sequence == 1));
    happen(&events, 2); // the second is evicted
    let again = snapshot(&mut watch);
    let newest = KEPT_MAX as u64 + 2;
    assert_eq!((again.sequence, again.dropped_count), (newest, newest - 1));
    happen(&events, 1);
    assert_eq!(told(&mut watch), [newest + 1]);
    assert_eq!(
        events.lock().kept.len(),
        KEPT_MAX,
        "what is kept is bounded"
    );
}

#[test]
fn a_watch_goes_on_where_it_was_in_the_same_epoch_only() {
    let events = Arc::new(Events::default());
    happen(&events, 3);
    let after = |epoch: &str, sequence| From::After {
        epoch: epoch.into(),
        sequence,
    };
    let mut same = events.watch(&after(&events.epoch, 1), Filter::default());
    assert_eq!(told(&mut same), [2, 3]);
    for from in [after("another", 1), after(&events.epoch, 4)] {
        let mut other = events.watch(&from, Filter::default());
        assert_eq!(snapshot(&mut other).dropped_count, 0, "{from:?}");
    }
    happen(&events, KEPT_MAX);
    let mut late = events.watch(&after(&events.epoch, 1), Filter::default());
    assert_eq!(snapshot(&mut late).dropped_count, KEPT_MAX as u64 + 2);
}

#[test]
fn the_snapshot_has_the_effect_of_the_events_up_to_it() {
    let events = Arc::new(Events::default());
    let (stays, goes) = (VmId::new(), VmId::new());
    events.publish(EventKind::VmCreated, vm(stays, None, Some(Phase::Creating)));
    events.publish(EventKind::VmCreated, vm(goes, None, Some(Phase::Creating)));
    events.publish(
        EventKind::VmStateChanged,
        vm(stays, Some(Phase::Creating), Some(Phase::Running)),
    );
    events.publish(EventKind::VmDeleted, vm(goes, Some(Phase::Deleting), None));
    let mut watch = events.watch(&From::Snapshot, Filter::default());
    let all = snapshot(&mut watch);
    let found: Vec<_> = all.vms.iter().map(|vm| (vm.id, vm.phase)).collect();
    assert_eq!(found, [(stays, Phase::Running)]);
}

#[test]
fn a_filter_leaves_out_what_is_not_wanted() {
    let events = Arc::new(Events::default());
    let (one, other) = (VmId::new(), VmId::new());
    let work = |target: String| Subject::Operation {
        id: banger_core::OperationId::new(),
        kind: banger_core::operation::OperationKind::StartVm,
        owner: Owner::of_uid(7),
        target,
        end: None,
    };
    events.publish(EventKind::VmCreated, vm(one, None, Some(Phase::Creating)));
    events.publish(EventKind::VmCreated, vm(other, None, Some(Phase::Creating)));
    events.publish(EventKind::OperationBegun, work(one.to_string()));
    events.publish(EventKind::OperationBegun, work(other.to_string()));
    happen(&events, 1);
    let of_vm = Filter {
        vm: Some(one),
        ..Filter::default()
    };
    let mut watch = events.watch(&From::Kept, of_vm);
    assert_eq!(told(&mut watch), [1, 3, 1_000_005]);
    let of_kind = Filter {
        kinds: vec![EventKind::VmCreated],
        ..Filter::default()
    };
    let mut watch = events.watch(&From::Kept, of_kind);
    assert_eq!(told(&mut watch), [1, 2, 1_000_005]);
}

#[tokio::test]
async fn a_watch_that_waits_is_woken() {
    let events = Arc::new(Events::default());
    let mut watch = events.watch(&From::Snapshot, Filter::default());
    watch.next().await;
    let woken = watch.next();
    let publish = async { happen(&events, 1) };
    let (told, ()) = tokio::join!(woken, publish);
    assert!(matches!(told, Told::Event(event) if event.sequence == 1));
}
