//! How much the guest uses, from the kernel's files (proc(5)).

use std::fs;
use std::path::Path;
use std::time::Duration;

use banger_proto::guest::v1::{CpuTimes, GetStatsResponse, NetworkUse};

use crate::refusal::{Refusal, describe};

/// Interfaces that are told.
const INTERFACES_MAX: usize = 64;
/// `PF_KTHREAD` among the flags of a process (include/linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What the guest uses, whose root file system is at `root`.
pub(super) fn read(root: &Path) -> Result<GetStatsResponse, Refusal> {
    let memory = text("/proc/meminfo")?;
    let load = text("/proc/loadavg")?;
    let mut loads = load
        .split_ascii_whitespace()
        .map(|load| load.parse().unwrap_or(0.0));
    let uptime = text("/proc/uptime")?;
    let ticks = rustix::param::clock_ticks_per_second();
    let disk = rustix::fs::statvfs(root)
        .map_err(|error| failed(&root.display().to_string(), &error.into()))?;
    let bytes = |blocks: u64| signed(blocks.saturating_mul(disk.f_frsize));
    Ok(GetStatsResponse {
        memory_total_bytes: kibibytes(&memory, "MemTotal"),
        memory_available_bytes: kibibytes(&memory, "MemAvailable"),
        memory_cached_bytes: kibibytes(&memory, "Cached")
            .saturating_add(kibibytes(&memory, "Buffers")),
        load_1m: loads.next().unwrap_or(0.0),
        load_5m: loads.next().unwrap_or(0.0),
        load_15m: loads.next().unwrap_or(0.0),
        uptime: seconds(&uptime).and_then(|uptime| prost_types::Duration::try_from(uptime).ok()),
        cpu: cpu(&text("/proc/stat")?, ticks),
        disk_total_bytes: bytes(disk.f_blocks),
        disk_used_bytes: bytes(disk.f_blocks.saturating_sub(disk.f_bfree)),
        process_count: processes()?,
        interfaces: interfaces(&text("/proc/net/dev")?),
    })
}

fn text(path: &str) -> Result<String, Refusal> {
    fs::read_to_string(path).map_err(|error| failed(path, &error))
}

fn failed(path: &str, error: &std::io::Error) -> Refusal {
    Refusal::File {
        path: path.to_owned(),
        detail: describe(error),
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The field of `/proc/meminfo`, in bytes; 0 where it is not there.
fn kibibytes(memory: &str, key: &str) -> i64 {
    let line = memory
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    number.map_or(0, |kib: u64| signed(kib.saturating_mul(1024)))
}

/// The first number of `/proc/uptime`.
fn seconds(uptime: &str) -> Option<Duration> {
    let first: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(first).ok()
}

/// The first line of `/proc/stat`, which sums all processors up.
fn cpu(stat: &str, ticks_per_second: u64) -> Option<CpuTimes> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let time = |fields_of: &[usize]| {
        let ticks = fields_of
            .iter()
            .filter_map(|&field| fields.get(field))
            .fold(0_u64, |sum, ticks| sum.saturating_add(*ticks));
        let millis = ticks.saturating_mul(1000) / ticks_per_second.max(1);
        prost_types::Duration::try_from(Duration::from_millis(millis)).ok()
    };
    // user nice system idle iowait irq softirq steal
    Some(CpuTimes {
        user: time(&[0, 1]),
        system: time(&[2, 5, 6]),
        idle: time(&[3]),
        io_wait: time(&[4]),
        steal: time(&[7]),
    })
}

/// How many processes there are, without the kernel's own.
fn processes() -> Result<i32, Refusal> {
    let entries = fs::read_dir("/proc").map_err(|error| failed("/proc", &error))?;
    let is_process = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_digit())
            && fs::read_to_string(format!("/proc/{name}/stat"))
                .is_ok_and(|stat| !is_kernel_thread(&stat))
    };
    let count = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_process))
        .count();
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}

/// By field 9 of `/proc/<pid>/stat`; the second is a name in parentheses, which may hold anything.
fn is_kernel_thread(stat: &str) -> bool {
    let flags = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(6));
    flags
        .and_then(|flags| flags.parse::<u64>().ok())
        .is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

/// `/proc/net/dev`, without the loopback.
fn interfaces(dev: &str) -> Vec<NetworkUse> {
    let interface = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let mut counters = counters
            .split_ascii_whitespace()
            .map_while(|counter| counter.parse::<u64>().ok());
        Some(NetworkUse {
            name: name.trim().to_owned(),
            received_bytes: signed(counters.next()?),
            sent_bytes: signed(counters.nth(7)?),
        })
    };
    dev.lines()
        .filter_map(interface)
        .filter(|interface| interface.name != "lo")
        .take(INTERFACES_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_uses_something() {
        let stats = read(Path::new("/")).unwrap();
        assert!(stats.memory_total_bytes >= stats.memory_available_bytes);
        assert!(stats.memory_available_bytes > 0 && stats.memory_cached_bytes > 0);
        assert!(stats.disk_total_bytes >= stats.disk_used_bytes && stats.disk_used_bytes > 0);
        assert!(stats.process_count > 0);
        assert!(stats.uptime.unwrap().seconds > 0);
        assert!(stats.cpu.unwrap().user.unwrap().seconds > 0);
    }

    #[test]
    fn the_fields_of_the_kernels_files_are_found() {
        let memory = "MemTotal:       498776 kB\nMemFree: 1 kB\nCached:  12 kB\nSwapCached: 7 kB\n";
        assert_eq!(kibibytes(memory, "MemTotal"), 498_776 * 1024);
        assert_eq!(kibibytes(memory, "Cached"), 12 * 1024);
        assert_eq!(kibibytes(memory, "Buffers"), 0);
        assert_eq!(
            seconds("12.34 20.00\n"),
            Some(Duration::from_secs_f64(12.34))
        );
        assert_eq!(seconds(""), None);
        let dev = "Inter-|   Receive\n face |bytes    packets\n    lo: 1 0 0 0 0 0 0 0 1 0\n  eth0: 500 4 0 0 0 0 0 0 700 6 0\n";
        let found = interfaces(dev);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (
                found[0].name.as_str(),
                found[0].received_bytes,
                found[0].sent_bytes
            ),
            ("eth0", 500, 700)
        );
    }

    #[test]
    fn processor_time_sums_what_belongs_together() {
        let times = cpu("cpu  100 20 30 400 5 6 7 8 0 0\ncpu0 1\n", 100).unwrap();
        let millis = |time: Option<prost_types::Duration>| {
            let time = time.unwrap();
            time.seconds * 1000 + i64::from(time.nanos) / 1_000_000
        };
        assert_eq!(
            [
                times.user,
                times.system,
                times.idle,
                times.io_wait,
                times.steal
            ]
            .map(millis),
            [1200, 430, 4000, 50, 80]
        );
        assert!(cpu("intr 5\n", 100).is_none());
    }

    #[test]
    fn the_kernels_own_threads_are_no_processes() {
        assert!(is_kernel_thread("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0"));
        assert!(is_kernel_thread("9 (evil) S 0 0) S 0 0 0 0 -1 2129984 0 0"));
        assert!(!is_kernel_thread("7 (sh) S 1 7 7 0 -1 4194560 0 0"));
        assert!(!is_kernel_thread("7"));
    }
}
