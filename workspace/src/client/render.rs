//! What has landed, in forms that other programs take.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};

use super::error::{Error, Result};
use super::lines::{fields, text};
use super::store::{Store, vm_prefix};
use crate::command::GitError;
use crate::wire::ObjectFormat;

const WHAT: &str = "write what was exported";

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The commits since the base, as a git bundle.
    Bundle,
    /// All changes since the base, as one binary-safe patch.
    Patch,
    /// How much was changed in which files.
    Diffstat,
}

/// Which part of the work is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Only {
    /// All of it.
    #[default]
    All,
    /// What was committed.
    Commits,
    /// What was staged and not committed.
    Staged,
    /// What was changed in tracked files and not staged.
    Unstaged,
    /// Files that are not tracked.
    Untracked,
}

/// What has landed from a VM.
#[derive(Debug)]
pub struct Work<'a> {
    store: &'a Store,
    prefix: String,
    refs: BTreeMap<String, String>,
    base: String,
}

impl<'a> Work<'a> {
    /// What has landed from `vm`.
    ///
    /// # Errors
    /// If nothing has.
    pub fn of(store: &'a Store, vm: &str) -> Result<Self> {
        let prefix = vm_prefix(vm)?;
        let refs = store.refs(&prefix)?.into_iter();
        let refs: BTreeMap<String, String> = refs
            .map(|(name, id)| (name[prefix.len()..].to_owned(), id))
            .collect();
        if !refs.contains_key("state/landing") {
            return Err(Error::NothingLanded { vm: vm.to_owned() });
        }
        let base = store.blob(&format!("{prefix}state/landing:base"))?;
        Ok(Self {
            base: text(&base.unwrap_or_default()),
            store,
            prefix,
            refs,
        })
    }

