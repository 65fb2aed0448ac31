//! Commands in a running VM: streams, codes, input, environment.

use banger_e2e::layer::digest;
use banger_e2e::{Case, Lane, Verdict};

use crate::suite::{Suite, VM, refused};

/// Enough to fill every buffer on the way.
const BULK_BYTES: usize = 10 << 20;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "create_tells_each_stage_and_its_time",
            lane: Lane::Shared,
            test: stages,
        },
        Case {
            name: "an_accelerator_that_cannot_boot_guests_ends_in_a_warning",
            lane: Lane::Shared,
            test: accelerator,
        },
        Case {
            name: "exec_keeps_streams_apart_and_returns_the_code",
            lane: Lane::Shared,
            test: streams,
        },
        Case {
            name: "exec_tells_the_signal_that_ended_a_command",
            lane: Lane::Shared,
            test: signal,
        },
        Case {
            name: "exec_gives_input_environment_directory_and_user",
            lane: Lane::Shared,
            test: surroundings,
        },
        Case {
            name: "ten_megabytes_of_any_bytes_come_out_unchanged",
            lane: Lane::Shared,
            test: bulk_out,
        },
        Case {
            name: "ten_megabytes_of_any_bytes_go_in_unchanged",
            lane: Lane::Shared,
            test: bulk_in,
        },
        Case {
            name: "a_missing_program_is_127_and_says_so",
            lane: Lane::Shared,
            test: missing,
        },
        Case {
            name: "a_command_that_runs_too_long_is_ended",
            lane: Lane::Shared,
            test: deadline,
        },
        Case {
            name: "a_user_or_directory_that_is_not_there_is_refused",
            lane: Lane::Shared,
            test: wrong_surroundings,
        },
        Case {
            name: "orphans_of_a_command_are_reaped",
            lane: Lane::Shared,
            test: orphans,
        },
        Case {
            name: "planted_links_and_pipes_are_not_followed",
            lane: Lane::Shared,
            test: planted,
        },
    ]
}

