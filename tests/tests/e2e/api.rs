//! The API from outside: the SDK's example, completion, JSON.

use std::path::PathBuf;

use banger_e2e::{Case, Lane, Run, Verdict};

use crate::suite::{LONG, Suite, VM};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "the_sdks_example_runs_a_command_in_a_vm_of_its_own",
            lane: Lane::Shared,
            test: example,
        },
        Case {
            name: "the_sdks_streams_carry_files_trees_and_processes",
            lane: Lane::Shared,
            test: streams,
        },
        Case {
            name: "completion_scripts_are_valid",
            lane: Lane::Shared,
            test: completion,
        },
        Case {
            name: "every_reader_prints_json",
            lane: Lane::Shared,
            test: json,
        },
    ]
}

/// An example of the SDK, which `cargo test --workspace` builds.
fn built(name: &str) -> Result<PathBuf, Verdict> {
    let program = std::env::current_exe()
        .unwrap()
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples")
        .join(name);
    if program.is_file() {
        return Ok(program);
    }
    let why = "the example is built by `cargo test --workspace` only";
    Err(Verdict::Skipped(why.into()))
}

fn streams(suite: &Suite) -> Verdict {
    let program = match built("streams") {
        Ok(program) => program,
        Err(skipped) => return skipped,
    };
    suite.vm();
    let run = Run::new(program)
        .env("BANGER_HOST", suite.daemon().host())
        .arg(VM)
        .timeout(LONG);
    assert_eq!(
        run.ok().out(),
        "file: \"one\\ntwo\\n\"\nprocess: Some(Code(0))\noutput: \"two\\none\\n\"\ntree: 2 entries"
    );
    Verdict::Passed
}

fn example(suite: &Suite) -> Verdict {
    let program = match built("run") {
        Ok(program) => program,
        Err(skipped) => return skipped,
    };
    let reference = suite.reference();
    let run = Run::new(program)
        .env("BANGER_HOST", suite.daemon().host())
        .timeout(LONG);
    let done = run
        .args([&reference, "sh", "-c", "echo hello from the sdk; exit 6"])
        .done();
    assert_eq!(
        (done.code(), done.out()),
        (6, "hello from the sdk".into()),
        "{}",
        done.said()
    );
    Verdict::Passed
}

fn completion(suite: &Suite) -> Verdict {
    let mut unchecked = Vec::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = suite.banger(["completion", shell]).ok().stdout;
        assert!(!script.is_empty());
        let is_there = std::process::Command::new(shell)
            .args(["-c", ":"])
            .output()
            .is_ok();
        if is_there {
            Run::new(shell)
                .arg("-n")
                .arg("/dev/stdin")
                .stdin(script)
                .ok();
        } else {
            unchecked.push(shell);
        }
    }
    if !unchecked.is_empty() {
        println!(
            "  not checked for want of the shell: {}",
            unchecked.join(", ")
        );
    }
    Verdict::Passed
}

fn json(suite: &Suite) -> Verdict {
    suite.vm();
    let reference = suite.reference();
    let readers: [&[&str]; 9] = [
        &["image", "list"],
        &["image", "inspect", &reference],
        &["kernel", "list"],
        &["vm", "list"],
        &["vm", "inspect", VM],
        &["session", "list", VM],
        &["operation", "list"],
        &["host", "info"],
        &["vm", "list", "--label", "no=such"],
    ];
    for words in readers {
        let value = suite
            .banger(words.iter().copied())
            .args(["--output", "json"])
            .ok()
            .json();
        assert!(value.is_array() || value.is_object(), "{words:?}: {value}");
        suite.banger(words.iter().copied()).ok();
    }
    Verdict::Passed
}
