//! Exports since a commit that the owner names, also of repositories that banger has not carried into the VM.
use crate::support::{Bench, VM, commit, git, git_bytes, land, tree, write};
use banger_workspace::client::Error;
use banger_workspace::client::collect::Options;
use banger_workspace::client::land::{Landed, Place};
use banger_workspace::command::Cancel;
use banger_workspace::guest::{StatusRequest, status};
use banger_workspace::wire::{Base, Part, Piece, RepositoryStatus};

/// Bytes that no pack makes smaller.
const LARGE: usize = 400_000;

fn noise(seed: u64) -> Vec<u8> {
    let mut chosen = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| chosen.u8(..))
        .take(LARGE)
        .collect()
}

/// An owner's repository with a large commit `start`, and a clone of it in the VM that banger knows nothing of.
fn cloned() -> Bench {
    let bench = Bench::with_repository();
    write(&bench.here, "large", noise(1));
    commit(&bench.here, "large");
    git(&bench.here, &["tag", "start"]);
    clone(&bench);
    bench
}

fn clone(bench: &Bench) {
    let from = format!("file://{}", bench.here.display());
    let to = bench.guest.to_str().unwrap();
    git(bench.directory.path(), &["clone", "-q", &from, to]);
}

fn packed(parts: &[Part]) -> usize {
    let packs = parts.iter().map(|part| match &part.part {
        Some(Piece::Pack(pack)) => pack.data.len(),
        _ => 0,
    });
    packs.sum()
}

/// What comes since `since`, landed, and how many bytes its packs have.
fn exported(bench: &Bench, since: &str) -> (Landed, usize) {
    let base = bench
        .place()
        .base_since(VM, &Base::default(), since)
        .unwrap();
    let parts = bench.exported(&base).unwrap();
    let bytes = packed(&parts);
    (land(&bench.place(), &base, parts).unwrap(), bytes)
}

fn told(bench: &Bench, since: &str) -> RepositoryStatus {
    let base = bench.place().base_since(VM, &Base::default(), since);
    let request = StatusRequest {
        base: base.unwrap(),
        had_git: false,
    };
    let told = status(&bench.guest_place(), &request).unwrap();
    told.repositories.into_iter().next().unwrap()
}

fn landed_at(bench: &Bench, name: &str) -> String {
    git(
        &bench.here,
        &["rev-parse", &format!("refs/banger/{VM}/{name}")],
    )
}

#[test]
fn a_repository_that_was_cloned_in_the_vm_comes_since_a_commit() {
    let bench = cloned();
    for step in ["first", "second"] {
        write(&bench.guest, "file", step);
        commit(&bench.guest, step);
    }
    git(&bench.guest, &["branch", "topic", "HEAD^"]);
    write(&bench.guest, "other", "changed\n");
    write(&bench.guest, "new", "new\n");
    let before = tree(&bench.here);
    let counts = told(&bench, "start");
    assert_eq!((counts.ahead_count, counts.behind_count), (2, 0));
    assert_eq!((counts.new_commit_count, counts.untracked_count), (2, 1));
    let (landed, bytes) = exported(&bench, "start");
    assert!(!landed.has_loss(), "{:?}", landed.notes);
    assert!(bytes < LARGE / 10, "{bytes}");
    assert_eq!(landed.repositories[0].new_commits, 2);
    assert!(!landed.repositories[0].is_own_store);
    assert_eq!(
        landed_at(&bench, "HEAD"),
        git(&bench.guest, &["rev-parse", "HEAD"])
    );
    assert_eq!(
        landed_at(&bench, "heads/topic"),
        git(&bench.guest, &["rev-parse", "topic"])
    );
    let read = |name: &str| git_bytes(&bench.here, &["cat-file", "blob", name]);
    let state = format!("refs/banger/{VM}/state");
    assert_eq!(read(&format!("{state}/tree:new")), b"new\n");
    assert_eq!(read(&format!("{state}/tree:other")), b"changed\n");
    // Patches and bundles of it are since then too.
    let start = git(&bench.here, &["rev-parse", "start"]);
    assert_eq!(read(&format!("{state}/landing:base")), start.as_bytes());
    assert_eq!(tree(&bench.here), before);
    git(&bench.here, &["fsck", "--strict", "--no-dangling"]);
}

