//! Applies what has landed to the owner's branch and working tree, when the owner asks for it.
//!
//! Before anything is changed it is made sure that nothing of the owner's is in the way: no file that has uncommitted
//! work is touched, not even where git was told not to look at it, and no file that git does not track, ignored ones among
//! them, is overwritten. Then a way back is written: a reference to the commit that was there, and one to a stash of the
//! uncommitted work. Hooks, filters and merge drivers do not run, whatever the repository's configuration says: they may be
//! files of the tree that comes.

mod foresight;
mod hidden;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use super::error::{Error, Result};
use super::land::publish::moment;
use super::land::transaction::Transaction;
use super::lines::{fields, path, shown, text};
use super::programs::{included, without_programs};
use super::render::{Format, Only, Work};
use super::repository::{LocalRepository, optional};
use super::store::{Store, vm_prefix};
use super::user;
use crate::command::{Ending, Git, GitError};
use crate::wire::path::is_beneath;

/// In a git directory: what is left to do where a cherry-pick of several commits has stopped. A reset does not end it.
const PICKS_LEFT: &str = "sequencer/todo";

/// How commits become the branch's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum How {
    /// Only if nothing was committed here meanwhile.
    #[default]
    FastForward,
    /// By a merge, where the histories have parted.
    Merge,
    /// Each commit anew upon what is here.
    Rebase,
    /// No commits: all changes together, staged.
    Patch,
}

/// What is applied, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How commits become the branch's.
    pub how: How,
    /// Leave uncommitted work of the VM where it is.
    pub commits_only: bool,
    /// To the branch that is checked out, though the VM had another of this repository's checked out.
    pub onto_current: bool,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// The commits were there already.
    Nothing,
    /// The branch moved forward.
    FastForwarded,
    /// A merge.
    Merged,
    /// The commits were made anew.
    Rebased,
    /// The changes are staged.
    Patched,
}

/// What was applied.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What became of the commits.
    pub commits: Done,
    /// Uncommitted work of the VM is in the working tree.
    pub uncommitted: bool,
    /// The branch or commit that it went to.
    pub onto: String,
    /// Paths in conflict, escaped; git waits for them to be resolved.
    pub conflicts: Vec<String>,
    /// The reference to the commit that was there.
    pub before: Option<String>,
    /// The reference to the stash of uncommitted work that was there.
    pub stash: Option<String>,
    /// Commands that lead back.
    pub way_back: Vec<String>,
    /// Commands that bring the VM's uncommitted work once the conflicts are resolved, where those kept it out.
    pub left_out: Vec<String>,
}

/// Applies what has landed from `vm`.
///
/// # Errors
/// [`Error::Refused`], with nothing changed, if something of the owner's is in the way; [`Error::Halfway`], with the
/// way back, if something may have been changed. What git cannot merge is no error: [`Applied::conflicts`].
pub fn apply(repository: &LocalRepository, vm: &str, options: Options) -> Result<Applied> {
    let store = Store::of(repository);
    let work = Work::of(&store, vm)?;
    let apply = Apply {
        git: users(repository)?,
        repository,
        store: &store,
        work: &work,
        vm,
        options,
    };
    apply.run()
}

struct Apply<'a> {
    git: Git,
    repository: &'a LocalRepository,
    store: &'a Store,
    work: &'a Work<'a>,
    vm: &'a str,
    options: Options,
}

