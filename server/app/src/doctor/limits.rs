//! Limits of the host and of the daemon that many VMs run into.

use banger_core::doctor::Finding;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::cgroup;
use super::check::{Check, Right};
use super::host::{Host, MendError};

/// The daemon's own files: database, socket, log, clients.
const FILES_BASE: u64 = 512;
/// Files of the daemon for each VM: control, agent, console, its log, the process, and calls on it.
const FILES_PER_VM: u64 = 8;
/// Threads of a VMM: the main loop, a processor or more, I/O, and what it starts for a moment.
const THREADS_PER_VM: u64 = 12;
/// Threads of everything else on the host.
const THREADS_BASE: u64 = 1024;
/// Of the host's open files, the share in percent that is a warning.
const HANDLES_PERCENT_MAX: u64 = 80;
/// One for each console that is followed, beside those of other programs.
const INOTIFY_INSTANCES: u64 = 512;
/// Files and directories that are watched.
const INOTIFY_WATCHES: u64 = 65_536;
const INSTANCES_PATH: &str = "/proc/sys/fs/inotify/max_user_instances";
const WATCHES_PATH: &str = "/proc/sys/fs/inotify/max_user_watches";

pub(super) const CHECKS: [Check; 4] = [
    Check::files(
        "OPEN_FILES",
        "The daemon may open enough files for its VMs",
        open_files,
    )
    .mended_by(Right::Daemon, raise_open_files),
    Check::files(
        "FILE_HANDLES",
        "The host has open files to spare",
        file_handles,
    ),
    Check::files(
        "INOTIFY_LIMITS",
        "Enough files may be watched at once",
        inotify,
    )
    .mended_by(Right::Root, raise_inotify),
    Check::files(
        "PROCESS_LIMITS",
        "There may be enough processes and threads for the VMs",
        processes,
    ),
];

/// Soft and hard limit of `/proc/self/limits` (proc(5)); `u64::MAX` is no limit.
fn limit(host: &Host, name: &str) -> Option<(u64, u64)> {
    let text = host.read("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let mut words = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some((words.next()??, words.next()??))
}

fn files_needed(host: &Host) -> u64 {
    FILES_BASE + FILES_PER_VM * host.max_vms as u64
}

fn open_files(host: &Host) -> Finding {
    let Some((soft, hard)) = limit(host, "Max open files") else {
        return Finding::skipped("/proc/self/limits does not tell");
    };
    let needed = files_needed(host);
    if soft >= needed {
        return Finding::ok(format!(
            "{soft}, and {needed} are enough for {} VMs",
            host.max_vms
        ));
    }
    let found = format!(
        "{soft} (hard limit {hard}), and {} VMs may need {needed}",
        host.max_vms
    );
    let cause = "At the limit no VM starts and no client connects.";
    if hard >= needed {
        return Finding::warning(found, cause)
            .remedy("Raise the soft limit: LimitNOFILE of the unit, or the daemon by itself.")
            .command("banger doctor --fix");
    }
    Finding::warning(found, cause)
        .remedy("Raise LimitNOFILE of the daemon's unit, or ulimit -n before it starts, or lower max_vms.")
        .command("systemctl edit bangerd   # [Service] LimitNOFILE=1048576")
}

/// For as long as this daemon lives; VMMs that it starts have it too.
fn raise_open_files(_: &Host) -> Result<String, MendError> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(|errno| MendError::Step {
        step: "raise the limit of open files".into(),
        source: errno.into(),
    })?;
    let now = limit
        .maximum
        .map_or("no limit".into(), |most| most.to_string());
    Ok(format!("raised the daemon's limit of open files to {now}"))
}

fn file_handles(host: &Host) -> Finding {
    let text = host.word("/proc/sys/fs/file-nr").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(used)), Some(Ok(_)), Some(Ok(most))) =
        (numbers.next(), numbers.next(), numbers.next())
    else {
        return Finding::skipped("/proc/sys/fs/file-nr does not tell");
    };
    let found = format!("{used} of {most} in use");
    if used.saturating_mul(100) / most.max(1) < HANDLES_PERCENT_MAX {
        return Finding::ok(found);
    }
    Finding::warning(
        found,
        "At the limit no program of the host can open a file.",
    )
    .remedy("Find who holds so many, or raise fs.file-max.")
    .command(format!("sysctl -w fs.file-max={}", most.saturating_mul(2)))
}

fn inotify(host: &Host) -> Finding {
    let (Some(instances), Some(watches)) = (host.number(INSTANCES_PATH), host.number(WATCHES_PATH))
    else {
        return Finding::skipped("/proc/sys/fs/inotify is not there");
    };
    let found = format!("{instances} instances, {watches} watches for each user");
    if instances >= INOTIFY_INSTANCES && watches >= INOTIFY_WATCHES {
        return Finding::ok(found);
    }
    let raise =
        |name: &str, now: u64, wanted: u64| format!("fs.inotify.{name}={}", now.max(wanted));
    Finding::warning(
        found,
        "Each console that is followed takes one; at the limit it is no longer told when there is more.",
    )
    .remedy("Raise both, in a file of /etc/sysctl.d too.")
    .command(format!(
        "sysctl -w {} {}",
        raise("max_user_instances", instances, INOTIFY_INSTANCES),
        raise("max_user_watches", watches, INOTIFY_WATCHES)
    ))
}

