//! The kernel's own file systems: first those that devices are found by, then those that programs expect.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::{BootError, During};

/// Handles on the kernel's file systems, which stay right while those are moved to the new root.
#[derive(Debug)]
pub struct Kernel {
    /// `/sys`.
    pub sys: OwnedFd,
    /// `/dev`.
    pub dev: OwnedFd,
    /// `/proc`.
    pub proc: OwnedFd,
}

/// Links in `/dev` that programs expect.
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// Mounts what devices are found by, and opens the console if the kernel could not.
pub(super) fn early() -> Result<Kernel, BootError> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    mounted("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755")?;
    console();
    mounted("proc", "/proc", quiet, "")?;
    mounted("sysfs", "/sys", quiet, "")?;
    let open = |path: &str| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).during(format!("opening {path}"))
    };
    Ok(Kernel {
        sys: open("/sys")?,
        dev: open("/dev")?,
        proc: open("/proc")?,
    })
}

/// Standard input, output and error, which the kernel leaves closed where the initramfs has no console.
fn console() {
    while let Ok(file) = File::options().read(true).write(true).open("/dev/console") {
        let fd = OwnedFd::from(file);
        let number = rustix::fd::AsRawFd::as_raw_fd(&fd);
        if number > 2 {
            return;
        }
        // The three lowest numbers stay open for ever, and for the children too.
        let _ = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty());
        std::mem::forget(fd);
    }
}

/// Mounts what programs expect in the new root, to which the early mounts were moved.
pub(super) fn late() -> Result<(), BootError> {
    for (link, target) in LINKS {
        // An image may have its own.
        let _ = symlink(target, link);
    }
    let nosuid = MountFlags::NOSUID | MountFlags::NODEV;
    let noexec = nosuid | MountFlags::NOEXEC;
    mounted(
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        "gid=5,mode=620,ptmxmode=666",
    )?;
    mounted("tmpfs", "/dev/shm", nosuid, "mode=1777")?;
    mounted("tmpfs", "/run", nosuid, "mode=755")?;
    // Not every kernel has message queues.
    let _ = mounted("mqueue", "/dev/mqueue", noexec, "");
    if !Path::new("/tmp").exists() {
        directory("/tmp")?;
        fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777)).during("making /tmp")?;
    }
    cgroups();
    protect_names();
    Ok(())
}

/// What distributions set, against users who plant links, pipes and files where others follow or write them
/// (proc_sys_fs(5)); the kernel's own default is none of it. An image's own init may set otherwise.
fn protect_names() {
    for (setting, value) in [
        ("protected_hardlinks", "1"),
        ("protected_symlinks", "1"),
        ("protected_fifos", "1"),
        ("protected_regular", "2"),
    ] {
        // An older kernel knows fewer.
        let _ = fs::write(format!("/proc/sys/fs/{setting}"), value);
    }
}

/// Cgroups, where the kernel has them: sessions do without where it has not.
fn cgroups() {
    let path = "/sys/fs/cgroup";
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // With the option a process enters its cgroup without waiting for all processors.
    if mounted("cgroup2", path, flags, "nsdelegate,favordynmods").is_err()
        && mounted("cgroup2", path, flags, "").is_err()
    {
        return;
    }
    for controller in ["+memory", "+pids"] {
        // Without it, running out of memory looks like any other SIGKILL.
        let _ = fs::write(format!("{path}/cgroup.subtree_control"), controller);
    }
}

fn directory(path: &str) -> Result<(), BootError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).during(format!("making {path}"))
        }
        _ => Ok(()),
    }
}

/// Mounts a file system of the kernel; one that is there already is fine.
fn mounted(kind: &str, path: &str, flags: MountFlags, data: &str) -> Result<(), BootError> {
    directory(path)?;
    let data = std::ffi::CString::new(data).map_err(io::Error::from);
    let data = data.during(format!("mounting {path}"))?;
    match mount(kind, path, kind, flags, Some(data.as_c_str())) {
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(error).during(format!("mounting {kind} on {path}")),
    }
}
