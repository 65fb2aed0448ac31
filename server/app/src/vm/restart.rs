//! When a VM's restart policy starts it again. That is part of the VM's record: it holds whoever dies in between.

use std::time::Duration;

use banger_core::vm::{RestartPolicy, StopOutcome, Vm};
use banger_core::{SignedDuration, Timestamp};

/// Before the first start by a restart policy; doubled with each that follows without a caller's start.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two starts by a restart policy.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A VM that ran this long is taken to have started well: its restarts are counted anew.
const RUNS_WELL: SignedDuration = SignedDuration::from_mins(10);

/// Of a VM that ended by a fault.
pub(crate) fn plan_after_fault(vm: &mut Vm) {
    match vm.spec.restart_policy {
        RestartPolicy::Never => {}
        RestartPolicy::OnFailure | RestartPolicy::Always => plan(vm),
    }
}

/// Of a VM that its guest powered off.
pub(crate) fn plan_after_power_off(vm: &mut Vm) {
    match vm.spec.restart_policy {
        RestartPolicy::Never | RestartPolicy::OnFailure => {}
        RestartPolicy::Always => plan(vm),
    }
}

fn plan(vm: &mut Vm) {
    let pause = SignedDuration::try_from(pause(vm.restart_count)).unwrap_or(SignedDuration::ZERO);
    let at = Timestamp::now().checked_add(pause).ok();
    let stop = vm.last_stop.get_or_insert(StopOutcome::BY_ITSELF);
    stop.restart_time = at;
}

/// It starts now, or stays off. Returns whether something was planned.
pub(crate) fn forget(vm: &mut Vm) -> bool {
    let planned = vm.last_stop.as_mut().map(|stop| stop.restart_time.take());
    planned.flatten().is_some()
}

/// How long from now until it is started again. A host whose clock was set back waits no longer than one pause.
pub(crate) fn due_in(vm: &Vm) -> Option<Duration> {
    // The policy may have been changed since.
    if vm.spec.restart_policy == RestartPolicy::Never {
        return None;
    }
    let at = vm.last_stop.as_ref()?.restart_time?;
    let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO);
    Some(left.min(LONGEST_PAUSE))
}

/// A run ends that may have been so long that its restarts are counted anew.
pub(crate) fn count_anew(vm: &mut Vm) {
    let ran = vm
        .start_time
        .map(|start| Timestamp::now().duration_since(start));
    if ran.is_some_and(|ran| ran >= RUNS_WELL) {
        vm.restart_count = 0;
    }
}

fn pause(restart_count: u32) -> Duration {
    let doublings = restart_count.min(16);
    FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::admission::tests::vm;

    fn with(policy: RestartPolicy) -> Vm {
        let mut vm = vm(1000, (1, 64, 64));
        vm.spec.restart_policy = policy;
        vm
    }

    #[test]
    fn a_policy_plans_what_it_says_and_a_stop_takes_it_back() {
        let cases = [
            (RestartPolicy::Never, false, false),
            (RestartPolicy::OnFailure, true, false),
            (RestartPolicy::Always, true, true),
        ];
        for (policy, after_fault, after_power_off) in cases {
            let mut vm = with(policy);
            plan_after_fault(&mut vm);
            assert_eq!(due_in(&vm).is_some(), after_fault, "{policy:?}");
            assert_eq!(forget(&mut vm), after_fault, "{policy:?}");
            plan_after_power_off(&mut vm);
            assert_eq!(due_in(&vm).is_some(), after_power_off, "{policy:?}");
            forget(&mut vm);
            assert_eq!((due_in(&vm), forget(&mut vm)), (None, false));
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound_that_no_clock_makes_longer() {
        let mut vm = with(RestartPolicy::Always);
        for (count, seconds) in [(0, 1), (3, 8), (60, 300)] {
            vm.restart_count = count;
            let before = Timestamp::now();
            plan_after_fault(&mut vm);
            let after = Timestamp::now();
            let at = vm.last_stop.as_ref().unwrap().restart_time.unwrap();
            let pause = SignedDuration::from_secs(seconds);
            assert!(before + pause <= at && at <= after + pause, "{count}");
        }
        vm.last_stop.as_mut().unwrap().restart_time = Some(Timestamp::MAX);
        assert_eq!(due_in(&vm), Some(LONGEST_PAUSE));
        vm.last_stop.as_mut().unwrap().restart_time = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(due_in(&vm), Some(Duration::ZERO));
        vm.spec.restart_policy = RestartPolicy::Never;
        assert_eq!(due_in(&vm), None);
    }

    #[test]
    fn restarts_are_counted_anew_after_a_good_run() {
        let mut vm = with(RestartPolicy::Always);
        vm.restart_count = 5;
        vm.start_time = Some(Timestamp::now());
        count_anew(&mut vm);
        assert_eq!(vm.restart_count, 5);
        vm.start_time = Some(Timestamp::UNIX_EPOCH);
        count_anew(&mut vm);
        assert_eq!(vm.restart_count, 0);
    }
}
