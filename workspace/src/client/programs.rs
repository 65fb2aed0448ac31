//! Programs that the owner's configuration names: they may be files of the tree that comes.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use super::error::Result;
use super::lines::{fields, path, text};
use super::repository::{LocalRepository, optional};
use crate::command::Git;

const WHAT: &str = "read the configuration";
/// Links on the way to a file that the kernel follows.
const LINKS_MAX: usize = 40;

/// The same git with no filter and no merge driver of the configuration that it reads now.
pub(super) fn without_programs(mut git: Git) -> Result<Git> {
    let words = [
        "config",
        "-z",
        "--name-only",
        "--get-regexp",
        r"^(filter|merge)\..+\.",
    ];
    let listed = optional(git.run(&words), WHAT)?.unwrap_or_default();
    for name in fields(&listed) {
        let name = text(name);
        let value = match name.rsplit_once('.') {
            Some((_, "clean" | "smudge" | "process")) => "",
            Some((_, "required")) => "false",
            // It tells that it could not merge.
            Some((_, "driver")) => "false",
            _ => continue,
        };
        git = git.with_setting(OsString::from(format!("{name}={value}")));
    }
    Ok(git)
}

/// Files of the working tree that the configuration includes, there or not, and links on the way to them: beneath the
/// top.
pub(super) fn included(repository: &LocalRepository) -> Result<Vec<Vec<u8>>> {
    let words = [
        "config",
        "-z",
        "--show-origin",
        "--type=path",
        "--get-regexp",
        r"^include(if\..+)?\.path$",
    ];
    let listed = optional(repository.git().run(&words), WHAT)?.unwrap_or_default();
    let top = repository.top();
    let mut found = Vec::new();
    let mut fields = fields(&listed);
    while let (Some(origin), Some(setting)) = (fields.next(), fields.next()) {
        let origin = origin.strip_prefix(b"file:");
        let value = setting.splitn(2, |&byte| byte == b'\n').nth(1);
        let (Some(origin), Some(value)) = (origin, value) else {
            continue;
        };
        let from = top.join(path(origin));
        let file = from.parent().unwrap_or(top).join(path(value));
        let beneath = ways(&file).into_iter();
        let beneath = beneath.filter_map(|way| way.strip_prefix(top).map(Path::to_owned).ok());
        found.extend(beneath.map(|way| way.into_os_string().into_vec()));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// A path as it is named, what each link on the way makes of it, and where it leads.
fn ways(path: &Path) -> Vec<PathBuf> {
    let mut ways = vec![without_dots(path)];
    while ways.len() <= LINKS_MAX
        && let Some(next) = ways.last().and_then(|way| past_link(way))
    {
        ways.push(next);
    }
    ways.extend(fs::canonicalize(path));
    ways
}

/// The path behind its first link; none where it has none.
fn past_link(path: &Path) -> Option<PathBuf> {
    let mut parts: Vec<&Path> = path.ancestors().collect();
    parts.reverse();
    parts.into_iter().find_map(|part| {
        let target = fs::read_link(part).ok()?;
        let rest = path.strip_prefix(part).ok()?;
        Some(without_dots(&part.parent()?.join(target).join(rest)))
    })
}

/// The path without `.` and `..`.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}
