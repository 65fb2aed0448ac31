//! The state directory: what it lies on, who may look into it, and what of it is there.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use banger_core::doctor::Finding;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::check::{Check, Right};
use super::host::{Host, MendError};
use super::mounts::{self, Mount};

/// What a state directory has, as the stores make it.
const DIRECTORIES: [&str; 9] = [
    "vms",
    "tmp",
    "tmp/images",
    "tmp/kernels",
    "blobs/sha256",
    "rootfs",
    "kernels",
    "build/steps",
    "build/results",
];
/// The rights that others than the owner have.
const OTHERS: u32 = 0o077;
/// The rights of a state directory.
const MODE: u32 = 0o700;
/// The length of the file with which the disk is tried.
const TRIED_BYTES: u64 = 1 << 20;
/// `st_blocks` counts in these (stat(2)).
const BLOCK_BYTES: u64 = 512;
/// File systems that keep what is written, on a disk of this host.
const LOCAL: [&str; 9] = [
    "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "ext3", "ext2", "jfs",
];
/// File systems that another machine keeps.
const REMOTE: [&str; 10] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "virtiofs",
    "ceph",
    "glusterfs",
    "afs",
    "lustre",
];

pub(super) const CHECKS: [Check; 5] = [
    Check::files(
        "STATE_PERMISSIONS",
        "The state directory is writable for the daemon and closed to others",
        permissions,
    )
    .mended_by(Right::Daemon, close),
    Check::files(
        "STATE_DIRECTORIES",
        "Everything that belongs into the state directory is there",
        directories,
    )
    .mended_by(Right::Daemon, make_directories),
    Check::files(
        "STATE_FILE_SYSTEM",
        "The state directory is on a local disk",
        file_system,
    ),
    Check::files("STATE_REFLINK", "Disks are copied by reference", reflink),
    Check::files(
        "STATE_SPARSE_FILES",
        "Disks take only the space of what is written to them",
        sparse,
    ),
];

fn permissions(host: &Host) -> Finding {
    let dir = &host.state_dir;
    let unusable = |error: io::Error| {
        Finding::problem(
            format!("{} cannot be used: {error}", dir.display()),
            "Nothing can be kept there.",
        )
        .remedy("Give the directory to the daemon's user.")
        .command(format!("chown -R \"$USER\": {}", dir.display()))
    };
    let metadata = match fs::metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) => return unusable(error),
    };
    if let Err(error) = tempfile::tempfile_in(dir) {
        return unusable(error);
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Finding::ok(format!("{} {mode:04o}", dir.display()));
    }
    Finding::warning(
        format!("{} has mode {mode:04o}", dir.display()),
        "Other users of this host can look at disks of VMs and at what was pulled with credentials.",
    )
    .remedy("Close it.")
    .command(format!("chmod {MODE:04o} {}", dir.display()))
}

fn close(host: &Host) -> Result<String, MendError> {
    let dir = &host.state_dir;
    fs::set_permissions(dir, fs::Permissions::from_mode(MODE)).map_err(|source| {
        MendError::Step {
            step: format!("set the mode of {}", dir.display()),
            source,
        }
    })?;
    Ok(format!("set the mode of {} to {MODE:04o}", dir.display()))
}

fn missing(host: &Host) -> Vec<&'static str> {
    DIRECTORIES
        .into_iter()
        .filter(|name| !host.state_dir.join(name).is_dir())
        .collect()
}

fn directories(host: &Host) -> Finding {
    let missing = missing(host);
    if missing.is_empty() {
        return Finding::ok(format!("{} directories", DIRECTORIES.len()));
    }
    Finding::problem(
        format!("missing: {}", missing.join(", ")),
        "They were removed behind the daemon's back; what needs them fails.",
    )
    .remedy("Make them, or start the daemon anew.")
    .command("banger doctor --fix")
}

fn make_directories(host: &Host) -> Result<String, MendError> {
    let missing = missing(host);
    for name in &missing {
        let path = host.state_dir.join(name);
        fs::create_dir_all(&path).map_err(|source| MendError::Step {
            step: format!("make {}", path.display()),
            source,
        })?;
    }
    Ok(format!("made {}", missing.join(", ")))
}

