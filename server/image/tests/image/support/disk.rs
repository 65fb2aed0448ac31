//! Looking at a finished disk with the tools of others: `e2fsck`, the kernel that mounts it, `umoci`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::TestImage;
use super::snapshot::snapshot;

/// Whether `program` ended well; says why where it did not.
pub fn run(program: &str, arguments: &[&OsStr]) -> bool {
    let output = Command::new(program).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("{program}: {}", String::from_utf8_lossy(&output.stderr));
            false
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            false
        }
    }
}

/// Nothing may be wrong with the disk.
pub fn fsck(disk: &Path) {
    let output = Command::new("e2fsck").arg("-fn").arg(disk).output();
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// A file system that is soon full; unmounted when dropped.
pub struct SmallDisk(Option<TempDir>);

impl SmallDisk {
    /// Of `size`, in the words of tmpfs(5); `None`, and said, where mounting is not allowed.
    pub fn mount(size: &str) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let arguments = ["-t", "tmpfs", "-o", &options, "tmpfs"].map(OsStr::new);
        if run(
            "mount",
            &[&arguments[..], &[at.path().as_os_str()]].concat(),
        ) {
            return Some(Self(Some(at)));
        }
        eprintln!("SKIPPED: mounting a tmpfs is not allowed here");
        None
    }

    pub fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }

    /// Fails if anybody uses it still.
    pub fn unmount(mut self) {
        let at = self.0.take().unwrap();
        assert!(run("umount", &[at.path().as_os_str()]));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(at) = &self.0 {
            run("umount", &[OsStr::new("-l"), at.path().as_os_str()]);
        }
    }
}

/// A mounted disk; unmounted when dropped.
pub struct Mounted(TempDir);

impl Mounted {
    /// `None`, and the test `name` is said to be skipped, where loop mounts are not allowed.
    pub fn new(disk: &Path, name: &str) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let arguments = [
            OsStr::new("-o"),
            OsStr::new("loop,ro,noload"),
            disk.as_os_str(),
            at.path().as_os_str(),
        ];
        if run("mount", &arguments) {
            return Some(Self(at));
        }
        eprintln!("SKIPPED {name}: loop mounts are not allowed here");
        None
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[self.0.path().as_os_str()]);
    }
}

/// What `umoci` makes of an image; `None`, and the test `name` is said to be skipped, where there is none or
/// the user may not give files away.
pub fn unpacked(image: &TestImage, name: &str) -> Option<BTreeMap<PathBuf, String>> {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root || Command::new("umoci").arg("--version").output().is_err() {
        eprintln!("SKIPPED {name}: it needs umoci, and root for the owners of files");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let (layout, bundle) = (
        directory.path().join("layout"),
        directory.path().join("bundle"),
    );
    image.write_layout(&layout);
    let source = format!("{}:latest", layout.display());
    let arguments = ["unpack", "--image", &source].map(OsStr::new);
    let done = run("umoci", &[&arguments[..], &[bundle.as_os_str()]].concat());
    assert!(done, "{name}: umoci cannot unpack this image");
    Some(snapshot(&bundle.join("rootfs")))
}

/// Every difference between two trees, one a line.
pub fn differences(
    ours: &BTreeMap<PathBuf, String>,
    theirs: &BTreeMap<PathBuf, String>,
) -> Vec<String> {
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let line = |tree: &BTreeMap<PathBuf, String>, path: &PathBuf| {
        tree.get(path)
            .map_or("is missing", String::as_str)
            .to_owned()
    };
    paths
        .into_iter()
        .map(|path| (path, line(ours, path), line(theirs, path)))
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(path, ours, theirs)| {
            format!("{}\n  ours   {ours}\n  theirs {theirs}", path.display())
        })
        .collect()
}