fn raise_inotify(host: &Host) -> Result<String, MendError> {
    let mut changed = Vec::new();
    for (path, wanted) in [
        (INSTANCES_PATH, INOTIFY_INSTANCES),
        (WATCHES_PATH, INOTIFY_WATCHES),
    ] {
        if host.number(path).is_some_and(|now| now < wanted) {
            host.set(path, wanted)?;
            let name = path.rsplit('/').next().unwrap_or(path);
            changed.push(format!("{name} to {wanted}"));
        }
    }
    Ok(format!(
        "raised {} until the host restarts",
        changed.join(" and ")
    ))
}

fn processes(host: &Host) -> Finding {
    let needed = THREADS_BASE + THREADS_PER_VM * host.max_vms as u64;
    let limits = [
        (
            "kernel.pid_max",
            host.number("/proc/sys/kernel/pid_max"),
            "sysctl -w kernel.pid_max=4194304",
        ),
        (
            "kernel.threads-max",
            host.number("/proc/sys/kernel/threads-max"),
            "sysctl -w kernel.threads-max=1000000",
        ),
        (
            "the daemon's RLIMIT_NPROC",
            limit(host, "Max processes").map(|(soft, _)| soft),
            "systemctl edit bangerd   # [Service] LimitNPROC=infinity",
        ),
        (
            "pids.max of the daemon's cgroup",
            cgroup::own(host).and_then(|dir| host.number(&format!("{dir}/pids.max"))),
            "systemctl edit bangerd   # [Service] TasksMax=infinity",
        ),
    ];
    let known = limits
        .into_iter()
        .filter_map(|(name, value, command)| Some((value?, name, command)));
    let Some((lowest, name, command)) = known.min() else {
        return Finding::skipped("/proc does not tell");
    };
    if lowest >= needed {
        return Finding::ok(format!("{lowest} ({name}), and {needed} are enough"));
    }
    Finding::warning(
        format!(
            "{name} is {lowest}, and {} VMs may need {needed}",
            host.max_vms
        ),
        "At the limit no VM starts, and other programs of the host may not either.",
    )
    .remedy("Raise it, or lower max_vms.")
    .command(command)
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::super::host::laid_out;
    use super::*;

    fn limits(soft: &str, hard: &str) -> String {
        format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max processes             {soft}               {hard}               processes \n\
             Max open files            {soft}               {hard}               files     \n"
        )
    }

    #[test]
    fn open_files_are_judged_by_what_the_most_vms_need() {
        let look = |soft, hard| {
            let (_dir, host) = laid_out::host(&[("/proc/self/limits", &limits(soft, hard))]);
            open_files(&host)
        };
        assert_eq!(look("unlimited", "unlimited").verdict, Verdict::Ok);
        assert_eq!(look("8512", "8512").verdict, Verdict::Ok);
        assert!(look("1024", "1048576").command.contains("--fix"));
        assert!(look("1024", "4096").command.contains("LimitNOFILE"));
        let (_dir, host) = laid_out::host(&[]);
        assert_eq!(open_files(&host).verdict, Verdict::Skipped);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let (_dir, host) = laid_out::host(&[]);
        raise_open_files(&host).unwrap();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, now.maximum);
    }

    #[test]
    fn a_host_with_few_files_left_is_a_warning() {
        let look = |text: &str| {
            let (_dir, host) = laid_out::host(&[("/proc/sys/fs/file-nr", text)]);
            file_handles(&host)
        };
        assert_eq!(look("100\t0\t1000\n").verdict, Verdict::Ok);
        assert_eq!(look("800\t0\t1000\n").command, "sysctl -w fs.file-max=2000");
        assert_eq!(look("strange").verdict, Verdict::Skipped);
    }

    #[test]
    fn low_limits_of_inotify_are_raised_and_high_ones_kept() {
        let (_dir, host) = laid_out::host(&[(INSTANCES_PATH, "128\n"), (WATCHES_PATH, "192536\n")]);
        let found = inotify(&host);
        assert_eq!(
            found.command,
            "sysctl -w fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=192536"
        );
        assert_eq!(
            raise_inotify(&host).unwrap(),
            "raised max_user_instances to 512 until the host restarts"
        );
        assert_eq!(
            inotify(&host),
            Finding::ok("512 instances, 192536 watches for each user")
        );
        let (_dir, host) = laid_out::host(&[]);
        assert_eq!(inotify(&host).verdict, Verdict::Skipped);
    }

    #[test]
    fn the_lowest_limit_of_processes_is_the_one_that_counts() {
        let (dir, host) = laid_out::host(&[
            ("/proc/sys/kernel/pid_max", "4194304"),
            ("/proc/sys/kernel/threads-max", "200000"),
            ("/proc/self/limits", &limits("unlimited", "unlimited")),
        ]);
        assert!(
            processes(&host)
                .found
                .starts_with("200000 (kernel.threads-max)")
        );
        laid_out::write(dir.path(), "/proc/self/limits", &limits("4096", "4096"));
        let few = processes(&host);
        assert_eq!(few.verdict, Verdict::Warning);
        assert!(few.found.contains("RLIMIT_NPROC") && few.command.contains("LimitNPROC"));
        let mounts = "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        laid_out::write(dir.path(), "/proc/self/mountinfo", mounts);
        laid_out::write(
            dir.path(),
            "/proc/self/cgroup",
            "0::/system.slice/b.service\n",
        );
        laid_out::write(
            dir.path(),
            "/sys/fs/cgroup/system.slice/b.service/pids.max",
            "max\n",
        );
        assert!(processes(&host).found.contains("RLIMIT_NPROC"));
        laid_out::write(
            dir.path(),
            "/sys/fs/cgroup/system.slice/b.service/pids.max",
            "100\n",
        );
        assert!(processes(&host).command.contains("TasksMax"));
        let (_dir, host) = laid_out::host(&[]);
        assert_eq!(processes(&host).verdict, Verdict::Skipped);
    }
}
