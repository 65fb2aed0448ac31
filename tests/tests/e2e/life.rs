//! A VM between its making and its end: held and let go, changed, restarted, started again by its policy.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use banger_e2e::command::until;
use banger_e2e::{Case, Lane, Verdict};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::suite::{LONG, Suite, refused};
use crate::vm::vmm;

const NAME: &str = "living";

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![Case {
        name: "a_vm_is_held_changed_restarted_and_comes_back_from_a_crash",
        lane: Lane::Shared,
        test: life,
    }]
}

fn inspect(suite: &Suite) -> Value {
    let words = ["vm", "inspect", NAME, "--output", "json"];
    suite.banger(words).ok().json()
}

fn guest(suite: &Suite, script: &str) -> String {
    let words = ["vm", "exec", NAME, "--", "sh", "-c", script];
    suite.banger(words).ok().out()
}

fn life(suite: &Suite) -> Verdict {
    let reference = suite.reference();
    let words = ["vm", "create", &reference, "--name", NAME];
    let options = ["--memory", "256M", "--restart", "on-failure", "--ttl", "1h"];
    suite.banger(words.iter().chain(&options)).ok();
    held(suite);
    changed(suite);
    crashed(suite);
    suite.banger(["vm", "remove", NAME]).ok();
    Verdict::Passed
}

/// The session's log, as far as it goes.
fn log(suite: &Suite, session: &str) -> String {
    suite.banger(["session", "log", session]).ok().out()
}

fn held(suite: &Suite) {
    let count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done";
    let session = suite
        .banger(["session", "start", "--quiet", NAME, "--", "sh", "-c", count])
        .ok()
        .out();
    until("it counts", LONG, || {
        log(suite, &session).lines().count() > 3
    });
    suite.banger(["vm", "pause", NAME]).ok();
    assert_eq!(inspect(suite)["state"], "paused");
    refused(suite.banger(["session", "list", NAME]), 125, "WRONG_STATE");
    std::thread::sleep(Duration::from_secs(3));
    suite.banger(["vm", "resume", NAME]).ok();
    let before = log(suite, &session).lines().count();
    until("it counts on", LONG, || {
        log(suite, &session).lines().count() > before + 3
    });
    let text = log(suite, &session);
    let numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    let expected: Vec<usize> = (1..=numbers.len()).collect();
    assert_eq!(numbers, expected, "no number is lost or told twice");
    let guests: u64 = guest(suite, "date +%s").parse().unwrap();
    let hosts = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(
        hosts.abs_diff(guests) <= 1,
        "the clock is {guests}, and should be {hosts}"
    );
    suite.banger(["session", "remove", &session]).ok();
}

fn changed(suite: &Suite) {
    let change = ["--cpus", "2", "--memory", "320M", "--label", "team=web"];
    suite
        .banger(["vm", "update", NAME].iter().chain(&change))
        .ok();
    let vm = inspect(suite);
    assert_eq!(vm["labels"]["team"], "web");
    let pending = vm["pending_fields"].as_array().unwrap();
    assert_eq!(pending, &["vcpu_count", "memory_mib"]);
    assert_eq!(guest(suite, "nproc"), "1");
    suite.banger(["vm", "restart", NAME]).ok();
    assert_eq!(guest(suite, "nproc"), "2");
    let vm = inspect(suite);
    assert_eq!(vm["pending_fields"].as_array().unwrap().len(), 0);
    assert_eq!(vm["last_stop"]["rung"], "agent");
    refused(
        suite.banger(["vm", "update", NAME, "--disk", "64M"]),
        125,
        "INVALID_FIELD",
    );
}

fn crashed(suite: &Suite) {
    let before = vmm(suite.daemon(), NAME);
    kill_process(before, Signal::KILL).unwrap();
    until("it is started again", LONG, || {
        let vm = inspect(suite);
        vm["state"] == "running" && vm["restart_count"] == 1
    });
    assert_ne!(vmm(suite.daemon(), NAME), before);
    assert_eq!(guest(suite, "echo alive"), "alive");
}
