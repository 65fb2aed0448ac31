//! Repositories go into a VM and come back: the same commits, the same bytes, nothing of the owner's touched.

mod kill;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use banger_e2e::{Case, Daemon, Lane, Verdict, image};

use crate::campaign::setting;
use crate::suite::{LONG, Suite};

/// The VM with git.
const VM: &str = "workspace";
/// Histories that go through it, unless `BANGER_VM_HISTORIES` says how many: each takes seconds.
const HISTORIES: u64 = 10;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "histories_go_into_a_vm_and_come_back_whole",
            lane: Lane::Shared,
            test: histories,
        },
        Case {
            name: "a_directory_without_git_comes_back_and_is_applied",
            lane: Lane::Shared,
            test: directory,
        },
        Case {
            name: "a_prepare_or_export_killed_at_any_point_is_whole_or_nothing",
            lane: Lane::Own,
            test: kill::killed,
        },
    ]
}

fn git(directory: &Path, words: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"])
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned();
    assert!(
        output.status.success(),
        "git {words:?}: {text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Makes a VM that has git.
fn vm_with_git(daemon: &Daemon, reference: &str, dir: &Path, vm: &str) {
    let banger = |words: &[&str]| drop(daemon.banger(words).timeout(LONG).ok());
    banger(&["vm", "create", reference, "--name", vm]);
    let git = image::host_programs(dir, &["/usr/bin/git"]);
    let tree = format!("{}/.", git.display());
    banger(&["cp", "-r", &tree, &format!("{vm}:/")]);
    banger(&["vm", "exec", vm, "--", "git", "version"]);
}

/// A repository with some history, and work that is not committed.
fn history(top: &Path, random: &mut fastrand::Rng) {
    fs::create_dir_all(top).unwrap();
    git(top, &["init", "-q", "-b", "main"]);
    for step in 0..random.u32(1..5) {
        change(top, random);
        git(top, &["add", "-A"]);
        git(
            top,
            &[
                "commit",
                "-q",
                "--allow-empty",
                "-m",
                &format!("step {step}"),
            ],
        );
        if random.bool() {
            git(top, &["switch", "-q", "-c", &format!("topic/{step}")]);
        }
    }
    change(top, random);
    if random.bool() {
        git(top, &["add", "-A"]);
        change(top, random);
    }
}

fn change(top: &Path, random: &mut fastrand::Rng) {
    for _ in 0..random.u32(1..4) {
        let name = format!("dir{}/file {}", random.u8(..3), random.u8(..4));
        let at = top.join(name);
        if at.exists() && random.u8(..4) == 0 {
            fs::remove_file(at).unwrap();
            continue;
        }
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        let length = random.usize(..20_000);
        let content: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        fs::write(&at, content).unwrap();
        let mode = if random.bool() { 0o755 } else { 0o644 };
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// What is done in the VM in each workspace, named and numbered by two words; it tells then what is there. Each process of
/// git costs more than what it does, where the processor is emulated.
const WORK: &str = "set -e
export GIT_AUTHOR_NAME=Vim GIT_AUTHOR_EMAIL=vim@example.com GIT_COMMITTER_NAME=Vim GIT_COMMITTER_EMAIL=vim@example.com
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=maintenance.auto GIT_CONFIG_VALUE_0=false
while [ $# -gt 0 ]; do
cd \"$HOME/$1\"
git status --porcelain >&2; echo told >&2
echo \"$2\" > agent; git add agent; git commit -q -m agent
git switch -q -c agent/work; echo more >> agent; git commit -q -a -m more
git switch -q -; git merge -q --no-ff -m merge agent/work
git tag -a -m tag done-$2
echo staged > staged; git add staged
echo new > new; rm -rf dir0
git rev-parse HEAD agent/work done-$2; git write-tree
cp .git/index \"$HOME/index\"; export GIT_INDEX_FILE=\"$HOME/index\"
git add -A; git write-tree
unset GIT_INDEX_FILE; shift 2
done";
/// Lines that it tells of each.
const WORK_LINES: usize = 5;
/// Workspaces that are worked in together.
const TOGETHER: usize = 5;

/// A repository that goes into the VM.
struct Carried {
    seed: u64,
    here: PathBuf,
    status: String,
    index: Vec<u8>,
}

fn histories(suite: &Suite) -> Verdict {
    let dir = suite.scratch.path().join("workspaces");
    fs::create_dir(&dir).unwrap();
    vm_with_git(suite.daemon(), &suite.reference(), &dir, VM);
    let seeds: Vec<u64> = (0..setting("BANGER_VM_HISTORIES", HISTORIES)).collect();
    for seeds in seeds.chunks(TOGETHER) {
        println!("histories {seeds:?}");
        let carried: Vec<Carried> = seeds.iter().map(|&seed| carry(suite, &dir, seed)).collect();
        let mut words: Vec<String> = ["vm", "exec", VM, "--", "sh", "-c", WORK, "sh"]
            .map(str::to_owned)
            .into();
        for one in &carried {
            let name = one.here.file_name().unwrap().to_string_lossy();
            words.extend([name.into_owned(), one.seed.to_string()]);
        }
        let worked = suite.banger(&words).timeout(LONG).ok();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (told, statuses) = (text(&worked.stdout), text(&worked.stderr));
        let told: Vec<&str> = told.lines().collect();
        assert_eq!(told.len(), carried.len() * WORK_LINES, "{told:?}");
        let statuses = statuses.split_terminator("told\n");
        let told = told.chunks(WORK_LINES).zip(statuses);
        forms(suite, &carried[0]);
        for (one, (told, status)) in carried.iter().zip(told) {
            assert_eq!(status.trim_end(), one.status, "history {}", one.seed);
            bring(suite, one, told);
        }
    }
    suite.banger(["vm", "remove", VM]).timeout(LONG).ok();
    Verdict::Passed
}

/// Makes a repository and prepares it.
fn carry(suite: &Suite, dir: &Path, seed: u64) -> Carried {
    let here = dir.join(format!("work{seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    history(&here, &mut random);
    let carried = Carried {
        seed,
        status: git(&here, &["status", "--porcelain"]),
        index: fs::read(here.join(".git/index")).unwrap(),
        here,
    };
    let at = carried.here.to_str().unwrap();
    suite.banger(["workspace", "prepare", VM, at]).ok();
    carried
}

/// Writes what was done in it in each form: other programs take them, and a repository inside is not left out in silence.
fn forms(suite: &Suite, carried: &Carried) {
    let here = &carried.here;
    let name = here.file_name().unwrap().to_string_lossy();
    let at = here.to_str().unwrap();
    let form = |form: &str, to: &str| {
        let words = ["workspace", "export", VM, at, "--format", form, "--to", to];
        suite.banger(words)
    };
    let written = |name: &str| here.parent().unwrap().join(name).display().to_string();
    let inside = format!("cd \"$HOME/{name}\" && git init -q inside && echo x > inside/x");
    suite
        .banger(["vm", "exec", VM, "--", "sh", "-c", &inside])
        .ok();
    let patch = written("patch");
    let told = form("patch", &patch).done();
    assert_eq!(told.code(), 1, "{}", told.err());
    assert!(
        told.err().contains("not written: inside: "),
        "{}",
        told.err()
    );
    let inside = format!("rm -r \"$HOME/{name}/inside\"");
    suite
        .banger(["vm", "exec", VM, "--", "sh", "-c", &inside])
        .ok();
    let (bundle, tar, stat) = (written("bundle"), written("tar"), written("stat"));
    for (how, to) in [("bundle", &bundle), ("tar", &tar), ("diffstat", &stat)] {
        form(how, to).ok();
    }
    git(here, &["bundle", "verify", "-q", &bundle]);
    assert!(fs::read_to_string(&stat).unwrap().contains("staged"));
    let listed = Command::new("tar").args(["tf", &tar]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.lines().any(|line| line == "staged"), "{listed}");
    // The patch leads from where it began to the files as they are there.
    let fresh = written("fresh");
    git(here, &["worktree", "add", "-q", "--detach", &fresh, "HEAD"]);
    let fresh = Path::new(&fresh);
    git(fresh, &["apply", "--index", &patch]);
    let tree = format!("refs/banger/{VM}/state/tree^{{tree}}");
    assert_eq!(
        git(fresh, &["write-tree"]),
        git(here, &["rev-parse", &tree])
    );
    git(
        here,
        &["worktree", "remove", "--force", fresh.to_str().unwrap()],
    );
    for file in [patch, bundle, tar, stat] {
        fs::remove_file(file).unwrap();
    }
}

/// Exports it: it must be what the VM has told.
fn bring(suite: &Suite, carried: &Carried, told: &[&str]) {
    let Carried {
        seed, here, index, ..
    } = carried;
    let at = here.to_str().unwrap();
    suite.banger(["workspace", "export", VM, at]).ok();
    let name = |name: &str| format!("refs/banger/{VM}/{name}");
    let names = [
        name("HEAD"),
        name("heads/agent/work"),
        name(&format!("tags/done-{seed}")),
        name("state/index^{tree}"),
        name("state/tree^{tree}"),
    ];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let came = git(here, &[&["rev-parse"], &names[..]].concat());
    assert_eq!(came.lines().collect::<Vec<_>>(), told, "history {seed}");
    assert_eq!(&fs::read(here.join(".git/index")).unwrap(), index);
    git(here, &["fsck", "--strict"]);
    fs::remove_dir_all(here).unwrap();
}

/// A VM without git, and a directory without it.
fn directory(suite: &Suite) -> Verdict {
    let here = suite.scratch.path().join("directory");
    fs::create_dir_all(here.join("dir")).unwrap();
    let write = |name: &str, text: &str| fs::write(here.join(name), text).unwrap();
    let read = |name: &str| fs::read_to_string(here.join(name)).ok();
    for name in ["file", "other", "dir/gone"] {
        write(name, "as it was\n");
    }
    suite.vm();
    let at = here.to_str().unwrap();
    let workspace = |verb: &str, more: &[&str]| {
        let words = ["workspace", verb, crate::suite::VM, at, "--plain"];
        suite.banger([&words[..], more].concat())
    };
    workspace("prepare", &[]).ok();
    let work =
        "cd ~/directory && echo theirs > file && rm -r dir && mkdir new && echo new > new/file";
    suite.sh(work).ok();
    write("other", "mine\n");
    write("file", "mine\n");
    // What was not compared is not said to be without conflict.
    let status = workspace("status", &["--output", "json"]).ok().json();
    assert!(status["changed_on_both_sides"].is_null(), "{status}");
    workspace("export", &[]).ok();
    let refused = workspace("apply", &[]).done();
    assert_ne!(refused.code(), 0);
    assert!(
        refused.err().contains("in the way: file"),
        "{}",
        refused.err()
    );
    assert_eq!(
        (read("file"), read("new/file")),
        (Some("mine\n".into()), None)
    );
    let applied = workspace("apply", &["--theirs", "--output", "json"])
        .ok()
        .json();
    assert_eq!(read("file").as_deref(), Some("theirs\n"));
    assert_eq!(read("other").as_deref(), Some("mine\n"));
    assert_eq!(read("new/file").as_deref(), Some("new\n"));
    assert!(!here.join("dir").exists());
    // What was exported is here: it may be replaced.
    workspace("prepare", &[]).ok();
    let way_back = applied["way_back"][0].as_str().unwrap();
    let words = way_back.split(' ').skip(1);
    suite.banger(words).ok();
    assert_eq!(read("file").as_deref(), Some("mine\n"));
    assert_eq!(read("dir/gone").as_deref(), Some("as it was\n"));
    suite.sh("rm -r ~/directory").ok();
    fs::remove_dir_all(here).unwrap();
    Verdict::Passed
}
