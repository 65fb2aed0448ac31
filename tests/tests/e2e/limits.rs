//! Limits: what is refused and what waits, and what holds a real VMM to its part.

use std::fs;
use std::path::PathBuf;

use banger_e2e::command::until;
use banger_e2e::leftovers::cgroups;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Verdict};
use serde_json::Value;

use crate::suite::{LONG, Suite, refused};
use crate::vm::vmm;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "what_is_promised_is_shown_and_more_is_refused_with_the_numbers",
            lane: Lane::Own,
            test: promises,
        },
        Case {
            name: "a_vmm_has_limits_of_its_process",
            lane: Lane::Shared,
            test: process_limits,
        },
        Case {
            name: "a_vmm_is_in_a_cgroup_of_its_own_which_goes_with_it",
            lane: Lane::Shared,
            test: cgroup,
        },
    ]
}

fn usage(daemon: &Daemon) -> Value {
    daemon
        .banger(["host", "usage", "--output", "json"])
        .ok()
        .json()
}

fn create<'a>(reference: &'a str, name: &'a str) -> [&'a str; 9] {
    [
        "vm", "create", reference, "--name", name, "--memory", "256M", "--disk", "64M",
    ]
}

fn promises(suite: &Suite) -> Verdict {
    let config = "max_vms = 2\nmax_parallel_boots = 1\nboot_queue_max = 1\nvcpu_overcommit = 64";
    let options = DaemonOptions {
        config: config.to_owned(),
        ..DaemonOptions::default()
    };
    let daemon = suite.own_daemon("own/limits", options);
    let reference = suite.reference();
    // One boots, one waits its turn behind it; both come up.
    let children: Vec<_> = ["one", "two"]
        .iter()
        .map(|name| daemon.banger(create(&reference, name)).spawn())
        .collect();
    until("one boots and one waits", LONG, || {
        let usage = usage(&daemon);
        usage["booting_count"] == 1 && usage["waiting_count"] == 1
    });
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let now = usage(&daemon);
    let promises = &now["promises"];
    assert_eq!(promises["vms"]["promised"], 2, "{now}");
    assert_eq!(promises["memory_mib"]["promised"], 512, "{now}");
    assert_eq!(promises["disk_mib"]["promised"], 128, "{now}");
    assert!(
        now["memory_used_bytes"].as_u64().unwrap() > 100 << 20,
        "{now}"
    );
    assert!(now["disk_used_bytes"].as_u64().unwrap() > 0, "{now}");
    let table = daemon.banger(["host", "usage"]).ok().out();
    assert!(
        table.contains("memory") && table.contains("uid:"),
        "{table}"
    );
    let error = refused(
        daemon.banger(create(&reference, "three")),
        125,
        "TOO_MANY_VMS",
    );
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("2 of 2"), "{message}");
    daemon.clear();
    Verdict::Passed
}

fn limit(pid: &str, name: &str) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

fn with_vm(suite: &Suite, name: &str, test: impl FnOnce(&str)) {
    suite.banger(create(&suite.reference(), name)).ok();
    test(&vmm(suite.daemon(), name).as_raw_nonzero().to_string());
    suite.banger(["vm", "remove", name]).ok();
}

fn process_limits(suite: &Suite) -> Verdict {
    with_vm(suite, "limited", |pid| {
        assert_eq!(limit(pid, "Max core file size"), "0");
        let files: u64 = limit(pid, "Max open files").parse().unwrap();
        assert!(files <= 16_384, "{files}");
        let has_cgroup = memory_ceiling(pid).is_some();
        let data = limit(pid, "Max data size");
        assert_eq!(data == "unlimited", has_cgroup, "{data}");
    });
    Verdict::Passed
}

/// Where a process's cgroup is.
fn cgroup_of(pid: &str) -> Option<PathBuf> {
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))?
        .to_owned();
    cgroups::mount().map(|mount| mount.join(path))
}

fn memory_ceiling(pid: &str) -> Option<u64> {
    let max = fs::read_to_string(cgroup_of(pid)?.join("memory.max")).ok()?;
    max.trim().parse().ok()
}

fn cgroup(suite: &Suite) -> Verdict {
    let Some(mount) = cgroups::mount() else {
        return Verdict::Skipped("this host has no cgroup v2".into());
    };
    if !rustix::process::geteuid().is_root() {
        return Verdict::Skipped("only root may make cgroups here".into());
    }
    let mut dir = None;
    let offered = fs::read_to_string(mount.join("cgroup.controllers")).unwrap();
    with_vm(suite, "grouped", |pid| {
        let own = cgroup_of(pid).unwrap();
        let id = suite
            .banger(["vm", "inspect", "grouped", "--output", "json"])
            .ok()
            .json();
        assert!(
            own.ends_with(id["id"].as_str().unwrap()),
            "{}",
            own.display()
        );
        if offered.contains("memory") {
            assert_eq!(memory_ceiling(pid), Some((256 + 512) << 20));
        }
        dir = Some(own);
    });
    let dir = dir.unwrap();
    until("the cgroup is gone", LONG, || !dir.exists());
    Verdict::Passed
}
