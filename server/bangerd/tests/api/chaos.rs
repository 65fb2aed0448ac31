//! A campaign: a daemon, its VMMs, its agents and its disk are disturbed, by one thing or two at once, at random points
//! of random work on VMs and volumes. After each: every VM is where a rule puts it, each can be used or removed, what ran
//! in those that live goes on and has lost nothing, volumes are whole and had by who uses them, no operation goes on, and
//! nothing is left that no VM or volume owns.
//!
//! Some faults stay over several points, in which requests need only end, and with a reason; after the last of them all
//! of it must hold again.
//!
//! The daemon is killed by ending its whole runtime: what it was doing is dropped where it stood, as by SIGKILL; the
//! VMs live on, on their own host, and their sessions in them. Its disk fails by [`crate::disk`]. The seed is printed;
//! `BANGER_SEED` repeats a run as far as what is asked and done, `BANGER_POINTS` makes it longer or shorter.

mod act;
mod daemon;
mod judge;
mod kept;
mod volumes;
mod wrong;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use banger_vmm::FakeHost;
use bangerd::config::Config;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tempfile::TempDir;
use tonic_types::StatusExt as _;

use self::act::{Act, request};
use self::daemon::Daemon;
use self::judge::judge_promises;
use self::kept::Kept;
use self::wrong::{Disturbance, Staying};
use crate::agent::{Sessions, agent};
use crate::rig::{PATIENCE, config, furnish};
use crate::seed::{seed, setting};

/// Points of one run.
const POINTS: u64 = 1000;
/// Requests at once.
const REQUESTS: std::ops::Range<usize> = 1..7;
/// A disturbance comes up to this much later than the requests.
const LATEST: Duration = Duration::from_millis(12);
/// Every so many points, all VMs and volumes are removed.
const CLEARED_EVERY: u64 = 25;

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
    /// What is wrong over several points.
    staying: Option<Staying>,
    ballast: PathBuf,
    /// Whether the state directory is on a small file system.
    can_fill: bool,
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
            volume_timeout: limit(),
            remove_timeout: "2s".parse().unwrap(),
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
            staying: None,
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
        self.stay(&daemon, point);
        let count = self.random.usize(REQUESTS);
        let mut asked = Vec::new();
        let mut requests: FuturesUnordered<_> = (0..count)
            .map(|number| {
                let (act, name) = Act::random(&mut self.random);
                asked.push((act, name));
                let answer = request(daemon.channel.clone(), act, name.to_owned());
                async move { (number, answer.await) }
            })
            .collect();
        let mut answers: Vec<Option<Result<(), tonic::Status>>> = vec![None; count];
        let disturbances = Disturbance::some(&mut self.random);
        let after = LATEST.mul_f64(self.random.f64());
        let stays = self.staying.as_ref().map_or("calm", |stays| stays.what);
        let context =
            format!("point {point}: {stays}: {asked:?}, {disturbances:?} after {after:?}");
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
        let is_clearing = point.is_multiple_of(CLEARED_EVERY);
        let stays_on = |stays: &Staying| stays.until > point && !is_clearing;
        if self.staying.as_ref().is_some_and(stays_on) {
            self.check_meanwhile(&daemon, &context).await;
            return daemon;
        }
        self.lift(&daemon);
        self.check(&daemon, &context).await;
        self.check_kept(&daemon, &context).await;
        if is_clearing {
            self.clear(&daemon, &context).await;
        }
        daemon
    }

    /// Every VM and then every volume can be removed, and takes all of it along.
    async fn clear(&self, daemon: &Daemon, context: &str) {
        for vm in daemon.all().await {
            let removed = request(daemon.channel.clone(), Act::Delete, vm.id);
            let removed = tokio::time::timeout(PATIENCE, removed).await;
            removed.expect(context).expect(context);
        }
        assert!(self.host.living().is_empty(), "{context}");
        assert!(self.entries("vms").is_empty(), "{context}");
        self.clear_volumes(daemon, context).await;
        judge_promises(daemon, &[], &[]).await.expect(context);
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
    let seed = seed("chaos");
    let points = setting("BANGER_POINTS", POINTS);
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
