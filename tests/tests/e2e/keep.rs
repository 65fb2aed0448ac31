//! Images that are kept: named, counted, removed, pruned; pulls that are given up.

use std::time::Duration;

use banger_e2e::command::{ended, until};
use banger_e2e::layer::Layer;
use banger_e2e::liar::{Liar, Lie};
use banger_e2e::{Case, DaemonOptions, Lane, Verdict};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::suite::{LONG, Suite, VM, refused};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "an_image_is_tagged_and_loses_its_references_one_by_one",
            lane: Lane::Own,
            test: references,
        },
        Case {
            name: "usage_says_what_is_shared_and_what_removal_frees_and_pruning_frees_it",
            lane: Lane::Own,
            test: usage,
        },
        Case {
            name: "an_image_of_a_running_vm_is_neither_removed_nor_pruned",
            lane: Lane::Shared,
            test: in_use,
        },
        Case {
            name: "ctrl_c_cancels_a_pull_and_leaves_nothing",
            lane: Lane::Shared,
            test: interrupted,
        },
        Case {
            name: "a_pull_is_cancelled_from_elsewhere",
            lane: Lane::Shared,
            test: cancelled,
        },
    ]
}

fn references(suite: &Suite) -> Verdict {
    let daemon = suite.bare_daemon("own/tags", DaemonOptions::default());
    suite.give_image(&daemon);
    let reference = suite.reference();
    daemon.banger(["image", "tag", &reference, "kept:1"]).ok();
    let tar = suite.scratch.dir("own/tags-files").join("other.tar");
    std::fs::write(&tar, Layer::default().file("other", 0o644, b"other").tar()).unwrap();
    let import = ["image", "import", tar.to_str().unwrap(), "other:1"];
    daemon.banger(import).args(["--format", "rootfs-tar"]).ok();
    refused(
        daemon.banger(["image", "tag", "other:1", "kept:1"]),
        125,
        "REFERENCE_TAKEN",
    );
    daemon.banger(["image", "remove", &reference]).ok();
    let left = daemon.banger(["image", "list", "--quiet"]).ok().out();
    assert!(
        left.contains("kept:1") && !left.contains(&reference),
        "{left}"
    );
    daemon
        .banger(["image", "tag", "--replace", "other:1", "kept:1"])
        .ok();
    // The first image has no reference any more: that is what a plain prune takes.
    let pruned = daemon
        .banger(["image", "prune", "--output", "json"])
        .ok()
        .json();
    assert_eq!(pruned["images"].as_array().unwrap().len(), 1, "{pruned}");
    assert_eq!(daemon.disks().len(), 1);
    daemon.clear();
    Verdict::Passed
}

fn sum(usage: &Value) -> i64 {
    usage["rootfs_bytes"].as_i64().unwrap() + usage["blob_bytes"].as_i64().unwrap()
}

fn usage(suite: &Suite) -> Verdict {
    let daemon = suite.bare_daemon("own/usage", DaemonOptions::default());
    suite.give_image(&daemon);
    // The same layers under another configuration: another image that shares them all.
    let second = suite.registry().reference("second:1");
    let layout = suite.scratch.dir("own/usage-files").join("layout");
    let run = |program: &str, words: &[&str]| drop(suite.scratch.run(program).args(words).ok());
    let source = suite.image().layout.to_str().unwrap();
    run("cp", &["-a", source, layout.to_str().unwrap()]);
    let at = format!("{}:{}", layout.display(), suite.image().tag);
    run(
        "umoci",
        &["config", "--image", &at, "--config.env=MORE=yes"],
    );
    banger_e2e::image::copy(
        &suite.scratch,
        &format!("oci:{at}"),
        &format!("docker://{second}"),
    );
    daemon.banger(["image", "pull", &second]).ok();
    let tell = || {
        daemon
            .banger(["image", "usage", "--output", "json"])
            .ok()
            .json()
    };
    let told = tell();
    let image = &told["images"][0];
    assert!(image["shared_bytes"].as_i64().unwrap() > 0, "{told}");
    assert_eq!(image["shared_with"].as_array().unwrap().len(), 1, "{told}");
    let frees = image["reclaimable_bytes"].as_i64().unwrap();
    daemon.banger(["image", "remove", &second]).ok();
    let after = tell();
    assert_eq!(sum(&told) - sum(&after), frees, "{told}\n{after}");
    let dry = ["image", "prune", "--all", "--output", "json"];
    let would = daemon.banger(dry).arg("--dry-run").ok().json();
    assert_eq!(would["freed_bytes"], sum(&after), "{would}");
    assert_eq!(tell(), after, "a dry run changes nothing");
    let did = daemon.banger(dry).ok().json();
    assert_eq!(did["freed_bytes"], would["freed_bytes"]);
    assert_eq!(sum(&tell()), 0);
    assert_eq!(daemon.entries("blobs/sha256"), Vec::<String>::new());
    daemon.clear();
    Verdict::Passed
}

