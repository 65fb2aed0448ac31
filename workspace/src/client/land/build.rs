//! Makes commits of what was not committed, and checks that all that came hangs together.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Write};

use super::Coming;
use super::deepen::deepened;
use super::quarantine::{Contents, strict};
use super::script::{Change, Commit, Script};
use crate::client::error::{Error, Result};
use crate::client::lines::{fields, text};
use crate::client::plain;
use crate::wire::path::is_beneath;
use crate::wire::{Entry, EntryKind, Note, RefKind, RepositoryKind};

const WHAT: &str = "make commits of what was not committed";
/// Marks of commits and of what is kept about them lie above those of files.
const MARK_STATES: usize = 10_000_000;
const INDEX: usize = MARK_STATES;
const UNTRACKED: usize = MARK_STATES + 1;
const WORKTREE: usize = MARK_STATES + 2;
const TREE: usize = MARK_STATES + 3;
const CONFLICTS: usize = MARK_STATES + 4;
const LANDING: usize = MARK_STATES + 5;
/// Blobs of what is kept about the states.
const MARK_FIELDS: usize = MARK_STATES + 100;
/// git's mode of another repository's commit.
const GITLINK: u32 = 0o160_000;

/// What a repository becomes.
#[derive(Debug, Default)]
pub(super) struct Built {
    /// Names beneath the VM's prefix, with what they lead to.
    pub(super) refs: Vec<(String, String)>,
    /// Commits at which its history is cut no more.
    pub(super) deepened: BTreeSet<String>,
    pub(super) new_commits: u64,
    pub(super) staged: u64,
    pub(super) changed: u64,
    pub(super) untracked: u64,
    pub(super) conflicted: u64,
}

/// What is known of all of the workspace.
#[derive(Debug)]
pub(super) struct Around<'a> {
    /// The places of repositories inside.
    pub(super) inside: &'a [&'a [u8]],
    /// The digest of all its state.
    pub(super) state: &'a [u8],
    /// What the VM said.
    pub(super) notes: &'a [Note],
    /// Notes that were left out because there were too many.
    pub(super) notes_left_out: u64,
    /// What is remembered of the directory as it was carried.
    pub(super) carried: Option<&'a [u8]>,
    /// It is a directory without git here.
    pub(super) is_directory: bool,
}

/// Checks what came for a repository, and makes commits of its states. `base_head` is the commit that it was prepared
/// at, or empty.
pub(super) fn build(
    coming: &Coming,
    contents: &Contents,
    base_head: &str,
    around: &Around<'_>,
) -> Result<Built> {
    let mut built = Built {
        refs: named(coming)?,
        ..Built::default()
    };
    check_objects(coming)?;
    built.deepened = deepened(coming)?;
    built.new_commits = connect(coming, &built.refs)?;
    let head = match coming.message.kind() {
        RepositoryKind::Git => coming.message.head_commit.clone(),
        // The files of one whose `.git` has gone are told against what it was prepared with.
        _ => coming
            .store
            .resolve(&format!("{base_head}^{{commit}}"))
            .ok()
            .flatten()
            .unwrap_or_default(),
    };
    let mut states = States::of(coming, contents, head, around)?;
    states.fields.push(("state", around.state.to_vec()));
    built.staged = count(&states.index);
    built.changed = count(&states.worktree);
    built.untracked = count(&states.untracked);
    built.conflicted = states.conflicted;
    built
        .refs
        .extend(states.write(coming, contents, base_head)?);
    Ok(built)
}

fn count<T>(items: &[T]) -> u64 {
    items.len() as u64
}

/// The references that came, by the names that they get. What is no text gets a name of its bytes.
fn named(coming: &Coming) -> Result<Vec<(String, String)>> {
    let mut named = Vec::new();
    if !coming.message.head_commit.is_empty() {
        named.push(("HEAD".to_owned(), coming.message.head_commit.clone()));
    }
    for found in &coming.refs {
        let id = found.object_id.clone();
        let name = match found.kind() {
            RefKind::Stash => {
                let number = found.name.iter().filter(|byte| byte.is_ascii_digit());
                format!("stash/{}", text(&number.copied().collect::<Vec<u8>>()))
            }
            RefKind::Lost => format!("lost/{id}"),
            _ => name_of(&found.name),
        };
        let is_known = match found.kind() {
            RefKind::Ref => {
                let name = text(&found.name);
                coming.store.resolve(&name)? == Some(id.clone())
            }
            _ => false,
        };
        if !is_known {
            named.push((name, id));
        }
    }
    named.sort_unstable();
    named.dedup_by(|one, other| one.0 == other.0);
    Ok(named)
}

