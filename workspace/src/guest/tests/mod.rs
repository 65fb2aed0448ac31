//! Trees with real repositories, told, made again and compared.

mod export;
mod processes;
mod restore;
mod status;

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
    Base, BaseRepository, Judge, Note, NoteKind, Part, Piece, RefKind, Repository, RepositoryKind,
    part,
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
                shallow: repository.shallow.clone(),
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
