//! Random histories, and random work in a repository: all that people and their tools do, some of it on purpose odd.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::git::git;
use crate::script::Script;

/// Names that trees have seen: ones that differ in case only, that are no text, that look like options.
const NAMES: [&[u8]; 14] = [
    b"a",
    b"A",
    b"b.txt",
    b"dir/a",
    b"dir/B",
    b"dir/deep/er/c",
    b"\xff\xfe",
    b"na\xc3\xafve \xe2\x82\xac",
    b"with space",
    b"-option",
    b"quote\"back\\slash",
    b"new\nline",
    b"Makefile",
    b"MAKEFILE",
];
/// The submodule's place.
pub const SUBMODULE: &str = "sub module";
/// A repository that is made inside.
const INSIDE: &str = "made inside";
/// A large file; most are far smaller.
const LARGE_BYTES: usize = 6 << 20;

/// In which state somebody left a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Situation {
    /// Nothing is unfinished.
    Usual,
    /// In a merge.
    Merging,
    /// In a rebase.
    Rebasing,
    /// In a cherry-pick.
    CherryPicking,
    /// In a revert.
    Reverting,
    /// On no branch.
    Detached,
    /// On a branch that has no commit yet.
    Orphan,
    /// Everything in one pack, references too, logs gone.
    Packed,
    /// A repository is inside that was not there.
    RepositoryInside,
    /// Somebody committed in the submodule, or removed it.
    InSubmodule,
    /// With locks of git's.
    Locked,
    /// `.git` is gone.
    Deleted,
    /// `.git` is gone, and another is there.
    MadeAnew,
}

impl Situation {
    const ALL: [Self; 20] = [
        Self::Usual,
        Self::Usual,
        Self::Usual,
        Self::Usual,
        Self::Merging,
        Self::Merging,
        Self::Rebasing,
        Self::Rebasing,
        Self::CherryPicking,
        Self::Reverting,
        Self::Detached,
        Self::Orphan,
        Self::Packed,
        Self::RepositoryInside,
        Self::RepositoryInside,
        Self::InSubmodule,
        Self::InSubmodule,
        Self::Locked,
        Self::Deleted,
        Self::MadeAnew,
    ];
}

/// One random course of things.
#[derive(Debug)]
pub struct Case {
    /// What decides.
    pub random: fastrand::Rng,
    /// Branches that it made.
    pub branches: u32,
    pub(crate) seconds: u64,
    pub(crate) script: Option<Script>,
}

