//! Makes the initramfs that the real guests of these tests boot.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A directory with `vmlinux` and `modules/*.ko` (uncompressed, any order): the guest kernel of the tests.
pub(crate) const KERNEL_DIR: &str = "BANGER_TEST_KERNEL_DIR";

/// The modules the test guest needs, where the kernel does not have them built in.
const MODULES: [&str; 9] = [
    "virtio",
    "virtio_ring",
    "virtio_mmio",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "failover",
    "net_failover",
    "virtio-rng",
];

/// What boots.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

/// The guest, made once per test process; `None`, and a line that says so, where no kernel was given.
pub(crate) fn guest(rule: &str) -> Option<Guest> {
    static GUEST: OnceLock<Option<Guest>> = OnceLock::new();
    let guest = GUEST.get_or_init(|| {
        let dir = PathBuf::from(std::env::var_os(KERNEL_DIR)?);
        Some(Guest {
            kernel: dir.join("vmlinux"),
            initramfs: initramfs(&dir),
        })
    });
    if guest.is_none() {
        skipped(rule, &format!("{KERNEL_DIR} is not set"));
    }
    guest.clone()
}

/// The guest for a kernel that has everything built in.
pub(crate) fn guest_of(kernel: PathBuf) -> Guest {
    static INITRAMFS: OnceLock<PathBuf> = OnceLock::new();
    let without_modules = Path::new("/nonexistent");
    let initramfs = INITRAMFS.get_or_init(|| initramfs(without_modules)).clone();
    Guest { kernel, initramfs }
}

/// Says that a rule was not tested, even where the test runner keeps what tests print to itself.
pub(crate) fn skipped(rule: &str, reason: &str) {
    // Nothing can be done about a standard error that is closed.
    let _ = writeln!(io::stderr(), "SKIPPED {rule}: {reason}");
}

/// Made once per kernel and version of the test guest; test processes that race make the same file.
fn initramfs(kernel_dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/init.rs");
    let mut members = Vec::new();
    let mut hash = DefaultHasher::new();
    fs::read(&source).unwrap().hash(&mut hash);
    for module in MODULES {
        let file = kernel_dir.join("modules").join(format!("{module}.ko"));
        if let Ok(bytes) = fs::read(file) {
            bytes.hash(&mut hash);
            members.push((format!("banger/modules/{module}.ko"), bytes));
        }
    }
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = dir.join(format!("guest-{:016x}.cpio", hash.finish()));
    if path.is_file() {
        return path;
    }
    let scratch = tempfile::tempdir_in(&dir).unwrap();
    let mut archive = Vec::new();
    for name in ["dev", "proc", "sys", "banger", "banger/modules"] {
        archive = member(archive, name, 0o040_755, &[]);
    }
    let init = fs::read(compile(&source, scratch.path())).unwrap();
    archive = member(archive, "init", 0o100_755, &init);
    for (name, bytes) in members {
        archive = member(archive, &name, 0o100_644, &bytes);
    }
    let made = scratch.path().join("initramfs.cpio");
    fs::write(&made, cpio::newc::trailer(archive).unwrap()).unwrap();
    fs::rename(made, &path).unwrap();
    path
}

fn member(archive: Vec<u8>, name: &str, mode: u32, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    let mut writer = cpio::newc::Builder::new(name)
        .mode(mode)
        .write(archive, length);
    io::copy(&mut &bytes[..], &mut writer).unwrap();
    writer.finish().unwrap()
}

fn compile(source: &Path, dir: &Path) -> PathBuf {
    let output = dir.join("init");
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let done = Command::new(compiler)
        .args([
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
        ])
        .args(["-C", "panic=abort", "-C", "strip=symbols", "-o"])
        .args([&output, source])
        .status()
        .unwrap();
    assert!(done.success(), "the test guest's process 1 compiles");
    output
}
