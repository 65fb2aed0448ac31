//! The jail of a Firecracker: a root directory with what it may open and nothing else, and a user of its own.
//!
//! ```text
//! <vm dir>/jail/<program>/banger-<id>/root/    the process's `/`
//!     <program>  dev/  run/                    made by the jailer
//!     kernel  initramfs  drive0 …              hard links
//!     api.sock  v.sock  v.sock_1024 …  console.fifo  metrics.fifo  firecracker.log
//! ```
//!
//! - Files get in by hard links, so that nothing is copied and no mount is left behind. The jail is below the
//!   VM's directory, on the same file system as the images.
//! - A user belongs to one VM for as long as its jail is there. That its directory belongs to the user is the
//!   record; it is made before any process has the user.
//! - Images, kernels and initramfs are made readable for everybody: the state directory keeps other users of the
//!   host out, and each jail shows its Firecracker only its own VM's.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use banger_core::VmId;

use crate::process::{JAIL_DIR, NAME_PREFIX};

/// The user, and group of the same number, that a jailed Firecracker runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JailUser(pub(super) u32);

/// Who may use a file in a jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Any number of jails read it.
    Shared,
    /// This jail alone reads and writes it.
    Own,
}

/// The users that jails may have.
#[derive(Debug)]
pub(super) struct JailUsers {
    range: Range<u32>,
    /// Held while one is chosen, so that two launches do not choose the same.
    choosing: Mutex<()>,
}

/// A jail before its process.
#[derive(Debug)]
pub(super) struct Jail {
    pub(super) user: JailUser,
    /// What the jailer is told to make the root below.
    pub(super) base: PathBuf,
    /// The process's `/`, as the host sees it.
    pub(super) root: PathBuf,
}

impl JailUsers {
    pub(super) fn new(range: Range<u32>) -> Self {
        Self {
            range,
            choosing: Mutex::default(),
        }
    }

    /// Makes an empty jail for `vm` in `dir`, in place of the one before.
    pub(super) fn make(&self, vm: VmId, dir: &Path, program: &Path) -> io::Result<Jail> {
        clear(dir)?;
        let base = dir.join(JAIL_DIR);
        let user = self.claim(vm, dir, &base)?;
        let name = program.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let root = base
            .join(name)
            .join(format!("{NAME_PREFIX}{vm}"))
            .join("root");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)?;
        chown(&root, Some(user.0), Some(user.0))?;
        Ok(Jail { user, base, root })
    }

    /// Chooses a user that no jail beside this one has, and records it.
    fn claim(&self, vm: VmId, dir: &Path, base: &Path) -> io::Result<JailUser> {
        let _choosing = self.choosing.lock().expect("no holder panics");
        let siblings = dir.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let user = self.free(vm, &owners(siblings)?).ok_or_else(|| {
            io::Error::other("every user of the range for jails is taken: widen jail_uid_count")
        })?;
        DirBuilder::new().mode(0o700).create(base)?;
        chown(base, Some(user.0), None)?;
        Ok(user)
    }

    /// Where the search begins depends on the VM, so that daemons with several state directories seldom meet.
    fn free(&self, vm: VmId, taken: &HashSet<u32>) -> Option<JailUser> {
        let count = self.range.end.saturating_sub(self.range.start);
        let mut hasher = DefaultHasher::new();
        vm.hash(&mut hasher);
        let first = u32::try_from(hasher.finish() % u64::from(count.max(1))).ok()?;
        (0..count)
            .map(|step| self.range.start + (first + step) % count)
            .find(|uid| !taken.contains(uid))
            .map(JailUser)
    }
}

/// Whom the jails of the VMs below `vms_dir` belong to.
fn owners(vms_dir: &Path) -> io::Result<HashSet<u32>> {
    let mut owners = HashSet::new();
    for entry in fs::read_dir(vms_dir)? {
        // One that goes meanwhile has no user any more.
        if let Ok(metadata) = fs::metadata(entry?.path().join(JAIL_DIR)) {
            owners.insert(metadata.uid());
        }
    }
    Ok(owners)
}

impl Jail {
    /// Puts a file into the jail under `name`; the path by which the process knows it.
    pub(super) fn put(&self, path: &Path, name: &str, sharing: Sharing) -> io::Result<String> {
        match sharing {
            Sharing::Shared => make_readable(path)?,
            Sharing::Own => chown(path, Some(self.user.0), Some(self.user.0))?,
        }
        fs::hard_link(path, self.root.join(name)).map_err(|error| match error.kind() {
            io::ErrorKind::CrossesDevices => io::Error::other(format!(
                "`{}` is not on the file system of the VM's directory, so no hard link can bring it into the \
                 jail: keep the whole state directory on one file system, or set jailer = \"\"",
                path.display()
            )),
            _ => error,
        })?;
        Ok(format!("/{name}"))
    }

