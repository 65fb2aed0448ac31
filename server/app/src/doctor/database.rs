//! The database: whether it is whole, and how fast it answers.

use std::time::Duration;

use banger_core::chain;
use banger_core::doctor::Finding;
use banger_store::{Health, StoreError};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::Ward;
use super::check::Check;

/// The whole file is read.
const LIMIT: Duration = Duration::from_secs(60);
/// Beyond this, the log of changes is not folded into the database any more.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// A look at the whole of it that takes longer holds others up.
const SLOW: Duration = Duration::from_secs(5);

pub(super) const CHECKS: [Check; 1] = [Check::daemon(
    "DATABASE_INTEGRITY",
    "The database is whole and answers quickly",
    integrity,
)
.within(LIMIT)];

fn integrity(ward: &Ward) -> BoxFuture<'_, Finding> {
    async move {
        let begin = Instant::now();
        let health = ward.context.store.check_health().await;
        judge(health, begin.elapsed())
    }
    .boxed()
}

fn judge(health: Result<Health, StoreError>, took: Duration) -> Finding {
    let damaged = |found: String, cause: String| {
        Finding::problem(found, cause).remedy(
            "Stop the daemon, keep a copy of the state directory, and put a backup of banger.db in its place. VMs run on \
             meanwhile. Look at the disk's health first.",
        )
    };
    let health = match health {
        Ok(health) => health,
        Err(error) => return damaged("it cannot be read".into(), chain(&error)),
    };
    if let Some(first) = health.faults.first() {
        return damaged(
            format!("it is damaged: {first}"),
            "The disk lost or changed what was written, or another program wrote to it.".into(),
        );
    }
    let found = format!(
        "whole: {} KiB and {} KiB of changes, looked at in {} ms",
        health.file_bytes >> 10,
        health.log_bytes >> 10,
        took.as_millis()
    );
    if health.log_bytes > LOG_BYTES_MAX {
        return Finding::warning(
            found,
            "The changes are not folded into the file, because something reads without end or the disk is full.",
        )
        .remedy("Start the daemon anew when it suits: VMs run on.");
    }
    if took > SLOW {
        return Finding::warning(
            found,
            "The disk is slow or overloaded, and each change waits for it.",
        )
        .remedy("Put the state directory on a faster disk, or run fewer VMs on this one.");
    }
    Finding::ok(found)
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::*;

    fn health(faults: &[&str], log_bytes: u64) -> Result<Health, StoreError> {
        Ok(Health {
            faults: faults.iter().map(|&fault| fault.to_owned()).collect(),
            file_bytes: 4096,
            log_bytes,
        })
    }

    #[test]
    fn a_whole_database_is_told_with_its_time_and_a_damaged_one_with_the_damage() {
        let took = Duration::from_millis(3);
        let whole = judge(health(&[], 0), took);
        assert_eq!(
            whole,
            Finding::ok("whole: 4 KiB and 0 KiB of changes, looked at in 3 ms")
        );
        let damaged = judge(health(&["row 1 missing from index"], 0), took);
        assert_eq!(damaged.verdict, Verdict::Problem);
        assert!(damaged.found.contains("row 1 missing"));
        let closed = StoreError::Closed { during: "look" };
        assert_eq!(judge(Err(closed), took).verdict, Verdict::Problem);
    }

    #[test]
    fn a_database_that_is_slow_or_does_not_fold_its_log_is_a_warning() {
        let log = judge(health(&[], LOG_BYTES_MAX + 1), Duration::ZERO);
        assert_eq!(log.verdict, Verdict::Warning);
        let slow = judge(health(&[], 0), SLOW + Duration::from_millis(1));
        assert_eq!(slow.verdict, Verdict::Warning);
    }
}
