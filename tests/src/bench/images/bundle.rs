//! A bundle from a web server on loopback to a base disk, beside a download that is decompressed into a file.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use banger_e2e::kernel::PACKAGE;
use banger_e2e::web::WebServer;
use banger_e2e::{Daemon, Run};

use super::{PATIENCE, Size, daemon, discard, furnish, settle};
use crate::stand::Stand;
use crate::table::{Figures, Table};

const ROUNDS: usize = 7;
/// What the image is called in the catalog.
const NAME: &str = "bench:1.0";

pub(crate) fn measure(stand: &Stand, table: &mut Table) {
    let site = stand.scratch.dir("catalog");
    let daemon = daemon(stand, "bundle");
    daemon
        .banger(["kernel", "import", "--debian-package", PACKAGE])
        .timeout(PATIENCE)
        .ok();
    let server = publish(stand, &daemon, &site);
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    let mut bytes = 0;
    for round in 0..=ROUNDS {
        daemon.banger(["image", "prune", "--all"]).ok();
        settle(Size::Usual);
        let (pulled, size) = pull(&daemon);
        settle(Size::Usual);
        let plain = plain(stand, &server.url, &site);
        bytes = size;
        if round > 0 {
            ours.add_ms(pulled);
            theirs.add_ms(plain);
        }
    }
    table.line(
        &format!(
            "pull of the same as a bundle, {} MB on disk",
            bytes / 1_000_000
        ),
        ours.text("ms"),
        format!("curl, zstd -d to a file {}", theirs.text("ms")),
        format!("{:.2} ×", ours.median() / theirs.median()),
    );
    discard(&daemon);
}

/// Makes a catalog of the image, serves it, and adds it to the daemon.
fn publish(stand: &Stand, daemon: &Daemon, site: &Path) -> WebServer {
    let reference = furnish(stand, Size::Usual);
    daemon
        .banger(["image", "pull", &reference])
        .timeout(PATIENCE)
        .ok();
    daemon.banger(["image", "tag", &reference, NAME]).ok();
    let key = stand.scratch.dir("catalog-key").join("key");
    let words = [
        "catalog",
        "build",
        site.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ];
    let built = daemon
        .banger(words)
        .args(["--name", "bench", "--image", NAME, "--output", "json"])
        .timeout(PATIENCE)
        .ok()
        .json();
    let server = WebServer::serve(&stand.scratch, site);
    let key = built["public_key"].as_str().unwrap();
    daemon
        .banger(["catalog", "add", &server.url, "--key", key])
        .ok();
    server
}

fn pull(daemon: &Daemon) -> (Duration, u64) {
    let run = daemon
        .banger([
            "image", "pull", NAME, "--source", "catalog", "--output", "json",
        ])
        .timeout(PATIENCE);
    let begin = Instant::now();
    let image = run.ok().json();
    let took = begin.elapsed();
    (took, image["rootfs_allocated_bytes"].as_u64().unwrap())
}

/// The download, decompressed into a file.
fn plain(stand: &Stand, url: &str, site: &Path) -> Duration {
    let file = fs::read_dir(site.join("images"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .find(|name| name.contains("bench") && name.ends_with(".tar.zst"))
        .unwrap();
    let to = stand.scratch.dir("plain").join("rootfs.tar");
    let script = format!(
        "curl -sf {url}images/{file} | zstd -q -d > {}",
        to.display()
    );
    let begin = Instant::now();
    Run::new("bash")
        .args(["-o", "pipefail", "-c", &script])
        .timeout(PATIENCE)
        .ok();
    let took = begin.elapsed();
    fs::remove_file(to).unwrap();
    took
}
