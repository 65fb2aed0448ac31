//! The kinds of image and kernel work, and what they stand on: files, a registry, a catalog by a web server.

use std::fs;
use std::path::{Path, PathBuf};

use banger_e2e::Daemon;
use banger_e2e::layer::Layer;
use banger_e2e::made::MadeKernel;
use banger_e2e::web::WebServer;

use super::clear;
use crate::suite::{LONG, Suite};

/// The kernel that the catalog has, and that its image is meant for.
const KERNEL: &str = "made";
/// The image that the catalog has.
const BUNDLE: &str = "bundle:1";

/// What is disturbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) what: &'static str,
    pub(super) words: Vec<String>,
    /// What must be there first, as commands.
    pub(super) first: Vec<Vec<String>>,
}

/// All the kinds of work on one daemon.
pub(super) struct Works {
    pub(super) works: Vec<Work>,
    _catalog: WebServer,
}

pub(super) fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|word| (*word).to_owned()).collect()
}

impl Works {
    /// Makes what they need, with the daemon itself, which has nothing afterwards but the catalog.
    pub(super) fn prepare(suite: &Suite, daemon: &Daemon, place: &Path) -> Self {
        let reference = suite.reference();
        let kernel = MadeKernel::write(place, &noise());
        let exported = place.join("made.kernel.tar.zst");
        let catalog = make_catalog(suite, daemon, &kernel, place);
        daemon
            .banger(["kernel", "export", KERNEL, text(&exported)])
            .ok();
        clear(daemon);
        Self {
            works: works(suite, &reference, &kernel, &exported, place),
            _catalog: catalog,
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A catalog of the test image and a kernel for it, which the daemon is then given.
fn make_catalog(suite: &Suite, daemon: &Daemon, kernel: &MadeKernel, place: &Path) -> WebServer {
    let (directory, reference) = (place.join("catalog"), suite.reference());
    daemon.banger(import_kernel(kernel)).ok();
    daemon
        .banger(["image", "pull", &reference, "--kernel", KERNEL])
        .ok();
    daemon.banger(["image", "tag", &reference, BUNDLE]).ok();
    let key = place.join("key");
    let built = daemon
        .banger(["catalog", "build", text(&directory), "--name", "e2e"])
        .args(["--key", text(&key), "--image", BUNDLE, "--output", "json"])
        .timeout(LONG)
        .ok()
        .json();
    let server = WebServer::serve(&suite.scratch, &directory);
    let key = built["public_key"].as_str().unwrap();
    daemon
        .banger(["catalog", "add", &server.url, "--key", key])
        .ok();
    server
}

fn import_kernel(kernel: &MadeKernel) -> Vec<String> {
    let files = ["--modules", text(&kernel.modules), text(&kernel.vmlinux)];
    let mut import = words(&["kernel", "import", "--name", KERNEL, "--replace"]);
    import.extend(words(&files));
    import
}

fn works(
    suite: &Suite,
    reference: &str,
    kernel: &MadeKernel,
    exported: &Path,
    place: &Path,
) -> Vec<Work> {
    let work = |what, words: Vec<String>, first| Work { what, words, first };
    let pull = words(&["image", "pull", reference]);
    let rootfs: PathBuf = place.join("rootfs.tar");
    fs::write(&rootfs, noise_layer()).unwrap();
    let import = words(&[
        "image",
        "import",
        text(&rootfs),
        "noise:1",
        "--format",
        "rootfs-tar",
    ]);
    let layout = text(&suite.image().layout).to_owned();
    let import_layout = words(&["image", "import", &layout, "layout:1"]);
    // Its kernel comes along, unless it is here.
    let pull_bundle = words(&["image", "pull", BUNDLE]);
    let import_exported = words(&[
        "kernel",
        "import",
        text(exported),
        "--name",
        "carried",
        "--replace",
    ]);
    vec![
        work("pull", pull.clone(), Vec::new()),
        work("import", import.clone(), Vec::new()),
        work("import of a layout", import_layout, Vec::new()),
        work("pull of a bundle", pull_bundle.clone(), Vec::new()),
        work(
            "pull of a kernel",
            words(&["kernel", "pull", KERNEL, "--replace"]),
            Vec::new(),
        ),
        work("import of a kernel", import_kernel(kernel), Vec::new()),
        work(
            "import of a kernel's bundle",
            import_exported.clone(),
            Vec::new(),
        ),
        work(
            "prune",
            words(&["image", "prune", "--all"]),
            vec![pull.clone(), import, pull_bundle],
        ),
        work("remove", words(&["image", "remove", reference]), vec![pull]),
        work(
            "remove of a kernel",
            words(&["kernel", "remove", "carried"]),
            vec![import_exported],
        ),
    ]
}

/// What no compression makes small.
fn noise() -> Vec<u8> {
    let noise = (0..1_000_000_u32).map(|number| number.wrapping_mul(2_654_435_761).rotate_left(13));
    noise.flat_map(u32::to_le_bytes).collect()
}

/// A root filesystem of it.
pub(super) fn noise_layer() -> Vec<u8> {
    let mut layer = Layer::default()
        .dir("files", 0o755)
        .file("noise", 0o644, &noise());
    for number in 0..200 {
        layer = layer.file(
            &format!("files/{number}"),
            0o644,
            number.to_string().as_bytes(),
        );
    }
    layer.tar()
}
