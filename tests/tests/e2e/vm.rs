//! The life of a VM: stopped, started again with its data, ended from inside and from outside, many at once.

use banger_e2e::command::until;
use banger_e2e::{Case, Daemon, Done, Lane, Run, Verdict};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::suite::{LONG, Suite, refused};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_stopped_vm_keeps_its_data_and_starts_again",
            lane: Lane::Shared,
            test: stop_and_start,
        },
        Case {
            name: "a_guest_that_ends_itself_tells_how",
            lane: Lane::Shared,
            test: from_inside,
        },
        Case {
            name: "an_ephemeral_vm_deletes_itself_when_it_stops",
            lane: Lane::Shared,
            test: ephemeral,
        },
        Case {
            name: "a_vm_whose_vmm_is_killed_fails_and_can_be_deleted",
            lane: Lane::Shared,
            test: vmm_killed,
        },
        Case {
            name: "four_vms_are_made_at_once",
            lane: Lane::Shared,
            test: four,
        },
        Case {
            name: "a_client_that_dies_loses_no_creation",
            lane: Lane::Shared,
            test: client_killed,
        },
        Case {
            name: "a_user_network_gives_the_guest_an_address",
            lane: Lane::Shared,
            test: network,
        },
    ]
}

fn inspect(suite: &Suite, vm: &str) -> Value {
    suite
        .banger(["vm", "inspect", vm, "--output", "json"])
        .ok()
        .json()
}

fn create(suite: &Suite, name: &str, options: &[&str]) {
    let reference = suite.reference();
    let words = [
        "vm", "create", &reference, "--name", name, "--memory", "256M",
    ];
    suite
        .banger(words.into_iter().chain(options.iter().copied()))
        .ok();
}

fn sh(suite: &Suite, vm: &str, script: &str) -> Done {
    suite
        .banger(["vm", "exec", vm, "--", "sh", "-c", script])
        .done()
}

fn until_state(suite: &Suite, vm: &str, state: &str) {
    until(&format!("{vm} is {state}"), LONG, || {
        inspect(suite, vm)["state"] == state
    });
}

/// The VMM of a VM.
pub(crate) fn vmm(daemon: &Daemon, vm: &str) -> Pid {
    let words = ["vm", "inspect", vm, "--output", "json"];
    let id = daemon.banger(words).ok().json()["id"].clone();
    banger_e2e::vmm::find(id.as_str().unwrap()).expect("the VM has a VMM")
}

fn stop_and_start(suite: &Suite) -> Verdict {
    create(suite, "keeper", &[]);
    assert_eq!(
        sh(suite, "keeper", "echo kept > /root/file; cat /root/file").out(),
        "kept"
    );
    suite.banger(["vm", "stop", "keeper"]).ok();
    let vm = inspect(suite, "keeper");
    assert_eq!(
        (&vm["state"], &vm["last_stop"]["rung"]),
        (&"stopped".into(), &"agent".into()),
        "{vm:#}"
    );
    suite.banger(["vm", "stop", "keeper"]).ok(); // already so
    let exec = suite.banger(["vm", "exec", "keeper", "--output", "json", "--", "true"]);
    let error = exec.done().refused(125);
    assert_eq!(
        (&error["reason"], &error["code_ran"]),
        (&"WRONG_STATE".into(), &"no".into()),
        "{error}"
    );
    assert!(
        error["remedy"].as_str().unwrap().contains("start"),
        "{error}"
    );
    let disk = suite
        .daemon()
        .state
        .join("vms")
        .join(vm["id"].as_str().unwrap())
        .join("upper.ext4");
    let check = Run::new("/usr/sbin/e2fsck").arg("-fn").arg(disk).done();
    assert!(
        check.status.success(),
        "a stopped VM's disk is clean: {}",
        check.said()
    );
    suite.banger(["vm", "start", "keeper"]).ok();
    assert_eq!(sh(suite, "keeper", "cat /root/file").out(), "kept");
    suite.banger(["vm", "kill", "keeper"]).ok();
    let vm = inspect(suite, "keeper");
    assert_eq!(
        (&vm["state"], &vm["last_stop"]["rung"]),
        (&"stopped".into(), &"kill".into()),
        "{vm:#}"
    );
    suite.banger(["vm", "start", "keeper"]).ok();
    assert_eq!(sh(suite, "keeper", "cat /root/file").out(), "kept");
    suite.banger(["vm", "remove", "keeper"]).ok();
    refused(
        suite.banger(["vm", "inspect", "keeper"]),
        125,
        "VM_NOT_FOUND",
    );
    Verdict::Passed
}

