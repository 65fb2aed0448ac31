//! A campaign on real VMs: bangerd, the VMM, the agent, the guest and the disk of the state directory are disturbed, by
//! one thing or two, at random points of random work. After each: every VM is where a rule puts it and is of use or can
//! be removed, what ran in one whose VMM lives goes on and has lost nothing, no operation goes on, and no process, socket,
//! mount, cgroup or file is left that no VM owns.
//!
//! The seed is printed; `BANGER_SEED` repeats a run, `BANGER_VM_POINTS` makes it longer or shorter. Its larger sister
//! is in `server/bangerd/tests/api/chaos.rs`, on VMs without processes.

mod wrong;

use std::collections::BTreeMap;
use std::process::Child;
use std::time::{Duration, Instant};

use banger_e2e::command::ended;
use banger_e2e::disk::OwnDisk;
use banger_e2e::leftovers;
use banger_e2e::vmm::find as find_vmm;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Verdict};
use rustix::process::Pid;
use serde_json::Value;

use crate::campaign::{random, setting};
use crate::suite::{LONG, Suite};
use wrong::Disturbance;

/// Points of one run. One in which nothing was there to be disturbed is none.
const POINTS: u64 = 40;
/// So many times as many are tried.
const TRIES: u64 = 3;
/// The names that VMs have.
const NAMES: [&str; 2] = ["x", "y"];
/// A disturbance of a boot comes up to this much later; of anything else up to a tenth of it.
const LATEST: Duration = Duration::from_secs(3);
/// Between two looks at VMs that are not at rest.
const LOOK: Duration = Duration::from_millis(50);
/// Every so many points, all VMs are removed.
const CLEARED_EVERY: u64 = 10;
/// What kernel, image and VMs take several times over.
const DISK_MIB: u64 = 768;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![Case {
        name: "vms_disturbed_at_any_point_come_to_rest_and_leave_nothing",
        lane: Lane::Own,
        test: chaos,
    }]
}

/// What a session does that must go on.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done";

/// A session that counts.
struct Kept {
    vmm: Pid,
    session: String,
    lines: usize,
}

struct Campaign<'a> {
    suite: &'a Suite,
    daemon: Daemon,
    /// Where the daemon has its state; none where no disk can be mounted here.
    disk: Option<OwnDisk>,
    random: fastrand::Rng,
    /// How often what was disturbed was there.
    disturbed: BTreeMap<Disturbance, u64>,
    /// By the ids of their VMs.
    kept: BTreeMap<String, Kept>,
    /// How often one was found to go on.
    survived: u64,
}

fn chaos(suite: &Suite) -> Verdict {
    let config = "stop_agent_timeout = \"3s\"\nboot_timeout = \"60s\"".to_owned();
    let state = suite.scratch.dir("own-chaos-state");
    let disk = OwnDisk::make(
        &suite.scratch.path().join("own-chaos-disk"),
        &state,
        DISK_MIB,
    );
    if let Err(why) = &disk {
        let kinds = Disturbance::OF_DISKS;
        println!("SKIPPED chaos by {kinds:?}: no disk can be mounted here: {why}");
    }
    let options = DaemonOptions {
        config,
        state_dir: Some(state),
        ..DaemonOptions::default()
    };
    let mut campaign = Campaign {
        suite,
        daemon: suite.own_daemon("own/chaos", options),
        disk: disk.ok(),
        random: random("chaos"),
        disturbed: BTreeMap::new(),
        kept: BTreeMap::new(),
        survived: 0,
    };
    let points = setting("BANGER_VM_POINTS", POINTS);
    let (mut tries, mut disturbed) = (0, 0);
    // A shorter run need not have all kinds.
    while disturbed < points || (points >= POINTS && campaign.missing().is_some()) {
        tries += 1;
        assert!(
            tries <= points * TRIES,
            "{disturbed} of {tries} points were disturbed, by {:?}",
            campaign.disturbed
        );
        let wanted = campaign.missing().filter(|_| disturbed >= points);
        disturbed += u64::from(campaign.point(tries, wanted));
        if tries % CLEARED_EVERY == 0 {
            campaign.remove_all(&format!("after point {tries}"));
        }
    }
    campaign.remove_all("at the end");
    println!("chaos: {disturbed} of {tries} points were disturbed");
    println!("chaos: sessions went on {} times", campaign.survived);
    println!("chaos: disturbed were {:?}", campaign.disturbed);
    campaign.daemon.clear();
    Verdict::Passed
}

