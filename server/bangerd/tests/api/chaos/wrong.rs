//! What goes wrong: for an instant, for a while, or over several points.

use std::sync::atomic::Ordering;
use std::time::Duration;

use banger_vmm::fake::Faults;

use super::daemon::Daemon;
use super::{Campaign, LATEST};
use crate::disk::{Calls, Trouble};
use crate::rig::{PATIENCE, connect};

/// How long a disturbance lasts that is neither an instant nor stays.
const LASTS: Duration = Duration::from_millis(150);
/// A disk hangs so long; one of so many times up to the second.
const HANGS: Duration = Duration::from_millis(400);
const HANGS_LONG: Duration = Duration::from_secs(3);
const LONG_OF: u64 = 4;
/// Of a thousand calls on files, so many fail; or all of them do.
const FAILING: std::ops::Range<u64> = 20..400;
/// Of a thousand calls.
const ALL: u64 = 1000;
/// Of so many points, one has two disturbances.
const TWO_OF: u64 = 3;
/// Before so many points, something begins that stays.
const STAYS_OF: u64 = 10;
/// Over how many points it stays.
const STAYS: std::ops::Range<u64> = 1..4;
/// How long a daemon that was killed under what stays may take to serve, or it is taken for one that cannot.
const SERVES_WITHIN: Duration = Duration::from_millis(500);

/// What goes wrong in a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disturbance {
    DaemonKilled,
    VmmKilled,
    AgentMute,
    AgentNeverThere,
    LaunchFails,
    VmmDiesSoon,
    VmmStubborn,
    VmmUnkillable,
    /// No VMM can be taken over.
    AdoptionFails,
    /// Launches are cut off, and nobody finds out whether anything of them lives.
    LaunchLost,
    /// The file system has no byte left, or says so.
    DiskFull,
    /// Some or all changes of files fail with ENOSPC.
    NoSpace,
    /// Some or all changes of files fail with EIO.
    DiskFails,
    /// Reads fail, too.
    DiskUnreadable,
    /// What changes files waits, and perhaps what removes them or looks at them.
    DiskHangs,
}

const DISTURBANCES: [Disturbance; 17] = [
    Disturbance::DaemonKilled,
    Disturbance::DaemonKilled,
    Disturbance::DaemonKilled,
    Disturbance::VmmKilled,
    Disturbance::AgentMute,
    Disturbance::AgentNeverThere,
    Disturbance::LaunchFails,
    Disturbance::VmmDiesSoon,
    Disturbance::VmmStubborn,
    Disturbance::VmmUnkillable,
    Disturbance::AdoptionFails,
    Disturbance::LaunchLost,
    Disturbance::DiskFull,
    Disturbance::NoSpace,
    Disturbance::DiskFails,
    Disturbance::DiskUnreadable,
    Disturbance::DiskHangs,
];

impl Disturbance {
    /// One, or two of them.
    pub(super) fn some(random: &mut fastrand::Rng) -> Vec<Self> {
        let number = 1 + usize::from(random.u64(..TWO_OF) == 0);
        (0..number)
            .map(|_| DISTURBANCES[random.usize(..DISTURBANCES.len())])
            .collect()
    }

    const fn is_instant(self) -> bool {
        matches!(self, Self::DaemonKilled | Self::VmmKilled)
    }
}

/// What is wrong for a while.
#[derive(Default)]
struct Wrong {
    faults: Faults,
    troubles: Vec<Trouble>,
    /// What waits.
    hangs: Vec<Trouble>,
    is_killed: bool,
    lasts: bool,
}

/// What stays wrong until it is lifted, whatever else happens meanwhile.
pub(super) struct Staying {
    pub(super) what: &'static str,
    /// The last point that it is there in.
    pub(super) until: u64,
    faults: Faults,
    is_mute: bool,
    _trouble: Option<Trouble>,
}

impl Campaign {
    /// Begins something that stays, now and then.
    pub(super) fn stay(&mut self, daemon: &Daemon, point: u64) {
        if self.staying.is_some() || self.random.u64(..STAYS_OF) != 0 {
            return;
        }
        let until = point + self.random.u64(STAYS);
        let some = self.random.u64(FAILING);
        let seed = self.random.u64(..);
        let disk = |errno, chance| {
            Some(Trouble::fails(
                &self.config.state_dir,
                Calls::Changes,
                errno,
                chance,
                seed,
            ))
        };
        let stubborn = Faults {
            ignores_power_button: true,
            ignores_terminate: true,
            ..Faults::default()
        };
        let calm = Faults::default();
        let (what, faults, is_mute, trouble) = match self.random.u32(..7) {
            0 => ("no space", calm, false, disk(libc::ENOSPC, ALL)),
            1 => ("little space", calm, false, disk(libc::ENOSPC, some)),
            2 => ("a broken disk", calm, false, disk(libc::EIO, ALL)),
            3 => ("a bad disk", calm, false, disk(libc::EIO, some)),
            4 => ("mute agents", calm, true, None),
            5 => (
                "mute agents without space",
                calm,
                true,
                disk(libc::ENOSPC, ALL),
            ),
            _ => (
                "mute agents in stubborn VMMs on a bad disk",
                stubborn,
                true,
                disk(libc::EIO, some),
            ),
        };
        self.host.set_faults(faults.clone());
        daemon.is_mute.store(is_mute, Ordering::Relaxed);
        self.staying = Some(Staying {
            what,
            until,
            faults,
            is_mute,
            _trouble: trouble,
        });
    }

    /// Ends what stays.
    pub(super) fn lift(&mut self, daemon: &Daemon) {
        self.staying = None;
        self.host.set_faults(Faults::default());
        daemon.is_mute.store(false, Ordering::Relaxed);
    }

