//! Events: what happens on this host, in one order, for whoever watches.
//!
//! ```text
//!   runners, services ──publish──▶ log of the newest events, and where every VM is ──▶ any number of watches
//! ```
//! The log is bounded, and publishing never waits: a watch that is too slow finds that events are gone, is told
//! how many, and goes on from a snapshot. Events and snapshot change under one lock, so a snapshot has the
//! effect of exactly the events up to its sequence.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_core::event::{Event, EventKind, Subject, VmSummary};
use banger_core::image::Image;
use banger_core::kernel::Kernel;
use banger_core::vm::{Phase, Vm, VmState};
use banger_core::{Scope, Timestamp, VmId};
use tokio::sync::watch;

/// Events that are kept: an hour of a busy host, and less than 2 MiB.
const KEPT_MAX: usize = 4096;

/// The events of this daemon.
#[derive(Debug)]
pub struct Events {
    epoch: String,
    log: Mutex<Log>,
    /// The sequence of the newest event.
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Log {
    sequence: u64,
    kept: VecDeque<Arc<Event>>,
    vms: BTreeMap<VmId, VmSummary>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            epoch: uuid::Uuid::new_v4().to_string(),
            log: Mutex::default(),
            newest: watch::Sender::new(0),
        }
    }
}

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of these kinds; empty means all.
    pub kinds: Vec<EventKind>,
    /// Of this VM, and of work on it.
    pub vm: Option<VmId>,
    /// Of what the caller knows of.
    pub scope: Scope,
}

/// Where a watch begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// With a snapshot.
    Snapshot,
    /// With the events that are kept; the snapshot follows them.
    Kept,
    /// After an event, with those that followed it; with a snapshot where they are gone.
    After {
        /// Of the daemon that told of it.
        epoch: String,
        /// Its number.
        sequence: u64,
    },
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The next event.
    Event(Arc<Event>),
    /// The host, with the effect of all events up to a sequence.
    Snapshot(Snapshot),
}

/// The host as it was after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Differs for each daemon.
    pub epoch: String,
    /// Of the last event whose effect is in it.
    pub sequence: u64,
    /// The VMs that are wanted, oldest first.
    pub vms: Vec<VmSummary>,
    /// Events, of whatever kind, that the watch has lost before it.
    pub dropped_count: u64,
}

impl Events {
    /// Tells of something that happened. Never waits.
    pub(crate) fn publish(&self, kind: EventKind, subject: Subject) {
        let mut log = self.lock();
        log.note(&subject);
        log.sequence += 1;
        let event = Event {
            sequence: log.sequence,
            time: Timestamp::now(),
            kind,
            subject,
        };
        if log.kept.len() == KEPT_MAX {
            log.kept.pop_front();
        }
        log.kept.push_back(Arc::new(event));
        // Under the lock, so that it only rises.
        self.newest.send_replace(log.sequence);
    }

    /// A VM that an earlier daemon made: no event, but it is there.
    pub(crate) fn vm_found(&self, vm: &Vm) {
        let phase = Some(vm.state.phase());
        self.lock().note(&Subject::vm(vm, None, phase, ""));
    }

    pub(crate) fn vm_created(&self, vm: &Vm) {
        let phase = Some(vm.state.phase());
        self.publish(EventKind::VmCreated, Subject::vm(vm, None, phase, ""));
    }

    pub(crate) fn vm_moved(&self, vm: &Vm, from: Phase) {
        let (to, reason) = (vm.state.phase(), reason(vm, from));
        self.publish(
            EventKind::VmStateChanged,
            Subject::vm(vm, Some(from), Some(to), reason),
        );
    }

    pub(crate) fn vm_updated(&self, vm: &Vm) {
        let phase = Some(vm.state.phase());
        self.publish(EventKind::VmUpdated, Subject::vm(vm, phase, phase, ""));
    }

    pub(crate) fn vm_deleted(&self, vm: &Vm) {
        let phase = Some(vm.state.phase());
        self.publish(EventKind::VmDeleted, Subject::vm(vm, phase, None, ""));
    }

    pub(crate) fn image_added(&self, image: &Image) {
        self.publish(EventKind::ImageAdded, subject_of_image(image));
    }

    pub(crate) fn image_removed(&self, image: &Image) {
        self.publish(EventKind::ImageRemoved, subject_of_image(image));
    }

    pub(crate) fn kernel_added(&self, kernel: &Kernel) {
        self.publish(EventKind::KernelAdded, subject_of_kernel(kernel));
    }

    pub(crate) fn kernel_removed(&self, kernel: &Kernel) {
        self.publish(EventKind::KernelRemoved, subject_of_kernel(kernel));
    }

