//! Sparse files: the old GNU headers, and the three forms GNU tar writes in PAX headers
//! (GNU tar manual, "Storing Sparse Files").

use tar::GnuExtSparseHeader;

use super::entry::{Content, Extent};
use super::error::{TarError, shown};
use super::input::{TarInput, fill};
use super::pax::decimal;
use crate::limits::{FILE_BYTES_MAX, SPARSE_PIECES_MAX};

/// The size of a tar block.
const BLOCK: usize = 512;

/// What `GNU.sparse.*` records say.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    /// How many pieces the map should have.
    pieces: Option<u64>,
    map: Vec<(u64, u64)>,
    offset: Option<u64>,
}

impl PaxSparse {
    /// Whether the entry is sparse at all.
    pub(super) fn is_present(&self) -> bool {
        self.size.is_some()
    }

    /// One record, its key without `GNU.sparse.`; `None` when it is malformed.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"major" => self.major = Some(decimal(value)?),
            b"minor" => self.minor = Some(decimal(value)?),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"numblocks" => self.pieces = Some(decimal(value)?),
            b"offset" => self.offset = Some(decimal(value)?),
            b"numbytes" => self.push(self.offset?, decimal(value)?)?,
            b"map" => {
                let numbers: Option<Vec<u64>> =
                    value.split(|byte| *byte == b',').map(decimal).collect();
                for pair in numbers?.chunks(2) {
                    self.push(pair[0], *pair.get(1)?)?;
                }
            }
            _ => {}
        }
        Some(())
    }

    fn push(&mut self, offset: u64, len: u64) -> Option<()> {
        self.map.push((offset, len));
        (self.map.len() <= SPARSE_PIECES_MAX).then_some(())
    }

    /// The content of an entry with `stored` bytes from the input's position on; reads the map where it is
    /// stored in front of the data (version 1.0), and nothing else.
    pub(super) fn content(
        mut self,
        input: &mut impl TarInput,
        stored: u64,
        name: &[u8],
    ) -> Result<Content, TarError> {
        let bad = || TarError::BadSparseMap { entry: shown(name) };
        let begin = input.position();
        if (self.major, self.minor) == (Some(1), Some(0)) {
            self.map = stored_map(input, stored, name)?;
        }
        if self
            .pieces
            .is_some_and(|pieces| pieces != self.map.len() as u64)
        {
            return Err(bad());
        }
        let size = self.size.ok_or_else(bad)?;
        let header = input.position() - begin;
        content(
            &self.map,
            size,
            input.position(),
            stored.checked_sub(header).ok_or_else(bad)?,
            name,
        )
    }
}

/// The map of version 1.0: decimal lines, the count first, padded to a block.
fn stored_map(
    input: &mut impl TarInput,
    stored: u64,
    name: &[u8],
) -> Result<Vec<(u64, u64)>, TarError> {
    let bad = || TarError::BadSparseMap { entry: shown(name) };
    let mut numbers: Vec<u64> = Vec::new();
    let mut line: Vec<u8> = Vec::new();
    let mut left = stored;
    loop {
        left = left.checked_sub(BLOCK as u64).ok_or_else(bad)?;
        let mut block = [0u8; BLOCK];
        fill(input, &mut block)?;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(bad());
                }
                continue;
            }
            numbers.push(decimal(&line).ok_or_else(bad)?);
            line.clear();
            let count = usize::try_from(numbers[0])
                .ok()
                .filter(|count| *count <= SPARSE_PIECES_MAX)
                .ok_or_else(bad)?;
            if numbers.len() == 1 + 2 * count {
                return Ok(numbers[1..]
                    .chunks(2)
                    .map(|pair| (pair[0], pair[1]))
                    .collect());
            }
        }
    }
}

/// The content of an old GNU sparse entry; reads its extension headers.
pub(super) fn gnu_content(
    input: &mut impl TarInput,
    header: &tar::GnuHeader,
    stored: u64,
    name: &[u8],
) -> Result<Content, TarError> {
    let bad = || TarError::BadSparseMap { entry: shown(name) };
    let mut map = Vec::new();
    let mut add = |pieces: &[tar::GnuSparseHeader]| -> Result<(), TarError> {
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            map.push((
                piece.offset().map_err(|_| bad())?,
                piece.length().map_err(|_| bad())?,
            ));
        }
        if map.len() > SPARSE_PIECES_MAX {
            Err(bad())
        } else {
            Ok(())
        }
    };
    add(&header.sparse)?;
    let mut more = header.is_extended();
    while more {
        let mut extension = GnuExtSparseHeader::new();
        fill(input, extension.as_mut_bytes())?;
        add(extension.sparse())?;
        more = extension.is_extended();
    }
    content(
        &map,
        header.real_size().map_err(|_| bad())?,
        input.position(),
        stored,
        name,
    )
}

/// Checks a map and gives each piece its place in the archive.
fn content(
    map: &[(u64, u64)],
    size: u64,
    mut offset: u64,
    stored: u64,
    name: &[u8],
) -> Result<Content, TarError> {
    let bad = || TarError::BadSparseMap { entry: shown(name) };
    if size > FILE_BYTES_MAX {
        return Err(TarError::FileTooLong {
            entry: shown(name),
            bytes: size,
        });
    }
    let mut extents: Vec<Extent> = Vec::with_capacity(map.len());
    let mut end = 0;
    let mut total = 0u64;
    for (index, &(logical, len)) in map.iter().enumerate() {
        let piece_end = logical
            .checked_add(len)
            .filter(|end| *end <= size)
            .ok_or_else(bad)?;
        // Some programs take pieces to begin at a block each, and some take them to follow each other.
        let is_ambiguous =
            !len.is_multiple_of(BLOCK as u64) && map[index + 1..].iter().any(|(_, len)| *len > 0);
        if logical < end || is_ambiguous {
            return Err(bad());
        }
        end = piece_end;
        if len > 0 {
            extents.push(Extent {
                logical,
                offset,
                len,
            });
            offset = offset.checked_add(len).ok_or_else(bad)?;
            total += len;
        }
    }
    if total == stored {
        Ok(Content {
            size,
            extents: extents.into(),
        })
    } else {
        Err(bad())
    }
}