    /// One after the other begins; then all end, but for what stays.
    pub(super) async fn disturb(
        &mut self,
        disturbances: &[Disturbance],
        mut daemon: Daemon,
    ) -> Daemon {
        let stays = self.staying.as_ref();
        let mut wrong = Wrong {
            faults: stays.map(|stays| stays.faults.clone()).unwrap_or_default(),
            ..Wrong::default()
        };
        for disturbance in disturbances {
            daemon = self.begin(*disturbance, daemon, &mut wrong).await;
        }
        if wrong.lasts {
            tokio::time::sleep(LASTS.mul_f64(self.random.f64())).await;
        }
        self.hang(&daemon, &mut wrong).await;
        let stays = self.staying.as_ref();
        self.host
            .set_faults(stays.map(|stays| stays.faults.clone()).unwrap_or_default());
        let is_mute = stays.is_some_and(|stays| stays.is_mute);
        daemon.is_mute.store(is_mute, Ordering::Relaxed);
        let _ = std::fs::remove_file(&self.ballast);
        drop(wrong.troubles);
        if wrong.is_killed {
            self.connect_again(&mut daemon).await;
        }
        daemon
    }

    /// While the disk hangs, what does not need it is answered.
    async fn hang(&mut self, daemon: &Daemon, wrong: &mut Wrong) {
        if wrong.hangs.is_empty() {
            return;
        }
        let longest = match self.random.u64(..LONG_OF) {
            0 => HANGS_LONG,
            _ => HANGS,
        };
        tokio::time::sleep(longest.mul_f64(self.random.f64())).await;
        // One that was started meanwhile serves when its disk does.
        if !wrong.is_killed {
            let listed = tokio::time::timeout(PATIENCE, daemon.all()).await;
            assert!(listed.is_ok(), "a disk that hangs holds up the daemon");
        }
        wrong.hangs.clear();
    }

    /// A daemon that cannot serve with what stays does when that is lifted.
    async fn connect_again(&mut self, daemon: &mut Daemon) {
        if self.staying.is_some() {
            let serves = tokio::time::timeout(SERVES_WITHIN, connect(&self.config.socket)).await;
            if let Ok(channel) = serves {
                daemon.channel = channel;
                return;
            }
            self.lift(daemon);
        }
        daemon.channel = connect(&self.config.socket).await;
    }

    async fn begin(
        &mut self,
        disturbance: Disturbance,
        daemon: Daemon,
        wrong: &mut Wrong,
    ) -> Daemon {
        wrong.lasts |= !disturbance.is_instant();
        let faults = &mut wrong.faults;
        match disturbance {
            Disturbance::DaemonKilled => {
                wrong.is_killed = true;
                // A process ends when its calls to the disk have.
                wrong.hangs.clear();
                let (is_mute, channel) = (daemon.is_mute.clone(), daemon.channel.clone());
                let killed = tokio::time::timeout(PATIENCE, daemon.kill()).await;
                assert!(killed.is_ok(), "a daemon does not end");
                return Daemon::begin(&self.config, &self.host, &self.sessions, is_mute, channel);
            }
            Disturbance::VmmKilled => {
                let living = self.host.living();
                if !living.is_empty() {
                    self.host.crash(living[self.random.usize(..living.len())]);
                }
            }
            Disturbance::AgentMute => daemon.is_mute.store(true, Ordering::Relaxed),
            Disturbance::DiskFull => self.fill(),
            Disturbance::NoSpace => {
                let trouble = self.trouble(Calls::Changes, libc::ENOSPC);
                wrong.troubles.push(trouble);
            }
            Disturbance::DiskFails => {
                let trouble = self.trouble(Calls::Changes, libc::EIO);
                wrong.troubles.push(trouble);
            }
            Disturbance::DiskUnreadable => {
                let trouble = self.trouble(Calls::All, libc::EIO);
                wrong.troubles.push(trouble);
            }
            Disturbance::DiskHangs => {
                let state = &self.config.state_dir;
                wrong.hangs.push(Trouble::holds(state));
                if self.random.bool() {
                    wrong.hangs.push(Trouble::holds_removals(state));
                }
                if self.random.bool() {
                    wrong.hangs.push(Trouble::holds_looks(state));
                }
            }
            Disturbance::AgentNeverThere => faults.never_answers = true,
            Disturbance::LaunchFails => faults.launch_fails = true,
            Disturbance::VmmDiesSoon => {
                faults.dies_after = Some(LATEST.mul_f64(self.random.f64()));
            }
            Disturbance::VmmStubborn => {
                (faults.ignores_power_button, faults.ignores_terminate) = (true, true);
            }
            Disturbance::AdoptionFails => faults.adoption_fails = true,
            Disturbance::LaunchLost => {
                (faults.launch_cut_off, faults.adoption_fails) = (true, true);
            }
            Disturbance::VmmUnkillable => {
                (faults.ignores_terminate, faults.ignores_kill) = (true, true);
            }
        }
        self.host.set_faults(wrong.faults.clone());
        daemon
    }

    fn trouble(&mut self, calls: Calls, errno: i32) -> Trouble {
        let chance = match self.random.u64(..4) {
            0 => ALL,
            _ => self.random.u64(FAILING),
        };
        let seed = self.random.u64(..);
        Trouble::fails(&self.config.state_dir, calls, errno, chance, seed)
    }

    /// Fills the disk to its last byte.
    fn fill(&self) {
        use std::io::Write as _;
        if !self.can_fill {
            return;
        }
        // It fails too where the calls on files do.
        let Ok(mut file) = std::fs::File::create(&self.ballast) else {
            return;
        };
        let mut piece = vec![0; 1 << 20];
        while !piece.is_empty() {
            if file.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
    }
}
