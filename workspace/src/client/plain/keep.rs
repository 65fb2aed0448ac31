//! The way back: what was at the paths that change, as a commit in the directory's store.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

use super::disk::Disk;
use super::plan::Plan;
use super::{Leaf, Tree, encoded, stored};
use crate::client::error::{Error, Result};
use crate::client::land::publish::moment;
use crate::client::land::script::{Change, Commit, Script};
use crate::client::lines::{shown, text};
use crate::client::store::{Store, vm_prefix};

const WHAT: &str = "keep what was there";
/// The mark of the commit; those of blobs lie below.
const COMMIT: usize = 20_000_000;
/// Marks of what is kept about the files.
const FIELDS: usize = 10_000_000;

/// What an apply has kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// What was at the paths that changed.
    pub(super) before: Tree,
    /// What came there.
    pub(super) after: Tree,
    /// What was remembered of these paths.
    pub(super) carried: Tree,
}

/// The name of what is kept of a time.
fn name(vm: &str, time: &str) -> Result<String> {
    Ok(format!("{}before/{time}/files", vm_prefix(vm)?))
}

/// Keeps what is at the paths of `plan`, and returns the reference and the time in its name.
pub(super) fn keep(
    store: &Store,
    vm: &str,
    disk: &Disk,
    plan: &Plan,
    carried: Tree,
) -> Result<(String, String)> {
    let time = moment(store, &vm_prefix(vm)?)?;
    let name = name(vm, &time)?;
    let leaves = |of: &dyn Fn(&super::plan::Change) -> Option<Leaf>| -> Tree {
        let changes = plan.changes.iter();
        changes
            .filter_map(|(path, change)| Some((path.clone(), of(change)?)))
            .collect()
    };
    let before = leaves(&|change| change.here.as_ref().map(|here| here.leaf.clone()));
    let after = leaves(&|change| change.target.clone());
    let fields = [
        ("before", encoded(&before)),
        ("after", encoded(&after)),
        ("carried", encoded(&carried)),
    ];
    let mut moved = None;
    let feed = |input: &mut dyn Write| {
        let seconds = jiff::Timestamp::now().as_second();
        let mut script = Script::new(input, u64::try_from(seconds).unwrap_or_default());
        let mut changes = Vec::new();
        for (number, (name, content)) in fields.iter().enumerate() {
            script.blob(FIELDS + number, content)?;
            let mark = format!(":{}", FIELDS + number);
            changes.push(Change::Put(name.as_bytes().to_vec(), 0o100_644, mark));
        }
        for (number, (path, leaf)) in before.iter().enumerate() {
            let mode = match leaf {
                Leaf::File { mode, .. } if mode & 0o100 != 0 => 0o100_755,
                Leaf::File { .. } => 0o100_644,
                Leaf::Symlink { .. } => 0o120_000,
                Leaf::Directory { .. } | Leaf::Unsure => continue,
            };
            match content(disk, path, leaf, number + 1, &mut script) {
                Ok(()) => {}
                Err(Failed::Write(error)) => return Err(error),
                Err(Failed::Read(error)) => {
                    moved = Some(error);
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
            let path = [b"files/", &path[..]].concat();
            changes.push(Change::Put(path, mode, format!(":{}", number + 1)));
        }
        script.commit(&Commit {
            name: &name,
            mark: COMMIT,
            message: "What was there before an apply of banger",
            parents: Vec::new(),
            changes: changes.iter().collect(),
        })?;
        script.end()
    };
    let words = ["fast-import", "--quiet", "--done", "--date-format=raw"];
    let kept = store.git().feed(&words, feed);
    match (moved, kept) {
        (Some(error), _) => Err(error),
        (None, Err(source)) => Err(Error::Git { what: WHAT, source }),
        (None, Ok(_)) => Ok((name, time)),
    }
}

/// Why a content is not kept.
enum Failed {
    Read(Error),
    Write(io::Error),
}

/// Writes what is at a path as a blob: what it was when it was compared, and nothing else.
fn content(
    disk: &Disk,
    path: &[u8],
    leaf: &Leaf,
    mark: usize,
    to: &mut Script<'_>,
) -> std::result::Result<(), Failed> {
    let sha256 = match leaf {
        Leaf::Symlink { target } => return to.blob(mark, target).map_err(Failed::Write),
        Leaf::File { sha256, .. } => sha256,
        Leaf::Directory { .. } | Leaf::Unsure => return Ok(()),
    };
    let moved = || Failed::Read(Error::Moved { path: shown(path) });
    let file = disk.read(path).map_err(Failed::Read)?;
    let size = file.metadata().map_err(|_| moved())?.len();
    let mut digest = Sha256::new();
    let mut copied = Digested {
        from: file.take(size),
        digest: &mut digest,
    };
    to.content(mark, size, &mut copied).map_err(Failed::Write)?;
    match digest.finalize()[..] == sha256[..] {
        true => Ok(()),
        false => Err(moved()),
    }
}

/// Reads, and digests what was read.
struct Digested<'a, R> {
    from: R,
    digest: &'a mut Sha256,
}

impl<R: Read> Read for Digested<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.digest.update(&buffer[..count]);
        Ok(count)
    }
}

/// What was kept of a time, and the tree in which the files are.
pub(super) fn kept(store: &Store, vm: &str, time: &str) -> Result<(Kept, String)> {
    let is_time = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let none = || Error::Refused {
        problem: format!("nothing was kept of an apply from VM `{vm}` at `{time}`"),
        remedy: "An apply says the time; `git for-each-ref` in the store that it names shows all."
            .to_owned(),
        paths: Vec::new(),
    };
    if time.is_empty() || !time.bytes().all(is_time) {
        return Err(none());
    }
    let name = name(vm, time)?;
    let field = |field: &str| -> Result<Tree> {
        let found = stored(store, &format!("{name}:{field}"))?;
        Ok(found.ok_or_else(none)?.1)
    };
    let kept = Kept {
        before: field("before")?,
        after: field("after")?,
        carried: field("carried")?,
    };
    Ok((kept, format!("{name}:files")))
}

/// The ids of the blobs in a tree, by their paths; of none where there is no such tree.
pub(super) fn blobs(
    store: &Store,
    tree: &str,
) -> Result<std::collections::BTreeMap<Vec<u8>, String>> {
    const WHAT: &str = "read what landed";
    let Some(tree) = store.resolve(tree)? else {
        return Ok(std::collections::BTreeMap::new());
    };
    let mut found = std::collections::BTreeMap::new();
    let read = |output: &mut dyn Read| -> io::Result<()> {
        let mut output = io::BufReader::new(output);
        let mut line = Vec::new();
        while io::BufRead::read_until(&mut output, 0, &mut line)? > 0 {
            if let Some(tab) = line.iter().position(|&byte| byte == b'\t')
                && let Some(id) = text(&line[..tab]).split(' ').nth(2)
            {
                let path = &line[tab + 1..];
                let path = path.strip_suffix(b"\0").unwrap_or(path);
                found.insert(path.to_vec(), id.to_owned());
            }
            line.clear();
        }
        Ok(())
    };
    let words = ["ls-tree", "-r", "-z", "--full-tree", &tree];
    let listed = store.git().pipe(&words, |_| Ok(()), read);
    listed.map_err(Error::git(WHAT))?;
    Ok(found)
}
