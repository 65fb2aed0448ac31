//! Records: what a base disk's layers hold, and where on the disk. With one, a layer that another image has too is
//! neither fetched nor decompressed again: its files are copied from that image's disk.
//!
//! ```text
//! rootfs/<hex>-<format>.layers    magic, entries of each layer, table, length and digest of the table, magic
//! ```
//! A record stands beside the disk it tells of and goes with it. It is believed only if its own digests, and the disk's
//! length and time, are what they were when it was written; otherwise the layer is read from its blob. Files that
//! upper layers hide are not on the disk: whether one is needed is known once the tree is made.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use banger_core::Digest;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::layout::{Layout, RECORD_EXTENSION};
use crate::ext4;
use crate::flatten::Place;
use crate::limits::{RECORD_BYTES_MAX, RECORD_TABLE_BYTES_MAX, RECORDS_TRIED_MAX};
use crate::tar::{Cost, Entry, EntryKind, PackedEntries};

/// Changes with the format.
const MAGIC: &[u8; 8] = b"bngrlyr1";
/// Behind the table: its length, its digest in hexadecimal, the magic.
const TRAILER_BYTES: usize = 8 + 64 + MAGIC.len();

/// What a layer is known by. A blob alone does not say what it decompresses to, and the same archive can be compressed
/// in many ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct LayerKey {
    pub(super) blob: Digest,
    pub(super) diff_id: Digest,
}

/// A layer as a record has it.
#[derive(Debug)]
pub(super) struct RecordedLayer {
    /// With the places of its files on `disk`, or nowhere.
    pub(super) entries: PackedEntries,
    /// What its entries took of a budget when it was read.
    pub(super) cost: Cost,
    /// How many blocks of a disk its files take.
    pub(super) file_blocks: u64,
    pub(super) disk: File,
}

/// Layers that will be recorded. They wait in a file, because the memory is needed while their disk is laid out.
#[derive(Debug)]
pub(super) struct Waiting {
    file: File,
    end: u64,
    layers: Vec<WaitingLayer>,
}

#[derive(Debug)]
struct WaitingLayer {
    key: LayerKey,
    cost: Cost,
    offset: u64,
    size: usize,
}

impl Waiting {
    /// None yet; the file is a nameless one in `tmp`.
    pub(super) fn new(tmp: &Path) -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile_in(tmp)?,
            end: 0,
            layers: Vec::new(),
        })
    }

    /// Takes the next layer.
    pub(super) fn push(
        &mut self,
        key: LayerKey,
        entries: &PackedEntries,
        cost: Cost,
    ) -> io::Result<()> {
        let bytes = entries.as_bytes();
        self.file.write_all_at(bytes, self.end)?;
        self.layers.push(WaitingLayer {
            key,
            cost,
            offset: self.end,
            size: bytes.len(),
        });
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// What it has taken.
    pub(super) fn keys(&self) -> Vec<LayerKey> {
        self.layers.iter().map(|layer| layer.key).collect()
    }

    fn entries(&self, layer: &WaitingLayer) -> io::Result<PackedEntries> {
        let mut bytes = vec![0; layer.size];
        self.file.read_exact_at(&mut bytes, layer.offset)?;
        PackedEntries::from_bytes(bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    disk: DiskIdentity,
    layers: Vec<Row>,
}

/// By what a disk is told from another of its name.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskIdentity {
    size_bytes: u64,
    mtime_seconds: i64,
    mtime_nanos: i64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    key: LayerKey,
    offset: u64,
    size_bytes: u64,
    digest: Digest,
    /// Files that are not on the disk.
    lost: u64,
    cost_entries: u64,
    cost_text_bytes: u64,
}

impl DiskIdentity {
    fn of(disk: &File) -> io::Result<Self> {
        let metadata = disk.metadata()?;
        Ok(Self {
            size_bytes: metadata.len(),
            mtime_seconds: metadata.mtime(),
            mtime_nanos: metadata.mtime_nsec(),
        })
    }
}

/// Which records have which layers.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Read from the disk when it is first asked for. What has gone since is seen when it is opened.
    known: Mutex<Option<HashMap<LayerKey, Vec<PathBuf>>>>,
}

