//! Random histories go into a VM and come back: every commit keeps its id, every file its bytes.
//!
//! Both halves are real and so is git; only the wire between them is a channel. The seeds are 0 and so on:
//! `WORKSPACE_CASES` says how many histories (12), `WORKSPACE_FIRST` from which seed on, `WORKSPACE_SEED` repeats the one
//! whose seed a failure prints. `make histories` takes a thousand, from a random one on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use banger_workspace::client::collect::Options;
use banger_workspace::client::land::Landed;
use banger_workspace::guest::Restore;
use support::{Bench, VM, commit, git, git_bytes, tree, try_git, write};

const CASES: u64 = 12;

/// Names that trees have seen: ones that differ in case only, that are no text, that look like options.
const NAMES: [&[u8]; 14] = [
    b"a",
    b"A",
    b"b.txt",
    b"dir/a",
    b"dir/B",
    b"dir/deep/er/c",
    b"\xff\xfe",
    b"na\xc3\xafve \xe2\x82\xac",
    b"with space",
    b"-option",
    b"quote\"back\\slash",
    b"new\nline",
    b"Makefile",
    b"MAKEFILE",
];

struct Case {
    random: fastrand::Rng,
    branches: u32,
}

impl Case {
    fn name(&mut self) -> OsString {
        let name = NAMES[self.random.usize(..NAMES.len())].to_vec();
        OsString::from_vec(name)
    }

    fn content(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        match random.u8(..12) {
            0 => Vec::new(),
            1 => (0..random.usize(1..5000)).map(|_| random.u8(..)).collect(),
            2 => b"dos\r\nlines\r\n".repeat(random.usize(1..20)),
            3 => vec![b'x'; random.usize(1..300_000)],
            4 => b"no line end".to_vec(),
            _ => {
                let lines = (0..random.usize(1..30)).map(|_| format!("line {}\n", random.u8(..9)));
                lines.collect::<String>().into_bytes()
            }
        }
    }

    /// Changes a tree: writes, removes, renames, links, modes.
    fn work(&mut self, top: &Path) {
        for _ in 0..self.random.usize(1..6) {
            let name = self.name();
            let at = top.join(&name);
            match self.random.u8(..10) {
                0 => remove(&at),
                1 => {
                    if clear(top, &name) {
                        symlink("nowhere/../in particular", &at).unwrap();
                    }
                }
                2 => {
                    let other = top.join(self.name());
                    if at.is_file() && !other.exists() && other.symlink_metadata().is_err() {
                        let made = std::fs::create_dir_all(other.parent().unwrap());
                        if made.is_ok() {
                            std::fs::rename(&at, &other).unwrap();
                        }
                    }
                }
                3 => {
                    if at
                        .symlink_metadata()
                        .is_ok_and(|metadata| metadata.is_file())
                    {
                        let mode = if self.random.bool() { 0o755 } else { 0o644 };
                        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(mode))
                            .unwrap();
                    }
                }
                _ => {
                    if clear(top, &name) {
                        let content = self.content();
                        std::fs::write(&at, content).unwrap();
                    }
                }
            }
        }
    }

    /// Works, and commits: on branches, with merges, tags, amended and rebased commits.
    fn history(&mut self, top: &Path, steps: usize) {
        for step in 0..steps {
            self.work(top);
            match self.random.u8(..9) {
                0 => {
                    commit(top, "before a branch");
                    self.branches += 1;
                    let name = format!("topic/{}", self.branches);
                    git(top, &["switch", "-q", "-c", &name]);
                }
                1 => {
                    commit(top, "before a merge");
                    let branches = git(top, &["branch", "--format=%(refname:short)"]);
                    let branches: Vec<&str> = branches
                        .lines()
                        .filter(|name| !name.starts_with('('))
                        .collect();
                    if branches.is_empty() {
                        continue;
                    }
                    let other = branches[self.random.usize(..branches.len())];
                    if try_git(top, &["merge", "-q", "--no-ff", "-m", "merge", other]).is_err() {
                        // A conflict is resolved as it lies.
                        git(top, &["add", "-A"]);
                        let _ = try_git(top, &["commit", "-q", "-m", "merge with conflicts"]);
                        let _ = try_git(top, &["merge", "--abort"]);
                    }
                }
                2 => {
                    commit(top, "tagged");
                    let name = format!("tag-{step}-{}", self.random.u32(..));
                    git(top, &["tag", "-a", "-m", "a tag", &name]);
                }
                3 => {
                    commit(top, "to be amended");
                    self.work(top);
                    git(top, &["add", "-A"]);
                    git(
                        top,
                        &["commit", "-q", "--amend", "--allow-empty", "-m", "amended"],
                    );
                }
                4 => {
                    commit(top, "to be reset");
                    let _ = try_git(top, &["reset", "-q", "--hard", "HEAD~1"]);
                }
                5 => drop(commit(top, "detached next")),
                6 => {
                    commit(top, "stashed next");
                    self.work(top);
                    let _ = try_git(top, &["stash", "push", "-q", "--include-untracked"]);
                }
                _ => drop(commit(top, &format!("step {step}"))),
            }
        }
    }

    /// Leaves work uncommitted: staged, not staged, not tracked, ignored, empty directories.
    fn uncommitted(&mut self, top: &Path) {
        if self.random.bool() {
            self.work(top);
            git(top, &["add", "-A"]);
        }
        if self.random.bool() {
            self.work(top);
        }
        if self.random.bool() && top.join("empty").symlink_metadata().is_err() {
            std::fs::create_dir_all(top.join("empty/inside")).unwrap();
        }
    }
}

