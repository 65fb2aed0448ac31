//! A large repository into a VM by `banger workspace`, beside the ways that there are without it.
//!
//! The VM is Debian with git and rsync. `BENCH_WORKSPACE_FILES` says how many files the repository has (50,000, 1 GiB in
//! all), `BENCH_WORKSPACE_ROUNDS` how often everything is done, and `BENCH_WORKSPACE_BESIDE=0` leaves the other ways out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_e2e::Run;

use crate::stand::Stand;
use crate::table::{Figures, Table};

const VM: &str = "workspace";
const FILES: usize = 50_000;
/// So that 50,000 are 1 GiB.
const FILE_BYTES: usize = (1 << 30) / FILES;
/// Files in a directory.
const DIRECTORY_FILES: usize = 100;
/// Commits of the history.
const COMMITS: usize = 10;
/// Files that are changed between two prepares.
const CHANGED: usize = 10;
const ROUNDS: usize = 2;
/// How long one way may take.
const PATIENCE: Duration = Duration::from_secs(3600);

pub(crate) fn measure(stand: &Stand, table: &mut Table) {
    let way = Ways::prepare(stand);
    let [mut first, mut again, mut tar, mut rsync, mut copy]: [Figures; 5] = Default::default();
    let has_beside = number("BENCH_WORKSPACE_BESIDE", 1) > 0;
    for round in 0..number("BENCH_WORKSPACE_ROUNDS", ROUNDS) {
        first.add(seconds(|| way.workspace()));
        way.change(round);
        again.add(seconds(|| way.workspace()));
        way.check();
        way.clear();
        if !has_beside {
            continue;
        }
        tar.add(seconds(|| {
            way.clone_here();
            way.tar();
        }));
        way.clear();
        rsync.add(seconds(|| {
            way.clone_here();
            way.rsync();
        }));
        way.clear();
        copy.add(seconds(|| way.copy()));
        way.clear();
    }
    let what = format!("prepare of a repository of {} files", way.files);
    for (how, beside) in [
        ("git clone, the tree by a tar pipe through exec", &tar),
        ("git clone, all of it by rsync over banger's ssh", &rsync),
        ("banger cp -r of the directory", &copy),
    ] {
        if !has_beside {
            break;
        }
        let ratio = format!("{:.2} ×", first.median() / beside.median());
        let beside = format!("{how} {}", beside.text("s"));
        table.line(&what, first.text("s"), beside, ratio);
    }
    let ratio = format!("{:.1} %", 100.0 * again.median() / first.median());
    let beside = format!("the first {}", first.text("s"));
    let what = format!("the next, {CHANGED} files changed");
    table.line(&what, again.text("s"), beside, ratio);
    way.end();
}

fn number(name: &str, otherwise: usize) -> usize {
    let told = std::env::var(name).ok();
    told.map_or(otherwise, |told| told.parse().expect("a number"))
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

/// A repository here, a VM, and the ways between.
struct Ways<'a> {
    stand: &'a Stand,
    here: PathBuf,
    clone: PathBuf,
    ssh: PathBuf,
    files: usize,
}

