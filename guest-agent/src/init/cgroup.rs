//! The agent's own part of the cgroups, beside the init's. systemd takes every process of the root for its own, and
//! leaves alone what is in cgroups that it has not made.

use std::fs;
use std::io;

/// Where the agent's cgroup and those of sessions are.
pub const PLACE: &str = "/sys/fs/cgroup/banger";
/// The cgroup of the agent itself: one that has others beneath it holds no process.
const OWN: &str = "/sys/fs/cgroup/banger/agent";

/// Moves this process there. A kernel without cgroups has nothing to keep apart.
pub(super) fn settle() {
    if let Err(error) = try_settle() {
        eprintln!("banger-agent: no cgroup of its own: {error}");
    }
}

fn try_settle() -> io::Result<()> {
    fs::create_dir_all(OWN)?;
    fs::write(format!("{OWN}/cgroup.procs"), "0")?;
    for controller in ["+memory", "+pids"] {
        // Without it, running out of memory looks like any other SIGKILL.
        let _ = fs::write(format!("{PLACE}/cgroup.subtree_control"), controller);
    }
    Ok(())
}
