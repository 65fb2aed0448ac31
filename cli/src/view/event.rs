//! Events of the host.

use banger_sdk::{HostEvent, types};
use jiff::Timestamp;
use serde::Serialize;
use types::event::Subject;

use super::{timestamp, word};

/// One line of the host's events in JSON, told apart by `type`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum EventItem {
    /// Where every VM is.
    Snapshot {
        epoch: String,
        sequence: i64,
        dropped_count: i64,
        vms: Vec<VmSummary>,
    },
    /// Something that happened.
    Event(Event),
}

/// A VM in short.
#[derive(Debug, Serialize)]
pub(crate) struct VmSummary {
    id: String,
    name: String,
    state: String,
}

/// Something that happened.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    sequence: i64,
    time: Option<Timestamp>,
    kind: String,
    #[serde(flatten)]
    subject: Option<EventSubject>,
}

/// To what it happened.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum EventSubject {
    Vm {
        id: String,
        name: String,
        from: Option<String>,
        to: Option<String>,
        reason: String,
    },
    Operation {
        id: String,
        kind: String,
        target: String,
        state: String,
        reason: String,
    },
    Image {
        id: String,
        reference: String,
    },
    Kernel {
        id: String,
        name: String,
    },
}

impl From<HostEvent> for EventItem {
    fn from(event: HostEvent) -> Self {
        let vm = |vm: types::VmSummary| VmSummary {
            state: state(vm.state()).unwrap_or_default(),
            id: vm.id,
            name: vm.name,
        };
        match event {
            HostEvent::Event(event) => Self::Event((*event).into()),
            HostEvent::Snapshot {
                snapshot,
                dropped_count,
            } => Self::Snapshot {
                epoch: snapshot.epoch,
                sequence: snapshot.sequence,
                dropped_count,
                vms: snapshot.vms.into_iter().map(vm).collect(),
            },
        }
    }
}

fn state(state: types::vm::State) -> Option<String> {
    (state != types::vm::State::Unspecified).then(|| word(state.as_str_name(), "STATE_"))
}

impl From<types::Event> for Event {
    fn from(event: types::Event) -> Self {
        Self {
            kind: word(event.kind().as_str_name(), "KIND_"),
            sequence: event.sequence,
            time: timestamp(event.time),
            subject: event.subject.map(EventSubject::from),
        }
    }
}

impl From<Subject> for EventSubject {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Vm(vm) => Self::Vm {
                from: state(vm.from_state()),
                to: state(vm.to_state()),
                id: vm.id,
                name: vm.name,
                reason: vm.reason,
            },
            Subject::Operation(operation) => Self::Operation {
                kind: word(operation.operation_kind().as_str_name(), "KIND_"),
                state: word(operation.state().as_str_name(), "STATE_"),
                id: operation.id,
                target: operation.target,
                reason: operation.reason,
            },
            Subject::Image(image) => Self::Image {
                id: image.id,
                reference: image.reference,
            },
            Subject::Kernel(kernel) => Self::Kernel {
                id: kernel.id,
                name: kernel.name,
            },
        }
    }
}

impl Event {
    /// What `--quiet` prints.
    pub(crate) fn id(&self) -> String {
        match &self.subject {
            Some(
                EventSubject::Vm { id, .. }
                | EventSubject::Operation { id, .. }
                | EventSubject::Image { id, .. }
                | EventSubject::Kernel { id, .. },
            ) => id.clone(),
            None => String::new(),
        }
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let time = self.time.map(|time| time.to_string()).unwrap_or_default();
        let what = self.subject.as_ref().map(EventSubject::text);
        format!(
            "{time}  {}  {}  {}",
            self.sequence,
            self.kind,
            what.unwrap_or_default()
        )
        .trim_end()
        .to_owned()
    }
}

impl EventSubject {
    fn text(&self) -> String {
        let because = |reason: &str| match reason {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        match self {
            Self::Vm {
                name,
                from: Some(from),
                to: Some(to),
                reason,
                ..
            } if from != to => format!("{name}  {from} → {to}{}", because(reason)),
            Self::Vm { name, reason, .. } => format!("{name}{}", because(reason)),
            Self::Operation {
                kind,
                target,
                state,
                reason,
                ..
            } => format!("{kind} {target}  {state}{}", because(reason)),
            Self::Image { id, reference } if reference.is_empty() => id.clone(),
            Self::Image { reference, .. } => reference.clone(),
            Self::Kernel { name, .. } => name.clone(),
        }
    }
}
