//! VMs that lie: nothing they send runs here, or is written anywhere but in the quarantine.
mod objects;
mod places;
mod programs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::support::{
    Bench, VM, commit, git, git_bytes, land, prepared, refused, tree, try_git, write,
};
use banger_workspace::client::apply::{How, Options as ApplyOptions, apply};
use banger_workspace::client::collect::Options;
use banger_workspace::client::land::{Landing, Limits};
use banger_workspace::client::{Error, LocalRepository, Result, expected_conflicts};
use banger_workspace::command::Cancel;
use banger_workspace::guest::{StatusRequest, status};
use banger_workspace::wire::{
    Base, Content, Encoding, End, Entries, Entry, EntryKind, IndexEntries, IndexEntry, ManifestEnd,
    PackData, Part, Piece, Ref, RefKind, Refs, Repository, RepositoryKind, part,
};
use sha2::{Digest, Sha256};

/// A file that is there if something of the VM's ran.
fn trap(bench: &Bench) -> String {
    let script = bench.directory.path().join("trap.sh");
    let ran = bench.directory.path().join("ran");
    std::fs::write(
        &script,
        format!("#!/bin/sh\necho \"$0 $@\" >> {}\ncat\n", ran.display()),
    )
    .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script.display().to_string()
}

fn assert_nothing_ran(bench: &Bench) {
    let ran = std::fs::read_to_string(bench.directory.path().join("ran"));
    assert!(ran.is_err(), "{ran:?}");
}

/// A snapshot of one repository, at the commit that `bench` is at, with `entries`.
fn snapshot(bench: &Bench, refs: Vec<Ref>, pack: Vec<u8>, entries: Vec<Entry>) -> Vec<Part> {
    let head = git(&bench.here, &["rev-parse", "HEAD"]);
    let mut parts = vec![part(Piece::Repository(Repository {
        kind: RepositoryKind::Git.into(),
        head_ref: "refs/heads/main".into(),
        head_commit: head,
        ..Repository::default()
    }))];
    parts.push(part(Piece::Refs(Refs { refs })));
    if !pack.is_empty() {
        parts.push(part(Piece::Pack(PackData {
            data: pack.into(),
            is_last: true,
        })));
    }
    let count = i64::try_from(entries.len()).unwrap();
    parts.push(part(Piece::Entries(Entries { entries })));
    parts.push(part(Piece::ManifestEnd(ManifestEnd { entry_count: count })));
    parts
}

fn ended(mut parts: Vec<Part>) -> Vec<Part> {
    parts.push(part(Piece::End(End::default())));
    parts
}

fn reference(name: &str, id: &str) -> Ref {
    Ref {
        kind: RefKind::Ref.into(),
        name: name.to_owned().into(),
        object_id: id.to_owned(),
        ..Ref::default()
    }
}

fn file(path: &[u8], size: i64) -> Entry {
    Entry {
        path: path.to_vec().into(),
        kind: EntryKind::File.into(),
        mode: 0o644,
        size,
        ..Entry::default()
    }
}

fn content(entry: u32, data: &[u8]) -> Part {
    part(Piece::Content(Content {
        entry,
        data: data.to_vec().into(),
        is_last: true,
        sha256: Sha256::digest(data).to_vec().into(),
        ..Content::default()
    }))
}

/// A pack with the objects that `ids` lead to, made in a repository of the VM.
fn pack_of(guest: &Path, ids: &[&str]) -> Vec<u8> {
    let list = guest.join("../ids");
    std::fs::write(&list, ids.join("\n") + "\n").unwrap();
    let output = std::process::Command::new("git")
        .current_dir(guest)
        .args(["pack-objects", "--stdout", "-q"])
        .stdin(std::fs::File::open(&list).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

/// An object of these bytes, whatever git thinks of them.
fn object(guest: &Path, kind: &str, content: &[u8]) -> String {
    let file = guest.join("../object");
    std::fs::write(&file, content).unwrap();
    git(
        guest,
        &[
            "hash-object",
            "-w",
            "--literally",
            "-t",
            kind,
            file.to_str().unwrap(),
        ],
    )
}

/// A tree with one entry of this name.
fn tree_with(guest: &Path, mode: &str, name: &[u8], id: &str) -> String {
    let raw = (0..id.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap());
    let raw: Vec<u8> = raw.collect();
    object(
        guest,
        "tree",
        &[mode.as_bytes(), b" ", name, b"\0", &raw].concat(),
    )
}

fn commit_of(guest: &Path, tree: &str) -> String {
    object(
        guest,
        "commit",
        format!("tree {tree}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nm\n").as_bytes(),
    )
}

/// A directory of the owner's beside the repository, which nothing may be written to.
fn outside(bench: &Bench) -> std::path::PathBuf {
    let outside = bench.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    outside
}

fn all_ways(bench: &Bench) {
    for how in [How::FastForward, How::Merge, How::Rebase, How::Patch] {
        let repository = LocalRepository::find(&bench.here, &Cancel::default()).unwrap();
        let options = ApplyOptions {
            how,
            ..ApplyOptions::default()
        };
        // Some of them are refused; what matters is what they leave alone.
        let _ = apply(&repository.unwrap(), VM, options);
        let _ = try_git(&bench.here, &["merge", "--abort"]);
        let _ = try_git(&bench.here, &["cherry-pick", "--abort"]);
        git(&bench.here, &["reset", "-q", "--hard", "start"]);
        git(&bench.here, &["clean", "-q", "-f", "-d"]);
    }
}
