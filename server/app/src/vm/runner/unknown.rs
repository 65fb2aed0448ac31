//! A VMM of which nobody knows whether it lives: an earlier daemon's that could not be taken over, or one whose launch
//! failed and that could not be looked for then.
//!
//! The VM keeps its memory, its disk and its volumes so long, since that VMM may use them. It is looked for at once
//! when somebody wants something of the VM, and otherwise after a pause that doubles, until somebody knows.

use std::sync::Arc;
use std::time::Duration;

use banger_core::lifecycle::Verb;
use banger_core::vm::{Phase, StopOutcome, VmState};
use banger_core::vmm::Machine;
use banger_core::{Explain as _, chain};

use super::super::boot::Booter;
use super::super::{recorded, restart};
use super::outcome::is_unkillable;
use super::way_down::Flush;
use super::{Outcome, Runner};
use crate::error::AppError;
use crate::pauses::Pauses;
use crate::volume::attach::Attached;

/// What becomes of the VMM if it is found alive.
#[derive(Debug)]
pub(super) enum Unknown {
    /// Nobody wanted it to end: the VM is where it was.
    Kept(VmState),
    /// Its launch failed, or somebody wanted it off: it is ended.
    Unwanted,
}

impl Runner {
    /// What could not be taken over when the daemon started.
    pub(super) fn begin_unknown(&mut self, attached: Attached, before: VmState) {
        self.attached = Some(attached);
        self.unknown = Some(Unknown::Kept(before));
        match &self.vm.state {
            VmState::Failed(failure) => {
                self.vm.stuck = Some(failure.clone());
                self.publish();
                self.find_later();
            }
            _ => self.begin_removal(),
        }
    }

    /// Looks for the VMM.
    pub(super) fn find(&mut self) {
        self.find_after(Duration::ZERO);
    }

    pub(super) fn find_after(&mut self, pause: Duration) {
        let (context, id, pause) = (self.context.clone(), self.vm.id, self.pausing(pause));
        self.begin_work(async move {
            pause.await;
            Outcome::Found(recorded::find(&context, id).await)
        });
    }

    /// Looks for it without anybody asking.
    fn find_later(&mut self) {
        if self.context.shutdown.is_cancelled() {
            return; // The next daemon looks.
        }
        let pause = self.pauses.next();
        self.find_after(pause);
    }

    /// What the search found: the VMM lives, or is gone, or may live still.
    pub(super) async fn on_found(&mut self, found: Result<Option<Arc<dyn Machine>>, AppError>) {
        let is_asked = self.vm.state.phase() != Phase::Failed;
        match found {
            Ok(Some(machine)) if is_asked => {
                self.unknown = None;
                self.machine = Some(machine);
                self.descend(self.way_down);
            }
            Ok(None) if is_asked => {
                self.unknown = None;
                self.on_stopped(StopOutcome::BY_ITSELF).await;
            }
            Ok(machine) => {
                let unknown = self.unknown.take().unwrap_or(Unknown::Unwanted);
                (self.vm.stuck, self.pauses) = (None, Pauses::default());
                match (unknown, machine) {
                    (Unknown::Kept(before), Some(machine)) => self.take_over(before, machine).await,
                    (Unknown::Kept(before), None) => self.on_lost(before).await,
                    (Unknown::Unwanted, Some(machine)) => self.end_unwanted(machine).await,
                    (Unknown::Unwanted, None) => self.on_unwanted_gone().await,
                }
            }
            Err(source) => self.on_not_found_out(source).await,
        }
    }

    /// The VM is where it was before the daemon that could not take it over.
    async fn take_over(&mut self, before: VmState, machine: Arc<dyn Machine>) {
        tracing::info!(vm = %self.vm.id, "a VM whose process could not be taken over is taken over now");
        if before == VmState::Running {
            recorded::let_go(self.vm.id, &*machine).await;
        }
        self.transition(before).await;
        self.adopt(machine).await;
    }

    /// The VM ended while nobody saw it, as one that a starting daemon does not find.
    async fn on_lost(&mut self, before: VmState) {
        let phase = before.phase();
        if phase.holds_machine() {
            self.vm.last_stop = Some(StopOutcome::BY_ITSELF);
            if phase != Phase::Stopping {
                restart::count_anew(&mut self.vm);
                restart::plan_after_fault(&mut self.vm);
            }
        }
        self.forget_machine();
        self.rest(resting(&before), Flush::Awaited).await;
    }

    async fn end_unwanted(&mut self, machine: Arc<dyn Machine>) {
        self.verdict = match resting(&self.vm.state) {
            VmState::Failed(failure) => Some(failure),
            _ => None,
        };
        self.machine = Some(machine);
        self.transition(VmState::Stopping).await;
        self.descend(self.way_down);
    }

    async fn on_unwanted_gone(&mut self) {
        let state = resting(&self.vm.state);
        self.forget_machine();
        self.rest(state, Flush::Behind).await;
    }

    async fn on_not_found_out(&mut self, source: AppError) {
        let source = Box::new(source);
        let error = AppError::NotAdopted { source };
        let phase = self.vm.state.phase();
        if phase == Phase::Deleting {
            return self.on_not_removed(error).await;
        }
        tracing::warn!(vm = %self.vm.id, error = chain(&error), "nobody knows whether the VMM of a VM lives; looking again");
        if phase == Phase::Stopping && self.then_start.is_none() {
            self.unknown = Some(Unknown::Unwanted);
        }
        self.fail_what_follows(&error).await;
        let failure = Box::new(error.to_failure());
        self.vm.stuck = Some(failure.clone());
        if phase != Phase::Failed {
            self.transition(VmState::Failed(failure)).await;
        }
        self.find_later();
    }

    /// A boot that failed, of which a VMM may be left, and nobody knows.
    pub(super) async fn on_boot_unknown(
        &mut self,
        booter: Booter,
        error: AppError,
        unknown: AppError,
        attached: Attached,
    ) {
        self.attached = Some(attached);
        self.unknown = Some(Unknown::Unwanted);
        let phase = self.vm.state.phase();
        let is_given_up = matches!(error, AppError::GivenUp { .. });
        if phase == Phase::Creating {
            self.transition(VmState::Deleting).await;
        }
        match phase {
            Phase::Creating | Phase::Deleting => return self.undo(booter, &error),
            Phase::Starting if !is_given_up => {
                self.way_down = Verb::Kill;
                if self.vm.restart_count > 0 {
                    restart::plan_after_fault(&mut self.vm);
                }
                let source = Box::new(unknown);
                let unknown = AppError::NotAdopted { source };
                self.vm.stuck = Some(Box::new(unknown.to_failure()));
                let failed = VmState::Failed(Box::new(error.to_failure()));
                self.transition(failed).await;
                self.find_later();
            }
            _ => {
                // It was given up: the VM is on its way down, or should be.
                if phase != Phase::Stopping {
                    self.transition(VmState::Stopping).await;
                }
                self.find();
            }
        }
        booter.task.fail(error.to_failure()).await;
    }
}

/// Where a VM rests whose VMM is gone: off, or with what it had failed of, unless that was only that its VMM could not be
/// taken over, or did not end.
fn resting(state: &VmState) -> VmState {
    let source = Box::new(AppError::Interrupted);
    let not_adopted = AppError::NotAdopted { source }.reason();
    match state {
        VmState::Failed(failure) if failure.reason != not_adopted && !is_unkillable(state) => {
            state.clone()
        }
        _ => VmState::Stopped,
    }
}
