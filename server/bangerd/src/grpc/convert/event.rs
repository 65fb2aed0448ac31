//! Events.

use banger_app::event::{From, Snapshot};
use banger_core::event::{Event, EventKind, Subject, VmSummary};
use banger_proto::v1;
use v1::event::Kind;
use v1::watch_events_request::Start as Asked;

use super::field::{int, natural, time};
use super::operation;
use super::vm::phase;
use crate::grpc::request::RequestError;

/// Where a watch is to begin.
pub(crate) fn from(asked: Option<Asked>) -> Result<From, RequestError> {
    Ok(match asked {
        None | Some(Asked::Kept(false)) => From::Snapshot,
        Some(Asked::Kept(true)) => From::Kept,
        Some(Asked::After(position)) => From::After {
            epoch: position.epoch,
            sequence: natural("after.sequence", position.sequence)?,
        },
    })
}

/// The kinds of events that are wanted.
pub(crate) fn kinds(asked: &[i32]) -> Result<Vec<EventKind>, RequestError> {
    let known = |number: &i32| match Kind::try_from(*number) {
        Ok(Kind::VmCreated) => Ok(EventKind::VmCreated),
        Ok(Kind::VmStateChanged) => Ok(EventKind::VmStateChanged),
        Ok(Kind::VmUpdated) => Ok(EventKind::VmUpdated),
        Ok(Kind::VmDeleted) => Ok(EventKind::VmDeleted),
        Ok(Kind::OperationBegun) => Ok(EventKind::OperationBegun),
        Ok(Kind::OperationEnded) => Ok(EventKind::OperationEnded),
        Ok(Kind::ImageAdded) => Ok(EventKind::ImageAdded),
        Ok(Kind::ImageRemoved) => Ok(EventKind::ImageRemoved),
        Ok(Kind::KernelAdded) => Ok(EventKind::KernelAdded),
        Ok(Kind::KernelRemoved) => Ok(EventKind::KernelRemoved),
        Ok(Kind::Unspecified) | Err(_) => Err(RequestError::invalid(
            "kinds",
            format!("has {number}, which is no kind of event"),
        )),
    };
    asked.iter().map(known).collect()
}

fn kind(kind: EventKind) -> Kind {
    match kind {
        EventKind::VmCreated => Kind::VmCreated,
        EventKind::VmStateChanged => Kind::VmStateChanged,
        EventKind::VmUpdated => Kind::VmUpdated,
        EventKind::VmDeleted => Kind::VmDeleted,
        EventKind::OperationBegun => Kind::OperationBegun,
        EventKind::OperationEnded => Kind::OperationEnded,
        EventKind::ImageAdded => Kind::ImageAdded,
        EventKind::ImageRemoved => Kind::ImageRemoved,
        EventKind::KernelAdded => Kind::KernelAdded,
        EventKind::KernelRemoved => Kind::KernelRemoved,
    }
}

pub(crate) fn event(event: &Event) -> v1::Event {
    v1::Event {
        sequence: int(event.sequence),
        time: Some(time(event.time)),
        kind: kind(event.kind).into(),
        subject: Some(subject(&event.subject)),
    }
}

fn subject(subject: &Subject) -> v1::event::Subject {
    use v1::event::Subject as Shown;
    use v1::operation::State;
    use v1::vm::State as VmState;
    match subject {
        Subject::Vm {
            id,
            name,
            from,
            to,
            reason,
            ..
        } => Shown::Vm(v1::VmEvent {
            id: id.to_string(),
            name: name.to_string(),
            from_state: from.map_or(VmState::Unspecified, phase).into(),
            to_state: to.map_or(VmState::Unspecified, phase).into(),
            reason: reason.clone(),
        }),
        Subject::Operation {
            id,
            kind,
            target,
            end,
            ..
        } => {
            let (state, reason) = match end {
                None => (State::Running, String::new()),
                Some(Ok(())) => (State::Succeeded, String::new()),
                Some(Err(reason)) => (State::Failed, reason.clone()),
            };
            Shown::Operation(v1::OperationEvent {
                id: id.to_string(),
                operation_kind: operation::kind(*kind).into(),
                target: target.clone(),
                state: state.into(),
                reason,
            })
        }
        Subject::Image { id, reference } => Shown::Image(v1::ImageEvent {
            id: id.to_string(),
            reference: reference.clone(),
        }),
        Subject::Kernel { id, name } => Shown::Kernel(v1::KernelEvent {
            id: id.to_string(),
            name: name.to_string(),
        }),
    }
}

pub(crate) fn snapshot(snapshot: Snapshot) -> v1::EventsSnapshot {
    let vm = |vm: VmSummary| v1::VmSummary {
        id: vm.id.to_string(),
        name: vm.name.to_string(),
        state: phase(vm.phase).into(),
    };
    v1::EventsSnapshot {
        epoch: snapshot.epoch,
        sequence: int(snapshot.sequence),
        vms: snapshot.vms.into_iter().map(vm).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_the_api_is_known_but_none() {
        let all: Vec<i32> = (1..).take_while(|&n| Kind::try_from(n).is_ok()).collect();
        let known = kinds(&all).unwrap();
        let back: Vec<i32> = known.into_iter().map(|known| kind(known).into()).collect();
        assert_eq!(back, all);
        assert!(kinds(&[0]).is_err());
        assert!(kinds(&[9999]).is_err());
    }

    #[test]
    fn a_negative_position_is_refused() {
        let position = v1::EventPosition {
            epoch: "e".into(),
            sequence: -1,
        };
        assert!(from(Some(Asked::After(position))).is_err());
        assert_eq!(from(Some(Asked::Kept(false))), Ok(From::Snapshot));
    }
}
