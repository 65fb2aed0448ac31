//! Memory: whether another VM fits, and what the host does when none is left.

use banger_core::doctor::Finding;

use super::check::Check;
use super::host::Host;

/// A few small VMs, above the reserve: MiB.
const COMFORT_MIB: u64 = 1024;
/// Of the swap, the share in percent that is a warning.
const SWAP_PERCENT_MAX: u64 = 50;
/// The policy of `vm.overcommit_memory` that refuses what may not be used at once
/// (`Documentation/mm/overcommit-accounting.rst` of the kernel).
const STRICT: u64 = 2;

pub(super) const CHECKS: [Check; 3] = [
    Check::files(
        "MEMORY_AVAILABLE",
        "There is memory for another VM",
        available,
    ),
    Check::files(
        "MEMORY_OVERCOMMIT",
        "The host lets VMs have memory that they do not use yet",
        overcommit,
    ),
    Check::files("SWAP", "The host does not live on its swap", swap),
];

fn available(host: &Host) -> Finding {
    let (Some(all), Some(free)) = (host.memory("MemTotal"), host.memory("MemAvailable")) else {
        return Finding::skipped("/proc/meminfo does not tell");
    };
    let (all, free, reserve) = (all >> 20, free >> 20, host.memory_reserve_mib);
    let found = format!("{free} MiB available of {all} MiB");
    let remedy = "Stop VMs that nothing needs, or give new ones less memory (--memory).";
    let command = "banger vm list";
    if free <= reserve {
        return Finding::problem(
            found,
            format!(
                "{reserve} MiB are kept free (memory_reserve_mib), so no VM is started any more."
            ),
        )
        .remedy(remedy)
        .command(command);
    }
    if free - reserve < COMFORT_MIB {
        return Finding::warning(
            found,
            "Only small VMs fit, and the host is near to ending processes.",
        )
        .remedy(remedy)
        .command(command);
    }
    Finding::ok(found)
}

fn overcommit(host: &Host) -> Finding {
    match host.number("/proc/sys/vm/overcommit_memory") {
        None => Finding::skipped("/proc/sys/vm/overcommit_memory is not there"),
        Some(STRICT) => strict(host),
        Some(policy) => Finding::ok(format!("vm.overcommit_memory={policy}")),
    }
}

/// Each VM counts with all of its memory from its start on.
fn strict(host: &Host) -> Finding {
    let limit = host.memory("CommitLimit").unwrap_or(0);
    let taken = host.memory("Committed_AS").unwrap_or(0);
    let left = limit.saturating_sub(taken) >> 20;
    Finding::warning(
        format!("vm.overcommit_memory=2, {left} MiB left to promise"),
        "Each VM counts with all of its memory from its start on, so that fewer VMs start than the memory has room for.",
    )
    .remedy("Set it to 0, or have much swap.")
    .command("sysctl -w vm.overcommit_memory=0")
}

fn swap(host: &Host) -> Finding {
    let (Some(all), Some(free)) = (host.memory("SwapTotal"), host.memory("SwapFree")) else {
        return Finding::skipped("/proc/meminfo does not tell");
    };
    let (all, used) = (all >> 20, all.saturating_sub(free) >> 20);
    if all == 0 {
        return Finding::ok(
            "none: where memory ends, the kernel ends processes, and no guest's memory is on a disk",
        );
    }
    let found = format!("{used} MiB of {all} MiB in use");
    if used.saturating_mul(100) / all < SWAP_PERCENT_MAX {
        return Finding::ok(found);
    }
    Finding::warning(
        found,
        "Guests whose memory is on a disk stand still while it is read.",
    )
    .remedy("Run fewer VMs, or give them less memory.")
    .command("banger vm list")
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::super::host::laid_out;
    use super::*;

    fn meminfo(lines: &[(&str, u64)]) -> String {
        let line = |(key, mib): &(&str, u64)| format!("{key}:  {} kB\n", mib * 1024);
        lines.iter().map(line).collect()
    }

    #[test]
    fn memory_is_judged_above_the_reserve() {
        let look = |free| {
            let text = meminfo(&[("MemTotal", 8192), ("MemAvailable", free)]);
            let (_dir, host) = laid_out::host(&[("/proc/meminfo", &text)]);
            available(&host)
        };
        assert_eq!(look(256).verdict, Verdict::Problem);
        assert_eq!(look(257).verdict, Verdict::Warning);
        assert_eq!(
            look(256 + COMFORT_MIB),
            Finding::ok("1280 MiB available of 8192 MiB")
        );
        let (_dir, host) = laid_out::host(&[]);
        assert_eq!(available(&host).verdict, Verdict::Skipped);
    }

    #[test]
    fn a_host_that_promises_nothing_is_a_warning() {
        let look = |policy: &str| {
            let text = meminfo(&[("CommitLimit", 4096), ("Committed_AS", 1024)]);
            let files = [
                ("/proc/sys/vm/overcommit_memory", policy),
                ("/proc/meminfo", text.as_str()),
            ];
            let (_dir, host) = laid_out::host(&files);
            overcommit(&host)
        };
        assert_eq!(look("0").verdict, Verdict::Ok);
        assert_eq!(look("1").verdict, Verdict::Ok);
        assert_eq!(
            look("2").found,
            "vm.overcommit_memory=2, 3072 MiB left to promise"
        );
        let (_dir, host) = laid_out::host(&[]);
        assert_eq!(overcommit(&host).verdict, Verdict::Skipped);
    }

    #[test]
    fn swap_is_no_fault_until_the_host_lives_on_it() {
        let look = |all, free| {
            let text = meminfo(&[("SwapTotal", all), ("SwapFree", free)]);
            let (_dir, host) = laid_out::host(&[("/proc/meminfo", &text)]);
            swap(&host).verdict
        };
        assert_eq!(look(0, 0), Verdict::Ok);
        assert_eq!(look(1000, 501), Verdict::Ok);
        assert_eq!(look(1000, 500), Verdict::Warning);
    }
}
