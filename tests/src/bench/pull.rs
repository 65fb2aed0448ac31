//! A real image from the loopback registry to a bootable disk, beside the tools that do it in steps.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_e2e::command::Done;
use banger_e2e::{Daemon, DaemonOptions, Run};

use crate::stand::Stand;
use crate::table::{Figures, Table};

const ROUNDS: usize = 7;
const PATIENCE: Duration = Duration::from_secs(900);
/// More than a minimal Debian, so that it is an image of a usual size.
const PACKAGES: &str = "perl,python3,openssh-client,vim-tiny";

pub(crate) fn measure(stand: &Stand, table: &mut Table) {
    let layout = layout(stand);
    let reference = stand.registry.reference("debian:bench");
    banger_e2e::image::copy(
        &stand.scratch,
        &format!("oci:{}:debian", layout.display()),
        &format!("docker://{reference}"),
    );
    let (mut ours, mut theirs, mut peak) =
        (Figures::default(), Figures::default(), Figures::default());
    let mut size = 0;
    for round in 0..=ROUNDS {
        let (took, high, bytes) = pull(stand, &reference, round);
        let steps = steps(stand, &reference);
        size = bytes;
        peak.add(high);
        if round > 0 {
            ours.add_ms(took);
            theirs.add_ms(steps);
        }
    }
    let ratio = format!("{:.2} × faster", theirs.median() / ours.median());
    let what = format!(
        "pull and convert of a Debian image, {} MB on disk",
        size / 1_000_000
    );
    table.line(
        &what,
        ours.text("ms"),
        format!("skopeo, umoci, mkfs.ext4 {}", theirs.text("ms")),
        ratio,
    );
    table.line(
        "peak memory of bangerd while it pulls",
        peak.text("MiB"),
        String::new(),
        String::new(),
    );
}

/// An OCI layout of a Debian system, made once by debootstrap and kept.
fn layout(stand: &Stand) -> PathBuf {
    let layout = stand.cache.join("debian");
    if layout.join("index.json").is_file() {
        return layout;
    }
    let work = stand.cache.join("work");
    let _ = fs::remove_dir_all(&work);
    let _ = fs::remove_dir_all(&layout);
    let root = work.join("root");
    fs::create_dir_all(&work).unwrap();
    let include = format!("--include={PACKAGES}");
    Run::new("debootstrap")
        .args(["--variant=minbase", &include, "bookworm"])
        .arg(&root)
        .timeout(PATIENCE)
        .ok();
    let _ = fs::remove_dir_all(root.join("var/cache/apt/archives"));
    let layer = work.join("layer.tar");
    Run::new("tar")
        .arg("-cf")
        .arg(&layer)
        .args(["--numeric-owner", "--xattrs", "-C"])
        .arg(&root)
        .arg(".")
        .timeout(PATIENCE)
        .ok();
    let making = work.join("layout");
    let at = format!("{}:debian", making.display());
    let umoci = |words: &[&str]| -> Done { Run::new("umoci").args(words).timeout(PATIENCE).ok() };
    umoci(&["init", "--layout", making.to_str().unwrap()]);
    umoci(&["new", "--image", &at]);
    umoci(&["raw", "add-layer", "--image", &at, layer.to_str().unwrap()]);
    fs::rename(&making, &layout).unwrap();
    fs::remove_dir_all(&work).unwrap();
    layout
}

/// How long a pull into an empty store takes, how much memory bangerd took at most (MiB), and how big the disk is.
fn pull(stand: &Stand, reference: &str, round: usize) -> (Duration, f64, u64) {
    let daemon = Daemon::start(
        &stand.scratch,
        &stand.binaries,
        &format!("pull{round}"),
        DaemonOptions::default(),
    );
    let run = daemon
        .banger(["image", "pull", reference, "--output", "json"])
        .timeout(PATIENCE);
    let begin = Instant::now();
    let image = run.ok().json();
    let took = begin.elapsed();
    let status =
        fs::read_to_string(format!("/proc/{}/status", daemon.pid().as_raw_nonzero())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let high: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    daemon.clear();
    fs::remove_dir_all(&daemon.state).unwrap();
    (
        took,
        high / 1024.0,
        image["rootfs_allocated_bytes"].as_u64().unwrap(),
    )
}

/// The same by the usual tools.
fn steps(stand: &Stand, reference: &str) -> Duration {
    let work = stand.scratch.dir("steps");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (layout, bundle, disk) = (
        work.join("layout"),
        work.join("bundle"),
        work.join("disk.ext4"),
    );
    let begin = Instant::now();
    banger_e2e::image::copy(
        &stand.scratch,
        &format!("docker://{reference}"),
        &format!("oci:{}:debian", text(&layout)),
    );
    Run::new("umoci")
        .args(["unpack", "--image", &format!("{}:debian", text(&layout))])
        .arg(&bundle)
        .timeout(PATIENCE)
        .ok();
    let rootfs = bundle.join("rootfs");
    Run::new("/usr/sbin/mkfs.ext4")
        .args(["-q", "-F", "-d"])
        .arg(&rootfs)
        .arg(&disk)
        .arg("1G")
        .timeout(PATIENCE)
        .ok();
    let took = begin.elapsed();
    fs::remove_dir_all(work).unwrap();
    took
}