fn file_system(host: &Host) -> Finding {
    let dir = fs::canonicalize(&host.state_dir).unwrap_or_else(|_| host.state_dir.clone());
    match mounts::of_path(&mounts::all(host), &dir) {
        None => Finding::skipped("/proc/self/mountinfo does not tell where it is"),
        Some(mount) => judge_mount(mount),
    }
}

fn judge_mount(mount: &Mount) -> Finding {
    let kind = mount.kind.as_str();
    let found = format!("{kind} on {} ({})", mount.point, mount.source);
    let remedy = "Move the state directory to a local disk (state_dir in the configuration).";
    if LOCAL.contains(&kind) {
        return Finding::ok(found);
    }
    if kind == "tmpfs" || kind == "ramfs" {
        return Finding::warning(
            found,
            "It is memory: VMs and images are gone when the host restarts, and take memory until then.",
        )
        .remedy(remedy);
    }
    if REMOTE.contains(&kind) || kind.starts_with("fuse") {
        return Finding::warning(
            found,
            "Locks and syncs of the database and the disks depend on another machine or program, and may hang with it.",
        )
        .remedy(remedy);
    }
    Finding::warning(
        found,
        "banger is not tested on it; on overlay file systems, disks are copied whole when they are first written.",
    )
    .remedy(remedy)
}

/// Copies a file by reference, in the directory where disks are.
fn reflink(host: &Host) -> Finding {
    let tried = || -> io::Result<()> {
        let mut from = tempfile::tempfile_in(&host.state_dir)?;
        from.write_all(&[1; 4096])?;
        let to = tempfile::tempfile_in(&host.state_dir)?;
        rustix::fs::ioctl_ficlone(&to, &from)?;
        Ok(())
    };
    judge_reflink(tried())
}

fn judge_reflink(tried: io::Result<()>) -> Finding {
    match tried {
        Ok(()) => Finding::ok("a copy by reference was made"),
        Err(error) if is_unsupported(&error) => Finding::warning(
            "the file system cannot",
            "Copies of disks are made piece by piece: right, and slower and larger the more a disk holds.",
        )
        .remedy("Put the state directory on XFS (with reflink=1, its default) or btrfs."),
        Err(error) => Finding::problem(
            format!("the try failed: {error}"),
            "A file in the state directory could not be written.",
        )
        .remedy("Look at the disk: its space, its quota, the kernel's log.")
        .command("dmesg | tail"),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    let errnos = [
        Errno::OPNOTSUPP,
        Errno::NOTTY,
        Errno::NOSYS,
        Errno::INVAL,
        Errno::XDEV,
    ];
    let number = error.raw_os_error();
    errnos
        .iter()
        .any(|errno| number == Some(errno.raw_os_error()))
}

/// Makes a file with a hole, writes into it, and makes a hole of that again.
fn sparse(host: &Host) -> Finding {
    let tried = || -> io::Result<(u64, u64)> {
        let mut file = tempfile::tempfile_in(&host.state_dir)?;
        file.set_len(TRIED_BYTES)?;
        let empty = file.metadata()?.blocks() * BLOCK_BYTES;
        file.write_all(&vec![1; usize::try_from(TRIED_BYTES).unwrap_or(0)])?;
        file.sync_data()?;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, punch, 0, TRIED_BYTES)?;
        Ok((empty, file.metadata()?.blocks() * BLOCK_BYTES))
    };
    judge_sparse(tried())
}