fn remove(at: &Path) {
    match at.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(at).unwrap(),
        Ok(_) => std::fs::remove_file(at).unwrap(),
        Err(_) => {}
    }
}

/// Makes room for a file; false where something on the way is none.
fn clear(top: &Path, name: &OsString) -> bool {
    let at = top.join(name);
    remove(&at);
    std::fs::create_dir_all(at.parent().unwrap()).is_ok()
}

/// Every reference with what it leads to.
fn refs(top: &Path) -> BTreeMap<String, String> {
    let listed = git(top, &["for-each-ref", "--format=%(refname) %(objectname)"]);
    let pairs = listed.lines().filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .collect()
}

fn settle(top: &Path, random: &mut fastrand::Rng) {
    if random.bool() {
        git(
            top,
            &[
                "config",
                "core.autocrlf",
                if random.bool() { "true" } else { "input" },
            ],
        );
    }
    if random.bool() {
        write(
            top,
            ".gitattributes",
            "*.txt text eol=crlf\nMakefile text=auto\n*.bin filter=none\n",
        );
    }
    if random.bool() {
        write(top, ".gitignore", "ignored/\n*.o\n");
        write(top, "ignored/by git", "secret");
        write(top, "b.o", "object");
    }
}

fn with_submodule(bench: &Bench, case: &mut Case) {
    let library = bench.directory.path().join("library");
    std::fs::create_dir(&library).unwrap();
    git(&library, &["init", "-q", "-b", "main"]);
    case.history(&library, 2);
    commit(&library, "library");
    let library = library.display().to_string();
    git(
        &bench.here,
        &["submodule", "add", "-q", &library, "sub module"],
    );
    commit(&bench.here, "with a submodule");
}

/// The bytes that git would leave out are left out on both sides.
fn without_ignored(top: &Path) -> BTreeMap<OsString, (String, Vec<u8>)> {
    let mut found = tree(top);
    found.retain(|name, _| {
        !name.as_bytes().starts_with(b"ignored/") && !name.as_bytes().ends_with(b".o")
    });
    found
}