impl Apply<'_> {
    fn run(mut self) -> Result<Applied> {
        self.check_idle()?;
        let onto = self.check_branch()?;
        let own = self.repository.commit("HEAD")?;
        let theirs = self.work.get("HEAD").map(str::to_owned);
        let plan = self.plan(own.as_deref(), theirs.as_deref())?;
        let uncommitted = self.uncommitted().filter(|_| plan != Done::Patched);
        let touched = self.touched(
            plan,
            own.as_deref(),
            theirs.as_deref(),
            uncommitted.as_deref(),
        )?;
        self.check_free(own.as_deref(), &touched)?;
        let mut applied = Applied {
            commits: plan,
            uncommitted: false,
            onto,
            conflicts: Vec::new(),
            before: None,
            stash: None,
            way_back: Vec::new(),
            left_out: Vec::new(),
        };
        if plan == Done::Nothing && uncommitted.is_none() {
            return Ok(applied);
        }
        self.check_hidden(&touched)?;
        self.keep(own.as_deref(), &mut applied)?;
        let changed = self.change(own.as_deref(), theirs.as_deref(), uncommitted, &mut applied);
        if self.repository.git_dir().join(PICKS_LEFT).exists() {
            let quit = "git cherry-pick --quit".to_owned();
            applied.way_back.insert(0, quit);
        }
        match changed {
            Ok(()) => Ok(applied),
            Err(error) if applied.way_back.is_empty() => Err(error),
            Err(error) => Err(Error::Halfway {
                way_back: applied.way_back,
                source: Box::new(error),
            }),
        }
    }

    /// Changes the branch, the index and the files.
    fn change(
        &self,
        own: Option<&str>,
        theirs: Option<&str>,
        uncommitted: Option<String>,
        applied: &mut Applied,
    ) -> Result<()> {
        let plan = applied.commits;
        self.commits(plan, own, theirs)?;
        applied.conflicts = self.conflicts()?;
        match uncommitted {
            None => applied.uncommitted = plan == Done::Patched,
            Some(_) if !applied.conflicts.is_empty() => {
                let stash = format!("{}state/worktree", vm_prefix(self.vm)?);
                let bring = format!("git stash apply --index {stash}");
                applied.left_out.push(bring);
            }
            Some(stash) => {
                self.unstash(&stash)?;
                applied.uncommitted = true;
                applied.conflicts = self.conflicts()?;
            }
        }
        Ok(())
    }

    /// Nothing is going on that would have to end first.
    fn check_idle(&self) -> Result<()> {
        let signs = [
            ("MERGE_HEAD", "a merge"),
            ("CHERRY_PICK_HEAD", "a cherry-pick"),
            ("REVERT_HEAD", "a revert"),
            (PICKS_LEFT, "a cherry-pick or a revert"),
            ("rebase-merge", "a rebase"),
            ("rebase-apply", "a rebase"),
        ];
        let git_dir = self.repository.git_dir();
        match signs.iter().find(|(sign, _)| git_dir.join(sign).exists()) {
            None => Ok(()),
            Some((_, what)) => Err(Error::Refused {
                problem: format!(
                    "{what} is going on in `{}`",
                    self.repository.top().display()
                ),
                remedy: "End it first (`git status` says how), then apply again.".to_owned(),
                paths: Vec::new(),
            }),
        }
    }

    /// The branch that is checked out here is the one that was in the VM, or the VM's is new.
    fn check_branch(&self) -> Result<String> {
        let here = self.repository.head_ref()?;
        let name = format!("{}state/landing:head", vm_prefix(self.vm)?);
        let there = text(&self.store.blob(&name)?.unwrap_or_default());
        let is_other = !there.is_empty()
            && here.as_deref() != Some(&there)
            && self.repository.resolve(&there)?.is_some();
        let short = |name: &str| name.strip_prefix("refs/heads/").unwrap_or(name).to_owned();
        let onto = here.as_deref().map_or_else(|| "HEAD".to_owned(), short);
        if !is_other || self.options.onto_current {
            return Ok(onto);
        }
        let branch = short(&there);
        Err(Error::Refused {
            problem: format!(
                "the VM worked on branch `{branch}`, and `{onto}` is checked out here"
            ),
            remedy: format!(
                "Change to it (`git switch {branch}`), or apply to `{onto}` with --onto-current."
            ),
            paths: Vec::new(),
        })
    }

    fn plan(&self, own: Option<&str>, theirs: Option<&str>) -> Result<Done> {
        if self.options.how == How::Patch {
            return Ok(Done::Patched);
        }
        let (Some(own), Some(theirs)) = (own, theirs) else {
            return Ok(match theirs {
                Some(_) => Done::FastForwarded,
                None => Done::Nothing,
            });
        };
        let is_ancestor = |one: &str, other: &str| {
            let asked = self.git.test(&["merge-base", "--is-ancestor", one, other]);
            asked.map_err(Error::git("compare the histories"))
        };
        if is_ancestor(theirs, own)? {
            return Ok(Done::Nothing);
        }
        if is_ancestor(own, theirs)? {
            return Ok(Done::FastForwarded);
        }
        match self.options.how {
            How::Merge => Ok(Done::Merged),
            How::Rebase => self.check_linear(own, theirs).map(|()| Done::Rebased),
            How::FastForward | How::Patch => Err(Error::Refused {
                problem: format!("there are commits here that VM `{}` has not", self.vm),
                remedy: "Choose how both become one: --merge, --rebase, or --patch for the changes without the commits.".to_owned(),
                paths: Vec::new(),
            }),
        }
    }

    fn check_linear(&self, own: &str, theirs: &str) -> Result<()> {
        let range = format!("{own}..{theirs}");
        let merges = self.git.run(&["rev-list", "--merges", "-1", &range]);
        match merges.map_err(Error::git("read the history"))?.is_empty() {
            true => Ok(()),
            false => Err(Error::Refused {
                problem: "the VM's commits have merges among them, which a rebase would lose"
                    .to_owned(),
                remedy: "Use --merge.".to_owned(),
                paths: Vec::new(),
            }),
        }
    }

    fn uncommitted(&self) -> Option<String> {
        let stash = self.work.get("state/worktree");
        stash
            .filter(|_| !self.options.commits_only)
            .map(str::to_owned)
    }

    /// Nothing of the owner's is where something would be written.
    fn check_free(&self, own: Option<&str>, touched: &BTreeSet<Vec<u8>>) -> Result<()> {
        self.check_included(touched)?;
        let dirty = self.dirty(own)?;
        let changed: Vec<&Vec<u8>> = touched.intersection(&dirty).collect();
        if !changed.is_empty() {
            return Err(Error::Refused {
                problem: "files that would be changed have uncommitted changes here".to_owned(),
                remedy: "Commit or stash them (`git stash`), then apply again.".to_owned(),
                paths: changed.into_iter().map(|path| shown(path)).collect(),
            });
        }
        let in_the_way = self.in_the_way(touched)?;
        match in_the_way.is_empty() {
            true => Ok(()),
            false => Err(Error::Refused {
                problem: "files that git does not track here are where files of the VM go"
                    .to_owned(),
                remedy: "Move or remove them, then apply again.".to_owned(),
                paths: in_the_way,
            }),
        }
    }

    /// What the configuration reads stays as it is: another one could name programs to each git that comes after.
    fn check_included(&self, touched: &BTreeSet<Vec<u8>>) -> Result<()> {
        let changed = included(self.repository)?.into_iter();
        let changed = changed.filter(|file| {
            let mut touched = touched.iter();
            touched.any(|at| at == file || is_beneath(file, at))
        });
        let paths: Vec<String> = changed.map(|file| shown(&file)).collect();
        match paths.is_empty() {
            true => Ok(()),
            false => Err(Error::Refused {
                problem: "files that your configuration includes would be changed, and can name programs that git runs"
                    .to_owned(),
                remedy: "Look at the change. To take it, let the configuration not include them (`git config --unset include.path`), apply, and include them again.".to_owned(),
                paths,
            }),
        }
    }

    fn merge_base(&self, one: &str, other: &str) -> Result<String> {
        let base = optional(
            self.git.line(&["merge-base", one, other]),
            "compare the histories",
        )?;
        Ok(base.unwrap_or_default())
    }

    /// The paths in which two trees differ; nothing is the empty tree.
    fn between(&self, from: &str, until: &str) -> Result<Vec<Vec<u8>>> {
        let listed = match from {
            "" => self.git.run(&["ls-tree", "-r", "-z", "--name-only", until]),
            from => self.git.run(&[
                "diff-tree",
                "-r",
                "-z",
                "--name-only",
                "--no-renames",
                from,
                until,
            ]),
        };
        let listed = listed.map_err(Error::git("compare two trees"))?;
        Ok(fields(&listed).map(<[u8]>::to_vec).collect())
    }

    /// Tracked paths with uncommitted work.
    fn dirty(&self, own: Option<&str>) -> Result<BTreeSet<Vec<u8>>> {
        let mut words = vec![
            "diff",
            "-z",
            "--name-only",
            "--no-renames",
            "--no-ext-diff",
            "--ignore-submodules=dirty",
        ];
        words.push(own.unwrap_or("--cached"));
        let listed = self.git.run(&words);
        let listed = listed.map_err(Error::git("look for uncommitted work"))?;
        Ok(fields(&listed).map(<[u8]>::to_vec).collect())
    }

    /// Files that are there and not tracked, at paths or where a directory of them must be.
    fn in_the_way(&self, touched: &BTreeSet<Vec<u8>>) -> Result<Vec<String>> {
        let listed = self.git.run(&["ls-files", "-z"]);
        let listed = listed.map_err(Error::git("read the index"))?;
        let tracked: BTreeSet<&[u8]> = fields(&listed).collect();
        let top = self.repository.top();
        let mut found = BTreeSet::new();
        for at in touched {
            let ends = at.iter().enumerate();
            let ends = ends.filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
            let above = ends.map(|end| &at[..end]);
            for above in above {
                let is_leaf = top.join(path(above)).symlink_metadata();
                if is_leaf.is_ok_and(|metadata| !metadata.is_dir()) && !tracked.contains(above) {
                    found.insert(shown(above));
                }
            }
            if tracked.contains(&at[..]) {
                continue;
            }
            match top.join(path(at)).symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    if has_untracked(top, at, &tracked) {
                        found.insert(shown(at));
                    }
                }
                Ok(_) => drop(found.insert(shown(at))),
                Err(_) => {}
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Writes the way back.
    fn keep(&self, own: Option<&str>, applied: &mut Applied) -> Result<()> {
        let Some(own) = own else {
            return Ok(());
        };
        let prefix = vm_prefix(self.vm)?;
        let now = moment(self.store, &prefix)?;
        let head = format!("{prefix}before/{now}/head");
        let mut refs = Transaction::default();
        refs.line("create", &head, &[own]);
        let made = self
            .git
            .line(&["stash", "create", "before an apply of banger"]);
        let made = made.map_err(Error::git("stash your uncommitted work"))?;
        applied.way_back.push(format!("git reset --hard {head}"));
        if !made.is_empty() {
            let stash = format!("{prefix}before/{now}/stash");
            refs.line("create", &stash, &[&made]);
            applied
                .way_back
                .push(format!("git stash apply --index {stash}"));
            applied.stash = Some(stash);
        }
        refs.run(self.store)?;
        applied.before = Some(head);
        Ok(())
    }

    fn commits(&self, plan: Done, own: Option<&str>, theirs: Option<&str>) -> Result<()> {
        let theirs = theirs.unwrap_or_default();
        let message = format!("Merge the work of VM {}", self.vm);
        let range = format!("{}..{theirs}", own.unwrap_or_default());
        let words: &[&str] = match plan {
            Done::Nothing => return Ok(()),
            Done::Patched => return self.patch(),
            Done::FastForwarded => &[
                "merge",
                "--ff-only",
                "--no-stat",
                "--no-overwrite-ignore",
                "--quiet",
                theirs,
            ],
            Done::Merged => &[
                "merge",
                "--no-ff",
                "--no-edit",
                "--no-stat",
                "--quiet",
                "-m",
                &message,
                theirs,
            ],
            Done::Rebased => &[
                "cherry-pick",
                "--allow-empty",
                "--keep-redundant-commits",
                &range,
            ],
        };
        self.unless_conflict(self.git.run(words), "apply the commits")
    }

    fn patch_end(&self) -> String {
        let tree = match self.options.commits_only {
            true => None,
            false => self.work.get("state/tree"),
        };
        tree.or_else(|| self.work.get("HEAD"))
            .unwrap_or_default()
            .to_owned()
    }

    fn patch_base(&self, own: Option<&str>) -> Result<String> {
        match (self.work.base(), own, self.work.get("HEAD")) {
            ("", Some(own), Some(theirs)) => self.merge_base(own, theirs),
            (base, ..) => Ok(base.to_owned()),
        }
    }

    fn patch(&self) -> Result<()> {
        let only = match self.options.commits_only {
            true => Only::Commits,
            false => Only::All,
        };
        let mut patch = Vec::new();
        self.work.write(Format::Patch, only, &mut patch)?;
        if patch.is_empty() {
            return Ok(());
        }
        let words = ["apply", "--3way", "--whitespace=nowarn", "-"];
        let applied = self
            .git
            .feed(&words, |input: &mut dyn Write| input.write_all(&patch));
        self.unless_conflict(applied, "apply the patch")
    }

    /// Puts uncommitted work into the index and the working tree, as it was in the VM.
    fn unstash(&self, stash: &str) -> Result<()> {
        let with_index = self
            .git
            .run(&["stash", "apply", "--quiet", "--index", stash]);
        match with_index {
            Ok(_) => Ok(()),
            // What was staged cannot be staged here: it is changed only.
            Err(GitError::Failed { .. }) if self.conflicts()?.is_empty() => {
                let without = self.git.run(&["stash", "apply", "--quiet", stash]);
                self.unless_conflict(without, "apply uncommitted work")
            }
            failed => self.unless_conflict(failed, "apply uncommitted work"),
        }
    }

    fn unless_conflict(
        &self,
        ended: std::result::Result<Vec<u8>, GitError>,
        what: &'static str,
    ) -> Result<()> {
        match ended {
            Ok(_) => Ok(()),
            Err(GitError::Failed {
                ending: Ending::Code(1),
                ..
            }) if !self.conflicts()?.is_empty() => Ok(()),
            Err(source) => Err(Error::Git { what, source }),
        }
    }

    fn conflicts(&self) -> Result<Vec<String>> {
        let listed = self.git.run(&[
            "diff",
            "-z",
            "--name-only",
            "--diff-filter=U",
            "--no-ext-diff",
        ]);
        let listed = listed.map_err(Error::git("look for conflicts"))?;
        let mut found: Vec<String> = fields(&listed).map(shown).collect();
        found.dedup();
        Ok(found)
    }
}

/// Whether a directory has files that are not tracked.
fn has_untracked(top: &Path, at: &[u8], tracked: &BTreeSet<&[u8]>) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let names = std::fs::read_dir(top.join(path(at)));
    let mut names = names.into_iter().flatten().flatten();
    names.any(|entry| {
        let inside = [at, b"/", entry.file_name().as_bytes()].concat();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => has_untracked(top, &inside, tracked),
            _ => !tracked.contains(&inside[..]),
        }
    })
}

/// git that may change the owner's tree: as the owner, and with no program of the configuration's.
fn users(repository: &LocalRepository) -> Result<Git> {
    let told = user::identity(repository)?;
    let nobody = || ("banger".to_owned(), "banger@localhost".to_owned());
    let (name, address) = told.unwrap_or_else(nobody);
    let mut git = without_programs(repository.git().clone())?;
    for who in ["AUTHOR", "COMMITTER"] {
        git = git
            .with_env(format!("GIT_{who}_NAME"), &name)
            .with_env(format!("GIT_{who}_EMAIL"), &address);
    }
    Ok(git)
}
