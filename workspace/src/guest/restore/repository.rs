//! Makes one repository of its parts: objects, references, HEAD, index, and the files as the index has them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::super::look::{Opened, empty_tree, records};
use super::super::notes::{Loss, Notes};
use super::super::{Place, WorkError, stage};
use super::{Incoming, Restore, eol};
use crate::command::Git;
use crate::wire::{
    IndexEntry, NoteKind, ObjectFormat, PackData, Piece, Ref, RefKind, Repository, UnfinishedKind,
};

/// Settings that come with a repository.
const SETTINGS: [&str; 3] = ["core.autocrlf", "core.eol", "core.filemode"];

/// A repository in the making.
#[derive(Debug)]
pub(super) struct Making {
    told: Repository,
    git: Git,
    git_dir: std::path::PathBuf,
    is_new: bool,
    /// Nothing was in the directory.
    was_empty: bool,
    /// What was there before may have other line ends than its objects.
    did_convert: bool,
    pub(super) refs: Vec<Ref>,
    pub(super) index: Vec<IndexEntry>,
}

impl Making {
    /// Begins it in a directory, in which one may be that was there before.
    pub(super) fn begin(
        staged: &Place,
        directory: &Path,
        told: Repository,
    ) -> Result<Self, WorkError> {
        if fs::symlink_metadata(directory).is_ok_and(|found| !found.is_dir()) {
            stage::remove(directory).map_err(WorkError::file("removing", directory))?;
        }
        fs::create_dir_all(directory).map_err(WorkError::file("making", directory))?;
        let mut inside =
            fs::read_dir(directory).map_err(WorkError::file("looking at", directory))?;
        let was_empty = inside.next().is_none();
        let git_dir = directory.join(".git");
        // One that lies elsewhere is no part of the tree.
        let has_own = fs::symlink_metadata(&git_dir).is_ok_and(|found| found.is_dir());
        let former = match has_own {
            true => Opened::open(staged, &told.path)?.ok(),
            false => None,
        };
        let is_new =
            former.is_none_or(|former| format(former.format) != format(told.object_format()));
        let git = staged.git(directory);
        if is_new {
            stage::remove(&git_dir).map_err(WorkError::file("removing", &git_dir))?;
            let format = format!("--object-format={}", format(told.object_format()));
            git.run(&["init", "-q", "--template=", &format])?;
        }
        let git = git.with_repository(&git_dir);
        Ok(Self {
            told,
            did_convert: !is_new && eol::may_convert(&git, &git_dir)?,
            git,
            git_dir,
            is_new,
            was_empty,
            refs: Vec::new(),
            index: Vec::new(),
        })
    }

    /// Takes the pack that begins with `first`.
    pub(super) fn pack(
        &self,
        first: PackData,
        incoming: &mut Incoming<'_>,
    ) -> Result<(), WorkError> {
        let mut failure = None;
        let failed = &mut failure;
        let feed = move |to: &mut dyn Write| {
            let mut next = first;
            loop {
                to.write_all(&next.data)?;
                if next.is_last {
                    return Ok(());
                }
                let came = incoming
                    .took(next.data.len())
                    .and_then(|()| incoming.next());
                next = match came {
                    Ok(Piece::Pack(pack)) => pack,
                    // The judge lets nothing else through within a pack.
                    Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                    Err(error) => {
                        *failed = Some(error);
                        return Err(io::Error::other("the pack was cut"));
                    }
                };
            }
        };
        // Objects of a shallow history lack parents, so only what is in the pack is looked at.
        let taken = self
            .git
            .feed(&["index-pack", "--stdin", "--fix-thin"], feed);
        match failure {
            Some(error) => Err(error),
            None => {
                taken?;
                Ok(())
            }
        }
    }

    /// All of it has come.
    pub(super) fn finish(self, request: &Restore, notes: &mut Notes) -> Result<(), WorkError> {
        let shallow = self.git_dir.join("shallow");
        match self.told.shallow.is_empty() {
            true => stage::remove(&shallow).map_err(WorkError::file("removing", &shallow))?,
            false => write(&shallow, &lines(&self.told.shallow))?,
        }
        self.set_refs()?;
        self.set_head()?;
        self.configure(request)?;
        self.check_out()?;
        self.resume(notes)
    }