/// The tree of a landed state, with the files of repositories inside left out.
fn landed_tree(top: &Path, name: &str) -> BTreeMap<OsString, (String, Vec<u8>)> {
    let listed = git_bytes(top, &["ls-tree", "-r", "-z", name]);
    let mut found = BTreeMap::new();
    for line in listed
        .split(|&byte| byte == 0)
        .filter(|line| !line.is_empty())
    {
        let tab = line.iter().position(|&byte| byte == b'\t').unwrap();
        let words = String::from_utf8(line[..tab].to_vec()).unwrap();
        let words: Vec<&str> = words.split(' ').collect();
        let kind = match words[0] {
            "100644" => "file",
            "100755" => "program",
            "120000" => "link",
            _ => continue,
        };
        let content = git_bytes(top, &["cat-file", "blob", words[2]]);
        let name = OsString::from_vec(line[tab + 1..].to_vec());
        found.insert(name, (kind.to_owned(), content));
    }
    found
}

fn check_landed(bench: &Bench, landed: &Landed, seed: u64) {
    assert!(!landed.has_loss(), "seed {seed}: {:?}", landed.notes);
    for repository in &landed.repositories {
        let inside = PathBuf::from(OsString::from_vec(repository.path.clone()));
        let (here, guest) = (bench.here.join(&inside), bench.guest.join(&inside));
        let own = refs(&here);
        for (name, id) in refs(&guest) {
            if name == "refs/stash" {
                continue;
            }
            let rest = name.strip_prefix("refs/").unwrap();
            let landed = own.get(&format!("refs/banger/{VM}/{rest}"));
            let landed = landed.or_else(|| own.get(&name));
            assert_eq!(landed, Some(&id), "seed {seed}: {name}");
        }
        if let Ok(stash) = try_git(&guest, &["stash", "list", "--format=%H"]) {
            for (number, id) in stash.lines().enumerate() {
                let name = format!("refs/banger/{VM}/stash/{number}");
                assert_eq!(
                    own.get(&name).map(String::as_str),
                    Some(id),
                    "seed {seed}: {name}"
                );
            }
        }
        let head = git(&guest, &["rev-parse", "HEAD"]);
        assert_eq!(
            own.get(&format!("refs/banger/{VM}/HEAD")),
            Some(&head),
            "seed {seed}"
        );
        git(&here, &["fsck", "--strict", "--connectivity-only"]);
        let prefix = format!("refs/banger/{VM}/state");
        let index = own.get(&format!("{prefix}/index")).unwrap_or(&head);
        let staged = git(&guest, &["write-tree"]);
        assert_eq!(
            git(&here, &["rev-parse", &format!("{index}^{{tree}}")]),
            staged,
            "seed {seed}"
        );
        let state = own.get(&format!("{prefix}/tree")).unwrap_or(&head);
        let came = landed_tree(&here, state);
        let mut there = without_ignored(&guest);
        there.retain(|name, (kind, _)| {
            kind != "directory" && !name.as_bytes().starts_with(b"sub module/")
        });
        // Line ends that git makes of an object, and takes for it, do not come: they are made again.
        for (name, found) in &mut there {
            let object = [state.as_bytes(), b":", name.as_bytes()].concat();
            let object = OsString::from_vec(object);
            if came
                .get(name)
                .is_some_and(|came| came != found && came.0 == found.0)
                && git(&guest, &[OsStr::new("hash-object"), OsStr::new("--"), name])
                    == git(&here, &[OsStr::new("rev-parse"), &object])
            {
                found.1 = came[name].1.clone();
            }
        }
        assert_same(&came, &there, seed, "export");
    }
}

fn assert_same(
    one: &BTreeMap<OsString, (String, Vec<u8>)>,
    other: &BTreeMap<OsString, (String, Vec<u8>)>,
    seed: u64,
    during: &str,
) {
    let names =
        |tree: &BTreeMap<OsString, (String, Vec<u8>)>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(one), names(other), "seed {seed}: {during}");
    for (name, there) in one {
        let here = &other[name];
        let begin = |content: &[u8]| content[..content.len().min(40)].escape_ascii().to_string();
        assert!(
            here == there,
            "seed {seed}: {during}: {name:?} is a {} of {} bytes ({}), and a {} of {} ({})",
            there.0,
            there.1.len(),
            begin(&there.1),
            here.0,
            here.1.len(),
            begin(&here.1)
        );
    }
}

