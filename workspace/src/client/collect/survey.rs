//! Looks through the repositories of a workspace.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::path::Path;

use globset::GlobSet;

use super::compare::{Index, changed};
use super::history;
use super::walk::{Found, FoundKind, Walk, link_target, note};
use super::{Options, Surveyed};
use crate::client::error::{Error, Result};
use crate::client::lines::{fields, join, path, text};
use crate::client::repository::LocalRepository;
use crate::client::user;
use crate::command::Cancel;
use crate::wire::limits::{REPOSITORIES_MAX, UNFINISHED_COMMITS_MAX};
use crate::wire::path::is_object_id;
use crate::wire::{
    Entry, EntryKind, IndexEntry, Note, NoteKind, Ref, RefKind, Repository, RepositoryKind,
    Unfinished, UnfinishedKind,
};

/// Settings that go along, if they have one of these values.
const SETTINGS: [(&str, &[&str]); 3] = [
    ("core.autocrlf", &["true", "false", "input"]),
    ("core.eol", &["lf", "crlf", "native"]),
    ("core.filemode", &["true", "false"]),
];
/// An entry of an index that is another repository's commit.
const GITLINK: u32 = 0o160_000;

pub(super) struct Survey<'a> {
    options: &'a Options,
    include: &'a GlobSet,
    cancel: &'a Cancel,
    repositories: Vec<Surveyed>,
    notes: Vec<Note>,
}

