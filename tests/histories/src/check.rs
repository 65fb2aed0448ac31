//! What must be the same where a repository was carried.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::git::{git, git_bytes, git_into, try_git};
use crate::history::Situation;
use crate::tree::{Tree, assert_same, in_git, tree, without_ignored};

/// A repository that came back.
#[derive(Debug, Clone)]
pub struct Came {
    /// Its place beneath the workspace; empty for the workspace's own.
    pub path: Vec<u8>,
    /// The git directory that has it.
    pub store: PathBuf,
}

/// Every reference with what it leads to.
#[must_use]
pub fn refs(top: &Path) -> BTreeMap<String, String> {
    let listed = git(top, &["for-each-ref", "--format=%(refname) %(objectname)"]);
    let pairs = listed.lines().filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .collect()
}

/// The VM has the same files, the same status, the same references.
pub fn check_prepared(here: &Path, guest: &Path, told: &str) {
    assert_same(&without_ignored(here), &tree(guest), told, "prepare");
    for words in [
        &["status", "--porcelain=v1", "-z"][..],
        &["rev-parse", "HEAD"],
        &["symbolic-ref", "-q", "HEAD"],
    ] {
        assert_eq!(
            try_git(here, words),
            try_git(guest, words),
            "{told}: {words:?}"
        );
    }
    let mine = refs(here);
    let theirs = refs(guest);
    for (name, id) in mine.iter().filter(|(name, _)| *name != "refs/stash") {
        assert_eq!(theirs.get(name), Some(id), "{told}: {name}");
    }
}

/// All that came from `vm`, whose workspace is `guest`, is what was there: commits, references, what was staged, files.
pub fn check_landed(guest: &Path, vm: &str, came: &[Came], told: &str) {
    for repository in came {
        let place = OsString::from_vec(repository.path.clone());
        let told = format!("{told}, in {place:?}");
        let there = guest.join(&place);
        let store = &repository.store;
        let own = refs(store);
        git(store, &["fsck", "--strict", "--connectivity-only"]);
        let is_git = there.join(".git").exists();
        if is_git {
            check_history(&there, store, vm, &own, &told);
        }
        let head = try_git(&there, &["rev-parse", "--verify", "-q", "HEAD"]).ok();
        let head = head.filter(|_| is_git);
        let state = own.get(&format!("refs/banger/{vm}/state/tree"));
        let state = state.or(head.as_ref());
        let landed = state.map_or_else(Tree::new, |state| in_git(store, state));
        let mut files = match is_git {
            true => without_ignored(&there),
            false => tree(&there),
        };
        let inside = |name: &OsString| {
            let name = [place.as_bytes(), b"/", name.as_bytes()].concat();
            let name = name.strip_prefix(b"/").unwrap_or(&name).to_vec();
            let mut others = came.iter().map(|other| &other.path[..]);
            others.any(|other| {
                other.len() > place.len()
                    && (name == other || name.starts_with(&[other, &b"/"[..]].concat()))
            })
        };
        files.retain(|name, (kind, _)| kind != "directory" && !inside(name));
        // Line ends that git makes of an object, and takes for it, do not come: they are made again.
        if let (true, Some(state)) = (is_git, state) {
            let id = |name: &OsStr| {
                let object = [state.as_bytes(), b":", name.as_bytes()].concat();
                git(
                    store,
                    &[OsStr::new("rev-parse"), OsStr::from_bytes(&object)],
                )
            };
            take_for_same(&mut files, &landed, |name| object(&there, name) == id(name));
        }
        assert_same(&landed, &files, &told, "export");
    }
}

