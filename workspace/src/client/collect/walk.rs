//! What is in a working tree, ignored things left out.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use globset::GlobSet;

use crate::client::lines::{join, path, shown};
use crate::wire::limits::{DEPTH_MAX, NOTE_MAX_BYTES};
use crate::wire::{Note, NoteKind};

/// Permission bits that are told.
const MODE_KEPT: u32 = 0o777;

/// Something in a tree.
#[derive(Debug)]
pub(super) struct Found {
    /// Beneath the repository.
    pub(super) path: Vec<u8>,
    pub(super) kind: FoundKind,
    /// Permission bits.
    pub(super) mode: u32,
    /// Bytes of a file, or of a link's target.
    pub(super) size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoundKind {
    File,
    Symlink,
    /// Nothing of it is told.
    EmptyDirectory,
    /// A directory with a repository of its own.
    Repository,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ignored {
    No,
    Yes,
    /// It is, but a pattern wants it, with all that is beneath.
    Included,
}

/// Walks one working tree.
pub(super) struct Walk<'a> {
    /// Its top.
    pub(super) top: &'a Path,
    /// The repository beneath the workspace, for notes and patterns.
    pub(super) prefix: &'a [u8],
    /// Ignored files and directories.
    pub(super) ignored: &'a HashSet<Vec<u8>>,
    /// Patterns of those that are told all the same.
    pub(super) include: &'a GlobSet,
    /// It is a repository's, and others may lie in it.
    pub(super) is_git: bool,
}

/// What a walk brings.
#[derive(Default)]
pub(super) struct Walked {
    /// In the order of the paths' bytes.
    pub(super) found: Vec<Found>,
    pub(super) notes: Vec<Note>,
}

impl Walk<'_> {
    pub(super) fn run(&self) -> Walked {
        let mut walked = Walked::default();
        self.directory(b"", Ignored::No, 0, &mut walked);
        walked
            .found
            .sort_unstable_by(|one, other| one.path.cmp(&other.path));
        walked
    }

    /// Whether anything in it was told.
    fn directory(&self, inside: &[u8], ignored: Ignored, depth: usize, to: &mut Walked) -> bool {
        let names = match self.names(inside) {
            Ok(names) => names,
            Err(error) => {
                self.unreadable(inside, &error, to);
                return true;
            }
        };
        let mut told = false;
        for name in names {
            let at = join(inside, &name);
            told |= self.one(at, &name, ignored, depth, to);
        }
        told
    }

    fn names(&self, inside: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let names = std::fs::read_dir(self.top.join(path(inside)))?;
        names
            .map(|entry| entry.map(|entry| entry.file_name().into_vec()))
            .collect()
    }

    fn one(&self, at: Vec<u8>, name: &[u8], above: Ignored, depth: usize, to: &mut Walked) -> bool {
        if self.is_git && name == b".git" {
            return false;
        }
        let metadata = match std::fs::symlink_metadata(self.top.join(path(&at))) {
            Ok(metadata) => metadata,
            // It was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(error) => {
                self.unreadable(&at, &error, to);
                return true;
            }
        };
        let ignored = self.is_ignored(&at, above);
        let is_directory = metadata.is_dir();
        if ignored == Ignored::Yes && (!is_directory || self.include.is_empty()) {
            return false;
        }
        if crate::wire::path::check(&at).is_err() || depth >= DEPTH_MAX {
            let detail = "the name is one of git's own, or too long or too deep";
            self.note(NoteKind::BadName, &at, detail, true, to);
            return true;
        }
        match is_directory {
            true => self.beneath(at, &metadata, ignored, depth, to),
            false => self.leaf(at, &metadata, to),
        }
    }

    fn is_ignored(&self, at: &[u8], above: Ignored) -> Ignored {
        if above == Ignored::Included {
            return above;
        }
        if above == Ignored::No && !self.ignored.contains(at) {
            return above;
        }
        match self.include.is_match(path(&join(self.prefix, at))) {
            true => Ignored::Included,
            false => Ignored::Yes,
        }
    }

    fn beneath(
        &self,
        at: Vec<u8>,
        metadata: &Metadata,
        ignored: Ignored,
        depth: usize,
        to: &mut Walked,
    ) -> bool {
        let git = self.top.join(path(&at)).join(".git");
        if self.is_git && ignored != Ignored::Yes && git.symlink_metadata().is_ok() {
            tell(at, FoundKind::Repository, metadata, to);
            return true;
        }
        let told = self.directory(&at, ignored, depth + 1, to);
        if told || ignored == Ignored::Yes {
            return told;
        }
        tell(at, FoundKind::EmptyDirectory, metadata, to);
        true
    }

    fn leaf(&self, at: Vec<u8>, metadata: &Metadata, to: &mut Walked) -> bool {
        let kind = metadata.file_type();
        if kind.is_file() {
            tell(at, FoundKind::File, metadata, to);
        } else if kind.is_symlink() {
            tell(at, FoundKind::Symlink, metadata, to);
        } else {
            let detail = "a socket, pipe or device";
            self.note(NoteKind::SpecialFile, &at, detail, false, to);
        }
        true
    }

    fn unreadable(&self, at: &[u8], error: &io::Error, to: &mut Walked) {
        self.note(NoteKind::Unreadable, at, &error.to_string(), true, to);
    }

    fn note(&self, kind: NoteKind, at: &[u8], detail: &str, is_loss: bool, to: &mut Walked) {
        let at = join(self.prefix, at);
        to.notes.push(note(kind, &at, detail, is_loss));
    }
}

fn tell(path: Vec<u8>, kind: FoundKind, metadata: &Metadata, to: &mut Walked) {
    to.found.push(Found {
        path,
        kind,
        mode: metadata.mode() & MODE_KEPT,
        size: metadata.size(),
    });
}

/// A note, its words within their bound.
pub(super) fn note(kind: NoteKind, path: &[u8], detail: &str, is_loss: bool) -> Note {
    let mut detail = shown(detail.as_bytes());
    detail.truncate(detail.floor_char_boundary(NOTE_MAX_BYTES));
    Note {
        kind: kind.into(),
        path: path.to_vec().into(),
        detail,
        is_loss,
    }
}

/// Where a symbolic link leads.
pub(super) fn link_target(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read_link(path).map(|target| target.as_os_str().as_bytes().to_vec())
}
