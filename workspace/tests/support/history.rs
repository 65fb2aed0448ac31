//! Random histories, and random work in a repository: all that people and their tools do, some of it on purpose odd.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::{Bench, commit, git, try_git, write};

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
pub(crate) const SUBMODULE: &str = "sub module";
/// A repository that is made inside.
const INSIDE: &str = "made inside";
/// A large file; most are far smaller.
const LARGE_BYTES: usize = 6 << 20;

/// In which state somebody left a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Situation {
    Usual,
    Merging,
    Rebasing,
    CherryPicking,
    Reverting,
    Detached,
    /// On a branch that has no commit yet.
    Orphan,
    /// Everything in one pack, references too, logs gone.
    Packed,
    /// A repository is inside that was not there.
    RepositoryInside,
    /// Somebody committed in the submodule, or removed it.
    InSubmodule,
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
pub(crate) struct Case {
    pub(crate) random: fastrand::Rng,
    pub(crate) branches: u32,
}

impl Case {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            branches: 0,
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
    pub(crate) fn work(&mut self, top: &Path) {
        for _ in 0..self.random.usize(1..6) {
            let name = self.name();
            let at = top.join(&name);
            match self.random.u8(..10) {
                0 => remove(&at),
                1 => {
                    if clear(top, &name) {
                        symlink("nowhere/../in particular", &at).unwrap();
                    }
                }
                2 => {
                    let other = top.join(self.name());
                    if at.is_file() && other.symlink_metadata().is_err() {
                        let made = std::fs::create_dir_all(other.parent().unwrap());
                        if made.is_ok() {
                            std::fs::rename(&at, &other).unwrap();
                        }
                    }
                }
                3 => {
                    if at
                        .symlink_metadata()
                        .is_ok_and(|metadata| metadata.is_file())
                    {
                        let mode = if self.random.bool() { 0o755 } else { 0o644 };
                        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(mode))
                            .unwrap();
                    }
                }
                _ => {
                    if clear(top, &name) {
                        let content = self.content();
                        std::fs::write(&at, content).unwrap();
                    }
                }
            }
        }
    }

    /// Works, and commits: on branches, with merges, tags, amended, reset, rebased and stashed commits.
    pub(crate) fn history(&mut self, top: &Path, steps: usize) {
        for step in 0..steps {
            self.work(top);
            match self.random.u8(..10) {
                0 => {
                    commit(top, "before a branch");
                    self.branches += 1;
                    let name = format!("topic/{}", self.branches);
                    git(top, &["switch", "-q", "-c", &name]);
                }
                1 => self.merge(top),
                2 => {
                    commit(top, "tagged");
                    let name = format!("tag-{step}-{}", self.random.u32(..));
                    git(top, &["tag", "-a", "-m", "a tag", &name]);
                }
                3 => {
                    commit(top, "to be amended");
                    self.work(top);
                    git(top, &["add", "-A"]);
                    git(
                        top,
                        &["commit", "-q", "--amend", "--allow-empty", "-m", "amended"],
                    );
                }
                4 => {
                    commit(top, "to be reset");
                    let _ = try_git(top, &["reset", "-q", "--hard", "HEAD~1"]);
                }
                5 => {
                    commit(top, "detached next");
                    git(top, &["checkout", "-q", "--detach"]);
                    self.work(top);
                    commit(top, "detached");
                    let _ = try_git(top, &["checkout", "-q", "-"]);
                }
                6 => {
                    commit(top, "stashed next");
                    self.work(top);
                    let _ = try_git(top, &["stash", "push", "-q", "--include-untracked"]);
                }
                7 => {
                    commit(top, "rebased next");
                    let upon = format!("HEAD~{}", self.random.u8(1..4));
                    if try_git(top, &["rebase", "-q", "--force-rebase", &upon]).is_err() {
                        let _ = try_git(top, &["rebase", "--abort"]);
                    }
                }
                _ => drop(commit(top, &format!("step {step}"))),
            }
        }
    }

    fn merge(&mut self, top: &Path) {
        commit(top, "before a merge");
        let branches = git(top, &["branch", "--format=%(refname:short)"]);
        let branches: Vec<&str> = branches
            .lines()
            .filter(|name| !name.starts_with('('))
            .collect();
        if branches.is_empty() {
            return;
        }
        let other = branches[self.random.usize(..branches.len())];
        if try_git(top, &["merge", "-q", "--no-ff", "-m", "merge", other]).is_err() {
            // A conflict is resolved as it lies.
            git(top, &["add", "-A"]);
            let _ = try_git(top, &["commit", "-q", "-m", "merge with conflicts"]);
            let _ = try_git(top, &["merge", "--abort"]);
        }
    }

    /// Leaves work uncommitted: staged, not staged, not tracked, ignored, empty directories.
    pub(crate) fn uncommitted(&mut self, top: &Path) {
        if self.random.bool() {
            self.work(top);
            git(top, &["add", "-A"]);
        }
        if self.random.bool() {
            self.work(top);
        }
        if self.random.bool() && top.join("empty").symlink_metadata().is_err() {
            std::fs::create_dir_all(top.join("empty/inside")).unwrap();
        }
    }

    /// Leaves a repository in some state, uncommitted work included. Locks come by [`Self::lock`].
    pub(crate) fn leave(&mut self, top: &Path) -> Situation {
        let situation = Situation::ALL[self.random.usize(..Situation::ALL.len())];
        match situation {
            Situation::Merging => self.conflict(top, &["merge", "-q", "--no-commit", "contest"]),
            Situation::Rebasing => self.conflict(top, &["rebase", "-q", "contest"]),
            Situation::CherryPicking => self.conflict(top, &["cherry-pick", "contest"]),
            Situation::Reverting => self.conflict(top, &["revert", "--no-edit", "contest~1"]),
            Situation::Detached => {
                commit(top, "detached next");
                git(top, &["checkout", "-q", "--detach"]);
                self.history(top, 2);
                self.uncommitted(top);
            }
            Situation::Orphan => {
                commit(top, "orphan next");
                git(top, &["checkout", "-q", "--orphan", "orphan"]);
                self.work(top);
            }
            Situation::Packed => {
                self.uncommitted(top);
                git(top, &["pack-refs", "--all"]);
                git(top, &["reflog", "expire", "--expire=now", "--all"]);
                git(top, &["gc", "-q", "--prune=now"]);
            }
            Situation::RepositoryInside => {
                self.uncommitted(top);
                let inside = top.join(INSIDE);
                std::fs::create_dir_all(&inside).unwrap();
                git(&inside, &["init", "-q", "-b", "inside"]);
                let steps = self.random.usize(1..3);
                commit(&inside, "inside");
                self.history(&inside, steps);
                self.uncommitted(&inside);
            }
            Situation::InSubmodule => {
                let inside = top.join(SUBMODULE);
                if inside.join(".git").exists() {
                    git(&inside, &["checkout", "-q", "-B", "work"]);
                    self.history(&inside, 2);
                    self.uncommitted(&inside);
                }
                self.uncommitted(top);
            }
            Situation::Deleted => {
                self.uncommitted(top);
                std::fs::remove_dir_all(top.join(".git")).unwrap();
                self.work(top);
            }
            Situation::MadeAnew => {
                std::fs::remove_dir_all(top.join(".git")).unwrap();
                git(top, &["init", "-q", "-b", "anew"]);
                commit(top, "anew");
                self.history(top, 1);
                self.uncommitted(top);
            }
            Situation::Usual | Situation::Locked => self.uncommitted(top),
        }
        situation
    }

    /// Leaves something unfinished, mostly in conflict, sometimes with more work on top.
    fn conflict(&mut self, top: &Path, unfinished: &[&str]) {
        write(top, "contested", "base\n");
        commit(top, "before the contest");
        git(top, &["branch", "-f", "contest"]);
        write(top, "contested", "ours\n");
        self.work(top);
        commit(top, "ours");
        let ours = git(top, &["rev-parse", "HEAD"]);
        git(top, &["checkout", "-q", "-f", "contest"]);
        git(top, &["clean", "-q", "-f", "-d"]);
        write(top, "contested", "theirs\n");
        self.work(top);
        commit(top, "theirs");
        write(top, "contested", "theirs again\n");
        commit(top, "theirs again");
        git(top, &["checkout", "-q", "-f", "-B", "ours", &ours]);
        git(top, &["clean", "-q", "-f", "-d"]);
        let _ = try_git(top, unfinished);
        match self.random.u8(..4) {
            0 => self.work(top),
            1 => drop(try_git(top, &["add", "-A"])),
            _ => {}
        }
    }

    /// Locks, as somebody leaves them who is ended in the middle.
    pub(crate) fn lock(&mut self, top: &Path) -> Vec<PathBuf> {
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
                std::fs::create_dir_all(at.parent().unwrap()).unwrap();
                std::fs::write(&at, "").unwrap();
                locks.push(at);
            }
        }
        locks
    }

    /// Settings and files that say what git makes of files.
    pub(crate) fn settle(&mut self, top: &Path) {
        if self.random.bool() {
            let value = if self.random.bool() { "true" } else { "input" };
            git(top, &["config", "core.autocrlf", value]);
        }
        if self.random.bool() {
            write(
                top,
                ".gitattributes",
                "*.txt text eol=crlf\nMakefile text=auto\n*.bin filter=none\n",
            );
        }
        if self.random.bool() {
            write(top, ".gitignore", "ignored/\n*.o\n");
            write(top, "ignored/by git", "secret");
            write(top, "b.o", "object");
        }
    }

    /// A submodule at [`SUBMODULE`].
    pub(crate) fn submodule(&mut self, bench: &Bench) {
        let library = bench.directory.path().join("library");
        std::fs::create_dir(&library).unwrap();
        git(&library, &["init", "-q", "-b", "main"]);
        self.history(&library, 2);
        commit(&library, "library");
        let library = library.display().to_string();
        git(
            &bench.here,
            &["submodule", "add", "-q", &library, SUBMODULE],
        );
        commit(&bench.here, "with a submodule");
    }
}

fn remove(at: &Path) {
    match at.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(at).unwrap(),
        Ok(_) => std::fs::remove_file(at).unwrap(),
        Err(_) => {}
    }
}

/// Makes room for a file; false where something on the way is none.
fn clear(top: &Path, name: &OsString) -> bool {
    let at = top.join(name);
    remove(&at);
    std::fs::create_dir_all(at.parent().unwrap()).is_ok()
}
