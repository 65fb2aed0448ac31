//! What the memory of bangerd and of the agent comes to, and what it may.

use banger_e2e::Daemon;

use super::{DUELS, EXECS, FILES, SECOND_READER_EVERY, SESSIONS};
use crate::suite::LONG;

/// What bangerd has without any stream.
const DAEMON_KIB: u64 = 64 << 10;
/// What a stream may hold in bangerd: the agent's window of 2 MiB, which a reader that stalls leaves full, and what is
/// on its way to the client, 1 MiB of HTTP/2 buffers and one message of at most 1 MiB.
const DAEMON_STREAM_KIB: u64 = 4 << 10;
/// What the agent has without any session, and its allocator keeps of what it had.
const AGENT_KIB: u64 = 32 << 10;
/// `LOGS_MAX_BYTES` of the agent.
const AGENT_LOGS_KIB: u64 = 32 << 10;
/// What a session may have beside: the 64 KiB of its log that it always keeps, two reads of 256 KiB, and as much of a
/// segment on its way to the disk.
const AGENT_SESSION_KIB: u64 = 1 << 10;
/// What a reader may have beside: a segment from the disk and what waits for the channel.
const AGENT_READER_KIB: u64 = 1 << 10;

/// The highest that was seen of each bangerd.
#[derive(Debug, Default)]
pub(super) struct Watched(Vec<u64>);

impl Watched {
    /// Looks at the bangerd that runs now.
    pub(super) fn look(&mut self, daemon: &Daemon) {
        let pid = daemon.pid().as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        self.0.push(peak(&status));
    }

    pub(super) fn peak_kib(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or_default()
    }

    /// Neither had more than the bounds add up to.
    pub(super) fn check(&self, agent_kib: u64) {
        let sessions = SESSIONS as u64;
        let beside = (2 * DUELS + EXECS + FILES) as u64;
        // A reader that comes back may be served twice for a moment.
        let readers = 2 * (sessions + sessions.div_ceil(SECOND_READER_EVERY as u64) + beside);
        let daemon = DAEMON_KIB + readers * DAEMON_STREAM_KIB;
        assert!(
            self.peak_kib() < daemon,
            "bangerd had {} KiB of {daemon}",
            self.peak_kib()
        );
        let agent =
            AGENT_KIB + AGENT_LOGS_KIB + sessions * AGENT_SESSION_KIB + readers * AGENT_READER_KIB;
        assert!(
            agent_kib < agent,
            "the agent had {agent_kib} KiB of {agent}"
        );
    }
}

/// The highest that the agent of a VM had, KiB.
pub(super) fn agent_peak_kib(daemon: &Daemon, vm: &str) -> u64 {
    let words = ["vm", "exec", vm, "--", "cat", "/proc/1/status"];
    peak(&daemon.banger(words).timeout(LONG).ok().out())
}

/// The highest resident memory of a process, from the text of its `status`, KiB.
fn peak(status: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}