impl Case {
    /// The one that a seed says.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            branches: 0,
            seconds: 0,
            script: None,
        }
    }

    fn name(&mut self) -> OsString {
        let name = NAMES[self.random.usize(..NAMES.len())].to_vec();
        OsString::from_vec(name)
    }

    fn content(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        match random.u8(..60) {
            0..5 => Vec::new(),
            5..10 => (0..random.usize(1..5000)).map(|_| random.u8(..)).collect(),
            10..15 => b"dos\r\nlines\r\n".repeat(random.usize(1..20)),
            15..20 => vec![b'x'; random.usize(1..300_000)],
            20..25 => b"no line end".to_vec(),
            25 => {
                let mut large = vec![0; random.usize(LARGE_BYTES / 2..LARGE_BYTES)];
                random.fill(&mut large);
                large
            }
            _ => {
                let lines = (0..random.usize(1..30)).map(|_| format!("line {}\n", random.u8(..9)));
                lines.collect::<String>().into_bytes()
            }
        }
    }

    /// Changes a tree: writes, removes, renames, links, modes.
    fn work(&mut self, top: &Path) {
        for _ in 0..self.random.usize(1..6) {
            let name = self.name();
            let at = top.join(&name);
            match self.random.u8(..10) {
                0 => self.remove(&at),
                1 => {
                    if self.clear(&at) {
                        self.link("nowhere/../in particular", &at);
                    }
                }
                2 => {
                    let other = top.join(self.name());
                    if at.is_file()
                        && other.symlink_metadata().is_err()
                        && self.directory(other.parent().unwrap())
                    {
                        self.rename(&at, &other);
                    }
                }
                3 => {
                    if at
                        .symlink_metadata()
                        .is_ok_and(|metadata| metadata.is_file())
                    {
                        let mode = if self.random.bool() { 0o755 } else { 0o644 };
                        self.mode(&at, mode);
                    }
                }
                _ => {
                    if self.clear(&at) {
                        let content = self.content();
                        self.put(&at, &content);
                    }
                }
            }
        }
    }

    /// Works, and commits: on branches, with merges, tags, amended, reset, rebased and stashed commits.
    fn history(&mut self, top: &Path, steps: usize) {
        for step in 0..steps {
            self.work(top);
            match self.random.u8(..10) {
                0 => {
                    self.commit(top, "before a branch");
                    self.branches += 1;
                    let name = format!("topic/{}", self.branches);
                    self.git(top, &["switch", "-q", "-c", &name]);
                }
                1 => self.merge(top),
                2 => {
                    self.commit(top, "tagged");
                    let name = format!("tag-{step}-{}", self.random.u32(..));
                    self.git(top, &["tag", "-a", "-m", "a tag", &name]);
                }
                3 => {
                    self.commit(top, "to be amended");
                    self.work(top);
                    self.git(top, &["add", "-A"]);
                    self.git(
                        top,
                        &["commit", "-q", "--amend", "--allow-empty", "-m", "amended"],
                    );
                }
                4 => {
                    self.commit(top, "to be reset");
                    self.may_git(top, &["reset", "-q", "--hard", "HEAD~1"]);
                }
                5 => {
                    self.commit(top, "detached next");
                    self.git(top, &["checkout", "-q", "--detach"]);
                    self.work(top);
                    self.commit(top, "detached");
                    self.may_git(top, &["checkout", "-q", "-"]);
                }
                6 => {
                    self.commit(top, "stashed next");
                    self.work(top);
                    self.may_git(top, &["stash", "push", "-q", "--include-untracked"]);
                }
                7 => {
                    self.commit(top, "rebased next");
                    let upon = format!("HEAD~{}", self.random.u8(1..4));
                    if !self.may_git(top, &["rebase", "-q", "--force-rebase", &upon]) {
                        self.may_git(top, &["rebase", "--abort"]);
                    }
                }
                _ => self.commit(top, &format!("step {step}")),
            }
        }
    }

    fn merge(&mut self, top: &Path) {
        self.commit(top, "before a merge");
        let branches = git(top, &["branch", "--format=%(refname:short)"]);
        let branches: Vec<&str> = branches
            .lines()
            .filter(|name| !name.starts_with('('))
            .collect();
        if branches.is_empty() {
            return;
        }
        let other = branches[self.random.usize(..branches.len())];
        if !self.may_git(top, &["merge", "-q", "--no-ff", "-m", "merge", other]) {
            // A conflict is resolved as it lies.
            self.git(top, &["add", "-A"]);
            self.may_git(top, &["commit", "-q", "-m", "merge with conflicts"]);
            self.may_git(top, &["merge", "--abort"]);
        }
    }

    /// Leaves work uncommitted: staged, not staged, not tracked, ignored, empty directories.
    fn uncommitted(&mut self, top: &Path) {
        if self.random.bool() {
            self.work(top);
            self.git(top, &["add", "-A"]);
        }
        if self.random.bool() {
            self.work(top);
        }
        if self.random.bool() && top.join("empty").symlink_metadata().is_err() {
            self.directory(&top.join("empty/inside"));
        }
    }

    /// Leaves a repository in some state, uncommitted work included. Locks come by [`Self::lock`].
    fn leave(&mut self, top: &Path) -> Situation {
        let situation = Situation::ALL[self.random.usize(..Situation::ALL.len())];
        match situation {
            Situation::Merging => self.conflict(top, &["merge", "-q", "--no-commit", "contest"]),
            Situation::Rebasing => self.conflict(top, &["rebase", "-q", "contest"]),
            Situation::CherryPicking => self.conflict(top, &["cherry-pick", "contest"]),
            Situation::Reverting => self.conflict(top, &["revert", "--no-edit", "contest~1"]),
            Situation::Detached => {
                self.commit(top, "detached next");
                self.git(top, &["checkout", "-q", "--detach"]);
                self.history(top, 2);
                self.uncommitted(top);
            }
            Situation::Orphan => {
                self.commit(top, "orphan next");
                self.git(top, &["checkout", "-q", "--orphan", "orphan"]);
                self.work(top);
            }
            Situation::Packed => {
                self.uncommitted(top);
                self.git(top, &["pack-refs", "--all"]);
                self.git(top, &["reflog", "expire", "--expire=now", "--all"]);
                self.git(top, &["gc", "-q", "--prune=now"]);
            }
            Situation::RepositoryInside => {
                self.uncommitted(top);
                let inside = top.join(INSIDE);
                self.directory(&inside);
                self.git(&inside, &["init", "-q", "-b", "inside"]);
                let steps = self.random.usize(1..3);
                self.commit(&inside, "inside");
                self.history(&inside, steps);
                self.uncommitted(&inside);
            }
            Situation::InSubmodule => {
                let inside = top.join(SUBMODULE);
                if inside.join(".git").exists() {
                    self.git(&inside, &["checkout", "-q", "-B", "work"]);
                    self.history(&inside, 2);
                    self.uncommitted(&inside);
                }
                self.uncommitted(top);
            }
            Situation::Deleted => {
                self.uncommitted(top);
                self.remove(&top.join(".git"));
                self.work(top);
            }
            Situation::MadeAnew => {
                self.remove(&top.join(".git"));
                self.git(top, &["init", "-q", "-b", "anew"]);
                self.commit(top, "anew");
                self.history(top, 1);
                self.uncommitted(top);
            }
            Situation::Usual | Situation::Locked => self.uncommitted(top),
        }
        situation
    }

    /// Leaves something unfinished, mostly in conflict, sometimes with more work on top.
    fn conflict(&mut self, top: &Path, unfinished: &[&str]) {
        self.put(&top.join("contested"), b"base\n");
        self.commit(top, "before the contest");
        self.git(top, &["branch", "-f", "contest"]);
        self.put(&top.join("contested"), b"ours\n");
        self.work(top);
        self.commit(top, "ours");
        self.git(top, &["branch", "ours"]);
        self.git(top, &["checkout", "-q", "-f", "contest"]);
        self.git(top, &["clean", "-q", "-f", "-d"]);
        self.put(&top.join("contested"), b"theirs\n");
        self.work(top);
        self.commit(top, "theirs");
        self.put(&top.join("contested"), b"theirs again\n");
        self.commit(top, "theirs again");
        self.git(top, &["checkout", "-q", "-f", "ours"]);
        self.git(top, &["clean", "-q", "-f", "-d"]);
        self.may_git(top, unfinished);
        match self.random.u8(..4) {
            0 => self.work(top),
            1 => drop(self.may_git(top, &["add", "-A"])),
            _ => {}
        }
    }

    /// Locks, as somebody leaves them who is ended in the middle.
    fn lock(&mut self, top: &Path) -> Vec<PathBuf> {
        let all = [
            "index.lock",
            "packed-refs.lock",
            "config.lock",
            "HEAD.lock",
            "refs/heads/main.lock",
        ];
        let mut locks = Vec::new();
        for name in all {
            if self.random.bool() {
                let at = top.join(".git").join(name);
                self.put(&at, b"");
                locks.push(at);
            }
        }
        locks
    }

    /// Settings and files that say what git makes of files.
    fn settle(&mut self, top: &Path) {
        if self.random.bool() {
            let value = if self.random.bool() { "true" } else { "input" };
            self.git(top, &["config", "core.autocrlf", value]);
        }
        if self.random.bool() {
            self.put(
                &top.join(".gitattributes"),
                b"*.txt text eol=crlf\nMakefile text=auto\n*.bin filter=none\n",
            );
        }
        if self.random.bool() {
            self.put(&top.join(".gitignore"), b"ignored/\n*.o\n");
            self.put(&top.join("ignored/by git"), b"secret");
            self.put(&top.join("b.o"), b"object");
        }
    }

    /// A submodule of `top` at [`SUBMODULE`], of a repository that is made at `library`.
    fn submodule(&mut self, top: &Path, library: &Path) {
        std::fs::create_dir(library).unwrap();
        self.git(library, &["init", "-q", "-b", "main"]);
        self.history(library, 2);
        self.commit(library, "library");
        let library = library.to_str().unwrap();
        self.git(top, &["submodule", "add", "-q", library, SUBMODULE]);
        self.commit(top, "with a submodule");
    }

    /// Makes room for a file; false where something on the way is none.
    fn clear(&mut self, at: &Path) -> bool {
        self.remove(at);
        self.directory(at.parent().unwrap())
    }

    /// A repository as it goes into a VM: with a history, with work that is not committed, and some with a submodule, of a
    /// repository that is made at `library`.
    pub fn begin(&mut self, top: &Path, library: &Path) {
        std::fs::create_dir_all(top).unwrap();
        self.git(top, &["init", "-q", "-b", "main"]);
        self.settle(top);
        self.commit(top, "first");
        let steps = self.random.usize(1..5);
        self.history(top, steps);
        if self.random.u8(..3) == 0 {
            self.submodule(top, library);
        }
        self.uncommitted(top);
    }

    /// One step more, and work that is not committed.
    pub fn change(&mut self, top: &Path) {
        self.branches += 100;
        self.history(top, 1);
        self.uncommitted(top);
    }

    /// Goes on with a history where it was carried, in up to so many steps, and leaves it in some state. The locks come with
    /// that.
    pub fn go_on(&mut self, top: &Path, steps_max: usize) -> (Situation, Vec<PathBuf>) {
        self.branches += 100;
        let steps = self.random.usize(1..=steps_max);
        self.history(top, steps);
        let situation = self.leave(top);
        let locks = match situation {
            Situation::Locked => self.lock(top),
            _ => Vec::new(),
        };
        (situation, locks)
    }
}
