//! Random histories go into a VM and come back: every commit keeps its id, every file its bytes.
//!
//! Both halves are real and so is git; only the wire between them is a channel. The seeds are 0 and so on:
//! `WORKSPACE_CASES` says how many histories (12), `WORKSPACE_FIRST` from which seed on, `WORKSPACE_SEED` repeats the one
//! whose seed a failure prints. `make histories` takes a thousand, from a random one on.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{Bench, VM, git, tree, try_git};
use banger_histories::{
    Came, Case, Situation, assert_same, check_applied, check_landed, check_patch, check_prepared,
    is_appliable, refs, without_ignored,
};
use banger_workspace::client::apply::{Options as ApplyOptions, apply};
use banger_workspace::client::collect::Options;
use banger_workspace::client::land::Landed;
use banger_workspace::client::render::{Format, Only, Work};
use banger_workspace::guest::Restore;

const CASES: u64 = 12;
/// Steps of a history in the VM.
const STEPS_MAX: usize = 4;

/// The repositories that came.
fn came(landed: &Landed) -> Vec<Came> {
    let each = landed.repositories.iter();
    each.map(|one| Came {
        path: one.path.clone(),
        store: one.store.clone(),
    })
    .collect()
}

/// All that came is what was there, and nothing is told as lost that was not.
fn check(bench: &Bench, landed: &Landed, situation: Situation, told: &str) {
    let is_deleted = situation == Situation::Deleted;
    assert_eq!(landed.has_loss(), is_deleted, "{told}: {:?}", landed.notes);
    check_landed(&bench.guest, VM, &came(landed), told);
}

fn round_trip(seed: u64) {
    let bench = Bench::new();
    let mut case = Case::new(seed);
    let told = format!("seed {seed}");
    case.begin(&bench.here, &bench.directory.path().join("library"));
    let before = snapshot_of(&bench.here);
    let (restored, base) = bench.prepare(&Options::default());
    assert_eq!(snapshot_of(&bench.here), before, "{told}: collecting wrote");
    let losses: Vec<_> = restored.notes.iter().filter(|note| note.is_loss).collect();
    assert!(losses.is_empty(), "{told}: {losses:?}");
    check_prepared(&bench.here, &bench.guest, &told);
    let (situation, locks) = case.go_on(&bench.guest, STEPS_MAX);
    let told = format!("{told} ({situation:?})");
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
        .for_each(|lock: &PathBuf| std::fs::remove_file(lock).unwrap());
    check(&bench, &landed, situation, &told);
    check(&bench, &again, situation, &told);
    for repository in &again.repositories {
        assert_eq!(repository.kept, Vec::<String>::new(), "{told}");
    }
    if next > 0 && is_appliable(situation) {
        apply_it(&bench, &landed, &told);
    }
    if next < 2 {
        prepare_again(&bench, &mut case, &told);
    }
}

/// A patch of what came leads to it, and where the branch here need only move forward, an apply does.
fn apply_it(bench: &Bench, landed: &Landed, told: &str) {
    let place = bench.place();
    let work = Work::of(place.store(), VM).unwrap();
    let mut patch = Vec::new();
    work.write(Format::Patch, Only::All, &mut patch).unwrap();
    let store = place.store().directory();
    check_patch(store, VM, bench.directory.path(), &patch, told);
    let head = git(&bench.guest, &["rev-parse", "HEAD"]);
    if try_git(&bench.here, &["merge-base", "--is-ancestor", "HEAD", &head]).is_err() {
        return;
    }
    git(&bench.here, &["reset", "-q", "--hard"]);
    git(&bench.here, &["clean", "-q", "-f", "-d"]);
    let options = ApplyOptions {
        onto_current: true,
        ..ApplyOptions::default()
    };
    let applied = apply(place.repository().unwrap(), VM, options);
    let applied = applied.unwrap_or_else(|error| panic!("{told}: {error}: {:?}", error.paths()));
    assert_eq!(applied.conflicts, Vec::<String>::new(), "{told}");
    check_applied(&bench.here, &bench.guest, &came(landed), told);
}

/// A second prepare of a changed repository, over what was exported.
fn prepare_again(bench: &Bench, case: &mut Case, told: &str) {
    let _ = try_git(&bench.here, &["add", "-A"]);
    case.change(&bench.here);
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
