//! Where in the hierarchy our cgroups are, and which controllers they get.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use banger_core::vmm::cgroup_name;
use rustix::fs::{Access, access};

use super::{read, write};

/// The cgroup into which the daemon goes where its unit's own must be empty: only cgroups without processes of
/// their own hand controllers on.
const DAEMON: &str = "banger-daemon";

/// Where ours are.
#[derive(Debug)]
pub(super) struct Place {
    parent: PathBuf,
    ours: PathBuf,
    /// Whether the parent is the daemon's own unit.
    is_own_unit: bool,
}

/// What `/proc` tells of this process.
#[derive(Debug)]
pub(super) struct Surroundings<'t> {
    /// `/proc/self/mountinfo`.
    pub(super) mounts: &'t str,
    /// `/proc/self/cgroup`.
    pub(super) own: &'t str,
    pub(super) is_root: bool,
}

/// Looks for a place; `None` where the host has no cgroup v2, or none in which we may make something.
pub(super) fn find(state_dir: &Path) -> Option<Place> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let surroundings = Surroundings {
        mounts: &mounts,
        own: &own,
        is_root: rustix::process::geteuid().is_root(),
    };
    let place = surroundings.place(state_dir);
    match &place {
        Some(place) => tracing::debug!(cgroup = %place.ours.display(), "VMMs get cgroups"),
        None => tracing::warn!(
            "VMMs get no cgroups: there is no cgroup v2 in which the daemon may make some, see docs/limits.md; the limits of processes hold"
        ),
    }
    place
}

/// Where a process is; `None` where the host has no cgroup v2, or the process is gone.
pub(super) fn of_process(pid: u32) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let surroundings = Surroundings {
        mounts: &mounts,
        own: &own,
        is_root: false,
    };
    surroundings.own().map(|(own, _)| own)
}

impl Surroundings<'_> {
    /// The cgroup of the process, and where the hierarchy is mounted.
    fn own(&self) -> Option<(PathBuf, PathBuf)> {
        let (mount, root) = self.mount()?;
        let own = self.own.lines().find_map(|line| line.strip_prefix("0::"))?;
        let own = mount.join(Path::new(own).strip_prefix(root).ok()?);
        Some((own, mount))
    }

    pub(super) fn place(&self, state_dir: &Path) -> Option<Place> {
        let (own, mount) = self.own()?;
        let is_in_room = own.file_name().is_some_and(|name| name == DAEMON);
        let own = match is_in_room {
            true => own.parent()?.to_owned(),
            false => own,
        };
        let is_own_unit =
            own != mount && (is_in_room || !is_service(&own)) && self.is_delegated(&own);
        let parent = match (is_own_unit, self.is_root) {
            (true, _) => own,
            (false, true) => mount,
            (false, false) => return None,
        };
        let state_dir = fs::canonicalize(state_dir).unwrap_or_else(|_| state_dir.to_owned());
        Some(Place {
            ours: parent.join(cgroup_name(&state_dir)),
            parent,
            is_own_unit,
        })
    }

    /// Where the hierarchy is mounted, and which of its cgroups is the root of that. See proc(5).
    fn mount(&self) -> Option<(PathBuf, PathBuf)> {
        self.mounts.lines().find_map(|line| {
            let (fields, kind) = line.split_once(" - ")?;
            let mut fields = fields.split(' ').skip(3);
            let (root, mount) = (fields.next()?, fields.next()?);
            let is_ours = kind.split(' ').next() == Some("cgroup2");
            is_ours.then(|| (mount.into(), root.into()))
        })
    }

    /// Whether somebody gave us this cgroup to make others in: systemd says so in an attribute (Delegate= in
    /// systemd.resource-control(5)); what an ordinary user may write was given to it.
    fn is_delegated(&self, own: &Path) -> bool {
        if self.is_root {
            let says = |attribute| {
                let mut value = [0; 8];
                rustix::fs::getxattr(own, attribute, &mut value)
                    .is_ok_and(|length| value.get(..length) == Some(b"1".as_slice()))
            };
            return says("user.delegate") || says("trusted.delegate");
        }
        let may_write = |path: &Path| access(path, Access::WRITE_OK).is_ok();
        may_write(own)
            && ["cgroup.procs", "cgroup.subtree_control"]
                .iter()
                .all(|file| may_write(&own.join(file)))
    }
}

impl Place {
    pub(super) fn ours(&self) -> &Path {
        &self.ours
    }

    /// Makes our cgroup and hands the controllers on to its children; those that it has then.
    pub(super) fn prepare(&self, wanted: &[&'static str]) -> io::Result<BTreeSet<&'static str>> {
        if !hand_on(&self.parent, wanted).is_superset(&offered(&self.parent, wanted))
            && self.is_own_unit
        {
            self.make_way();
            hand_on(&self.parent, wanted);
        }
        match fs::create_dir(&self.ours) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Ok(hand_on(&self.ours, wanted))
    }

    /// The daemon leaves its unit's cgroup for one below.
    fn make_way(&self) {
        let room = self.parent.join(DAEMON);
        // It exists where an earlier daemon did the same. What fails is told by the controllers that are missing.
        let _ = fs::create_dir(&room);
        if let Err(error) = write(&room, "cgroup.procs", "0") {
            tracing::warn!(%error, "the daemon cannot leave its unit's cgroup, so VMMs get fewer ceilings");
        }
    }

    pub(super) fn forget_if_empty(&self) {
        // The kernel keeps it while a VM has its cgroup in it.
        let _ = fs::remove_dir(&self.ours);
    }
}

/// Whether systemd starts the daemon in this cgroup again and again. It could not once the cgroup hands controllers
/// on, which it does as long as a VM lives: for a service, systemd itself must start the daemon in [`DAEMON`]
/// (`DelegateSubgroup=`). A scope is started once.
fn is_service(own: &Path) -> bool {
    own.extension().is_some_and(|kind| kind == "service")
}

/// Removes the cgroup above that of a VM if it was the last.
pub(super) fn forget_if_empty(of_vm: &Path) {
    if let Some(ours) = of_vm.parent() {
        // The kernel keeps it while another VM has its cgroup in it.
        let _ = fs::remove_dir(ours);
    }
}

/// Lets a cgroup's children have controllers; those that they have then.
fn hand_on(dir: &Path, wanted: &[&'static str]) -> BTreeSet<&'static str> {
    let has = || listed(dir, "cgroup.subtree_control", wanted);
    let before = has();
    for controller in offered(dir, wanted).difference(&before) {
        // One at a time: a write is refused as a whole. What is refused is missing afterwards.
        let _ = write(dir, "cgroup.subtree_control", &format!("+{controller}"));
    }
    has()
}

fn offered(dir: &Path, wanted: &[&'static str]) -> BTreeSet<&'static str> {
    listed(dir, "cgroup.controllers", wanted)
}

fn listed(dir: &Path, file: &str, wanted: &[&'static str]) -> BTreeSet<&'static str> {
    let text = read(dir, file).unwrap_or_default();
    let words: BTreeSet<&str> = text.split_whitespace().collect();
    let found = wanted.iter().filter(|word| words.contains(**word));
    found.copied().collect()
}
