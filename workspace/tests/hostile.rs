//! VMs that lie: nothing they send runs here, or is written anywhere but in the quarantine.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use banger_workspace::client::apply::{How, Options as ApplyOptions, apply};
use banger_workspace::client::collect::Options;
use banger_workspace::client::land::{Landing, Limits};
use banger_workspace::client::{LocalRepository, Result};
use banger_workspace::command::Cancel;
use banger_workspace::wire::{
    Base, Content, End, Entries, Entry, EntryKind, ManifestEnd, PackData, Part, Piece, Ref,
    RefKind, Refs, Repository, RepositoryKind, part,
};
use sha2::{Digest, Sha256};
use support::{Bench, VM, commit, git, git_bytes, land, prepared, refused, tree, try_git, write};

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

#[test]
fn hooks_helpers_and_filters_of_the_vm_do_not_run_here() {
    let (bench, base) = prepared();
    let trap = trap(&bench);
    let guest = &bench.guest;
    write(
        guest,
        ".gitattributes",
        "* filter=evil diff=evil merge=evil\n",
    );
    commit(guest, "attributes");
    for setting in [
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "core.editor",
        "diff.external",
        "gpg.program",
    ] {
        git(guest, &["config", setting, &trap]);
    }
    for setting in [
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.evil.textconv",
        "diff.evil.command",
        "merge.evil.driver",
    ] {
        git(guest, &["config", setting, &trap]);
    }
    for hook in [
        "post-checkout",
        "pre-commit",
        "reference-transaction",
        "post-merge",
        "pre-push",
        "post-index-change",
    ] {
        let at = guest.join(".git/hooks").join(hook);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&at);
        symlink(&trap, at).unwrap();
    }
    write(
        guest,
        ".git/evil",
        format!("[core]\n\tfsmonitor = {trap}\n"),
    );
    git(guest, &["config", "include.path", "evil"]);
    write(guest, "file", "changed\n");
    let known = bench.place().base(VM, &base).unwrap();
    let parts = bench.exported(&known).unwrap();
    // In the VM they may run: it is the VM's own git.
    let _ = std::fs::remove_file(bench.directory.path().join("ran"));
    let landed = land(&bench.place(), &known, parts).unwrap();
    assert!(!landed.has_loss(), "{:?}", landed.notes);
    assert_nothing_ran(&bench);
}

