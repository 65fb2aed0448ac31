//! Runs cases in lanes, one thread each: cases of a lane run in order, so that a lane can share a daemon and a
//! VM, and no more VMs boot at once than there are lanes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

/// Who a case shares things with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// With the other cases of the shared daemon.
    Shared,
    /// With nobody: it has a daemon of its own.
    Own,
}

/// How a case ended that did not fail.
#[derive(Debug)]
pub enum Verdict {
    /// The rule holds.
    Passed,
    /// This machine cannot do it.
    Skipped(String),
}

/// A rule and how it is tested. The name states the rule.
pub struct Case<S> {
    /// The rule.
    pub name: &'static str,
    /// Where it runs.
    pub lane: Lane,
    /// How it is tested; panics if the rule does not hold.
    pub test: fn(&S) -> Verdict,
}

impl<S> std::fmt::Debug for Case<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .field("lane", &self.lane)
            .finish_non_exhaustive()
    }
}

/// How many ended how.
#[derive(Debug, Default)]
pub struct Tally {
    /// Cases whose rule holds.
    pub passed: usize,
    /// The names of those whose rule does not.
    pub failed: Vec<String>,
    /// The names of those this machine cannot do.
    pub skipped: Vec<String>,
}

/// What is done after a case of a lane.
pub type After<'a, S> = &'a (dyn Fn(&S, Lane) + Sync);

/// Runs the cases whose names contain one of `filters` (or all), after each the check of its lane, and after one that
/// failed what makes the lane fit for the next.
pub fn run<S: Sync>(
    suite: &S,
    cases: &[Case<S>],
    filters: &[String],
    after: After<'_, S>,
    recover: After<'_, S>,
) -> Tally {
    let tally = Mutex::new(Tally::default());
    let wanted = |case: &&Case<S>| {
        filters.is_empty()
            || filters
                .iter()
                .any(|filter| case.name.contains(filter.as_str()))
    };
    std::thread::scope(|scope| {
        for lane in [Lane::Shared, Lane::Own] {
            let tally = &tally;
            let lane_cases = cases
                .iter()
                .filter(wanted)
                .filter(move |case| case.lane == lane);
            scope
                .spawn(move || lane_cases.for_each(|case| one(suite, case, after, recover, tally)));
        }
    });
    tally.into_inner().unwrap()
}

fn one<S: Sync>(
    suite: &S,
    case: &Case<S>,
    after: After<'_, S>,
    recover: After<'_, S>,
    tally: &Mutex<Tally>,
) {
    let begin = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| {
        let verdict = (case.test)(suite);
        after(suite, case.lane);
        verdict
    }));
    let took = begin.elapsed().as_secs_f64();
    if result.is_err() {
        // What fails here, the next case tells of.
        let _ = catch_unwind(AssertUnwindSafe(|| recover(suite, case.lane)));
    }
    let mut tally = tally.lock().unwrap();
    match result {
        Ok(Verdict::Passed) => {
            println!("e2e {} ... ok ({took:.1} s)", case.name);
            tally.passed += 1;
        }
        Ok(Verdict::Skipped(why)) => {
            println!("e2e {} ... SKIPPED: {why}", case.name);
            tally.skipped.push(case.name.to_owned());
        }
        Err(_) => {
            println!("e2e {} ... FAILED ({took:.1} s)", case.name);
            tally.failed.push(case.name.to_owned());
        }
    }
}
