//! A plain tar as a tree of files that can be picked from: a build's context, what an earlier stage gave,
//! an archive inside of it. It is indexed and never unpacked.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use banger_core::Digest;
use banger_core::tree::TreeEntry;
use tokio_util::sync::CancellationToken;

use crate::layer::{Destination, Kept, LayerError, LayerSource, READ_BYTES, index_layer};
use crate::store::StoreError;
use crate::tar::{Budget, Content, Entry, FileInput, PackedEntries, TarReader};
use crate::watched::Watched;

/// Enough to tell every format: the mark of a tar is at byte 257.
const MAGIC_BYTES: usize = 263;

/// An indexed archive. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TreeArchive {
    file: Arc<File>,
    entries: Arc<[(TreeEntry, Option<Content>)]>,
}

/// What a file of an archive is, seen as an archive itself.
#[derive(Debug, Clone)]
pub enum Unpacked {
    /// An archive.
    Archive(TreeArchive),
    /// Something else, to be taken as it is.
    Plain,
    /// An archive in a compression that is not supported.
    Unsupported(&'static str),
}

impl TreeArchive {
    /// Indexes a plain tar. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Archive`] for what is no tar or breaks a bound.
    pub fn open(file: File, name: &Path) -> Result<Self, StoreError> {
        let damaged = |source| StoreError::Archive {
            path: name.to_owned(),
            source,
        };
        let budget = Budget::default();
        let kept = file.try_clone().map_err(StoreError::io("open", name))?;
        let input = FileInput::new(file).map_err(StoreError::io("open", name))?;
        let mut reader = TarReader::new(input, &budget);
        let mut entries = PackedEntries::default();
        while let Some(entry) = reader.next_entry().map_err(damaged)? {
            entries.push(&entry);
        }
        Ok(Self::from_entries(kept, &entries))
    }

    fn from_entries(file: File, entries: &PackedEntries) -> Self {
        Self {
            file: Arc::new(file),
            entries: entries.iter().map(Entry::into_tree).collect(),
        }
    }

    /// The entries in the archive's order; the same path may come more than once, the last one counts.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &TreeEntry> {
        self.entries.iter().map(|(entry, _)| entry)
    }

    /// Entry `number`.
    #[must_use]
    pub fn entry(&self, number: usize) -> Option<&TreeEntry> {
        self.entries.get(number).map(|(entry, _)| entry)
    }

    /// The bytes of the file that is entry `number`; nothing for anything else.
    #[must_use]
    pub fn content(&self, number: usize) -> ContentOf {
        let content = self
            .entries
            .get(number)
            .and_then(|(_, content)| content.clone());
        ContentOf {
            file: Arc::clone(&self.file),
            content: content.unwrap_or_else(|| Content::dense(0, 0)),
            at: 0,
        }
    }

    /// Opens the file that is entry `number` as an archive of its own. Blocks.
    ///
    /// # Errors
    /// When the host's own files fail, or `cancel` is cancelled.
    pub fn unpack(
        &self,
        number: usize,
        tmp: &Path,
        cancel: &CancellationToken,
    ) -> Result<Unpacked, StoreError> {
        let mut magic = Vec::new();
        let first = self.content(number).take(MAGIC_BYTES as u64);
        io::BufReader::new(first)
            .read_to_end(&mut magic)
            .map_err(StoreError::io("read", Path::new("the context")))?;
        let is_compressed = match magic.as_slice() {
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => true,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => return Ok(Unpacked::Unsupported("xz")),
            [b'B', b'Z', b'h', ..] => return Ok(Unpacked::Unsupported("bzip2")),
            magic if magic.get(257..262) == Some(b"ustar") => false,
            _ => return Ok(Unpacked::Plain),
        };
        let content = self.content(number);
        let source = LayerSource {
            size_bytes: content.content.size,
            reader: io::BufReader::with_capacity(READ_BYTES, Watched::new(content, cancel.clone())),
            digest: Digest::of(b""),
        };
        let budget = Budget::default();
        let indexed = if is_compressed {
            index_layer(source, Destination::Spool(tmp.to_owned()), &budget, cancel)
                .map(|indexed| (indexed.entries, indexed.kept))
        } else {
            crate::layer::spool_archive(source, tmp, &budget)
                .map(|spooled| (spooled.entries, Kept::Archive(spooled.file)))
        };
        match indexed {
            Ok((entries, Kept::Archive(file))) if !entries.is_empty() => {
                Ok(Unpacked::Archive(Self::from_entries(file, &entries)))
            }
            Ok(_) => Ok(Unpacked::Plain),
            Err(_) if cancel.is_cancelled() => Err(StoreError::Cancelled),
            Err(LayerError::Store { source, .. }) => Err(StoreError::io("write", tmp)(source)),
            // A compressed file that holds no tar is a file like any other.
            Err(_) if is_compressed => Ok(Unpacked::Plain),
            Err(error) => Err(error.into()),
        }
    }
}

/// The bytes of one file, holes as zeros. Blocks.
#[derive(Debug)]
pub struct ContentOf {
    file: Arc<File>,
    content: Content,
    at: u64,
}

impl Read for ContentOf {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let within =
            |wanted: u64, buf: &[u8]| usize::try_from(wanted).unwrap_or(usize::MAX).min(buf.len());
        let extents = &self.content.extents;
        let next = extents.partition_point(|extent| extent.logical + extent.len <= self.at);
        let read = match extents.get(next) {
            Some(extent) if extent.logical <= self.at => {
                let inside = self.at - extent.logical;
                let want = within(extent.len - inside, buf);
                let read = self
                    .file
                    .read_at(&mut buf[..want], extent.offset + inside)?;
                if read == 0 && want > 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                read
            }
            hole => {
                let end = hole.map_or(self.content.size, |extent| extent.logical);
                let zeros = within(end.saturating_sub(self.at), buf);
                buf[..zeros].fill(0);
                zeros
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}
