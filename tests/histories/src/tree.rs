//! Trees, for comparisons.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::git::git_bytes;

/// Of each path what it is, and its content or target.
pub type Tree = BTreeMap<OsString, (String, Vec<u8>)>;

/// What is at a path: files, programs, links, and directories that are empty.
#[must_use]
pub fn tree(top: &Path) -> Tree {
    let mut found = Tree::new();
    walk(top, Path::new(""), &mut found);
    found
}

fn walk(top: &Path, inside: &Path, found: &mut Tree) {
    for entry in std::fs::read_dir(top.join(inside)).unwrap() {
        let name = entry.unwrap().file_name();
        if name == ".git" {
            continue;
        }
        let at = inside.join(&name);
        let full = top.join(&at);
        let metadata = full.symlink_metadata().unwrap();
        let key = at.as_os_str().to_owned();
        if metadata.is_dir() {
            let before = found.len();
            walk(top, &at, found);
            if found.len() == before {
                found.insert(key, ("directory".to_owned(), Vec::new()));
            }
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(full).unwrap();
            let target = target.as_os_str().as_bytes().to_vec();
            found.insert(key, ("link".to_owned(), target));
        } else {
            let is_executable = metadata.permissions().mode() & 0o100 != 0;
            let kind = if is_executable { "program" } else { "file" };
            found.insert(key, (kind.to_owned(), std::fs::read(full).unwrap()));
        }
    }
}

/// The same, without what the rules of [`crate::Case::settle`] ignore.
#[must_use]
pub fn without_ignored(top: &Path) -> Tree {
    let mut found = tree(top);
    found.retain(|name, _| {
        !name.as_bytes().starts_with(b"ignored/") && !name.as_bytes().ends_with(b".o")
    });
    found
}

/// A tree in a repository, without repositories inside.
#[must_use]
pub fn in_git(top: &Path, name: &str) -> Tree {
    let listed = git_bytes(top, &["ls-tree", "-r", "-z", name]);
    let lines = listed.split(|&byte| byte == 0);
    let mut found = Tree::new();
    for line in lines.filter(|line| !line.is_empty()) {
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

/// Two trees have the same paths, each the same kind and bytes.
pub fn assert_same(one: &Tree, other: &Tree, told: &str, during: &str) {
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
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
