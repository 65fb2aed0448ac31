//! bangerd, the client or the VM is killed, or the stream cut, at random points of prepares and exports between real VMs and
//! a repository.
//!
//! After each the tree in the VM is the one that was there or the one that was sent, and the repository here has all of an
//! export's references or none; the same command again makes all of it. The seed is printed; `BANGER_SEED` repeats a run,
//! `BANGER_WORKSPACE_POINTS` makes it longer. The many points between are in `workspace/tests/workspace/kill.rs`.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use banger_e2e::command::ended;
use banger_e2e::{Daemon, DaemonOptions, Run, Verdict, vmm};
use banger_histories::git;
use rustix::process::{Signal, kill_process};

use super::vm_with_git;
use crate::campaign::{random, setting};
use crate::suite::{LONG, Suite};

/// Points of one run: each way to end once.
const POINTS: u64 = 4;
/// The VMs, in turns.
const VMS: [&str; 2] = ["kill-a", "kill-b"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    Daemon,
    Client,
    Vmm,
    Stream,
}

const KILLED: [Killed; 4] = [Killed::Daemon, Killed::Client, Killed::Vmm, Killed::Stream];

/// What is there of a workspace, in one line each: every file, the references, what is staged, what lies beside.
const PICTURE: &str = "cd \"$HOME\"; ls -A | grep banger- ; cd work 2>/dev/null || exit 0
git for-each-ref; git symbolic-ref HEAD; git write-tree; git status --porcelain
rm -f /tmp/i; cp .git/index /tmp/i; GIT_INDEX_FILE=/tmp/i git add -A; GIT_INDEX_FILE=/tmp/i git write-tree
code=$?; [ . -ef \"$HOME/work\" ] || exit 75; exit $code";
/// What it ends with if another tree came in the place of the one that was looked at.
const REPLACED: i32 = 75;
/// How often that may be: only one half is at work in the VM.
const LOOKS_MAX: usize = 5;
/// Work of somebody in the VM, on its disk when it ends.
const WORK: &str = "set -e; cd \"$HOME/work\"
git config user.name Vim; git config user.email vim@example.com
echo $1 > agent; git add agent; git commit -q -m agent; git branch -f agent/$1
echo staged $1 > staged; git add staged; echo new $1 > new; sync";

struct Campaign<'a> {
    daemon: Daemon,
    relay: Relay,
    random: fastrand::Rng,
    here: PathBuf,
    vm: &'a str,
}

pub(super) fn killed(suite: &Suite) -> Verdict {
    let dir = suite.scratch.path().join("own/workspaces");
    let daemon = suite.own_daemon("own/workspaces", DaemonOptions::default());
    let mut campaign = Campaign {
        relay: Relay::begin(&daemon),
        daemon,
        random: random("workspaces"),
        here: dir.join("work"),
        vm: VMS[0],
    };
    for vm in VMS {
        vm_with_git(&campaign.daemon, &suite.reference(), &dir, vm);
        campaign.sh(vm, "sync");
    }
    campaign.begin();
    let took = campaign.undisturbed();
    let mut ways = Vec::new();
    for point in 0..setting("BANGER_WORKSPACE_POINTS", POINTS) {
        campaign.vm = VMS[usize::try_from(point).unwrap() % VMS.len()];
        if ways.is_empty() {
            ways.extend(KILLED);
            campaign.random.shuffle(&mut ways);
        }
        let killed = ways.pop().unwrap();
        let after = took.mul_f64(campaign.random.f64());
        let told = format!("point {point}: {killed:?} after {after:?}");
        match campaign.random.bool() {
            true => campaign.prepare(point, &told, killed, after),
            false => campaign.export(point, &told, killed, after),
        }
    }
    campaign.daemon.clear();
    Verdict::Passed
}

