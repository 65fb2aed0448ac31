//! `banger run`: one command in a VM of its own, and nothing of it left.

use std::time::Duration;

use banger_e2e::command::{ended, until};
use banger_e2e::{Case, Lane, Verdict};
use rustix::process::{Pid, Signal, kill_process};

use crate::suite::{LONG, Suite};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "run_streams_both_outputs_takes_input_and_returns_the_code",
            lane: Lane::Shared,
            test: one_shot,
        },
        Case {
            name: "run_without_a_command_runs_the_images_own",
            lane: Lane::Shared,
            test: images_own,
        },
        Case {
            name: "ctrl_c_of_run_interrupts_the_command_and_leaves_nothing",
            lane: Lane::Shared,
            test: interrupt,
        },
        Case {
            name: "ctrl_c_while_the_vm_is_made_leaves_nothing",
            lane: Lane::Shared,
            test: cancel,
        },
        Case {
            name: "a_missing_program_in_run_is_127_and_leaves_nothing",
            lane: Lane::Shared,
            test: missing,
        },
    ]
}

fn one_shot(suite: &Suite) -> Verdict {
    let words = [
        "run",
        &suite.reference(),
        "-e",
        "A=b",
        "--",
        "sh",
        "-c",
        "cat; echo $A; echo err >&2; exit 7",
    ];
    let done = suite.banger(words).stdin("from here\n").done();
    assert_eq!(
        (done.code(), done.out()),
        (7, "from here\nb".into()),
        "{}",
        done.said()
    );
    assert!(
        done.err().lines().any(|line| line == "err"),
        "{}",
        done.said()
    );
    Verdict::Passed
}

fn images_own(suite: &Suite) -> Verdict {
    let done = suite
        .banger([
            "run",
            "--memory",
            "256M",
            "--network",
            "none",
            &suite.reference(),
        ])
        .done();
    assert_eq!(
        (done.code(), done.out()),
        (0, "the image speaks".into()),
        "{}",
        done.said()
    );
    Verdict::Passed
}

/// Runs `banger run`, interrupts it once a VM is in this state, and returns its exit code.
fn interrupted(suite: &Suite, name: &str, state: &str, settle: Duration) -> i32 {
    let words = [
        "run",
        "--name",
        name,
        &suite.reference(),
        "--",
        "sh",
        "-c",
        "sleep 1000",
    ];
    let mut child = suite.banger(words).spawn();
    until("the VM is there", LONG, || {
        let vm = suite
            .banger(["vm", "inspect", name, "--output", "json"])
            .done();
        vm.status.success() && (state.is_empty() || vm.json()["state"] == state)
    });
    std::thread::sleep(settle);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = ended(&mut child, LONG).expect("run ends when it is interrupted");
    status.code().unwrap_or(-1)
}

fn interrupt(suite: &Suite) -> Verdict {
    // The command runs a moment after the VM does; an interrupt in between cancels, with the same code.
    assert_eq!(
        interrupted(suite, "interrupted", "running", Duration::from_secs(2)),
        130
    );
    Verdict::Passed
}

fn cancel(suite: &Suite) -> Verdict {
    assert_eq!(interrupted(suite, "cancelled", "", Duration::ZERO), 130);
    Verdict::Passed
}

fn missing(suite: &Suite) -> Verdict {
    let words = [
        "run",
        "--output",
        "json",
        &suite.reference(),
        "--",
        "no-such-program",
    ];
    let error = suite.banger(words).done().refused(127);
    assert_eq!(error["reason"], "PROGRAM_NOT_FOUND");
    Verdict::Passed
}
