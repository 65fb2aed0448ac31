//! Many VMs made at once.

use std::time::Duration;

use banger_e2e::leftovers;
use banger_e2e::vmm::find as find_vmm;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Verdict};
use serde_json::Value;

use crate::suite::Suite;

/// How many.
const VMS: usize = 16;
/// What each has of memory, and more than what its VMM takes beside it.
const MEMORY_MIB: u64 = 128;
const VMM_MIB: u64 = 96;
/// How long all of them may take on a busy machine.
const ALL: Duration = Duration::from_secs(400);

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![Case {
        name: "sixteen_vms_made_at_once_come_up_side_by_side_and_leave_nothing",
        lane: Lane::Own,
        test: crowd,
    }]
}

/// MiB that programs may have now.
fn available_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.unwrap().trim().split(' ').next().unwrap().to_owned();
    kib.parse::<u64>().unwrap() / 1024
}

fn crowd(suite: &Suite) -> Verdict {
    let needs = VMS as u64 * (MEMORY_MIB + VMM_MIB);
    if available_mib() < 2 * needs {
        return Verdict::Skipped(format!("less than {} MiB of memory are free", 2 * needs));
    }
    let config = format!(
        "max_parallel_boots = {VMS}\nvcpu_overcommit = 64\nboot_timeout = \"{}s\"",
        ALL.as_secs()
    );
    let options = DaemonOptions {
        config,
        ..DaemonOptions::default()
    };
    let daemon = suite.own_daemon("own/crowd", options);
    let names: Vec<String> = (1..=VMS).map(|number| format!("one-of-{number}")).collect();
    // The initramfs and the page cache are there when all begin.
    create(suite, &daemon, "first");
    remove(&daemon, "first");
    std::thread::scope(|scope| {
        for name in &names {
            let daemon = &daemon;
            scope.spawn(move || create(suite, daemon, name));
        }
    });
    let vms: Vec<Value> = names.iter().map(|name| inspect(&daemon, name)).collect();
    for vm in &vms {
        assert_eq!(vm["state"], "running", "{vm:#}");
    }
    // None waits for another to be through with a step: what takes most of the time, all do side by side.
    for step in ["launch", "boot"] {
        let together = most_at_once(&vms, step);
        println!("crowd: {together} of {VMS} at once in `{step}`");
    }
    let together = most_at_once(&vms, "boot");
    assert!(
        together > VMS / 2,
        "only {together} of {VMS} booted at once"
    );
    std::thread::scope(|scope| {
        for name in &names {
            let daemon = &daemon;
            scope.spawn(move || remove(daemon, name));
        }
    });
    let ids = vms.iter().map(|vm| vm["id"].as_str().unwrap());
    let vmms: Vec<_> = ids.filter_map(find_vmm).collect();
    assert!(vmms.is_empty(), "{vmms:?}");
    assert_eq!(daemon.entries("vms"), Vec::<String>::new());
    let mut left = leftovers::sockets(&daemon.state.join("vms"));
    left.extend(leftovers::cgroups::of(&daemon.state));
    assert!(left.is_empty(), "{left:#?}");
    daemon.clear();
    Verdict::Passed
}

fn create(suite: &Suite, daemon: &Daemon, name: &str) {
    let reference = suite.reference();
    let words = ["vm", "create", &reference, "--name", name];
    let memory = format!("{MEMORY_MIB}M");
    let small = ["--memory", &memory, "--network", "none"];
    daemon.banger(words).args(small).timeout(ALL).ok();
}

fn remove(daemon: &Daemon, name: &str) {
    daemon.banger(["vm", "remove", name]).timeout(ALL).ok();
}

fn inspect(daemon: &Daemon, vm: &str) -> Value {
    let words = ["vm", "inspect", vm, "--output", "json"];
    daemon.banger(words).ok().json()
}

/// How many of the VMs were in a step of their boot at the same instant, at most.
fn most_at_once(vms: &[Value], step: &str) -> usize {
    let times = |vm: &Value| -> (String, String) {
        let stages = vm["boot_timing"].as_array().unwrap();
        let stage = stages.iter().find(|stage| stage["name"] == step).unwrap();
        let time = |key: &str| stage[key].as_str().unwrap().to_owned();
        (time("start_time"), time("end_time"))
    };
    let steps: Vec<_> = vms.iter().map(times).collect();
    // Times are written so that their order is that of their text. At most at once is when one begins.
    let at_once = |(instant, _): &(String, String)| {
        let during = |(start, end): &&(String, String)| start <= instant && instant < end;
        steps.iter().filter(during).count()
    };
    steps.iter().map(at_once).max().unwrap()
}