/// `refs/heads/main` is `heads/main`; what is of no usual kind is beneath `other/`.
fn name_of(name: &[u8]) -> String {
    let Ok(name) = std::str::from_utf8(name) else {
        let digits = name.iter().map(|byte| format!("{byte:02x}"));
        return format!("other/{}", digits.collect::<String>());
    };
    let rest = name.strip_prefix("refs/").unwrap_or(name);
    let usual = ["heads/", "tags/", "remotes/", "notes/"];
    match usual.iter().any(|kind| rest.starts_with(kind)) {
        true => rest.to_owned(),
        false => format!("other/{rest}"),
    }
}

/// Blobs of the index are there, and are blobs.
fn check_objects(coming: &Coming) -> Result<()> {
    let entries = coming.index.iter();
    let entries = entries.filter(|entry| entry.mode != 0 && entry.mode != GITLINK);
    let mut ids: Vec<&str> = entries.map(|entry| &entry.object_id[..]).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(());
    }
    let feed = |input: &mut dyn Write| ids.iter().try_for_each(|id| writeln!(input, "{id}"));
    let words = ["cat-file", "--buffer", "--batch-check=%(objecttype)"];
    let types = strict(&coming.quarantine).feed(&words, feed);
    let types = text(&types.map_err(|source| coming.refused("entries of the index", source))?);
    let mut types = types.lines().zip(&ids);
    match types.find(|(found, _)| *found != "blob") {
        None => Ok(()),
        Some((_, id)) => Err(Error::Unsafe {
            name: (*id).to_owned(),
            problem: "is in the index, and no blob",
        }),
    }
}

/// Walks all that is new: every object that a reference leads to is there. Returns how many commits are new.
fn connect(coming: &Coming, refs: &[(String, String)]) -> Result<u64> {
    let mut tips: HashSet<&str> = refs.iter().map(|(_, id)| &id[..]).collect();
    if !coming.message.head_commit.is_empty() {
        tips.insert(&coming.message.head_commit);
    }
    if tips.is_empty() {
        return Ok(0);
    }
    let known: HashSet<String> = coming
        .store
        .refs("refs/")?
        .into_iter()
        .map(|(_, id)| id)
        .collect();
    let has = coming.store.resolve("HEAD^{commit}")?;
    let feed = |input: &mut dyn Write| -> io::Result<()> {
        let mut input = io::BufWriter::new(input);
        for id in &tips {
            writeln!(input, "{id}")?;
        }
        for id in known.iter().chain(&has) {
            writeln!(input, "^{id}")?;
        }
        input.flush()
    };
    let git = strict(&coming.quarantine);
    let words = ["rev-list", "--objects", "--quiet", "--stdin"];
    let walked = git.feed(&words, feed);
    walked.map_err(|source| coming.refused("the objects", source))?;
    let words = ["rev-list", "--count", "--stdin"];
    let counted = git.feed(&words, feed);
    let counted = text(&counted.map_err(|source| coming.refused("the commits", source))?);
    let head = coming.message.head_commit.as_str();
    let is_commit = head.is_empty()
        || git
            .test(&["cat-file", "-e", &format!("{head}^{{commit}}")])
            .unwrap_or(false);
    match is_commit {
        true => Ok(counted.trim().parse().unwrap_or_default()),
        false => Err(Error::Unsafe {
            name: head.to_owned(),
            problem: "is checked out, and no commit",
        }),
    }
}

