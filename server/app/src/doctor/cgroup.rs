//! Control groups: whether the host can hold a VMM to its share.

use banger_core::doctor::Finding;
use rustix::fs::{Access, access};

use super::check::Check;
use super::host::Host;
use super::mounts;

/// What holds a VMM to its share.
const WANTED: [&str; 4] = ["cpu", "io", "memory", "pids"];

pub(super) const CHECKS: [Check; 2] = [
    Check::files(
        "CGROUP_VERSION",
        "The host has cgroup v2 with the controllers that bound VMs",
        version,
    ),
    Check::files(
        "CGROUP_DELEGATION",
        "The daemon may make groups below its own",
        delegation,
    ),
];

/// Where cgroup v2 is mounted.
pub(super) fn root(host: &Host) -> Option<String> {
    let mounts = mounts::all(host);
    let found = mounts.into_iter().find(|mount| mount.kind == "cgroup2");
    found.map(|mount| mount.point)
}

/// The daemon's own group of cgroup v2, as a path of the host.
pub(super) fn own(host: &Host) -> Option<String> {
    let text = host.read("/proc/self/cgroup").ok()?;
    // cgroups(7): the hierarchy of version 2 has the number 0 and no controllers.
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = root(host)?;
    Some(format!(
        "{}{}",
        root.trim_end_matches('/'),
        path.trim_end_matches('/')
    ))
}

/// The controllers of `dir` that are wanted and not there.
fn missing(host: &Host, dir: &str) -> Vec<&'static str> {
    let there = host
        .word(&format!("{dir}/cgroup.controllers"))
        .unwrap_or_default();
    WANTED
        .into_iter()
        .filter(|name| !there.split_whitespace().any(|word| word == *name))
        .collect()
}

fn version(host: &Host) -> Finding {
    let cause = "VMs are held to their share by limits of processes alone, which do not bound all of a VMM's memory.";
    let remedy = "Boot the host with systemd.unified_cgroup_hierarchy=1, and no cgroup_disable=.";
    let Some(root) = root(host) else {
        return Finding::warning("cgroup v2 is not mounted", cause).remedy(remedy);
    };
    let missing = missing(host, &root);
    if missing.is_empty() {
        return Finding::ok(format!("v2 at {root}: {}", WANTED.join(", ")));
    }
    Finding::warning(format!("v2 at {root} has no {}", missing.join(", ")), cause).remedy(remedy)
}

fn delegation(host: &Host) -> Finding {
    let Some(own) = own(host) else {
        return Finding::skipped("the daemon is in no group of cgroup v2");
    };
    let shown = if own.is_empty() { "/" } else { own.as_str() };
    let switch = host.path(&format!("{own}/cgroup.subtree_control"));
    let cause = "VMs get no groups of their own, so that one may take what is another's.";
    let remedy =
        "Let the unit delegate: Delegate=yes. For a user's daemon, delegate to user@.service.";
    let command = "systemctl edit bangerd   # [Service] Delegate=yes";
    if let Err(errno) = access(&switch, Access::WRITE_OK) {
        let error = std::io::Error::from(errno);
        return Finding::warning(format!("{shown} may not be divided: {error}"), cause)
            .remedy(remedy)
            .command(command);
    }
    let missing = missing(host, &own);
    if missing.is_empty() {
        return Finding::ok(shown);
    }
    Finding::warning(format!("{shown} has no {}", missing.join(", ")), cause)
        .remedy(remedy)
        .command(command)
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::super::host::laid_out;
    use super::*;

    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    const ALL: &str = "cpuset cpu io memory hugetlb pids rdma\n";

    #[test]
    fn the_version_and_what_it_controls_are_told() {
        let (dir, host) = laid_out::host(&[("/proc/self/mountinfo", UNIFIED)]);
        assert!(
            version(&host)
                .found
                .ends_with("has no cpu, io, memory, pids")
        );
        laid_out::write(dir.path(), "/sys/fs/cgroup/cgroup.controllers", ALL);
        assert_eq!(version(&host).verdict, Verdict::Ok);
        let legacy = "30 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let (_dir, host) = laid_out::host(&[("/proc/self/mountinfo", legacy)]);
        assert_eq!(version(&host).found, "cgroup v2 is not mounted");
    }

    #[test]
    fn a_group_that_may_be_divided_needs_its_controllers_too() {
        let (dir, host) = laid_out::host(&[
            ("/proc/self/mountinfo", UNIFIED),
            (
                "/proc/self/cgroup",
                "1:cpu:/x\n0::/system.slice/bangerd.service\n",
            ),
        ]);
        let own = "/sys/fs/cgroup/system.slice/bangerd.service";
        assert_eq!(super::own(&host).unwrap(), own);
        assert!(delegation(&host).found.contains("may not be divided"));
        laid_out::write(dir.path(), &format!("{own}/cgroup.subtree_control"), "");
        laid_out::write(
            dir.path(),
            &format!("{own}/cgroup.controllers"),
            "memory pids\n",
        );
        assert!(delegation(&host).found.ends_with("has no cpu, io"));
        laid_out::write(dir.path(), &format!("{own}/cgroup.controllers"), ALL);
        assert_eq!(delegation(&host), Finding::ok(own));
        let (_dir, host) = laid_out::host(&[]);
        assert_eq!(delegation(&host).verdict, Verdict::Skipped);
    }
}
