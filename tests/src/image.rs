//! Images made by other tools: busybox in layers, put together by umoci, carried by skopeo.

use std::fs;
use std::path::{Path, PathBuf};

use crate::layer::Layer;
use crate::scratch::Scratch;

/// Debian's static busybox.
const BUSYBOX: &str = "/bin/busybox";
/// A name that no single tar header holds.
pub const LONG_NAME_LENGTH: usize = 200;

/// The test image in an OCI layout.
#[derive(Debug)]
pub struct TestImage {
    /// The layout's directory.
    pub layout: PathBuf,
    /// The tag in it.
    pub tag: &'static str,
}

impl TestImage {
    /// Makes it: three layers, with what later layers replace and remove.
    #[must_use]
    pub fn make(scratch: &Scratch) -> Self {
        let directory = scratch.dir("image");
        let layout = directory.join("layout");
        let tag = "box";
        let at = format!("{}:{tag}", layout.display());
        let umoci = |arguments: &[&str]| drop(scratch.run("umoci").args(arguments).ok());
        umoci(&["init", "--layout", layout.to_str().unwrap()]);
        umoci(&["new", "--image", &at]);
        for (number, layer) in [base(), middle(), top()].into_iter().enumerate() {
            let file = directory.join(format!("{number}.tar"));
            fs::write(&file, layer.tar()).unwrap();
            umoci(&["raw", "add-layer", "--image", &at, file.to_str().unwrap()]);
        }
        umoci(&[
            "config",
            "--image",
            &at,
            "--config.env=FROM_IMAGE=yes",
            "--config.env=PATH=/usr/bin:/bin:/sbin",
            "--config.workingdir=/work",
            "--config.cmd=/bin/sh",
            "--config.cmd=-c",
            "--config.cmd=echo the image speaks",
            "--config.label=test.purpose=e2e",
        ]);
        Self { layout, tag }
    }

    /// Copies it by skopeo to a destination in skopeo's words.
    pub fn copy_to(&self, scratch: &Scratch, destination: &str) {
        let source = format!("oci:{}:{}", self.layout.display(), self.tag);
        copy(scratch, &source, destination);
    }

    /// Its root filesystem as one tar, as `tar` of an unpacked image would be.
    #[must_use]
    pub fn rootfs_tar() -> Vec<u8> {
        base().tar()
    }
}

/// Copies an image by skopeo.
pub fn copy(scratch: &Scratch, source: &str, destination: &str) {
    scratch
        .run("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
        ])
        .args([source, destination])
        .ok();
}

/// Programs of this machine with the libraries they need, as a tree in `top`: for guests whose image lacks them.
#[must_use]
pub fn host_programs(top: &Path, programs: &[&str]) -> PathBuf {
    let tree = top.join("programs");
    for program in programs {
        let linked = crate::Run::new("ldd").arg(program).ok().out();
        let libraries = linked
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for file in libraries.chain([*program]) {
            let to = tree.join(file.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(file, to).unwrap();
        }
    }
    tree
}

/// busybox with all its names, users, directories.
fn base() -> Layer {
    let busybox = fs::read(BUSYBOX).unwrap();
    let mut layer = Layer::default();
    for directory in [
        "bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "usr/bin", "var", "work",
    ] {
        layer = layer.dir(directory, 0o755);
    }
    layer = layer.dir("tmp", 0o1777);
    layer = layer.file("bin/busybox", 0o755, &busybox);
    for applet in applets() {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer
        .file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/home/app:/bin/sh\n",
        )
        .file(
            "etc/group",
            0o644,
            b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n",
        )
        .file("etc/replaced", 0o644, b"old\n")
        .file("etc/removed", 0o644, b"still here\n")
        .dir("opaque", 0o755)
        .file("opaque/below", 0o644, b"hidden\n")
        .entry(
            "home/app",
            tar::EntryType::Directory,
            0o700,
            (1000, 1000),
            "",
            &[],
        )
}

fn middle() -> Layer {
    Layer::default()
        .file("etc/replaced", 0o644, b"new\n")
        .file("etc/.wh.removed", 0o644, b"")
        .dir("opaque", 0o755)
        .file("opaque/.wh..wh..opq", 0o644, b"")
        .file("opaque/above", 0o644, b"seen\n")
}

fn top() -> Layer {
    let long = format!("work/{}", "n".repeat(LONG_NAME_LENGTH));
    Layer::default()
        .dir("data", 0o755)
        .file_of("data/owned", 0o640, (1000, 2000), b"mine\n")
        .file("data/setuid", 0o4755, b"#!/bin/sh\n")
        .file("data/linked", 0o644, b"one\n")
        .link("data/hard", "data/linked")
        .file(&long, 0o644, b"long\n")
}

fn applets() -> Vec<String> {
    let done = crate::Run::new(BUSYBOX).arg("--list").ok();
    done.out()
        .lines()
        .map(str::to_owned)
        .filter(|name| name != "busybox")
        .collect()
}

/// Whether a path is a program that needs no library.
#[must_use]
pub fn is_static(program: &Path) -> bool {
    !crate::Run::new("ldd").arg(program).done().status.success()
}