fn judge_sparse(tried: io::Result<(u64, u64)>) -> Finding {
    let remedy = "Put the state directory on ext4, XFS or btrfs.";
    match tried {
        Ok((empty, punched)) if empty < TRIED_BYTES && punched < TRIED_BYTES => {
            Finding::ok("holes take no space, and what a guest discards is given back")
        }
        Ok((empty, _)) if empty >= TRIED_BYTES => Finding::warning(
            "an empty file takes its whole length",
            "Every VM takes its whole disk at once.",
        )
        .remedy(remedy),
        Ok(_) => Finding::warning(
            "space is not given back",
            "What a guest deletes stays taken until its VM is removed.",
        )
        .remedy(remedy),
        Err(error) if is_unsupported(&error) => Finding::warning(
            "holes cannot be made in files",
            "What a guest deletes stays taken until its VM is removed.",
        )
        .remedy(remedy),
        Err(error) => Finding::problem(
            format!("the try failed: {error}"),
            "A file in the state directory could not be written.",
        )
        .remedy("Look at the disk: its space, its quota, the kernel's log.")
        .command("dmesg | tail"),
    }
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::super::host::laid_out;
    use super::*;

    #[test]
    fn a_state_directory_that_others_can_read_is_closed() {
        let (_dir, host) = laid_out::host(&[]);
        let set = |mode| fs::set_permissions(&host.state_dir, fs::Permissions::from_mode(mode));
        set(0o755).unwrap();
        assert!(permissions(&host).found.ends_with("has mode 0755"));
        assert!(close(&host).unwrap().ends_with("to 0700"));
        assert_eq!(permissions(&host).verdict, Verdict::Ok);
        fs::remove_dir(&host.state_dir).unwrap();
        assert_eq!(permissions(&host).verdict, Verdict::Problem);
        assert!(close(&host).is_err());
    }

    #[test]
    fn missing_directories_are_named_and_made() {
        let (_dir, host) = laid_out::host(&[]);
        fs::create_dir(host.state_dir.join("vms")).unwrap();
        let found = directories(&host);
        assert_eq!(found.verdict, Verdict::Problem);
        assert!(found.found.starts_with("missing: tmp, "), "{}", found.found);
        make_directories(&host).unwrap();
        assert_eq!(directories(&host).verdict, Verdict::Ok);
    }

    #[test]
    fn what_a_state_directory_lies_on_is_judged() {
        let judged = |kind: &str| {
            let mounts = format!("1 1 0:1 / / rw - {kind} source rw\n");
            let (_dir, host) = laid_out::host(&[("/proc/self/mountinfo", &mounts)]);
            file_system(&host)
        };
        for kind in ["ext4", "xfs", "btrfs"] {
            assert_eq!(judged(kind).verdict, Verdict::Ok, "{kind}");
        }
        for kind in ["tmpfs", "nfs4", "fuse.sshfs", "overlay"] {
            let found = judged(kind);
            assert_eq!(found.verdict, Verdict::Warning, "{kind}");
            assert!(!found.remedy.is_empty());
        }
        let (_dir, host) = laid_out::host(&[]);
        assert_eq!(file_system(&host).verdict, Verdict::Skipped);
    }

    #[test]
    fn copies_by_reference_are_really_tried() {
        let (_dir, host) = laid_out::host(&[]);
        let tried = reflink(&host);
        assert_ne!(tried.verdict, Verdict::Problem, "{tried:?}");
        assert_eq!(judge_reflink(Ok(())).verdict, Verdict::Ok);
        let unsupported = judge_reflink(Err(Errno::OPNOTSUPP.into()));
        assert!(unsupported.remedy.contains("XFS"));
        assert_eq!(
            judge_reflink(Err(Errno::NOSPC.into())).verdict,
            Verdict::Problem
        );
        fs::remove_dir(&host.state_dir).unwrap();
        assert_eq!(reflink(&host).verdict, Verdict::Problem);
    }

    #[test]
    fn holes_are_really_tried() {
        let (_dir, host) = laid_out::host(&[]);
        let tried = sparse(&host);
        assert_ne!(tried.verdict, Verdict::Problem, "{tried:?}");
        assert_eq!(judge_sparse(Ok((0, 0))).verdict, Verdict::Ok);
        assert!(
            judge_sparse(Ok((TRIED_BYTES, 0)))
                .found
                .contains("whole length")
        );
        assert!(
            judge_sparse(Ok((0, TRIED_BYTES)))
                .found
                .contains("not given back")
        );
        let unsupported = judge_sparse(Err(Errno::OPNOTSUPP.into()));
        assert_eq!(unsupported.verdict, Verdict::Warning);
        assert_eq!(
            judge_sparse(Err(Errno::IO.into())).verdict,
            Verdict::Problem
        );
    }
}
