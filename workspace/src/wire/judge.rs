//! Looks at every part of a snapshot before it is used or passed on.
//!
//! ```text
//! ┌─► repository ─► refs* ─► index* ─► pack* ─► entries* ─┐
//! └───────────────────────────────────────────────────────┴─► manifest end ─► (content | note)* ─► end
//! ```
//! Names ascend, so that nothing is told twice, and so that memory does not grow with what was told before: of the
//! entries only kind and size are kept.

use super::check::{check_note, check_unfinished, is_stash, reference};
use super::fault::{Fault, at_most, at_most_u64};
use super::limits::{
    DATA_MAX_BYTES, ENTRIES_MAX, INDEX_ENTRIES_MAX, NAMES_MAX_BYTES, NOTES_MAX, PATH_MAX_BYTES,
    REFS_MAX, REPOSITORIES_MAX, SHALLOW_MAX, SNAPSHOT_MAX_BYTES,
};
use super::path::{self, is_object_id};
use super::{
    Content, Encoding, Entries, Entry, EntryKind, IndexEntries, ObjectFormat, PackData, Part,
    Piece, RefKind, Refs, Repository, RepositoryKind,
};

/// Settings that a repository may bring, and their values.
const SETTINGS: [(&str, &[&str]); 3] = [
    ("core.autocrlf", &["true", "false", "input"]),
    ("core.eol", &["lf", "crlf", "native"]),
    ("core.filemode", &["true", "false"]),
];
/// Bytes of a SHA-256.
const SHA256_BYTES: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Start,
    Repository,
    Refs,
    Index,
    Pack,
    PackEnded,
    Entries,
    Contents,
    Ended,
}

/// Judges one snapshot, part by part.
#[derive(Debug)]
pub struct Judge {
    phase: Phase,
    repositories: usize,
    repository: Vec<u8>,
    kind: RepositoryKind,
    id_digits: usize,
    refs: usize,
    last_ref: Option<(i32, Vec<u8>)>,
    index_entries: usize,
    last_index: Option<(Vec<u8>, u32)>,
    last_entry: Option<Vec<u8>>,
    /// Sizes of files; none for other entries.
    entries: Vec<Option<u64>>,
    names_bytes: u64,
    notes: usize,
    bytes: u64,
    bytes_max: u64,
    /// The entry whose content comes, and how many bytes of it came.
    content: Option<(usize, u64)>,
    next_content: usize,
}

impl Default for Judge {
    fn default() -> Self {
        Self::new(SNAPSHOT_MAX_BYTES)
    }
}