impl<'a> Survey<'a> {
    pub(super) fn new(options: &'a Options, include: &'a GlobSet, cancel: &'a Cancel) -> Self {
        Self {
            options,
            include,
            cancel,
            repositories: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn end(self) -> (Vec<Surveyed>, Vec<Note>) {
        (self.repositories, self.notes)
    }

    fn note(&mut self, kind: NoteKind, path: &[u8], detail: &str, is_loss: bool) {
        self.notes.push(note(kind, path, detail, is_loss));
    }

    /// A directory without git.
    pub(super) fn plain(&mut self, top: &Path) {
        let none = HashSet::new();
        let walk = Walk {
            top,
            prefix: b"",
            ignored: &none,
            include: self.include,
            is_git: false,
        };
        let mut walked = walk.run();
        self.notes.append(&mut walked.notes);
        let entries = walked.found.iter();
        let entries = entries
            .filter_map(|found| self.entry(top, b"", found))
            .collect();
        self.repositories.push(Surveyed {
            repository: None,
            message: Repository {
                kind: RepositoryKind::Plain.into(),
                ..Repository::default()
            },
            refs: Vec::new(),
            index: Vec::new(),
            tips: Vec::new(),
            entries,
        });
    }

    /// A repository, as its working tree is or at `revision`, and those in it.
    pub(super) fn repository(
        &mut self,
        repository: LocalRepository,
        prefix: &[u8],
        revision: Option<&str>,
    ) -> Result<()> {
        if self.repositories.len() == REPOSITORIES_MAX {
            let detail = "too many repositories in one workspace";
            self.note(NoteKind::TooLarge, prefix, detail, true);
            return Ok(());
        }
        let head = Head::of(&repository, revision)?;
        let mut surveyed = self.begin(&repository, prefix, &head)?;
        let mut nested = Vec::new();
        if head.is_working_tree {
            nested = self.working_tree(&repository, prefix, &head, &mut surveyed)?;
        }
        let mut tips: Vec<String> = surveyed
            .refs
            .iter()
            .map(|found| found.object_id.clone())
            .collect();
        tips.extend(Some(head.commit.clone()).filter(|commit| !commit.is_empty()));
        surveyed.message.shallow = history::boundary(&repository, &tips, self.options.depth)?;
        surveyed.tips.extend(tips);
        self.repositories.push(surveyed);
        for inside in nested {
            self.nested(repository.top(), prefix, &inside)?;
        }
        if !head.is_working_tree {
            for (inside, commit) in gitlinks(&repository, &head.commit)? {
                self.submodule(repository.top(), prefix, &inside, &commit)?;
            }
        }
        Ok(())
    }

    fn begin(&self, repository: &LocalRepository, prefix: &[u8], head: &Head) -> Result<Surveyed> {
        let mut settings = BTreeMap::new();
        for (name, values) in SETTINGS {
            let value = repository.setting(name)?.map(|value| value.to_lowercase());
            if let Some(value) = value.filter(|value| values.contains(&value.as_str())) {
                settings.insert(name.to_owned(), value);
            }
        }
        let message = Repository {
            path: prefix.to_vec().into(),
            kind: RepositoryKind::Git.into(),
            object_format: repository.format().into(),
            head_ref: head.name.clone().into(),
            head_commit: head.commit.clone(),
            shallow: Vec::new(),
            unfinished: match head.is_working_tree {
                true => unfinished(repository),
                false => Vec::new(),
            },
            settings,
        };
        let mut refs = history::refs(repository, self.options, prefix.is_empty())?;
        // The branch that is checked out goes along, whichever were chosen.
        if !head.name.is_empty()
            && !head.commit.is_empty()
            && let Err(place) = refs.binary_search_by(|found| found.name[..].cmp(&head.name))
        {
            let own = Ref {
                kind: RefKind::Ref.into(),
                name: head.name.clone().into(),
                object_id: head.commit.clone(),
                ..Ref::default()
            };
            refs.insert(place, own);
        }
        Ok(Surveyed {
            refs,
            repository: Some(repository.clone()),
            message,
            index: Vec::new(),
            tips: Vec::new(),
            entries: Vec::new(),
        })
    }

    /// What is not committed. Returns the directories with repositories of their own.
    fn working_tree(
        &mut self,
        repository: &LocalRepository,
        prefix: &[u8],
        head: &Head,
        surveyed: &mut Surveyed,
    ) -> Result<Vec<Vec<u8>>> {
        let index = Index::read(repository)?;
        surveyed.index = staged(repository, head, &index)?;
        let blobs = surveyed.index.iter();
        let blobs = blobs.filter(|entry| entry.mode != 0 && entry.mode != GITLINK);
        surveyed
            .tips
            .extend(blobs.map(|entry| entry.object_id.clone()));
        let ignored = ignored(repository)?;
        let walk = Walk {
            top: repository.top(),
            prefix,
            ignored: &ignored,
            include: self.include,
            is_git: true,
        };
        let mut walked = walk.run();
        self.notes.append(&mut walked.notes);
        let changed = changed(repository, &index, &walked.found)?;
        let mut nested = Vec::new();
        let mut entries = Vec::new();
        for (number, one) in walked.found.iter().enumerate() {
            let tracked = index.entries.get(&one.path);
            let is_link = tracked.is_some_and(|entry| entry.mode == GITLINK);
            let is_same = tracked.is_some() && !changed.numbers.contains(&number);
            match one.kind {
                FoundKind::Repository => nested.push(one.path.clone()),
                FoundKind::EmptyDirectory if is_link => {}
                FoundKind::File | FoundKind::Symlink if is_same => {}
                _ => entries.extend(self.entry(repository.top(), prefix, one)),
            }
        }
        entries.extend(changed.missing.iter().map(|path| Entry {
            path: join(prefix, path).into(),
            kind: EntryKind::Removed.into(),
            ..Entry::default()
        }));
        entries.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        surveyed.entries = entries;
        Ok(nested)
    }

    /// What is at a path; digests come when it is sent.
    fn entry(&mut self, top: &Path, prefix: &[u8], found: &Found) -> Option<Entry> {
        let mut entry = Entry {
            path: join(prefix, &found.path).into(),
            mode: found.mode,
            ..Entry::default()
        };
        match found.kind {
            FoundKind::File => {
                entry.kind = EntryKind::File.into();
                entry.size = i64::try_from(found.size).unwrap_or(i64::MAX);
            }
            FoundKind::Symlink => match link_target(&top.join(path(&found.path))) {
                Ok(target) => {
                    entry.kind = EntryKind::Symlink.into();
                    entry.mode = 0o777;
                    entry.link_target = target.into();
                }
                Err(error) => {
                    let detail = error.to_string();
                    self.note(NoteKind::Unreadable, &entry.path, &detail, true);
                    return None;
                }
            },
            FoundKind::EmptyDirectory | FoundKind::Repository => {
                entry.kind = EntryKind::Directory.into();
            }
        }
        Some(entry)
    }

    /// A repository in the working tree of another.
    fn nested(&mut self, top: &Path, prefix: &[u8], inside: &[u8]) -> Result<()> {
        let place = join(prefix, inside);
        match LocalRepository::exactly(&top.join(path(inside)), self.cancel) {
            Ok(Some(repository)) if self.is_new(&repository) => {
                self.repository(repository, &place, None)
            }
            Ok(Some(_)) => {
                let detail = "another working tree of a repository that is told already";
                self.note(NoteKind::LinkedWorktree, &place, detail, false);
                Ok(())
            }
            Ok(None) | Err(Error::Git { .. }) => {
                let detail = "its `.git` is no repository";
                self.note(NoteKind::BrokenRepository, &place, detail, true);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn submodule(&mut self, top: &Path, prefix: &[u8], inside: &[u8], commit: &str) -> Result<()> {
        let at = top.join(path(inside));
        if !at.join(".git").exists() {
            return Ok(());
        }
        let place = join(prefix, inside);
        match LocalRepository::exactly(&at, self.cancel)? {
            Some(repository) if repository.commit(commit)?.is_some() => {
                self.repository(repository, &place, Some(commit))
            }
            _ => {
                let detail = "the submodule here has not the commit that the revision names";
                self.note(NoteKind::MissingObjects, &place, detail, false);
                Ok(())
            }
        }
    }

    fn is_new(&self, repository: &LocalRepository) -> bool {
        let mut known = self.repositories.iter();
        !known.any(|known| {
            let known = known.repository.as_ref();
            known.is_some_and(|known| known.common_dir() == repository.common_dir())
        })
    }
}

/// Where a repository is.
struct Head {
    /// Empty for a detached one.
    name: Vec<u8>,
    /// Empty for a branch without commits.
    commit: String,
    /// What is in the working tree belongs to it.
    is_working_tree: bool,
}

impl Head {
    fn of(repository: &LocalRepository, revision: Option<&str>) -> Result<Self> {
        let Some(revision) = revision else {
            let name = repository.head_ref()?;
            let commit = repository.commit("HEAD")?;
            return Ok(Self {
                name: name.unwrap_or_default().into_bytes(),
                commit: commit.unwrap_or_default(),
                is_working_tree: true,
            });
        };
        let unknown = || Error::Revision {
            name: revision.to_owned(),
        };
        let found = repository.commit(revision)?.ok_or_else(unknown)?;
        let words = ["rev-parse", "--symbolic-full-name", revision];
        let full = repository.git().line(&words);
        let full = full.map_err(Error::git("look up a revision"))?;
        Ok(Self {
            name: match full.starts_with("refs/heads/") {
                true => full.into_bytes(),
                false => Vec::new(),
            },
            commit: found,
            is_working_tree: false,
        })
    }
}

/// Where the index is not HEAD's tree.
fn staged(repository: &LocalRepository, head: &Head, index: &Index) -> Result<Vec<IndexEntry>> {
    let told = |path: &[u8], stage: u32, mode: u32, id: &str| IndexEntry {
        path: path.to_vec().into(),
        mode,
        object_id: id.to_owned(),
        stage,
    };
    let conflicts = index.conflicts.iter();
    let mut staged: Vec<IndexEntry> = conflicts
        .map(|(path, stage, entry)| told(path, *stage, entry.mode, &entry.id))
        .collect();
    if head.commit.is_empty() {
        let entries = index.entries.iter();
        staged.extend(entries.map(|(path, entry)| told(path, 0, entry.mode, &entry.id)));
    } else {
        let words = [
            "diff-index",
            "--cached",
            "--raw",
            "-z",
            "--no-renames",
            "--no-abbrev",
            "--ignore-submodules=dirty",
            &head.commit,
        ];
        let answer = repository.git().run(&words);
        let answer = answer.map_err(Error::git("read the index"))?;
        let mut parts = fields(&answer);
        while let (Some(what), Some(path)) = (parts.next(), parts.next()) {
            let (mode, id) = difference(&text(what)).ok_or(Error::Answer {
                what: "how the index differs from HEAD",
            })?;
            match mode {
                0 if index.conflicts.iter().any(|(other, ..)| other == path) => {}
                0 => staged.push(told(path, 0, 0, "")),
                mode => staged.push(told(path, 0, mode, &id)),
            }
        }
    }
    staged.sort_unstable_by(|one, other| (&one.path, one.stage).cmp(&(&other.path, other.stage)));
    Ok(staged)
}

/// `:old-mode new-mode old-id new-id status`: the new mode and id.
fn difference(what: &str) -> Option<(u32, String)> {
    let mut words = what.split(' ');
    let mode = u32::from_str_radix(words.nth(1)?, 8).ok()?;
    Some((mode, words.nth(1)?.to_owned()))
}

/// Ignored files, and directories in which all is ignored.
fn ignored(repository: &LocalRepository) -> Result<HashSet<Vec<u8>>> {
    let words = [
        "ls-files",
        "--others",
        "--ignored",
        "--exclude-standard",
        "--directory",
        "-z",
    ];
    let mut git = repository.git().clone();
    if let Some(file) = user::excludes(repository.git())? {
        let mut setting = OsString::from("core.excludesFile=");
        setting.push(file);
        git = git.with_setting(setting);
    }
    let answer = git.run(&words);
    let answer = answer.map_err(Error::git("list what is ignored"))?;
    let trimmed = |path: &[u8]| path.strip_suffix(b"/").unwrap_or(path).to_vec();
    Ok(fields(&answer).map(trimmed).collect())
}

/// The submodules of a commit.
fn gitlinks(repository: &LocalRepository, commit: &str) -> Result<Vec<(Vec<u8>, String)>> {
    let answer = repository.git().run(&["ls-tree", "-r", "-z", commit]);
    let answer = answer.map_err(Error::git("read a tree"))?;
    let link = |line: &[u8]| {
        let rest = line.strip_prefix(b"160000 commit ")?;
        let tab = rest.iter().position(|&byte| byte == b'\t')?;
        Some((rest[tab + 1..].to_vec(), text(&rest[..tab])))
    };
    Ok(fields(&answer).filter_map(link).collect())
}

/// Merges, rebases and the like that have not ended.
fn unfinished(repository: &LocalRepository) -> Vec<Unfinished> {
    let at = repository.git_dir();
    let commits = |file: &str| -> Vec<String> {
        let read = std::fs::read_to_string(at.join(file)).unwrap_or_default();
        let ids = read.lines().map(str::trim).filter(|id| is_object_id(id));
        let ids = ids.take(UNFINISHED_COMMITS_MAX);
        ids.map(str::to_owned).collect()
    };
    let signs = [
        (UnfinishedKind::Merge, "MERGE_HEAD", "MERGE_HEAD"),
        (
            UnfinishedKind::Rebase,
            "rebase-merge",
            "rebase-merge/orig-head",
        ),
        (UnfinishedKind::Am, "rebase-apply", "rebase-apply/orig-head"),
        (
            UnfinishedKind::CherryPick,
            "CHERRY_PICK_HEAD",
            "CHERRY_PICK_HEAD",
        ),
        (UnfinishedKind::Revert, "REVERT_HEAD", "REVERT_HEAD"),
        (UnfinishedKind::Bisect, "BISECT_LOG", "BISECT_START"),
    ];
    let there = signs
        .into_iter()
        .filter(|(_, sign, _)| at.join(sign).exists());
    there
        .map(|(kind, _, file)| Unfinished {
            kind: kind.into(),
            commits: commits(file),
        })
        .collect()
}