impl<'a> Ways<'a> {
    fn prepare(stand: &'a Stand) -> Self {
        let directory = stand.scratch.dir("workspace");
        let way = Self {
            stand,
            here: directory.join("here"),
            clone: directory.join("clone"),
            ssh: directory.join("ssh.conf"),
            files: number("BENCH_WORKSPACE_FILES", FILES),
        };
        way.repository();
        let packages = "--include=git,rsync";
        way.banger(&["image", "build", "--debian", "bookworm", packages, "git:1"]);
        let key = directory.join("key");
        let keygen = Run::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]);
        keygen.arg(&key).ok();
        let public = key.with_extension("pub").display().to_string();
        let create = ["vm", "create", "git:1", "--name", VM, "--ssh-key", &public];
        let size = ["--memory", "2G", "--disk", "16G", "--network", "none"];
        way.banger(&[&create[..], &size[..]].concat());
        let key = key.display().to_string();
        let printed = way.banger(&["ssh-config", "--identity", &key]);
        fs::write(&way.ssh, printed).unwrap();
        way
    }

    /// Text as sources are: it can be compressed, and no file is as another.
    fn repository(&self) {
        self.git(&["init", "-q", "-b", "main"]);
        let mut random = fastrand::Rng::with_seed(1);
        for commit in 0..COMMITS {
            let part = self.files / COMMITS;
            for number in commit * part..(commit + 1) * part {
                self.write(number, &mut random);
            }
            self.commit(&format!("part {commit}"));
        }
    }

    fn write(&self, number: usize, random: &mut fastrand::Rng) {
        let at = self.here.join(format!("{:04}", number / DIRECTORY_FILES));
        fs::create_dir_all(&at).unwrap();
        let mut text = String::with_capacity(FILE_BYTES + 64);
        while text.len() < FILE_BYTES {
            let (name, value) = (random.u16(..), random.u64(..));
            text.push_str(&format!(
                "    let name_{name} = call({value:x}, name_{number});\n"
            ));
        }
        text.truncate(FILE_BYTES);
        fs::write(at.join(format!("{number}.rs")), text).unwrap();
    }

    fn change(&self, round: usize) {
        let mut random = fastrand::Rng::with_seed(100 + round as u64);
        for _ in 0..CHANGED {
            let number = random.usize(..self.files / COMMITS * COMMITS);
            self.write(number, &mut random);
        }
        self.commit("ten files");
    }

    fn git(&self, words: &[&str]) -> String {
        fs::create_dir_all(&self.here).unwrap();
        let git = Run::new("git").env("GIT_CONFIG_GLOBAL", "/dev/null");
        let git = git.args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]);
        let git = git.args(["-c", "gc.auto=0"]).args(words);
        git.in_dir(&self.here).timeout(PATIENCE).ok().out()
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
    }

    fn banger(&self, words: &[&str]) -> Vec<u8> {
        let run = self.stand.daemon.banger(words);
        run.timeout(PATIENCE).ok().stdout
    }

    fn sh(&self, script: &str) -> String {
        let said = self.banger(&["vm", "exec", VM, "--", "sh", "-c", script]);
        String::from_utf8_lossy(&said).trim_end().to_owned()
    }

    fn workspace(&self) {
        let here = self.here.to_str().unwrap();
        self.banger(&["workspace", "prepare", VM, here, "--path", "/root/work"]);
    }

    /// What is in the VM is what is here.
    fn check(&self) {
        let words = "cd /root/work && git rev-parse HEAD && git status --porcelain";
        assert_eq!(self.sh(words), self.git(&["rev-parse", "HEAD"]));
    }

    fn clone_here(&self) {
        let from = format!("file://{}", self.here.display());
        let git = Run::new("git").args(["clone", "-q", &from]);
        git.arg(&self.clone).timeout(PATIENCE).ok();
    }

    /// What runs here with `banger` as its word 0.
    fn pipe(&self, script: &str, from: &Path) {
        let run = Run::new("sh").args(["-c", script]);
        let run = run.arg(&self.stand.binaries.banger).arg(from);
        let run = run.env("BANGER_HOST", self.stand.daemon.host());
        run.timeout(PATIENCE).ok();
    }

    fn tar(&self) {
        let script = format!(
            "tar -C \"$1\" --exclude=./.git -c . | \
             \"$0\" vm exec --interactive {VM} -- sh -c 'mkdir -p /root/work && tar -C /root/work -x && sync'"
        );
        self.pipe(&script, &self.clone);
    }

    fn rsync(&self) {
        let script = format!(
            "rsync -a -e \"ssh -q -o BatchMode=yes -F {}\" \"$1/\" {VM}.vm:/root/work/",
            self.ssh.display()
        );
        self.pipe(&script, &self.clone);
    }

    fn copy(&self) {
        let from = self.here.to_str().unwrap();
        self.banger(&["cp", "-r", from, &format!("{VM}:/root/work")]);
    }

    fn clear(&self) {
        if self.clone.exists() {
            fs::remove_dir_all(&self.clone).unwrap();
        }
        self.sh("rm -rf /root/work && sync");
    }

    fn end(&self) {
        self.banger(&["vm", "remove", VM]);
        fs::remove_dir_all(self.here.parent().unwrap()).unwrap();
    }
}
