//! Host processes: who they are beyond a reusable pid, how to signal exactly them, how to learn of their end.
//!
//! A pidfd is opened before the identity is compared, so that a pid which the kernel gives to another
//! process in between can never be mistaken. Nothing here spawns a process.

pub(crate) mod usage;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use banger_core::VmId;
use banger_core::vmm::{ProcessIdentity, VmmError};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;

/// What the kernel appends to the name of an executable or directory that was removed or replaced.
const DELETED: &str = " (deleted)";

/// The most bytes that are read of a process's command line.
const MAX_COMMAND_LINE: usize = 64 * 1024;

/// Before the VM's id in the name that a VMM of ours carries in its command line.
pub const NAME_PREFIX: &str = "banger-";

/// Below a VM's directory: the jail of a VMM that has one, with its root at `*/banger-<id>/root`.
pub(crate) const JAIL_DIR: &str = "jail";

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was no child of ours, so the kernel does not tell.
    Unknown,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => {
                f.write_str("exit status unknown: it was started by an earlier daemon")
            }
        }
    }
}

/// A process that is held by a pidfd: its pid may be reused, this handle never means another process.
#[derive(Debug)]
pub struct Process {
    identity: ProcessIdentity,
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Takes hold of the process that has `pid` now: for a child that has not been waited for.
    ///
    /// # Errors
    /// If it is gone, or `/proc` does not tell of it. Must be called within a Tokio runtime.
    pub fn of_child(pid: u32) -> io::Result<Self> {
        let pidfd = open_pidfd(pid)?.ok_or(io::ErrorKind::NotFound)?;
        let identity = identify(pid)?;
        Ok(Self {
            identity,
            pidfd: crate::sys::watch(pidfd)?,
        })
    }

    /// Takes hold of the process that `identity` describes; `None` where it lives no more, even if its pid does.
    ///
    /// # Errors
    /// If the kernel refuses a pidfd for another reason than absence. Must be called within a Tokio runtime.
    pub fn find(identity: &ProcessIdentity) -> io::Result<Option<Self>> {
        let Some(pidfd) = find_pidfd(identity)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            identity: identity.clone(),
            pidfd: crate::sys::watch(pidfd)?,
        }))
    }

    /// Which process.
    #[must_use]
    pub const fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    /// Sends a signal; `false` where the process is gone.
    ///
    /// # Errors
    /// If the kernel does not permit it.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        send(self.pidfd.get_ref(), signal)
    }

    /// Resolves when the process has ended; a child is reaped. Safe to drop.
    ///
    /// # Errors
    /// If the runtime cannot watch the pidfd.
    pub async fn ended(&self) -> io::Result<Ending> {
        // A pidfd becomes readable when its process ends and stays so.
        let _ready = self.pidfd.readable().await?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match rustix::process::waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options) {
            Ok(Some(status)) => Ok(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Ending::Code(code),
                (None, Some(signal)) => Ending::Signal(signal),
                (None, None) => Ending::Unknown,
            }),
            // Not a child of ours, or reaped already.
            Ok(None) | Err(_) => Ok(Ending::Unknown),
        }
    }
}

/// A VMM of ours that is found alive, whether or not any journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Whose VMM it is, by its own command line.
    pub vm: VmId,
    /// Its working directory.
    pub dir: PathBuf,
    /// Which process.
    pub identity: ProcessIdentity,
}

/// The VMMs whose working directory lies below `state_dir`, or whose root is a jail in a directory there, and
/// whose command line names a VM of ours.
///
/// A daemon that dies between starting a VMM and recording it leaves a process that no journal knows; its
/// guest has not run an instruction. Reconciliation calls this and ends whatever it does not adopt.
/// Processes of other users, and those that end meanwhile, are left out.
///
/// # Errors
/// If `/proc` cannot be listed or `state_dir` does not exist.
pub fn find_strays(state_dir: &Path) -> io::Result<Vec<Stray>> {
    let state_dir = fs::canonicalize(state_dir)?;
    let mut places = None;
    let mut strays = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Some(vm) = command_line(pid).and_then(|line| named_vm(&line)) else {
            continue;
        };
        let dir = working_dir_below(pid, &state_dir).or_else(|| {
            let places = places.get_or_insert_with(|| jails(&state_dir));
            places.get(&root_of(pid)?).cloned()
        });
        if let (Some(dir), Ok(identity)) = (dir, identify(pid)) {
            strays.push(Stray { vm, dir, identity });
        }
    }
    Ok(strays)
}

/// [`find_strays`] as drivers tell of them.
pub(crate) async fn strays_below(vms_dir: &Path) -> Result<Vec<(VmId, ProcessIdentity)>, VmmError> {
    let dir = vms_dir.to_owned();
    let found = tokio::task::spawn_blocking(move || find_strays(&dir)).await;
    let found = found.map_err(io::Error::from).flatten();
    let strays = found.map_err(|source| VmmError::Control {
        during: "the search",
        source,
    })?;
    Ok(strays
        .into_iter()
        .map(|stray| (stray.vm, stray.identity))
        .collect())
}

