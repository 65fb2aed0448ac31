//! Makes what came from a VM part of a directory without git, and goes back.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};

use super::disk::{Disk, Done, Mark};
use super::keep::{blobs, keep, kept};
use super::plan::{Change, Plan, Trees};
use super::record::Carried;
use super::{Leaf, Tree, encoded, stored};
use crate::beneath;
use crate::client::error::{Error, Result};
use crate::client::land::{Place, publish};
use crate::client::lines::{fields, shown};
use crate::client::render::Work;
use crate::client::store::{Store, vm_prefix};
use crate::wire::ObjectFormat;

const WHAT: &str = "read what landed";

/// Whose files are taken that were changed on both sides, each otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Both {
    /// Nobody's: nothing is applied.
    #[default]
    Refused,
    /// Those that are here stay.
    Mine,
    /// The VM's take the place of those that are here, which are kept.
    Theirs,
}

/// What was applied to a directory.
#[derive(Debug, Clone, Default)]
pub struct AppliedFiles {
    /// Files, links and directories that came, or are as in the VM now.
    pub written: u64,
    /// Those that went.
    pub removed: u64,
    /// Paths that somebody changed meanwhile, escaped: they are as they were left.
    pub moved: Vec<String>,
    /// Paths here of which the VM does not tell whether they are to go, escaped: they stay.
    pub left: Vec<String>,
    /// The reference, in the directory's store, to what was there before.
    pub before: Option<String>,
    /// Commands that lead back.
    pub way_back: Vec<String>,
}

/// Applies what has landed from `vm` to the directory of `place`, which has no git.
///
/// # Errors
/// [`Error::Refused`], with nothing changed, if something of the owner's is in the way.
pub fn apply_files(place: &Place, vm: &str, both: Both) -> Result<AppliedFiles> {
    let store = place.store();
    let name =
        |field: &str| -> Result<String> { Ok(format!("{}state/landing:{field}", vm_prefix(vm)?)) };
    check_has_no_git(store, vm)?;
    let _lock = publish::lock(store)?;
    let work = Work::of(store, vm)?;
    let landed = stored(store, &name("entries")?)?;
    let (_, target) = landed.ok_or_else(|| Error::NothingLanded { vm: vm.to_owned() })?;
    let base = stored(store, &name("carried")?)?;
    let untold = store.blob(&name("untold")?)?.unwrap_or_default();
    let untold: Vec<Vec<u8>> = fields(&untold).map(<[u8]>::to_vec).collect();
    let carried = Carried::in_store(store, vm)?;
    let remembered = carried.read()?;
    let trees = Trees {
        base: base.as_ref().map(|(_, tree)| tree),
        target: &target,
        untold: &untold,
    };
    let disk = Disk::open(place.top())?;
    let plan = trees.plan(&disk, both)?;
    let files = work.get("state/tree").unwrap_or_default().to_owned();
    let applying = Applying {
        place,
        vm,
        disk: &disk,
        plan: &plan,
        files: &files,
    };
    let known = remembered.as_ref().map(|(_, tree)| tree);
    let (applied, moved) = applying.run(known)?;
    // The VM has what landed: what is compared next time. If another was carried since, that holds.
    let is_same =
        remembered.as_ref().map(|(bytes, _)| bytes) == base.as_ref().map(|(bytes, _)| bytes);
    if is_same {
        let mut next = target.clone();
        let base = trees.base.into_iter().flatten();
        let stays = |path: &Vec<u8>| plan.left.contains(path) || moved.contains(path);
        for (path, leaf) in base.filter(|(path, _)| stays(path)) {
            next.insert(path.clone(), leaf.clone());
        }
        carried.write(&encoded(&next))?;
    }
    Ok(applied)
}

