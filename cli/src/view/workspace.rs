//! Workspaces.

use std::collections::BTreeMap;

use banger_sdk::workspaces::{self as ws, Done, RepositoryKind, shown};
use serde::Serialize;

use super::bytes;
use crate::output::Row;

/// Something that must be known of a workspace.
#[derive(Debug, Clone, Serialize)]
struct Note {
    kind: String,
    path: String,
    detail: String,
    is_loss: bool,
}

impl Note {
    fn of(note: &ws::Note) -> Self {
        let kind = note.kind().as_str_name();
        Self {
            kind: kind.trim_start_matches("KIND_").to_lowercase(),
            path: shown(&note.path),
            detail: shown(note.detail.as_bytes()),
            is_loss: note.is_loss,
        }
    }

    fn text(&self) -> String {
        let kind = self.kind.replace('_', " ");
        match &self.path[..] {
            "" => format!("{kind}: {}", self.detail),
            path => format!("{path}: {kind}: {}", self.detail),
        }
    }
}

fn notes(notes: &[Note]) -> String {
    let lines: Vec<String> = notes.iter().map(Note::text).collect();
    lines.join("\n")
}

fn place(path: &str) -> &str {
    match path {
        "" => ".",
        path => path,
    }
}

fn branch(name: &[u8]) -> String {
    let name = shown(name);
    name.strip_prefix("refs/heads/").unwrap_or(&name).to_owned()
}

/// A workspace that was carried into a VM.
#[derive(Debug, Serialize)]
pub(crate) struct PreparedWorkspace {
    vm: String,
    path: String,
    source: String,
    is_git: bool,
    notes: Vec<Note>,
}

impl PreparedWorkspace {
    pub(crate) fn new(vm: &str, prepared: &banger_sdk::Prepared) -> Self {
        Self {
            vm: vm.to_owned(),
            path: prepared.path.clone(),
            source: prepared.top.display().to_string(),
            is_git: prepared.is_git,
            notes: prepared.notes.iter().map(Note::of).collect(),
        }
    }

    pub(crate) fn has_loss(&self) -> bool {
        self.notes.iter().any(|note| note.is_loss)
    }
}

impl Row for PreparedWorkspace {
    const HEADINGS: &'static [&'static str] = &["VM", "PATH", "SOURCE"];

    fn cells(&self) -> Vec<String> {
        vec![self.vm.clone(), self.path.clone(), self.source.clone()]
    }

    fn name(&self) -> String {
        format!("{}:{}", self.vm, self.path)
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("In the VM", self.name()),
            ("From", self.source.clone()),
            ("Notes", notes(&self.notes)),
        ]
    }
}

/// A repository of a workspace that was exported.
#[derive(Debug, Serialize)]
struct ExportedRepository {
    path: String,
    store: String,
    branch: String,
    head: String,
    new_commits: u64,
    staged: u64,
    changed: u64,
    untracked: u64,
    conflicted: u64,
    refs: BTreeMap<String, String>,
    kept: Vec<String>,
    unfinished: Vec<String>,
}

impl ExportedRepository {
    fn of(repository: &ws::LandedRepository) -> Self {
        let unfinished = repository.unfinished.iter();
        let kind = |thing: &ws::Unfinished| {
            let kind = thing.kind().as_str_name();
            kind.trim_start_matches("KIND_").to_lowercase()
        };
        Self {
            path: shown(&repository.path),
            store: repository.store.display().to_string(),
            branch: branch(&repository.head_ref),
            head: repository.head.clone(),
            new_commits: repository.new_commits,
            staged: repository.staged,
            changed: repository.changed,
            untracked: repository.untracked,
            conflicted: repository.conflicted,
            refs: repository.refs.iter().cloned().collect(),
            kept: repository.kept.clone(),
            unfinished: unfinished.map(kind).collect(),
        }
    }

    const fn has_work(&self) -> bool {
        self.new_commits > 0
            || self.staged > 0
            || self.changed > 0
            || self.untracked > 0
            || self.conflicted > 0
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{} new commits, {} staged, {} changed, {} untracked",
            self.new_commits, self.staged, self.changed, self.untracked
        );
        if self.conflicted > 0 {
            text.push_str(&format!(", {} in conflict", self.conflicted));
        }
        for thing in &self.unfinished {
            text.push_str(&format!(", in the middle of a {}", thing.replace('_', "-")));
        }
        format!("{}: {text}", place(&self.path))
    }
}

/// What was exported.
#[derive(Debug, Serialize)]
pub(crate) struct Exported {
    vm: String,
    /// Beneath which the references are.
    prefix: String,
    repositories: Vec<ExportedRepository>,
    notes: Vec<Note>,
    notes_left_out: u64,
    is_complete: bool,
}