/// After a workspace was applied `here`, its own repository is there as in the VM: the commit, what is staged, the files.
pub fn check_applied(here: &Path, guest: &Path, came: &[Came], told: &str) {
    let head = ["rev-parse", "HEAD"];
    assert_eq!(git(here, &head), git(guest, &head), "{told}: applied");
    let staged = ["write-tree"];
    assert_eq!(
        git(here, &staged),
        git(guest, &staged),
        "{told}: what was staged, applied"
    );
    let own = |top: &Path| {
        let mut files = without_ignored(top);
        files.retain(|name, (kind, _)| {
            let name = name.as_bytes();
            let inside = came.iter().map(|one| &one.path[..]);
            let mut inside = inside.filter(|path| !path.is_empty());
            kind != "directory" && !inside.any(|at| name.starts_with(&[at, &b"/"[..]].concat()))
        });
        files
    };
    let (mut mine, theirs) = (own(here), own(guest));
    take_for_same(&mut mine, &theirs, |name| {
        object(here, name) == object(guest, name)
    });
    assert_same(&mine, &theirs, told, "apply");
}

/// A patch of all that came leads from what was carried to the files as they are in the VM.
pub fn check_patch(store: &Path, vm: &str, scratch: &Path, patch: &[u8], told: &str) {
    let name = |name: &str| format!("refs/banger/{vm}/{name}");
    let base = git(store, &["cat-file", "blob", &name("state/landing:base")]);
    let own = refs(store);
    let tree = own.get(&name("state/tree"));
    let tree = tree.or_else(|| own.get(&name("HEAD")));
    let tree = tree.map_or_else(|| base.clone(), String::clone);
    let index = scratch.join("index of a patch");
    git_into(store, &index, &["read-tree", &base], b"");
    if !patch.is_empty() {
        git_into(store, &index, &["apply", "--cached"], patch);
    }
    let made = git_into(store, &index, &["write-tree"], b"");
    let tree = git(store, &["rev-parse", &format!("{tree}^{{tree}}")]);
    assert_eq!(made, tree, "{told}: the patch");
    std::fs::remove_file(index).unwrap();
}

/// What git makes of a file.
fn object(top: &Path, name: &OsStr) -> String {
    git(top, &[OsStr::new("hash-object"), OsStr::new("--"), name])
}

/// Bytes that differ from those of `other`, and are the same to git, are taken for them.
fn take_for_same(files: &mut Tree, other: &Tree, is_same: impl Fn(&OsStr) -> bool) {
    for (name, found) in files.iter_mut() {
        if let Some(other) = other.get(name)
            && other != found
            && other.0 == found.0
            && is_same(name)
        {
            found.1.clone_from(&other.1);
        }
    }
}

/// Every commit, every reference, and what was staged or in conflict.
fn check_history(guest: &Path, store: &Path, vm: &str, own: &BTreeMap<String, String>, told: &str) {
    for (name, id) in refs(guest) {
        if name == "refs/stash" {
            continue;
        }
        let rest = name.strip_prefix("refs/").unwrap();
        let landed = own.get(&format!("refs/banger/{vm}/{rest}"));
        let landed = landed.or_else(|| own.get(&name));
        assert_eq!(landed, Some(&id), "{told}: {name}");
    }
    if let Ok(stash) = try_git(guest, &["stash", "list", "--format=%H"]) {
        for (number, id) in stash.lines().enumerate() {
            let name = format!("refs/banger/{vm}/stash/{number}");
            let landed = own.get(&name).map(String::as_str);
            assert_eq!(landed, Some(id), "{told}: {name}");
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
    let landed = own.get(&format!("refs/banger/{vm}/HEAD"));
    assert_eq!(landed, head.as_ref(), "{told}");
    let prefix = format!("refs/banger/{vm}/state");
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

/// Whether a case was left so that its work can be applied as it is: on commits, with nothing unfinished, and in the
/// repository that was carried.
#[must_use]
pub fn is_appliable(situation: Situation) -> bool {
    matches!(
        situation,
        Situation::Usual
            | Situation::Locked
            | Situation::Detached
            | Situation::Packed
            | Situation::RepositoryInside
            | Situation::InSubmodule
    )
}
