//! Files that are not what the index says: what the former tree has of them is taken from there, the rest is asked for.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fchmod, linkat, mkdirat, openat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::super::content;
use super::super::look::{Draft, mark};
use super::super::notes::Notes;
use super::super::tree::{self, DIRECTORY_MODE, Wanted};
use super::super::{Place, WorkError, stage};
use super::Incoming;
use crate::wire::{Content, Entry, EntryKind, Fault, Piece};

/// The files of a workspace in the making.
#[derive(Debug)]
pub(super) struct Files<'a> {
    staged: &'a Place,
    root: OwnedFd,
    former: Option<OwnedFd>,
    entries: Vec<Entry>,
    /// Files whose content the former tree has, by number.
    kept: BTreeSet<usize>,
}

impl<'a> Files<'a> {
    /// Compares the entries with the former tree, which lies at `place`.
    pub(super) fn new(
        place: &Place,
        staged: &'a Place,
        entries: Vec<Entry>,
        begins_from_former: bool,
    ) -> Result<Self, WorkError> {
        let root = tree::open(&staged.path).map_err(WorkError::file("opening", &staged.path))?;
        let former = match begins_from_former {
            true => {
                let opened = tree::open(&place.path);
                Some(opened.map_err(WorkError::file("opening", &place.path))?)
            }
            false => None,
        };
        let mut kept = BTreeSet::new();
        if let Some(former) = &former {
            for (number, entry) in entries.iter().enumerate() {
                if is_file(entry) && has(former, entry) {
                    kept.insert(number);
                }
            }
        }
        Ok(Self {
            staged,
            root,
            former,
            entries,
            kept,
        })
    }

    /// All of them.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The numbers of the files whose content must be sent.
    pub(super) fn needed(&self) -> Vec<u32> {
        let files = self.entries.iter().enumerate();
        let needed = files.filter(|(number, entry)| is_file(entry) && !self.kept.contains(number));
        needed
            .filter_map(|(number, _)| u32::try_from(number).ok())
            .collect()
    }

    /// Makes all of them, the contents as they come.
    pub(super) fn make(&self, incoming: &mut Incoming<'_>) -> Result<(), WorkError> {
        self.clear()?;
        for entry in &self.entries {
            match entry.kind() {
                EntryKind::Removed | EntryKind::File => self.remove(&entry.path)?,
                EntryKind::Symlink => {
                    self.remove(&entry.path)?;
                    let (parent, name) = self.parent(&entry.path)?;
                    symlinkat(OsStr::from_bytes(&entry.link_target), parent, name)
                        .map_err(|error| self.failed("making the link", &entry.path, error))?;
                }
                EntryKind::Directory => drop(self.directory(&entry.path)?),
                EntryKind::Unspecified => {}
            }
        }
        for &number in &self.kept {
            self.keep(&self.entries[number])?;
        }
        self.receive(incoming)?;
        // Last, and the deepest first: one that may not be written to is filled by now.
        for entry in self.entries.iter().rev() {
            if entry.kind() == EntryKind::Directory {
                let directory = self.directory(&entry.path)?;
                fchmod(&directory, Mode::from_raw_mode(entry.mode))
                    .map_err(|error| self.failed("changing the mode of", &entry.path, error))?;
            }
        }
        Ok(())
    }

    /// In a tree without git that was there before, what is not among the entries goes.
    fn clear(&self) -> Result<(), WorkError> {
        let has_git = self.staged.path.join(".git").exists();
        if self.former.is_none() || has_git {
            return Ok(());
        }
        let told: BTreeSet<&[u8]> = self.entries.iter().map(|entry| &entry.path[..]).collect();
        let nothing = BTreeSet::new();
        let wanted = Wanted {
            files: true,
            without: &nothing,
            search: false,
        };
        let walked = tree::walk(&self.root, &wanted, &mut Notes::default())
            .map_err(|error| self.failed("reading", b"", error))?;
        let directories = walked.directories.iter().map(|(path, _)| path);
        for path in &walked.files {
            if !told.contains(&path[..]) {
                self.remove(path)?;
                self.remove_empty(tree::split(path).0, &told)?;
            }
        }
        for path in directories {
            self.remove_empty(path, &told)?;
        }
        Ok(())
    }

