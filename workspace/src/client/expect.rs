//! Which files an apply would find changed on both sides, from what a VM says of its workspace and nothing else.
//!
//! Files that both sides changed need not conflict: git merges what lies apart. Those that neither is in do not conflict.

use std::collections::BTreeSet;

use super::error::{Error, Result};
use super::land::Place;
use super::lines::{fields, path, shown};
use super::programs::without_programs;
use super::repository::LocalRepository;
use crate::wire::limits::STATUS_PATHS_MAX;
use crate::wire::{Base, RepositoryStatus, Status};

/// Files that both sides changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Beneath the workspace, escaped, in order.
    pub paths: Vec<String>,
    /// They were looked for: of a directory without git they are not.
    pub is_compared: bool,
    /// The VM told only some of its files: there may be more.
    pub is_partial: bool,
}

/// Compares what `status` says with the repository at `place`. `base` is what both began from.
///
/// # Errors
/// If git cannot be asked.
pub fn expected_conflicts(place: &Place, base: &Base, status: &Status) -> Result<Expected> {
    let mut expected = Expected {
        is_compared: place.repository().is_some(),
        ..Expected::default()
    };
    for told in &status.repositories {
        let Some(here) = place.repository_at(&told.path)? else {
            continue;
        };
        let head = base.repositories.iter().find(|one| one.path == told.path);
        let head = head.map_or("", |one| &one.head_commit);
        let theirs = theirs(told);
        expected.is_partial |= [&told.changed_paths, &told.committed_paths]
            .iter()
            .any(|paths| paths.len() >= STATUS_PATHS_MAX);
        let ours = Ours::of(&here, head)?;
        let both = theirs.iter().filter(|name| ours.has(&here, name));
        let above = &told.path[..];
        expected.paths.extend(both.map(|name| match above {
            b"" => shown(name),
            above => shown(&[above, name].join(&b'/')),
        }));
    }
    Ok(expected)
}

/// What the VM changed, beneath its repository.
fn theirs(told: &RepositoryStatus) -> BTreeSet<&[u8]> {
    let all = told.changed_paths.iter().chain(&told.committed_paths);
    all.filter_map(|name| match &told.path[..] {
        b"" => Some(&name[..]),
        above => name.strip_prefix(above)?.strip_prefix(b"/"),
    })
    .collect()
}

/// What was changed here.
struct Ours {
    /// Since what both began from, committed or not.
    changed: BTreeSet<Vec<u8>>,
    tracked: BTreeSet<Vec<u8>>,
}

impl Ours {
    fn of(here: &LocalRepository, base: &str) -> Result<Self> {
        const WHAT: &str = "look for changes";
        let base = match base {
            "" => None,
            base => here.commit(base)?,
        };
        let since = match base {
            Some(base) => Some(base),
            None => here.commit("HEAD")?,
        };
        let mut words = vec![
            "diff",
            "-z",
            "--name-only",
            "--no-renames",
            "--no-ext-diff",
            "--ignore-submodules=dirty",
        ];
        words.push(since.as_deref().unwrap_or("--cached"));
        let set = |listed: Vec<u8>| fields(&listed).map(<[u8]>::to_vec).collect();
        // To compare files git would run a filter of the configuration's, which may have come with the tree.
        let git = without_programs(here.git().clone())?;
        let changed = git.run(&words).map_err(Error::git(WHAT))?;
        let tracked = git.run(&["ls-files", "-z"]);
        Ok(Self {
            changed: set(changed),
            tracked: set(tracked.map_err(Error::git(WHAT))?),
        })
    }

    /// Whether a path was changed here too, or something that git does not track is there or on the way to it.
    fn has(&self, here: &LocalRepository, name: &[u8]) -> bool {
        let ends = name.iter().enumerate();
        let ends = ends.filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let is_changed = |name: &[u8]| self.changed.contains(name);
        let is_untracked = |name: &[u8]| {
            let found = here.top().join(path(name)).symlink_metadata();
            !self.tracked.contains(name) && found.is_ok_and(|found| !found.is_dir())
        };
        is_changed(name)
            || is_untracked(name)
            || ends
                .map(|end| &name[..end])
                .any(|above| is_changed(above) || is_untracked(above))
    }
}
