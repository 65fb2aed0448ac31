//! Which paths an apply would write to, found before it writes.
//!
//! What differs between the first and the last tree is not all. A commit in between may make a file that a later one
//! removes; and git carries a change to where a file, or its directory, was renamed on the other side. So each merge that
//! git would make is made before, among objects alone.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use super::{Apply, Done};
use crate::client::error::{Error, Result};
use crate::client::lines::{fields, text};
use crate::command::{Ending, GitError};

/// More than the name of an object takes.
const ID_MAX_BYTES: u64 = 128;

/// A commit that is made anew, with the one before it; none is before the first of a history.
struct Pick {
    parent: Option<String>,
    commit: String,
}

impl Apply<'_> {
    /// The paths that the plan would write to.
    ///
    /// Where git cannot tell, because it is older than 2.38 or the histories have nothing in common, changes must not
    /// follow directories that were renamed, and may follow each file that was changed here.
    pub(super) fn touched(
        &mut self,
        plan: Done,
        own: Option<&str>,
        theirs: Option<&str>,
        stash: Option<&str>,
    ) -> Result<BTreeSet<Vec<u8>>> {
        let picks = match (plan, own) {
            (Done::Rebased, Some(own)) => self.picks(own, theirs.unwrap_or_default())?,
            _ => Vec::new(),
        };
        let mut touched = self.differing(plan, own, theirs, &picks)?;
        if let Some(stash) = stash {
            touched.extend(self.between(&format!("{stash}^1"), stash)?);
            if let Some(untracked) = self.repository.resolve(&format!("{stash}^3"))? {
                touched.extend(self.between("", &untracked)?);
            }
        }
        let Some(own) = own.filter(|_| plan != Done::Patched) else {
            return Ok(touched);
        };
        if let Some(written) = self.written(plan, own, theirs.unwrap_or_default(), picks, stash)? {
            touched.extend(written);
            return Ok(touched);
        }
        let git = self.git.clone();
        self.git = git.with_setting("merge.directoryRenames=false");
        let base = match theirs {
            Some(theirs) => self.merge_base(own, theirs)?,
            None => String::new(),
        };
        touched.extend(self.between(&base, own)?);
        Ok(touched)
    }

    /// What the commits change, wherever it goes.
    fn differing(
        &self,
        plan: Done,
        own: Option<&str>,
        theirs: Option<&str>,
        picks: &[Pick],
    ) -> Result<BTreeSet<Vec<u8>>> {
        let theirs = theirs.unwrap_or_default();
        let listed = match plan {
            Done::Nothing => Vec::new(),
            Done::Patched => self.between(&self.patch_base(own)?, &self.patch_end())?,
            Done::Rebased => self.changed_by_each(picks)?,
            Done::FastForwarded | Done::Merged => {
                let base = match own {
                    Some(own) => self.merge_base(own, theirs)?,
                    None => String::new(),
                };
                self.between(&base, theirs)?
            }
        };
        Ok(listed.into_iter().collect())
    }

    /// The commits that a rebase makes anew, the first one first.
    fn picks(&self, own: &str, theirs: &str) -> Result<Vec<Pick>> {
        let range = format!("{own}..{theirs}");
        let words = ["rev-list", "--reverse", "--parents", &range];
        let listed = self.git.run(&words);
        let listed = text(&listed.map_err(Error::git("read the history"))?);
        let pick = |line: &str| {
            let mut ids = line.split(' ').map(str::to_owned);
            let commit = ids.next()?;
            let parent = ids.next();
            Some(Pick { parent, commit })
        };
        Ok(listed.lines().filter_map(pick).collect())
    }

    /// The paths that any of the commits changes.
    fn changed_by_each(&self, picks: &[Pick]) -> Result<Vec<Vec<u8>>> {
        let words = [
            "diff-tree",
            "--stdin",
            "--root",
            "-r",
            "-z",
            "--name-only",
            "--no-renames",
            "--no-commit-id",
        ];
        let feed = |input: &mut dyn Write| {
            let mut input = io::BufWriter::new(input);
            for pick in picks {
                writeln!(input, "{}", pick.commit)?;
            }
            input.flush()
        };
        let listed = self.git.feed(&words, feed);
        let listed = listed.map_err(Error::git("read what each commit changes"))?;
        Ok(fields(&listed).map(<[u8]>::to_vec).collect())
    }

    /// The paths that git writes to as it merges, one merge after the other; none where it cannot tell.
    fn written(
        &self,
        plan: Done,
        own: &str,
        theirs: &str,
        picks: Vec<Pick>,
        stash: Option<&str>,
    ) -> Result<Option<BTreeSet<Vec<u8>>>> {
        let mut written = BTreeSet::new();
        let mut now = match plan {
            Done::FastForwarded => theirs.to_owned(),
            _ => own.to_owned(),
        };
        if plan == Done::Merged {
            let Some(tree) = self.merged(own, theirs)? else {
                return Ok(None);
            };
            written.extend(self.between(&now, &tree)?);
            now = tree;
        }
        let uncommitted = stash.map(|stash| Pick {
            parent: Some(format!("{stash}^1")),
            commit: stash.to_owned(),
        });
        for Pick { parent, commit } in picks.into_iter().chain(uncommitted) {
            let Some(parent) = parent else {
                return Ok(None);
            };
            // What is there, as if it had been made of the parent: this makes the parent what both have in common.
            let tree = format!("{now}^{{tree}}");
            let words = ["commit-tree", "-p", &parent, "-m", "before a pick", &tree];
            let ours = self.git.line(&words);
            let ours = ours.map_err(Error::git("foresee a merge"))?;
            let Some(tree) = self.merged(&ours, &commit)? else {
                return Ok(None);
            };
            written.extend(self.between(&now, &tree)?);
            now = tree;
        }
        Ok(Some(written))
    }

    /// The tree that git makes of two commits, with files in conflict as it leaves them; none where it cannot tell.
    fn merged(&self, ours: &str, theirs: &str) -> Result<Option<String>> {
        let words = [
            "merge-tree",
            "--write-tree",
            "-z",
            "--name-only",
            "--no-messages",
            ours,
            theirs,
        ];
        let mut said = Vec::new();
        let read = |output: &mut dyn Read| {
            output.take(ID_MAX_BYTES).read_to_end(&mut said)?;
            // The paths in conflict: the tree has them.
            io::copy(output, &mut io::sink())
        };
        match self.git.pipe(&words, |_| Ok(()), read) {
            Ok(_)
            | Err(GitError::Failed {
                ending: Ending::Code(1),
                ..
            }) => Ok(fields(&said).next().map(text)),
            Err(GitError::Failed {
                ending: Ending::Code(_),
                ..
            }) => Ok(None),
            Err(source) => Err(Error::git("foresee a merge")(source)),
        }
    }
}