    /// Removes a directory that is empty and not told, and those that are empty with it.
    fn remove_empty(&self, mut path: &[u8], told: &BTreeSet<&[u8]>) -> Result<(), WorkError> {
        while !path.is_empty() && !told.contains(path) {
            let (parent, name) = self.parent(path)?;
            match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Ok(()) => path = tree::split(path).0,
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR) => break,
                Err(error) => return Err(self.failed("removing", path, error)),
            }
        }
        Ok(())
    }

    /// Removes what is at a path, directories with all that is in them.
    fn remove(&self, path: &[u8]) -> Result<(), WorkError> {
        let found = tree::look(&self.root, path);
        let found = found.map_err(|error| self.failed("looking at", path, error))?;
        let Some(stat) = found else {
            return Ok(());
        };
        let (parent, name) = self.parent(path)?;
        let removed = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let inside = self.staged.path.join(OsStr::from_bytes(path));
                return stage::remove(&inside).map_err(WorkError::file("removing", &inside));
            }
            _ => unlinkat(parent, name, AtFlags::empty()),
        };
        removed.map_err(|error| self.failed("removing", path, error))
    }

    /// The directory at a path, made with all that is missing on the way; what is not a directory gives way to it.
    fn directory(&self, path: &[u8]) -> Result<OwnedFd, WorkError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        if path.is_empty() {
            return self
                .root
                .try_clone()
                .map_err(WorkError::file("opening", &self.staged.path));
        }
        match tree::open_beneath(&self.root, path, flags) {
            Ok(directory) => return Ok(directory),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(self.failed("opening", path, error)),
        }
        let (parent, name) = self.parent(path)?;
        match unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(self.failed("replacing", path, error)),
        }
        mkdirat(&parent, name, Mode::from_raw_mode(DIRECTORY_MODE))
            .and_then(|()| {
                openat(
                    &parent,
                    name,
                    flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )
            })
            .and_then(|made| {
                // Whatever mask is in force.
                fchmod(&made, Mode::from_raw_mode(DIRECTORY_MODE))?;
                Ok(made)
            })
            .map_err(|error| self.failed("making", path, error))
    }

    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p OsStr), WorkError> {
        let (parent, name) = tree::split(path);
        Ok((self.directory(parent)?, OsStr::from_bytes(name)))
    }

    /// Takes a file's content from the former tree.
    fn keep(&self, entry: &Entry) -> Result<(), WorkError> {
        let failed = |error: Errno| self.failed("keeping", &entry.path, error);
        let Some(former) = &self.former else {
            return Ok(());
        };
        let (from, name) = tree::split(&entry.path);
        let name = OsStr::from_bytes(name);
        let from: &[u8] = if from.is_empty() { b"." } else { from };
        let from =
            tree::open_beneath(former, from, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
        let stat = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let (to, _) = self.parent(&entry.path)?;
        // A second name has the same mode, so another one wants a copy.
        if stat.st_mode & 0o7777 == entry.mode
            && linkat(&from, name, &to, name, AtFlags::empty()).is_ok()
        {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let content = openat(&from, name, flags, Mode::empty()).map_err(failed)?;
        let mut made = self.create(entry)?;
        io::copy(&mut File::from(content), &mut made)
            .and_then(|_| Ok(fchmod(&made, Mode::from_raw_mode(entry.mode))?))
            .map_err(|error| self.io_failed("keeping", &entry.path, error))
    }

    fn create(&self, entry: &Entry) -> Result<File, WorkError> {
        let (parent, name) = self.parent(&entry.path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(|error| self.failed("making", &entry.path, error))
    }

    /// Takes contents until the end of the snapshot.
    fn receive(&self, incoming: &mut Incoming<'_>) -> Result<(), WorkError> {
        let mut missing: BTreeSet<usize> = self
            .needed()
            .into_iter()
            .map(|number| number as usize)
            .collect();
        let mut writing: Option<(File, Sha256, u64)> = None;
        loop {
            match incoming.next()? {
                Piece::Content(content) => {
                    incoming.took(content.data.len())?;
                    let number = content.entry as usize;
                    if !missing.contains(&number) {
                        return Err(WorkError::Snapshot(Fault::Order {
                            what: "this content",
                        }));
                    }
                    let (file, digest, length) = match writing.take() {
                        Some(writing) => writing,
                        None => (self.create(&self.entries[number])?, Sha256::new(), 0),
                    };
                    writing = self.write(content, file, digest, length)?;
                    if writing.is_none() {
                        missing.remove(&number);
                    }
                }
                // What the sender could not take, it knows itself.
                Piece::Note(_) => {}
                Piece::End(_) if missing.is_empty() => return Ok(()),
                _ => return Err(WorkError::Snapshot(Fault::Cut)),
            }
        }
    }

    /// Writes a piece of a file; none is returned when it is whole.
    fn write(
        &self,
        content: Content,
        mut file: File,
        mut digest: Sha256,
        length: u64,
    ) -> Result<Option<(File, Sha256, u64)>, WorkError> {
        let entry = &self.entries[content.entry as usize];
        digest.update(&content.data);
        let length = length + content.data.len() as u64;
        file.write_all(&content.data)
            .map_err(|error| self.io_failed("writing", &entry.path, error))?;
        if !content.is_last {
            return Ok(Some((file, digest, length)));
        }
        let digest = digest.finalize();
        let is_told = entry.sha256.is_empty() || entry.sha256[..] == digest[..];
        if !is_told || content.sha256[..] != digest[..] || u64::try_from(entry.size) != Ok(length) {
            return Err(WorkError::Content {
                path: String::from_utf8_lossy(&entry.path).into_owned(),
            });
        }
        fchmod(&file, Mode::from_raw_mode(entry.mode))
            .map_err(|error| self.failed("changing the mode of", &entry.path, error))?;
        Ok(None)
    }

    fn failed(&self, step: &'static str, path: &[u8], error: Errno) -> WorkError {
        self.io_failed(step, path, error.into())
    }

    fn io_failed(&self, step: &'static str, path: &[u8], error: io::Error) -> WorkError {
        WorkError::file(step, self.staged.path.join(OsStr::from_bytes(path)))(error)
    }
}

fn is_file(entry: &Entry) -> bool {
    entry.kind() == EntryKind::File
}

/// Whether a tree has the entry's content at its path.
fn has(root: &OwnedFd, entry: &Entry) -> bool {
    let Ok(Some(stat)) = tree::look(root, &entry.path) else {
        return false;
    };
    let is_alike = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_size == entry.size
        && !entry.sha256.is_empty();
    if !is_alike {
        return false;
    }
    let draft = Draft {
        path: entry.path.to_vec(),
        kind: EntryKind::File,
        mode: entry.mode,
        size: u64::try_from(entry.size).unwrap_or_default(),
        link_target: Vec::new(),
        mark: mark(&stat),
    };
    let read = content::read(root, &draft, |_| Ok::<_, io::Error>(()));
    read.is_ok_and(|read| read.held_still && read.sha256[..] == entry.sha256[..])
}
