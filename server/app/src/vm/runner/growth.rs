//! What the runner does to grow the disk of its VM while that runs.
//!
//! It is work like any other, but the VM stays RUNNING: whoever wants it elsewhere makes the growth give up, and the
//! VM then goes there. What was not done is done by the next try, or at the next start.

use banger_core::vm::Phase;
use banger_core::{Failure, chain};

use super::super::grow;
use super::{Answer, Outcome, Runner};
use crate::error::AppError;

impl Runner {
    /// Whether the disk is to be larger than the machine has it.
    fn wants_growth(&self) -> bool {
        let shape = self.vm.shape;
        self.vm.state.phase() == Phase::Running
            && shape.is_some_and(|shape| shape.disk_mib < self.vm.spec.disk_mib)
    }

    /// Grows the disk if it is to be larger, and then answers; without a driver that can, it waits for the next start.
    pub(super) fn grow_for(&mut self, answer: Answer) {
        if self.wants_growth() && (self.work.is_some() || self.grow()) {
            self.growers.push(answer);
        } else {
            // The caller may have hung up.
            let _ = answer.send(Ok(()));
        }
    }

    /// Begins to grow the disk, where there is need and a way; returns whether it did.
    pub(super) fn grow(&mut self) -> bool {
        let driver = self.context.driver_info.get();
        let can = driver.is_none_or(|driver| driver.capabilities.live_disk_growth);
        let (Some(machine), Some(guest)) = (self.machine.clone(), self.guest.clone()) else {
            return false;
        };
        if !can || self.work.is_some() || !self.wants_growth() {
            return false;
        }
        let (context, vm, mib) = (self.context.clone(), self.vm.id, self.vm.spec.disk_mib);
        self.hurry = self.context.shutdown.child_token();
        let hurry = self.hurry.clone();
        self.begin_work(async move {
            let grown = grow::grow(&context, vm, &*machine, &*guest, mib, &hurry).await;
            Outcome::Grown(mib, grown)
        });
        true
    }

    /// The disk is larger, or as it was; the VM runs on, or goes where it was wanted meanwhile.
    pub(super) async fn on_grown(&mut self, mib: u64, grown: Result<(), AppError>) {
        let failure = grown.err().map(|error| {
            tracing::warn!(vm = %self.vm.id, error = chain(&error), "could not grow the disk of a VM that runs");
            Box::new(error.to_failure())
        });
        if failure.is_none() {
            if let Some(shape) = &mut self.vm.shape {
                shape.disk_mib = mib;
            }
            if let Err(error) = self.save().await {
                tracing::error!(vm = %self.vm.id, error = chain(&error), "could not store that a disk has grown");
            }
        }
        // A change that came meanwhile wanted still more.
        if failure.is_none() && self.grow() {
            return;
        }
        self.answer_growers(failure);
        match self.vm.state.phase() {
            Phase::Pausing => self.hold(Phase::Paused),
            Phase::Stopping | Phase::Deleting => self.descend(self.way_down),
            Phase::Creating
            | Phase::Starting
            | Phase::Running
            | Phase::Paused
            | Phase::Resuming
            | Phase::Stopped
            | Phase::Failed => {}
        }
    }

    fn answer_growers(&mut self, failure: Option<Box<Failure>>) {
        for grower in self.growers.drain(..) {
            let answer = match &failure {
                None => Ok(()),
                Some(failure) => Err(AppError::NotGrown {
                    vm: self.vm.spec.name.clone(),
                    source: failure.clone(),
                }),
            };
            // The caller may have hung up.
            let _ = grower.send(answer);
        }
    }
}
