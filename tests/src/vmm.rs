//! The processes that run VMs, found in `/proc` and not asked of the programs under test; whichever driver started
//! them, their words name the VM.

use std::fs;
use std::path::Path;

use rustix::process::Pid;

/// The programs under test that may name a VM too.
const OTHERS: [&str; 2] = ["banger", "bangerd"];

/// The VMM of the VM with this id, while it lives.
#[must_use]
pub fn find(id: &str) -> Option<Pid> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| is_vmm(*pid, id)).and_then(Pid::from_raw)
}

fn is_vmm(pid: i32, id: &str) -> bool {
    // One that is a zombie has no words.
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).into_owned();
    let program = words.split('\0').next().unwrap_or_default();
    let program = Path::new(program).file_name().unwrap_or_default();
    words.contains(id) && !OTHERS.iter().any(|other| program == *other)
}
