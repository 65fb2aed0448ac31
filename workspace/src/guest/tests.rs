//! Trees with real repositories, told, made again and compared.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::command::HostLauncher;
use crate::wire::{
    Base, BaseRepository, Judge, Note, NoteKind, Part, Piece, Repository, RepositoryKind, part,
};

fn place(path: &Path) -> Place {
    Place {
        launcher: Arc::new(HostLauncher),
        cancel: Cancel::default(),
        path: path.into(),
    }
}

/// Runs git as a user would.
fn git(directory: &Path, words: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .env_clear()
        .envs([("PATH", std::env::var("PATH").unwrap())])
        .envs([
            ("HOME", "/nonexistent"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_EDITOR", "true"),
        ])
        .args([
            "-c",
            "user.name=Ann",
            "-c",
            "user.email=ann@example.com",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(words)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

fn fails(directory: &Path, words: &[&str]) {
    let status = Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"])
        .args(words)
        .output()
        .unwrap();
    assert!(!status.status.success());
}

fn told(path: &Path, request: &Export) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut judge = Judge::default();
    export(&place(path), request, &mut |part| {
        judge.part(&part).unwrap();
        parts.push(part);
        true
    })
    .unwrap();
    judge.end().unwrap();
    parts
}

fn notes(parts: &[Part]) -> Vec<&Note> {
    let notes = parts.iter().filter_map(|part| match &part.part {
        Some(Piece::Note(note)) => Some(note),
        _ => None,
    });
    notes.collect()
}

fn losses(parts: &[Part]) -> Vec<(NoteKind, String)> {
    let losses = notes(parts).into_iter().filter(|note| note.is_loss);
    losses
        .map(|note| {
            (
                note.kind(),
                String::from_utf8_lossy(&note.path).into_owned(),
            )
        })
        .collect()
}

fn state(parts: &[Part]) -> Bytes {
    match &parts.last().unwrap().part {
        Some(Piece::End(end)) => end.state.clone(),
        other => panic!("{other:?}"),
    }
}

/// Everything that a snapshot has, as the base of a later one.
fn base(parts: &[Part]) -> Base {
    let mut base = Base::default();
    for part in parts {
        match &part.part {
            Some(Piece::Repository(repository)) => base.repositories.push(BaseRepository {
                path: repository.path.clone(),
                commits: vec![repository.head_commit.clone()]
                    .into_iter()
                    .filter(|id| !id.is_empty())
                    .collect(),
                head_commit: repository.head_commit.clone(),
            }),
            Some(Piece::Refs(refs)) => {
                let commits = refs.refs.iter().map(|found| found.object_id.clone());
                base.repositories
                    .last_mut()
                    .unwrap()
                    .commits
                    .extend(commits);
            }
            _ => {}
        }
    }
    base
}

/// Makes a tree of parts, of which only the contents are sent that are asked for.
fn made(path: &Path, request: &Restore, parts: Vec<Part>) -> Result<(Restored, u64), WorkError> {
    let mut parts: VecDeque<Part> = parts.into();
    let needed = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let mut sent = 0;
    let restored = restore(
        &place(path),
        request,
        &mut || loop {
            let part = parts.pop_front()?;
            match &part.part {
                Some(Piece::Content(content))
                    if !needed.lock().unwrap().contains(&content.entry) => {}
                Some(Piece::Content(content)) => {
                    sent += content.data.len() as u64;
                    return Some(part);
                }
                Some(Piece::Pack(pack)) => {
                    sent += pack.data.len() as u64;
                    return Some(part);
                }
                _ => return Some(part),
            }
        },
        &mut |answer| {
            if let Answer::Needed(some) = answer {
                needed.lock().unwrap().extend(some.entries);
            }
            true
        },
    )?;
    Ok((restored, sent))
}

/// Whatever is in a tree but `.git`: mode, and content or target.
fn content(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![root.to_path_buf()];
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name() == Some(OsStr::new(".git")) {
                continue;
            }
            let stat = fs::symlink_metadata(&path).unwrap();
            let bytes = if stat.is_dir() {
                ahead.push(path.clone());
                Vec::new()
            } else if stat.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_vec()
            } else {
                fs::read(&path).unwrap()
            };
            let mode = if stat.is_symlink() {
                0
            } else {
                stat.permissions().mode()
            };
            found.insert(path.strip_prefix(root).unwrap().into(), (mode, bytes));
        }
    }
    found
}

