//! A campaign: a daemon, its VMMs, its agents and its disk are disturbed, by one thing or two at once, at random points
//! of random work on VMs. After each: every VM is where a rule puts it, each can be used or removed, what ran in those
//! that live goes on and has lost nothing, no operation goes on, and nothing is left that no VM owns.
//!
//! The daemon is killed by ending its whole runtime: what it was doing is dropped where it stood, as by SIGKILL; the
//! VMs live on, on their own host, and their sessions in them. Its disk fails by [`crate::disk`]. The seed is printed;
//! `BANGER_SEED` repeats a run as far as what is asked and done, `BANGER_POINTS` makes it longer or shorter.

mod act;
mod daemon;
mod judge;
mod kept;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use banger_vmm::FakeHost;
use banger_vmm::fake::Faults;
use bangerd::config::Config;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tempfile::TempDir;
use tonic_types::StatusExt as _;

use self::act::{ACTS, Act, request};
use self::daemon::Daemon;
use self::judge::judge_promises;
use self::kept::Kept;
use crate::agent::{Sessions, agent};
use crate::disk::{Calls, Trouble};
use crate::rig::{PATIENCE, config, connect, furnish};

/// Points of one run.
const POINTS: u64 = 1000;
/// The names that VMs have: few, so that requests meet.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Requests at once.
const REQUESTS: std::ops::Range<usize> = 1..6;
/// A disturbance comes up to this much later than the requests.
const LATEST: Duration = Duration::from_millis(12);
/// How long a disturbance lasts that is not an instant.
const LASTS: Duration = Duration::from_millis(150);
/// Every so many points, all VMs are removed.
const CLEARED_EVERY: u64 = 25;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    DaemonKilled,
    VmmKilled,
    AgentMute,
    AgentNeverThere,
    LaunchFails,
    VmmDiesSoon,
    VmmStubborn,
    VmmUnkillable,
    /// The file system has no byte left, or says so.
    DiskFull,
    /// Some or all changes of files fail with ENOSPC.
    NoSpace,
    /// Some or all changes of files fail with EIO.
    DiskFails,
    /// Reads fail, too.
    DiskUnreadable,
}

const DISTURBANCES: [Disturbance; 14] = [
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
    Disturbance::DiskFull,
    Disturbance::NoSpace,
    Disturbance::DiskFails,
    Disturbance::DiskUnreadable,
];
/// Of so many points, one has two disturbances.
const TWO_OF: u64 = 3;
/// Of a thousand calls on files, so many fail; or all of them do.
const FAILING: std::ops::Range<u64> = 20..400;

struct Campaign {
    random: fastrand::Rng,
    dir: TempDir,
    config: Config,
    host: FakeHost,
    sessions: Sessions,
    /// The sessions that must go on, by their VMs.
    kept: BTreeMap<String, Kept>,
    /// How often one was found to go on after a disturbance.
    survived: u64,
    ballast: PathBuf,
    /// Whether the state directory is on a small file system.
    can_fill: bool,
}

/// What is wrong for a while.
#[derive(Default)]
struct Wrong {
    faults: Faults,
    troubles: Vec<Trouble>,
    is_killed: bool,
    lasts: bool,
}

