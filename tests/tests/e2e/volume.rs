//! Disks that outlive VMs, and disks that grow.

use std::fs;
use std::path::{Path, PathBuf};

use banger_e2e::command::until;
use banger_e2e::{Case, Done, Lane, Run, Verdict};
use serde_json::Value;

use crate::suite::{LONG, Suite, refused};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_volume_outlives_its_writer_is_read_by_others_and_seeds_a_clone",
            lane: Lane::Shared,
            test: written_read_and_cloned,
        },
        Case {
            name: "a_disk_grows_while_its_vm_writes_and_at_a_start",
            lane: Lane::Shared,
            test: grown,
        },
    ]
}

fn create(suite: &Suite, name: &str, options: &[&str]) -> Run {
    let reference = suite.reference();
    let words = [
        "vm", "create", &reference, "--name", name, "--memory", "256M",
    ];
    suite.banger(words.into_iter().chain(options.iter().copied()))
}

fn sh(suite: &Suite, vm: &str, script: &str) -> Done {
    suite
        .banger(["vm", "exec", vm, "--", "sh", "-c", script])
        .done()
}

fn inspect(suite: &Suite, what: &str, name: &str) -> Value {
    suite
        .banger([what, "inspect", name, "--output", "json"])
        .ok()
        .json()
}

/// The disk of a volume or a VM.
fn disk(suite: &Suite, directory: &str, id: &Value, file: &str) -> PathBuf {
    let state = suite.daemon().state.join(directory);
    state.join(id.as_str().unwrap()).join(file)
}

fn is_clean(disk: &Path) {
    let check = Run::new("/usr/sbin/e2fsck").arg("-fn").arg(disk).done();
    assert!(
        check.status.success(),
        "a disk that was unmounted is clean: {}",
        check.said()
    );
}

/// The size of the file system at a path of a guest, in MiB.
fn size_mib(suite: &Suite, vm: &str, path: &str) -> u64 {
    let df = sh(suite, vm, &format!("df -m {path} | tail -n 1"));
    let words: Vec<String> = df.out().split_whitespace().map(str::to_owned).collect();
    words[1].parse().unwrap_or_else(|_| panic!("{}", df.said()))
}

/// The option by which a VM is given a file with the word `given`.
fn given(suite: &Suite, path: &str) -> String {
    let file = suite.scratch.dir("volume-files").join("given");
    fs::write(&file, "given\n").unwrap();
    format!("{}:{path}", file.display())
}