fn assert_same(a: &Path, b: &Path) {
    assert_eq!(content(a), content(b));
    let mut repositories = vec![PathBuf::new()];
    repositories.extend(nested(a, Path::new("")));
    for repository in repositories {
        let (a, b) = (a.join(&repository), b.join(&repository));
        for words in [
            &[
                "for-each-ref",
                "--format=%(objectname) %(refname) %(symref)",
            ][..],
            &[
                "status",
                "--porcelain=v2",
                "--branch",
                "--untracked-files=all",
                "--ignore-submodules=all",
            ],
            &["ls-files", "--stage"],
        ] {
            // Which branch a branch follows is configuration, and stays.
            let told = |at: &Path| {
                let text = git(at, words);
                let lines = text.lines().filter(|line| {
                    !line.starts_with("# branch.upstream") && !line.starts_with("# branch.ab")
                });
                lines.map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(told(&a), told(&b), "{repository:?} {words:?}");
        }
        // One without a commit has nothing to check.
        if b.join(".git/refs/heads")
            .read_dir()
            .is_ok_and(|mut heads| heads.next().is_some())
        {
            git(&b, &["fsck", "--full", "--strict"]);
        }
    }
}

fn nested(root: &Path, at: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(at)).unwrap() {
        let entry = entry.unwrap();
        let path = at.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() && entry.file_name() != ".git" {
            if root.join(&path).join(".git").exists() {
                found.push(path.clone());
            }
            found.extend(nested(root, &path));
        }
    }
    found
}

