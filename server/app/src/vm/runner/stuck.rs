//! VMs that do not end, or do not go, though they should: what keeps them is told within a bounded time, and tried again
//! until it works.

use std::time::Duration;

use banger_core::vm::{Phase, VmState};
use banger_core::{Failure, chain};
use tokio_util::sync::CancellationToken;

use super::super::boot;
use super::super::stop::Ladder;
use super::{Outcome, Runner};
use crate::error::AppError;
use crate::pauses::Pauses;

impl Runner {
    /// The VM is to go: from now on whoever waits for that is told something in bounded time.
    pub(super) fn expect_gone(&mut self) {
        let limit = self.context.config.gone_limit();
        self.timers.expect_gone_within(limit);
    }

    /// Somebody else wants the VM to go, which is on its way: it is tried again at once, and what comes of that is told.
    pub(super) fn look_anew(&mut self) {
        if self.vm.stuck.take().is_some() {
            self.expect_gone();
            self.pauses = Pauses::default();
            // Ends the pause, where there is one.
            self.hurry.cancel();
        }
        self.publish_news();
    }

    /// Removes what is left of the VM, its record last. One whose VMM may live loses that first.
    pub(super) fn remove(&mut self) {
        if self.unknown.is_some() {
            return self.find();
        }
        // Nobody waits for the disk.
        drop(
            self.flush_volumes()
                .map(|flush| self.context.tasks.spawn(flush)),
        );
        self.remove_after(Duration::ZERO);
    }

    fn remove_after(&mut self, pause: Duration) {
        let (context, id, pause) = (self.context.clone(), self.vm.id, self.pausing(pause));
        self.begin_work(async move {
            pause.await;
            let removing = async {
                boot::remove_files(&context, id).await?;
                context.store.delete_vm(id).await?;
                Ok(())
            };
            Outcome::Removed(removing.await)
        });
    }

    /// Something keeps the VM from going: it is tried again.
    pub(super) async fn on_not_removed(&mut self, error: AppError) {
        self.tell_undone().await;
        tracing::error!(vm = %self.vm.id, error = chain(&error), "could not remove a VM; trying again");
        self.hindrance = Some(Box::new(error.to_failure()));
        if self.vm.stuck.is_some() {
            self.tell_not_removed();
        }
        if self.context.shutdown.is_cancelled() {
            return; // The next daemon goes on.
        }
        let pause = self.pauses.next();
        match self.unknown.is_some() {
            true => self.find_after(pause),
            false => self.remove_after(pause),
        }
    }

    /// The VM should be gone: whoever waits is told why it is not. It goes on.
    pub(super) async fn on_late(&mut self) {
        if self.vm.stuck.is_none() {
            self.tell_not_removed();
            self.tell_undone().await;
        }
    }

    fn tell_not_removed(&mut self) {
        let error = AppError::NotRemoved {
            vm: self.vm.spec.name.clone(),
            limit: self.context.config.gone_limit(),
            source: self.hindrance.clone(),
        };
        tracing::error!(vm = %self.vm.id, error = chain(&error), "a VM that is to go is still there");
        self.vm.stuck = Some(Box::new(error.to_failure()));
        self.publish_news();
    }

    /// The VMM does not end: the VM keeps it, and what it may write to.
    pub(super) async fn on_unkillable(&mut self, error: &AppError) {
        tracing::error!(vm = %self.vm.id, error = chain(error), "the VMM does not end");
        self.tell_undone().await;
        self.fail_what_follows(error).await;
        let failure = Box::new(error.to_failure());
        self.vm.stuck = Some(failure.clone());
        if self.vm.state.phase() != Phase::Deleting {
            return self.transition(VmState::Failed(failure)).await;
        }
        self.publish_news();
        if let Some(machine) = self.machine.clone()
            && !self.context.shutdown.is_cancelled()
        {
            let ladder = Ladder::hard(&self.context.config, machine.clone());
            let pause = self.pauses.next();
            let pause = self.pausing(pause);
            self.begin_work(async move {
                tokio::select! {
                    // cancel-safe: `wait` loses nothing when dropped
                    _exit = machine.wait() => {}
                    // cancel-safe: holds no state
                    () = pause => {}
                }
                Outcome::Stopped(ladder.climb(&CancellationToken::new()).await)
            });
        }
    }

    /// Whether a VMM of this VM, which is off, may live.
    pub(super) fn may_live(&self) -> bool {
        self.unknown.is_some() || self.machine.is_some()
    }

    /// The start that was to follow does not.
    pub(super) async fn fail_what_follows(&mut self, error: &AppError) {
        if let Some(booter) = self.then_start.take() {
            booter.task.fail(error.to_failure()).await;
        }
    }

    pub(super) async fn tell_undone(&mut self) {
        if let Some((task, failure)) = self.undone.take() {
            let failure: Failure = failure;
            task.fail(failure).await;
        }
    }

    /// A pause that whoever wants the same again ends, and the daemon's end too.
    pub(super) fn pausing(&mut self, pause: Duration) -> impl Future<Output = ()> + Send + use<> {
        self.hurry = self.context.shutdown.child_token();
        let hurry = self.hurry.clone();
        async move {
            // Ended early, what follows comes the sooner.
            let _ = hurry.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }
}
