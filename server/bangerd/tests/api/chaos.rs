//! A campaign: a daemon, its VMMs, its agents and its disk are disturbed at random points of random work on VMs. After
//! each: every VM is where a rule puts it, each can be used or removed, and nothing is left that no VM owns.
//!
//! The daemon is killed by ending its whole runtime: what it was doing is dropped where it stood, as by SIGKILL; the
//! VMs live on, on their own host. The seed is printed; `BANGER_SEED` repeats a run, `BANGER_POINTS` makes it longer
//! or shorter.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use banger_proto::v1;
use banger_proto::v1::host_service_client::HostServiceClient;
use banger_proto::v1::session_service_client::SessionServiceClient;
use banger_proto::v1::vm::State;
use banger_proto::v1::vm_service_client::VmServiceClient;
use banger_vmm::FakeHost;
use banger_vmm::fake::Faults;
use bangerd::config::Config;
use bangerd::daemon;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::agent::{FakeConnector, agent};
use crate::rig::{PATIENCE, config, connect, creation, drain, furnish};

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

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Create,
    Start,
    Stop,
    Restart,
    Kill,
    Pause,
    Resume,
    Update,
    Delete,
    Exec,
    Session,
}

/// More creations and sessions than others, or there would be nothing to disturb.
const ACTS: [Act; 15] = [
    Act::Create,
    Act::Create,
    Act::Create,
    Act::Start,
    Act::Start,
    Act::Stop,
    Act::Restart,
    Act::Kill,
    Act::Pause,
    Act::Resume,
    Act::Update,
    Act::Delete,
    Act::Exec,
    Act::Exec,
    Act::Session,
];

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
    DiskFull,
}

const DISTURBANCES: [Disturbance; 10] = [
    Disturbance::DaemonKilled,
    Disturbance::DaemonKilled,
    Disturbance::DaemonKilled,
    Disturbance::VmmKilled,
    Disturbance::AgentMute,
    Disturbance::AgentNeverThere,
    Disturbance::LaunchFails,
    Disturbance::VmmDiesSoon,
    Disturbance::VmmStubborn,
    Disturbance::DiskFull,
];

/// A daemon in a runtime of its own.
struct Daemon {
    runtime: Runtime,
    channel: Channel,
    is_mute: Arc<AtomicBool>,
}

impl Daemon {
    async fn start(config: &Config, host: &FakeHost) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let connector = Arc::new(FakeConnector::default());
        let is_mute = connector.is_mute.clone();
        let driver = Arc::new(host.driver());
        let run = daemon::run(config.clone(), driver, connector, CancellationToken::new());
        drop(runtime.spawn(run));
        let channel = connect(&config.socket).await;
        Self {
            runtime,
            channel,
            is_mute,
        }
    }

    /// What it was doing is dropped where it stood. System calls under way are waited for: those a kernel would
    /// finish too.
    async fn kill(self) {
        let runtime = self.runtime;
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE));
        ended.await.unwrap();
    }

    fn vms(&self) -> VmServiceClient<Channel> {
        VmServiceClient::new(self.channel.clone())
    }

    async fn all(&self) -> Vec<v1::Vm> {
        let listed = self.vms().list_vms(v1::ListVmsRequest::default()).await;
        listed.unwrap().into_inner().vms
    }
}

struct Campaign {
    random: fastrand::Rng,
    dir: TempDir,
    config: Config,
    host: FakeHost,
    ballast: PathBuf,
    /// Whether the state directory is on a small file system.
    can_fill: bool,
}

