//! Requests that must be refused, in words that help, without a trace.

use banger_e2e::{Case, DaemonOptions, Lane, Run, Verdict};

use crate::suite::{Suite, VM, refused};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "an_image_that_no_registry_has_is_told",
            lane: Lane::Shared,
            test: unknown_image,
        },
        Case {
            name: "a_name_that_is_taken_or_invalid_is_refused",
            lane: Lane::Shared,
            test: names,
        },
        Case {
            name: "memory_cpus_and_disk_out_of_range_are_refused",
            lane: Lane::Shared,
            test: sizes,
        },
        Case {
            name: "a_kernel_that_is_not_there_is_told",
            lane: Lane::Shared,
            test: unknown_kernel,
        },
        Case {
            name: "a_second_daemon_on_the_same_state_is_refused",
            lane: Lane::Shared,
            test: second_daemon,
        },
        Case {
            name: "no_daemon_is_told_with_how_to_start_one",
            lane: Lane::Shared,
            test: no_daemon,
        },
        Case {
            name: "an_image_without_a_kernel_does_not_become_a_vm",
            lane: Lane::Own,
            test: no_kernel,
        },
        Case {
            name: "a_configuration_tells_all_its_mistakes",
            lane: Lane::Own,
            test: configuration,
        },
    ]
}

fn unknown_image(suite: &Suite) -> Verdict {
    let missing = suite.registry().reference("nobody:1");
    let error = suite
        .banger(["image", "pull", &missing, "--output", "json"])
        .done()
        .refused(125);
    assert_eq!(error["code"], "NOT_FOUND", "{error}");
    assert!(
        !error["remedy"].as_str().unwrap_or_default().is_empty(),
        "{error}"
    );
    refused(
        suite.banger(["vm", "create", "--no-pull", "nobody:1"]),
        125,
        "IMAGE_NOT_FOUND",
    );
    let error = suite
        .banger(["run", "--output", "json", &missing, "--", "true"])
        .done()
        .refused(125);
    assert_eq!(error["code_ran"], "no", "{error}");
    refused(
        suite.banger(["image", "pull", "Not A Reference"]),
        125,
        "INVALID_FIELD",
    );
    refused(
        suite.banger(["image", "pull", "127.0.0.1:1/box:1"]),
        125,
        "REGISTRY_UNREACHABLE",
    );
    Verdict::Passed
}

fn names(suite: &Suite) -> Verdict {
    suite.vm();
    let reference = suite.reference();
    let create = |name: &str| suite.banger(["vm", "create", &reference, &format!("--name={name}")]);
    let error = refused(create(VM), 125, "NAME_TAKEN");
    assert_eq!(error["code"], "ALREADY_EXISTS");
    for name in [
        "Upper",
        "under_score",
        "-lead",
        "trail-",
        "a.b",
        "two words",
        &"x".repeat(64),
        "../etc",
    ] {
        let error = refused(create(name), 125, "INVALID_FIELD");
        assert_eq!(error["code"], "INVALID_ARGUMENT", "{name}");
    }
    Verdict::Passed
}

fn sizes(suite: &Suite) -> Verdict {
    let reference = suite.reference();
    let create =
        |option: &str, value: &str| suite.banger(["vm", "create", &reference, option, value]);
    for (option, value) in [
        ("--memory", "1M"),
        ("--memory", "100000G"),
        ("--cpus", "10000"),
        ("--disk", "1M"),
        ("--disk", "100000000G"),
    ] {
        let error = create(option, value)
            .args(["--output", "json"])
            .done()
            .refused(125);
        let code = error["code"].as_str().unwrap();
        assert!(
            ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"].contains(&code),
            "{option} {value}: {error}"
        );
        assert!(
            !error["remedy"].as_str().unwrap_or_default().is_empty(),
            "{error}"
        );
    }
    assert_eq!(create("--memory", "much").done().code(), 125);
    Verdict::Passed
}

fn unknown_kernel(suite: &Suite) -> Verdict {
    let words = ["vm", "create", &suite.reference(), "--kernel", "nobody"];
    let error = refused(suite.banger(words), 125, "KERNEL_NOT_FOUND");
    assert_eq!(error["code"], "NOT_FOUND");
    Verdict::Passed
}

fn second_daemon(suite: &Suite) -> Verdict {
    suite.vm();
    let done = suite.daemon().second();
    assert!(!done.status.success());
    let pid = suite.daemon().pid().as_raw_nonzero().to_string();
    assert!(
        done.said().contains("another bangerd") && done.said().contains(&pid),
        "{}",
        done.said()
    );
    assert_eq!(suite.sh("echo still here").ok().out(), "still here");
    Verdict::Passed
}

fn no_daemon(suite: &Suite) -> Verdict {
    let nowhere = suite.scratch.path().join("nowhere");
    let run = Run::new(&suite.binaries.banger)
        .env("BANGER_HOST", nowhere)
        .args(["vm", "list", "--output", "json"]);
    let error = run.done().refused(125);
    assert!(
        error["remedy"]
            .as_str()
            .is_some_and(|remedy| remedy.contains("bangerd")),
        "{error}"
    );
    let run = Run::new(&suite.binaries.banger)
        .env("BANGER_HOST", "tcp://10.0.0.1:1")
        .args(["vm", "list"]);
    assert_eq!(run.done().code(), 125);
    Verdict::Passed
}

fn no_kernel(suite: &Suite) -> Verdict {
    let daemon = banger_e2e::Daemon::start(
        &suite.scratch,
        &suite.binaries,
        "own/nokernel",
        DaemonOptions::default(),
    );
    suite.give_image(&daemon);
    let error = refused(
        daemon.banger(["vm", "create", &suite.reference()]),
        125,
        "NO_KERNEL",
    );
    assert!(
        error["remedy"]
            .as_str()
            .unwrap()
            .contains("banger kernel import"),
        "{error}"
    );
    assert_eq!(daemon.vms(), Vec::<String>::new());
    assert_eq!(daemon.entries("vms"), Vec::<String>::new());
    daemon.clear();
    Verdict::Passed
}

fn configuration(suite: &Suite) -> Verdict {
    let file = suite.scratch.dir("own").join("bad.toml");
    std::fs::write(&file, "max_vms = \"many\"\nnot_a_key = 1\n").unwrap();
    let done = suite
        .scratch
        .run(&suite.binaries.bangerd)
        .arg("--config")
        .arg(&file)
        .arg("--check-config")
        .done();
    assert_eq!(done.code(), 64, "{}", done.said());
    assert!(
        done.said().contains("max_vms") && done.said().contains("not_a_key"),
        "{}",
        done.said()
    );
    let example = banger_e2e::binaries::workspace().join("deploy/bangerd.toml");
    suite
        .scratch
        .run(&suite.binaries.bangerd)
        .arg("--config")
        .arg(example)
        .arg("--check-config")
        .ok();
    Verdict::Passed
}
