//! What goes wrong.

use std::time::Duration;

use banger_e2e::command::until;
use banger_e2e::vmm::find as find_vmm;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::Campaign;
use crate::inside;
use crate::suite::LONG;

/// How long a VMM, an agent or the disk's space is held.
const HELD: Duration = Duration::from_millis(1500);
/// When a session that freezes its agent does it: its start has been answered by then.
const SOON: &str = "sleep 0.3";
/// And when it has done it.
const FROZEN: Duration = Duration::from_secs(1);
/// Of so many points, one has two disturbances.
const TWO_OF: u64 = 4;
/// What is asked of a VM whose agent never answers again.
const ENDS: [&str; 4] = ["stop", "kill", "restart", "remove"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Disturbance {
    DaemonKilled,
    VmmKilled,
    /// Neither the agent nor the VMM answers for a while.
    VmmHeld,
    GuestPanics,
    /// The guest powers itself off.
    GuestEnds,
    /// The agent is killed, and with it the guest.
    AgentKilled,
    /// The agent does not answer for a while.
    AgentHeld,
    /// The agent never answers again, and the VM is to go, or to be made anew.
    AgentGone,
    /// The state directory's disk has no byte left for a while.
    DiskFull,
    /// The state directory's disk breaks; the VMs are ended, the disk is mended, and another daemon goes on.
    DiskBreaks,
}

const DISTURBANCES: [Disturbance; 14] = [
    Disturbance::DaemonKilled,
    Disturbance::DaemonKilled,
    Disturbance::VmmKilled,
    Disturbance::VmmKilled,
    Disturbance::VmmHeld,
    Disturbance::GuestPanics,
    Disturbance::GuestEnds,
    Disturbance::AgentKilled,
    Disturbance::AgentKilled,
    Disturbance::AgentHeld,
    Disturbance::AgentGone,
    Disturbance::DiskFull,
    Disturbance::DiskFull,
    Disturbance::DiskBreaks,
];

impl Disturbance {
    /// Those that need a disk of their own for the state directory.
    pub(super) const OF_DISKS: [Self; 2] = [Self::DiskFull, Self::DiskBreaks];

    /// Those that can be done here, some more often than others.
    pub(super) fn possible(has_disk: bool) -> impl Iterator<Item = Self> {
        let can = move |kind: &Self| has_disk || !Self::OF_DISKS.contains(kind);
        DISTURBANCES.into_iter().filter(can)
    }

    /// One, or two of them.
    pub(super) fn some(random: &mut fastrand::Rng, has_disk: bool) -> Vec<Self> {
        let possible: Vec<Self> = Self::possible(has_disk).collect();
        let number = 1 + usize::from(random.u64(..TWO_OF) == 0);
        (0..number)
            .map(|_| possible[random.usize(..possible.len())])
            .collect()
    }
}

impl Campaign<'_> {
    /// Disturbs; returns whether there was something to disturb.
    pub(super) fn disturb(&mut self, disturbance: Disturbance, name: &str) -> bool {
        match disturbance {
            Disturbance::DaemonKilled => {
                self.daemon.kill();
                self.daemon.start_again();
                true
            }
            // It may be gone since.
            Disturbance::VmmKilled => self
                .vmm(name)
                .is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()),
            Disturbance::VmmHeld => self.vmm(name).is_some_and(|pid| {
                let held = kill_process(pid, Signal::STOP).is_ok();
                std::thread::sleep(HELD);
                held && kill_process(pid, Signal::CONT).is_ok()
            }),
            Disturbance::GuestPanics => self.run_in(name, inside::PANIC),
            Disturbance::GuestEnds => self.run_in(name, "poweroff -f"),
            Disturbance::AgentKilled => self.run_in(name, inside::CRASH),
            Disturbance::AgentHeld => {
                let (freeze, thaw) = (inside::FREEZE, inside::THAW);
                let held = HELD.as_secs_f64();
                let script = format!("{SOON}; {freeze}; sleep {held}; {thaw}");
                let begun = self.begin_in(name, &script);
                if begun {
                    std::thread::sleep(FROZEN + HELD);
                }
                begun
            }
            Disturbance::AgentGone => {
                let begun = self.begin_in(name, &format!("{SOON}; {}", inside::FREEZE));
                if begun {
                    std::thread::sleep(FROZEN);
                    let end = ENDS[self.random.usize(..ENDS.len())];
                    let ended = self.daemon.banger(["vm", end, name]).timeout(LONG).done();
                    println!("chaos: {end}: {}", ended.said());
                }
                begun
            }
            Disturbance::DiskFull => {
                let Some(disk) = &self.disk else { return false };
                let ballast = disk.fill();
                std::thread::sleep(HELD);
                drop(ballast);
                true
            }
            // Mended when the work that it disturbs has ended.
            Disturbance::DiskBreaks => {
                let Some(disk) = &self.disk else { return false };
                disk.die();
                true
            }
        }
    }

    fn vmm(&self, name: &str) -> Option<Pid> {
        let id = self.vms().into_iter().find(|vm| vm["name"] == name)?["id"].clone();
        find_vmm(id.as_str()?)
    }

    /// The VM has no boot before it.
    fn until_booted(&self, name: &str) {
        let boots = |vm: &Value| {
            let state = vm["state"].as_str().unwrap();
            vm["name"] == name && ["creating", "starting"].contains(&state)
        };
        until("a boot ends", LONG, || !self.vms().iter().any(boots));
    }

    /// Whether a script that may end its guest was begun in the VM.
    fn run_in(&self, name: &str, script: &str) -> bool {
        self.until_booted(name);
        let words = [
            "vm", "exec", name, "--output", "json", "--", "sh", "-c", script,
        ];
        let done = self.daemon.banger(words).timeout(LONG).done();
        !done.err().contains("\"code_ran\":\"no\"")
    }

    /// Whether a script was begun in the VM that outlives its caller.
    fn begin_in(&self, name: &str, script: &str) -> bool {
        self.until_booted(name);
        let words = [
            "session", "start", "--quiet", name, "--", "sh", "-c", script,
        ];
        let started = self.daemon.banger(words).timeout(LONG).done();
        started.status.success()
    }

    /// The disk that broke is mended: until then every request is answered, and VMMs can be ended; who starts after
    /// it finds what the disk has kept.
    pub(super) fn mend(&mut self, told: &str) {
        let Some(disk) = &self.disk else { return };
        let vms = self.vms();
        for vm in &vms {
            let words = ["vm", "kill", vm["id"].as_str().unwrap()];
            // What cannot be written is told, and keeps no VMM alive.
            drop(self.daemon.banger(words).timeout(LONG).done());
        }
        until(
            &format!("{told}: no VMM lives on a broken disk"),
            LONG,
            || {
                let ids = vms.iter().filter_map(|vm| vm["id"].as_str());
                ids.filter_map(find_vmm).next().is_none()
            },
        );
        self.daemon.kill();
        disk.mend();
        self.daemon.start_again();
    }
}