#[test]
fn all_that_the_commit_does_not_lead_to_comes_though_it_came_before() {
    let bench = cloned();
    write(&bench.guest, "more", noise(2));
    commit(&bench.guest, "more");
    let (_, first) = exported(&bench, "start");
    assert!(first > LARGE);
    // By itself it does not come again; since what has come, nothing does.
    let base = bench.place().base(VM, &Base::default()).unwrap();
    assert_eq!(packed(&bench.exported(&base).unwrap()), 0);
    assert_eq!(exported(&bench, "refs/banger/dev/HEAD").1, 0);
    assert_eq!(told(&bench, "refs/banger/dev/HEAD").new_commit_count, 0);
    assert!(exported(&bench, "start").1 > LARGE);
    assert_eq!(told(&bench, "start").new_commit_count, 1);
    assert!(exported(&bench, "start^").1 > 2 * LARGE);
}

#[test]
fn a_commit_that_the_vm_has_not_stands_for_those_before_it() {
    let bench = cloned();
    write(&bench.here, "file", "mine\n");
    commit(&bench.here, "mine");
    write(&bench.guest, "other", "theirs\n");
    let theirs = commit(&bench.guest, "theirs");
    let (landed, bytes) = exported(&bench, "main");
    assert!(!landed.has_loss(), "{:?}", landed.notes);
    assert!(bytes < LARGE / 10, "{bytes}");
    assert_eq!(landed.repositories[0].new_commits, 1);
    assert_eq!(landed_at(&bench, "HEAD"), theirs);
    assert_eq!(told(&bench, "main").new_commit_count, 1);
}

#[test]
fn of_another_history_all_comes() {
    let bench = cloned();
    std::fs::remove_dir_all(&bench.guest).unwrap();
    std::fs::create_dir(&bench.guest).unwrap();
    git(&bench.guest, &["init", "-q", "-b", "main"]);
    write(&bench.guest, "file", noise(3));
    let theirs = commit(&bench.guest, "theirs");
    let (landed, bytes) = exported(&bench, "start");
    assert!(bytes > LARGE);
    assert!(!landed.has_loss(), "{:?}", landed.notes);
    assert_eq!(landed.repositories[0].new_commits, 1);
    assert_eq!(landed_at(&bench, "HEAD"), theirs);
}

#[test]
fn what_was_prepared_comes_since_a_commit_too() {
    let bench = Bench::with_repository();
    for step in 0..3 {
        write(&bench.here, "file", format!("{step}\n"));
        commit(&bench.here, "step");
    }
    let (_, prepared) = bench.prepare(&Options::default());
    write(&bench.guest, "file", "theirs\n");
    commit(&bench.guest, "theirs");
    let base = bench.place().base_since(VM, &prepared, "HEAD~2").unwrap();
    let request = StatusRequest {
        base: base.clone(),
        had_git: true,
    };
    let counts = &status(&bench.guest_place(), &request).unwrap().repositories[0];
    assert_eq!((counts.ahead_count, counts.new_commit_count), (3, 3));
    let parts = bench.exported(&base).unwrap();
    land(&bench.place(), &base, parts).unwrap();
    let base = git_bytes(
        &bench.here,
        &["cat-file", "blob", "refs/banger/dev/state/landing:base"],
    );
    let since = git(&bench.here, &["rev-parse", "HEAD~2"]);
    assert_eq!(base, since.as_bytes());
}

#[test]
fn only_a_commit_of_the_owners_is_one() {
    let bench = cloned();
    write(&bench.guest, "file", "theirs\n");
    let theirs = commit(&bench.guest, "theirs");
    for name in [
        "nothing",
        "HEAD^{tree}",
        "start:large",
        "--all",
        "",
        &theirs,
    ] {
        let refused = bench.place().base_since(VM, &Base::default(), name);
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, Error::Revision { .. }),
            "{name}: {refused}"
        );
        assert!(refused.remedy().is_some());
    }
    let plain = Place::find(
        &bench.here,
        &bench.directory.path().join("state"),
        true,
        &Cancel::default(),
    );
    let refused = plain.unwrap().base_since(VM, &Base::default(), "start");
    assert!(matches!(refused.unwrap_err(), Error::NoRepository { .. }));
}