impl Records {
    /// The layer, if a record has it; rather one that has all its files. Blocks.
    pub(super) fn find(&self, layout: &Layout, key: LayerKey) -> Option<RecordedLayer> {
        let paths = self.with_known(layout, |known| known.get(&key).cloned())?;
        let mut found: Vec<Found> = paths
            .iter()
            .rev()
            .take(RECORDS_TRIED_MAX)
            .filter_map(|path| Found::open(path, key))
            .collect();
        found.sort_by_key(|found| found.row.lost);
        found.into_iter().find_map(Found::read)
    }

    /// Remembers a record that has got its name.
    pub(super) fn add(&self, layout: &Layout, path: &Path, keys: &[LayerKey]) {
        self.with_known(layout, |known| {
            for key in keys {
                let paths = known.entry(*key).or_default();
                paths.retain(|other| other != path && other.exists());
                paths.push(path.to_owned());
            }
        });
    }

    fn with_known<T>(
        &self,
        layout: &Layout,
        act: impl FnOnce(&mut HashMap<LayerKey, Vec<PathBuf>>) -> T,
    ) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        act(known.get_or_insert_with(|| scan(layout.rootfs_directory())))
    }
}

/// What the records of a directory have. One that cannot be read has nothing.
fn scan(directory: &Path) -> HashMap<LayerKey, Vec<PathBuf>> {
    let mut known: HashMap<LayerKey, Vec<PathBuf>> = HashMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|end| end != RECORD_EXTENSION) {
            continue;
        }
        let table = File::open(&path).ok().and_then(|file| table_of(&file));
        for row in table.into_iter().flat_map(|table| table.layers) {
            known.entry(row.key).or_default().push(path.clone());
        }
    }
    known
}

/// A layer in an open record beside an open disk, both of which belong together.
struct Found {
    record: File,
    disk: File,
    row: Row,
}

impl Found {
    fn open(path: &Path, key: LayerKey) -> Option<Self> {
        let record = File::open(path).ok()?;
        let disk = File::open(path.with_extension("ext4")).ok()?;
        let table = table_of(&record)?;
        if DiskIdentity::of(&disk).ok()? != table.disk {
            return None;
        }
        // Of the same layer twice the upper one hides nothing of itself.
        let row = table.layers.into_iter().filter(|row| row.key == key);
        let row = row.min_by_key(|row| row.lost)?;
        Some(Self { record, disk, row })
    }

    fn read(self) -> Option<RecordedLayer> {
        let Self { record, disk, row } = self;
        if row.size_bytes > RECORD_BYTES_MAX {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(row.size_bytes).ok()?];
        record.read_exact_at(&mut bytes, row.offset).ok()?;
        if Digest::of(&bytes) != row.digest {
            return None;
        }
        let entries = PackedEntries::from_bytes(bytes)?;
        let size = disk.metadata().ok()?.len();
        let mut file_blocks = 0;
        for entry in entries.iter() {
            if !is_within(&entry, size) {
                return None;
            }
            file_blocks += ext4::file_blocks(&entry);
        }
        Some(RecordedLayer {
            file_blocks,
            entries,
            cost: Cost {
                entries: row.cost_entries,
                text_bytes: row.cost_text_bytes,
            },
            disk,
        })
    }
}

/// Whether the places of an entry are on a disk of `size` bytes.
fn is_within(entry: &Entry, size: u64) -> bool {
    match &entry.kind {
        EntryKind::File(content) if !content.is_lost() => content.extents.iter().all(|extent| {
            let end = extent.offset.checked_add(extent.len);
            end.is_some_and(|end| end <= size)
        }),
        _ => true,
    }
}

