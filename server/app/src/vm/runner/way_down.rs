//! The way down: from whatever a VM does to one that rests, or is gone.

use std::time::Duration;

use banger_core::lifecycle::Verb;
use banger_core::vm::{Phase, VmState};
use banger_core::{Timestamp, chain};
use tokio_util::sync::CancellationToken;

use super::{Outcome, Runner, hear};
use crate::error::AppError;
use crate::pauses::Pauses;
use crate::session::kept::Keeping;
use crate::vm::boot;
use crate::vm::stop::Ladder;

/// How long whoever stops a VM waits for the host to write what the VM wrote; it goes on then.
pub(super) const FLUSHED_WITHIN: Duration = Duration::from_secs(60);

/// Whether a VM is told to be off when what it wrote is on the host's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// Then.
    Awaited,
    /// Before: it came to nothing that anybody was told of.
    Behind,
}

impl Runner {
    /// Shows where the VM goes, and makes it go: at once, or when the work under way has given up.
    ///
    /// The record is written before files are removed, and before a guest is asked to power off: who finds it then
    /// goes on. A signal is not waited for it ([`Runner::save`] lets the work go on): a daemon that dies between the
    /// two finds the process gone, and its caller had no answer.
    pub(super) async fn head_for(&mut self, phase: Phase, verb: Verb) {
        let state = match phase {
            Phase::Deleting => VmState::Deleting,
            _ => VmState::Stopping,
        };
        self.way_down = verb;
        // What is wanted now counts, and it is tried again.
        (self.vm.stuck, self.verdict) = (None, None);
        self.pauses = Pauses::default();
        let is_hard = matches!(verb, Verb::Kill | Verb::Delete);
        if self.work.is_some() {
            self.hurry.cancel();
            self.transition(state).await;
        } else if is_hard && self.machine.is_some() {
            self.descend(verb);
            self.transition(state).await;
        } else {
            self.transition(state).await;
            self.descend(verb);
        }
    }

    /// Begins the way down: the ladder where a machine runs, else what follows it.
    pub(super) fn descend(&mut self, verb: Verb) {
        self.link = None;
        let Some(machine) = self.machine.clone() else {
            return match self.unknown.is_some() {
                true => self.find(),
                false => self.remove(),
            };
        };
        let ladder = match verb {
            Verb::Stop | Verb::Restart => {
                let again = self.linking(machine.clone());
                let ladder = Ladder::gentle(&self.context.config, machine);
                let ladder = ladder.asking(self.guest.clone(), again);
                let ladder = ladder.held(self.is_held, self.context.config.pause_timeout);
                let ladder = ladder.keeping(self.keeping());
                match self.vm.spec.init.is_agent() {
                    true => ladder,
                    false => ladder.with_init(self.context.config.stop_init_timeout),
                }
            }
            Verb::Start
            | Verb::Kill
            | Verb::Pause
            | Verb::Resume
            | Verb::Delete
            | Verb::Update
            | Verb::Use => Ladder::hard(&self.context.config, machine),
        };
        self.hurry = CancellationToken::new();
        let hurry = self.hurry.clone();
        self.begin_work(async move { Outcome::Stopped(ladder.climb(&hurry).await) });
    }

    /// How its logs are kept, if they are to be: nothing is left of an ephemeral VM.
    fn keeping(&mut self) -> Option<Keeping> {
        let is_wanted = std::mem::take(&mut self.keeps_logs) || self.vm.spec.keep_logs;
        (is_wanted && !self.vm.spec.ephemeral).then(|| Keeping {
            context: self.context.clone(),
            vm: self.vm.id,
        })
    }

    pub(super) fn forget_machine(&mut self) {
        self.machine = None;
        self.vm.stuck = None;
        self.guest = None;
        self.link = None;
        self.is_held = false;
        self.vm.shape = None;
        if self.then_start.is_none() {
            self.give_back();
        }
        self.answer_holders(|| Err(AppError::Vmm(banger_core::vmm::VmmError::Gone)));
        self.vm.stop_time = Some(Timestamp::now());
    }

    pub(super) fn answer_holders(&mut self, answer: impl Fn() -> Result<(), AppError>) {
        for holder in self.holders.drain(..) {
            // The caller may have hung up.
            let _ = holder.send(answer());
        }
    }

    /// The VM is off; an ephemeral one goes, and what another wrote is made to last: before it is told that the VM is
    /// off, but for one that was killed, for which nobody waits.
    pub(super) async fn rest(&mut self, state: VmState, flush: Flush) {
        let is_awaited = flush == Flush::Awaited;
        let is_killed = std::mem::replace(&mut self.way_down, Verb::Stop) == Verb::Kill;
        if self.vm.spec.ephemeral {
            self.transition(VmState::Deleting).await;
            return self.remove();
        }
        let (context, id, volumes) = (self.context.clone(), self.vm.id, self.flush_volumes());
        let flush = async move {
            if let Err(error) = boot::flush_disk(&context, id).await {
                tracing::error!(vm = %id, error = chain(&error), "could not flush a VM's disk; a crash of the host may lose what it wrote");
            }
            if let Some(volumes) = volumes {
                volumes.await;
            }
        };
        // Spawned, it goes on whoever waits.
        let flushing = self.context.tasks.spawn(flush);
        if is_awaited && !is_killed {
            // A disk that hangs must not keep the VM from being removed: whoever asks for something ends the waiting.
            let flushed = tokio::time::timeout(FLUSHED_WITHIN, flushing);
            if let Some(Err(_)) = hear(&mut self.commands, &mut self.heard, flushed).await {
                tracing::error!(vm = %self.vm.id, limit = ?FLUSHED_WITHIN, "the host has not written all that a VM wrote; a crash of the host may lose it");
            }
        }
        if is_killed {
            // Shown before it is stored: that it was being killed is stored, and a daemon that starts now would find
            // the process gone and call the VM STOPPED too.
            self.show(state.clone());
        }
        self.transition(state).await;
        boot::erase_process(&self.context, self.vm.id).await;
    }

    /// The machine is gone: its volumes are anybody's, since what was written is in the page cache for all. How they
    /// reach the disk, if there are any.
    pub(super) fn flush_volumes(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        drop(self.attached.take()?);
        let (volumes, mounts) = (self.boots.volumes.clone(), self.vm.spec.volumes.clone());
        Some(async move { volumes.flush(&mounts).await })
    }
}
