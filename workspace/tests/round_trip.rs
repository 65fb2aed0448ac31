//! Random histories go into a VM and come back: every commit keeps its id, every file its bytes.
//!
//! Both halves are real and so is git; only the wire between them is a channel. The seeds are 0 and so on:
//! `WORKSPACE_CASES` says how many histories (12), `WORKSPACE_FIRST` from which seed on, `WORKSPACE_SEED` repeats the one
//! whose seed a failure prints. `make histories` takes a thousand, from a random one on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use banger_workspace::client::collect::Options;
use banger_workspace::client::land::Landed;
use banger_workspace::guest::Restore;
use support::history::{Case, Situation};
use support::{Bench, VM, commit, git, git_bytes, tree, try_git};

const CASES: u64 = 12;

/// Every reference with what it leads to.
fn refs(top: &Path) -> BTreeMap<String, String> {
    let listed = git(top, &["for-each-ref", "--format=%(refname) %(objectname)"]);
    let pairs = listed.lines().filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .collect()
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

/// All that came is what was there: commits, references, what was staged, files.
fn check_landed(bench: &Bench, landed: &Landed, situation: Situation, told: &str) {
    let is_deleted = situation == Situation::Deleted;
    assert_eq!(landed.has_loss(), is_deleted, "{told}: {:?}", landed.notes);
    let places: Vec<&[u8]> = landed
        .repositories
        .iter()
        .map(|one| &one.path[..])
        .collect();
    for repository in &landed.repositories {
        let place = OsString::from_vec(repository.path.clone());
        let told = format!("{told}, in {place:?}");
        let guest = bench.guest.join(&place);
        let store = &repository.store;
        let own = refs(store);
        git(store, &["fsck", "--strict", "--connectivity-only"]);
        let is_git = guest.join(".git").exists();
        if is_git {
            check_history(&guest, store, &own, &told);
        }
        let head = try_git(&guest, &["rev-parse", "--verify", "-q", "HEAD"]).ok();
        let head = head.filter(|_| is_git);
        let state = own.get(&format!("refs/banger/{VM}/state/tree"));
        let state = state.or(head.as_ref());
        let came = match state {
            Some(state) => landed_tree(store, state),
            None => BTreeMap::new(),
        };
        let mut there = match is_git {
            true => without_ignored(&guest),
            false => tree(&guest),
        };
        let inside = |name: &OsString| {
            let name = [place.as_bytes(), b"/", name.as_bytes()].concat();
            let name = name.strip_prefix(b"/").unwrap_or(&name).to_vec();
            let mut others = places.iter().filter(|other| other.len() > place.len());
            others.any(|other| name == **other || name.starts_with(&[other, &b"/"[..]].concat()))
        };
        there.retain(|name, (kind, _)| kind != "directory" && !inside(name));
        // Line ends that git makes of an object, and takes for it, do not come: they are made again.
        for (name, found) in there.iter_mut().filter(|_| is_git) {
            let object = [state.unwrap().as_bytes(), b":", name.as_bytes()].concat();
            let object = OsString::from_vec(object);
            if came
                .get(name)
                .is_some_and(|came| came != found && came.0 == found.0)
                && git(&guest, &[OsStr::new("hash-object"), OsStr::new("--"), name])
                    == git(store, &[OsStr::new("rev-parse"), &object])
            {
                found.1 = came[name].1.clone();
            }
        }
        assert_same(&came, &there, &told, "export");
    }
}

/// Every commit, every reference, and what was staged or in conflict.
fn check_history(guest: &Path, store: &Path, own: &BTreeMap<String, String>, told: &str) {
    for (name, id) in refs(guest) {
        if name == "refs/stash" {
            continue;
        }
        let rest = name.strip_prefix("refs/").unwrap();
        let landed = own.get(&format!("refs/banger/{VM}/{rest}"));
        let landed = landed.or_else(|| own.get(&name));
        assert_eq!(landed, Some(&id), "{told}: {name}");
    }
    if let Ok(stash) = try_git(guest, &["stash", "list", "--format=%H"]) {
        for (number, id) in stash.lines().enumerate() {
            let name = format!("refs/banger/{VM}/stash/{number}");
            assert_eq!(
                own.get(&name).map(String::as_str),
                Some(id),
                "{told}: {name}"
            );
        }
    }
    // Not only there, but kept by a reference.
    let kept = git(store, &["rev-list", "--all"]);
    let kept: BTreeSet<&str> = kept.lines().collect();
    let commits = git(guest, &["rev-list", "--all", "--reflog"]);
    for id in commits.lines() {
        assert!(kept.contains(id), "{told}: commit {id} has not come");
    }
    let head = try_git(guest, &["rev-parse", "--verify", "-q", "HEAD"]).ok();
    let landed = own.get(&format!("refs/banger/{VM}/HEAD"));
    assert_eq!(landed, head.as_ref(), "{told}");
    let prefix = format!("refs/banger/{VM}/state");
    let conflicts = git_bytes(guest, &["ls-files", "--unmerged", "-z"]);
    let listed = |name: &str| match own.contains_key(name) {
        true => git_bytes(store, &["ls-tree", "-r", "-z", name]),
        false => Vec::new(),
    };
    if conflicts.is_empty() {
        let empty = git(store, &["hash-object", "-t", "tree", "/dev/null"]);
        let index = own.get(&format!("{prefix}/index")).or(head.as_ref());
        let came = index.map_or(empty, |id| {
            git(store, &["rev-parse", &format!("{id}^{{tree}}")])
        });
        assert_eq!(came, git(guest, &["write-tree"]), "{told}: what was staged");
        return;
    }
    // `mode id stage TAB path` there, `mode kind id TAB stage/path` here.
    let there = fields(&conflicts).map(|(words, path)| {
        let (mode, id, stage) = (&words[0], &words[1], &words[2]);
        (format!("{stage}/{path}"), format!("{mode} {id}"))
    });
    let came = listed(&format!("{prefix}/conflicts"));
    let came: BTreeMap<String, String> = fields(&came)
        .map(|(words, path)| (path, format!("{} {}", words[0], words[2])))
        .collect();
    for (path, object) in there {
        assert_eq!(came.get(&path), Some(&object), "{told}: {path} in conflict");
    }
}

/// Entries of a listing, by words and a path that is escaped.
fn fields(listed: &[u8]) -> impl Iterator<Item = (Vec<String>, String)> {
    let lines = listed.split(|&byte| byte == 0);
    lines.filter(|line| !line.is_empty()).map(|line| {
        let tab = line.iter().position(|&byte| byte == b'\t').unwrap();
        let words = String::from_utf8(line[..tab].to_vec()).unwrap();
        let words = words.split(' ').map(str::to_owned).collect();
        (words, line[tab + 1..].escape_ascii().to_string())
    })
}

fn assert_same(
    one: &BTreeMap<OsString, (String, Vec<u8>)>,
    other: &BTreeMap<OsString, (String, Vec<u8>)>,
    told: &str,
    during: &str,
) {
    let names =
        |tree: &BTreeMap<OsString, (String, Vec<u8>)>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(one), names(other), "{told}: {during}");
    for (name, there) in one {
        let here = &other[name];
        let begin = |content: &[u8]| content[..content.len().min(40)].escape_ascii().to_string();
        assert!(
            here == there,
            "{told}: {during}: {name:?} is a {} of {} bytes ({}), and a {} of {} ({})",
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
    let mut case = Case::new(seed);
    let told = format!("seed {seed}");
    git(&bench.here, &["init", "-q", "-b", "main"]);
    case.settle(&bench.here);
    commit(&bench.here, "first");
    let steps = case.random.usize(1..5);
    case.history(&bench.here, steps);
    if case.random.u8(..3) == 0 {
        case.submodule(&bench);
    }
    case.uncommitted(&bench.here);
    let before = snapshot_of(&bench.here);
    let (restored, base) = bench.prepare(&Options::default());
    assert_eq!(snapshot_of(&bench.here), before, "{told}: collecting wrote");
    let losses: Vec<_> = restored.notes.iter().filter(|note| note.is_loss).collect();
    assert!(losses.is_empty(), "{told}: {losses:?}");
    check_prepared(&bench, &told);
    let steps = case.random.usize(1..5);
    case.branches += 100;
    case.history(&bench.guest, steps);
    let situation = case.leave(&bench.guest);
    let told = format!("{told} ({situation:?})");
    let locks = match situation {
        Situation::Locked => case.lock(&bench.guest),
        _ => Vec::new(),
    };
    let landed = bench.export(&base);
    // What did not change is not sent again, and a second landing is the same.
    let again = bench.export(&base);
    let next = case.random.u8(..3);
    // Locks are in the way of the comparison too, but not of a second prepare.
    if next == 0 && !locks.is_empty() {
        return prepare_again(&bench, &mut case, &told);
    }
    locks
        .iter()
        .for_each(|lock| std::fs::remove_file(lock).unwrap());
    check_landed(&bench, &landed, situation, &told);
    check_landed(&bench, &again, situation, &told);
    for repository in &again.repositories {
        assert_eq!(repository.kept, Vec::<String>::new(), "{told}");
    }
    if next < 2 {
        prepare_again(&bench, &mut case, &told);
    }
}

/// The VM has the same files, the same status, the same references.
fn check_prepared(bench: &Bench, told: &str) {
    assert_same(
        &without_ignored(&bench.here),
        &tree(&bench.guest),
        told,
        "prepare",
    );
    for words in [
        &["status", "--porcelain=v1", "-z"][..],
        &["rev-parse", "HEAD"],
        &["symbolic-ref", "-q", "HEAD"],
    ] {
        let (here, guest) = (try_git(&bench.here, words), try_git(&bench.guest, words));
        assert_eq!(here, guest, "{told}: {words:?}");
    }
    let mine = refs(&bench.here);
    let theirs = refs(&bench.guest);
    for (name, id) in mine.iter().filter(|(name, _)| *name != "refs/stash") {
        assert_eq!(theirs.get(name), Some(id), "{told}: {name}");
    }
}

/// A second prepare of a changed repository, over what was exported.
fn prepare_again(bench: &Bench, case: &mut Case, told: &str) {
    case.branches += 100;
    let _ = try_git(&bench.here, &["add", "-A"]);
    case.history(&bench.here, 1);
    case.uncommitted(&bench.here);
    let restore = Restore {
        overwrite: true,
        ..Restore::default()
    };
    let prepared = bench.try_prepare(&Options::default(), &restore, &mut |_| true);
    prepared.unwrap_or_else(|error| panic!("{told}: {error}"));
    assert_same(
        &without_ignored(&bench.here),
        &tree(&bench.guest),
        told,
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
