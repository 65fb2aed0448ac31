//! The host's kernel, clock and entropy: what guests are given of each.

use std::time::Duration;

use banger_core::doctor::Finding;

use super::check::Check;
use super::host::Host;
use crate::sys::{self, ClockState};

/// The oldest kernel with what banger uses: handles of processes, and their signals and ends through them (5.4), and
/// what the agents of this and later releases are tested on.
const KERNEL_OLDEST: (u32, u32) = (5, 10);
/// How wrong a clock that is kept may believe to be: certificates and builds tolerate it.
const ERROR_MAX: Duration = Duration::from_secs(1);
/// The least that the pool holds when it is filled: of 256 (random(4)).
const ENTROPY_MIN: u64 = 128;
/// Clocks that take a system call and an access to a device for each reading.
const SLOW_CLOCKS: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];

pub(super) const CHECKS: [Check; 4] = [
    Check::files("HOST_KERNEL", "The host's kernel is recent enough", kernel),
    Check::files(
        "CLOCK_SYNCHRONIZED",
        "The host's clock is kept right",
        synchronized,
    ),
    Check::files("CLOCK_SOURCE", "The host's clock is fast to read", source),
    Check::files("ENTROPY", "The host has randomness to give", entropy),
];

fn kernel(host: &Host) -> Finding {
    let Some(release) = host.word("/proc/sys/kernel/osrelease") else {
        return Finding::skipped("/proc/sys/kernel/osrelease is not there");
    };
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= KERNEL_OLDEST => {
            Finding::ok(release)
        }
        (Some(Ok(_)), Some(Ok(_))) => Finding::problem(
            release,
            "Processes cannot be told apart from others that get their numbers later.",
        )
        .remedy("Run Linux 5.10 or later."),
        _ => Finding::skipped(format!("`{release}` is no release that banger knows")),
    }
}

fn synchronized(_: &Host) -> Finding {
    judge_clock(sys::clock_state())
}

fn judge_clock(state: std::io::Result<ClockState>) -> Finding {
    let remedy = "Let something keep it: systemd-timesyncd, chrony or ntpd.";
    let command = "timedatectl set-ntp true";
    let cause = "Guests are set by it at their start: certificates seem not valid, and times of files are wrong.";
    match state {
        Err(error) => Finding::skipped(format!("the kernel does not tell: {error}")),
        Ok(state) if !state.is_synchronized => {
            Finding::warning("nothing keeps it, as far as the kernel knows", cause)
                .remedy(remedy)
                .command(command)
        }
        Ok(state) if state.largest_error > ERROR_MAX => Finding::warning(
            format!("it may be wrong by {:?}", state.largest_error),
            cause,
        )
        .remedy(remedy)
        .command(command),
        Ok(state) => Finding::ok(format!("right to {:?}", state.largest_error)),
    }
}

fn source(host: &Host) -> Finding {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    match host.word(path) {
        None => Finding::skipped("the kernel does not tell its source"),
        Some(word) if SLOW_CLOCKS.contains(&word.as_str()) => Finding::warning(
            word,
            "Each look at the clock takes microseconds instead of nanoseconds, for VMMs and guests alike.",
        )
        .remedy("Find out why the kernel gave up on the processor's counter, and choose it at boot: clocksource=tsc tsc=reliable.")
        .command("dmesg | grep -i -e clocksource -e tsc"),
        Some(word) => Finding::ok(word),
    }
}

fn entropy(host: &Host) -> Finding {
    match host.number("/proc/sys/kernel/random/entropy_avail") {
        None => Finding::skipped("the kernel does not tell"),
        Some(bits) if bits < ENTROPY_MIN => Finding::warning(
            format!("{bits} bits"),
            "Guests get their first randomness from the host, and wait at boot until there is some.",
        )
        .remedy("Give the host a source: the processor's rdrand, a virtio-rng device, or rngd.")
        .command("apt-get install rng-tools5"),
        Some(bits) => Finding::ok(format!("{bits} bits")),
    }
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::super::host::laid_out;
    use super::*;

    #[test]
    fn a_kernel_is_judged_by_its_release() {
        let look = |release: &str| {
            let (_dir, host) = laid_out::host(&[("/proc/sys/kernel/osrelease", release)]);
            kernel(&host).verdict
        };
        assert_eq!(look("6.1.0-42-amd64\n"), Verdict::Ok);
        assert_eq!(look("5.10.0\n"), Verdict::Ok);
        assert_eq!(look("5.4.0-1\n"), Verdict::Problem);
        assert_eq!(look("strange\n"), Verdict::Skipped);
    }

    #[test]
    fn a_clock_that_nothing_keeps_is_a_warning() {
        let state = |is_synchronized, seconds| {
            Ok(ClockState {
                is_synchronized,
                largest_error: Duration::from_secs(seconds),
            })
        };
        assert_eq!(judge_clock(state(true, 0)).verdict, Verdict::Ok);
        assert!(judge_clock(state(false, 0)).command.contains("timedatectl"));
        assert!(judge_clock(state(true, 2)).found.contains("wrong by 2s"));
        let silent = judge_clock(Err(std::io::Error::other("no")));
        assert_eq!(silent.verdict, Verdict::Skipped);
    }

    #[test]
    fn this_hosts_clock_tells_its_state() {
        let (_dir, host) = laid_out::host(&[]);
        assert_ne!(synchronized(&host).verdict, Verdict::Problem);
    }

    #[test]
    fn slow_clocks_and_empty_pools_are_warnings() {
        let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        let pool = "/proc/sys/kernel/random/entropy_avail";
        let (_dir, host) = laid_out::host(&[(clock, "tsc\n"), (pool, "256\n")]);
        assert_eq!(source(&host), Finding::ok("tsc"));
        assert_eq!(entropy(&host), Finding::ok("256 bits"));
        let (_dir, host) = laid_out::host(&[(clock, "hpet\n"), (pool, "12\n")]);
        assert_eq!(source(&host).verdict, Verdict::Warning);
        assert_eq!(entropy(&host).verdict, Verdict::Warning);
        let (_dir, host) = laid_out::host(&[]);
        assert_eq!(source(&host).verdict, Verdict::Skipped);
        assert_eq!(entropy(&host).verdict, Verdict::Skipped);
    }
}