    /// What one of its references leads to, by its name beneath the VM's.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.refs.get(name).map(String::as_str)
    }

    /// The commit that the workspace was prepared at; empty if that is not known.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    fn empty(&self) -> &'static str {
        match self.store.format() {
            ObjectFormat::Sha256 => {
                "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
            }
            ObjectFormat::Unspecified | ObjectFormat::Sha1 => {
                "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
            }
        }
    }

    /// The two trees between which a part of the work lies.
    fn ends(&self, only: Only) -> (String, String) {
        let empty = self.empty();
        let base = match self.base.is_empty() {
            true => empty,
            false => &self.base,
        };
        let head = self.get("HEAD").unwrap_or(base);
        let index = self.get("state/index").unwrap_or(head);
        let worktree = self.get("state/worktree").unwrap_or(index);
        let tree = self.get("state/tree").unwrap_or(head);
        let (from, to) = match only {
            Only::All => (base, tree),
            Only::Commits => (base, head),
            Only::Staged => (head, index),
            Only::Unstaged => (index, worktree),
            Only::Untracked => (worktree, tree),
        };
        (from.to_owned(), to.to_owned())
    }

    /// Writes it.
    ///
    /// # Errors
    /// If there is nothing for a bundle, or `to` cannot be written.
    pub fn write(&self, format: Format, only: Only, to: &mut dyn Write) -> Result<()> {
        let (from, until) = self.ends(only);
        match format {
            Format::Bundle => self.bundle(to),
            Format::Patch => self.copy(&diff(&["--binary", "--full-index"], &from, &until), to),
            Format::Diffstat => self.copy(&diff(&["--stat", "--summary"], &from, &until), to),
        }
    }

    fn copy(&self, words: &[String], to: &mut dyn Write) -> Result<()> {
        let copy = |output: &mut dyn Read| io::copy(output, to).map(drop);
        let copied = self.store.git().pipe(words, |_| Ok(()), copy);
        copied.map_err(Error::git(WHAT))
    }

    /// All but what is kept of before.
    fn bundle(&self, to: &mut dyn Write) -> Result<()> {
        let is_work =
            |name: &&String| !name.starts_with("earlier/") && !name.starts_with("before/");
        let names = self.refs.keys().filter(is_work);
        let mut lines: String = names
            .map(|name| format!("{}{name}\n", self.prefix))
            .collect();
        if !self.base.is_empty() {
            lines.push_str(&format!("^{}\n", self.base));
        }
        let words = ["bundle", "create", "--quiet", "-", "--stdin"];
        let feed = |input: &mut dyn Write| input.write_all(lines.as_bytes());
        let copied = self
            .store
            .git()
            .pipe(&words, feed, |output| io::copy(output, to));
        copied.map(drop).map_err(|source| match source {
            GitError::Failed { complaint, .. } if complaint.contains("empty bundle") => {
                Error::Refused {
                    problem: "there are no commits to put into a bundle".to_owned(),
                    remedy: "Take --format patch or tar for what is not committed.".to_owned(),
                    paths: Vec::new(),
                }
            }
            source => Error::Git { what: WHAT, source },
        })
    }

    /// The files that are not as before, as they are, with their contents; `each` need not read those to their ends.
    ///
    /// # Errors
    /// Those of `each`, or if what has landed cannot be read.
    pub fn files(
        &self,
        only: Only,
        each: &mut dyn FnMut(&File, &mut dyn Read) -> io::Result<()>,
    ) -> Result<()> {
        let (from, until) = self.ends(only);
        let git = self.store.git();
        let how = ["--raw", "-z", "--no-abbrev", "--diff-filter=d"];
        let listed = git.run(&diff(&how, &from, &until));
        let listed = listed.map_err(Error::git(WHAT))?;
        let mut files = Vec::new();
        let mut parts = fields(&listed);
        while let (Some(what), Some(path)) = (parts.next(), parts.next()) {
            let what = text(what);
            let words: Vec<&str> = what.split(' ').collect();
            let [_, mode, _, id, _] = words[..] else {
                return Err(Error::Answer {
                    what: "how two trees differ",
                });
            };
            let kind = match mode {
                "100755" => FileKind::Program,
                "120000" => FileKind::Symlink,
                "160000" => continue,
                _ => FileKind::Regular,
            };
            let path = path.to_vec();
            files.push((
                id.to_owned(),
                File {
                    path,
                    kind,
                    size: 0,
                },
            ));
        }
        let ids: Vec<String> = files.iter().map(|(id, _)| id.clone()).collect();
        let feed = |input: &mut dyn Write| ids.iter().try_for_each(|id| writeln!(input, "{id}"));
        let read = |output: &mut dyn Read| {
            let mut output = BufReader::new(output);
            for (_, file) in &mut files {
                let mut size = String::new();
                output.read_line(&mut size)?;
                file.size = size.trim_end().parse().map_err(io::Error::other)?;
                let mut content = (&mut output).take(file.size);
                each(file, &mut content)?;
                io::copy(&mut content, &mut io::sink())?;
                output.read_exact(&mut [0])?;
            }
            Ok(())
        };
        let words = ["cat-file", "--buffer", "--batch=%(objectsize)"];
        git.pipe(&words, feed, read).map_err(Error::git(WHAT))
    }
}

/// A file that has landed.
#[derive(Debug, Clone)]
pub struct File {
    /// Beneath the workspace.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
    /// Bytes of its content; of a link, of where it leads.
    pub size: u64,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// One that is not executable.
    Regular,
    /// One that is.
    Program,
    /// A symbolic link; its content is where it leads.
    Symlink,
}

/// A comparison of two trees that starts no program and follows no attribute that names one.
fn diff(how: &[&str], from: &str, until: &str) -> Vec<String> {
    let mut words = vec![
        "diff-tree",
        "-r",
        "--no-renames",
        "--no-ext-diff",
        "--no-textconv",
    ];
    words.extend(how);
    words.extend(["-p"].iter().filter(|_| how.contains(&"--binary")));
    words.extend([from, until]);
    words.into_iter().map(str::to_owned).collect()
}