fn from_inside(suite: &Suite) -> Verdict {
    create(suite, "inside", &[]);
    sh(suite, "inside", "poweroff -f");
    until_state(suite, "inside", "stopped");
    suite.banger(["vm", "start", "inside"]).ok();
    sh(suite, "inside", "reboot -f");
    until_state(suite, "inside", "failed");
    let vm = inspect(suite, "inside");
    assert!(
        !vm["failure"]["reason"]
            .as_str()
            .unwrap_or_default()
            .is_empty(),
        "{vm:#}"
    );
    assert!(
        !vm["failure"]["message"]
            .as_str()
            .unwrap_or_default()
            .is_empty(),
        "{vm:#}"
    );
    suite.banger(["vm", "start", "inside"]).ok();
    assert_eq!(sh(suite, "inside", "echo back").out(), "back");
    suite.banger(["vm", "remove", "inside"]).ok();
    Verdict::Passed
}

fn ephemeral(suite: &Suite) -> Verdict {
    create(suite, "brief", &["--ephemeral"]);
    sh(suite, "brief", "poweroff -f");
    until("the VM deletes itself", LONG, || {
        !suite.daemon().vms().contains(&"brief".to_owned())
    });
    Verdict::Passed
}

fn vmm_killed(suite: &Suite) -> Verdict {
    create(suite, "killed", &[]);
    kill_process(vmm(suite.daemon(), "killed"), Signal::KILL).unwrap();
    until_state(suite, "killed", "failed");
    let vm = inspect(suite, "killed");
    assert!(
        !vm["failure"]["reason"]
            .as_str()
            .unwrap_or_default()
            .is_empty(),
        "{vm:#}"
    );
    let error = suite
        .banger(["vm", "exec", "killed", "--output", "json", "--", "true"])
        .done()
        .refused(125);
    assert_eq!(error["reason"], "WRONG_STATE", "{error}");
    suite.banger(["vm", "remove", "killed"]).ok();
    Verdict::Passed
}

fn four(suite: &Suite) -> Verdict {
    let reference = suite.reference();
    let names = ["four-1", "four-2", "four-3", "four-4"];
    std::thread::scope(|scope| {
        for name in names {
            let words = [
                "run", "--memory", "256M", "--name", name, &reference, "--", "hostname",
            ];
            let run = suite.banger(words);
            scope.spawn(move || assert_eq!(run.ok().out(), name));
        }
    });
    Verdict::Passed
}

fn client_killed(suite: &Suite) -> Verdict {
    let reference = suite.reference();
    let mut child = suite
        .banger([
            "vm", "create", &reference, "--name", "orphan", "--memory", "256M",
        ])
        .spawn();
    until("the creation is known", LONG, || {
        suite.daemon().vms().contains(&"orphan".to_owned())
    });
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    until_state(suite, "orphan", "running");
    let operations = suite
        .banger(["operation", "list", "--output", "json"])
        .ok()
        .json();
    let create = operations
        .as_array()
        .unwrap()
        .iter()
        .find(|operation| operation["kind"] == "create-vm")
        .unwrap();
    assert_eq!(create["state"], "succeeded", "{create}");
    assert_eq!(sh(suite, "orphan", "hostname").out(), "orphan");
    suite.banger(["vm", "remove", "orphan"]).ok();
    Verdict::Passed
}

fn network(suite: &Suite) -> Verdict {
    let small = ["--memory", "256M", "--network", "user"];
    let create = ["vm", "create", &suite.reference(), "--name", "net"];
    suite.banger([&create[..], &small].concat()).ok();
    let out = sh(suite, "net", "ip -4 addr show eth0 | grep -o 'inet [0-9.]*'; ip route | grep -c default; cat /etc/resolv.conf").out();
    assert!(out.contains("inet 10.0.2."), "{out}");
    assert!(out.contains("nameserver"), "{out}");
    // A lease is a packet out and a packet in; busybox's other clients crash without a resolver's libraries.
    let done = sh(suite, "net", "udhcpc -i eth0 -n -q -s /bin/true 2>&1");
    assert!(done.out().contains("obtained"), "{}", done.said());
    suite.banger(["vm", "remove", "net"]).ok();
    Verdict::Passed
}