#[test]
fn programs_that_come_with_the_tree_do_not_run_when_it_is_applied() {
    let bench = Bench::with_repository();
    let trap = trap(&bench);
    // The owner's own settings name programs in the tree, as many projects have it.
    git(&bench.here, &["config", "core.hooksPath", ".hooks"]);
    git(&bench.here, &["config", "core.fsmonitor", "./monitor"]);
    for setting in [
        "filter.project.clean",
        "filter.project.smudge",
        "merge.project.driver",
    ] {
        git(&bench.here, &["config", setting, "./program"]);
    }
    git(&bench.here, &["config", "filter.project.required", "true"]);
    std::fs::remove_file(bench.here.join("other")).unwrap();
    git(
        &bench.here,
        &[
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.hooksPath=/dev/null",
            "commit",
            "-q",
            "-a",
            "-m",
            "x",
        ],
    );
    git(&bench.here, &["config", "core.fsmonitor", "./monitor"]);
    let (_, base) = bench.prepare(&Options::default());
    let guest = &bench.guest;
    for name in [
        "program",
        "monitor",
        ".hooks/post-merge",
        ".hooks/post-checkout",
        ".hooks/post-index-change",
        ".hooks/reference-transaction",
    ] {
        write(guest, name, std::fs::read(&trap).unwrap());
        std::fs::set_permissions(guest.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    write(guest, ".gitattributes", "* filter=project merge=project\n");
    write(guest, "file", "theirs\n");
    commit(guest, "theirs");
    write(guest, "file", "not committed\n");
    bench.export(&base);
    let repository = LocalRepository::find(&bench.here, &Cancel::default()).unwrap();
    apply(&repository.unwrap(), VM, ApplyOptions::default()).unwrap();
    assert_eq!(
        std::fs::read_to_string(bench.here.join("file")).unwrap(),
        "not committed\n"
    );
    assert_nothing_ran(&bench);
}

#[test]
fn merge_drivers_that_came_with_the_tree_do_not_run() {
    for way in [How::Merge, How::Rebase, How::Patch] {
        let bench = Bench::with_repository();
        let trap = trap(&bench);
        git(
            &bench.here,
            &["config", "merge.project.driver", "./program"],
        );
        write(&bench.here, ".gitattributes", "file merge=project\n");
        std::fs::copy(&trap, bench.here.join("program")).unwrap();
        commit(&bench.here, "as an earlier apply left it");
        let (_, base) = bench.prepare(&Options::default());
        write(&bench.guest, "file", "theirs\ntwo\nthree\n");
        commit(&bench.guest, "theirs");
        write(&bench.here, "file", "one\ntwo\nmine\n");
        commit(&bench.here, "mine");
        bench.export(&base);
        let repository = LocalRepository::find(&bench.here, &Cancel::default()).unwrap();
        let options = ApplyOptions {
            how: way,
            ..ApplyOptions::default()
        };
        let applied = apply(&repository.unwrap(), VM, options).unwrap();
        // What only the driver could merge is told.
        assert_eq!(applied.conflicts, ["file"], "{way:?}");
        assert_nothing_ran(&bench);
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let bench = Bench::with_repository();
    for name in [
        &b".git/hooks/post-checkout"[..],
        b"a/.git/config",
        b".GIT/config",
        b"git~1/config",
        b".gi\xe2\x80\x8ct/config",
        b".git::$INDEX_ALLOCATION/config",
        b"../outside",
        b"a/../../outside",
        b"/etc/passwd",
        b"a//b",
        b"a\0b",
        b"",
    ] {
        let mut parts = snapshot(&bench, Vec::new(), Vec::new(), vec![file(name, 1)]);
        parts.push(content(0, b"x"));
        let error = refused(&bench, ended(parts));
        assert_eq!(
            error.reason(),
            "WORKSPACE_UNSAFE",
            "{}",
            name.escape_ascii()
        );
    }
}

#[test]
fn trees_with_names_of_git_are_refused() {
    let (bench, _) = prepared();
    let guest = &bench.guest;
    let blob = object(guest, "blob", b"x");
    for name in [
        &b".git"[..],
        b".GIT",
        b"git~1",
        b"..",
        b".",
        b"a/b",
        b".g\xe2\x80\x8cit",
        b"",
    ] {
        let tree = tree_with(guest, "100644", name, &blob);
        let commit = commit_of(guest, &tree);
        let pack = pack_of(guest, &[&blob, &tree, &commit]);
        let refs = vec![reference("refs/heads/evil", &commit)];
        let error = refused(&bench, ended(snapshot(&bench, refs, pack, Vec::new())));
        assert_eq!(
            error.reason(),
            "WORKSPACE_OBJECTS_REFUSED",
            "{}",
            name.escape_ascii()
        );
    }
}

#[test]
fn submodules_that_lead_elsewhere_are_refused() {
    let (bench, _) = prepared();
    let guest = &bench.guest;
    for modules in [
        "[submodule \"../../evil\"]\n\tpath = sub\n\turl = https://example.com/x\n",
        "[submodule \"sub\"]\n\tpath = -evil\n\turl = https://example.com/x\n",
        "[submodule \"sub\"]\n\tpath = sub\n\turl = -u./program\n",
        "[submodule \"sub\"]\n\tpath = sub\n\turl = x\n\tupdate = !./program\n",
    ] {
        let blob = object(guest, "blob", modules.as_bytes());
        let tree = tree_with(guest, "100644", b".gitmodules", &blob);
        let commit = commit_of(guest, &tree);
        let pack = pack_of(guest, &[&blob, &tree, &commit]);
        let refs = vec![reference("refs/heads/evil", &commit)];
        let error = refused(&bench, ended(snapshot(&bench, refs, pack, Vec::new())));
        assert_eq!(error.reason(), "WORKSPACE_OBJECTS_REFUSED", "{modules}");
    }
    let link = object(guest, "blob", b"/etc/passwd");
    let tree = tree_with(guest, "120000", b".gitmodules", &link);
    let commit = commit_of(guest, &tree);
    let pack = pack_of(guest, &[&link, &tree, &commit]);
    let refs = vec![reference("refs/heads/evil", &commit)];
    refused(&bench, ended(snapshot(&bench, refs, pack, Vec::new())));
}

#[test]
fn references_with_names_that_are_none_are_refused() {
    let bench = Bench::with_repository();
    let head = git(&bench.here, &["rev-parse", "HEAD"]);
    for name in [
        "refs/../config",
        "refs/heads/../../x",
        "HEAD",
        "refs/heads/a.lock",
        "refs/heads/-\n",
        "refs//x",
        "config",
    ] {
        let refs = vec![reference(name, &head)];
        refused(
            &bench,
            ended(snapshot(&bench, refs, Vec::new(), Vec::new())),
        );
    }
}

#[test]
fn packs_that_are_damaged_or_promise_too_much_are_refused() {
    let (bench, _) = prepared();
    let guest = &bench.guest;
    let blob = object(guest, "blob", &b"some content\n".repeat(50));
    let tree = tree_with(guest, "100644", b"x", &blob);
    let commit = commit_of(guest, &tree);
    let whole = pack_of(guest, &[&blob, &tree, &commit]);
    let refs = || vec![reference("refs/heads/new", &commit)];
    let lands = |pack: Vec<u8>| refused(&bench, ended(snapshot(&bench, refs(), pack, Vec::new())));
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    lands(flipped);
    lands(whole[..whole.len() - 10].to_vec());
    lands(b"not a pack at all, but long enough to be looked at".to_vec());
    // The object that the commit leads to is missing.
    lands(pack_of(guest, &[&commit]));
    lands(pack_of(guest, &[&tree, &commit]));
    // A header that promises 100 GB: as a blob, as a tree, as a commit.
    for kind in [3_u8, 2, 1] {
        let mut pack = b"PACK\0\0\0\x02\0\0\0\x01".to_vec();
        let mut size: u64 = 100_000_000_000;
        let mut byte = (kind << 4) | u8::try_from(size & 0xf).unwrap();
        size >>= 4;
        while size > 0 {
            pack.push(byte | 0x80);
            byte = u8::try_from(size & 0x7f).unwrap();
            size >>= 7;
        }
        pack.push(byte);
        pack.extend([0x78, 0x9c, 0x03, 0, 0, 0, 0, 1]);
        pack.extend([0; 20]);
        lands(pack);
    }
    // And it lands where it is whole.
    let parts = ended(snapshot(&bench, refs(), whole, Vec::new()));
    land(&bench.place(), &Base::default(), parts).unwrap();
    let landed = git_bytes(
        &bench.here,
        &["cat-file", "blob", "refs/banger/dev/heads/new:x"],
    );
    assert_eq!(landed, b"some content\n".repeat(50));
}

#[test]
fn more_than_may_come_is_refused() {
    let (bench, _) = prepared();
    let guest = &bench.guest;
    let blob = object(guest, "blob", &vec![0; 4 << 20]);
    let tree = tree_with(guest, "100644", b"x", &blob);
    let commit = commit_of(guest, &tree);
    let pack = pack_of(guest, &[&blob, &tree, &commit]);
    let refs = vec![reference("refs/heads/new", &commit)];
    let limited = |limits: Limits, parts: Vec<Part>| -> Result<()> {
        let mut landing = Landing::begin(&bench.place(), VM, &Base::default(), limits)?;
        for part in parts {
            landing.part(part)?;
        }
        landing.finish().map(drop)
    };
    let parts = ended(snapshot(&bench, refs, pack, Vec::new()));
    // It is small as it comes, and large when it is unpacked.
    let limits = Limits {
        object_bytes: 1 << 20,
        ..Limits::default()
    };
    assert_eq!(
        limited(limits, parts.clone()).unwrap_err().reason(),
        "WORKSPACE_UNSAFE"
    );
    let limits = Limits {
        bytes: 100,
        ..Limits::default()
    };
    assert!(limited(limits, parts.clone()).is_err());
    limited(Limits::default(), parts).unwrap();
    let promised = snapshot(
        &bench,
        Vec::new(),
        Vec::new(),
        vec![file(b"huge", 100_000_000_000)],
    );
    assert!(limited(Limits::default(), ended(promised)).is_err());
}

#[test]
fn contents_must_be_what_their_digests_say() {
    let bench = Bench::with_repository();
    let mut parts = snapshot(&bench, Vec::new(), Vec::new(), vec![file(b"new", 3)]);
    parts.push(part(Piece::Content(Content {
        entry: 0,
        data: "abc".into(),
        is_last: true,
        sha256: vec![0; 32].into(),
    })));
    refused(&bench, ended(parts));
}

#[test]
fn a_file_whose_content_does_not_come_is_told() {
    let bench = Bench::with_repository();
    let parts = ended(snapshot(
        &bench,
        Vec::new(),
        Vec::new(),
        vec![file(b"new", 3)],
    ));
    let landed = land(&bench.place(), &Base::default(), parts).unwrap();
    assert!(landed.has_loss());
    assert_eq!(&landed.notes[0].path[..], b"new");
}

#[test]
fn links_and_repositories_of_the_vm_lead_nowhere() {
    let (bench, base) = prepared();
    let guest = &bench.guest;
    symlink("/etc", guest.join("etc")).unwrap();
    symlink("../../here/.git", guest.join("their-git")).unwrap();
    std::fs::create_dir(guest.join("nested")).unwrap();
    git(&guest.join("nested"), &["init", "-q", "-b", "main"]);
    write(&guest.join("nested"), "inside", "x\n");
    let inside = commit(&guest.join("nested"), "inside");
    // Alternates of the VM name files of this machine to it, and nothing to us.
    let objects = bench.here.join(".git/objects");
    write(
        &guest.join("nested"),
        ".git/objects/info/alternates",
        format!("{}\n", objects.display()),
    );
    let before = tree(&bench.here);
    let landed = bench.export(&base);
    assert_eq!(tree(&bench.here), before);
    let nested = landed
        .repositories
        .iter()
        .find(|one| one.path == b"nested")
        .unwrap();
    assert!(nested.is_own_store);
    assert_eq!(nested.head, inside);
    assert_eq!(
        git(&nested.store, &["rev-parse", "refs/banger/dev/heads/main"]),
        inside
    );
    let link = git_bytes(
        &bench.here,
        &["cat-file", "blob", "refs/banger/dev/state/tree:etc"],
    );
    assert_eq!(link, b"/etc");
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

#[test]
fn what_lies_behind_a_link_is_written_neither_by_landing_nor_by_applying() {
    let bench = Bench::with_repository();
    let outside = outside(&bench);
    git(&bench.here, &["tag", "start"]);
    let link = Entry {
        path: "dir".into(),
        kind: EntryKind::Symlink.into(),
        mode: 0o777,
        link_target: outside.as_os_str().as_encoded_bytes().to_vec().into(),
        ..Entry::default()
    };
    let entries = vec![link, file(b"dir/x", 1)];
    let mut parts = snapshot(&bench, Vec::new(), Vec::new(), entries);
    parts.push(content(1, b"x"));
    if land(&bench.place(), &Base::default(), ended(parts)).is_ok() {
        all_ways(&bench);
    }
    // The owner has such a link, and the VM has a directory in its place.
    symlink(&outside, bench.here.join("link")).unwrap();
    commit(&bench.here, "a link");
    git(&bench.here, &["tag", "-f", "start"]);
    let (_, base) = bench.prepare(&Options::default());
    std::fs::remove_file(bench.guest.join("link")).unwrap();
    write(&bench.guest, "link/committed", "theirs\n");
    commit(&bench.guest, "a directory");
    write(&bench.guest, "link/untracked", "theirs\n");
    bench.export(&base);
    all_ways(&bench);
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn submodules_that_lead_outside_are_only_text() {
    let (bench, base) = prepared();
    let outside = outside(&bench);
    git(&bench.here, &["tag", "start"]);
    let guest = &bench.guest;
    let modules = "[submodule \"sub\"]\n\tpath = ../outside\n\turl = ../../outside\n[submodule \"x/../../y\"]\n\tpath = y\n\turl = ./y\n";
    for modules in [&modules[..modules.find("[submodule \"x").unwrap()], modules] {
        write(guest, ".gitmodules", modules);
        let head = git(guest, &["rev-parse", "HEAD"]);
        let link = format!("160000,{head},sub");
        git(guest, &["add", ".gitmodules"]);
        git(guest, &["update-index", "--add", "--cacheinfo", &link]);
        git(guest, &["commit", "-q", "-m", "modules"]);
        let known = bench.place().base(VM, &base).unwrap();
        let parts = bench.exported(&known).unwrap();
        match land(&bench.place(), &known, parts) {
            Ok(_) => all_ways(&bench),
            Err(error) => assert_eq!(error.reason(), "WORKSPACE_OBJECTS_REFUSED"),
        }
    }
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
    assert!(!bench.here.join(".git/modules").exists());
    assert!(!bench.directory.path().join("y").exists());
}

#[test]
fn a_repository_that_does_not_say_so_is_only_files() {
    let (bench, base) = prepared();
    let trap = trap(&bench);
    git(&bench.here, &["tag", "start"]);
    // Whoever runs git in `bare` is in a repository of the VM's making.
    let bare = bench.guest.join("bare");
    git(&bench.guest, &["init", "-q", "--bare", "bare"]);
    for setting in ["core.fsmonitor", "core.sshCommand", "core.pager"] {
        git(&bare, &["config", setting, &trap]);
    }
    git(&bare, &["config", "core.bare", "false"]);
    git(&bare, &["config", "core.worktree", ".."]);
    write(&bare, "refs/kept", "");
    write(&bare, "objects/kept", "");
    commit(&bench.guest, "bare");
    // A file that leads git to the owner's own repository, and a link that does.
    let own = bench.here.join(".git");
    std::fs::create_dir(bench.guest.join("elsewhere")).unwrap();
    let leads = format!("gitdir: {}\n", own.display());
    write(&bench.guest.join("elsewhere"), ".git", leads);
    std::fs::create_dir(bench.guest.join("linked")).unwrap();
    symlink(&own, bench.guest.join("linked/.git")).unwrap();
    let _ = std::fs::remove_file(bench.directory.path().join("ran"));
    let landed = bench.export(&base);
    for repository in &landed.repositories[1..] {
        assert!(repository.is_own_store, "{repository:?}");
    }
    all_ways(&bench);
    let repository = LocalRepository::find(&bench.here, &Cancel::default()).unwrap();
    apply(&repository.unwrap(), VM, ApplyOptions::default()).unwrap();
    assert!(bench.here.join("bare/config").exists());
    bench.export(&base);
    assert_nothing_ran(&bench);
}
