//! A cgroup per session, so that no process of it can escape its end, and so that one that the kernel
//! killed for want of memory is told apart.
//!
//! Where the guest has no cgroup v2 the process group and the kernel's session id do instead: children
//! that make a session of their own then live on.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_proto::guest::v1::SessionUsage;
use rustix::fs::{Mode, OFlags};
use tokio::io::Interest;

use crate::sys;

/// How long a cgroup whose processes were killed is given to empty.
const EMPTY_WITHIN: Duration = Duration::from_secs(5);
/// Rounds of killing what forks meanwhile, where the kernel cannot kill a cgroup at once.
const KILL_ROUNDS: usize = 16;
/// Longest of the small files that are read.
const FILE_MAX_BYTES: usize = 256 << 10;

/// Where the cgroups of sessions are made.
#[derive(Debug, Clone)]
pub struct Parent(PathBuf);

impl Parent {
    /// Uses the cgroup v2 directory `path`, if it is one.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        path.join("cgroup.procs")
            .exists()
            .then(|| Self(path.to_owned()))
    }

    /// Makes the cgroup of the session `id`, a name without separators.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn create(&self, id: &str) -> io::Result<Cgroup> {
        let path = self.0.join(format!("session-{id}"));
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Cgroup { path }),
        }
    }
}

/// The cgroup of one session; its directory goes with the session's end, if it is empty by then.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Its `cgroup.procs`, through which a process enters.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn entrance(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(
            self.path.join("cgroup.procs"),
            flags,
            Mode::empty(),
        )?)
    }

    /// The processes in it.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        let text = fs::read(self.path.join("cgroup.procs")).unwrap_or_default();
        let text = &text[..text.len().min(FILE_MAX_BYTES)];
        String::from_utf8_lossy(text)
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|&pid| pid > 0)
            .collect()
    }

    /// Sends a signal to every process in it.
    pub fn signal(&self, signal: i32) {
        for pid in self.processes() {
            // One that has ended meanwhile is none to signal.
            let _ = sys::kill(pid, signal);
        }
    }

    /// Kills every process in it.
    pub fn kill(&self) {
        if fs::write(self.path.join("cgroup.kill"), b"1").is_ok() {
            return;
        }
        for _ in 0..KILL_ROUNDS {
            if self.processes().is_empty() {
                return;
            }
            self.signal(libc::SIGKILL);
        }
    }

    /// Whether the kernel killed a process of it for want of memory.
    #[must_use]
    pub fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        events
            .lines()
            .filter_map(|line| line.strip_prefix("oom_kill "))
            .any(|count| count.trim() != "0")
    }

    /// What its processes use; nothing where the kernel does not tell.
    #[must_use]
    pub fn usage(&self) -> Option<SessionUsage> {
        let number = |file: &str| -> Option<i64> {
            fs::read_to_string(self.path.join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        let stat = fs::read_to_string(self.path.join("cpu.stat")).ok()?;
        let cpu = stat
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "))?;
        let cpu = Duration::from_micros(cpu.trim().parse().ok()?);
        Some(SessionUsage {
            cpu_time: prost_types::Duration::try_from(cpu).ok(),
            memory_bytes: number("memory.current").unwrap_or_default(),
            process_count: i32::try_from(self.processes().len()).unwrap_or(i32::MAX),
        })
    }

    /// Removes it; one that was removed is empty from then on.
    pub fn remove(&self) {
        // A directory that cannot be removed holds a process that cannot be killed.
        let _ = fs::remove_dir(&self.path);
    }

    fn is_populated(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// Waits until no process is left in it, or too long.
    pub async fn wait_empty(&self) {
        if self.is_populated() {
            // Whoever is left after that cannot be killed; the directory then stays.
            let _ = tokio::time::timeout(EMPTY_WITHIN, self.emptied()).await;
        }
    }

    async fn emptied(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let events = rustix::fs::open(self.path.join("cgroup.events"), flags, Mode::empty())?;
        let events = sys::watch(events, Interest::PRIORITY)?;
        while self.is_populated() {
            events.ready(Interest::PRIORITY).await?.clear_ready();
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}
