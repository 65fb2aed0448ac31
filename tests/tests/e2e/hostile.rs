//! Images and registries that lie: nothing of theirs reaches the host, and nothing is left of the attempt.

use std::fs;
use std::time::Duration;

use banger_e2e::layer::Layer;
use banger_e2e::liar::{Liar, Lie};
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Verdict};
use tar::EntryType;

use crate::suite::Suite;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_layer_with_a_wrong_digest_is_refused",
            lane: Lane::Own,
            test: flipped,
        },
        Case {
            name: "a_layer_that_ends_early_is_refused",
            lane: Lane::Own,
            test: truncated,
        },
        Case {
            name: "a_registry_that_stalls_is_given_up",
            lane: Lane::Own,
            test: stalled,
        },
        Case {
            name: "entries_that_climb_out_are_refused_and_touch_nothing",
            lane: Lane::Own,
            test: climbing,
        },
        Case {
            name: "entries_behind_links_stay_in_the_image",
            lane: Lane::Own,
            test: behind_links,
        },
        Case {
            name: "an_archive_that_is_no_archive_is_refused",
            lane: Lane::Own,
            test: no_archive,
        },
    ]
}

fn daemon(suite: &Suite, name: &str) -> Daemon {
    let options = DaemonOptions {
        config: "pull_stall_timeout = \"2s\"".into(),
        ..DaemonOptions::default()
    };
    Daemon::start(
        &suite.scratch,
        &suite.binaries,
        &format!("own/{name}"),
        options,
    )
}

/// Nothing of a pull is left but what a later one may use.
fn empty(daemon: &Daemon) {
    assert_eq!(daemon.banger(["image", "list", "--quiet"]).ok().out(), "");
    assert_eq!(daemon.entries("rootfs"), Vec::<String>::new());
    assert_eq!(daemon.temporary(), Vec::<std::path::PathBuf>::new());
    daemon.clear();
}

/// A layer big enough that its middle is content.
fn layer() -> Vec<u8> {
    let bytes: Vec<u8> = (0..300_000_u32)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    Layer::default()
        .dir("etc", 0o755)
        .file("etc/bytes", 0o644, &bytes)
        .tar()
}

fn pull(daemon: &Daemon, liar: &Liar) -> serde_json::Value {
    let done = daemon
        .banger(["image", "pull", &liar.reference(), "--output", "json"])
        .done();
    let error = done.refused(125);
    assert!(
        !error["remedy"].as_str().unwrap_or_default().is_empty(),
        "{error}"
    );
    error
}

fn flipped(suite: &Suite) -> Verdict {
    let daemon = daemon(suite, "flipped");
    let error = pull(&daemon, &Liar::serve(&layer(), Lie::Flipped));
    assert_eq!(
        (&error["code"], &error["reason"]),
        (&"DATA_LOSS".into(), &"BLOB_DIGEST_MISMATCH".into()),
        "{error}"
    );
    let honest = Liar::serve(&layer(), Lie::None);
    daemon.banger(["image", "pull", &honest.reference()]).ok();
    daemon.banger(["image", "remove", &honest.reference()]).ok();
    empty(&daemon);
    Verdict::Passed
}

