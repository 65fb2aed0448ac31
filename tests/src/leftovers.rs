//! What a run left behind on the host: looked for in `/proc` and `/sys`, not asked of the programs under test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::scratch::{MARK, Scratch};

pub mod cgroups;

/// What was there before a run that is shared by all.
#[derive(Debug)]
pub struct Before {
    interfaces: BTreeSet<String>,
}

impl Before {
    /// Looks now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            interfaces: interfaces(),
        }
    }

    /// Everything of the run that is still there, a line each.
    #[must_use]
    pub fn left(&self, scratch: &Scratch) -> Vec<String> {
        let path = scratch.path();
        let mut left = processes(scratch);
        left.extend(mounts(path));
        left.extend(sockets(path));
        left.extend(loop_devices(path));
        left.extend(cgroups::of(path));
        left.extend(
            interfaces()
                .difference(&self.interfaces)
                .map(|name| format!("network interface {name}")),
        );
        left
    }
}

/// Processes that carry the run's mark, or work in its directory, or name it, but for this one.
#[must_use]
pub fn processes(scratch: &Scratch) -> Vec<String> {
    let mark = format!("{MARK}={}", scratch.mark());
    let path = scratch.path().to_string_lossy().into_owned();
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let read = |name: &str| {
            String::from_utf8_lossy(&fs::read(entry.path().join(name)).unwrap_or_default())
                .into_owned()
        };
        let words = read("cmdline");
        let is_ours = words.contains(&path)
            || read("environ").split('\0').any(|variable| variable == mark)
            || fs::read_link(entry.path().join("cwd"))
                .is_ok_and(|cwd| cwd.starts_with(scratch.path()));
        let is_zombie = read("stat")
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'));
        if is_ours && !is_zombie {
            found.push(format!(
                "process {pid}: {}",
                words
                    .replace('\0', " ")
                    .chars()
                    .take(200)
                    .collect::<String>()
            ));
        }
    }
    found
}

/// Mounts below a directory, a line each.
#[must_use]
pub fn mounts(path: &Path) -> Vec<String> {
    lines_with("/proc/self/mountinfo", path, "mount")
}

/// Unix sockets below a directory that somebody holds, a line each.
#[must_use]
pub fn sockets(path: &Path) -> Vec<String> {
    lines_with("/proc/net/unix", path, "socket")
}

fn lines_with(file: &str, path: &Path, what: &str) -> Vec<String> {
    let path = path.to_string_lossy().into_owned();
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter(|line| line.contains(&path))
        .map(|line| format!("{what}: {line}"))
        .collect()
}

/// Loop devices of files below a directory, a line each.
#[must_use]
pub fn loop_devices(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let backing =
            fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if backing.contains(&*path.to_string_lossy()) {
            found.push(format!(
                "loop device {} of {}",
                entry.file_name().to_string_lossy(),
                backing.trim()
            ));
        }
    }
    found
}

fn interfaces() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Kills what a failed run left, so that it disturbs nobody after it.
pub fn kill(scratch: &Scratch) {
    for line in processes(scratch) {
        let pid = line
            .trim_start_matches("process ")
            .split(':')
            .next()
            .unwrap_or_default();
        let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) else {
            continue;
        };
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
