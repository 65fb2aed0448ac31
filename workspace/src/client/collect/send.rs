//! Sends what was looked through.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use bytes::Bytes;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::walk::note;
use super::{Sink, Source, Surveyed, history};
use crate::client::error::{Error, Result};
use crate::client::lines::{path, shown};
use crate::command::GitError;
use crate::wire::limits::{DATA_MAX_BYTES, MESSAGE_ITEMS, MESSAGE_NAMES_BYTES, NOTES_MAX};
use crate::wire::{
    Content, End, Entries, Entry, EntryKind, IndexEntries, IndexEntry, KnownRepository,
    ManifestEnd, NoteKind, PackData, Piece, Ref, Refs, part,
};

/// Bytes of a pack before its first object: `PACK`, a version, the count.
const PACK_HEADER_BYTES: usize = 12;

impl Source {
    /// Sends all but the contents of files; objects that `known` commits lead to are left out.
    ///
    /// # Errors
    /// If something cannot be read, or nobody takes it.
    pub fn send_manifest(&mut self, known: &[KnownRepository], sink: &mut Sink<'_>) -> Result<()> {
        let mut count = 0;
        for number in 0..self.repositories.len() {
            self.hash(number);
            let surveyed = &self.repositories[number];
            let known = known
                .iter()
                .find(|known| known.path == surveyed.message.path);
            // A shallow history that the receiver has may end before this one does.
            let known = known.filter(|_| self.depth == 0);
            let known = known.map_or(&[][..], |known| &known.commits);
            surveyed.send(known, sink)?;
            count += surveyed.entries.len();
        }
        sink(part(Piece::ManifestEnd(ManifestEnd {
            entry_count: i64::try_from(count).unwrap_or(i64::MAX),
        })))
    }

    /// Finds out the digests of a repository's files. What cannot be read is left out, with a note.
    fn hash(&mut self, number: usize) {
        let mut kept = Vec::new();
        for mut entry in std::mem::take(&mut self.repositories[number].entries) {
            if entry.kind() == EntryKind::File {
                match self.digest(&entry) {
                    Ok((size, digest)) => {
                        entry.size = size;
                        entry.sha256 = digest;
                    }
                    Err(error) => {
                        let is_loss = error.kind() != io::ErrorKind::NotFound;
                        let detail = error.to_string();
                        let found = note(NoteKind::Unreadable, &entry.path, &detail, is_loss);
                        self.notes.push(found);
                        continue;
                    }
                }
            }
            kept.push(entry);
        }
        self.repositories[number].entries = kept;
    }

    fn open_file(&self, entry: &Entry) -> io::Result<File> {
        let at = self.top.join(path(&entry.path));
        // A pipe that took the file's place is not waited for.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let flags = flags.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(at)?;
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("it is no file any more")),
        }
    }

    fn digest(&self, entry: &Entry) -> io::Result<(i64, Bytes)> {
        let mut file = self.open_file(entry)?;
        let mut digest = Sha256::new();
        let size = io::copy(&mut file, &mut digest)?;
        let digest = digest.finalize().to_vec();
        Ok((i64::try_from(size).unwrap_or(i64::MAX), digest.into()))
    }

    /// Sends the contents of the files with these numbers, ascending, and the end.
    ///
    /// # Errors
    /// [`Error::Moved`] if a file is not what the manifest said; otherwise if nobody takes it.
    pub fn send_contents(&self, needed: &[u32], sink: &mut Sink<'_>) -> Result<()> {
        let entries = self.repositories.iter();
        let entries: Vec<&Entry> = entries.flat_map(|surveyed| &surveyed.entries).collect();
        for &number in needed {
            let entry = usize::try_from(number).ok();
            let entry = entry.and_then(|number| entries.get(number));
            let entry = entry.filter(|entry| entry.kind() == EntryKind::File);
            let entry = entry.ok_or_else(|| Error::Unsafe {
                name: number.to_string(),
                problem: "is the number of no file",
            })?;
            self.send_file(number, entry, sink)?;
        }
        for found in self.notes.iter().take(NOTES_MAX) {
            sink(part(Piece::Note(found.clone())))?;
        }
        let left_out = self.notes.len().saturating_sub(NOTES_MAX);
        sink(part(Piece::End(End {
            state: Bytes::new(),
            notes_left_out: i64::try_from(left_out).unwrap_or(i64::MAX),
        })))
    }

    fn send_file(&self, number: u32, entry: &Entry, sink: &mut Sink<'_>) -> Result<()> {
        let moved = || Error::Moved {
            path: shown(&entry.path),
        };
        let mut file = self.open_file(entry).map_err(|_| moved())?;
        let mut digest = Sha256::new();
        let mut left = u64::try_from(entry.size).unwrap_or_default();
        loop {
            let length = usize::try_from(left).unwrap_or(usize::MAX);
            let mut data = vec![0; length.min(DATA_MAX_BYTES)];
            file.read_exact(&mut data).map_err(|_| moved())?;
            digest.update(&data);
            left -= data.len() as u64;
            let is_last = left == 0;
            let sha256 = match is_last {
                true => Bytes::from(digest.finalize_reset().to_vec()),
                false => Bytes::new(),
            };
            if is_last && sha256 != entry.sha256 {
                return Err(moved());
            }
            sink(part(Piece::Content(Content {
                entry: number,
                data: data.into(),
                is_last,
                sha256,
                ..Content::default()
            })))?;
            if is_last {
                return Ok(());
            }
        }
    }
}