fn table_of(record: &File) -> Option<Table> {
    let len = record.metadata().ok()?.len();
    let end = len.checked_sub(TRAILER_BYTES as u64)?;
    let mut trailer = [0; TRAILER_BYTES];
    record.read_exact_at(&mut trailer, end).ok()?;
    let (size, rest) = trailer.split_first_chunk::<8>()?;
    let (digest, magic) = rest.split_at(64);
    let size = u64::from_le_bytes(*size);
    if magic != MAGIC || size > RECORD_TABLE_BYTES_MAX {
        return None;
    }
    let mut table = vec![0; usize::try_from(size).ok()?];
    record
        .read_exact_at(&mut table, end.checked_sub(size)?)
        .ok()?;
    if Digest::of(&table).hex().as_bytes() != digest {
        return None;
    }
    serde_json::from_slice(&table).ok()
}

/// A record that does not say yet of which disk it is.
#[derive(Debug)]
pub(super) struct Unsealed {
    file: BufWriter<NamedTempFile>,
    layers: Vec<Row>,
}

/// Writes the record of a disk but for its end; `None` when it would be too large. `places` are those of the disk's files, by
/// layer and entry. Blocks.
pub(super) fn write(
    waiting: &Waiting,
    places: impl Iterator<Item = Place>,
    tmp: &Path,
) -> io::Result<Option<Unsealed>> {
    let mut places = places.peekable();
    let mut file = BufWriter::new(NamedTempFile::with_prefix_in("record-", tmp)?);
    file.write_all(MAGIC)?;
    let mut layers = Vec::with_capacity(waiting.layers.len());
    let mut offset = MAGIC.len() as u64;
    for (number, layer) in (0..).zip(&waiting.layers) {
        let mut placed = Vec::new();
        while let Some(place) = places.next_if(|place| place.layer == number) {
            placed.push(place);
        }
        let (entries, lost) = with_places(&waiting.entries(layer)?, placed);
        let size_bytes = entries.as_bytes().len() as u64;
        if offset + size_bytes > RECORD_BYTES_MAX {
            return Ok(None);
        }
        file.write_all(entries.as_bytes())?;
        layers.push(Row {
            key: layer.key,
            offset,
            size_bytes,
            digest: Digest::of(entries.as_bytes()),
            lost,
            cost_entries: layer.cost.entries,
            cost_text_bytes: layer.cost.text_bytes,
        });
        offset += size_bytes;
    }
    Ok(Some(Unsealed { file, layers }))
}

impl Unsealed {
    /// Makes it the record of a disk that is whole, and written to no more. It still has to be synced and named. Blocks.
    pub(super) fn seal(self, disk: &File) -> io::Result<NamedTempFile> {
        let Self { mut file, layers } = self;
        let disk = DiskIdentity::of(disk)?;
        let table = serde_json::to_vec(&Table { disk, layers })?;
        file.write_all(&table)?;
        file.write_all(&(table.len() as u64).to_le_bytes())?;
        file.write_all(Digest::of(&table).hex().as_bytes())?;
        file.write_all(MAGIC)?;
        file.into_inner().map_err(io::Error::from)
    }
}

/// A layer's entries with the places of their files on a disk, sorted; and how many have none there.
fn with_places(entries: &PackedEntries, placed: Vec<Place>) -> (PackedEntries, u64) {
    let mut lost = 0;
    let mut placed = placed.into_iter().peekable();
    let mut packed = PackedEntries::default();
    for (number, mut entry) in (0..).zip(entries.iter()) {
        if let EntryKind::File(content) = entry.kind {
            let content = if content.extents.is_empty() {
                content
            } else if let Some(place) = placed.next_if(|place| place.number == number) {
                place.content
            } else {
                lost += 1;
                content.lost()
            };
            entry.kind = EntryKind::File(content);
        }
        packed.push(&entry);
    }
    (packed, lost)
}
