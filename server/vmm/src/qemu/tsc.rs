//! The frequency of the host's time stamp counter, which a TCG guest sees unchanged.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long the counter is compared with the clock. Over 50 ms the answers differ by some 5 in a million.
const MEASURED_OVER: Duration = Duration::from_millis(50);

/// How often each end of the span is read; the quickest reading counts, since no interrupt fell into it.
const READINGS: usize = 8;

/// Counts per millisecond. Blocks for [`MEASURED_OVER`].
pub(super) fn measure_khz() -> u64 {
    let (count, time) = reading();
    std::thread::sleep(MEASURED_OVER);
    let (later_count, later_time) = reading();
    khz(
        later_count.wrapping_sub(count),
        later_time.saturating_sub(time),
    )
}

fn khz(counts: u64, span: Duration) -> u64 {
    let nanoseconds = span.as_nanos().max(1);
    u64::try_from(u128::from(counts) * 1_000_000 / nanoseconds).unwrap_or(u64::MAX)
}

/// A counter value and the time at which it was current.
fn reading() -> (u64, Duration) {
    let mut best = (u64::MAX, 0, Duration::ZERO);
    for _ in 0..READINGS {
        let before = crate::sys::time_stamp_counter();
        let now = now();
        let after = crate::sys::time_stamp_counter();
        let took = after.wrapping_sub(before);
        if took < best.0 {
            best = (took, before.wrapping_add(took / 2), now);
        }
    }
    (best.1, best.2)
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::MonotonicRaw);
    let seconds = u64::try_from(time.tv_sec).expect("a monotonic clock is not negative");
    let nanoseconds = u32::try_from(time.tv_nsec).expect("below a thousand million");
    Duration::new(seconds, nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequency_is_counts_per_millisecond() {
        assert_eq!(khz(125_000_000, Duration::from_millis(50)), 2_500_000);
        assert_eq!(khz(5, Duration::ZERO), 5_000_000);
        assert_eq!(khz(u64::MAX, Duration::ZERO), u64::MAX);
    }

    #[test]
    fn two_measurements_agree_within_a_thousandth() {
        let (first, second) = (measure_khz(), measure_khz());
        assert!(first.abs_diff(second) < first / 1000, "{first} {second}");
        assert!((100_000..20_000_000).contains(&first), "{first}");
    }
}
