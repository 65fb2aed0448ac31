//! Directories without git: what they were when they were carried, and what of a VM's becomes part of them.
//!
//! Three trees are compared path by path: the directory as it was carried into the VM, as it came back, and as it is now.
//! What was changed in the VM alone is taken, what was changed here alone stays, and what was changed on both sides, each
//! otherwise, is refused unless the owner says whose it is to be. Before anything is changed, what was there is kept in the
//! directory's store, and [`go_back`] puts it back by the same comparison.
//!
//! ```text
//! carried ───► the VM ───► target      base = carried          changed here only   stays
//!    └───────► here                    here = as it is now     changed there only  taken
//! ```

mod apply;
mod disk;
mod keep;
mod plan;
mod record;

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use prost::Message;

use super::error::{Error, Result};
use super::store::Store;
use crate::wire::{Entries, Entry, EntryKind};

pub use apply::{AppliedFiles, Both, apply_files, go_back};
pub use record::Carried;

/// The most bytes of a record of a tree: what a million entries with long names have.
const RECORD_MAX_BYTES: u64 = 512 << 20;

/// The form of such a record.
const FORM: u8 = 1;

/// What is at a path.
#[derive(Debug, Clone)]
enum Leaf {
    File {
        /// Permission bits.
        mode: u32,
        sha256: Bytes,
    },
    Symlink {
        target: Bytes,
    },
    /// One with nothing in it, or whose permissions are not the usual ones.
    Directory {
        mode: u32,
    },
    /// Something that is known not to be known; it is like nothing, not even itself.
    Unsure,
}

impl Leaf {
    /// Whether both are the same. A directory's permissions are no difference.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::File { mode, sha256 },
                Self::File {
                    mode: other,
                    sha256: others,
                },
            ) => mode == other && sha256 == others,
            (Self::Symlink { target }, Self::Symlink { target: other }) => target == other,
            (Self::Directory { .. }, Self::Directory { .. }) => true,
            _ => false,
        }
    }

    const fn is_directory(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }

    fn of(entry: Entry) -> Option<Self> {
        match entry.kind() {
            EntryKind::File => Some(Self::File {
                mode: entry.mode,
                sha256: entry.sha256,
            }),
            EntryKind::Symlink => Some(Self::Symlink {
                target: entry.link_target,
            }),
            EntryKind::Directory => Some(Self::Directory { mode: entry.mode }),
            EntryKind::Unspecified => Some(Self::Unsure),
            EntryKind::Removed => None,
        }
    }

    fn entry(&self, path: &[u8]) -> Entry {
        let entry = Entry {
            path: Bytes::copy_from_slice(path),
            ..Entry::default()
        };
        match self {
            Self::File { mode, sha256 } => Entry {
                kind: EntryKind::File.into(),
                mode: *mode,
                sha256: sha256.clone(),
                ..entry
            },
            Self::Symlink { target } => Entry {
                kind: EntryKind::Symlink.into(),
                link_target: target.clone(),
                ..entry
            },
            Self::Directory { mode } => Entry {
                kind: EntryKind::Directory.into(),
                mode: *mode,
                ..entry
            },
            Self::Unsure => entry,
        }
    }
}

/// Whether the same is at both places, nothing included.
fn same(one: Option<&Leaf>, other: Option<&Leaf>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.is(other),
        _ => false,
    }
}

/// What is at the paths of a tree.
type Tree = BTreeMap<Vec<u8>, Leaf>;

/// The form in which a tree is kept: a byte that says which, and its entries. So none is empty.
fn encoded(tree: &Tree) -> Vec<u8> {
    let entries = tree.iter().map(|(path, leaf)| leaf.entry(path));
    let entries = Entries {
        entries: entries.collect(),
    };
    [&[FORM], &entries.encode_to_vec()[..]].concat()
}

/// The tree that was kept in this form.
fn decoded(bytes: &[u8]) -> Result<Tree> {
    let entries = bytes.strip_prefix(&[FORM]);
    let entries = entries.and_then(|entries| Entries::decode(entries).ok());
    let entries = entries.ok_or(Error::Answer {
        what: "what a directory was",
    })?;
    Ok(tree_of(entries.entries))
}

fn tree_of(entries: Vec<Entry>) -> Tree {
    let leaves = entries.into_iter().filter_map(|entry| {
        let path = entry.path.to_vec();
        Some((path, Leaf::of(entry)?))
    });
    leaves.collect()
}

/// A tree that lies in a store by this name; none where it is not there.
fn stored(store: &Store, name: &str) -> Result<Option<(Vec<u8>, Tree)>> {
    const WHAT: &str = "read what landed";
    let Some(id) = store.resolve(name)? else {
        return Ok(None);
    };
    let read = |output: &mut dyn Read| {
        let mut bytes = Vec::new();
        output.take(RECORD_MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let words = ["cat-file", "blob", &id];
    let bytes = store.git().pipe(&words, |_| Ok(()), read);
    let bytes = bytes.map_err(Error::git(WHAT))?;
    let tree = decoded(&bytes)?;
    Ok(Some((bytes, tree)))
}

/// The entries of a directory without git that came, as they are kept with its landing.
pub(super) fn landed(entries: Vec<Entry>) -> Vec<u8> {
    encoded(&tree_of(entries))
}