fn round_trip(seed: u64) {
    let bench = Bench::new();
    let mut case = Case {
        random: fastrand::Rng::with_seed(seed),
        branches: 0,
    };
    git(&bench.here, &["init", "-q", "-b", "main"]);
    settle(&bench.here, &mut case.random);
    commit(&bench.here, "first");
    let steps = case.random.usize(1..5);
    case.history(&bench.here, steps);
    if case.random.u8(..4) == 0 {
        with_submodule(&bench, &mut case);
    }
    case.uncommitted(&bench.here);
    let before = snapshot_of(&bench.here);
    let (restored, base) = bench.prepare(&Options::default());
    assert_eq!(
        snapshot_of(&bench.here),
        before,
        "seed {seed}: collecting wrote"
    );
    let losses: Vec<_> = restored.notes.iter().filter(|note| note.is_loss).collect();
    assert!(losses.is_empty(), "seed {seed}: {losses:?}");
    assert_same(
        &without_ignored(&bench.here),
        &tree(&bench.guest),
        seed,
        "prepare",
    );
    for words in [
        &["status", "--porcelain=v1", "-z"][..],
        &["rev-parse", "HEAD"],
        &["symbolic-ref", "HEAD"],
    ] {
        let (here, guest) = (git(&bench.here, words), git(&bench.guest, words));
        assert_eq!(here, guest, "seed {seed}: {words:?}");
    }
    let mine = refs(&bench.here);
    let theirs = refs(&bench.guest);
    for (name, id) in mine.iter().filter(|(name, _)| *name != "refs/stash") {
        assert_eq!(theirs.get(name), Some(id), "seed {seed}: {name}");
    }
    let steps = case.random.usize(1..5);
    case.branches += 100;
    case.history(&bench.guest, steps);
    case.uncommitted(&bench.guest);
    let landed = bench.export(&base);
    check_landed(&bench, &landed, seed);
    // What did not change is not sent again, and a second landing is the same.
    let again = bench.export(&base);
    check_landed(&bench, &again, seed);
    for repository in &again.repositories {
        assert_eq!(repository.kept, Vec::<String>::new(), "seed {seed}");
    }
    if case.random.bool() {
        prepare_again(&bench, &mut case, seed);
    }
}

/// A second prepare of a changed repository, over what was exported.
fn prepare_again(bench: &Bench, case: &mut Case, seed: u64) {
    case.branches += 100;
    let _ = try_git(&bench.here, &["add", "-A"]);
    case.history(&bench.here, 1);
    case.uncommitted(&bench.here);
    let restore = Restore {
        overwrite: true,
        ..Restore::default()
    };
    let prepared = bench.try_prepare(&Options::default(), &restore, &mut |_| true);
    prepared.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert_same(
        &without_ignored(&bench.here),
        &tree(&bench.guest),
        seed,
        "second prepare",
    );
}

/// All that collecting must not touch: the index's bytes, and that no lock is left.
fn snapshot_of(top: &Path) -> (Vec<u8>, bool, BTreeMap<String, String>) {
    let index = std::fs::read(top.join(".git/index")).unwrap();
    (index, top.join(".git/index.lock").exists(), refs(top))
}

#[test]
fn every_commit_and_every_byte_comes_through() {
    if let Ok(seed) = std::env::var("WORKSPACE_SEED") {
        round_trip(seed.parse().expect("WORKSPACE_SEED is a number"));
        return;
    }
    let number = |name: &str, default: u64| {
        let told = std::env::var(name).ok();
        told.map_or(default, |told| told.parse().expect("a number"))
    };
    let cases = number("WORKSPACE_CASES", CASES);
    let first = number("WORKSPACE_FIRST", 0);
    println!("seeds {first} to {}", first + cases - 1);
    for seed in first..first + cases {
        round_trip(seed);
    }
}
