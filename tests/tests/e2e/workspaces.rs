//! Repositories go into a VM and come back: the same commits, the same bytes, nothing of the owner's touched.

mod kill;

use std::fs;
use std::path::{Path, PathBuf};

use banger_e2e::{Case, Daemon, Lane, Run, Verdict, image};
use banger_histories::{
    Came, Case as Random, PRELUDE, Situation, assert_same, check_applied, check_landed,
    check_patch, check_prepared, git, git_bytes, in_git, is_appliable, refs, tree, try_git,
};

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

/// Makes a VM that has git.
fn vm_with_git(daemon: &Daemon, reference: &str, dir: &Path, vm: &str) {
    let banger = |words: &[&str]| drop(daemon.banger(words).timeout(LONG).ok());
    banger(&["vm", "create", reference, "--name", vm]);
    let git = image::host_programs(dir, &["/usr/bin/git"]);
    let tree = format!("{}/.", git.display());
    banger(&["cp", "-r", &tree, &format!("{vm}:/")]);
    banger(&["vm", "exec", vm, "--", "git", "version"]);
}

/// What is done in the VM in each workspace: what git says of it before is told, and then the recorded work is done.
const WORK: &str = "set -e
while [ $# -gt 0 ]; do
cd \"$HOME/$1\"
git status --porcelain=v1 -z; printf 'told\\0'
sh \"/scripts/$2\" \"/scripts/$2 contents\"
shift 2
done";
/// Steps of a history there. Each process of git costs more than what it does, where the processor is emulated.
const STEPS_MAX: usize = 2;
/// Workspaces that are worked in together.
const TOGETHER: usize = 5;

/// A repository that goes into the VM.
struct Carried {
    seed: u64,
    case: Random,
    here: PathBuf,
    /// Its place in the VM.
    path: String,
    index: Vec<u8>,
}

/// A repository that was worked in there.
struct Worked {
    situation: Situation,
    /// A copy of it as it is in the VM.
    there: PathBuf,
    told: String,
}

fn histories(suite: &Suite) -> Verdict {
    let dir = suite.scratch.path().join("workspaces");
    fs::create_dir(&dir).unwrap();
    vm_with_git(suite.daemon(), &suite.reference(), &dir, VM);
    let first = setting("WORKSPACE_FIRST", 0);
    let seeds: Vec<u64> = (first..first + setting("BANGER_VM_HISTORIES", HISTORIES)).collect();
    for (number, seeds) in seeds.chunks(TOGETHER).enumerate() {
        println!("histories {seeds:?}");
        together(suite, &dir.join(number.to_string()), seeds);
    }
    suite.banger(["vm", "remove", VM]).timeout(LONG).ok();
    Verdict::Passed
}

/// Carries some, works in them, and brings all of it.
fn together(suite: &Suite, dir: &Path, seeds: &[u64]) {
    fs::create_dir(dir).unwrap();
    let home = format!("histories{}", seeds[0]);
    let mut carried: Vec<Carried> = seeds
        .iter()
        .map(|&seed| carry(suite, dir, &home, seed))
        .collect();
    let copy = |name: &str| {
        let to = dir.join(name);
        let from = format!("{VM}:{home}/.");
        suite.banger(["cp", "-r", &from, to.to_str().unwrap()]).ok();
        to
    };
    let before = copy("before");
    let scripts = dir.join("scripts");
    let mut left = Vec::new();
    let mut words: Vec<String> = ["vm", "exec", VM, "--", "sh", "-c", WORK, "sh"]
        .map(str::to_owned)
        .into();
    let mut statuses = Vec::new();
    for one in &mut carried {
        let there = before.join(one.seed.to_string());
        check_prepared(&one.here, &there, &format!("history {}", one.seed));
        statuses.extend(git_bytes(&one.here, &["status", "--porcelain=v1", "-z"]));
        statuses.extend(b"told\0");
        left.push(record(one, &there, &scripts));
        words.extend([one.path.clone(), one.seed.to_string()]);
    }
    let from = format!("{}/.", scripts.display());
    suite
        .banger(["cp", "-r", &from, &format!("{VM}:/scripts")])
        .ok();
    let told = suite.banger(&words).timeout(LONG).ok();
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    assert_eq!(text(&told.stdout), text(&statuses), "histories {seeds:?}");
    let after = copy("after");
    let worked: Vec<Worked> = carried
        .iter()
        .zip(left)
        .map(|(one, (situation, locks))| {
            let name = one.seed.to_string();
            let there = after.join(&name);
            let recorded = before.join(&name);
            for lock in locks {
                let lock = lock.strip_prefix(&recorded).unwrap();
                fs::remove_file(there.join(lock)).unwrap();
                fs::remove_file(recorded.join(lock)).unwrap();
            }
            let told = format!("history {name} ({situation:?})");
            // The work there is what was recorded here.
            if situation != Situation::Deleted {
                assert_eq!(refs(&there), refs(&recorded), "{told}");
            }
            assert_same(&tree(&there), &tree(&recorded), &told, "work");
            Worked {
                situation,
                there,
                told,
            }
        })
        .collect();
    for (one, worked) in carried.iter().zip(&worked) {
        bring(suite, one, worked);
    }
    let mut both = carried.iter().zip(&worked);
    let in_one = |worked: &Worked| {
        let inside = [Situation::RepositoryInside, Situation::InSubmodule];
        is_appliable(worked.situation) && !inside.contains(&worked.situation)
    };
    if let Some((one, worked)) = both.find(|(_, worked)| in_one(worked)) {
        forms(suite, one, worked);
    }
    fs::remove_dir_all(dir).unwrap();
}

/// Makes a repository and prepares it.
fn carry(suite: &Suite, dir: &Path, home: &str, seed: u64) -> Carried {
    let here = dir.join(format!("work{seed}"));
    let mut case = Random::new(seed);
    case.begin(&here, &dir.join(format!("library{seed}")));
    let carried = Carried {
        seed,
        case,
        index: fs::read(here.join(".git/index")).unwrap(),
        here,
        path: format!("{home}/{seed}"),
    };
    let at = carried.here.to_str().unwrap();
    let words = ["workspace", "prepare", VM, at, "--path", &carried.path];
    suite.banger(words).ok();
    carried
}

/// Works in a copy of what is in the VM, and writes the script that does the same there.
fn record(one: &mut Carried, copy: &Path, scripts: &Path) -> (Situation, Vec<PathBuf>) {
    let contents = scripts.join(format!("{} contents", one.seed));
    fs::create_dir_all(&contents).unwrap();
    one.case.record(copy, &contents);
    let left = one.case.go_on(copy, STEPS_MAX);
    let script = [PRELUDE.as_bytes(), &one.case.recorded()].concat();
    fs::write(scripts.join(one.seed.to_string()), script).unwrap();
    left
}

/// Exports it: it must be what is in the VM. Where it only goes on from what is here, it is applied too.
fn bring(suite: &Suite, carried: &Carried, worked: &Worked) {
    let Carried { here, path, .. } = carried;
    let Worked {
        situation,
        there,
        told,
    } = worked;
    let at = here.to_str().unwrap();
    let words = ["workspace", "export", VM, at, "--path", path];
    let done = suite.banger(words).args(["--output", "json"]).done();
    let is_deleted = *situation == Situation::Deleted;
    assert_eq!(
        done.code(),
        i32::from(is_deleted),
        "{told}: {}",
        done.said()
    );
    let landed = done.json();
    let came: Vec<Came> = landed["repositories"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| Came {
            path: one["path"].as_str().unwrap().into(),
            store: one["store"].as_str().unwrap().into(),
        })
        .collect();
    check_landed(there, VM, &came, told);
    assert_eq!(
        fs::read(here.join(".git/index")).unwrap(),
        carried.index,
        "{told}: the index"
    );
    git(here, &["fsck", "--strict"]);
    if !is_appliable(*situation) {
        return;
    }
    let head = git(there, &["rev-parse", "HEAD"]);
    if try_git(here, &["merge-base", "--is-ancestor", "HEAD", &head]).is_err() {
        return;
    }
    git(here, &["reset", "-q", "--hard"]);
    git(here, &["clean", "-q", "-f", "-d"]);
    let words = ["workspace", "apply", VM, at, "--onto-current"];
    suite.banger(words).ok();
    check_applied(here, there, &came, told);
}

/// Writes what was done in it in each form: other programs take them, and a repository inside is not left out in silence.
fn forms(suite: &Suite, carried: &Carried, worked: &Worked) {
    let (Carried { here, path, .. }, told) = (carried, &worked.told);
    let dir = here.parent().unwrap();
    let at = here.to_str().unwrap();
    let form = |form: &str, to: &Path| {
        let words = ["workspace", "export", VM, at, "--path", path];
        let form = ["--format", form, "--to", to.to_str().unwrap()];
        suite.banger(words).args(form)
    };
    let inside = format!("cd \"$HOME/{path}\" && git init -q inside && echo x > inside/x");
    let sh = |script: &str| {
        let words = ["vm", "exec", VM, "--", "sh", "-c", script];
        drop(suite.banger(words).ok());
    };
    sh(&inside);
    let [patch, bundle, tar, stat] = ["patch", "bundle", "tar", "stat"].map(|name| dir.join(name));
    let said = form("patch", &patch).done();
    assert_eq!(said.code(), 1, "{told}: {}", said.err());
    assert!(
        said.err().contains("not written: inside: "),
        "{told}: {}",
        said.err()
    );
    sh(&format!("rm -r \"$HOME/{path}/inside\""));
    for (how, to) in [("bundle", &bundle), ("tar", &tar), ("diffstat", &stat)] {
        form(how, to).ok();
    }
    git(here, &["bundle", "verify", "-q", bundle.to_str().unwrap()]);
    let patch = fs::read(patch).unwrap();
    let stat = fs::read(&stat).unwrap();
    assert_eq!(patch.is_empty(), stat.is_empty(), "{told}: the diffstat");
    check_patch(&here.join(".git"), VM, dir, &patch, told);
    let unpacked = dir.join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let [file, to] = [&tar, &unpacked].map(|path| path.to_str().unwrap());
    Run::new("tar").args(["xf", file, "-C", to]).ok();
    let base = git(
        here,
        &[
            "cat-file",
            "blob",
            &format!("refs/banger/{VM}/state/landing:base"),
        ],
    );
    let before = in_git(here, &base);
    let mut changed = in_git(here, &landed_tree(here));
    changed.retain(|name, now| before.get(name) != Some(now));
    assert_same(&changed, &tree(&unpacked), told, "the archive");
}

/// The name of all files that came.
fn landed_tree(here: &Path) -> String {
    let name = |name: &str| format!("refs/banger/{VM}/{name}");
    let tree = name("state/tree");
    match refs(here).contains_key(&tree) {
        true => tree,
        false => name("HEAD"),
    }
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