/// The roots of the jails in a VM's directory: there is one, or none.
pub(crate) fn jail_roots(dir: &Path) -> Vec<PathBuf> {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let programs = entries(&dir.join(JAIL_DIR));
    let names =
        programs.flat_map(|program| fs::read_dir(program.path()).into_iter().flatten().flatten());
    names
        .map(|name| name.path().join("root"))
        .filter(|root| root.is_dir())
        .collect()
}

/// What tells a directory apart from every other, however it is named.
type Inode = (u64, u64);

fn inode(path: &Path) -> Option<Inode> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// The directories of VMs below `state_dir`, by the roots of the jails in them.
fn jails(state_dir: &Path) -> HashMap<Inode, PathBuf> {
    let dirs = fs::read_dir(state_dir).into_iter().flatten().flatten();
    dirs.map(|entry| entry.path())
        .flat_map(|dir| {
            let roots = jail_roots(&dir).into_iter();
            roots.filter_map(move |root| Some((inode(&root)?, dir.clone())))
        })
        .collect()
}

/// A jailed process's root has no path on the host, but it is a directory of the host's.
fn root_of(pid: u32) -> Option<Inode> {
    inode(Path::new(&format!("/proc/{pid}/root")))
}

/// Sends SIGKILL to exactly this process; `false` where it is gone already.
///
/// # Errors
/// If the kernel does not permit it.
pub fn kill_exactly(identity: &ProcessIdentity) -> io::Result<bool> {
    find_pidfd(identity)?.map_or(Ok(false), |pidfd| send(&pidfd, Signal::KILL))
}

/// Who has `pid` now.
///
/// # Errors
/// If no process has it, it is a zombie, or it belongs to another user.
pub fn identify(pid: u32) -> io::Result<ProcessIdentity> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let start_ticks = start_ticks(&stat).ok_or(io::ErrorKind::InvalidData)?;
    // A package upgrade replaces the file below a running VMM; it is the same process all the same.
    let executable = without_deleted_mark(fs::read_link(format!("/proc/{pid}/exe"))?);
    Ok(ProcessIdentity {
        pid,
        start_ticks,
        executable,
        host_boot_id: host_boot_id()?,
    })
}

/// The id that the kernel drew when this host booted.
///
/// # Errors
/// If `/proc` is not mounted.
pub fn host_boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// The pidfd comes first, then the comparison: so the pid cannot change hands in between.
fn find_pidfd(identity: &ProcessIdentity) -> io::Result<Option<OwnedFd>> {
    let Some(pidfd) = open_pidfd(identity.pid)? else {
        return Ok(None);
    };
    let is_same = match identify(identity.pid) {
        Ok(found) => found == *identity,
        Err(error) if tells_of_another(&error) => false,
        // It may be the one: that no descriptor was free says nothing of it.
        Err(error) => return Err(error),
    };
    Ok(is_same.then_some(pidfd))
}

/// Whether a process is not to be identified since it is gone, ends, or is another user's.
fn tells_of_another(error: &io::Error) -> bool {
    let is_gone = error.raw_os_error() == Some(libc::ESRCH);
    let kinds = [
        io::ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::InvalidData,
    ];
    is_gone || kinds.contains(&error.kind())
}

fn send(pidfd: &OwnedFd, signal: Signal) -> io::Result<bool> {
    match rustix::process::pidfd_send_signal(pidfd, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn open_pidfd(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // EINVAL: the number is a thread's, not a process's.
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Field 22 of `/proc/<pid>/stat` (proc(5)). The second field is the program's name, in parentheses, and may
/// itself hold spaces and parentheses.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn without_deleted_mark(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(DELETED)) {
        Some(text) => PathBuf::from(text),
        None => path,
    }
}

fn working_dir_below(pid: u32, state_dir: &Path) -> Option<PathBuf> {
    let dir = without_deleted_mark(fs::read_link(format!("/proc/{pid}/cwd")).ok()?);
    dir.starts_with(state_dir).then_some(dir)
}

fn command_line(pid: u32) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let limit = MAX_COMMAND_LINE as u64;
    fs::File::open(format!("/proc/{pid}/cmdline"))
        .ok()?
        .take(limit)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// The VM that a VMM's command line names: the word after QEMU's `-name`, or Firecracker's `--id`.
fn named_vm(command_line: &[u8]) -> Option<VmId> {
    let mut words = command_line.split(|&byte| byte == 0);
    words
        .by_ref()
        .find(|word| [&b"-name"[..], b"--id"].contains(word))?;
    std::str::from_utf8(words.next()?)
        .ok()?
        .strip_prefix(NAME_PREFIX)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests;