fn write(path: PathBuf, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A repository with history, and work of every kind in it.
fn scene(root: &Path) {
    fs::create_dir_all(root).unwrap();
    git(root, &["init", "-q", "-b", "main"]);
    write(root.join("a"), "one\n");
    write(root.join("dir/b"), "two\n");
    write(root.join("gone"), "x\n");
    write(root.join("run"), "#!/bin/sh\n");
    fs::set_permissions(root.join("run"), PermissionsExt::from_mode(0o755)).unwrap();
    symlink("dir/b", root.join("link")).unwrap();
    write(root.join(OsStr::from_bytes(b"caf\xe9")), "latin\n");
    write(root.join(".gitignore"), "*.o\n/build/\n");
    git(root, &["add", "."]);
    git(root, &["commit", "-q", "-m", "first"]);
    git(root, &["branch", "side"]);
    write(root.join("a"), "one\nmore\n");
    git(root, &["commit", "-q", "-a", "-m", "second"]);
    git(root, &["checkout", "-q", "side"]);
    write(root.join("c"), vec![0, 1, 2, 255]);
    git(root, &["add", "c"]);
    git(root, &["commit", "-q", "-m", "third"]);
    git(root, &["checkout", "-q", "main"]);
    git(root, &["merge", "-q", "--no-edit", "side"]);
    git(root, &["tag", "-a", "-m", "v1", "v1"]);
    git(root, &["tag", "light"]);
}

fn work(root: &Path) {
    write(root.join("a"), "one\nmore\nand more\n");
    git(root, &["add", "a"]);
    write(root.join("a"), "one\nmore\nand more\nand not staged\n");
    write(root.join("new"), "new\n");
    write(root.join("staged"), "staged\n");
    git(root, &["add", "staged"]);
    fs::remove_file(root.join("staged")).unwrap();
    fs::remove_file(root.join("gone")).unwrap();
    git(root, &["rm", "-q", "--cached", "c"]);
    fs::set_permissions(root.join("dir/b"), PermissionsExt::from_mode(0o755)).unwrap();
    fs::remove_file(root.join("link")).unwrap();
    write(root.join("link/now/a"), "directory\n");
    fs::create_dir_all(root.join("empty/deep")).unwrap();
    write(root.join("x.o"), "ignored");
    write(root.join("secret"), "s");
    fs::set_permissions(root.join("secret"), PermissionsExt::from_mode(0o600)).unwrap();
}

#[test]
fn a_repository_with_work_in_it_is_made_again() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    scene(&from);
    git(&from, &["stash", "list"]);
    work(&from);
    let parts = told(&from, &Export::default());
    assert_eq!(losses(&parts), []);
    let sent = state(&parts);
    let (restored, _) = made(&to, &Restore::default(), parts).unwrap();
    fs::remove_file(from.join("x.o")).unwrap();
    assert_same(&from, &to);
    assert_eq!(restored.state[..], sent[..]);
    let left: Vec<_> = fs::read_dir(scratch.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_repeat_sends_what_is_new_and_replaces_only_what_is_as_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    scene(&from);
    work(&from);
    let large: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    write(from.join("large"), &large);
    let (first, sent) = made(&to, &Restore::default(), told(&from, &Export::default())).unwrap();
    assert!(sent > 1_000_000);
    write(to.join("cache.o"), "built in the VM");

    // As it was, and so it may be replaced; ignored files stay.
    write(from.join("small"), "small");
    git(&from, &["commit", "-q", "--allow-empty", "-m", "fourth"]);
    fs::remove_file(from.join("new")).unwrap();
    let request = Restore {
        replaceable_states: vec![Bytes::copy_from_slice(&first.state)],
        ..Restore::default()
    };
    let known = Export {
        base: base(&told(&to, &Export::default())),
        ..Export::default()
    };
    let mut parts = told(&from, &known);
    fill_digests(&mut parts);
    let (second, sent) = made(&to, &request, parts.clone()).unwrap();
    assert!(sent < 10_000, "{sent}");
    assert_eq!(fs::read(to.join("cache.o")).unwrap(), b"built in the VM");
    fs::remove_file(to.join("cache.o")).unwrap();
    fs::remove_file(from.join("x.o")).unwrap();
    assert_same(&from, &to);

    // Something was done: nothing is replaced, unless that is wanted.
    git(&to, &["commit", "-q", "--allow-empty", "-m", "in the VM"]);
    let request = Restore {
        replaceable_states: vec![Bytes::copy_from_slice(&second.state)],
        ..Restore::default()
    };
    let head = git(&to, &["rev-parse", "HEAD"]);
    let refused = made(&to, &request, parts.clone()).unwrap_err();
    assert!(matches!(refused, WorkError::Occupied { .. }), "{refused}");
    assert_eq!(git(&to, &["rev-parse", "HEAD"]), head);
    let request = Restore {
        overwrite: true,
        ..Restore::default()
    };
    made(&to, &request, parts).unwrap();
    assert_same(&from, &to);
}

/// A client tells the digests with the entries.
fn fill_digests(parts: &mut [Part]) {
    let mut digests = Vec::new();
    for part in parts.iter() {
        if let Some(Piece::Content(content)) = &part.part
            && content.is_last
        {
            digests.push(content.sha256.clone());
        }
    }
    let mut digests = digests.into_iter();
    for part in parts {
        if let Some(Piece::Entries(entries)) = &mut part.part {
            for entry in &mut entries.entries {
                if entry.kind() == crate::wire::EntryKind::File {
                    entry.sha256 = digests.next().unwrap();
                }
            }
        }
    }
}

#[test]
fn a_cut_stream_leaves_what_was_there() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    scene(&from);
    work(&from);
    let parts = told(&from, &Export::default());
    for length in 0..parts.len() {
        let cut = made(&to, &Restore::default(), parts[..length].to_vec()).unwrap_err();
        assert!(matches!(cut, WorkError::Gone), "{length}: {cut}");
        assert!(!to.exists());
    }
    let (restored, _) = made(&to, &Restore::default(), parts.clone()).unwrap();
    let before = content(&to);
    let request = Restore {
        replaceable_states: vec![Bytes::copy_from_slice(&restored.state)],
        ..Restore::default()
    };
    write(from.join("a"), "changed\n");
    let parts = told(&from, &Export::default());
    for length in 0..parts.len() {
        made(&to, &request, parts[..length].to_vec()).unwrap_err();
        assert_eq!(content(&to), before);
    }
    made(&to, &request, parts).unwrap();
    fs::remove_file(from.join("x.o")).unwrap();
    assert_same(&from, &to);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
}