    /// The references that were told, and no others.
    fn set_refs(&self) -> Result<(), WorkError> {
        let listed = match self.is_new {
            true => Vec::new(),
            false => self.git.run(&["for-each-ref", "--format=%(refname)"])?,
        };
        let told: BTreeSet<&[u8]> = self.refs.iter().map(|found| &found.name[..]).collect();
        let former = listed.split(|&byte| byte == b'\n');
        let gone: Vec<&[u8]> = former
            .filter(|name| !name.is_empty() && !told.contains(name))
            .collect();
        // HEAD leads nowhere meanwhile, so that no branch is in use.
        let (symbolic, direct): (Vec<&Ref>, Vec<&Ref>) = self
            .refs
            .iter()
            .filter(|found| found.kind() == RefKind::Ref)
            .partition(|found| !found.symbolic_target.is_empty());
        let changes = |to: &mut dyn Write| {
            let mut to = BufWriter::new(to);
            // In this order names may turn from files to directories: git checks all of them together.
            for name in &gone {
                to.write_all(b"delete ")?;
                to.write_all(name)?;
                to.write_all(b"\0\0")?;
            }
            for found in &direct {
                to.write_all(b"update ")?;
                to.write_all(&found.name)?;
                write!(to, "\0{}\0\0", found.object_id)?;
            }
            to.flush()
        };
        if !gone.is_empty() || !direct.is_empty() {
            let words = ["update-ref", "--no-deref", "-z", "--stdin"];
            self.git.feed(&words, changes)?;
        }
        for found in symbolic {
            let (name, target) = (
                OsStr::from_bytes(&found.name),
                OsStr::from_bytes(&found.symbolic_target),
            );
            self.git.run(&["symbolic-ref".as_ref(), name, target])?;
        }
        // The newest comes first, and each new one goes before the others.
        for found in self.refs.iter().rev() {
            if found.kind() == RefKind::Stash {
                let words = [
                    "stash",
                    "store",
                    "-q",
                    "-m",
                    "from the client",
                    &found.object_id,
                ];
                self.git
                    .clone()
                    .with_setting("user.name=banger")
                    .with_setting("user.email=banger@localhost")
                    .run(&words)?;
            }
        }
        Ok(())
    }

    fn set_head(&self) -> Result<(), WorkError> {
        match &self.told.head_ref[..] {
            b"" => {
                let head = self.told.head_commit.as_str();
                self.git.run(&["update-ref", "--no-deref", "HEAD", head])?;
            }
            name => {
                let words: [&OsStr; 3] = [
                    "symbolic-ref".as_ref(),
                    "HEAD".as_ref(),
                    OsStr::from_bytes(name),
                ];
                self.git.run(&words)?;
            }
        }
        Ok(())
    }

    fn configure(&self, request: &Restore) -> Result<(), WorkError> {
        let mut wanted: Vec<(&str, Option<&str>)> = SETTINGS
            .iter()
            .map(|name| (*name, self.told.settings.get(*name).map(String::as_str)))
            .collect();
        for (name, value) in [
            ("user.name", &request.author_name),
            ("user.email", &request.author_email),
        ] {
            if !value.is_empty() {
                wanted.push((name, Some(value)));
            }
        }
        let mut there: BTreeMap<String, Vec<String>> = BTreeMap::new();
        records(
            &self.git,
            &["config", "--local", "-z", "--list"],
            |record| {
                let record = String::from_utf8_lossy(record);
                if let Some((name, value)) = record.split_once('\n') {
                    let values = there.entry(name.to_owned()).or_default();
                    values.push(value.to_owned());
                }
                true
            },
        )?;
        for (name, value) in wanted {
            let values = there.get(name).map(Vec::as_slice).unwrap_or_default();
            match value {
                Some(value) if values == [value] => {}
                Some(value) => {
                    let words = ["config", "--local", "--replace-all", name, value];
                    self.git.run(&words)?;
                }
                // What a new one says is of the file system.
                None if values.is_empty() || self.is_new => {}
                None => {
                    self.git.run(&["config", "--local", "--unset-all", name])?;
                }
            }
        }
        Ok(())
    }