fn stages(suite: &Suite) -> Verdict {
    let vm = suite.vm();
    assert_eq!(vm["state"], "running");
    let stages = vm["boot_timing"].as_array().unwrap();
    assert!(stages.len() >= 2, "{vm:#}");
    assert!(
        stages.iter().all(|stage| stage["took_ms"].is_number()),
        "{stages:?}"
    );
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
    let names: Vec<&str> = create["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| stage["name"].as_str().unwrap())
        .collect();
    for stage in ["queued", "disks", "launch"] {
        assert!(names.contains(&stage), "{stage} in {names:?}");
    }
    Verdict::Passed
}

fn accelerator(suite: &Suite) -> Verdict {
    suite.vm();
    let info = suite
        .banger(["host", "info", "--output", "json"])
        .ok()
        .json();
    match info["accelerator"].as_str().unwrap() {
        "kvm" => assert_eq!(info["accelerator_warning"], ""),
        "tcg" => assert!(
            !info["accelerator_warning"].as_str().unwrap().is_empty(),
            "{info:#}"
        ),
        other => panic!("{other}"),
    }
    Verdict::Passed
}

fn streams(suite: &Suite) -> Verdict {
    let done = suite.sh("echo out; echo err >&2; exit 7").done();
    assert_eq!(
        (done.code(), done.out(), done.err()),
        (7, "out".into(), "err".into())
    );
    let done = suite.sh("true").done();
    assert_eq!(
        (done.code(), done.out(), done.err()),
        (0, String::new(), String::new())
    );
    Verdict::Passed
}

fn signal(suite: &Suite) -> Verdict {
    assert_eq!(suite.sh("kill -TERM $$").done().code(), 128 + 15);
    assert_eq!(suite.sh("kill -KILL $$").done().code(), 128 + 9);
    Verdict::Passed
}

fn surroundings(suite: &Suite) -> Verdict {
    let done = suite
        .sh("cat; pwd; id -un; echo $FROM_IMAGE; hostname; echo $HOME")
        .stdin("piped\n")
        .ok();
    assert_eq!(done.out(), format!("piped\n/work\nroot\nyes\n{VM}\n/root"));
    let options = ["-e", "GREETING=hello world", "-w", "/data", "-u", "app"];
    let done = suite
        .exec(
            &options,
            "echo $GREETING; pwd; id -u; id -g; id -G; echo $HOME",
        )
        .ok();
    assert_eq!(
        done.out(),
        "hello world\n/data\n1000\n1000\n1000 2000\n/home/app"
    );
    Verdict::Passed
}

fn bulk_out(suite: &Suite) -> Verdict {
    let script = format!(
        "head -c {BULK_BYTES} /dev/urandom > /tmp/bulk; sha256sum < /tmp/bulk >&2; cat /tmp/bulk; rm /tmp/bulk"
    );
    let done = suite.sh(&script).ok();
    assert_eq!(done.stdout.len(), BULK_BYTES);
    let hex = digest(&done.stdout).replace("sha256:", "");
    assert_eq!(done.err().split(' ').next(), Some(hex.as_str()));
    Verdict::Passed
}

fn bulk_in(suite: &Suite) -> Verdict {
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    let bytes: Vec<u8> = std::iter::repeat_with(&mut byte).take(BULK_BYTES).collect();
    let done = suite.sh("sha256sum").stdin(bytes.clone()).ok();
    let hex = digest(&bytes).replace("sha256:", "");
    assert_eq!(done.out().split(' ').next(), Some(hex.as_str()));
    Verdict::Passed
}

fn missing(suite: &Suite) -> Verdict {
    suite.vm();
    let run = suite.banger([
        "vm",
        "exec",
        VM,
        "--output",
        "json",
        "--",
        "no-such-program",
    ]);
    let error = run.done().refused(127);
    assert_eq!(error["reason"], "PROGRAM_NOT_FOUND");
    assert_eq!(error["code_ran"], "no");
    assert!(
        !error["remedy"].as_str().unwrap_or_default().is_empty(),
        "{error}"
    );
    let run = suite.banger(["vm", "exec", VM, "--output", "json", "--", "/etc/passwd"]);
    assert_eq!(run.done().refused(126)["reason"], "PROGRAM_NOT_EXECUTABLE");
    Verdict::Passed
}

fn deadline(suite: &Suite) -> Verdict {
    let done = suite
        .exec(&["--timeout", "2s"], "echo begun; sleep 100")
        .done();
    assert_eq!(
        (done.code(), done.out()),
        (124, "begun".into()),
        "{}",
        done.said()
    );
    assert!(done.took.as_secs() < 30, "{:?}", done.took);
    Verdict::Passed
}

fn wrong_surroundings(suite: &Suite) -> Verdict {
    suite.vm();
    let words = |option: &str, value: &str| {
        suite.banger([
            "vm", "exec", VM, option, value, "--output", "json", "--", "true",
        ])
    };
    let error = words("--user", "nobody-here").done().refused(125);
    assert_eq!(error["reason"], "USER_NOT_FOUND", "{error}");
    let error = words("--workdir", "/not/there").done().refused(125);
    assert_eq!(error["reason"], "WORKING_DIRECTORY_UNUSABLE", "{error}");
    refused(
        suite.banger(["vm", "exec", "no-such-vm"]).args(["-n"]),
        125,
        "VM_NOT_FOUND",
    );
    Verdict::Passed
}

fn orphans(suite: &Suite) -> Verdict {
    let done = suite.sh("(sleep 0.2 & sleep 0.1 &) ; echo over").ok();
    assert_eq!(done.out(), "over");
    let zombies = suite
        .sh("sleep 0.5; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l")
        .ok()
        .out();
    assert_eq!(zombies, "0");
    Verdict::Passed
}

fn planted(suite: &Suite) -> Verdict {
    let set = suite.sh("cd /proc/sys/fs; cat protected_hardlinks protected_symlinks protected_fifos protected_regular");
    assert_eq!(set.ok().out(), "1\n1\n1\n2");
    Verdict::Passed
}
