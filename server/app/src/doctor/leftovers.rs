//! What no record owns: processes, directories, files, control groups. The start of a daemon sweeps them; while it
//! serves, the doctor finds what came since.
//!
//! Work that goes on makes things before and after it records them. So nothing is called a leftover that work may own:
//! things are listed first and records read then, because a VM's record is the first of it that is made and the last
//! that goes; imports and pulls that go on are waited for; and temporary files must be old.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use banger_core::VmId;
use banger_core::chain;
use banger_core::doctor::Finding;
use banger_core::vmm::{ProcessIdentity, cgroup_name};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::Ward;
use super::cgroup;
use super::check::{Check, Right};
use super::host::{Host, MendError};
use crate::error::AppError;
use crate::paths::remove_tree;
use crate::vm::recorded;

/// What nothing has touched for this long in `tmp` belongs to no work: no upload and no build is that slow.
const TEMPORARY_AGE: Duration = Duration::from_secs(24 * 3600);
/// A group of a VM that is about to start is younger.
const GROUP_AGE: Duration = Duration::from_secs(3600);
/// The most names in one text.
const NAMES_MAX: usize = 3;
/// How deep temporary directories are looked into for what was touched last.
const DEPTH_MAX: usize = 8;

pub(super) const CHECKS: [Check; 7] = [
    Check::daemon("LEFTOVER_PROCESSES", "Every VMM belongs to a VM", processes)
        .mended_by_daemon(end_processes),
    Check::daemon(
        "LEFTOVER_VM_DIRECTORIES",
        "Every VM directory belongs to a VM",
        directories,
    )
    .mended_by_daemon(remove_directories),
    Check::daemon(
        "LEFTOVER_VOLUMES",
        "Every volume directory belongs to a volume",
        volumes,
    )
    .mended_by_daemon(remove_volumes),
    Check::daemon(
        "LEFTOVER_KERNELS",
        "Every kernel directory belongs to a kernel",
        kernels,
    )
    .mended_by_daemon(remove_kernels),
    Check::daemon(
        "LEFTOVER_IMAGE_FILES",
        "Every base disk and blob belongs to an image",
        image_files,
    )
    .mended_by_daemon(remove_image_files),
    Check::files(
        "LEFTOVER_TEMPORARY_FILES",
        "Temporary files belong to work that goes on",
        temporary,
    )
    .mended_by(Right::Daemon, remove_temporary),
    Check::daemon(
        "LEFTOVER_CGROUPS",
        "Every control group below the daemon's belongs to a VM",
        groups,
    )
    .mended_by_daemon(remove_groups),
];

/// What `list` finds, or that it cannot be looked at.
async fn told<T: AsRef<str>>(
    list: impl Future<Output = Result<Vec<T>, AppError>>,
    cause: &str,
) -> Finding {
    match list.await {
        Ok(names) => judge(&names, cause),
        Err(error) => Finding::problem("it cannot be looked at", chain(&error)),
    }
}

fn judge<T: AsRef<str>>(names: &[T], cause: &str) -> Finding {
    if names.is_empty() {
        return Finding::ok("none left over");
    }
    let mut shown: Vec<&str> = names.iter().take(NAMES_MAX).map(AsRef::as_ref).collect();
    if names.len() > NAMES_MAX {
        shown.push("…");
    }
    Finding::warning(
        format!("{} left over: {}", names.len(), shown.join(", ")),
        cause,
    )
    .remedy("Remove them.")
    .command("banger doctor --fix")
}

impl Ward {
    /// The ids that have a record, read after what is compared with them.
    async fn known(&self) -> Result<HashSet<VmId>, AppError> {
        let vms = self.context.store.all_vms().await?;
        Ok(vms.into_iter().map(|vm| vm.id).collect())
    }

    async fn stray_processes(&self) -> Result<Vec<(VmId, ProcessIdentity)>, AppError> {
        let mut strays = self
            .context
            .vmm
            .find_strays(&self.context.paths.vms())
            .await?;
        let known = self.known().await?;
        strays.retain(|(id, _)| !known.contains(id));
        Ok(strays)
    }

