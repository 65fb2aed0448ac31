//! Firecracker: whether this run's VMs are its, and a VM's life under it, whatever the suite runs on.
//!
//! Both need the program (`BANGER_TEST_FIRECRACKER`) and a KVM that runs the suite's kernel, and are skipped without.

use banger_e2e::command::until;
use banger_e2e::{Case, DaemonOptions, Lane, Verdict, vmm};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::suite::{LONG, Suite};

/// What names the program.
const VARIABLE: &str = "BANGER_TEST_FIRECRACKER";
/// The VM's name.
const NAME: &str = "cracker";

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "the_suite_runs_on_firecracker_where_it_is_named",
            lane: Lane::Shared,
            test: suites,
        },
        Case {
            name: "a_vm_lives_and_ends_under_firecracker_as_under_qemu",
            lane: Lane::Own,
            test: life,
        },
    ]
}

/// Why nothing can be said of Firecracker here.
fn missing(suite: &Suite) -> Option<String> {
    if std::env::var_os(VARIABLE).is_none() {
        return Some(format!("{VARIABLE} names no program"));
    }
    let accelerator = suite.accelerator();
    (accelerator != "kvm").then(|| {
        format!("Firecracker needs a KVM that runs guests; they run by {accelerator} here")
    })
}

fn suites(suite: &Suite) -> Verdict {
    if let Some(why) = missing(suite) {
        return Verdict::Skipped(why);
    }
    let words = ["host", "info", "--output", "json"];
    let info = suite.banger(words).ok().json();
    assert_eq!(info["driver"], "firecracker", "{info}");
    Verdict::Passed
}

fn life(suite: &Suite) -> Verdict {
    if let Some(why) = missing(suite) {
        return Verdict::Skipped(why);
    }
    let options = DaemonOptions {
        config: "driver = \"firecracker\"".to_owned(),
        ..DaemonOptions::default()
    };
    let daemon = suite.own_daemon("own/firecracker", options);
    let reference = suite.reference();
    let run = |words: &[&str]| daemon.banger(words).timeout(LONG).ok();
    let inspect = || -> Value { run(&["vm", "inspect", NAME, "--output", "json"]).json() };
    let says = |script: &str| run(&["vm", "exec", NAME, "--", "sh", "-c", script]).out();
    let create = ["vm", "create", &reference, "--name", NAME];
    let small = ["--memory", "192M", "--network", "none"];
    run(&[&create[..], &small[..]].concat());
    let id = inspect()["id"].as_str().unwrap().to_owned();
    assert_eq!(says("echo kept > /root/file; cat /root/file"), "kept");
    let before = vmm::find(&id).expect("it has a VMM");
    daemon.kill();
    daemon.start_again();
    assert_eq!(vmm::find(&id), Some(before), "it is taken over");
    assert_eq!(says("cat /root/file"), "kept");
    run(&["vm", "pause", NAME]);
    run(&["vm", "resume", NAME]);
    run(&["vm", "stop", NAME]);
    assert_eq!(inspect()["last_stop"]["rung"], "agent");
    run(&["vm", "start", NAME]);
    assert_eq!(says("cat /root/file"), "kept");
    let living = vmm::find(&id).expect("it has a VMM");
    kill_process(living, Signal::KILL).unwrap();
    until("its end is seen", LONG, || inspect()["state"] == "failed");
    run(&["vm", "remove", NAME]);
    assert_eq!((vmm::find(&id), daemon.entries("vms").len()), (None, 0));
    daemon.clear();
    Verdict::Passed
}
