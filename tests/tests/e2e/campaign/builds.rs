//! The same for builds in real VMs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use banger_e2e::command::until;
use banger_e2e::small::Small;
use banger_e2e::{Daemon, DaemonOptions, Run, Verdict};

use super::works::{Work, noise_layer, words};
use super::{LATE, assert_whole, ballast, images, random, repeat, setting, strike, undisturbed};
use crate::suite::{LONG, Suite};

/// Kills of one run.
const KILLS: u64 = 12;
/// Fillings of one run.
const FILLS: u64 = 6;
/// A disk that holds the kernel, the base image, and what a build takes several times over.
const DISK: &str = "600m";
/// What the build makes.
const BUILT: &str = "built:1";
/// What the steps take on their disks.
const STEP_MIB: u64 = 16;

/// A build of two steps and a copy that writes what no compression makes small.
fn work(suite: &Suite, place: &Path, options: &[&str]) -> Work {
    fs::write(place.join("noise"), noise_layer()).unwrap();
    let text = format!(
        "FROM {}\nRUN head -c {} /dev/urandom > /one && sync\nCOPY noise /noise\n\
         RUN cat /noise /noise > /two && sync\n",
        suite.reference(),
        STEP_MIB << 20
    );
    fs::write(place.join("Dockerfile"), text).unwrap();
    let mut build = words(&["image", "build", "-t", BUILT, "--memory", "256M"]);
    build.extend(words(&["--network", "none"]));
    build.extend(words(options));
    build.push(place.to_str().unwrap().to_owned());
    Work {
        what: "build",
        words: build,
        first: Vec::new(),
    }
}

/// What builds leave beside images: no VM, no step that is not whole.
fn assert_clean(daemon: &Daemon, told: &str) {
    until("no VM of a build is left", LONG, || {
        !daemon.vms().iter().any(|vm| vm.starts_with("build-"))
    });
    assert_eq!(daemon.entries("vms"), Vec::<String>::new(), "{told}: VMs");
    for step in daemon.entries("build/steps") {
        let disk = daemon.state.join("build/steps").join(&step);
        let checked = Run::new("/usr/sbin/e2fsck").args(["-f", "-n"]).arg(disk);
        let checked = checked.done();
        assert!(
            checked.status.success(),
            "{told}: {step}: {}",
            checked.said()
        );
    }
    assert_whole(daemon, told);
}

/// Removes what was built, but not what it was built on.
fn remove_built(daemon: &Daemon) {
    let is_built = |image: &serde_json::Value| image["references"].to_string().contains(BUILT);
    if images(daemon).iter().any(is_built) {
        daemon.banger(["image", "remove", BUILT]).ok();
    }
}

pub(super) fn kills(suite: &Suite) -> Verdict {
    let mut random = random("kills of builds");
    let daemon = suite.own_daemon("own/build-kills", DaemonOptions::default());
    let place = suite.scratch.dir("own/build-kills-files");
    // Steps that are kept would leave nothing to disturb.
    let anew = work(suite, &place, &["--no-cache"]);
    let kept = work(suite, &place, &[]);
    // The first also makes what later ones find: the initramfs, and a page cache.
    undisturbed(&daemon, &anew);
    let usual: Duration = undisturbed(&daemon, &anew);
    let mut interrupted = 0;
    for kill in 0..setting("BANGER_BUILD_KILLS", KILLS) {
        remove_built(&daemon);
        let delay = usual.mul_f64(random.f64() * LATE);
        let told = format!("kill {kill}, {delay:?} into a build");
        interrupted += usize::from(strike(&daemon, &anew, delay));
        assert_clean(&daemon, &told);
        // With what the build that was cut off may have kept, and without.
        repeat(&daemon, if random.bool() { &kept } else { &anew }, &told);
        assert_clean(&daemon, &told);
    }
    println!("kills of builds: {interrupted} came before the build had ended");
    assert!(interrupted > 0, "no kill came in time");
    daemon.clear();
    daemon.stop();
    Verdict::Passed
}

pub(super) fn fills(suite: &Suite) -> Verdict {
    let state = suite.scratch.dir("own-filled-builds");
    let small = match Small::mount(&state, DISK) {
        Ok(small) => small,
        Err(why) => {
            return Verdict::Skipped(format!("no small file system can be mounted here: {why}"));
        }
    };
    let mut random = random("fills of builds");
    let options = DaemonOptions {
        config: "disk_reserve_mib = 0".to_owned(),
        state_dir: Some(state.clone()),
        ..DaemonOptions::default()
    };
    let daemon = suite.own_daemon("own/filled-builds", options);
    let place = suite.scratch.dir("own/filled-builds-files");
    let build = work(suite, &place, &["--no-cache"]);
    // What a build takes at most while it goes on is not told by what is left of it: its disk, each step's copy, the
    // layer and the new base disk.
    let before = small.free();
    undisturbed(&daemon, &build);
    let needs = (before - small.free()).max((4 * STEP_MIB) << 20);
    let mut refused = 0;
    for fill in 0..setting("BANGER_BUILD_FILLS", FILLS) {
        remove_built(&daemon);
        let left = random.u64(..needs);
        let told = format!("fill {fill}, {left} bytes left for a build");
        let ballast = ballast(&state, &small, left);
        refused += usize::from(is_refused(&daemon, &build, &told));
        fs::remove_file(ballast).unwrap();
        assert_clean(&daemon, &told);
        repeat(&daemon, &build, &told);
    }
    println!("fills of builds: {refused} were refused");
    assert!(refused > 0, "no disk was full");
    daemon.clear();
    daemon.stop();
    drop(daemon);
    drop(small);
    Verdict::Passed
}

/// Whether the build failed for want of space, and said so: the host where its own files did not fit, the step's command
/// where the guest's did not.
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
    let text = error.to_string();
    let of_step = error["reason"] == "BUILD_STEP_FAILED";
    assert!(
        error["code"] == "RESOURCE_EXHAUSTED" || of_step,
        "{told}: {text}"
    );
    true
}