impl Campaign<'_> {
    fn banger(&self, words: &[&str]) -> Run {
        self.daemon.banger(words).timeout(LONG)
    }

    fn sh(&self, vm: &str, script: &str) -> String {
        self.banger(&["vm", "exec", vm, "--", "sh", "-c", script])
            .ok()
            .out()
    }

    /// The repository here.
    fn begin(&self) {
        fs::create_dir_all(&self.here).unwrap();
        git(&self.here, &["init", "-q", "-b", "main"]);
        fs::write(self.here.join("file"), "first\n").unwrap();
        git(&self.here, &["add", "-A"]);
        git(&self.here, &["commit", "-q", "-m", "first"]);
        git(&self.here, &["branch", "topic"]);
    }

    /// A prepare and an export of each VM as they should be, and how long the longer of the last took.
    fn undisturbed(&mut self) -> Duration {
        let mut longest = Duration::ZERO;
        for vm in VMS {
            self.vm = vm;
            let begun = Instant::now();
            self.command("prepare").ok();
            longest = longest.max(begun.elapsed());
            self.work("begin");
            let begun = Instant::now();
            self.command("export").ok();
            longest = longest.max(begun.elapsed());
        }
        longest
    }

    fn command(&self, verb: &str) -> Run {
        let here = self.here.to_str().unwrap();
        let mut words = vec!["workspace", verb, self.vm, here, "--path", "work"];
        if verb == "prepare" {
            words.push("--overwrite");
        }
        self.banger(&words)
    }

    fn work(&self, word: &str) {
        let words = ["vm", "exec", self.vm, "--", "sh", "-c", WORK, "sh", word];
        self.banger(&words).ok();
    }

    /// What is there. What a half that has lost its other half still does in the VM may put another tree in the place of
    /// the one that is looked at: then it is looked at again.
    fn picture(&self) -> String {
        let words = ["vm", "exec", self.vm, "--", "sh", "-c", PICTURE];
        let looks = (0..LOOKS_MAX).map(|_| self.banger(&words).done());
        let mut looks = looks.skip_while(|done| done.code() == REPLACED);
        let done = looks.next().expect("it is not always replaced");
        assert_eq!(done.code(), 0, "{}", done.said());
        done.out()
    }

    fn landed(&self) -> String {
        git(
            &self.here,
            &["for-each-ref", &format!("refs/banger/{}", self.vm)],
        )
    }

    /// What is the owner's: index, files, own references.
    fn mine(&self) -> (Vec<u8>, String, String) {
        let index = fs::read(self.here.join(".git/index")).unwrap();
        let status = git(&self.here, &["status", "--porcelain"]);
        let refs = git(&self.here, &["for-each-ref", "refs/heads", "refs/tags"]);
        (index, status, refs)
    }

    /// Runs a command and disturbs it; all is up again when this returns.
    fn disturb(&self, verb: &str, told: &str, killed: Killed, after: Duration) {
        println!("workspaces: {verb} of {}, {told}", self.vm);
        let id = self.banger(&["vm", "inspect", self.vm, "--output", "json"]);
        let id = id.ok().json()["id"].as_str().unwrap().to_owned();
        let before = vmm::find(&id);
        let mut command = self.command(verb);
        if killed == Killed::Stream {
            command = command.env("BANGER_HOST", self.relay.host());
        }
        let mut client = command.spawn();
        std::thread::sleep(after);
        match killed {
            Killed::Daemon => {
                self.daemon.kill();
                self.daemon.start_again();
            }
            // It may have ended since.
            Killed::Client => drop(client.kill()),
            Killed::Stream => self.relay.cut(),
            Killed::Vmm => {
                let _ = before.map(|pid| kill_process(pid, Signal::KILL));
            }
        }
        let status = ended(&mut client, LONG);
        if status.is_none() {
            let _ = client.kill();
        }
        assert!(
            status.is_some(),
            "{told}: {verb} hangs\n{}",
            self.daemon.log()
        );
        if killed == Killed::Vmm {
            // Until the daemon knows of the end, a start finds the VM running.
            banger_e2e::command::until(&format!("{told}: the VM runs again"), LONG, || {
                drop(self.banger(&["vm", "start", self.vm]).done());
                vmm::find(&id).is_some_and(|pid| Some(pid) != before)
            });
        }
    }

    fn prepare(&self, point: u64, told: &str, killed: Killed, after: Duration) {
        change(&self.here, point);
        let (mine, before) = (self.mine(), self.picture());
        self.disturb("prepare", told, killed, after);
        let between = self.picture();
        self.command("prepare").ok();
        let whole = self.picture();
        assert_ne!(before, whole, "{told}: nothing was prepared");
        // What was made beside the tree, and cut, goes when the next one begins.
        let tree = |picture: &str| {
            let lines = picture
                .lines()
                .filter(|line| !line.starts_with(".work.banger-"));
            lines.collect::<Vec<_>>().join("\n")
        };
        let between = tree(&between);
        assert!(
            between == before || between == whole,
            "{told}: half a tree:\n{between}\nbefore:\n{before}\nwhole:\n{whole}"
        );
        assert_eq!(tree(&whole), whole, "{told}: something is left beside it");
        assert_eq!(self.mine(), mine, "{told}: something of the owner's");
    }

    fn export(&self, point: u64, told: &str, killed: Killed, after: Duration) {
        self.work(&point.to_string());
        let (mine, before) = (self.mine(), self.landed());
        self.disturb("export", told, killed, after);
        let between = self.landed();
        self.command("export").ok();
        let whole = self.landed();
        assert_ne!(before, whole, "{told}: nothing was exported");
        assert!(
            between == before || between == whole,
            "{told}: half an export:\n{between}\nbefore:\n{before}\nwhole:\n{whole}"
        );
        assert_eq!(self.mine(), mine, "{told}: something of the owner's");
        git(&self.here, &["fsck", "--strict"]);
        let own = fs::read_dir(self.here.join(".git/banger")).unwrap();
        let left: Vec<_> = own.flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{told}: {left:?}");
    }
}