fn truncated(suite: &Suite) -> Verdict {
    let daemon = daemon(suite, "truncated");
    let error = pull(&daemon, &Liar::serve(&layer(), Lie::Truncated));
    assert!(
        error["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "{error}"
    );
    assert_ne!(error["code"], "INTERNAL", "{error}");
    empty(&daemon);
    Verdict::Passed
}

fn stalled(suite: &Suite) -> Verdict {
    let daemon = daemon(suite, "stalled");
    let liar = Liar::serve(&layer(), Lie::Stalled);
    let run = daemon
        .banger(["image", "pull", &liar.reference(), "--output", "json"])
        .timeout(Duration::from_secs(60));
    let error = run.done().refused(125);
    assert_eq!(error["reason"], "REGISTRY_STALLED", "{error}");
    drop(liar);
    empty(&daemon);
    Verdict::Passed
}

/// Imports a root filesystem of this one layer.
fn import(suite: &Suite, daemon: &Daemon, layer: Layer) -> banger_e2e::Done {
    let file = suite.scratch.dir("own").join("hostile.tar");
    fs::write(&file, layer.dir("zz", 0o755).tar()).unwrap();
    let words = [
        "image",
        "import",
        file.to_str().unwrap(),
        "hostile:1",
        "--format",
        "rootfs-tar",
        "--output",
        "json",
    ];
    daemon.banger(words).done()
}

fn climbing(suite: &Suite) -> Verdict {
    let daemon = daemon(suite, "climbing");
    let victim = suite.scratch.dir("own").join("victim");
    fs::write(&victim, "untouched").unwrap();
    let up = format!("../../../../../../../..{}", victim.display());
    let inside = format!("etc/{up}");
    let layers = [
        Layer::default().file(&up, 0o644, b"pwned"),
        Layer::default().file(&inside, 0o644, b"pwned"),
        Layer::default().file("..", 0o644, b"pwned"),
        Layer::default().link("innocent", &up),
    ];
    for layer in layers {
        let layer = layer.dir("zz", 0o755);
        let error = pull(&daemon, &Liar::serve(&layer.tar(), Lie::None));
        assert_eq!(error["code"], "FAILED_PRECONDITION", "{error}");
        assert!(
            error["reason"].as_str().unwrap().starts_with("LAYER_"),
            "{error}"
        );
    }
    let done = import(suite, &daemon, Layer::default().file(&up, 0o644, b"pwned"));
    assert_eq!(
        done.refused(125)["code"],
        "INVALID_ARGUMENT",
        "{}",
        done.said()
    );
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    empty(&daemon);
    Verdict::Passed
}

fn behind_links(suite: &Suite) -> Verdict {
    let daemon = daemon(suite, "links");
    let victim = suite.scratch.dir("own").join("victim");
    fs::write(&victim, "untouched").unwrap();
    let absolute = victim.to_str().unwrap();
    let parent = victim.parent().unwrap().to_str().unwrap();
    let layers = [
        Layer::default().file(absolute, 0o644, b"pwned"),
        Layer::default()
            .symlink("out", parent)
            .file("out/victim", 0o644, b"pwned"),
        Layer::default()
            .symlink("out", "../../../../../../../..")
            .file(&format!("out{absolute}"), 0o644, b"pwned"),
        Layer::default()
            .symlink("v", absolute)
            .file("v", 0o644, b"pwned"),
        Layer::default().symlink("v", absolute).entry(
            "h",
            EntryType::Link,
            0o644,
            (0, 0),
            "v",
            &[],
        ),
    ];
    for layer in layers {
        // Either is right: refused, or kept inside the image.
        let done = import(suite, &daemon, layer);
        if done.status.success() {
            daemon.banger(["image", "remove", "hostile:1"]).ok();
        } else {
            done.refused(125);
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
        assert!(fs::symlink_metadata(&victim).unwrap().is_file());
    }
    empty(&daemon);
    Verdict::Passed
}

fn no_archive(suite: &Suite) -> Verdict {
    let daemon = daemon(suite, "noarchive");
    let file = suite.scratch.dir("own").join("noise");
    fs::write(&file, vec![0xa5; 100_000]).unwrap();
    let error = daemon
        .banger([
            "image",
            "import",
            file.to_str().unwrap(),
            "noise:1",
            "--output",
            "json",
        ])
        .done()
        .refused(125);
    assert_eq!(error["code"], "INVALID_ARGUMENT", "{error}");
    fs::write(&file, &layer()[..4096]).unwrap();
    let words = [
        "image",
        "import",
        file.to_str().unwrap(),
        "cut:1",
        "--format",
        "rootfs-tar",
        "--output",
        "json",
    ];
    let error = daemon.banger(words).done().refused(125);
    assert_ne!(error["code"], "INTERNAL", "{error}");
    empty(&daemon);
    Verdict::Passed
}
