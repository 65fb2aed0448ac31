//! The times at which something of a VM is due: its time to live, its idle timeout, its next start by its restart
//! policy, the word that it is not gone yet.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use banger_core::lifecycle::{Next, Verb, decide};
use banger_core::session::SessionState;
use banger_core::vm::{Phase, Vm};
use banger_core::{SignedDuration, Timestamp, chain};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::activity::Activity;
use super::super::restart;
use super::{Runner, hear};

/// What has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The time to live is over.
    Expired,
    /// Nothing used the VM for its idle timeout.
    Idle,
    /// The VM is to be started again.
    Restart,
    /// The VM should be gone by now.
    Late,
}

/// What is not in the VM's record.
#[derive(Debug, Clone, Default)]
pub(super) struct Timers {
    late_at: Option<Instant>,
}

impl Timers {
    /// Whoever waits for the VM to be gone is told something after this time.
    pub(super) fn expect_gone_within(&mut self, limit: Duration) {
        self.late_at = Some(Instant::now() + limit);
    }

    /// Resolves when something is due. Safe to drop.
    pub(super) async fn due(self, vm: &Vm, activity: Arc<Activity>) -> Due {
        let phase = vm.state.phase();
        let expired = expiry(vm);
        let idle = vm.spec.idle_timeout.filter(|_| phase == Phase::Running);
        let restart =
            restart::due_in(vm).filter(|_| matches!(phase, Phase::Stopped | Phase::Failed));
        let late = self.late_at.filter(|_| phase == Phase::Deleting);
        tokio::select! {
            biased; // what is to go must not be started before
            // cancel-safe: sleeps, and reads a level
            () = after(expired.filter(|_| phase != Phase::Deleting)) => Due::Expired,
            () = after(restart) => Due::Restart,
            () = until(late) => Due::Late,
            () = idle_for(&activity, idle) => Due::Idle,
        }
    }
}

impl Runner {
    /// A time of the VM's own has come.
    pub(super) async fn on_due(&mut self, due: Due) {
        match due {
            Due::Expired => {
                tracing::info!(vm = %self.vm.id, "a VM's time to live is over");
                match decide(self.vm.state.phase(), Verb::Delete) {
                    Next::Move(phase) | Next::Preempt(phase) => {
                        self.head_for(phase, Verb::Delete).await;
                    }
                    Next::Already | Next::Join | Next::Allow | Next::Refuse => {}
                }
            }
            Due::Idle => self.on_idle().await,
            Due::Restart => self.restart_by_policy().await,
            Due::Late => {
                self.timers.late_at = None;
                self.on_late().await;
            }
        }
    }

    /// Nothing used the VM from outside; what runs in it counts as use. Where its agent does not answer nobody knows what
    /// runs, so the VM is not stopped: it is asked again after another timeout.
    async fn on_idle(&mut self) {
        let limit = self.context.config.idle_check_timeout;
        let busy = match &self.guest {
            Some(guest) => {
                let asked = tokio::time::timeout(limit, guest.list_sessions());
                match hear(&mut self.commands, &mut self.heard, asked).await {
                    Some(Ok(Ok(sessions))) => sessions
                        .iter()
                        .any(|session| session.state == SessionState::Running),
                    // An agent that does not answer is no sign of use, and none of idleness; a request is one.
                    Some(_) | None => true,
                }
            }
            None => true,
        };
        if busy {
            self.activity.touch();
        } else {
            tracing::info!(vm = %self.vm.id, "a VM was idle for its timeout");
            self.head_for(Phase::Stopping, Verb::Stop).await;
        }
    }

    async fn restart_by_policy(&mut self) {
        restart::forget(&mut self.vm);
        self.vm.restart_count = self.vm.restart_count.saturating_add(1);
        if let Err(error) = self.start_anew().await {
            tracing::error!(vm = %self.vm.id, error = chain(&error), "could not start a VM again by its restart policy");
            restart::plan_after_fault(&mut self.vm);
            self.save_or_log("could not store when a VM is started again")
                .await;
        }
    }
}

/// How long from now until a VM's time to live is over.
fn expiry(vm: &Vm) -> Option<Duration> {
    let ttl = SignedDuration::try_from(vm.spec.ttl?).unwrap_or(SignedDuration::MAX);
    let age = Timestamp::now().duration_since(vm.create_time);
    let left = ttl.saturating_sub(age);
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
}

async fn after(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

async fn idle_for(activity: &Activity, timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => activity.idle_for(timeout).await,
        None => pending().await,
    }
}