/// A way to the daemon that can be cut.
struct Relay {
    socket: PathBuf,
    streams: Arc<Mutex<Vec<UnixStream>>>,
    is_over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Relay {
    fn begin(daemon: &Daemon) -> Self {
        let socket = daemon.socket().with_extension("relay");
        let listener = UnixListener::bind(&socket).unwrap();
        let (streams, is_over) = (
            Arc::<Mutex<Vec<_>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (kept, over) = (Arc::clone(&streams), Arc::clone(&is_over));
        let to = daemon.socket().to_owned();
        let listening = std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(daemon) = UnixStream::connect(&to) else {
                    continue;
                };
                for (from, to) in [(&client, &daemon), (&daemon, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    kept.lock().unwrap().push(from.try_clone().unwrap());
                    // It ends with its stream.
                    std::thread::spawn(move || carry(from, to));
                }
            }
        });
        Self {
            socket,
            streams,
            is_over,
            listening: Some(listening),
        }
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Ends all connections at once, wherever they are.
    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        self.is_over.store(true, Ordering::SeqCst);
        // Whoever listens sees by a connection that it is over.
        drop(UnixStream::connect(&self.socket));
        let _ = self.listening.take().map(JoinHandle::join);
        let _ = fs::remove_file(&self.socket);
    }
}

fn carry(mut from: UnixStream, mut to: UnixStream) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// A commit, and work that is not committed.
fn change(here: &Path, point: u64) {
    let bytes: Vec<u8> = (0..1 << 20).map(|_| fastrand::u8(..)).collect();
    fs::write(here.join("large"), &bytes).unwrap();
    fs::write(here.join("file"), format!("{point}\n")).unwrap();
    git(here, &["add", "-A"]);
    git(here, &["commit", "-q", "-m", &format!("point {point}")]);
    fs::write(here.join("untracked"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(here.join("file"), format!("{point}, not committed\n")).unwrap();
}