/// What is not committed, as changes of trees.
struct States {
    head: String,
    index: Vec<Change>,
    /// Of tracked files.
    worktree: Vec<Change>,
    untracked: Vec<Change>,
    conflicts: Vec<Change>,
    conflicted: u64,
    /// Names and contents of what a tree cannot say.
    fields: Vec<(&'static str, Vec<u8>)>,
    /// Marks and targets of symbolic links.
    links: Vec<(usize, Vec<u8>)>,
}

impl States {
    fn of(coming: &Coming, contents: &Contents, head: String, around: &Around<'_>) -> Result<Self> {
        let mut states = Self {
            head,
            index: Vec::new(),
            worktree: Vec::new(),
            untracked: Vec::new(),
            conflicts: Vec::new(),
            conflicted: 0,
            fields: Vec::new(),
            links: Vec::new(),
        };
        let mut tracked = states.tracked_by_head(coming)?;
        states.take_index(coming, &mut tracked);
        states.take_entries(coming, contents, &tracked);
        if coming.message.kind() == RepositoryKind::Plain {
            states.take_untold(coming, &tracked, around.inside, around.notes);
            if around.is_directory {
                states.take_directory(coming, contents, around);
            }
        }
        states.take_notes(coming, around.notes);
        Ok(states)
    }

    fn tracked_by_head(&self, coming: &Coming) -> Result<HashSet<Vec<u8>>> {
        if self.head.is_empty() {
            return Ok(HashSet::new());
        }
        let words = ["ls-tree", "-r", "-z", "--name-only", &self.head];
        let names = strict(&coming.quarantine).run(&words);
        let names = names.map_err(Error::git(WHAT))?;
        Ok(fields(&names).map(<[u8]>::to_vec).collect())
    }

    fn take_index(&mut self, coming: &Coming, tracked: &mut HashSet<Vec<u8>>) {
        let mut conflicted = HashSet::new();
        for entry in &coming.index {
            let path = entry.path.to_vec();
            match (entry.mode, entry.stage) {
                (0, _) => {
                    tracked.remove(&path);
                    self.index.push(Change::Remove(path));
                }
                (mode, 0) => {
                    tracked.insert(path.clone());
                    self.index
                        .push(Change::Put(path, mode, entry.object_id.clone()));
                }
                (mode, stage) => {
                    let side = [&stage.to_string().into_bytes()[..], b"/", &path].concat();
                    self.conflicts
                        .push(Change::Put(side, mode, entry.object_id.clone()));
                    conflicted.insert(path);
                }
            }
        }
        self.conflicted = count(&conflicted.iter().collect::<Vec<_>>());
        tracked.extend(conflicted);
    }

    fn take_entries(&mut self, coming: &Coming, contents: &Contents, tracked: &HashSet<Vec<u8>>) {
        let place = &coming.message.path;
        let (mut directories, mut modes) = (Vec::new(), Vec::new());
        for (number, entry) in &coming.entries {
            let path = match is_beneath(&entry.path, place) && !place.is_empty() {
                true => entry.path[place.len() + 1..].to_vec(),
                false => entry.path.to_vec(),
            };
            let is_tracked = tracked.contains(&path);
            let mark = format!(":{}", number + 1);
            let change = match entry.kind() {
                EntryKind::File if contents.has(*number) => {
                    let mode = match entry.mode & 0o100 {
                        0 => 0o100_644,
                        _ => 0o100_755,
                    };
                    if entry.mode != mode & 0o777 {
                        modes.extend(format!("{:o} ", entry.mode).bytes());
                        modes.extend(&path);
                        modes.push(0);
                    }
                    Change::Put(path, mode, mark)
                }
                EntryKind::Symlink => {
                    self.links.push((number + 1, entry.link_target.to_vec()));
                    Change::Put(path, 0o120_000, mark)
                }
                EntryKind::Removed => Change::Remove(path),
                EntryKind::Directory => {
                    directories.extend(format!("{:o} ", entry.mode).bytes());
                    directories.extend(&path);
                    directories.push(0);
                    match is_tracked {
                        true => Change::Remove(path),
                        false => continue,
                    }
                }
                EntryKind::File | EntryKind::Unspecified => continue,
            };
            match is_tracked {
                true => self.worktree.push(change),
                false => self.untracked.push(change),
            }
        }
        self.fields.push(("directories", directories));
        self.fields.push(("modes", modes));
    }

