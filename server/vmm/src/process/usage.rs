//! What a process has used: of `/proc`, so of the host's kernel and of no guest.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use banger_core::vmm::VmmMetrics;

/// Longer than the files of `/proc` that are read here.
const MAX_FILE: u64 = 16 * 1024;

/// What the process `pid` has used so far, its drives aside.
///
/// # Errors
/// If it is gone.
pub(crate) fn of(pid: u32) -> io::Result<VmmMetrics> {
    let stat = read(pid, "stat")?;
    let stat = Stat::parse(&stat).ok_or(io::ErrorKind::InvalidData)?;
    // Another user's process does not tell; neither does a kernel without it.
    let pss_bytes = read(pid, "smaps_rollup").ok().and_then(|text| pss(&text));
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    Ok(VmmMetrics {
        cpu_time: Duration::from_secs_f64(ratio(stat.cpu_ticks, ticks)),
        rss_bytes: stat.rss_pages.saturating_mul(page),
        pss_bytes,
        thread_count: stat.thread_count,
        drives: Vec::new(),
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ticks of centuries fit into 53 bits"
)]
fn ratio(ticks: u64, per_second: u64) -> f64 {
    ticks as f64 / per_second as f64
}

fn read(pid: u32, name: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/{name}"))?
        .take(MAX_FILE)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    thread_count: u32,
    rss_pages: u64,
}

impl Stat {
    /// proc_pid_stat(5): the second field is a name in parentheses that may hold anything; those behind it are
    /// numbered from 3.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3);
        let ticks = |number| field(number)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: ticks(14)?.saturating_add(ticks(15)?),
            thread_count: field(20)?.parse().ok()?,
            rss_pages: ticks(24)?,
        })
    }
}

/// proc_pid_smaps(5): `Pss:` and kibibytes.
fn pss(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 25 5 0 0 20 0 3 0 99 1000 42 18446744073709551615";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            stat,
            Stat {
                cpu_ticks: 30,
                thread_count: 3,
                rss_pages: 42
            }
        );
        assert_eq!(Stat::parse("7 (a"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = of(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 0 && usage.thread_count > 0);
        assert!(usage.pss_bytes.is_some_and(|pss| pss > 0));
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(of(u32::MAX).is_err());
    }
}