/// Puts back what was in the directory before the apply of that time.
///
/// # Errors
/// [`Error::Refused`], with nothing changed, if what was applied was changed since.
pub fn go_back(place: &Place, vm: &str, time: &str, both: Both) -> Result<AppliedFiles> {
    let store = place.store();
    let (kept, files) = kept(store, vm, time)?;
    let _lock = publish::lock(store)?;
    let carried = Carried::in_store(store, vm)?;
    let remembered = carried.read()?;
    let trees = Trees {
        base: Some(&kept.after),
        target: &kept.before,
        untold: &[],
    };
    let disk = Disk::open(place.top())?;
    let plan = trees.plan(&disk, both)?;
    let applying = Applying {
        place,
        vm,
        disk: &disk,
        plan: &plan,
        files: &files,
    };
    let known = remembered.as_ref().map(|(_, tree)| tree);
    let (applied, moved) = applying.run(known)?;
    if let Some((_, mut next)) = remembered {
        let paths = kept.before.keys().chain(kept.after.keys());
        for path in paths.filter(|path| !moved.contains(*path)) {
            match kept.carried.get(path) {
                Some(leaf) => next.insert(path.clone(), leaf.clone()),
                None => next.remove(path),
            };
        }
        carried.write(&encoded(&next))?;
    }
    Ok(applied)
}

/// What is a repository in the VM has commits, which no directory without git can take.
fn check_has_no_git(store: &Store, vm: &str) -> Result<()> {
    for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
        let directory = store.inside(vm, b"", format);
        if !directory.exists() {
            continue;
        }
        let inside = Store::open(&directory)?;
        let landing = format!("{}state/landing", vm_prefix(vm)?);
        let has = |store: &Store| store.resolve(&landing).map(|found| found.is_some());
        if has(&inside)? && !has(store)? {
            let at = directory.display();
            return Err(Error::Refused {
                problem: "the directory is a git repository in the VM by now".to_owned(),
                remedy: format!(
                    "Fetch its commits into a repository (`git fetch {at} refs/banger/{vm}/HEAD`), or take its files: \
                     `banger workspace export {vm} --format tar`."
                ),
                paths: Vec::new(),
            });
        }
    }
    Ok(())
}

/// A plan on its way to the disk.
struct Applying<'a> {
    place: &'a Place,
    vm: &'a str,
    disk: &'a Disk,
    plan: &'a Plan,
    /// The tree, in the store, that has the contents.
    files: &'a str,
}