#[test]
fn what_no_reference_leads_to_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("work");
    scene(&root);
    let first = base(&told(&root, &Export::default()));
    git(
        &root,
        &["commit", "-q", "--allow-empty", "-m", "amended away"],
    );
    let amended = git(&root, &["rev-parse", "HEAD"]);
    git(
        &root,
        &["commit", "-q", "--amend", "--allow-empty", "-m", "instead"],
    );
    git(&root, &["checkout", "-q", "--detach"]);
    git(&root, &["commit", "-q", "--allow-empty", "-m", "detached"]);
    let detached = git(&root, &["rev-parse", "HEAD"]);
    write(root.join("a"), "stashed\n");
    git(&root, &["stash", "-q"]);
    write(root.join("a"), "stashed later\n");
    git(&root, &["stash", "-q"]);
    git(&root, &["checkout", "-q", "main"]);
    git(&root, &["reset", "-q", "--hard", "HEAD~2"]);
    let request = Export {
        base: first,
        had_git: true,
        max_bytes: 0,
    };
    let parts = told(&root, &request);
    let mut names = Vec::new();
    for part in &parts {
        if let Some(Piece::Refs(refs)) = &part.part {
            let refs = refs.refs.iter();
            names.extend(refs.map(|found| String::from_utf8_lossy(&found.name).into_owned()));
        }
    }
    for name in [&amended, "stash@{0}", "stash@{1}", "refs/stash"] {
        assert!(names.iter().any(|told| told == name), "{name} in {names:?}");
    }
    assert_eq!(losses(&parts), []);

    // Into a repository that has the base alone.
    let other = scratch.path().join("other");
    git(scratch.path(), &["init", "-q", "--bare", "other"]);
    git(
        &other,
        &[
            "fetch",
            "-q",
            root.to_str().unwrap(),
            "refs/tags/v1:refs/tags/v1",
        ],
    );
    let pack: Vec<u8> = parts
        .iter()
        .filter_map(|part| match &part.part {
            Some(Piece::Pack(pack)) => Some(pack.data.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    let file = scratch.path().join("pack");
    fs::write(&file, pack).unwrap();
    let status = Command::new("git")
        .current_dir(&other)
        .args(["index-pack", "--strict", "--stdin", "--fix-thin"])
        .stdin(fs::File::open(file).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    git(&other, &["cat-file", "-e", &amended]);
    git(&other, &["rev-list", "--objects", &detached]);
}

#[test]
fn what_hides_changes_does_not() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("work");
    scene(&root);
    let request = Export {
        base: base(&told(&root, &Export::default())),
        had_git: true,
        max_bytes: 0,
    };
    git(&root, &["update-index", "--assume-unchanged", "a"]);
    git(&root, &["update-index", "--skip-worktree", "dir/b"]);
    git(&root, &["config", "core.fileMode", "false"]);
    git(&root, &["config", "status.showUntrackedFiles", "no"]);
    git(
        &root,
        &[
            "config",
            "core.excludesFile",
            root.join("a").to_str().unwrap(),
        ],
    );
    let trap = scratch.path().join("sprung");
    let hook = scratch.path().join("hook");
    fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", trap.display())).unwrap();
    fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).unwrap();
    git(&root, &["config", "core.fsmonitor", hook.to_str().unwrap()]);
    write(root.join("a"), "*\n");
    write(root.join("dir/b"), "hidden\n");
    write(root.join("untracked"), "hidden\n");
    fs::remove_file(&trap).ok();
    let parts = told(&root, &request);
    let mut paths = Vec::new();
    for part in &parts {
        if let Some(Piece::Entries(entries)) = &part.part {
            let entries = entries.entries.iter();
            paths.extend(entries.map(|entry| String::from_utf8_lossy(&entry.path).into_owned()));
        }
    }
    assert_eq!(paths, ["a", "dir/b", "untracked"]);
    assert!(!trap.exists());
}

#[test]
fn what_cannot_be_taken_is_told_by_path() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("work");
    scene(&root);
    git(&root, &["worktree", "add", "-q", "../elsewhere"]);
    let socket = root.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    write(root.join("dir/GIT~1/config"), "trap");
    write(root.join("promised"), "");
    fs::File::options()
        .write(true)
        .open(root.join("promised"))
        .unwrap()
        .set_len(100 << 30)
        .unwrap();
    write(root.join("broken/.git"), "gitdir: /nonexistent\n");
    fs::write(root.join(".git/index.lock"), "").unwrap();
    let parts = told(&root, &Export::default());
    let losses = losses(&parts);
    for expected in [
        (NoteKind::SpecialFile, "socket"),
        (NoteKind::BadName, "dir/GIT~1"),
        (NoteKind::TooLarge, "promised"),
        (NoteKind::BrokenRepository, "broken"),
    ] {
        let expected = (expected.0, expected.1.to_owned());
        assert!(losses.contains(&expected), "{expected:?} in {losses:?}");
    }
    assert!(
        losses
            .iter()
            .any(|(kind, _)| *kind == NoteKind::LinkedWorktree)
    );
    assert!(
        notes(&parts)
            .iter()
            .any(|note| note.kind() == NoteKind::Locked)
    );
    assert!(state(&parts).len() == 32);
}

