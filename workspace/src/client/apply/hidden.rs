//! Changes that the owner hides from git: `git update-index --assume-unchanged` and `--skip-worktree`.
//!
//! git neither tells them nor keeps them in a stash. A reset, which is the way back of an apply, takes those of files that
//! are assumed to be unchanged, and a merge may take those of files that it writes to.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use super::Apply;
use crate::client::error::{Error, Result};
use crate::client::lines::{fields, path, shown};

const WHAT: &str = "look for changes that are hidden from git";

/// What the index hides.
#[derive(Debug, Default)]
struct Hidden {
    /// Assumed to be unchanged.
    assumed: BTreeSet<Vec<u8>>,
    /// Not to be in the working tree, and there all the same.
    skipped: BTreeSet<Vec<u8>>,
}

/// A copy of the index, which goes with the value.
struct Copied(PathBuf);

impl Drop for Copied {
    fn drop(&mut self) {
        // One that stays costs room, and nothing else.
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(self.0.with_extension("lock"));
    }
}

impl Apply<'_> {
    /// No change that is hidden from git would be lost by what is `touched`, or by the way back.
    pub(super) fn check_hidden(&self, touched: &BTreeSet<Vec<u8>>) -> Result<()> {
        let hidden = self.hidden()?;
        let skipped = hidden.skipped.into_iter();
        let skipped = skipped.filter(|path| touched.contains(path));
        let at_risk: BTreeSet<Vec<u8>> = hidden.assumed.into_iter().chain(skipped).collect();
        if at_risk.is_empty() {
            return Ok(());
        }
        let changed = self.changed(&at_risk)?;
        match changed.is_empty() {
            true => Ok(()),
            false => Err(Error::Refused {
                problem: "files have changes here that git was told not to look at (`git update-index --assume-unchanged` or `--skip-worktree`), and an apply, or the way back, would take them".to_owned(),
                remedy: "Let git see them (`git update-index --no-assume-unchanged --no-skip-worktree FILE`), commit or stash them, then apply again.".to_owned(),
                paths: changed,
            }),
        }
    }

    fn hidden(&self) -> Result<Hidden> {
        let listed = self.git.run(&["ls-files", "-v", "-z"]);
        let listed = listed.map_err(Error::git(WHAT))?;
        let mut hidden = Hidden::default();
        for entry in fields(&listed) {
            // A tag, a space, the path.
            let (Some(tag), Some(name)) = (entry.first(), entry.get(2..)) else {
                continue;
            };
            let is_there = || {
                let at = self.repository.top().join(path(name));
                at.symlink_metadata().is_ok()
            };
            if tag.is_ascii_lowercase() {
                hidden.assumed.insert(name.to_vec());
            } else if *tag == b'S' && is_there() {
                hidden.skipped.insert(name.to_vec());
            }
        }
        Ok(hidden)
    }

    /// Those of the paths that are not as the index says, escaped. A copy of it shows them.
    fn changed(&self, paths: &BTreeSet<Vec<u8>>) -> Result<Vec<String>> {
        let index = self.repository.git_dir().join("index");
        let own = self.store.own_directory();
        let copied = Copied(own.join(format!("index-{}", uuid::Uuid::new_v4())));
        let made = fs::create_dir_all(&own).and_then(|()| fs::copy(&index, &copied.0));
        made.map_err(Error::file("copy", &index))?;
        let git = self.git.clone().with_index(&copied.0);
        for shown in ["--no-assume-unchanged", "--no-skip-worktree"] {
            let feed = |input: &mut dyn Write| terminated(input, paths);
            let words = ["update-index", "-z", shown, "--stdin"];
            git.feed(&words, feed).map_err(Error::git(WHAT))?;
        }
        // It fails where files differ, which is what is looked for.
        git.test(&["update-index", "-q", "--refresh"])
            .map_err(Error::git(WHAT))?;
        let words = ["diff-files", "-z", "--name-only", "--ignore-submodules=all"];
        let listed = git.run(&words).map_err(Error::git(WHAT))?;
        let changed = fields(&listed).filter(|path| paths.contains(*path));
        Ok(changed.map(shown).collect())
    }
}

fn terminated(to: &mut dyn Write, paths: &BTreeSet<Vec<u8>>) -> io::Result<()> {
    let mut to = io::BufWriter::new(to);
    for path in paths {
        to.write_all(path)?;
        to.write_all(b"\0")?;
    }
    to.flush()
}