impl Exported {
    pub(crate) fn new(vm: &str, landed: &ws::Landed) -> Self {
        Self {
            vm: vm.to_owned(),
            prefix: format!("refs/banger/{vm}/"),
            repositories: landed
                .repositories
                .iter()
                .map(ExportedRepository::of)
                .collect(),
            notes: landed.notes.iter().map(Note::of).collect(),
            notes_left_out: landed.notes_left_out,
            is_complete: !landed.has_loss(),
        }
    }

    /// Those of its repositories inside in which something was done, one line each: what is written of the workspace's own
    /// repository has nothing of it.
    pub(crate) fn inside_with_work(&self) -> Vec<String> {
        let inside = self.repositories.iter().skip(1);
        let worked = inside.filter(|one| one.has_work());
        let line = |one: &ExportedRepository| {
            let path = place(&one.path);
            format!(
                "{path}: a repository of its own, whose work is in {}",
                one.store
            )
        };
        worked.map(line).collect()
    }

    /// What could not be taken, one line each.
    pub(crate) fn losses(&self) -> Vec<String> {
        let losses = self.notes.iter().filter(|note| note.is_loss);
        losses.map(Note::text).collect()
    }
}

impl Row for Exported {
    const HEADINGS: &'static [&'static str] = &["VM", "REFERENCES"];

    fn cells(&self) -> Vec<String> {
        vec![self.vm.clone(), self.prefix.clone()]
    }

    fn name(&self) -> String {
        self.prefix.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let lines: Vec<String> = self
            .repositories
            .iter()
            .map(ExportedRepository::text)
            .collect();
        let kept: Vec<&str> = self
            .repositories
            .iter()
            .flat_map(|repository| repository.kept.iter().map(String::as_str))
            .collect();
        let apart: Vec<&str> = self
            .repositories
            .iter()
            .filter(|repository| repository.store.contains("/stores/"))
            .map(|repository| repository.store.as_str())
            .collect();
        vec![
            ("References", format!("{}…", self.prefix)),
            ("Brought", lines.join("\n")),
            ("Kept of earlier exports", kept.join("\n")),
            ("Kept apart", apart.join("\n")),
            ("Notes", notes(&self.notes)),
        ]
    }
}

/// How a repository in a VM differs.
#[derive(Debug, Serialize)]
struct Difference {
    path: String,
    is_git: bool,
    branch: String,
    head: String,
    ahead: i64,
    behind: i64,
    new_commits: i64,
    staged: i64,
    changed: i64,
    untracked: i64,
    conflicted: i64,
    object_bytes: i64,
    file_bytes: i64,
    changed_paths: Vec<String>,
    committed_paths: Vec<String>,
}

impl Difference {
    fn of(told: &ws::RepositoryStatus) -> Self {
        Self {
            path: shown(&told.path),
            is_git: told.kind() == RepositoryKind::Git,
            branch: branch(&told.head_ref),
            head: told.head_commit.clone(),
            ahead: told.ahead_count,
            behind: told.behind_count,
            new_commits: told.new_commit_count,
            staged: told.staged_count,
            changed: told.changed_count,
            untracked: told.untracked_count,
            conflicted: told.conflicted_count,
            object_bytes: told.object_bytes,
            file_bytes: told.file_bytes,
            changed_paths: told.changed_paths.iter().map(|path| shown(path)).collect(),
            committed_paths: told
                .committed_paths
                .iter()
                .map(|path| shown(path))
                .collect(),
        }
    }

    fn text(&self) -> String {
        let branch = match (self.is_git, &self.branch[..]) {
            (false, _) => "no repository",
            (true, "") => "no branch",
            (true, branch) => branch,
        };
        format!(
            "{} ({branch}): {} ahead, {} behind, {} staged, {} changed, {} untracked, {} in conflict; {} to bring",
            place(&self.path),
            self.ahead,
            self.behind,
            self.staged,
            self.changed,
            self.untracked,
            self.conflicted,
            bytes(self.object_bytes.saturating_add(self.file_bytes)),
        )
    }
}

/// How a workspace in a VM differs from what was prepared.
#[derive(Debug, Serialize)]
pub(crate) struct WorkspaceStatus {
    vm: String,
    exists: bool,
    repositories: Vec<Difference>,
    /// Changed there and here; none where that was not looked for.
    changed_on_both_sides: Option<Vec<String>>,
    /// There may be more of those.
    is_partial: bool,
    notes: Vec<Note>,
}

impl WorkspaceStatus {
    pub(crate) fn new(vm: &str, status: &ws::Status, expected: ws::Expected) -> Self {
        Self {
            vm: vm.to_owned(),
            exists: status.exists,
            repositories: status.repositories.iter().map(Difference::of).collect(),
            changed_on_both_sides: expected.is_compared.then_some(expected.paths),
            is_partial: expected.is_partial,
            notes: status.notes.iter().map(Note::of).collect(),
        }
    }
}