#[test]
fn without_git_all_files_are_told() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    write(from.join("a/b/c"), "one");
    write(from.join("run"), "two");
    fs::set_permissions(from.join("run"), PermissionsExt::from_mode(0o700)).unwrap();
    symlink("/etc/passwd", from.join("link")).unwrap();
    fs::create_dir_all(from.join("empty")).unwrap();
    let (first, _) = made(&to, &Restore::default(), told(&from, &Export::default())).unwrap();
    assert_eq!(content(&from), content(&to));
    fs::remove_dir_all(from.join("a")).unwrap();
    fs::remove_file(from.join("link")).unwrap();
    write(from.join("link/now"), "directory");
    write(from.join("d"), "three");
    let request = Restore {
        replaceable_states: vec![Bytes::copy_from_slice(&first.state)],
        ..Restore::default()
    };
    let mut parts = told(&from, &Export::default());
    fill_digests(&mut parts);
    let (_, sent) = made(&to, &request, parts).unwrap();
    assert_eq!(content(&from), content(&to));
    assert_eq!(sent, "directorythree".len() as u64);

    // A repository whose `.git` is gone.
    scene(&scratch.path().join("repository"));
    let repository = scratch.path().join("repository");
    let request = Export {
        base: base(&told(&repository, &Export::default())),
        had_git: true,
        max_bytes: 0,
    };
    fs::remove_dir_all(repository.join(".git")).unwrap();
    let parts = told(&repository, &request);
    assert_eq!(losses(&parts), [(NoteKind::GitRemoved, String::new())]);
    made(&scratch.path().join("copy"), &Restore::default(), parts).unwrap();
    assert_eq!(content(&repository), content(&scratch.path().join("copy")));
}