    /// Of a tree without git all files are told: those that are not are gone, but for what could not be taken, and for what
    /// lies in a repository inside.
    fn take_untold(
        &mut self,
        coming: &Coming,
        tracked: &HashSet<Vec<u8>>,
        inside: &[&[u8]],
        notes: &[Note],
    ) {
        let told = coming.entries.iter().map(|(_, entry)| &entry.path[..]);
        let told: HashSet<&[u8]> = told.collect();
        let lost: Vec<&[u8]> = notes
            .iter()
            .filter(|note| note.is_loss && !note.path.is_empty())
            .map(|note| &note.path[..])
            .collect();
        let is_at = |path: &[u8], places: &[&[u8]]| {
            let mut places = places.iter();
            places.any(|place| path == *place || is_beneath(path, place))
        };
        let gone = tracked.iter().filter(|path| {
            !told.contains(&path[..]) && !is_at(path, inside) && !is_at(path, &lost)
        });
        self.worktree.extend(gone.cloned().map(Change::Remove));
    }

    /// What an apply to a directory without git compares: what came, what was carried, and of which paths nothing is told.
    fn take_directory(&mut self, coming: &Coming, contents: &Contents, around: &Around<'_>) {
        let entries = coming.entries.iter();
        let entries = entries.map(|(number, entry)| Entry {
            sha256: contents.digest(*number),
            ..entry.clone()
        });
        self.fields
            .push(("entries", plain::landed(entries.collect())));
        if let Some(carried) = around.carried {
            self.fields.push(("carried", carried.to_vec()));
        }
        let lost = around.notes.iter().filter(|note| note.is_loss);
        let lost = lost.map(|note| &note.path[..]);
        let more: &[&[u8]] = match around.notes_left_out {
            0 => &[],
            _ => &[b""],
        };
        let untold = lost.chain(around.inside.iter().chain(more).copied());
        let lines = untold.map(|path| match path {
            b"" => b".\0".to_vec(),
            path => [path, b"\0"].concat(),
        });
        self.fields
            .push(("untold", lines.collect::<Vec<_>>().concat()));
    }

    fn take_notes(&mut self, coming: &Coming, notes: &[Note]) {
        let mut told = Vec::new();
        for note in notes.iter().filter(|_| coming.message.path.is_empty()) {
            let is_loss = if note.is_loss { "loss" } else { "note" };
            told.extend(format!("{is_loss} {} ", note.kind().as_str_name()).bytes());
            told.extend(&note.path);
            told.extend(b" ");
            told.extend(note.detail.bytes());
            told.push(0);
        }
        self.fields.push(("notes", told));
        let mut unfinished = Vec::new();
        for thing in &coming.message.unfinished {
            unfinished.extend(thing.kind().as_str_name().bytes());
            unfinished.extend(
                thing
                    .commits
                    .iter()
                    .flat_map(|id| [" ", id].concat().into_bytes()),
            );
            unfinished.push(0);
        }
        self.fields.push(("unfinished", unfinished));
        self.fields.push(("head", coming.message.head_ref.to_vec()));
    }

    /// The commits by the names they get.
    fn write(
        mut self,
        coming: &Coming,
        contents: &Contents,
        base_head: &str,
    ) -> Result<Vec<(String, String)>> {
        self.fields.push(("base", base_head.as_bytes().to_vec()));
        self.fields.retain(|(_, content)| !content.is_empty());
        let git = strict(&coming.quarantine);
        let time = match self.head.is_empty() {
            true => 0,
            false => {
                let words = [
                    "log",
                    "-1",
                    "--no-show-signature",
                    "--format=%ct",
                    &self.head,
                ];
                let time = git.line(&words).map_err(Error::git(WHAT))?;
                time.parse().unwrap_or_default()
            }
        };
        let marks = coming.quarantine.directory().join("marks");
        let words = [
            "fast-import".to_owned(),
            "--quiet".to_owned(),
            "--done".to_owned(),
            "--date-format=raw".to_owned(),
            "--force".to_owned(),
            format!("--export-marks={}", marks.display()),
        ];
        let feed = |input: &mut dyn Write| {
            let mut script = Script::new(input, time);
            self.blobs(coming, contents, &mut script)?;
            self.commits(&mut script)?;
            script.end()
        };
        git.feed(&words, feed).map_err(Error::git(WHAT))?;
        let told = std::fs::read_to_string(&marks).map_err(Error::file("read", &marks))?;
        let told: HashMap<usize, &str> = told
            .lines()
            .filter_map(|line| line.strip_prefix(':')?.split_once(' '))
            .filter_map(|(mark, id)| Some((mark.parse().ok()?, id)))
            .collect();
        let names = [
            (INDEX, "state/index"),
            (WORKTREE, "state/worktree"),
            (TREE, "state/tree"),
            (CONFLICTS, "state/conflicts"),
            (LANDING, "state/landing"),
        ];
        let made = names.into_iter().filter_map(|(mark, name)| {
            let id = told.get(&mark)?;
            Some((name.to_owned(), (*id).to_owned()))
        });
        Ok(made.collect())
    }

