//! A real image from the loopback registry to a bootable disk, beside the tools that do it in steps and beside the
//! mere download.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use banger_e2e::{Daemon, Run};

use super::{
    PATIENCE, Size, daemon, discard, furnish, furnish_many_files, furnish_second, peak_mib, settle,
};
use crate::stand::Stand;
use crate::table::{Figures, Table};

const ROUNDS: usize = 5;

pub(crate) fn usual(stand: &Stand, table: &mut Table) {
    measure(stand, table, Size::Usual);
}

pub(crate) fn large(stand: &Stand, table: &mut Table) {
    measure(stand, table, Size::Large);
}

/// What many files take of memory: their names and places are what is in it.
pub(crate) fn many_files(stand: &Stand, table: &mut Table) {
    let reference = furnish_many_files(stand);
    let mut peak = Figures::default();
    for round in 0..ROUNDS {
        let daemon = daemon(stand, &format!("many{round}"));
        pull(&daemon, &reference);
        peak.add(peak_mib(&daemon));
        discard(&daemon);
    }
    table.line(
        "peak memory of bangerd while it pulls 200,000 files",
        peak.text("MiB"),
        String::new(),
        String::new(),
    );
}

#[derive(Debug, Default)]
struct Measured {
    cold: Figures,
    second: Figures,
    copy: Figures,
    peak: Figures,
    steps: Figures,
    download: Figures,
}

fn measure(stand: &Stand, table: &mut Table, size: Size) {
    let (first, second) = (furnish(stand, size), furnish_second(stand, size));
    let mut measured = Measured::default();
    let mut bytes = 0;
    for round in 0..=ROUNDS {
        let daemon = daemon(stand, &format!("pull{round}"));
        warm_up(stand, &daemon);
        settle(size);
        let cold = pull(&daemon, &first);
        bytes = cold.bytes;
        settle(size);
        let warm = pull(&daemon, &second);
        let peak = peak_mib(&daemon);
        settle(size);
        let copy = copy(&daemon);
        discard(&daemon);
        settle(size);
        let download = download(stand, &first);
        settle(size);
        let steps = steps(stand, &first);
        // The first round fills the host's caches.
        if round > 0 {
            measured.cold.add_ms(cold.took);
            measured.second.add_ms(warm.took);
            measured.copy.add_ms(copy);
            measured.peak.add(peak);
            measured.steps.add_ms(steps);
            measured.download.add_ms(download);
        }
    }
    lines(table, size, bytes, &measured);
}

fn lines(table: &mut Table, size: Size, bytes: u64, measured: &Measured) {
    let what = format!(
        "pull and convert of {}, {} MB on disk",
        size.words(),
        bytes / 1_000_000
    );
    let cold = measured.cold.median();
    table.line(
        &what,
        measured.cold.text("ms"),
        format!("skopeo, umoci, mkfs.ext4 {}", measured.steps.text("ms")),
        format!("{:.2} × faster", measured.steps.median() / cold),
    );
    table.line(
        "the same",
        measured.cold.text("ms"),
        format!(
            "skopeo copy to a directory {}",
            measured.download.text("ms")
        ),
        format!("{:.2} ×", cold / measured.download.median()),
    );
    table.line(
        "a second image that has one small layer more",
        measured.second.text("ms"),
        format!("the first {}", measured.cold.text("ms")),
        format!("{:.0} %", measured.second.median() / cold * 100.0),
    );
    table.line(
        "the same",
        measured.second.text("ms"),
        format!("cp of its disk {}", measured.copy.text("ms")),
        format!("{:.2} ×", measured.second.median() / measured.copy.median()),
    );
    table.line(
        "peak memory of bangerd while it pulls both",
        measured.peak.text("MiB"),
        String::new(),
        String::new(),
    );
}

/// Has what a daemon does once done: its store stays empty.
fn warm_up(stand: &Stand, daemon: &Daemon) {
    let missing = stand.registry.reference("missing:bench");
    let asked = daemon.banger(["image", "pull", &missing]).done();
    assert_ne!(asked.code(), 0, "{}", asked.said());
}

struct Pulled {
    took: Duration,
    bytes: u64,
}

fn pull(daemon: &Daemon, reference: &str) -> Pulled {
    let run = daemon
        .banger(["image", "pull", reference, "--output", "json"])
        .timeout(PATIENCE);
    let begin = Instant::now();
    let image = run.ok().json();
    Pulled {
        took: begin.elapsed(),
        bytes: image["rootfs_allocated_bytes"].as_u64().unwrap(),
    }
}

/// A copy of one of the daemon's disks, which are as large as each other.
fn copy(daemon: &Daemon) -> Duration {
    let disks = fs::read_dir(daemon.state.join("rootfs")).unwrap();
    let mut disks = disks.map(|entry| entry.unwrap().path());
    let disk = disks.find(|path| path.extension().is_some_and(|end| end == "ext4"));
    let to = daemon.state.join("copy.ext4");
    let cp = Run::new("cp").arg(disk.unwrap()).arg(&to).timeout(PATIENCE);
    let begin = Instant::now();
    cp.ok();
    let took = begin.elapsed();
    fs::remove_file(to).unwrap();
    took
}

/// The download alone.
fn download(stand: &Stand, reference: &str) -> Duration {
    let work = stand.scratch.dir("download");
    let begin = Instant::now();
    let (from, to) = (
        format!("docker://{reference}"),
        format!("dir:{}", work.display()),
    );
    banger_e2e::image::copy(&stand.scratch, &from, &to);
    let took = begin.elapsed();
    fs::remove_dir_all(work).unwrap();
    took
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
    let at = format!("oci:{}:image", text(&layout));
    banger_e2e::image::copy(&stand.scratch, &format!("docker://{reference}"), &at);
    Run::new("umoci")
        .args(["unpack", "--image", at.trim_start_matches("oci:")])
        .arg(&bundle)
        .timeout(PATIENCE)
        .ok();
    let rootfs = bundle.join("rootfs");
    Run::new("/usr/sbin/mkfs.ext4")
        .args(["-q", "-F", "-d"])
        .arg(&rootfs)
        .arg(&disk)
        .arg("4G")
        .timeout(PATIENCE)
        .ok();
    let took = begin.elapsed();
    fs::remove_dir_all(work).unwrap();
    took
}