    /// Watches what happens, from now or from before.
    #[must_use]
    pub fn watch(self: &Arc<Self>, from: &From, filter: Filter) -> Watch {
        let log = self.lock();
        let (next, due) = match from {
            From::Snapshot => (log.sequence + 1, Due::Now),
            From::Kept => (log.oldest(), Due::CaughtUp),
            From::After { epoch, sequence } => {
                let follows = *epoch == self.epoch && *sequence <= log.sequence;
                match follows {
                    true => (sequence + 1, Due::No),
                    // The numbers of another daemon say nothing here.
                    false => (log.sequence + 1, Due::Now),
                }
            }
        };
        drop(log);
        Watch {
            events: self.clone(),
            newest: self.newest.subscribe(),
            filter,
            next,
            due,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn subject_of_image(image: &Image) -> Subject {
    Subject::Image {
        id: image.id,
        reference: image.references.first().cloned().unwrap_or_default(),
    }
}

fn subject_of_kernel(kernel: &Kernel) -> Subject {
    Subject::Kernel {
        id: kernel.id,
        name: kernel.name.clone(),
    }
}

/// Why a VM is where it is.
fn reason(vm: &Vm, from: Phase) -> String {
    match (&vm.state, from) {
        (VmState::Failed(failure), _) => failure.reason.clone(),
        (VmState::Stopped, Phase::Stopping) => vm
            .last_stop
            .as_ref()
            .map(|stop| stop.rung.as_str().to_owned())
            .unwrap_or_default(),
        (VmState::Stopped, Phase::Running) => "guest".to_owned(),
        _ => String::new(),
    }
}

impl Log {
    /// Keeps where the VMs are.
    fn note(&mut self, subject: &Subject) {
        let Subject::Vm {
            id,
            name,
            owner,
            to,
            ..
        } = subject
        else {
            return;
        };
        match to {
            None => drop(self.vms.remove(id)),
            Some(phase) => {
                let summary = VmSummary {
                    id: *id,
                    name: name.clone(),
                    owner: owner.clone(),
                    phase: *phase,
                };
                self.vms.insert(*id, summary);
            }
        }
    }

    /// The sequence of the oldest event that is kept, or of the next one where none is.
    fn oldest(&self) -> u64 {
        self.sequence + 1 - self.kept.len() as u64
    }

    fn event(&self, sequence: u64) -> Option<Arc<Event>> {
        let index = sequence.checked_sub(self.oldest())?;
        self.kept.get(usize::try_from(index).ok()?).cloned()
    }
}

/// When a watch gets its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    No,
    Now,
    CaughtUp,
}

/// One caller's watch. Takes no memory for what the caller has not read.
#[derive(Debug)]
pub struct Watch {
    events: Arc<Events>,
    newest: watch::Receiver<u64>,
    filter: Filter,
    /// The sequence of the event that is looked at next.
    next: u64,
    due: Due,
}

impl Watch {
    /// The next thing to tell; waits where there is none yet. Safe to drop.
    pub async fn next(&mut self) -> Told {
        loop {
            if let Some(told) = self.look() {
                return told;
            }
            let next = self.next;
            // The sender lives in `events`.
            if self
                .newest
                .wait_for(|newest| *newest >= next)
                .await
                .is_err()
            {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What can be told now.
    fn look(&mut self) -> Option<Told> {
        let events = self.events.clone();
        let log = events.lock();
        if self.due == Due::Now || self.next < log.oldest() {
            return Some(self.snapshot(&log));
        }
        while let Some(event) = log.event(self.next) {
            self.next += 1;
            if self.filter.wants(&event) {
                return Some(Told::Event(event));
            }
        }
        (self.due == Due::CaughtUp).then(|| self.snapshot(&log))
    }

    /// The host as it is now; events from before it are not told any more.
    fn snapshot(&mut self, log: &Log) -> Told {
        // What happened before the first snapshot is in it.
        let dropped_count = match self.due {
            Due::Now => 0,
            Due::No | Due::CaughtUp => (log.sequence + 1).saturating_sub(self.next),
        };
        self.next = log.sequence + 1;
        self.due = Due::No;
        let filter = &self.filter;
        let wanted = |vm: &&VmSummary| {
            filter.scope.sees(&vm.owner) && filter.vm.is_none_or(|wanted| wanted == vm.id)
        };
        Told::Snapshot(Snapshot {
            epoch: self.events.epoch.clone(),
            sequence: log.sequence,
            vms: log.vms.values().filter(wanted).cloned().collect(),
            dropped_count,
        })
    }
}

impl Filter {
    fn wants(&self, event: &Event) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.vm.is_none_or(|vm| event.subject.concerns(vm))
            && event.subject.is_seen(&self.scope)
    }
}

#[cfg(test)]
mod tests;