    async fn stray_directories(&self) -> Result<Vec<PathBuf>, AppError> {
        let vms = self.context.paths.vms();
        let listed = vms.clone();
        let names = self.listed(move |_| names_in(&listed), &vms).await?;
        let known = self.known().await?;
        let is_stray = |name: &OsString| {
            let id = name.to_str().and_then(|name| name.parse().ok());
            id.is_none_or(|id| !known.contains(&id))
        };
        let strays = names
            .into_iter()
            .filter(is_stray)
            .map(|name| vms.join(name));
        // A VM that was removed in between is gone with its directory.
        Ok(strays
            .filter(|path| path.symlink_metadata().is_ok())
            .collect())
    }

    async fn stray_volumes(&self) -> Result<Vec<PathBuf>, AppError> {
        let volumes = self.context.paths.volumes();
        let listed = volumes.clone();
        let names = self.listed(move |_| names_in(&listed), &volumes).await?;
        // A volume counts from before its directory is there.
        let strays = names
            .into_iter()
            .filter(|name| {
                let id = name.to_str().and_then(|name| name.parse().ok());
                id.is_none_or(|id| !self.volumes.counts(id))
            })
            .map(|name| volumes.join(name));
        // One that was removed in between is gone with its directory.
        Ok(strays
            .filter(|path| path.symlink_metadata().is_ok())
            .collect())
    }

    async fn stray_groups(&self) -> Result<Vec<PathBuf>, AppError> {
        let found = self
            .listed(|host| Ok(idle_groups(host)), Path::new("cgroup"))
            .await?;
        let known = self.known().await?;
        let strays = found.into_iter().filter(|(id, _)| !known.contains(id));
        Ok(strays.map(|(_, path)| path).collect())
    }

    async fn listed<T: Send + 'static>(
        &self,
        list: impl FnOnce(&Host) -> io::Result<T> + Send + 'static,
        of: &Path,
    ) -> Result<T, AppError> {
        let listed = self.on_thread(list).await.ok_or(AppError::Interrupted)?;
        listed.map_err(|source| AppError::ReadDirectory {
            path: of.to_owned(),
            source,
        })
    }
}

fn names_in(dir: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name()))
        .collect()
}

fn processes(ward: &Ward) -> BoxFuture<'_, Finding> {
    let list = async {
        let strays = ward.stray_processes().await?;
        Ok(strays
            .into_iter()
            .map(|(id, identity)| format!("process {} of {id}", identity.pid))
            .collect::<Vec<_>>())
    };
    told(
        list,
        "They take memory and processors, and no VM can be stopped through them.",
    )
    .boxed()
}

fn end_processes(ward: &Ward) -> BoxFuture<'_, Result<String, MendError>> {
    async move {
        let context = &ward.context;
        let mut ended = 0;
        for (id, identity) in ward.stray_processes().await? {
            ended += u64::from(recorded::end_stray(context, id, identity).await?);
        }
        Ok(format!("ended {ended} processes"))
    }
    .boxed()
}

fn directories(ward: &Ward) -> BoxFuture<'_, Finding> {
    let list = async {
        let strays = ward.stray_directories().await?;
        Ok(strays.iter().map(|path| name_of(path)).collect::<Vec<_>>())
    };
    told(list, "They take space, disks of VMs among it.").boxed()
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn remove_directories(ward: &Ward) -> BoxFuture<'_, Result<String, MendError>> {
    async move { remove_all(ward.stray_directories().await?).await }.boxed()
}

async fn remove_all(strays: Vec<PathBuf>) -> Result<String, MendError> {
    for path in &strays {
        remove_any(path.clone())
            .await
            .map_err(|source| MendError::Step {
                step: format!("remove {}", path.display()),
                source,
            })?;
    }
    Ok(format!("removed {} directories", strays.len()))
}

fn volumes(ward: &Ward) -> BoxFuture<'_, Finding> {
    let list = async {
        let strays = ward.stray_volumes().await?;
        Ok(strays.iter().map(|path| name_of(path)).collect::<Vec<_>>())
    };
    told(
        list,
        "They take space, and no VM can be given what is in them.",
    )
    .boxed()
}

fn remove_volumes(ward: &Ward) -> BoxFuture<'_, Result<String, MendError>> {
    async move { remove_all(ward.stray_volumes().await?).await }.boxed()
}