    /// Gives a file that was made in the jail to its user.
    pub(super) fn give(&self, name: &str) -> io::Result<()> {
        chown(self.root.join(name), Some(self.user.0), Some(self.user.0))
    }
}

fn make_readable(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o004 == 0 {
        fs::set_permissions(path, Permissions::from_mode(mode | 0o444))?;
    }
    Ok(())
}

/// Removes the jail in a VM's directory, if there is one. What was linked into it stays.
pub(super) fn clear(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir.join(JAIL_DIR)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The root and the user of the jail in a VM's directory; `None` where there is no jail.
pub(super) fn find(dir: &Path) -> Option<(PathBuf, JailUser)> {
    let root = crate::process::jail_roots(dir).into_iter().next()?;
    let user = fs::metadata(dir.join(JAIL_DIR)).ok()?.uid();
    Some((root, JailUser(user)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    #[test]
    fn a_user_is_taken_once_and_the_last_one_is_told() {
        let users = JailUsers::new(1000..1003);
        let vm = VmId::new();
        let mut taken = HashSet::new();
        for _ in 0..3 {
            let JailUser(uid) = users.free(vm, &taken).unwrap();
            assert!((1000..1003).contains(&uid) && taken.insert(uid));
        }
        assert_eq!(users.free(vm, &taken), None);
        assert_eq!(JailUsers::new(5..5).free(vm, &HashSet::new()), None);
    }

    #[test]
    fn jails_beside_each_other_have_different_users_and_are_found_again() {
        if !is_root() {
            return crate::skipped(
                "jails_beside_each_other_have_different_users",
                "only root gives files away",
            );
        }
        let vms = tempfile::tempdir().unwrap();
        let users = JailUsers::new(1_900_000_000..1_900_000_002);
        let program = Path::new("/usr/bin/firecracker");
        let make = |vm: VmId| {
            let dir = vms.path().join(vm.to_string());
            let _ = fs::create_dir(&dir);
            (users.make(vm, &dir, program), dir)
        };
        let ids = [VmId::new(), VmId::new(), VmId::new()];
        let (first, dir) = make(ids[0]);
        let (second, _) = make(ids[1]);
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_ne!(first.user, second.user);
        assert_eq!(find(&dir), Some((first.root.clone(), first.user)));
        let told = make(ids[2]).0.unwrap_err().to_string();
        assert!(told.contains("jail_uid_count"), "{told}");
        // The next jail of the same VM takes the place of the one before.
        fs::write(first.root.join("left"), "").unwrap();
        let again = make(ids[0]).0.unwrap();
        assert!(!again.root.join("left").exists());
        clear(&dir).unwrap();
        assert_eq!(find(&dir), None);
    }

    #[test]
    fn a_file_in_a_jail_is_the_file_outside() {
        if !is_root() {
            return crate::skipped(
                "a_file_in_a_jail_is_the_file_outside",
                "only root gives files away",
            );
        }
        let vms = tempfile::tempdir().unwrap();
        let vm = VmId::new();
        let dir = vms.path().join(vm.to_string());
        fs::create_dir(&dir).unwrap();
        let (base, upper) = (vms.path().join("base"), dir.join("upper"));
        for path in [&base, &upper] {
            fs::write(path, "x").unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        }
        let jail = JailUsers::new(1_900_000_000..1_900_000_009)
            .make(vm, &dir, Path::new("/fc"))
            .unwrap();
        assert_eq!(
            jail.put(&base, "drive0", Sharing::Shared).unwrap(),
            "/drive0"
        );
        assert_eq!(jail.put(&upper, "drive1", Sharing::Own).unwrap(), "/drive1");
        let inside = |name: &str| fs::metadata(jail.root.join(name)).unwrap();
        assert_eq!(inside("drive0").ino(), fs::metadata(&base).unwrap().ino());
        assert_eq!(
            (inside("drive0").uid(), inside("drive0").mode() & 0o777),
            (0, 0o644)
        );
        assert_eq!(
            (inside("drive1").uid(), inside("drive1").mode() & 0o777),
            (jail.user.0, 0o600)
        );
        clear(&dir).unwrap();
        assert!(base.exists() && upper.exists());
        let far = jail
            .put(Path::new("/proc/version"), "far", Sharing::Shared)
            .unwrap_err();
        assert!(!far.to_string().is_empty());
    }
}
