//! Hands parts on, in messages of bounded size.

use bytes::Bytes;

use super::WorkError;
use crate::wire::limits::{MESSAGE_ITEMS, MESSAGE_NAMES_BYTES};
use crate::wire::{
    Entries, Entry, IndexEntries, IndexEntry, PackData, Part, Piece, Ref, Refs, part,
};

/// Takes the parts of a snapshot; false means that nobody wants more.
pub(super) struct Sender<'a> {
    deliver: &'a mut dyn FnMut(Part) -> bool,
    /// Bytes of packs and contents.
    pub(super) bytes: u64,
}

impl<'a> Sender<'a> {
    pub(super) fn new(deliver: &'a mut dyn FnMut(Part) -> bool) -> Self {
        Self { deliver, bytes: 0 }
    }

    pub(super) fn send(&mut self, piece: Piece) -> Result<(), WorkError> {
        match (self.deliver)(part(piece)) {
            true => Ok(()),
            false => Err(WorkError::Gone),
        }
    }

    pub(super) fn refs(&mut self, refs: Vec<Ref>) -> Result<(), WorkError> {
        self.chunks(
            refs,
            |found| found.name.len() + 64,
            |refs| Piece::Refs(Refs { refs }),
        )
    }

    pub(super) fn index(&mut self, index: Vec<IndexEntry>) -> Result<(), WorkError> {
        let piece = |entries| Piece::Index(IndexEntries { entries });
        self.chunks(index, |entry| entry.path.len() + 64, piece)
    }

    pub(super) fn entries(&mut self, entries: Vec<Entry>) -> Result<(), WorkError> {
        let bytes = |entry: &Entry| entry.path.len() + entry.link_target.len() + 64;
        self.chunks(entries, bytes, |entries| {
            Piece::Entries(Entries { entries })
        })
    }

    pub(super) fn pack(&mut self, data: Bytes, is_last: bool) -> Result<(), WorkError> {
        self.bytes += data.len() as u64;
        self.send(Piece::Pack(PackData { data, is_last }))
    }

    fn chunks<T>(
        &mut self,
        items: Vec<T>,
        bytes: impl Fn(&T) -> usize,
        piece: impl Fn(Vec<T>) -> Piece,
    ) -> Result<(), WorkError> {
        let (mut chunk, mut length) = (Vec::new(), 0);
        for item in items {
            length += bytes(&item);
            chunk.push(item);
            if chunk.len() == MESSAGE_ITEMS || length >= MESSAGE_NAMES_BYTES {
                self.send(piece(std::mem::take(&mut chunk)))?;
                length = 0;
            }
        }
        match chunk.is_empty() {
            true => Ok(()),
            false => self.send(piece(chunk)),
        }
    }
}