async fn remove_any(path: PathBuf) -> io::Result<()> {
    if fs::symlink_metadata(&path)?.is_dir() {
        return remove_tree(path).await;
    }
    tokio::fs::remove_file(&path).await
}

fn kernels(ward: &Ward) -> BoxFuture<'_, Finding> {
    let list = async {
        let strays = ward.kernels.strays().await?;
        Ok(strays.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    told(list, "They take space.").boxed()
}

fn remove_kernels(ward: &Ward) -> BoxFuture<'_, Result<String, MendError>> {
    async move {
        let swept = ward.kernels.sweep().await?;
        Ok(format!("removed {swept} kernels"))
    }
    .boxed()
}

fn image_files(ward: &Ward) -> BoxFuture<'_, Finding> {
    async move {
        match ward.images.strays().await {
            Ok((0, _)) => Finding::ok("none left over"),
            Ok((files, bytes)) => Finding::warning(
                format!("{files} left over, {} MiB", bytes >> 20),
                "They take space; what a pull that failed had brought spares the next try of the same image.",
            )
            .remedy("Remove them.")
            .command("banger image prune"),
            Err(error) => Finding::problem("it cannot be looked at", chain(&error)),
        }
    }
    .boxed()
}

fn remove_image_files(ward: &Ward) -> BoxFuture<'_, Result<String, MendError>> {
    async move {
        let swept = ward.images.sweep().await?;
        Ok(format!("removed {swept} files"))
    }
    .boxed()
}

/// What lies in `tmp`, and in the stores' places there, and was touched last before `age`.
fn old_files(host: &Host, age: Duration) -> Vec<PathBuf> {
    let tmp = host.state_dir.join("tmp");
    let places = ["", "images", "kernels"];
    let is_place = |path: &Path| places[1..].iter().any(|place| path == tmp.join(place));
    let entries = places.iter().flat_map(|place| {
        fs::read_dir(tmp.join(place))
            .into_iter()
            .flatten()
            .flatten()
    });
    let paths = entries
        .map(|entry| entry.path())
        .filter(|path| !is_place(path));
    let is_old = |path: &PathBuf| {
        let touched = touched(path, DEPTH_MAX);
        touched.is_some_and(|at| at.elapsed().is_ok_and(|since| since > age))
    };
    paths.filter(is_old).collect()
}

/// When something in it was written last; `None` where that cannot be told.
fn touched(path: &Path, depth: usize) -> Option<SystemTime> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let mut newest = metadata.modified().ok()?;
    if metadata.is_dir() {
        let depth = depth.checked_sub(1)?;
        for entry in fs::read_dir(path).ok()? {
            newest = newest.max(touched(&entry.ok()?.path(), depth)?);
        }
    }
    Some(newest)
}

fn temporary(host: &Host) -> Finding {
    let names: Vec<String> = old_files(host, TEMPORARY_AGE)
        .iter()
        .map(|path| name_of(path))
        .collect();
    judge(
        &names,
        "They take space; the next start of the daemon removes them.",
    )
}

fn remove_temporary(host: &Host) -> Result<String, MendError> {
    let old = old_files(host, TEMPORARY_AGE);
    for path in &old {
        let is_dir = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        let removed = if is_dir {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        removed.map_err(|source| MendError::Step {
            step: format!("remove {}", path.display()),
            source,
        })?;
    }
    Ok(format!(
        "removed {} temporary files and directories",
        old.len()
    ))
}

/// Groups of VMs of this daemon that hold no process and are not new. Its group of VMs stands below its own group,
/// beside it, or at the root of the hierarchy.
fn idle_groups(host: &Host) -> Vec<(VmId, PathBuf)> {
    let Some(own) = cgroup::own(host).map(PathBuf::from) else {
        return Vec::new();
    };
    let state_dir = fs::canonicalize(&host.state_dir).unwrap_or_else(|_| host.state_dir.clone());
    let group = cgroup_name(&state_dir);
    let beside = own.parent().map(Path::to_owned);
    let places = [Some(own), beside, cgroup::root(host).map(PathBuf::from)];
    let places: BTreeSet<PathBuf> = places.into_iter().flatten().collect();
    let groups = places.iter().flat_map(|place| {
        let vms = host.path(&place.join(&group).to_string_lossy());
        fs::read_dir(vms).into_iter().flatten().flatten()
    });
    let idle = groups.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse::<VmId>().ok()?;
        let path = entry.path();
        let events = fs::read_to_string(path.join("cgroup.events")).ok()?;
        let is_idle = events.lines().any(|line| line == "populated 0");
        let age = fs::metadata(&path).ok()?.modified().ok()?.elapsed().ok()?;
        (is_idle && age > GROUP_AGE).then_some((id, path))
    });
    idle.collect()
}