    /// The index, and the files as it has them.
    fn check_out(&self) -> Result<(), WorkError> {
        let tree = match self.told.head_commit.as_str() {
            "" => empty_tree(self.told.object_format()),
            commit => commit,
        };
        if self.was_empty && self.index.is_empty() {
            self.git.run(&["read-tree", "--reset", "-u", tree])?;
            return Ok(());
        }
        if self.is_new {
            self.git.run(&["read-tree", tree])?;
            self.change_index()?;
            self.git
                .run(&["checkout-index", "--all", "--force", "--index", "--quiet"])?;
            return self.clean();
        }
        self.git.run(&["read-tree", "--reset", "-u", tree])?;
        self.change_index()?;
        for entry in self.index.iter().filter(|entry| entry.mode == 0) {
            let path = self.git.directory().join(OsStr::from_bytes(&entry.path));
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(WorkError::file("removing", &path)(error));
                }
                _ => {}
            }
        }
        let changed = self
            .index
            .iter()
            .filter(|entry| entry.mode != 0 && entry.stage == 0);
        let paths = |to: &mut dyn Write| {
            let mut to = BufWriter::new(to);
            for entry in changed {
                to.write_all(&entry.path)?;
                to.write_all(b"\0")?;
            }
            to.flush()
        };
        let words = [
            "checkout-index",
            "--force",
            "--index",
            "--quiet",
            "-z",
            "--stdin",
        ];
        self.git.feed(&words, paths)?;
        if self.did_convert || eol::may_convert(&self.git, &self.git_dir)? {
            eol::write_anew(&self.git, &self.index)?;
        }
        self.clean()
    }

    /// What is not tracked comes with the entries; what is ignored stays.
    fn clean(&self) -> Result<(), WorkError> {
        self.git.run(&["clean", "-f", "-d", "-q"])?;
        Ok(())
    }

    fn change_index(&self) -> Result<(), WorkError> {
        if self.index.is_empty() {
            return Ok(());
        }
        let zero = "0".repeat(match self.told.object_format() {
            ObjectFormat::Sha256 => 64,
            _ => 40,
        });
        let mut last: Option<&[u8]> = None;
        let changes = |to: &mut dyn Write| {
            let mut to = BufWriter::new(to);
            for entry in &self.index {
                // A path in conflict has no entry of its own any more.
                if entry.stage > 0 && last != Some(&entry.path[..]) {
                    write!(to, "0 {zero}\t")?;
                    to.write_all(&entry.path)?;
                    to.write_all(b"\0")?;
                }
                last = Some(&entry.path[..]);
                match entry.mode {
                    0 => write!(to, "0 {zero}\t")?,
                    mode => write!(to, "{mode:o} {} {}\t", entry.object_id, entry.stage)?,
                }
                to.write_all(&entry.path)?;
                to.write_all(b"\0")?;
            }
            to.flush()
        };
        self.git
            .feed(&["update-index", "-z", "--index-info"], changes)?;
        Ok(())
    }

    /// What was unfinished, as far as it can be gone on with.
    fn resume(&self, notes: &mut Notes) -> Result<(), WorkError> {
        for name in [
            "MERGE_HEAD",
            "MERGE_MODE",
            "CHERRY_PICK_HEAD",
            "REVERT_HEAD",
            "BISECT_LOG",
        ] {
            let path = self.git_dir.join(name);
            stage::remove(&path).map_err(WorkError::file("removing", &path))?;
        }
        for name in ["rebase-merge", "rebase-apply", "sequencer"] {
            let path = self.git_dir.join(name);
            stage::remove(&path).map_err(WorkError::file("removing", &path))?;
        }
        for unfinished in &self.told.unfinished {
            let commits = lines(&unfinished.commits);
            match unfinished.kind() {
                UnfinishedKind::Merge => {
                    write(&self.git_dir.join("MERGE_HEAD"), &commits)?;
                    write(&self.git_dir.join("MERGE_MODE"), "")?;
                    write(&self.git_dir.join("MERGE_MSG"), "Merge\n")?;
                }
                UnfinishedKind::CherryPick => {
                    write(&self.git_dir.join("CHERRY_PICK_HEAD"), &commits)?;
                }
                UnfinishedKind::Revert => write(&self.git_dir.join("REVERT_HEAD"), &commits)?,
                kind => {
                    let detail = format!("{} cannot be gone on with here", kind.as_str_name());
                    notes.add(NoteKind::Moved, &self.told.path, &detail, Loss::No);
                }
            }
        }
        Ok(())
    }
}

fn format(format: ObjectFormat) -> &'static str {
    match format {
        ObjectFormat::Sha256 => "sha256",
        ObjectFormat::Sha1 | ObjectFormat::Unspecified => "sha1",
    }
}

fn lines(ids: &[String]) -> String {
    ids.iter().map(|id| format!("{id}\n")).collect()
}

fn write(path: &Path, text: &str) -> Result<(), WorkError> {
    // A new file: one that is there may have a second name in the former tree.
    stage::remove(path).map_err(WorkError::file("removing", path))?;
    fs::write(path, text).map_err(WorkError::file("writing", path))
}
