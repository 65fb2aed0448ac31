//! Images: what they are measured with, a minimal Debian and a large image made of it.

pub(crate) mod bundle;
pub(crate) mod list;
pub(crate) mod pull;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_e2e::command::Done;
use banger_e2e::layer::Layer;
use banger_e2e::{Daemon, DaemonOptions, Run};

use crate::stand::Stand;

/// How long one step of a measurement may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(900);
/// More than a minimal Debian, so that it is an image of a usual size.
const PACKAGES: &str = "perl,python3,openssh-client,vim-tiny";
/// Copies of the system in the large image, each its own layer below a directory of its own.
const COPIES: usize = 4;

/// An image in the registry: the same one each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// A Debian with Perl and Python: one layer.
    Usual,
    /// That one several times over: about 1 GB on disk, several layers.
    Large,
}

impl Size {
    const fn tag(self) -> &'static str {
        match self {
            Self::Usual => "debian",
            Self::Large => "large",
        }
    }

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Usual => "a Debian image",
            Self::Large => "a large image",
        }
    }

    /// Bytes of memory that the slowest of what is measured with it has written to the page cache, and some more.
    const fn page_cache_bytes(self) -> usize {
        match self {
            Self::Usual => 1 << 30,
            Self::Large => 4 << 30,
        }
    }
}

/// What is to be before each thing that is measured: all is written that was to be written, so that nobody waits for what
/// another wrote; and there is free memory that was touched just now. Of a host that is a VM itself the hypervisor takes
/// what has been free for seconds, and to get it back takes ten times as long as to write to it.
pub(crate) fn settle(size: Size) {
    rustix::fs::sync();
    drop(std::hint::black_box(vec![1_u8; size.page_cache_bytes()]));
}

/// Puts the image into the registry, and returns its reference.
pub(crate) fn furnish(stand: &Stand, size: Size) -> String {
    let layout = layout(stand, size);
    let reference = stand.registry.reference(&format!("{}:bench", size.tag()));
    let source = format!("oci:{}:{}", layout.display(), size.tag());
    let there = format!("docker://{reference}");
    banger_e2e::image::copy(&stand.scratch, &source, &there);
    reference
}

/// Puts an image into the registry that has a small layer more, and returns its reference.
pub(crate) fn furnish_second(stand: &Stand, size: Size) -> String {
    let work = stand.scratch.dir("second");
    let copy = work.join("layout");
    Run::new("cp")
        .args([
            "-a".as_ref(),
            layout(stand, size).as_os_str(),
            copy.as_os_str(),
        ])
        .ok();
    let layer = work.join("small.tar");
    fs::write(
        &layer,
        Layer::default()
            .file("etc/second", 0o644, b"second\n")
            .tar(),
    )
    .unwrap();
    let at = format!("{}:{}", copy.display(), size.tag());
    umoci(&["raw", "add-layer", "--image", &at, layer.to_str().unwrap()]);
    let reference = stand.registry.reference(&format!("{}:second", size.tag()));
    banger_e2e::image::copy(
        &stand.scratch,
        &format!("oci:{at}"),
        &format!("docker://{reference}"),
    );
    fs::remove_dir_all(work).unwrap();
    reference
}

/// Puts an image of 200,000 small files into the registry, and returns its reference.
pub(crate) fn furnish_many_files(stand: &Stand) -> String {
    const DIRECTORIES: usize = 400;
    const FILES: usize = 500;
    let work = stand.scratch.dir("many-files");
    let mut layer = Layer::default();
    for directory in 0..DIRECTORIES {
        layer = layer.dir(&format!("directory-{directory:04}"), 0o755);
        for file in 0..FILES {
            let path = format!("directory-{directory:04}/a-file-with-a-name-{file:05}");
            layer = layer.file(&path, 0o644, path.as_bytes());
        }
    }
    let tar = work.join("many.tar");
    fs::write(&tar, layer.tar()).unwrap();
    let layout = work.join("layout");
    let at = format!("{}:many", layout.display());
    umoci(&["init", "--layout", layout.to_str().unwrap()]);
    umoci(&["new", "--image", &at]);
    umoci(&["raw", "add-layer", "--image", &at, tar.to_str().unwrap()]);
    let reference = stand.registry.reference("many:bench");
    banger_e2e::image::copy(
        &stand.scratch,
        &format!("oci:{at}"),
        &format!("docker://{reference}"),
    );
    fs::remove_dir_all(work).unwrap();
    reference
}

/// An OCI layout of an image, made once by debootstrap and kept.
fn layout(stand: &Stand, size: Size) -> PathBuf {
    let layout = stand.cache.join(size.tag());
    if layout.join("index.json").is_file() {
        return layout;
    }
    let work = stand.cache.join("work");
    let _ = fs::remove_dir_all(&work);
    let _ = fs::remove_dir_all(&layout);
    fs::create_dir_all(&work).unwrap();
    let making = work.join("layout");
    let at = format!("{}:{}", making.display(), size.tag());
    umoci(&["init", "--layout", making.to_str().unwrap()]);
    umoci(&["new", "--image", &at]);
    let copies = match size {
        Size::Usual => 0,
        Size::Large => COPIES,
    };
    let root = root(stand);
    for layer in layers(&root, &work, copies) {
        umoci(&["raw", "add-layer", "--image", &at, layer.to_str().unwrap()]);
        fs::remove_file(layer).unwrap();
    }
    fs::rename(&making, &layout).unwrap();
    fs::remove_dir_all(&work).unwrap();
    layout
}

/// The system's files, made once and kept.
fn root(stand: &Stand) -> PathBuf {
    let root = stand.cache.join("root");
    if root.join("etc/debian_version").is_file() {
        return root;
    }
    let _ = fs::remove_dir_all(&root);
    let include = format!("--include={PACKAGES}");
    Run::new("debootstrap")
        .args(["--variant=minbase", &include, "bookworm"])
        .arg(&root)
        .timeout(PATIENCE)
        .ok();
    let _ = fs::remove_dir_all(root.join("var/cache/apt/archives"));
    root
}

/// The system as a layer, then copies of it, each below a directory of its own, so that no layer is another's.
fn layers(root: &Path, work: &Path, copies: usize) -> Vec<PathBuf> {
    (0..=copies)
        .map(|number| {
            let layer = work.join(format!("{number}.tar"));
            let mut tar = Run::new("tar");
            tar = tar
                .arg("-cf")
                .arg(&layer)
                .args(["--numeric-owner", "--xattrs", "-C"])
                .arg(root);
            if number > 0 {
                tar = tar.arg(format!("--transform=s,^\\.,./copy{number},"));
            }
            tar.arg(".").timeout(PATIENCE).ok();
            layer
        })
        .collect()
}

fn umoci(words: &[&str]) -> Done {
    Run::new("umoci").args(words).timeout(PATIENCE).ok()
}

/// A daemon with an empty store.
pub(crate) fn daemon(stand: &Stand, name: &str) -> Daemon {
    Daemon::start(
        &stand.scratch,
        &stand.binaries,
        name,
        DaemonOptions::default(),
    )
}

/// Ends a daemon of [`daemon`], and removes what it kept.
pub(crate) fn discard(daemon: &Daemon) {
    daemon.clear();
    fs::remove_dir_all(&daemon.state).unwrap();
}

/// The most memory a daemon has had, MiB.
pub(crate) fn peak_mib(daemon: &Daemon) -> f64 {
    let path = format!("/proc/{}/status", daemon.pid().as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}
