//! What the runner does when it is asked for something.

use banger_core::lifecycle::{Next, Verb, decide};
use banger_core::vm::{Phase, VmChange, VmState};
use tokio_util::sync::CancellationToken;

use super::{Answer, Command, Outcome, Runner};
use crate::error::AppError;
use crate::host;
use crate::vm::boot::Booter;
use crate::vm::{change, hold, restart};

impl Runner {
    pub(super) async fn on_command(&mut self, command: Command) {
        let Command {
            verb,
            change,
            keeps_logs,
            answer,
        } = command;
        let accepted = match decide(self.vm.state.phase(), verb) {
            Next::Already | Next::Join if matches!(verb, Verb::Pause | Verb::Resume) => {
                return self.join_hold(answer);
            }
            Next::Allow if verb == Verb::Update => {
                let change = change.unwrap_or_default();
                let changed = self.change(&change).await;
                if changed.is_ok() && change.disk_mib.is_some() {
                    return self.grow_for(answer);
                }
                changed
            }
            Next::Already if matches!(verb, Verb::Stop | Verb::Kill) => {
                self.stop_what_is_off(verb).await
            }
            Next::Join if verb == Verb::Delete => {
                self.look_anew();
                Ok(())
            }
            Next::Already | Next::Join | Next::Allow => Ok(()),
            Next::Refuse => Err(AppError::WrongState {
                vm: self.vm.spec.name.clone(),
                phase: self.vm.state.phase(),
                verb,
            }),
            Next::Move(Phase::Pausing) => {
                self.holders.push(answer);
                self.transition(VmState::Pausing).await;
                if self.work.is_some() {
                    // A disk grows: its end begins the pause.
                    return self.hurry.cancel();
                }
                return self.hold(Phase::Paused);
            }
            Next::Move(Phase::Resuming) => {
                self.holders.push(answer);
                self.transition(VmState::Resuming).await;
                return self.hold(Phase::Running);
            }
            Next::Move(Phase::Starting) => {
                self.vm.restart_count = 0;
                self.start_anew().await
            }
            Next::Move(phase) | Next::Preempt(phase) => match self.admit_next(verb).await {
                Ok(()) => {
                    self.keeps_logs = keeps_logs;
                    self.head_for(phase, verb).await;
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        // The caller may have hung up; its wish stands.
        let _ = answer.send(accepted);
    }

    /// A VM that is off may have a VMM that did not end, or could not be taken over: it is ended now.
    async fn stop_what_is_off(&mut self, verb: Verb) -> Result<(), AppError> {
        // What a caller stopped stays stopped, though its policy was about to start it.
        let was_planned = restart::forget(&mut self.vm);
        if self.may_live() {
            // One that is here has withstood SIGKILL: nothing gentler ends it.
            let verb = self.machine.as_ref().map_or(verb, |_| Verb::Kill);
            self.head_for(Phase::Stopping, verb).await;
            return Ok(());
        }
        match was_planned {
            true => self.save().await,
            false => Ok(()),
        }
    }

    /// Begins a start, as an operation of its own.
    pub(super) async fn start_anew(&mut self) -> Result<(), AppError> {
        let booter = self.boots.begin_start(&self.vm).await?;
        let task = booter.task.clone();
        let started = self.start(booter).await;
        if let Err(error) = &started {
            task.fail(error.to_failure()).await;
        }
        started
    }

    /// Begins a start with what was resolved when the VM was made.
    pub(super) async fn start(&mut self, booter: Booter) -> Result<(), AppError> {
        if self.machine.is_some() {
            // One disk has one VMM: the one that does not end has it still.
            let limit = self.context.config.stop_kill_timeout;
            return Err(AppError::Unkillable { limit });
        }
        if self.unknown.is_some() {
            // What may live of the one before is ended first: it may have the disks.
            self.then_start = Some(booter);
            self.head_for(Phase::Stopping, Verb::Kill).await;
            return Ok(());
        }
        let resolved = booter.resolved(&self.vm).await?;
        self.admit_boot()?;
        restart::forget(&mut self.vm);
        self.transition(VmState::Starting).await;
        self.boot(booter, resolved);
        Ok(())
    }

    /// Takes note of what is to follow a stop: nothing, or a boot, for which the queue must have a place.
    async fn admit_next(&mut self, verb: Verb) -> Result<(), AppError> {
        (self.ticket, self.then_start) = match verb {
            Verb::Restart => {
                let ticket = self.seat.boot_again()?;
                (Some(ticket), Some(self.boots.begin_start(&self.vm).await?))
            }
            _ => (None, None),
        };
        Ok(())
    }

    /// Makes sure that there is room for a machine. A restart keeps what its machine had.
    fn admit_boot(&mut self) -> Result<(), AppError> {
        match (&self.lease, &self.ticket) {
            (Some(_), Some(_)) => {}
            (Some(_), None) => self.ticket = Some(self.seat.boot_again()?),
            (None, _) => {
                host::admit_disk(&self.context)?;
                let capacity = host::capacity(&self.context)?;
                let (lease, ticket) = self.seat.start(self.vm.spec.shape(), &capacity)?;
                (self.lease, self.ticket) = (Some(lease), Some(ticket));
            }
        }
        Ok(())
    }

    /// No machine is left, and none is to come.
    pub(super) fn give_back(&mut self) {
        (self.lease, self.ticket) = (None, None);
    }

    /// Changes the record; what a machine that runs cannot take up waits for the next start.
    async fn change(&mut self, change: &VmChange) -> Result<(), AppError> {
        let spec = change::apply(&self.vm, change)?;
        if spec.shape() != self.vm.spec.shape() {
            let capacity = host::capacity(&self.context)?;
            self.seat.resize(&spec, self.vm.shape, &capacity)?;
        }
        if spec.disk_mib > self.vm.spec.disk_mib {
            host::admit_disk(&self.context)?;
        }
        let before = std::mem::replace(&mut self.vm.spec, spec);
        let saved = self.save().await;
        if saved.is_err() {
            self.vm.spec = before;
            self.seat.put_back(&self.vm.spec, self.vm.shape);
            self.publish();
        } else {
            self.context.events.vm_updated(&self.vm);
        }
        saved
    }

    /// Holds the vCPUs, or lets them go on.
    pub(super) fn hold(&mut self, goal: Phase) {
        let Some(machine) = self.machine.clone() else {
            return;
        };
        self.is_held = true;
        let (context, vm, guest) = (self.context.clone(), self.vm.clone(), self.guest.clone());
        if let Some(guest) = &guest {
            guest.set_held(true);
        }
        self.hurry = CancellationToken::new();
        let hurry = self.hurry.clone();
        self.begin_work(async move {
            let held = match goal {
                Phase::Paused => hold::pause(&context, &*machine, &hurry).await,
                _ => hold::resume(&context, &vm, &*machine, guest.as_deref(), &hurry).await,
            };
            Outcome::Held(held)
        });
    }

    fn join_hold(&mut self, answer: Answer) {
        match self.vm.state.phase() {
            Phase::Pausing | Phase::Resuming => self.holders.push(answer),
            // It is already so. The caller may have hung up.
            _ => drop(answer.send(Ok(()))),
        }
    }
}