impl Row for WorkspaceStatus {
    const HEADINGS: &'static [&'static str] = &["VM", "EXISTS"];

    fn cells(&self) -> Vec<String> {
        vec![self.vm.clone(), self.exists.to_string()]
    }

    fn name(&self) -> String {
        self.vm.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        const PATHS_SHOWN: usize = 20;
        let lines: Vec<String> = self.repositories.iter().map(Difference::text).collect();
        let some = |paths: &mut dyn Iterator<Item = &String>| {
            let paths: Vec<&str> = paths.take(PATHS_SHOWN).map(String::as_str).collect();
            paths.join("\n")
        };
        let mut changed = self.repositories.iter().flat_map(|one| &one.changed_paths);
        let mut committed = self
            .repositories
            .iter()
            .flat_map(|one| &one.committed_paths);
        let mut both = match &self.changed_on_both_sides {
            Some(paths) => some(&mut paths.iter()),
            None => "(not looked for in a directory without git: an apply does, before it changes anything)".to_owned(),
        };
        if self.is_partial {
            both.push_str("\n(and perhaps more: not all of the VM's files were compared)");
        }
        vec![
            ("Workspace", lines.join("\n")),
            ("Changed", some(&mut changed)),
            ("Committed", some(&mut committed)),
            ("Changed here too", both.trim_start().to_owned()),
            ("Notes", notes(&self.notes)),
        ]
    }
}

/// What was applied.
#[derive(Debug, Serialize)]
pub(crate) struct Applied {
    vm: String,
    onto: String,
    commits: &'static str,
    uncommitted: bool,
    conflicts: Vec<String>,
    before: Option<String>,
    stash: Option<String>,
    way_back: Vec<String>,
    left_out: Vec<String>,
}

impl Applied {
    pub(crate) fn new(vm: &str, applied: &ws::Applied) -> Self {
        Self {
            vm: vm.to_owned(),
            onto: applied.onto.clone(),
            commits: match applied.commits {
                Done::Nothing => "nothing new",
                Done::FastForwarded => "fast-forwarded",
                Done::Merged => "merged",
                Done::Rebased => "rebased",
                Done::Patched => "patched",
            },
            uncommitted: applied.uncommitted,
            conflicts: applied.conflicts.clone(),
            before: applied.before.clone(),
            stash: applied.stash.clone(),
            way_back: applied.way_back.clone(),
            left_out: applied.left_out.clone(),
        }
    }
}

impl Row for Applied {
    const HEADINGS: &'static [&'static str] = &["VM", "ONTO", "COMMITS"];

    fn cells(&self) -> Vec<String> {
        vec![self.vm.clone(), self.onto.clone(), self.commits.to_owned()]
    }

    fn name(&self) -> String {
        self.onto.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let uncommitted = match (self.uncommitted, &self.left_out[..]) {
            (true, _) => "applied".to_owned(),
            (false, []) => String::new(),
            (false, bring) => format!(
                "left out; once the conflicts are resolved: {}",
                bring.join("\n")
            ),
        };
        vec![
            ("Branch", self.onto.clone()),
            ("Commits", self.commits.to_owned()),
            ("Uncommitted work", uncommitted),
            ("In conflict", self.conflicts.join("\n")),
            ("The way back", self.way_back.join("\n")),
        ]
    }
}

/// What was applied to a directory without git.
#[derive(Debug, Serialize)]
pub(crate) struct AppliedFiles {
    vm: String,
    directory: String,
    written: u64,
    removed: u64,
    moved: Vec<String>,
    left: Vec<String>,
    before: Option<String>,
    way_back: Vec<String>,
}

impl AppliedFiles {
    pub(crate) fn new(vm: &str, directory: &std::path::Path, applied: &ws::AppliedFiles) -> Self {
        Self {
            vm: vm.to_owned(),
            directory: directory.display().to_string(),
            written: applied.written,
            removed: applied.removed,
            moved: applied.moved.clone(),
            left: applied.left.clone(),
            before: applied.before.clone(),
            way_back: applied.way_back.clone(),
        }
    }

    fn counts(&self) -> String {
        match (self.written, self.removed) {
            (0, 0) => "nothing new".to_owned(),
            (written, removed) => format!("{written} written, {removed} removed"),
        }
    }
}

impl Row for AppliedFiles {
    const HEADINGS: &'static [&'static str] = &["VM", "DIRECTORY", "FILES"];

    fn cells(&self) -> Vec<String> {
        vec![self.vm.clone(), self.directory.clone(), self.counts()]
    }

    fn name(&self) -> String {
        self.directory.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("Directory", self.directory.clone()),
            ("Files", self.counts()),
            ("Changed meanwhile", self.moved.join("\n")),
            ("Not told of, left", self.left.join("\n")),
            ("The way back", self.way_back.join("\n")),
        ]
    }
}