impl Applying<'_> {
    /// Carries it out. Returns the paths that somebody changed meanwhile too. `carried` is what is remembered.
    fn run(&self, carried: Option<&Tree>) -> Result<(AppliedFiles, BTreeSet<Vec<u8>>)> {
        let left = self.plan.left.iter().map(|path| shown(path));
        let mut applied = AppliedFiles {
            left: left.collect(),
            ..AppliedFiles::default()
        };
        let mut moved = BTreeSet::new();
        if self.plan.changes.is_empty() {
            return Ok((applied, moved));
        }
        let store = self.place.store();
        let known: Tree = match carried {
            Some(carried) => {
                let paths = self.plan.changes.keys();
                paths
                    .filter_map(|path| Some((path.clone(), carried.get(path)?.clone())))
                    .collect()
            }
            None => Tree::new(),
        };
        let (name, time) = keep(store, self.vm, self.disk, self.plan, known)?;
        applied.before = Some(name);
        applied.way_back = vec![format!(
            "banger workspace apply {} {} --plain --back {time}",
            self.vm,
            quoted(&self.place.top().to_string_lossy())
        )];
        self.remove(&mut applied, &mut moved)?;
        self.put(&mut applied, &mut moved)?;
        applied.moved = moved.iter().map(|path| shown(path)).collect();
        Ok((applied, moved))
    }

    /// Removes what goes, the deepest first, and the directories in which nothing is left.
    fn remove(&self, applied: &mut AppliedFiles, moved: &mut BTreeSet<Vec<u8>>) -> Result<()> {
        for (path, change) in self.plan.changes.iter().rev() {
            let Some(here) = &change.here else {
                continue;
            };
            let becomes = change.target.as_ref();
            match (&here.leaf, becomes) {
                (Leaf::Directory { .. }, None) => {
                    applied.removed += u64::from(self.disk.remove_directory(path)?);
                }
                (Leaf::Directory { .. }, Some(_)) => {}
                (_, None | Some(Leaf::Directory { .. })) => {
                    match self.disk.remove(path, here.mark)? {
                        Done::Yes => applied.removed += u64::from(becomes.is_none()),
                        Done::Moved => drop(moved.insert(path.clone())),
                    }
                    if becomes.is_none() {
                        self.remove_emptied(path)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn remove_emptied(&self, path: &[u8]) -> Result<()> {
        let mut directory = beneath::split(path).0;
        while !directory.is_empty() && self.disk.remove_directory(directory)? {
            directory = beneath::split(directory).0;
        }
        Ok(())
    }

    /// Makes what comes.
    fn put(&self, applied: &mut AppliedFiles, moved: &mut BTreeSet<Vec<u8>>) -> Result<()> {
        let coming = self.plan.changes.iter();
        let coming = coming.filter_map(|(path, change)| {
            let target = change.target.as_ref()?;
            Some((path, change, target)).filter(|(path, ..)| !moved.contains(*path))
        });
        let coming: Vec<(&Vec<u8>, &Change, &Leaf)> = coming.collect();
        let ids = blobs(self.place.store(), self.files)?;
        let mut wanted = Vec::new();
        for (path, _, target) in &coming {
            if matches!(target, Leaf::File { .. }) {
                let id = ids.get(*path).ok_or(Error::Answer {
                    what: "which files landed",
                })?;
                wanted.push(id.clone());
            }
        }
        let mut failed = None;
        let mut made = Vec::new();
        let feed = |input: &mut dyn Write| wanted.iter().try_for_each(|id| writeln!(input, "{id}"));
        let read = |output: &mut dyn Read| {
            let mut output = BufReader::new(output);
            for (path, change, target) in &coming {
                match self.put_one(path, change, target, &mut output, &mut made) {
                    Ok(Done::Yes) => applied.written += 1,
                    Ok(Done::Moved) => drop(moved.insert((*path).clone())),
                    Err(error) => {
                        failed = Some(error);
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
            }
            Ok(())
        };
        let words = ["cat-file", "--buffer", "--batch=%(objectsize)"];
        let put = self.place.store().git().pipe(&words, feed, read);
        match (failed, put) {
            (Some(error), _) => return Err(error),
            (None, put) => put.map_err(Error::git(WHAT))?,
        }
        // The deepest first: one that may not be written to could not be made something in.
        for (path, mode) in made.into_iter().rev() {
            self.disk.set_mode(&path, mode)?;
        }
        Ok(())
    }

    fn put_one(
        &self,
        path: &[u8],
        change: &Change,
        target: &Leaf,
        contents: &mut impl BufRead,
        made: &mut Vec<(Vec<u8>, u32)>,
    ) -> Result<Done> {
        let content = match target {
            Leaf::File { .. } => {
                let size = begin(contents).map_err(Error::file(WHAT, self.place.top()))?;
                Some(contents.take(size))
            }
            _ => None,
        };
        let parent = beneath::split(path).0;
        if !parent.is_empty() {
            self.disk.make_directory(parent)?;
        }
        let former: Option<Mark> = match &change.here {
            Some(here) if here.leaf.is_directory() => {
                if !target.is_directory() && !self.disk.remove_directories(path)? {
                    skip(content)?;
                    return Ok(Done::Moved);
                }
                None
            }
            Some(here) => Some(here.mark),
            None => None,
        };
        match target {
            Leaf::Directory { mode } => {
                if self.disk.make_directory(path)? {
                    made.push((path.to_vec(), *mode));
                }
                Ok(Done::Yes)
            }
            Leaf::Symlink { target } => self.disk.put_link(path, target, former),
            Leaf::File { mode, .. } => {
                let mut content = content.ok_or(Error::Answer {
                    what: "which files landed",
                })?;
                let done = self.disk.put_file(path, *mode, &mut content, former)?;
                skip(Some(content))?;
                Ok(done)
            }
            Leaf::Unsure => Ok(Done::Moved),
        }
    }
}

/// Reads how large the next content is.
fn begin(contents: &mut impl BufRead) -> io::Result<u64> {
    let mut size = String::new();
    contents.read_line(&mut size)?;
    size.trim_end().parse().map_err(io::Error::other)
}

/// Passes over what is left of a content, and the end of its line.
fn skip(content: Option<io::Take<&mut impl BufRead>>) -> Result<()> {
    let Some(mut content) = content else {
        return Ok(());
    };
    let skipped = io::copy(&mut content, &mut io::sink())
        .and_then(|_| content.into_inner().read_exact(&mut [0]));
    skipped.map_err(Error::file(WHAT, "the store"))
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