fn groups(ward: &Ward) -> BoxFuture<'_, Finding> {
    let list = async {
        let strays = ward.stray_groups().await?;
        Ok(strays.iter().map(|path| name_of(path)).collect::<Vec<_>>())
    };
    told(list, "Each takes a little of the kernel's memory.").boxed()
}

fn remove_groups(ward: &Ward) -> BoxFuture<'_, Result<String, MendError>> {
    async move {
        let strays = ward.stray_groups().await?;
        for path in &strays {
            // The kernel refuses it for a group that holds a process again.
            fs::remove_dir(path).map_err(|source| MendError::Step {
                step: format!("remove {}", path.display()),
                source,
            })?;
        }
        Ok(format!("removed {} groups", strays.len()))
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use banger_core::doctor::Verdict;

    use super::super::host::laid_out;
    use super::*;

    fn age(path: &Path, age: Duration) {
        let file = fs::File::open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn names_are_shown_up_to_a_bound() {
        assert_eq!(judge::<&str>(&[], "x").verdict, Verdict::Ok);
        let many = judge(&["a", "b", "c", "d"], "They take space.");
        assert_eq!(many.found, "4 left over: a, b, c, …");
        assert_eq!(many.verdict, Verdict::Warning);
    }

    #[test]
    fn only_old_temporary_files_are_removed_and_the_places_stay() {
        let (_dir, host) = laid_out::host(&[]);
        let tmp = host.state_dir.join("tmp");
        fs::create_dir_all(tmp.join("images/pull")).unwrap();
        for name in ["new", "old", "images/old", "images/pull/growing"] {
            fs::write(tmp.join(name), "x").unwrap();
        }
        let old = TEMPORARY_AGE + Duration::from_secs(60);
        for name in ["old", "images/old", "images/pull", "images"] {
            age(&tmp.join(name), old);
        }
        assert!(
            temporary(&host).found.starts_with("2 left over"),
            "{:?}",
            temporary(&host)
        );
        remove_temporary(&host).unwrap();
        assert_eq!(temporary(&host).verdict, Verdict::Ok);
        assert!(tmp.join("new").exists() && tmp.join("images/pull/growing").exists());
        assert!(!tmp.join("old").exists() && !tmp.join("images/old").exists());
    }

    #[test]
    fn idle_groups_of_vms_are_found_and_others_left_alone() {
        let id = VmId::new();
        let own = "/sys/fs/cgroup/banger.service";
        let (dir, host) = laid_out::host(&[
            (
                "/proc/self/mountinfo",
                "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 c rw\n",
            ),
            ("/proc/self/cgroup", "0::/banger.service\n"),
        ]);
        let group = |name: &str, events: &str| {
            laid_out::write(dir.path(), &format!("{own}/{name}/cgroup.events"), events);
            let path = dir.path().join(own.trim_start_matches('/')).join(name);
            age(&path, GROUP_AGE + Duration::from_secs(60));
            path
        };
        let ours = cgroup_name(&fs::canonicalize(&host.state_dir).unwrap());
        let idle = group(&format!("{ours}/{id}"), "populated 0\nfrozen 0\n");
        group(
            &format!("{ours}/{}", VmId::new()),
            "populated 1\nfrozen 0\n",
        );
        group(&format!("{ours}/other"), "populated 0\n");
        // Another daemon's, which may be about to use it.
        group(&format!("banger-0a1b/{}", VmId::new()), "populated 0\n");
        let new = group(&format!("{ours}/{}", VmId::new()), "populated 0\n");
        age(&new, Duration::ZERO);
        assert_eq!(idle_groups(&host), [(id, idle)]);
        let (_dir, host) = laid_out::host(&[]);
        assert!(idle_groups(&host).is_empty());
    }
}
