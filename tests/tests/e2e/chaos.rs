//! A campaign on real VMs: bangerd, the VMM and the guest are disturbed, by one thing or two, at random points of random
//! work. After each: every VM is where a rule puts it and is of use or can be removed, what ran in one whose VMM lives goes
//! on and has lost nothing, no operation goes on, and no process, socket, mount, cgroup or file is left that no VM owns.
//!
//! The seed is printed; `BANGER_SEED` repeats a run, `BANGER_VM_POINTS` makes it longer or shorter. Its larger sister
//! is in `server/bangerd/tests/api/chaos.rs`, on VMs without processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use banger_e2e::command::{ended, until};
use banger_e2e::leftovers;
use banger_e2e::vmm::find as find_vmm;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Verdict};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::campaign::{random, setting};
use crate::suite::{LONG, Suite};

/// Points of one run.
const POINTS: u64 = 40;
/// The names that VMs have.
const NAMES: [&str; 2] = ["x", "y"];
/// A disturbance of a boot comes up to this much later; of anything else up to a tenth of it.
const LATEST: Duration = Duration::from_secs(3);
/// How long a VMM is held.
const HELD: Duration = Duration::from_millis(1500);
/// Every so many points, all VMs are removed.
const CLEARED_EVERY: u64 = 10;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![Case {
        name: "vms_disturbed_at_any_point_come_to_rest_and_leave_nothing",
        lane: Lane::Own,
        test: chaos,
    }]
}

/// Of so many points, one has two disturbances.
const TWO_OF: u64 = 4;
/// What a session does that must go on.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done";

/// A session that counts.
struct Kept {
    vmm: Pid,
    session: String,
    lines: usize,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
enum Disturbance {
    DaemonKilled,
    VmmKilled,
    /// Neither the agent nor the VMM answers for a while.
    VmmHeld,
    GuestPanics,
}

const DISTURBANCES: [Disturbance; 6] = [
    Disturbance::DaemonKilled,
    Disturbance::DaemonKilled,
    Disturbance::VmmKilled,
    Disturbance::VmmKilled,
    Disturbance::VmmHeld,
    Disturbance::GuestPanics,
];

struct Campaign<'a> {
    suite: &'a Suite,
    daemon: Daemon,
    random: fastrand::Rng,
    /// By the ids of their VMs.
    kept: BTreeMap<String, Kept>,
    /// How often one was found to go on.
    survived: u64,
}

fn chaos(suite: &Suite) -> Verdict {
    let config = "stop_agent_timeout = \"3s\"\nboot_timeout = \"60s\"".to_owned();
    let options = DaemonOptions {
        config,
        ..DaemonOptions::default()
    };
    let mut campaign = Campaign {
        suite,
        daemon: suite.own_daemon("own/chaos", options),
        random: random("chaos"),
        kept: BTreeMap::new(),
        survived: 0,
    };
    for point in 1..=setting("BANGER_VM_POINTS", POINTS) {
        campaign.point(point);
        if point % CLEARED_EVERY == 0 {
            campaign.remove_all(&format!("after point {point}"));
        }
    }
    campaign.remove_all("at the end");
    println!("chaos: sessions went on {} times", campaign.survived);
    campaign.daemon.clear();
    Verdict::Passed
}

impl Campaign<'_> {
    fn point(&mut self, point: u64) {
        self.keep();
        let name = NAMES[self.random.usize(..NAMES.len())];
        let words = self.work(name);
        let boots = ["create", "start", "restart"].contains(&words[1].as_str());
        let longest = if boots { LATEST } else { LATEST / 10 };
        let after = longest.mul_f64(self.random.f64());
        let number = 1 + usize::from(self.random.u64(..TWO_OF) == 0);
        let disturbances: Vec<Disturbance> = (0..number)
            .map(|_| DISTURBANCES[self.random.usize(..DISTURBANCES.len())])
            .collect();
        let told = format!("point {point}: {words:?}, {disturbances:?} after {after:?}");
        println!("chaos: {told}");
        let mut caller = self.daemon.banger(&words).spawn();
        std::thread::sleep(after);
        for disturbance in disturbances {
            self.disturb(disturbance, name);
        }
        self.rest(&mut caller, &told);
        self.check(&told);
        self.check_kept(&told);
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

    fn disturb(&self, disturbance: Disturbance, name: &str) {
        let vmm = || {
            let id = self.vms().into_iter().find(|vm| vm["name"] == name)?["id"].clone();
            find_vmm(id.as_str()?)
        };
        match disturbance {
            Disturbance::DaemonKilled => {
                self.daemon.kill();
                self.daemon.start_again();
            }
            // It may be gone since.
            Disturbance::VmmKilled => {
                let _ = vmm().map(|pid| kill_process(pid, Signal::KILL));
            }
            Disturbance::VmmHeld => {
                if let Some(pid) = vmm() {
                    let _ = kill_process(pid, Signal::STOP);
                    std::thread::sleep(HELD);
                    let _ = kill_process(pid, Signal::CONT);
                }
            }
            Disturbance::GuestPanics => {
                let panic = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger";
                let words = ["vm", "exec", name, "--", "sh", "-c", panic];
                drop(self.daemon.banger(words).timeout(LONG).done());
            }
        }
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
        until(&format!("{told}: VMs at rest"), LONG, || {
            let vms = self.vms();
            vms.iter().all(at_rest) && self.host_agrees(&vms) && self.no_operation_runs()
        });
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

    fn no_operation_runs(&self) -> bool {
        let listed = self
            .daemon
            .banger(["operation", "list", "--output", "json"]);
        let listed = listed.timeout(LONG).ok().json();
        let operations = listed.as_array().unwrap();
        operations
            .iter()
            .all(|operation| operation["state"] != "running")
    }

    /// What runs is what the VMs say, and no directory or file is anybody's.
    fn host_agrees(&self, vms: &[Value]) -> bool {
        let runs = |vm: &Value| vm["state"] == "running" || vm["state"] == "paused";
        let processes = vms.iter().all(|vm| {
            let found = vm["id"].as_str().and_then(find_vmm);
            found.is_some() == runs(vm)
        });
        let directories = self.daemon.entries("vms");
        let owned = |directory: &String| vms.iter().any(|vm| vm["id"] == directory.as_str());
        processes
            && directories.iter().all(owned)
            && self.daemon.temporary() == Vec::<PathBuf>::new()
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
        left.extend(leftovers::mounts(&self.daemon.state));
        left.extend(leftovers::loop_devices(&self.daemon.state));
        left.extend(leftovers::cgroups::of(&self.daemon.state));
        assert!(left.is_empty(), "{told}: {left:#?}");
    }
}
