//! Images: pulled, imported, kept, removed, and right when a guest looks at them.

use std::fs;

use banger_e2e::image::{LONG_NAME_LENGTH, TestImage};
use banger_e2e::layer::Layer;
use banger_e2e::liar::{Liar, Lie};
use banger_e2e::{Case, Lane, Run, Verdict};

use crate::suite::{Suite, refused};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_second_pull_of_an_image_fetches_no_layer",
            lane: Lane::Shared,
            test: pull_twice,
        },
        Case {
            name: "a_pull_reports_its_layers",
            lane: Lane::Shared,
            test: progress,
        },
        Case {
            name: "images_come_from_layouts_archives_and_tars",
            lane: Lane::Shared,
            test: import,
        },
        Case {
            name: "base_disks_are_clean_file_systems",
            lane: Lane::Shared,
            test: clean,
        },
        Case {
            name: "a_guest_sees_what_the_layers_say",
            lane: Lane::Shared,
            test: content,
        },
        Case {
            name: "an_image_that_is_not_there_is_told",
            lane: Lane::Shared,
            test: missing,
        },
    ]
}

fn pull_twice(suite: &Suite) -> Verdict {
    let destination = suite.registry().reference("twice:1");
    suite
        .image()
        .copy_to(&suite.scratch, &format!("docker://{destination}"));
    let words = ["image", "pull", &destination, "--output", "json"];
    let first = suite.banger(words).ok().json();
    let layers = first["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["digest"].as_str().unwrap());
    let fetched = || -> usize {
        layers
            .clone()
            .map(|layer| suite.registry().fetches("twice", layer))
            .sum()
    };
    let before = fetched();
    let second = suite.banger(words).ok().json();
    assert_eq!(fetched(), before);
    assert_eq!(first["id"], second["id"]);
    assert_eq!(first["layers"].as_array().unwrap().len(), 3);
    assert_eq!(first["config"]["working_dir"], "/work");
    let listed = suite
        .banger(["image", "list", "--output", "json"])
        .ok()
        .json();
    let references = |image: &serde_json::Value| {
        image["references"]
            .as_array()
            .unwrap()
            .contains(&destination.as_str().into())
    };
    assert!(
        listed.as_array().unwrap().iter().any(references),
        "{listed}"
    );
    Verdict::Passed
}

fn progress(suite: &Suite) -> Verdict {
    let content = b"seen nowhere else".repeat(100_000);
    let layer = Layer::default()
        .dir("etc", 0o755)
        .file("etc/content", 0o644, &content)
        .tar();
    let registry = Liar::serve(&layer, Lie::None);
    let words = ["image", "pull", &registry.reference(), "--output", "json"];
    let image = suite.banger(words).ok().json();
    let operations = suite
        .banger(["operation", "list", "--output", "json"])
        .ok()
        .json();
    let target = |operation: &&serde_json::Value| operation["target"] == image["id"];
    let pull = operations.as_array().unwrap().iter().find(target).unwrap();
    let stages = pull["stages"].as_array().unwrap();
    let layers = stages.iter().filter(|stage| stage["name"] == "fetch");
    assert!(
        layers.clone().count() >= 1,
        "a stage per layer in {stages:?}"
    );
    assert!(
        layers
            .clone()
            .all(|stage| stage["done_bytes"].as_u64() > Some(0)),
        "{stages:?}"
    );
    assert!(
        stages.iter().all(|stage| stage["took_ms"].is_number()),
        "{stages:?}"
    );
    suite
        .banger(["image", "remove", &registry.reference()])
        .ok();
    Verdict::Passed
}

fn import(suite: &Suite) -> Verdict {
    let directory = suite.scratch.dir("import");
    let archive = directory.join("docker.tar");
    suite.image().copy_to(
        &suite.scratch,
        &format!("docker-archive:{}:box:1", archive.display()),
    );
    let layout = directory.join("layout.tar");
    Run::new("tar")
        .arg("-cf")
        .arg(&layout)
        .arg("-C")
        .arg(&suite.image().layout)
        .arg(".")
        .ok();
    let tar = directory.join("rootfs.tar");
    fs::write(&tar, TestImage::rootfs_tar()).unwrap();
    let mut digests = Vec::new();
    for (file, name) in [
        (&suite.image().layout, "dir:1"),
        (&layout, "layout:1"),
        (&archive, "docker:1"),
        (&tar, "rootfs:1"),
    ] {
        let image = suite
            .banger([
                "image",
                "import",
                file.to_str().unwrap(),
                name,
                "--output",
                "json",
            ])
            .ok()
            .json();
        assert!(
            image["references"]
                .as_array()
                .unwrap()
                .iter()
                .any(|known| known.as_str().unwrap().ends_with(name)),
            "{image}"
        );
        digests.push(image["digest"].as_str().unwrap().to_owned());
    }
    let pulled = suite
        .banger(["image", "pull", &suite.reference(), "--output", "json"])
        .ok()
        .json();
    assert_eq!(
        digests[0], pulled["digest"],
        "a layout has the digest that a pull has"
    );
    assert_eq!(
        digests[0], digests[1],
        "a directory and its tar are the same image"
    );
    suite
        .banger(["image", "remove", "docker:1", "rootfs:1"])
        .ok();
    fs::remove_dir_all(directory).unwrap();
    Verdict::Passed
}

fn clean(suite: &Suite) -> Verdict {
    let daemon = suite.daemon();
    daemon.banger(["image", "pull", &suite.reference()]).ok();
    let disks = daemon.disks();
    assert!(!disks.is_empty());
    for disk in disks {
        Run::new("/usr/sbin/e2fsck")
            .arg("-fn")
            .arg(daemon.state.join("rootfs").join(disk))
            .ok();
    }
    Verdict::Passed
}

fn content(suite: &Suite) -> Verdict {
    let script = format!(
        "cat /etc/replaced; test -e /etc/removed && echo removed-is-there; ls /opaque; \
         stat -c '%a %u:%g' /data/owned /data/setuid; stat -c %h /data/hard; cat /data/hard; \
         test $(stat -c %i /data/hard) = $(stat -c %i /data/linked) && echo same; ls /work | grep -c '^n\\{{{LONG_NAME_LENGTH}\\}}$'"
    );
    let out = suite.sh(&script).ok().out();
    assert_eq!(out, "new\nabove\n640 1000:2000\n4755 0:0\n2\none\nsame\n1");
    Verdict::Passed
}

fn missing(suite: &Suite) -> Verdict {
    let error = refused(
        suite.banger(["image", "inspect", "never-heard-of:1"]),
        125,
        "IMAGE_NOT_FOUND",
    );
    assert_eq!(error["code"], "NOT_FOUND");
    Verdict::Passed
}