impl Campaign {
    async fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let can_fill = small_file_system(dir.path());
        let limit = || "400ms".parse().unwrap();
        let config = Config {
            boot_timeout: limit(),
            configure_timeout: limit(),
            stop_agent_timeout: limit(),
            stop_power_button_timeout: "100ms".parse().unwrap(),
            stop_terminate_timeout: "100ms".parse().unwrap(),
            stop_kill_timeout: "100ms".parse().unwrap(),
            pause_timeout: limit(),
            reconnect_timeout: limit(),
            ..config(&dir)
        };
        std::fs::write(&config.agent, "an agent").unwrap();
        Self {
            random: fastrand::Rng::with_seed(seed),
            ballast: dir.path().join("ballast"),
            config,
            dir,
            host: FakeHost::new(agent()),
            sessions: Sessions::default(),
            kept: BTreeMap::new(),
            survived: 0,
            can_fill,
        }
    }

    /// One point. The daemon that it ends with serves.
    async fn point(&mut self, daemon: Daemon, point: u64) -> Daemon {
        let kept = tokio::time::timeout(PATIENCE, self.keep(&daemon)).await;
        assert!(
            kept.is_ok(),
            "before point {point}: no session can be begun"
        );
        let count = self.random.usize(REQUESTS);
        let mut asked = Vec::new();
        let mut requests: FuturesUnordered<_> = (0..count)
            .map(|number| {
                let act = ACTS[self.random.usize(..ACTS.len())];
                let name = NAMES[self.random.usize(..NAMES.len())];
                asked.push((act, name));
                let answer = request(daemon.channel.clone(), act, name.to_owned());
                async move { (number, answer.await) }
            })
            .collect();
        let mut answers: Vec<Option<Result<(), tonic::Status>>> = vec![None; count];
        let number = 1 + usize::from(self.random.u64(..TWO_OF) == 0);
        let disturbances: Vec<Disturbance> = (0..number)
            .map(|_| DISTURBANCES[self.random.usize(..DISTURBANCES.len())])
            .collect();
        let after = LATEST.mul_f64(self.random.f64());
        let context = format!("point {point}: {asked:?}, {disturbances:?} after {after:?}");
        let answered = tokio::time::timeout(PATIENCE, async {
            while let Some((number, answer)) = requests.next().await {
                answers[number] = Some(answer);
            }
        });
        let disturbed = async {
            tokio::time::sleep(after).await;
            self.disturb(&disturbances, daemon).await
        };
        let (answered, daemon) = tokio::join!(answered, disturbed);
        if answered.is_err() {
            let running = tokio::time::timeout(PATIENCE, daemon.running_operations()).await;
            let vms = tokio::time::timeout(PATIENCE, daemon.all()).await;
            panic!("a request hangs: {context}: {answers:?}; {running:?}; the VMs: {vms:#?}");
        }
        for error in answers
            .iter()
            .flatten()
            .filter_map(|answer| answer.as_ref().err())
        {
            let is_cut_off = disturbances.contains(&Disturbance::DaemonKilled);
            let reason = error.get_error_details().error_info().is_some();
            assert!(
                reason || is_cut_off,
                "{context}: an error without a reason: {error:?}"
            );
        }
        self.check(&daemon, &context).await;
        self.check_kept(&daemon, &context).await;
        if point.is_multiple_of(CLEARED_EVERY) {
            self.clear(&daemon, &context).await;
        }
        daemon
    }

    /// One after the other begins; then all end.
    async fn disturb(&mut self, disturbances: &[Disturbance], mut daemon: Daemon) -> Daemon {
        let mut wrong = Wrong::default();
        for disturbance in disturbances {
            daemon = self.begin(*disturbance, daemon, &mut wrong).await;
        }
        if wrong.lasts {
            tokio::time::sleep(LASTS.mul_f64(self.random.f64())).await;
        }
        self.host.set_faults(Faults::default());
        daemon.is_mute.store(false, Ordering::Relaxed);
        let _ = std::fs::remove_file(&self.ballast);
        drop(wrong.troubles);
        if wrong.is_killed {
            daemon.channel = connect(&self.config.socket).await;
        }
        daemon
    }

    async fn begin(
        &mut self,
        disturbance: Disturbance,
        daemon: Daemon,
        wrong: &mut Wrong,
    ) -> Daemon {
        let is_instant = [Disturbance::DaemonKilled, Disturbance::VmmKilled].contains(&disturbance);
        wrong.lasts |= !is_instant;
        let faults = &mut wrong.faults;
        match disturbance {
            Disturbance::DaemonKilled => {
                wrong.is_killed = true;
                let (is_mute, channel) = (daemon.is_mute.clone(), daemon.channel.clone());
                daemon.kill().await;
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
            Disturbance::AgentNeverThere => faults.never_answers = true,
            Disturbance::LaunchFails => faults.launch_fails = true,
            Disturbance::VmmDiesSoon => {
                faults.dies_after = Some(LATEST.mul_f64(self.random.f64()));
            }
            Disturbance::VmmStubborn => {
                (faults.ignores_power_button, faults.ignores_terminate) = (true, true);
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
            0 => 1000,
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
        let mut file = std::fs::File::create(&self.ballast).unwrap();
        let mut piece = vec![0; 1 << 20];
        while !piece.is_empty() {
            if file.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
    }

    /// Every VM can be removed, and takes all of it along.
    async fn clear(&self, daemon: &Daemon, context: &str) {
        for vm in daemon.all().await {
            let removed = request(daemon.channel.clone(), Act::Delete, vm.id);
            let removed = tokio::time::timeout(PATIENCE, removed).await;
            removed.expect(context).expect(context);
        }
        assert!(self.host.living().is_empty(), "{context}");
        assert!(self.directories().is_empty(), "{context}");
        judge_promises(daemon, &[]).await.expect(context);
    }
}

/// Puts a file system of a few MiB there, so that a full disk costs nothing; only root can.
fn small_file_system(place: &std::path::Path) -> bool {
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m", "banger-chaos"])
        .arg(place)
        .output();
    mounted.is_ok_and(|done| done.status.success())
}

impl Drop for Campaign {
    fn drop(&mut self) {
        if self.can_fill {
            let _ = std::process::Command::new("umount")
                .arg("--lazy")
                .arg(self.dir.path())
                .status();
        }
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Descriptors of this process whose files are below a directory.
fn descriptors(below: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|path| path.starts_with(below))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vms_disturbed_at_any_point_come_to_rest_and_leave_nothing() {
    let seed = setting("BANGER_SEED", fastrand::u64(..));
    let points = setting("BANGER_POINTS", POINTS);
    println!("chaos: BANGER_SEED={seed}");
    let mut campaign = Campaign::new(seed).await;
    if !campaign.can_fill {
        eprintln!(
            "SKIPPED chaos on a file system without a byte left: only root can mount a small one"
        );
    }
    let mut daemon = Daemon::start(&campaign.config, &campaign.host, &campaign.sessions).await;
    furnish(&daemon.channel).await;
    for point in 1..=points {
        daemon = campaign.point(daemon, point).await;
    }
    campaign.clear(&daemon, "at the end").await;
    daemon.kill().await;
    // The threads of a database end behind their daemon.
    let closed = async {
        while !descriptors(campaign.dir.path()).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let closed = tokio::time::timeout(PATIENCE, closed).await;
    assert!(closed.is_ok(), "{:?}", descriptors(campaign.dir.path()));
    println!(
        "chaos: {points} points; sessions went on after {} of them",
        campaign.survived
    );
    assert!(
        points < POINTS || campaign.survived > points / 10,
        "sessions were hardly looked at: {}",
        campaign.survived
    );
}
