//! Ceilings on VMMs by cgroup v2 (kernel: Documentation/admin-guide/cgroup-v2.rst), where a host has it and lets us.
//!
//! ```text
//!   <parent>/banger-<state directory>/<VM>     memory.max  pids.max  cpu.weight
//!           /banger-daemon                     the daemon, where the parent is its own unit
//! ```
//! The parent is the daemon's own unit where that was delegated to it (systemd's `Delegate=`), else, for root, the
//! root of the hierarchy. A VM's cgroup is derived from its id, so nothing has to be
//! recorded: it is made before its VMM and removed when that is gone, and what a daemon that died left is found
//! below the name of its state directory. Cgroups of others are never touched.
//!
//! Where systemd gives a VMM a scope of its own ([`crate::scope`]), that has the ceilings, and the VM's cgroup here goes.
//!
//! A controller that the host does not give is left out and named in the log; the limits of a process
//! ([`crate::sys`]) hold then.

mod place;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use banger_core::VmId;
use banger_core::vmm::ProcessLimits;

/// Who limits VMMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupChoice {
    /// Cgroups, with all controllers that the host gives.
    #[default]
    Auto,
    /// Only the limits of a process.
    Off,
}

/// What a controller is called, in the order in which they are told.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// How often a directory is tried to be made that another daemon's end removes at the same time.
const MAKE_TRIES: usize = 8;

/// The cgroups of the VMs of one state directory.
#[derive(Debug)]
pub struct Cgroups {
    /// Where ours are; absent where there can be none.
    place: Option<place::Place>,
    /// What was told to be missing.
    told: Mutex<BTreeSet<&'static str>>,
}

/// The cgroup of one VM.
#[derive(Debug)]
pub(crate) struct Cgroup {
    dir: PathBuf,
    memory_mib: Option<u64>,
    limits_threads: bool,
    /// Whether we made it, and remove it; a scope's is systemd's.
    is_ours: bool,
}

impl Cgroups {
    /// Looks where the VMs of `state_dir` can have cgroups. Makes nothing.
    #[must_use]
    pub fn find(state_dir: &Path, choice: CgroupChoice) -> Self {
        let place = match choice {
            CgroupChoice::Auto => place::find(state_dir),
            CgroupChoice::Off => None,
        };
        Self {
            place,
            told: Mutex::default(),
        }
    }

    /// [`Cgroups::find`], and removes what an earlier daemon left: before anything is launched or adopted, what is
    /// empty was left.
    pub(crate) fn open(state_dir: &Path, choice: CgroupChoice) -> Self {
        let found = Self::find(state_dir, choice);
        let swept = found.sweep();
        if swept > 0 {
            tracing::info!(swept, "removed cgroups that an earlier daemon left");
        }
        found
    }

    /// Makes a VM's cgroup and sets its ceilings; `None` where the host has none for us.
    pub(crate) fn make(&self, vm: VmId, limits: &ProcessLimits) -> Option<Cgroup> {
        let place = self.place.as_ref()?;
        match make(place, vm, limits) {
            Ok((cgroup, lacking)) => {
                self.tell(&lacking);
                Some(cgroup)
            }
            Err(error) => {
                tracing::warn!(%vm, %error, "a VM has no cgroup; the limits of its process hold");
                None
            }
        }
    }

    /// The cgroup that an earlier daemon made for a VM, or that of its VMM's scope, if it has one.
    pub(crate) fn of(&self, vm: VmId, pid: u32) -> Option<Cgroup> {
        Cgroup::of_scope(pid).or_else(|| {
            let dir = self.place.as_ref()?.ours().join(vm.to_string());
            dir.is_dir().then(|| Cgroup::found(dir, true))
        })
    }

    /// Removes the cgroups below our name in which nothing runs. Only while no VM is being launched.
    fn sweep(&self) -> usize {
        let Some(place) = &self.place else { return 0 };
        let entries = fs::read_dir(place.ours()).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_str()
                .is_some_and(|name| name.parse::<VmId>().is_ok())
        });
        // The kernel keeps those that are in use.
        let swept = ours
            .filter(|entry| fs::remove_dir(entry.path()).is_ok())
            .count();
        place.forget_if_empty();
        swept
    }

    fn tell(&self, lacking: &[&'static str]) {
        let mut told = self.told.lock().expect("no holder panics");
        for controller in lacking {
            if told.insert(controller) {
                tracing::warn!(
                    controller,
                    "VMMs run without this ceiling: the host does not give the cgroup controller"
                );
            }
        }
    }
}