/// One request, whatever becomes of it: an error must say what it is.
async fn request(channel: Channel, act: Act, name: String) -> Result<(), Status> {
    let mut vms = VmServiceClient::new(channel.clone());
    let mut sessions = SessionServiceClient::new(channel);
    let request_id = String::new();
    let vm = name;
    match act {
        Act::Create => drain(vms.create_vm(creation(&vm)).await?.into_inner())
            .await
            .map(drop),
        Act::Start => vms
            .start_vm(v1::StartVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Stop => vms
            .stop_vm(v1::StopVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Restart => vms
            .restart_vm(v1::RestartVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Kill => vms
            .kill_vm(v1::KillVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Pause => vms
            .pause_vm(v1::PauseVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Resume => vms
            .resume_vm(v1::ResumeVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Update => {
            let request = v1::UpdateVmRequest {
                vm,
                spec: Some(v1::VmSpec {
                    vcpu_count: 2,
                    ..Default::default()
                }),
                update_mask: Some(prost_types::FieldMask {
                    paths: vec!["vcpu_count".into()],
                }),
                ..Default::default()
            };
            vms.update_vm(request).await.map(drop)
        }
        Act::Delete => vms
            .delete_vm(v1::DeleteVmRequest { vm, request_id })
            .await
            .map(drop),
        Act::Exec => {
            use v1::exec_request::Message;
            let start = v1::ExecStart {
                vm,
                spec: Some(command(&["echo", "hello"])),
            };
            let first = v1::ExecRequest {
                message: Some(Message::Start(start)),
            };
            let input = futures::stream::iter([first]).chain(futures::stream::pending());
            drain(sessions.exec(input).await?.into_inner())
                .await
                .map(drop)
        }
        Act::Session => {
            let request = v1::StartSessionRequest {
                vm,
                spec: Some(command(&["sleep"])),
                ..Default::default()
            };
            sessions.start_session(request).await.map(drop)
        }
    }
}

/// Runs something in a VM, as soon as its agent is reached again where that was under way.
async fn is_of_use(daemon: &Daemon, vm: &v1::Vm) -> Result<(), Status> {
    loop {
        let done = request(daemon.channel.clone(), Act::Exec, vm.id.clone()).await;
        let reason = |error: &Status| error.get_error_details().error_info().cloned();
        match done {
            Err(error) if reason(&error).is_some_and(|info| info.reason == "AGENT_AWAY") => {}
            done => return done,
        }
    }
}

fn command(words: &[&str]) -> v1::SessionSpec {
    v1::SessionSpec {
        command: words.iter().map(|&word| word.to_owned()).collect(),
        ..Default::default()
    }
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
            stop_kill_timeout: limit(),
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
            can_fill,
        }
    }

    /// One point. The daemon that it ends with serves.
    async fn point(&mut self, daemon: Daemon, point: u64) -> Daemon {
        let count = self.random.usize(REQUESTS);
        let mut asked = Vec::new();
        let requests: FuturesUnordered<_> = (0..count)
            .map(|_| {
                let act = ACTS[self.random.usize(..ACTS.len())];
                let name = NAMES[self.random.usize(..NAMES.len())];
                asked.push((act, name));
                request(daemon.channel.clone(), act, name.to_owned())
            })
            .collect();
        let disturbance = DISTURBANCES[self.random.usize(..DISTURBANCES.len())];
        let after = LATEST.mul_f64(self.random.f64());
        let context = format!("point {point}: {asked:?}, {disturbance:?} after {after:?}");
        let answers = tokio::time::timeout(PATIENCE, requests.collect::<Vec<_>>());
        let disturbed = async {
            tokio::time::sleep(after).await;
            self.disturb(disturbance, daemon).await
        };
        let (answers, daemon) = tokio::join!(answers, disturbed);
        let answers = answers.unwrap_or_else(|_| panic!("a request hangs: {context}"));
        for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            let is_cut_off = disturbance == Disturbance::DaemonKilled;
            let reason = error.get_error_details().error_info().is_some();
            assert!(
                reason || is_cut_off,
                "{context}: an error without a reason: {error:?}"
            );
        }
        self.check(&daemon, &context).await;
        if point.is_multiple_of(CLEARED_EVERY) {
            self.clear(&daemon, &context).await;
        }
        daemon
    }

    async fn disturb(&mut self, disturbance: Disturbance, daemon: Daemon) -> Daemon {
        let faults = match disturbance {
            Disturbance::DaemonKilled => {
                daemon.kill().await;
                return Daemon::start(&self.config, &self.host).await;
            }
            Disturbance::VmmKilled => {
                let living = self.host.living();
                if !living.is_empty() {
                    self.host.crash(living[self.random.usize(..living.len())]);
                }
                Faults::default()
            }
            Disturbance::AgentMute => {
                daemon.is_mute.store(true, Ordering::Relaxed);
                Faults::default()
            }
            Disturbance::DiskFull => {
                self.fill();
                Faults::default()
            }
            Disturbance::AgentNeverThere => Faults {
                never_answers: true,
                ..Faults::default()
            },
            Disturbance::LaunchFails => Faults {
                launch_fails: true,
                ..Faults::default()
            },
            Disturbance::VmmDiesSoon => Faults {
                dies_after: Some(LATEST.mul_f64(self.random.f64())),
                ..Faults::default()
            },
            Disturbance::VmmStubborn => Faults {
                ignores_power_button: true,
                ignores_terminate: true,
                ..Faults::default()
            },
        };
        self.host.set_faults(faults);
        tokio::time::sleep(LASTS.mul_f64(self.random.f64())).await;
        self.host.set_faults(Faults::default());
        daemon.is_mute.store(false, Ordering::Relaxed);
        let _ = std::fs::remove_file(&self.ballast);
        daemon
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

    /// Every VM has come to rest; what lives on the host is what the VMs say; no file is anybody's.
    async fn check(&self, daemon: &Daemon, context: &str) {
        loop {
            let vms = self.at_rest(daemon, context).await;
            let Err(why) = judge(daemon, &vms).await else {
                return;
            };
            // A VM that was to die soon may have died while it was looked at: then the look is repeated.
            let moved = async {
                while daemon.all().await == vms {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            };
            let moved = tokio::time::timeout(PATIENCE, moved).await;
            assert!(moved.is_ok(), "{context}: {why}");
        }
    }

    async fn at_rest(&self, daemon: &Daemon, context: &str) -> Vec<v1::Vm> {
        let settled = async {
            loop {
                let vms = daemon.all().await;
                let moving = |vm: &v1::Vm| {
                    !matches!(
                        vm.state(),
                        State::Running | State::Paused | State::Stopped | State::Failed
                    )
                };
                if !vms.iter().any(moving) && self.is_consistent(&vms) {
                    return vms;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if let Ok(vms) = tokio::time::timeout(PATIENCE, settled).await {
            return vms;
        }
        let vms = daemon.all().await;
        panic!(
            "{context}: not at rest: {:?}; on the host {:?}; files {:?} {:?}",
            vms.iter()
                .map(|vm| (&vm.id, vm.state()))
                .collect::<Vec<_>>(),
            self.host.living(),
            self.directories(),
            self.temporary(),
        );
    }

    fn is_consistent(&self, vms: &[v1::Vm]) -> bool {
        let ids = |wanted: &dyn Fn(&v1::Vm) -> bool| -> BTreeSet<String> {
            let vms = vms.iter().filter(|vm| wanted(vm));
            vms.map(|vm| vm.id.clone()).collect()
        };
        let alive = ids(&|vm| matches!(vm.state(), State::Running | State::Paused));
        let living: BTreeSet<_> = self.host.living().iter().map(ToString::to_string).collect();
        alive == living
            && ids(&|_| true).is_superset(&self.directories())
            && self.temporary().is_empty()
    }

    /// Files of work that is not done.
    fn temporary(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut ahead = vec![self.config.state_dir.join("tmp")];
        while let Some(directory) = ahead.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    ahead.push(path);
                } else {
                    found.push(path);
                }
            }
        }
        found
    }

    fn directories(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.config.state_dir.join("vms")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
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

/// Whether VMs at rest are what a rule says, and of use where they run; else what is wrong.
async fn judge(daemon: &Daemon, vms: &[v1::Vm]) -> Result<(), String> {
    judge_promises(daemon, vms).await?;
    for vm in vms {
        if vm.failure.is_some() != (vm.state() == State::Failed) {
            return Err(format!("a failure that is none, or none: {vm:?}"));
        }
        if vm.state() == State::Running {
            let used = tokio::time::timeout(PATIENCE, is_of_use(daemon, vm)).await;
            let used = used.map_err(|_| format!("a VM does not answer: {vm:?}"))?;
            used.map_err(|error| format!("a VM is of no use: {error:?}, {vm:?}"))?;
        }
    }
    Ok(())
}

/// Whether what is promised is what the VMs are, neither more nor less, and nobody waits.
async fn judge_promises(daemon: &Daemon, vms: &[v1::Vm]) -> Result<(), String> {
    let mut host = HostServiceClient::new(daemon.channel.clone());
    let usage = host.get_usage(v1::GetUsageRequest {}).await.unwrap();
    let usage = usage.into_inner().usage.unwrap();
    let promises = usage.promises.unwrap();
    let promised = |promise: Option<v1::Promise>| promise.unwrap().promised;
    let alive = |vm: &&v1::Vm| matches!(vm.state(), State::Running | State::Paused);
    let count = |vms: usize| i64::try_from(vms).unwrap();
    let disk = |vm: &v1::Vm| vm.spec.as_ref().unwrap().disk_mib;
    let found = [
        promised(promises.vms),
        promised(promises.running_vms),
        promised(promises.disk_mib),
        i64::from(usage.booting_count),
        i64::from(usage.waiting_count),
    ];
    let right = [
        count(vms.len()),
        count(vms.iter().filter(alive).count()),
        vms.iter().map(disk).sum(),
        0,
        0,
    ];
    match found == right {
        true => Ok(()),
        false => Err(format!(
            "promised are {found:?}, not {right:?}: VMs, running VMs, MiB of disk, booting, waiting"
        )),
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vms_disturbed_at_any_point_come_to_rest_and_leave_nothing() {
    let seed = setting("BANGER_SEED", fastrand::u64(..));
    println!("chaos: BANGER_SEED={seed}");
    let mut campaign = Campaign::new(seed).await;
    if !campaign.can_fill {
        println!("chaos: the disk is never full, since only root can mount a small one");
    }
    let mut daemon = Daemon::start(&campaign.config, &campaign.host).await;
    furnish(&daemon.channel).await;
    for point in 1..=setting("BANGER_POINTS", POINTS) {
        daemon = campaign.point(daemon, point).await;
    }
    campaign.clear(&daemon, "at the end").await;
    daemon.kill().await;
}