fn written_read_and_cloned(suite: &Suite) -> Verdict {
    suite
        .banger([
            "volume", "create", "data", "--size", "64M", "--label", "a=b",
        ])
        .ok();
    let data = inspect(suite, "volume", "data");
    let data_disk = disk(suite, "volumes", &data["id"], "disk.ext4");
    is_clean(&data_disk);

    create(suite, "writer", &["--volume", "data:/srv/deep/data"]).ok();
    let write = "cd /srv/deep/data && echo kept > file && mkdir dir && ln -s file link && grep ' /srv/deep/data ext4' /proc/mounts";
    let mounted = sh(suite, "writer", write).out();
    assert!(
        mounted.contains("rw,nosuid,nodev"),
        "a volume gives nobody more rights: {mounted}"
    );
    let other = create(suite, "second", &["--volume", "data:/data:ro"]);
    let error = refused(other, 125, "VOLUME_ATTACHED");
    assert!(
        error["message"].as_str().unwrap().contains("`writer`"),
        "{error}"
    );
    refused(suite.banger(["volume", "remove", "data"]), 125, "IN_USE");
    suite.banger(["vm", "stop", "writer"]).ok();
    is_clean(&data_disk);

    suite
        .banger([
            "volume", "create", "clone", "--seed", "data", "--size", "256M",
        ])
        .ok();
    let before = fs::read(&data_disk).unwrap();
    let given = given(suite, "/data/dir/given");
    let volumes = ["--volume", "data:/data:ro", "--volume", "clone:/data/dir"];
    create(
        suite,
        "reader",
        &[&volumes[..], &["--file", &given]].concat(),
    )
    .ok();
    let read = sh(
        suite,
        "reader",
        "cat /data/link /data/dir/file /data/dir/given",
    );
    assert_eq!(
        read.out(),
        "kept\nkept\ngiven",
        "a file given on a volume's path lies on the volume"
    );
    for wrong in [
        "echo x > /data/file",
        "mount -o remount,rw /data && echo x > /data/file",
    ] {
        let done = sh(suite, "reader", wrong);
        assert!(!done.status.success(), "`{wrong}` is refused");
    }
    assert!(
        size_mib(suite, "reader", "/data/dir") > 200,
        "a clone that is larger has its file system grown"
    );
    sh(suite, "reader", "echo changed > /data/dir/file; sync");
    suite.banger(["vm", "stop", "reader"]).ok();
    assert!(
        before == fs::read(&data_disk).unwrap(),
        "who only reads changes nothing"
    );
    let clone = inspect(suite, "volume", "clone");
    assert_eq!(
        (&clone["seed"], &clone["size_mib"]),
        (&"data".into(), &256.into())
    );
    is_clean(&disk(suite, "volumes", &clone["id"], "disk.ext4"));

    // What was written is there after the daemon too, and for the next writer.
    suite.daemon().kill();
    suite.daemon().start_again();
    suite.banger(["vm", "start", "writer"]).ok();
    assert_eq!(sh(suite, "writer", "cat /srv/deep/data/file").out(), "kept");
    suite.banger(["vm", "remove", "writer", "reader"]).ok();
    suite.banger(["volume", "remove", "data", "clone"]).ok();
    assert_eq!(suite.daemon().entries("volumes"), Vec::<String>::new());
    Verdict::Passed
}

fn grown(suite: &Suite) -> Verdict {
    create(suite, "grower", &["--disk", "1G"]).ok();
    let before = size_mib(suite, "grower", "/");
    assert!((900..1024).contains(&before), "{before} MiB");
    let write = "while :; do dd if=/dev/zero of=/root/$((i % 8)) bs=64k count=64 2>/dev/null || exit 1; i=$((i + 1)); echo $i > /root/count; done";
    let words = ["vm", "exec", "grower", "--", "sh", "-c", write];
    let mut writer = suite.banger(words).spawn();
    let count = || {
        sh(suite, "grower", "cat /root/count 2>/dev/null || echo 0")
            .out()
            .parse::<u64>()
            .unwrap_or(0)
    };
    until("the guest writes", LONG, || count() > 2);
    suite
        .banger(["vm", "update", "grower", "--disk", "3G"])
        .ok();
    let after = size_mib(suite, "grower", "/");
    assert!((2800..3072).contains(&after), "{after} MiB");
    let vm = inspect(suite, "vm", "grower");
    assert_eq!(
        (&vm["state"], &vm["pending_fields"]),
        (&"running".into(), &Value::Array(Vec::new()))
    );
    let so_far = count();
    until("the guest writes on", LONG, || count() > so_far);
    assert!(writer.try_wait().unwrap().is_none(), "no write failed");
    let _ = writer.kill();
    let _ = writer.wait();
    suite.banger(["vm", "stop", "grower"]).ok();
    is_clean(&disk(suite, "vms", &vm["id"], "upper.ext4"));

    // Beyond 16 GiB the file system needs more descriptors than it was made with.
    suite
        .banger(["vm", "update", "grower", "--disk", "20G"])
        .ok();
    suite.banger(["vm", "start", "grower"]).ok();
    let after = size_mib(suite, "grower", "/");
    assert!((19_000..20_480).contains(&after), "{after} MiB");
    assert!(count() > so_far, "what was written is there");
    suite.banger(["vm", "stop", "grower"]).ok();
    is_clean(&disk(suite, "vms", &vm["id"], "upper.ext4"));
    suite.banger(["vm", "remove", "grower"]).ok();
    Verdict::Passed
}