impl Judge {
    /// Judges a snapshot that may have `bytes_max` bytes of packs and contents.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self {
            phase: Phase::Start,
            repositories: 0,
            repository: Vec::new(),
            kind: RepositoryKind::Plain,
            id_digits: 40,
            refs: 0,
            last_ref: None,
            index_entries: 0,
            last_index: None,
            last_entry: None,
            entries: Vec::new(),
            names_bytes: 0,
            notes: 0,
            bytes: 0,
            bytes_max: bytes_max.min(SNAPSHOT_MAX_BYTES),
            content: None,
            next_content: 0,
        }
    }

    /// Judges the next part.
    ///
    /// # Errors
    /// What is wrong with it; nothing of the snapshot may be used then.
    pub fn part(&mut self, part: &Part) -> Result<(), Fault> {
        match &part.part {
            Some(Piece::Repository(repository)) => self.repository(repository),
            Some(Piece::Refs(refs)) => self.refs(refs),
            Some(Piece::Index(index)) => self.index(index),
            Some(Piece::Pack(pack)) => self.pack(pack),
            Some(Piece::Entries(entries)) => self.entries(entries),
            Some(Piece::ManifestEnd(end)) => {
                self.close_repository()?;
                if usize::try_from(end.entry_count) != Ok(self.entries.len()) {
                    return Err(Fault::Field {
                        what: "the count of the entries is not theirs",
                    });
                }
                self.phase = Phase::Contents;
                Ok(())
            }
            Some(Piece::Content(content)) => self.content(content),
            Some(Piece::Note(note)) => {
                if self.phase != Phase::Contents {
                    return Err(Fault::Order { what: "a note" });
                }
                self.notes += 1;
                at_most("notes", self.notes, NOTES_MAX)?;
                check_note(note)
            }
            Some(Piece::End(end)) => {
                if self.phase != Phase::Contents || self.content.is_some() {
                    return Err(Fault::Order { what: "the end" });
                }
                self.phase = Phase::Ended;
                match end.state.len() {
                    0 | SHA256_BYTES => Ok(()),
                    _ => Err(Fault::Field {
                        what: "a state is no digest",
                    }),
                }
            }
            None => Err(Fault::Field {
                what: "a part is empty",
            }),
        }
    }

    /// Judges the end of the stream.
    ///
    /// # Errors
    /// If the snapshot was cut.
    pub fn end(&self) -> Result<(), Fault> {
        match self.phase {
            Phase::Ended => Ok(()),
            _ => Err(Fault::Cut),
        }
    }

    /// Whether all of the manifest has come.
    #[must_use]
    pub fn has_manifest(&self) -> bool {
        self.phase >= Phase::Contents
    }

    /// How many entries have come.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Whether the entry of this number is a file.
    #[must_use]
    pub fn is_file(&self, entry: usize) -> bool {
        self.entries.get(entry).is_some_and(Option::is_some)
    }

    fn repository(&mut self, repository: &Repository) -> Result<(), Fault> {
        let is_first = self.phase == Phase::Start;
        if !is_first {
            self.close_repository()?;
        }
        let path = &repository.path[..];
        if is_first != path.is_empty() {
            return Err(Fault::Order {
                what: "a repository",
            });
        }
        if !is_first {
            self.name(path)?;
            if path <= &self.repository[..] {
                return Err(Fault::Order {
                    what: "a repository",
                });
            }
        }
        self.repositories += 1;
        at_most("repositories", self.repositories, REPOSITORIES_MAX)?;
        self.kind = kind(repository)?;
        self.id_digits = match repository.object_format() {
            ObjectFormat::Sha256 => 64,
            ObjectFormat::Unspecified | ObjectFormat::Sha1 => 40,
        };
        self.check_repository(repository)?;
        self.repository = path.to_vec();
        self.last_ref = None;
        self.last_index = None;
        self.last_entry = None;
        self.phase = Phase::Repository;
        Ok(())
    }

    fn check_repository(&self, repository: &Repository) -> Result<(), Fault> {
        let is_plain = self.kind == RepositoryKind::Plain;
        let has_git = !repository.head_ref.is_empty()
            || !repository.head_commit.is_empty()
            || !repository.shallow.is_empty()
            || !repository.unfinished.is_empty();
        if is_plain && (has_git || self.repositories > 1) {
            return Err(Fault::Field {
                what: "a directory has what only a repository has",
            });
        }
        if !is_plain && !repository.head_ref.is_empty() {
            reference(&repository.head_ref)?;
        }
        if !is_plain && repository.head_ref.is_empty() && repository.head_commit.is_empty() {
            return Err(Fault::Field {
                what: "a repository has no HEAD",
            });
        }
        if !repository.head_commit.is_empty() {
            self.id(&repository.head_commit)?;
        }
        at_most("shallow commits", repository.shallow.len(), SHALLOW_MAX)?;
        repository.shallow.iter().try_for_each(|id| self.id(id))?;
        check_unfinished(&repository.unfinished, self.id_digits)?;
        for (name, value) in &repository.settings {
            let known = SETTINGS.iter().find(|(known, _)| known == name);
            if !known.is_some_and(|(_, values)| values.contains(&value.as_str())) {
                return Err(Fault::Field {
                    what: "a setting is none that a repository may bring",
                });
            }
        }
        Ok(())
    }

    /// The repository whose parts came is whole.
    fn close_repository(&mut self) -> Result<(), Fault> {
        match self.phase {
            Phase::Start | Phase::Contents | Phase::Ended => {
                Err(Fault::Order { what: "this part" })
            }
            Phase::Pack => Err(Fault::Order {
                what: "anything but the rest of the pack",
            }),
            _ => Ok(()),
        }
    }

    /// Parts of a repository come in the order of the phases.
    fn enter(&mut self, phase: Phase, what: &'static str) -> Result<(), Fault> {
        let needs_git = phase != Phase::Entries;
        let is_late = self.phase == Phase::Start || self.phase > phase;
        let cuts_pack = self.phase == Phase::Pack && phase != Phase::Pack;
        if is_late || cuts_pack || (needs_git && self.kind != RepositoryKind::Git) {
            return Err(Fault::Order { what });
        }
        self.phase = phase;
        Ok(())
    }

    fn refs(&mut self, refs: &Refs) -> Result<(), Fault> {
        self.enter(Phase::Refs, "references")?;
        self.refs += refs.refs.len();
        at_most("references", self.refs, REFS_MAX)?;
        for found in &refs.refs {
            self.count_name(&found.name)?;
            self.id(&found.object_id)?;
            match found.kind() {
                RefKind::Ref => reference(&found.name)?,
                RefKind::Stash if is_stash(&found.name) => {}
                RefKind::Lost if found.name == found.object_id.as_bytes() => {}
                _ => {
                    return Err(Fault::Field {
                        what: "a reference's name is not of its kind",
                    });
                }
            }
            if !found.symbolic_target.is_empty() {
                reference(&found.symbolic_target)?;
            }
            let key = (found.kind, found.name.to_vec());
            // Entries of the stash come as they are numbered, and 10 comes after 9.
            let ascends = match &self.last_ref {
                Some((kind, _)) if *kind == key.0 && found.kind() == RefKind::Stash => true,
                Some(last) => *last < key,
                None => true,
            };
            if !ascends {
                return Err(Fault::Order {
                    what: "a reference",
                });
            }
            self.last_ref = Some(key);
        }
        Ok(())
    }

    fn index(&mut self, index: &IndexEntries) -> Result<(), Fault> {
        self.enter(Phase::Index, "an index")?;
        self.index_entries += index.entries.len();
        at_most("index entries", self.index_entries, INDEX_ENTRIES_MAX)?;
        for entry in &index.entries {
            self.name(&entry.path)?;
            match (entry.mode, entry.stage) {
                (0, 0) if entry.object_id.is_empty() => {}
                (0o100_644 | 0o100_755 | 0o120_000 | 0o160_000, 0..=3) => {
                    self.id(&entry.object_id)?;
                }
                _ => {
                    return Err(Fault::Field {
                        what: "an index entry has no such mode and stage",
                    });
                }
            }
            let key = (entry.path.to_vec(), entry.stage);
            if self.last_index.as_ref().is_some_and(|last| *last >= key) {
                return Err(Fault::Order {
                    what: "an index entry",
                });
            }
            self.last_index = Some(key);
        }
        Ok(())
    }

    fn pack(&mut self, pack: &PackData) -> Result<(), Fault> {
        if self.phase == Phase::PackEnded {
            return Err(Fault::Order {
                what: "a second pack",
            });
        }
        self.enter(Phase::Pack, "a pack")?;
        self.data(pack.data.len())?;
        if pack.is_last {
            self.phase = Phase::PackEnded;
        }
        Ok(())
    }

    fn entries(&mut self, entries: &Entries) -> Result<(), Fault> {
        self.enter(Phase::Entries, "entries")?;
        at_most(
            "entries",
            self.entries.len() + entries.entries.len(),
            ENTRIES_MAX,
        )?;
        for entry in &entries.entries {
            self.name(&entry.path)?;
            if !path::is_beneath(&entry.path, &self.repository) {
                return Err(Fault::Field {
                    what: "an entry lies outside of its repository",
                });
            }
            if self
                .last_entry
                .as_ref()
                .is_some_and(|last| last[..] >= entry.path[..])
            {
                return Err(Fault::Order { what: "an entry" });
            }
            self.last_entry = Some(entry.path.to_vec());
            let size = self.entry(entry)?;
            self.entries.push(size);
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<Option<u64>, Fault> {
        let is_file = entry.kind() == EntryKind::File;
        let is_link = entry.kind() == EntryKind::Symlink;
        let size = u64::try_from(entry.size).map_err(|_| Fault::Field {
            what: "a size is negative",
        })?;
        let digest = entry.sha256.len();
        let fits = match entry.kind() {
            EntryKind::Unspecified => false,
            _ => (is_file || size == 0) && (digest == 0 || (is_file && digest == SHA256_BYTES)),
        };
        if !fits || entry.mode > 0o777 {
            return Err(Fault::Field {
                what: "an entry is not as its kind is",
            });
        }
        let target = &entry.link_target;
        if is_link == target.is_empty() || target.len() > PATH_MAX_BYTES || target.contains(&0) {
            return Err(Fault::Field {
                what: "a link's target is none",
            });
        }
        self.count_name(target)?;
        at_most_u64("bytes", size, self.bytes_max)?;
        Ok(is_file.then_some(size))
    }

    fn content(&mut self, content: &Content) -> Result<(), Fault> {
        if self.phase != Phase::Contents {
            return Err(Fault::Order { what: "content" });
        }
        // Sizes are those of the bytes as they are.
        if content.encoding != i32::from(Encoding::Unspecified) {
            return Err(Fault::Field {
                what: "content is encoded where it must not be",
            });
        }
        let number = content.entry as usize;
        let came = match self.content {
            Some((current, came)) if current == number => came,
            None if number >= self.next_content => 0,
            _ => return Err(Fault::Order { what: "content" }),
        };
        let Some(Some(size)) = self.entries.get(number).copied() else {
            return Err(Fault::Field {
                what: "content is of no file",
            });
        };
        let came = came + content.data.len() as u64;
        if came > size {
            return Err(Fault::Field {
                what: "a file is longer than its entry says",
            });
        }
        self.data(content.data.len())?;
        if content.is_last {
            if content.sha256.len() != SHA256_BYTES {
                return Err(Fault::Field {
                    what: "content has no digest",
                });
            }
            self.content = None;
            self.next_content = number + 1;
        } else {
            self.content = Some((number, came));
        }
        Ok(())
    }

    fn data(&mut self, length: usize) -> Result<(), Fault> {
        at_most("bytes in a piece", length, DATA_MAX_BYTES)?;
        self.bytes += length as u64;
        at_most_u64("bytes", self.bytes, self.bytes_max)
    }

    fn id(&self, id: &str) -> Result<(), Fault> {
        match is_object_id(id) && id.len() == self.id_digits {
            true => Ok(()),
            false => Err(Fault::Field {
                what: "an object's id is none",
            }),
        }
    }

    fn name(&mut self, name: &[u8]) -> Result<(), Fault> {
        path::check(name).map_err(|source| Fault::name(name, source))?;
        self.count_name(name)
    }

    fn count_name(&mut self, name: &[u8]) -> Result<(), Fault> {
        self.names_bytes += name.len() as u64;
        at_most_u64("bytes of names", self.names_bytes, NAMES_MAX_BYTES)
    }
}

fn kind(repository: &Repository) -> Result<RepositoryKind, Fault> {
    match repository.kind() {
        RepositoryKind::Unspecified => Err(Fault::Field {
            what: "a repository has no kind",
        }),
        kind => Ok(kind),
    }
}