impl Campaign<'_> {
    /// A kind that nothing was disturbed by yet.
    fn missing(&self) -> Option<Disturbance> {
        let mut kinds = Disturbance::possible(self.disk.is_some());
        kinds.find(|kind| self.disturbed.get(kind).is_none_or(|&times| times == 0))
    }

    /// One point, by `wanted` or by chance. Returns whether anything was disturbed.
    fn point(&mut self, point: u64, wanted: Option<Disturbance>) -> bool {
        self.keep();
        let name = NAMES[self.random.usize(..NAMES.len())];
        let words = self.work(name);
        let boots = ["create", "start", "restart"].contains(&words[1].as_str());
        let longest = if boots { LATEST } else { LATEST / 10 };
        let after = longest.mul_f64(self.random.f64());
        let disturbances = match wanted {
            Some(wanted) => vec![wanted],
            None => Disturbance::some(&mut self.random, self.disk.is_some()),
        };
        let told = format!("point {point}: {words:?}, {disturbances:?} after {after:?}");
        println!("chaos: {told}");
        let mut caller = self.daemon.banger(&words).spawn();
        std::thread::sleep(after);
        let (mut is_disturbed, mut is_broken) = (false, false);
        for disturbance in disturbances {
            let is_there = self.disturb(disturbance, name);
            *self.disturbed.entry(disturbance).or_default() += u64::from(is_there);
            is_disturbed |= is_there;
            is_broken |= is_there && disturbance == Disturbance::DiskBreaks;
            if is_broken {
                break;
            }
        }
        self.rest(&mut caller, &told);
        if is_broken {
            self.mend(&told);
        }
        self.check(&told);
        self.check_kept(&told);
        is_disturbed
    }

    /// Begins a session in each VM that runs and has none.
    fn keep(&mut self) {
        for vm in self.vms() {
            let (id, name) = (vm["id"].as_str().unwrap(), vm["name"].as_str().unwrap());
            let Some(vmm) = find_vmm(id).filter(|_| vm["state"] == "running") else {
                continue;
            };
            if self.kept.contains_key(id) {
                continue;
            }
            let words = ["session", "start", "--quiet", name, "--", "sh", "-c", COUNT];
            let started = self.daemon.banger(words).timeout(LONG).done();
            // A guest that was about to end may end now.
            if started.status.success() {
                let kept = Kept {
                    vmm,
                    session: started.out(),
                    lines: 0,
                };
                self.kept.insert(id.to_owned(), kept);
            }
        }
    }

    /// Each whose VMM has lived on goes on, and all that it wrote is there.
    fn check_kept(&mut self, told: &str) {
        let vms = self.vms();
        self.kept.retain(|id, kept| find_vmm(id) == Some(kept.vmm));
        for vm in vms.iter().filter(|vm| vm["state"] == "running") {
            let id = vm["id"].as_str().unwrap();
            let Some(kept) = self.kept.get_mut(id) else {
                continue;
            };
            let words = ["session", "log", &kept.session];
            let log = self.daemon.banger(words).timeout(LONG).done();
            // A guest that was about to end may end only now.
            if !log.status.success() && find_vmm(id) != Some(kept.vmm) {
                continue;
            }
            assert!(log.status.success(), "{told}: {}", log.said());
            let text = log.out();
            let is_whole = text
                .lines()
                .enumerate()
                .all(|(at, line)| line == (at + 1).to_string());
            let lines = text.lines().count();
            assert!(is_whole && lines >= kept.lines, "{told}: {text}");
            kept.lines = lines;
            self.survived += 1;
        }
    }

    /// Something that the VM's state allows, or a creation.
    fn work(&mut self, name: &str) -> Vec<String> {
        let reference = self.suite.reference();
        let state = self.vms().into_iter().find(|vm| vm["name"] == name);
        let state = state.map(|vm| vm["state"].as_str().unwrap().to_owned());
        let shell = |script: &str| {
            vec!["vm", "exec", name, "--", "sh", "-c", script]
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let simple = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let choices: Vec<Vec<String>> = match state.as_deref() {
            None => vec![simple(&[
                "vm",
                "create",
                &reference,
                "--name",
                name,
                "--memory",
                "192M",
                "--network",
                "none",
            ])],
            Some("running") => vec![
                shell("dd if=/dev/zero of=/data bs=64k count=200 2>/dev/null; sync"),
                shell("i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo $i; done"),
                simple(&["session", "start", name, "--", "sleep", "1000"]),
                simple(&["vm", "pause", name]),
                simple(&["vm", "restart", name]),
                simple(&["vm", "stop", name]),
                simple(&["vm", "update", name, "--cpus", "2"]),
                simple(&["vm", "remove", name]),
            ],
            Some("paused") => vec![
                simple(&["vm", "resume", name]),
                simple(&["vm", "stop", name]),
                simple(&["vm", "remove", name]),
            ],
            Some(_) => vec![
                simple(&["vm", "start", name]),
                simple(&["vm", "start", name]),
                simple(&["vm", "remove", name]),
            ],
        };
        choices[self.random.usize(..choices.len())].clone()
    }

    /// The caller's command ends, whatever it says.
    fn rest(&self, caller: &mut Child, told: &str) {
        let status = ended(caller, LONG);
        if status.is_none() {
            let _ = caller.kill();
        }
        assert!(
            status.is_some(),
            "{told}: the command hangs\n{}",
            self.daemon.log()
        );
    }

    fn vms(&self) -> Vec<Value> {
        let listed = self.daemon.banger(["vm", "list", "--output", "json"]);
        let listed = listed.timeout(LONG).ok().json();
        listed.as_array().unwrap().clone()
    }

    fn check(&self, told: &str) {
        let at_rest = |vm: &Value| {
            let state = vm["state"].as_str().unwrap();
            ["running", "paused", "stopped", "failed"].contains(&state)
        };
        let begin = Instant::now();
        loop {
            let vms = self.vms();
            let moving = vms.iter().filter(|vm| !at_rest(vm)).map(Value::to_string);
            let all = moving
                .chain(self.host_disagrees(&vms))
                .chain(self.running_operations());
            let now = all.collect::<Vec<_>>().join("\n");
            if now.is_empty() {
                break;
            }
            assert!(
                begin.elapsed() < LONG,
                "{told}: not at rest:\n{now}\n{}",
                self.daemon.log()
            );
            std::thread::sleep(LOOK);
        }
        for vm in self.vms() {
            let failed = vm["state"] == "failed";
            assert_eq!(failed, !vm["failure"].is_null(), "{told}: {vm}");
            if vm["state"] == "running" {
                let name = vm["name"].as_str().unwrap();
                let alive = ["vm", "exec", name, "--", "echo", "alive"];
                let said = self.daemon.banger(alive).timeout(LONG).done();
                // A guest that was about to end may end only now.
                let state = self
                    .daemon
                    .banger(["vm", "inspect", name, "--output", "json"]);
                let state = state.ok().json()["state"].clone();
                assert!(
                    said.out() == "alive" || state != "running",
                    "{told}: {}\n{}",
                    said.said(),
                    self.daemon.log()
                );
            }
        }
    }

    fn running_operations(&self) -> Vec<String> {
        let listed = self
            .daemon
            .banger(["operation", "list", "--output", "json"]);
        let listed = listed.timeout(LONG).ok().json();
        let operations = listed.as_array().unwrap();
        let running = operations
            .iter()
            .filter(|operation| operation["state"] == "running");
        running.map(Value::to_string).collect()
    }

    /// What runs and is not what the VMs say, and directories and files that are nobody's.
    fn host_disagrees(&self, vms: &[Value]) -> Vec<String> {
        let runs = |vm: &Value| vm["state"] == "running" || vm["state"] == "paused";
        let differs = |vm: &&Value| {
            let found = vm["id"].as_str().and_then(find_vmm);
            found.is_some() != runs(vm)
        };
        let mut wrong: Vec<String> = vms
            .iter()
            .filter(differs)
            .map(|vm| format!("its process: {vm}"))
            .collect();
        let owned = |directory: &String| vms.iter().any(|vm| vm["id"] == directory.as_str());
        let directories = self.daemon.entries("vms").into_iter();
        wrong.extend(directories.filter(|directory| !owned(directory)));
        let temporary = self.daemon.temporary().into_iter();
        wrong.extend(temporary.map(|path| path.display().to_string()));
        wrong
    }

    fn remove_all(&self, told: &str) {
        let ids: Vec<String> = self
            .vms()
            .iter()
            .map(|vm| vm["id"].as_str().unwrap().to_owned())
            .collect();
        for vm in &ids {
            self.daemon.banger(["vm", "remove", vm]).timeout(LONG).ok();
        }
        assert_eq!(self.daemon.entries("vms"), Vec::<String>::new(), "{told}");
        let vmms: Vec<&String> = ids.iter().filter(|id| find_vmm(id).is_some()).collect();
        assert!(vmms.is_empty(), "{told}: {vmms:#?}");
        let mut left = leftovers::sockets(&self.daemon.state.join("vms"));
        // Its own mount is none.
        left.extend(leftovers::mounts(&self.daemon.state.join("")));
        left.extend(leftovers::loop_devices(&self.daemon.state));
        left.extend(leftovers::cgroups::of(&self.daemon.state));
        assert!(left.is_empty(), "{told}: {left:#?}");
    }
}
