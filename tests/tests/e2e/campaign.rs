//! Campaigns: bangerd killed at random instants of pulls, imports, removals and builds, and disks that fill up at
//! random points of them. After each: no half image or kernel, nothing that no image needs, and the same work then
//! succeeds.
//!
//! The seed is printed; `BANGER_SEED` repeats a run, `BANGER_KILLS` and `BANGER_FILLS` make it longer or shorter, and
//! so do `BANGER_BUILD_KILLS` and `BANGER_BUILD_FILLS` for builds, each of which boots a VM.

mod builds;
mod works;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_e2e::command::until;
use banger_e2e::layer;
use banger_e2e::small::Small;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Run, Verdict};

use serde_json::Value;

use self::works::{Work, Works};
use crate::suite::{LONG, Suite};

/// Kills of one run.
const KILLS: u64 = 200;
/// Fillings of one run.
const FILLS: u64 = 60;
/// The small disk: what an image takes several times over.
const DISK: &str = "48m";
/// A kill comes up to this much later than the work took when nothing disturbed it.
const LATE: f64 = 1.1;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_daemon_killed_at_any_instant_of_image_work_leaves_nothing_half",
            lane: Lane::Own,
            test: kills,
        },
        Case {
            name: "a_disk_that_fills_at_any_point_of_image_work_is_told_and_left_clean",
            lane: Lane::Own,
            test: fills,
        },
        Case {
            name: "a_daemon_killed_at_any_instant_of_a_build_leaves_nothing_half",
            lane: Lane::Own,
            test: builds::kills,
        },
        Case {
            name: "a_disk_that_fills_at_any_point_of_a_build_is_told_and_left_clean",
            lane: Lane::Own,
            test: builds::fills,
        },
    ]
}

/// A number from the environment.
pub(crate) fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

