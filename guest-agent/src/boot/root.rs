//! Builds the root of a guest, the writable upper disk over the read-only base disk, and goes there.
//!
//! The initramfs cannot be left by `pivot_root`: the new root is moved over it, and what it held is
//! deleted, since nothing else would give its memory back.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount_move};
use rustix::process::{chdir, chroot};

use super::disks::Disks;
use super::{BootError, During, Kernel, Mounted};
use crate::agent::kernel_text;

const BASE: &str = "/banger/base";
const UPPER: &str = "/banger/upper";
const WRITTEN: &str = "/banger/upper/upper";
const ROOT: &str = "/banger/root";
/// Renaming a directory of the base disk works with `redirect_dir`.
const OVERLAY: &CStr =
    c"lowerdir=/banger/base,upperdir=/banger/upper/upper,workdir=/banger/upper/work,redirect_dir=on";
/// The same for kernels that cannot, and for guests whose changes are to be told without the base disk.
const PLAIN_OVERLAY: &CStr =
    c"lowerdir=/banger/base,upperdir=/banger/upper/upper,workdir=/banger/upper/work";
/// On the kernel's command line: directories are renamed by copying them.
const PLAIN_WORD: &str = "banger.overlay=plain";
/// Levels of the initramfs that are deleted.
const DEPTH_MAX: usize = 8;

/// Mounts the disks and the overlay.
pub(super) fn mount(kernel: &Arc<Kernel>, disks: &Disks) -> Result<Mounted, BootError> {
    for path in [BASE, UPPER, ROOT] {
        fs::create_dir_all(path).during(format!("making {path}"))?;
    }
    // Without the journal: it would have to be replayed onto a disk that cannot be written.
    disk(&disks.base, BASE, MountFlags::RDONLY, c"noload")
        .during(format!("mounting the base disk {}", disks.base))?;
    disk(&disks.upper, UPPER, MountFlags::NOATIME, c"")
        .during(format!("mounting the upper disk {}", disks.upper))?;
    for path in ["upper", "work"] {
        let path = Path::new(UPPER).join(path);
        fs::create_dir_all(&path).during(format!("making {}", path.display()))?;
    }
    let overlay = |options| {
        rustix::mount::mount(
            "overlay",
            ROOT,
            "overlay",
            MountFlags::empty(),
            Some(options),
        )
    };
    let line = kernel_text("/proc/cmdline");
    let mounting = match line.split_whitespace().any(|word| word == PLAIN_WORD) {
        true => overlay(PLAIN_OVERLAY),
        false => overlay(OVERLAY).or_else(|_| overlay(PLAIN_OVERLAY)),
    };
    mounting.during("mounting the overlay")?;
    let open = |path: &str| -> Result<Arc<OwnedFd>, BootError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        opened.map(Arc::new).during(format!("opening {path}"))
    };
    Ok(Mounted {
        base: open(BASE)?,
        upper: open(UPPER)?,
        written: open(WRITTEN)?,
        upper_device: disks.upper.trim_start_matches("/dev/").to_owned(),
        kernel: Arc::clone(kernel),
    })
}

fn disk(device: &str, path: &str, flags: MountFlags, options: &CStr) -> rustix::io::Result<()> {
    rustix::mount::mount(device, path, "ext4", flags, Some(options))
}

/// Makes the overlay the root of everything, and takes the kernel's file systems along.
pub(super) fn enter() -> Result<(), BootError> {
    for path in ["/dev", "/proc", "/sys"] {
        let target = format!("{ROOT}{path}");
        match fs::create_dir(&target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).during(format!("making {path}"));
            }
            _ => {}
        }
        mount_move(path, target.as_str()).during(format!("moving {path}"))?;
    }
    chdir(ROOT).during("entering the new root")?;
    empty_initramfs();
    mount_move(".", "/").during("moving the new root")?;
    chroot(".").during("changing the root")?;
    chdir("/").during("entering the new root")
}

/// Deletes what the initramfs holds. What stays only costs memory.
fn empty_initramfs() {
    if let Ok(root) = fs::metadata("/") {
        delete(Path::new("/"), root.dev(), DEPTH_MAX);
    }
}

/// Deletes the content of a directory, without leaving its file system.
fn delete(directory: &Path, device: u64, depth: usize) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(data) if data.dev() != device => {}
            Ok(data) if data.is_dir() && depth > 0 => delete(&path, device, depth - 1),
            Ok(data) if !data.is_dir() => {
                let _ = fs::remove_file(&path);
            }
            _ => {}
        }
    }
}
