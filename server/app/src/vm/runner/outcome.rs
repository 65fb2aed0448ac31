//! What the runner does when a piece of its work has ended, or its VM has.

use std::sync::Arc;

use banger_core::guest::Guest;
use banger_core::lifecycle::Verb;
use banger_core::vm::{Phase, StopOutcome, VmState};
use banger_core::vmm::{Machine, VmmExit};
use banger_core::{Explain as _, chain};

use super::super::boot::{self, BootFailure, Booted, Booter, Left, Resolved};
use super::super::restart;
use super::way_down::{FLUSHED_WITHIN, Flush};
use super::{Outcome, Runner, hear};
use crate::error::AppError;
use crate::volume::attach::Attached;

impl Runner {
    pub(super) async fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Resolved(booter, resolved) => self.on_resolved(booter, resolved).await,
            Outcome::Booted(booter, Ok(booted)) => self.on_booted(booter, booted).await,
            Outcome::Booted(booter, Err(BootFailure { error, left })) => match left {
                None => self.on_boot_failed(booter, error).await,
                Some(left) => match *left {
                    Left::Vmm { machine, attached } => {
                        self.on_boot_stuck(booter, error, machine, attached).await;
                    }
                    Left::Unknown { why, attached } => {
                        self.on_boot_unknown(booter, error, why, attached).await;
                    }
                },
            },
            Outcome::Held(held) => self.on_held(held).await,
            Outcome::Reached(reached) => self.on_reached(reached).await,
            Outcome::Grown(mib, grown) => self.on_grown(mib, grown).await,
            Outcome::Stopped(Ok(outcome)) => self.on_stopped(outcome).await,
            Outcome::Stopped(Err(error)) => self.on_unkillable(&error).await,
            Outcome::Found(found) => self.on_found(found).await,
            Outcome::Removed(Ok(())) => self.on_removed().await,
            Outcome::Removed(Err(error)) => self.on_not_removed(error).await,
        }
    }

    async fn on_resolved(&mut self, booter: Booter, resolved: Result<Box<Resolved>, AppError>) {
        match resolved {
            Ok(resolved) if self.vm.state.phase() == Phase::Creating => {
                self.vm.image = Some(resolved.image.id);
                self.vm.kernel = Some(resolved.kernel.id);
                self.vm.spec.kernel = resolved.kernel.name.to_string();
                // If the image went meanwhile, the store refuses the record.
                match self.save().await {
                    Ok(()) => self.boot(booter, *resolved),
                    Err(error) => self.on_boot_failed(booter, error).await,
                }
            }
            Ok(_) => {
                self.on_boot_failed(
                    booter,
                    AppError::GivenUp {
                        why: "another request took over",
                    },
                )
                .await;
            }
            Err(error) => self.on_boot_failed(booter, error).await,
        }
    }

    async fn on_booted(&mut self, booter: Booter, booted: Booted) {
        self.machine = Some(booted.machine);
        self.guest = Some(booted.guest);
        self.attached = Some(booted.attached);
        match self.vm.state.phase() {
            Phase::Creating | Phase::Starting => {
                self.vm.boot_timing = booted.timing;
                self.vm.shape = Some(booted.shape);
                self.seat.settle(booted.shape, &self.vm.spec);
                self.transition(VmState::Running).await;
                booter.task.succeed(self.vm.id.to_string()).await;
            }
            Phase::Running
            | Phase::Pausing
            | Phase::Paused
            | Phase::Resuming
            | Phase::Stopping
            | Phase::Stopped
            | Phase::Failed
            | Phase::Deleting => {
                booter
                    .task
                    .fail(
                        AppError::GivenUp {
                            why: "another request took over",
                        }
                        .to_failure(),
                    )
                    .await;
                self.descend(Verb::Kill);
            }
        }
    }

    /// A boot that failed has undone itself; where the VM goes depends on what was wanted of it meanwhile.
    async fn on_boot_failed(&mut self, booter: Booter, error: AppError) {
        let given_up = matches!(error, AppError::GivenUp { .. });
        self.give_back();
        match self.vm.state.phase() {
            Phase::Starting if !given_up => {
                if self.vm.restart_count > 0 {
                    restart::plan_after_fault(&mut self.vm);
                }
                let failed = VmState::Failed(Box::new(error.to_failure()));
                self.rest(failed, Flush::Behind).await;
            }
            Phase::Starting | Phase::Stopping => self.rest(VmState::Stopped, Flush::Behind).await,
            Phase::Deleting => return self.undo(booter, &error),
            Phase::Creating
            | Phase::Running
            | Phase::Pausing
            | Phase::Paused
            | Phase::Resuming
            | Phase::Stopped
            | Phase::Failed => {
                self.transition(VmState::Deleting).await;
                return self.undo(booter, &error);
            }
        }
        booter.task.fail(error.to_failure()).await;
    }

    /// A boot that failed, of which a VMM is left that does not end: the VM keeps it, and what it may write to.
    async fn on_boot_stuck(
        &mut self,
        booter: Booter,
        error: AppError,
        machine: Arc<dyn Machine>,
        attached: Attached,
    ) {
        self.machine = Some(machine);
        self.attached = Some(attached);
        if matches!(self.vm.state.phase(), Phase::Creating) {
            self.transition(VmState::Deleting).await;
        }
        let limit = self.context.config.stop_kill_timeout;
        self.on_unkillable(&AppError::Unkillable { limit }).await;
        // Told now: when the VMM ends nobody knows.
        booter.task.fail(error.to_failure()).await;
    }

    /// Removes what a creation has made so far; its callers are told when nothing is left, the name included.
    pub(super) fn undo(&mut self, booter: Booter, error: &AppError) {
        self.undone = Some((booter.task, error.to_failure()));
        self.remove();
    }

    /// The vCPUs are held, or go on; or neither, and the VM is where it was.
    async fn on_held(&mut self, held: Result<(), AppError>) {
        let state = match (self.vm.state.phase(), held.is_ok()) {
            (Phase::Pausing, true) | (Phase::Resuming, false) => VmState::Paused,
            (Phase::Pausing, false) | (Phase::Resuming, true) => VmState::Running,
            // Another request took over: the VM is on its way down.
            (_, _) => return self.descend(self.way_down),
        };
        self.is_held = state == VmState::Paused;
        if let Some(guest) = &self.guest {
            guest.set_held(self.is_held);
        }
        self.transition(state).await;
        if !self.is_held && self.guest.is_none() {
            // Adopted while it was held: its agent was not looked for.
            self.reach_agent();
        }
        let failure = held.err().map(|error| Box::new(error.to_failure()));
        self.answer_holders(|| match &failure {
            None => Ok(()),
            Some(failure) => Err(AppError::Failed(failure.clone())),
        });
        // What was changed while it was held.
        self.grow();
    }

    /// The agent of a VM that was being started answered, or the VM goes where another request wants it. One that
    /// ends by itself is told by its end; one whose agent stays silent is ended, and has failed of that.
    async fn on_reached(&mut self, reached: Result<Option<Arc<dyn Guest>>, AppError>) {
        match (self.vm.state.phase(), reached) {
            (Phase::Starting, Ok(Some(guest))) => {
                self.guest = Some(guest);
                self.transition(VmState::Running).await;
            }
            (Phase::Starting, Ok(None)) => {}
            (Phase::Starting, Err(error)) => {
                tracing::error!(vm = %self.vm.id, error = chain(&error), "a VM that was being started is ended");
                self.verdict = Some(Box::new(error.to_failure()));
                self.descend(Verb::Kill);
            }
            (Phase::Deleting, _) => self.descend(Verb::Delete),
            (_, _) => self.descend(Verb::Kill),
        }
    }

    pub(super) async fn on_stopped(&mut self, outcome: StopOutcome) {
        self.vm.last_stop = Some(outcome);
        self.forget_machine();
        if self.vm.state.phase() == Phase::Deleting {
            self.publish_news();
            return self.remove();
        }
        let Some(booter) = self.then_start.take() else {
            if self.verdict.is_some() && self.vm.restart_count > 0 {
                restart::plan_after_fault(&mut self.vm);
            }
            let state = self.verdict.take();
            let state = state.map_or(VmState::Stopped, VmState::Failed);
            return self.rest(state, Flush::Awaited).await;
        };
        self.way_down = Verb::Stop;
        if let Some(flush) = self.flush_volumes() {
            // It goes on whoever waits: a disk that hangs must not keep the VM from what is asked of it.
            let flushing = self.context.tasks.spawn(flush);
            let flushed = tokio::time::timeout(FLUSHED_WITHIN, flushing);
            let _ = hear(&mut self.commands, &mut self.heard, flushed).await;
        }
        let task = booter.task.clone();
        if let Err(error) = self.start(booter).await {
            self.give_back();
            task.fail(error.to_failure()).await;
            let failed = VmState::Failed(Box::new(error.to_failure()));
            self.rest(failed, Flush::Awaited).await;
        }
    }

    async fn on_removed(&mut self) {
        self.seat.leave();
        self.is_gone = true;
        self.publish();
        self.context.events.vm_deleted(&self.vm);
        self.tell_undone().await;
    }

    /// The VM ended by itself.
    pub(super) async fn on_exit(&mut self, exit: VmmExit) {
        if self.vm.stuck.is_some() {
            tracing::info!(vm = %self.vm.id, "the VMM that did not end is gone");
            self.forget_machine();
            return match self.vm.state.phase() {
                Phase::Deleting => self.remove(),
                _ => self.rest(VmState::Stopped, Flush::Awaited).await,
            };
        }
        let state = match &exit {
            VmmExit::GuestPowerOff => VmState::Stopped,
            VmmExit::MemoryLimit { limit_mib } => {
                let limit_mib = *limit_mib;
                VmState::Failed(Box::new(
                    AppError::VmmMemoryLimit { limit_mib }.to_failure(),
                ))
            }
            VmmExit::GuestReset | VmmExit::Other { .. } => {
                let console = boot::console_tail(&self.context, self.vm.id).await;
                let detail = format!(
                    "{}; its console ends with: {console}",
                    crate::vm::describe_exit(&exit)
                );
                VmState::Failed(Box::new(AppError::VmEnded { detail }.to_failure()))
            }
        };
        tracing::info!(vm = %self.vm.id, ?exit, "a VM ended by itself");
        restart::count_anew(&mut self.vm);
        self.vm.last_stop = Some(StopOutcome::BY_ITSELF);
        match state {
            VmState::Failed(_) => restart::plan_after_fault(&mut self.vm),
            _ => restart::plan_after_power_off(&mut self.vm),
        }
        self.forget_machine();
        self.rest(state, Flush::Awaited).await;
    }
}

/// Whether a VM is FAILED because its VMM did not end.
pub(super) fn is_unkillable(state: &VmState) -> bool {
    let limit = std::time::Duration::ZERO;
    let reason = AppError::Unkillable { limit }.reason();
    matches!(state, VmState::Failed(failure) if failure.reason == reason)
}