impl Cgroup {
    fn found(dir: PathBuf, is_ours: bool) -> Self {
        let number = |file| read(&dir, file).and_then(|text| text.parse::<u64>().ok());
        Self {
            memory_mib: number("memory.max").map(|bytes| bytes >> 20),
            limits_threads: number("pids.max").is_some(),
            is_ours,
            dir,
        }
    }

    /// That of the scope which a VMM has of its own.
    pub(crate) fn of_scope(pid: u32) -> Option<Self> {
        let dir = place::of_process(pid)?;
        let is_scope = crate::scope::is_ours(dir.file_name()?.to_str()?);
        is_scope.then(|| Self::found(dir, false))
    }

    /// Whether the kernel limits the threads of what is in it.
    pub(crate) const fn limits_threads(&self) -> bool {
        self.limits_threads
    }

    /// By which a process joins, when it writes `0`.
    pub(crate) fn door(&self) -> io::Result<OwnedFd> {
        let file = fs::File::options()
            .write(true)
            .open(self.dir.join("cgroup.procs"))?;
        Ok(file.into())
    }

    /// Whether the kernel limits the memory of what is in it.
    pub(crate) const fn limits_memory(&self) -> bool {
        self.memory_mib.is_some()
    }

    /// The ceiling, if the kernel killed for it.
    pub(crate) fn killed_at_mib(&self) -> Option<u64> {
        let events = read(&self.dir, "memory.events")?;
        let kills = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|count| count.trim().parse::<u64>().ok());
        self.memory_mib
            .filter(|_| kills.is_some_and(|kills| kills > 0))
    }

    /// Removes it; its processes are gone. One that stays is swept when the daemon starts again.
    pub(crate) fn remove(&self) {
        if !self.is_ours {
            return;
        }
        match fs::remove_dir(&self.dir) {
            Ok(()) => place::forget_if_empty(&self.dir),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(cgroup = %self.dir.display(), %error, "a VM's cgroup could not be removed");
            }
        }
    }
}

fn make(
    place: &place::Place,
    vm: VmId,
    limits: &ProcessLimits,
) -> io::Result<(Cgroup, Vec<&'static str>)> {
    let dir = place.ours().join(vm.to_string());
    let mut tries = MAKE_TRIES;
    let given = loop {
        let given = place.prepare(&CONTROLLERS)?;
        match fs::create_dir(&dir) {
            Ok(()) => break given,
            // Of an earlier machine of the VM.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => break given,
            // The last VM of ours went at the same time, and our name with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => tries -= 1,
            Err(error) => return Err(error),
        }
    };
    let mut lacking = Vec::new();
    for controller in CONTROLLERS {
        let set = given.contains(controller)
            && settings(controller, limits)
                .iter()
                .all(|(file, value)| write(&dir, file, value).is_ok());
        if !set {
            lacking.push(controller);
        }
    }
    let [memory, pids, _] = CONTROLLERS;
    let cgroup = Cgroup {
        dir,
        memory_mib: (!lacking.contains(&memory)).then_some(limits.memory_mib),
        limits_threads: !lacking.contains(&pids),
        is_ours: true,
    };
    Ok((cgroup, lacking))
}

fn settings(controller: &str, limits: &ProcessLimits) -> Vec<(&'static str, String)> {
    match controller {
        "memory" => vec![("memory.max", (limits.memory_mib << 20).to_string())],
        "pids" => vec![("pids.max", limits.thread_count.to_string())],
        _ => vec![("cpu.weight", limits.cpu_weight.to_string())],
    }
}

fn read(dir: &Path, file: &str) -> Option<String> {
    let text = fs::read_to_string(dir.join(file)).ok()?;
    Some(text.trim().to_owned())
}

/// Writes to a file that the kernel has made, and makes none.
fn write(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::options().write(true).open(dir.join(file))?;
    file.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests;