impl Surveyed {
    fn send(&self, known: &[String], sink: &mut Sink<'_>) -> Result<()> {
        sink(part(Piece::Repository(self.message.clone())))?;
        let weight = |one: &Ref| one.name.len() + one.object_id.len() + one.symbolic_target.len();
        for refs in batches(&self.refs, weight) {
            let refs = refs.to_vec();
            sink(part(Piece::Refs(Refs { refs })))?;
        }
        let weight = |one: &IndexEntry| one.path.len() + one.object_id.len();
        for entries in batches(&self.index, weight) {
            let entries = entries.to_vec();
            sink(part(Piece::Index(IndexEntries { entries })))?;
        }
        self.send_pack(known, sink)?;
        let weight = |one: &Entry| one.path.len() + one.link_target.len() + one.sha256.len();
        for entries in batches(&self.entries, weight) {
            let entries = entries.to_vec();
            sink(part(Piece::Entries(Entries { entries })))?;
        }
        Ok(())
    }

    fn send_pack(&self, known: &[String], sink: &mut Sink<'_>) -> Result<()> {
        let Some(repository) = self.repository.as_ref().filter(|_| !self.tips.is_empty()) else {
            return Ok(());
        };
        let known = history::existing(repository, known)?;
        let mut words = vec![
            "pack-objects",
            "--revs",
            "--thin",
            "--stdout",
            "--delta-base-offset",
            "-q",
        ];
        if !self.message.shallow.is_empty() {
            words.push("--shallow");
        }
        let feed = |input: &mut dyn Write| -> io::Result<()> {
            let mut input = io::BufWriter::new(input);
            for id in &self.message.shallow {
                writeln!(input, "--shallow {id}")?;
            }
            for id in &self.tips {
                writeln!(input, "{id}")?;
            }
            for id in &known {
                writeln!(input, "^{id}")?;
            }
            input.flush()
        };
        // Whoever takes the pack may fail: that is told, and not that git's output broke.
        let mut failed = None;
        let carry = |output: &mut dyn Read| match carry(output, sink) {
            Ok(()) => Ok(()),
            Err(Carry::Read(error)) => Err(error),
            Err(Carry::Sink(error)) => {
                failed = Some(error);
                Err(io::ErrorKind::BrokenPipe.into())
            }
        };
        let carried = repository.git().pipe(&words, feed, carry);
        match (failed, carried) {
            (Some(error), _) => Err(error),
            (None, Err(GitError::Cancelled)) => Err(Error::Gone),
            (None, carried) => carried.map_err(Error::git("pack the history")),
        }
    }
}

enum Carry {
    Read(io::Error),
    Sink(Error),
}

/// Sends a pack, unless there is nothing in it.
fn carry(output: &mut dyn Read, sink: &mut Sink<'_>) -> std::result::Result<(), Carry> {
    let mut piece = chunk(output).map_err(Carry::Read)?;
    let count = piece.get(8..PACK_HEADER_BYTES);
    if count.is_none_or(|count| count == [0; 4]) {
        return Ok(());
    }
    loop {
        let next = chunk(output).map_err(Carry::Read)?;
        let is_last = next.is_empty();
        let data = std::mem::replace(&mut piece, next).into();
        sink(part(Piece::Pack(PackData { data, is_last }))).map_err(Carry::Sink)?;
        if is_last {
            return Ok(());
        }
    }
}

fn chunk(output: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    output.take(DATA_MAX_BYTES as u64).read_to_end(&mut data)?;
    Ok(data)
}

/// `items` in runs that fit a message.
fn batches<T>(items: &[T], weight: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(MESSAGE_ITEMS).take_while(|item| {
            bytes += weight(item) + 16;
            bytes <= MESSAGE_NAMES_BYTES
        });
        let length = fits.count().max(1).min(rest.len());
        let (batch, after) = rest.split_at(length);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}