#[test]
fn a_merge_in_conflict_is_told_and_gone_on_with() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    scene(&from);
    git(&from, &["checkout", "-q", "-b", "other"]);
    write(from.join("a"), "theirs\n");
    git(&from, &["commit", "-q", "-a", "-m", "theirs"]);
    git(&from, &["checkout", "-q", "main"]);
    write(from.join("a"), "ours\n");
    git(&from, &["commit", "-q", "-a", "-m", "ours"]);
    fails(&from, &["merge", "-q", "other"]);
    let parts = told(&from, &Export::default());
    let own = parts.iter().find_map(|part| match &part.part {
        Some(Piece::Repository(repository)) => Some(repository.unfinished.clone()),
        _ => None,
    });
    assert_eq!(own.unwrap().len(), 1);
    made(&to, &Restore::default(), parts).unwrap();
    assert_same(&from, &to);
    write(to.join("a"), "both\n");
    git(&to, &["commit", "-q", "-a", "-m", "merged"]);
    assert_eq!(
        git(&to, &["rev-list", "--count", "--merges", "HEAD~1..HEAD"]),
        "1"
    );
}

#[test]
fn submodules_and_repositories_inside_come_along() {
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    let library = scratch.path().join("library");
    scene(&library);
    scene(&from);
    git(
        &from,
        &[
            "submodule",
            "--quiet",
            "add",
            library.to_str().unwrap(),
            "lib/sub",
        ],
    );
    git(&from, &["commit", "-q", "-m", "submodule"]);
    write(from.join("lib/sub/a"), "changed in the submodule\n");
    let inside = from.join("inside");
    scene(&inside);
    fs::create_dir(from.join("unborn")).unwrap();
    git(&from.join("unborn"), &["init", "-q", "-b", "main"]);
    write(from.join("unborn/file"), "x");
    let parts = told(&from, &Export::default());
    assert_eq!(losses(&parts), []);
    made(&to, &Restore::default(), parts).unwrap();
    assert_same(&from, &to);
    assert_eq!(
        git(&to, &["submodule", "status", "--cached"])
            .split_whitespace()
            .nth(1),
        Some("lib/sub")
    );
}

#[test]
fn a_snapshot_with_names_that_lead_elsewhere_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let to = scratch.path().join("to");
    for name in [
        "../out",
        "/etc/x",
        "a/../../out",
        ".git/hooks/x",
        "a/.GIT/config",
        "GIT~1/x",
    ] {
        let own = Repository {
            kind: RepositoryKind::Plain.into(),
            ..Repository::default()
        };
        let entry = crate::wire::Entry {
            path: Bytes::copy_from_slice(name.as_bytes()),
            kind: crate::wire::EntryKind::File.into(),
            mode: 0o644,
            ..crate::wire::Entry::default()
        };
        let entries = crate::wire::Entries {
            entries: vec![entry],
        };
        let parts = vec![part(Piece::Repository(own)), part(Piece::Entries(entries))];
        let refused = made(&to, &Restore::default(), parts).unwrap_err();
        assert!(matches!(refused, WorkError::Snapshot(_)), "{refused}");
    }
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn status_counts_what_an_export_would_bring() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("work");
    scene(&root);
    let request = StatusRequest {
        base: base(&told(&root, &Export::default())),
        had_git: true,
    };
    let own = |status: crate::wire::Status| status.repositories.into_iter().next().unwrap();
    let before = own(status(&place(&root), &request).unwrap());
    assert_eq!((before.ahead_count, before.new_commit_count), (0, 0));
    assert!(before.changed_paths.is_empty());
    git(&root, &["commit", "-q", "--allow-empty", "-m", "one"]);
    git(&root, &["commit", "-q", "--allow-empty", "-m", "two"]);
    work(&root);
    let after = own(status(&place(&root), &request).unwrap());
    assert_eq!((after.ahead_count, after.behind_count), (2, 0));
    assert_eq!(after.new_commit_count, 2);
    assert_eq!(after.staged_count, 3);
    assert_eq!(after.untracked_count, 4);
    assert!(after.object_bytes > 0 && after.file_bytes > 0);
    git(&root, &["reset", "-q", "--hard", "HEAD~3"]);
    let reset = own(status(&place(&root), &request).unwrap());
    assert_eq!((reset.ahead_count, reset.new_commit_count), (0, 2));
    assert!(reset.behind_count > 0);
    assert!(
        !status(&place(&scratch.path().join("none")), &request)
            .unwrap()
            .exists
    );
}
