//! Paths in VMs, as people write them: `VM:PATH`.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;

use banger_sdk::Client;
use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter as _};
use futures::{StreamExt, TryStreamExt};

use crate::complete;

/// The user's home directory.
const HOME: &str = "~";

/// A path in a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VmPath {
    /// The VM's name or id.
    pub(crate) vm: String,
    /// Absolute, or relative to the user's home; without `..`.
    pub(crate) path: String,
}

impl fmt::Display for VmPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.vm, self.path)
    }
}

/// Where a copy begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a VM.
    Vm(VmPath),
    /// On this machine.
    Here(PathBuf),
    /// Standard input or output.
    Stream,
}

/// `VM:PATH`; a path that is not absolute begins at the user's home.
pub(crate) fn vm_path(text: &str) -> Result<VmPath, String> {
    split(text).unwrap_or_else(|| Err(format!("`{text}` is not VM:PATH")))
}

/// `VM:PATH`, `-`, or a path here; one with a colon is written with a slash before it, as `./a:b`.
pub(crate) fn place(text: &str) -> Result<Place, String> {
    match (text, split(text)) {
        ("-", _) => Ok(Place::Stream),
        ("", _) => Err("a path is empty".to_owned()),
        (_, Some(in_vm)) => in_vm.map(Place::Vm),
        (path, None) => Ok(Place::Here(path.into())),
    }
}

/// The two halves of `VM:PATH`; none where there is no colon before the first slash.
fn split(text: &str) -> Option<Result<VmPath, String>> {
    let (vm, path) = text.split_once(':')?;
    if vm.is_empty() || vm.contains('/') {
        return None;
    }
    Some(clean(path).map(|path| VmPath {
        vm: vm.to_owned(),
        path,
    }))
}

/// The path without `..`, which is taken as it reads: the name before it goes.
fn clean(path: &str) -> Result<String, String> {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            ".." if matches!(names.last(), Some(last) if !last.is_empty() && *last != HOME) => {
                names.pop();
            }
            // Above the root is the root.
            ".." if path.starts_with('/') => {}
            ".." => return Err(format!("`{path}` leads out of the home directory")),
            name => names.push(name),
        }
    }
    Ok(match names.join("/") {
        joined if joined.is_empty() && path.starts_with('/') => "/".to_owned(),
        joined if joined.is_empty() => HOME.to_owned(),
        joined => joined,
    })
}

/// Completes `VM:PATH`.
pub(crate) fn complete_vm_path(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(text) = current.to_str() else {
        return Vec::new();
    };
    match text.split_once(':') {
        Some((vm, path)) if !vm.contains('/') => in_vm(vm, path),
        Some(_) => Vec::new(),
        None => vms(text),
    }
}

/// Completes `VM:PATH` and paths here.
pub(crate) fn complete_place(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut found = complete_vm_path(current);
    let is_in_vm = current
        .to_str()
        .and_then(|text| text.split_once(':'))
        .is_some_and(|(vm, _)| !vm.contains('/'));
    if !is_in_vm {
        found.extend(PathCompleter::any().complete(current));
    }
    found
}

fn vms(begin: &str) -> Vec<CompletionCandidate> {
    let names = complete::names(|client| async move {
        let vms = client.vms().list().take(complete::NAMES_MAX);
        vms.map_ok(|vm| vm.spec.unwrap_or_default().name)
            .try_collect()
            .await
    });
    let names = names.into_iter().filter(|name| name.starts_with(begin));
    names
        .map(|name| CompletionCandidate::new(format!("{name}:")))
        .collect()
}

/// What begins like the last name of `path`, in the directory before it.
fn in_vm(vm: &str, path: &str) -> Vec<CompletionCandidate> {
    let (directory, begin) = match path.rsplit_once('/') {
        Some((directory, begin)) => (format!("{directory}/"), begin),
        None => (String::new(), path),
    };
    let asked = match clean(&directory) {
        Ok(asked) => VmPath {
            vm: vm.to_owned(),
            path: asked,
        },
        Err(_) => return Vec::new(),
    };
    let found = complete::names(|client| listed(client, asked));
    let found = found.into_iter().filter(|name| name.starts_with(begin));
    found
        .map(|name| CompletionCandidate::new(format!("{vm}:{directory}{name}")))
        .collect()
}

/// The names in a directory, those of directories with a slash.
async fn listed(client: Client, place: VmPath) -> banger_sdk::Result<Vec<String>> {
    use banger_sdk::types::file_info::Kind;
    let files = client.files(place.vm).list(place.path, 1);
    let files = files.take(complete::NAMES_MAX).map_ok(|file| {
        let slash = match file.kind() {
            Kind::Directory => "/",
            _ => "",
        };
        format!("{}{slash}", file.path)
    });
    let names: Vec<String> = files.try_collect().await?;
    // A shell could not be told such a name on one line.
    let is_plain = |name: &String| !name.chars().any(char::is_control);
    Ok(names.into_iter().filter(is_plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_vm(vm: &str, path: &str) -> Place {
        Place::Vm(VmPath {
            vm: vm.into(),
            path: path.into(),
        })
    }

    #[test]
    fn places_are_told_apart_as_with_docker() {
        for (text, expected) in [
            ("web:/etc/hosts", in_vm("web", "/etc/hosts")),
            ("web:", in_vm("web", "~")),
            ("web:/", in_vm("web", "/")),
            ("web:a/b/", in_vm("web", "a/b/")),
            ("web:~/x", in_vm("web", "~/x")),
            ("web:/a/../b", in_vm("web", "/b")),
            ("web:/..", in_vm("web", "/")),
            ("web:a/..", in_vm("web", "~")),
            ("web:/a:b", in_vm("web", "/a:b")),
            ("./a:b", Place::Here("./a:b".into())),
            ("/a:b", Place::Here("/a:b".into())),
            ("a", Place::Here("a".into())),
            (":a", Place::Here(":a".into())),
            ("-", Place::Stream),
        ] {
            assert_eq!(place(text).unwrap(), expected, "{text}");
        }
        for text in ["", "web:..", "web:~/..", "web:a/../.."] {
            assert!(place(text).is_err(), "{text}");
        }
        assert!(vm_path("a/b").is_err());
    }
}
