//! The times at which a VM does something by itself: its time to live, its idle timeout, its next start by its
//! restart policy.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use banger_core::lifecycle::{Next, Verb, decide};
use banger_core::session::SessionState;
use banger_core::vm::{Phase, RestartPolicy, Vm};
use banger_core::{SignedDuration, Timestamp, chain};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::activity::Activity;
use super::{Runner, hear};

/// Before the first start by a restart policy; doubled with each that follows without a caller's start.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two starts by a restart policy.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A VM that ran this long is taken to have started well: its restarts are counted anew.
const RUNS_WELL: SignedDuration = SignedDuration::from_mins(10);

/// What has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The time to live is over.
    Expired,
    /// Nothing used the VM for its idle timeout.
    Idle,
    /// The VM is to be started again.
    Restart,
}

/// What is not in the VM's record.
#[derive(Debug, Clone, Default)]
pub(super) struct Timers {
    restart_at: Option<Instant>,
}

impl Timers {
    /// When a VM is to be started again after it ended by a fault.
    pub(super) fn after_fault(&self, vm: &Vm) -> Option<Instant> {
        match vm.spec.restart_policy {
            RestartPolicy::Never => None,
            RestartPolicy::OnFailure | RestartPolicy::Always => Some(Instant::now() + pause(vm)),
        }
    }

    /// When a VM is to be started again after its guest powered it off.
    pub(super) fn after_power_off(&self, vm: &Vm) -> Option<Instant> {
        match vm.spec.restart_policy {
            RestartPolicy::Never | RestartPolicy::OnFailure => None,
            RestartPolicy::Always => Some(Instant::now() + pause(vm)),
        }
    }

    pub(super) fn restart_after_fault(&mut self, vm: &Vm) {
        self.restart_at = self.after_fault(vm);
    }

    pub(super) fn restart(&mut self, at: Option<Instant>) {
        self.restart_at = at;
    }

    pub(super) fn forget_restart(&mut self) {
        self.restart_at = None;
    }

    /// Resolves when something is due. Safe to drop.
    pub(super) async fn due(self, vm: &Vm, activity: Arc<Activity>) -> Due {
        let phase = vm.state.phase();
        let expired = expiry(vm);
        let idle = vm.spec.idle_timeout.filter(|_| phase == Phase::Running);
        let restart = self
            .restart_at
            .filter(|_| matches!(phase, Phase::Stopped | Phase::Failed))
            // It may have been changed since.
            .filter(|_| vm.spec.restart_policy != RestartPolicy::Never);
        tokio::select! {
            biased; // what is to go must not be started before
            // cancel-safe: sleeps, and reads a level
            () = after(expired.filter(|_| phase != Phase::Deleting)) => Due::Expired,
            () = until(restart) => Due::Restart,
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
        }
    }

    /// Nothing used the VM from outside; what runs in it counts as use.
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

    /// A run ends that may have been so long that its restarts are counted anew.
    pub(super) fn count_restarts_anew(&mut self) {
        let ran = self
            .vm
            .start_time
            .map(|start| Timestamp::now().duration_since(start));
        if ran.is_some_and(|ran| ran >= RUNS_WELL) {
            self.vm.restart_count = 0;
        }
    }

    async fn restart_by_policy(&mut self) {
        self.timers.forget_restart();
        self.vm.restart_count = self.vm.restart_count.saturating_add(1);
        if let Err(error) = self.start_anew().await {
            tracing::error!(vm = %self.vm.id, error = chain(&error), "could not start a VM again by its restart policy");
            self.timers.restart_after_fault(&self.vm);
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

fn pause(vm: &Vm) -> Duration {
    let doublings = vm.restart_count.min(16);
    FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE)
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