    fn blobs(&self, coming: &Coming, contents: &Contents, to: &mut Script<'_>) -> io::Result<()> {
        for (number, entry) in &coming.entries {
            if entry.kind() == EntryKind::File && contents.has(*number) {
                to.file(number + 1, &contents.at(*number))?;
            }
        }
        for (mark, target) in &self.links {
            to.blob(*mark, target)?;
        }
        for (number, (_, content)) in self.fields.iter().enumerate() {
            to.blob(MARK_FIELDS + number, content)?;
        }
        Ok(())
    }

    fn commits(&self, to: &mut Script<'_>) -> io::Result<()> {
        let head = Some(self.head.clone()).filter(|head| !head.is_empty());
        let mark = |mark: usize| format!(":{mark}");
        if !self.untracked.is_empty() {
            to.commit(&Commit {
                name: "refs/state/untracked",
                mark: UNTRACKED,
                message: "Untracked files in the VM",
                parents: Vec::new(),
                changes: self.untracked.iter().collect(),
            })?;
        }
        let is_changed = !self.index.is_empty() || !self.worktree.is_empty();
        if is_changed || !self.untracked.is_empty() {
            to.commit(&Commit {
                name: "refs/state/index",
                mark: INDEX,
                message: "Staged in the VM",
                parents: head.iter().cloned().collect(),
                changes: self.index.iter().collect(),
            })?;
            // The form of a stash: HEAD, the index, what is untracked.
            let mut parents = vec![head.clone().unwrap_or_else(|| mark(INDEX))];
            if head.is_some() {
                parents.push(mark(INDEX));
            }
            if !self.untracked.is_empty() {
                parents.push(mark(UNTRACKED));
            }
            to.commit(&Commit {
                name: "refs/state/worktree",
                mark: WORKTREE,
                message: "Uncommitted work in the VM",
                parents,
                changes: self.last_of_each(&[&self.index, &self.worktree]),
            })?;
            to.commit(&Commit {
                name: "refs/state/tree",
                mark: TREE,
                message: "All files in the VM",
                parents: head.iter().cloned().collect(),
                changes: self.last_of_each(&[&self.index, &self.worktree, &self.untracked]),
            })?;
        }
        if !self.conflicts.is_empty() {
            to.commit(&Commit {
                name: "refs/state/conflicts",
                mark: CONFLICTS,
                message: "The sides of conflicts in the VM",
                parents: head.iter().cloned().collect(),
                changes: self.conflicts.iter().collect(),
            })?;
        }
        let fields = self.fields.iter().enumerate();
        let fields: Vec<Change> = fields
            .map(|(number, (name, _))| {
                let name = name.as_bytes().to_vec();
                Change::Put(name, 0o100_644, mark(MARK_FIELDS + number))
            })
            .collect();
        to.commit(&Commit {
            name: "refs/state/landing",
            mark: LANDING,
            message: "What trees cannot say",
            parents: Vec::new(),
            changes: fields.iter().collect(),
        })
    }

    /// The changes of all, where several are about a path the last.
    fn last_of_each<'a>(&'a self, all: &[&'a [Change]]) -> Vec<&'a Change> {
        let mut last: HashMap<&[u8], &Change> = HashMap::new();
        for change in all.iter().flat_map(|changes| changes.iter()) {
            let (Change::Remove(path) | Change::Put(path, ..)) = change;
            last.insert(path, change);
        }
        let mut last: Vec<(&[u8], &Change)> = last.into_iter().collect();
        last.sort_unstable_by_key(|(path, _)| *path);
        last.into_iter().map(|(_, change)| change).collect()
    }
}