fn in_use(suite: &Suite) -> Verdict {
    let id = suite.vm()["image_id"].as_str().unwrap().to_owned();
    let error = refused(suite.banger(["image", "remove", &id]), 125, "IN_USE");
    assert!(error["message"].as_str().unwrap().contains(VM), "{error}");
    assert_eq!(error["code"], "FAILED_PRECONDITION");
    let would = suite
        .banger(["image", "prune", "--all", "--dry-run", "--output", "json"])
        .ok()
        .json();
    let images = would["images"].as_array().unwrap();
    assert!(
        images.iter().all(|image| image["id"] != id.as_str()),
        "{would}"
    );
    Verdict::Passed
}

/// A registry that never ends its answer.
fn stalling() -> Liar {
    let content = b"seen by nobody".repeat(200_000);
    let layer = Layer::default().file("content", 0o644, &content).tar();
    Liar::serve(&layer, Lie::Stalled)
}

/// The operation that fetches from this registry now.
fn fetching(suite: &Suite, registry: &Liar) -> Option<String> {
    let operations = suite
        .banger(["operation", "list", "--output", "json"])
        .ok()
        .json();
    let operations = operations.as_array().unwrap().iter();
    let mut ours = operations.filter(|operation| {
        let target = operation["target"].as_str().unwrap_or_default();
        target.starts_with(&registry.address)
            && operation["state"] == "running"
            && operation["stages"].to_string().contains("fetch")
    });
    ours.next()
        .map(|operation| operation["id"].as_str().unwrap().to_owned())
}

fn state_of(suite: &Suite, operation: &str) -> Value {
    suite
        .banger(["operation", "inspect", operation, "--output", "json"])
        .ok()
        .json()
}

fn interrupted(suite: &Suite) -> Verdict {
    let registry = stalling();
    let mut pull = suite
        .banger(["image", "pull", &registry.reference()])
        .spawn();
    let mut operation = None;
    until("the pull fetches", LONG, || {
        operation = fetching(suite, &registry);
        operation.is_some()
    });
    kill_process(Pid::from_child(&pull), Signal::INT).unwrap();
    let status = ended(&mut pull, Duration::from_secs(20)).expect("it ends");
    assert_eq!(status.code(), Some(130));
    let operation = state_of(suite, &operation.unwrap());
    assert_eq!(operation["state"], "failed", "{operation}");
    assert_eq!(
        operation["error"]["reason"], "OPERATION_CANCELLED",
        "{operation}"
    );
    Verdict::Passed
}

fn cancelled(suite: &Suite) -> Verdict {
    let registry = stalling();
    let pull = suite
        .banger(["image", "pull", &registry.reference()])
        .args(["--output", "json"]);
    let pull = std::thread::spawn(move || pull.done());
    let mut operation = None;
    until("the pull fetches", LONG, || {
        operation = fetching(suite, &registry);
        operation.is_some()
    });
    suite
        .banger(["operation", "cancel", &operation.unwrap()])
        .ok();
    let error = pull.join().unwrap().refused(125);
    assert_eq!(error["reason"], "OPERATION_CANCELLED", "{error}");
    assert_eq!(error["code"], "CANCELLED", "{error}");
    Verdict::Passed
}