pub(crate) fn random(campaign: &str) -> fastrand::Rng {
    let seed = setting("BANGER_SEED", fastrand::u64(..));
    println!("{campaign}: BANGER_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Does a work that nothing disturbs, and tells how long it took.
fn undisturbed(daemon: &Daemon, work: &Work) -> Duration {
    for words in &work.first {
        daemon.banger(words).timeout(LONG).ok();
    }
    let begin = Instant::now();
    daemon.banger(&work.words).timeout(LONG).ok();
    begin.elapsed()
}

/// Removes every image and kernel.
fn clear(daemon: &Daemon) {
    daemon.banger(["image", "prune", "--all"]).ok();
    for kernel in kernels(daemon) {
        let name = kernel["name"].as_str().unwrap();
        daemon.banger(["kernel", "remove", name]).ok();
    }
}

fn kills(suite: &Suite) -> Verdict {
    let mut random = random("kills");
    let daemon = suite.bare_daemon("own/kills", DaemonOptions::default());
    let stand = Works::prepare(suite, &daemon, &suite.scratch.dir("own/kills-files"));
    let works = &stand.works;
    let usual: Vec<Duration> = works
        .iter()
        .map(|work| {
            clear(&daemon);
            undisturbed(&daemon, work)
        })
        .collect();
    clear(&daemon);
    let mut interrupted = vec![(0, 0); works.len()];
    for kill in 0..setting("BANGER_KILLS", KILLS) {
        let chosen = random.usize(..works.len());
        let work = &works[chosen];
        let delay = usual[chosen].mul_f64(random.f64() * LATE);
        let told = format!("kill {kill}, {delay:?} into {}", work.what);
        interrupted[chosen].0 += usize::from(strike(&daemon, work, delay));
        interrupted[chosen].1 += 1;
        assert_whole(&daemon, &told);
        if random.bool() {
            clear(&daemon);
        }
        repeat(&daemon, work, &told);
        if random.bool() {
            clear(&daemon);
        }
    }
    for (work, (cut_off, kills)) in works.iter().zip(&interrupted) {
        println!(
            "kills: {cut_off} of {kills} came before the {} had ended",
            work.what
        );
    }
    assert!(
        interrupted.iter().any(|(cut_off, _)| *cut_off > 0),
        "no kill came in time"
    );
    daemon.stop();
    Verdict::Passed
}

/// Begins a work, kills the daemon after `delay`, and starts it again. Whether the work was cut off.
fn strike(daemon: &Daemon, work: &Work, delay: Duration) -> bool {
    for words in &work.first {
        daemon.banger(words).timeout(LONG).ok();
    }
    let mut caller = daemon.banger(&work.words).spawn();
    std::thread::sleep(delay);
    let ended = caller.try_wait().unwrap().is_some();
    daemon.kill();
    // It would try again on the new daemon.
    let _ = caller.kill();
    caller.wait().unwrap();
    daemon.start_again();
    !ended
}

/// The work succeeds now.
fn repeat(daemon: &Daemon, work: &Work, told: &str) {
    for words in &work.first {
        daemon.banger(words).timeout(LONG).ok();
    }
    let done = daemon.banger(&work.words).timeout(LONG).done();
    assert!(done.status.success(), "{told}: then {}", done.said());
}

fn images(daemon: &Daemon) -> Vec<Value> {
    let listed = daemon.banger(["image", "list", "--output", "json"]).ok();
    listed.json().as_array().unwrap().clone()
}

fn kernels(daemon: &Daemon) -> Vec<Value> {
    let listed = daemon.banger(["kernel", "list", "--output", "json"]).ok();
    listed.json().as_array().unwrap().clone()
}

/// Every kernel is whole, and there is no file of one that is not known.
fn assert_kernels_whole(daemon: &Daemon, told: &str) {
    let kernels = kernels(daemon);
    let id = |kernel: &Value| kernel["id"].as_str().unwrap().to_owned();
    let mut ids: Vec<String> = kernels.iter().map(id).collect();
    ids.sort_unstable();
    assert_eq!(daemon.entries("kernels"), ids, "{told}: kernels");
    for kernel in &kernels {
        let place = format!("kernels/{}", id(kernel));
        let vmlinux = fs::read(daemon.state.join(&place).join("vmlinux")).unwrap();
        assert_eq!(
            layer::digest(&vmlinux),
            kernel["digest"],
            "{told}: {kernel}"
        );
        let modules = kernel["modules"].as_array().unwrap();
        let named = modules.iter().enumerate();
        let named = named.map(|(at, name)| format!("{at:03}-{}.ko", name.as_str().unwrap()));
        let kept = daemon.entries(&format!("{place}/modules"));
        assert_eq!(kept, named.collect::<Vec<_>>(), "{told}: {kernel}");
    }
}

/// Every image and kernel is whole, and there is no file that no image needs.
fn assert_whole(daemon: &Daemon, told: &str) {
    assert_kernels_whole(daemon, told);
    let none: Vec<PathBuf> = Vec::new();
    assert_eq!(daemon.temporary(), none, "{told}: temporary files");
    let usage = daemon
        .banger(["image", "usage", "--output", "json"])
        .ok()
        .json();
    assert_eq!(usage["unreferenced_bytes"], 0, "{told}: {usage}");
    let images = images(daemon);
    let needed = needed_blobs(daemon, &images, told);
    let mut orphans = daemon.entries("blobs/sha256");
    orphans.retain(|blob| !needed.contains(blob));
    assert_eq!(orphans, Vec::<String>::new(), "{told}: blobs of no image");
    let mut digests: Vec<&str> = images
        .iter()
        .map(|image| image["digest"].as_str().unwrap())
        .collect();
    digests.sort_unstable();
    digests.dedup();
    let (disks, records): (Vec<String>, Vec<String>) = daemon
        .entries("rootfs")
        .into_iter()
        .partition(|name| name.ends_with(".ext4"));
    for record in records {
        let disk = record.replace(".layers", ".ext4");
        assert!(disks.contains(&disk), "{told}: {record} without its disk");
    }
    assert_eq!(
        disks.len(),
        digests.len(),
        "{told}: {disks:?} for {digests:?}"
    );
    for disk in disks {
        let checked = Run::new("/usr/sbin/e2fsck")
            .args(["-f", "-n"])
            .arg(daemon.state.join("rootfs").join(&disk))
            .done();
        assert!(
            checked.status.success(),
            "{told}: {disk}: {}",
            checked.said()
        );
    }
    let operations = daemon
        .banger(["operation", "list", "--output", "json"])
        .ok()
        .json();
    let running = operations.as_array().unwrap().iter();
    let running: Vec<_> = running
        .filter(|operation| operation["state"] == "running")
        .collect();
    assert!(running.is_empty(), "{told}: {running:?}");
}

/// The names of the blobs that the images' manifests name, and of the manifests, as the files themselves say it.
fn needed_blobs(daemon: &Daemon, images: &[Value], told: &str) -> BTreeSet<String> {
    let hex = |digest: &Value| digest.as_str()?.strip_prefix("sha256:").map(str::to_owned);
    let mut needed = BTreeSet::new();
    for image in images {
        let manifest = hex(&image["digest"]).unwrap();
        let path = daemon.state.join("blobs/sha256").join(&manifest);
        let bytes = fs::read(&path)
            .unwrap_or_else(|error| panic!("{told}: {image} has no manifest: {error}"));
        // A bundle's names no blob.
        let parsed: Value = serde_json::from_slice(&bytes).unwrap();
        let layers = parsed["layers"].as_array().into_iter().flatten();
        let named = layers.map(|layer| &layer["digest"]);
        needed.extend(named.chain([&parsed["config"]["digest"]]).filter_map(hex));
        needed.insert(manifest);
    }
    needed
}

fn fills(suite: &Suite) -> Verdict {
    let state = suite.scratch.dir("own-filled");
    let small = match Small::mount(&state, DISK) {
        Ok(small) => small,
        Err(why) => {
            return Verdict::Skipped(format!("no small file system can be mounted here: {why}"));
        }
    };
    let mut random = random("fills");
    let options = DaemonOptions {
        config: "disk_reserve_mib = 0".to_owned(),
        state_dir: Some(state.clone()),
        ..DaemonOptions::default()
    };
    let daemon = suite.bare_daemon("own/filled", options);
    let stand = Works::prepare(suite, &daemon, &suite.scratch.dir("own/filled-files"));
    // What removes needs no space worth the name.
    let works: Vec<Work> = stand
        .works
        .iter()
        .filter(|work| work.first.is_empty())
        .cloned()
        .collect();
    let needs: Vec<u64> = works
        .iter()
        .map(|work| {
            clear(&daemon);
            let before = small.free();
            undisturbed(&daemon, work);
            before - small.free()
        })
        .collect();
    let mut refused = 0;
    for fill in 0..setting("BANGER_FILLS", FILLS) {
        clear(&daemon);
        let chosen = random.usize(..works.len());
        // Up to the last moment: meanwhile a work needs more than it keeps.
        let left = random.u64(..needs[chosen] * 2);
        let told = format!("fill {fill}, {left} bytes left for {}", works[chosen].what);
        let ballast = ballast(&state, &small, left);
        let is_refused = is_refused(&daemon, &works[chosen], &told);
        fs::remove_file(ballast).unwrap();
        assert_whole(&daemon, &told);
        if is_refused {
            refused += 1;
            let left = (images(&daemon), kernels(&daemon));
            assert_eq!(left, (Vec::new(), Vec::new()), "{told}: what it left");
        }
        repeat(&daemon, &works[chosen], &told);
    }
    println!("fills: {refused} were refused");
    assert!(refused > 0, "no disk was full");
    daemon.stop();
    drop(daemon);
    drop(small);
    Verdict::Passed
}

/// A file that takes what is free, all but `left` bytes. The daemon may take some meanwhile.
fn ballast(directory: &Path, small: &Small, left: u64) -> PathBuf {
    let path = directory.join("ballast");
    let file = File::create(&path).unwrap();
    let mut length = 0;
    until("the disk is as full as it is to be", LONG, || {
        let more = small.free().saturating_sub(left);
        let nothing = rustix::fs::FallocateFlags::empty();
        let done = more == 0 || rustix::fs::fallocate(&file, nothing, length, more).is_ok();
        length += if done { more } else { 0 };
        done
    });
    path
}

/// Whether the work was refused for want of space, and said so. It may have had enough.
fn is_refused(daemon: &Daemon, work: &Work, told: &str) -> bool {
    let done = daemon
        .banger(&work.words)
        .args(["--output", "json"])
        .timeout(LONG)
        .done();
    if done.status.success() {
        return false;
    }
    let error = done.refused(125);
    assert_eq!(error["code"], "RESOURCE_EXHAUSTED", "{told}: {error}");
    let remedy = error["remedy"].as_str().unwrap_or_default();
    assert!(remedy.contains("space"), "{told}: {error}");
    true
}
