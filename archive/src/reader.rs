//! The entry loop: header, extensions, data, next.

use std::sync::atomic::{AtomicU64, Ordering};

use tar::{EntryType, Header};

use super::entry::{Content, Entry, EntryKind, Meta, Xattrs};
use super::error::{TarError, shown};
use super::input::{TarInput, fill};
use super::path::{normalise, without_nul};
use super::pax::PaxRecords;
use super::sparse;
use crate::limits::{
    ENTRIES_MAX, FILE_BYTES_MAX, TAR_EXTENSION_BYTES_MAX, TEXT_BYTES_MAX, XATTR_BYTES_MAX,
};

const BLOCK: usize = 512;
/// The largest size a header's eleven octal digits state.
const OCTAL_SIZE_MAX: u64 = 0o777_7777_7777;
const TWO_EXTENSIONS: &str = "two extension headers of one kind precede it";
/// The longest symbolic link ext4 holds.
const SYMLINK_BYTES_MAX: usize = 4095;
/// The largest device numbers Linux has (12 and 20 bits).
const MAJOR_MAX: i64 = 0xfff;
const MINOR_MAX: i64 = 0xf_ffff;

/// What one archive may use, or all layers of one image together.
#[derive(Debug, Default)]
pub struct Budget {
    entries: AtomicU64,
    text_bytes: AtomicU64,
}

/// What entries take of a [`Budget`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Entries.
    pub entries: u64,
    /// Bytes of names, link targets, attributes and places of pieces.
    pub text_bytes: u64,
}

impl Cost {
    /// Of one entry.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let link = match &entry.kind {
            EntryKind::HardLink { target } | EntryKind::Symlink { target } => target.len(),
            EntryKind::File(content) => content.extents.len() * size_of::<super::Extent>(),
            _ => 0,
        };
        let xattrs: usize = entry
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        Self {
            entries: 1,
            text_bytes: (entry.path.len() + link + xattrs) as u64,
        }
    }
}

impl Budget {
    /// Takes `cost` of it.
    ///
    /// # Errors
    /// If there is not as much left.
    pub fn spend(&self, cost: Cost) -> Result<(), TarError> {
        let Cost {
            entries,
            text_bytes,
        } = cost;
        if self.entries.fetch_add(entries, Ordering::Relaxed) + entries > ENTRIES_MAX {
            return Err(TarError::TooManyEntries);
        }
        if self.text_bytes.fetch_add(text_bytes, Ordering::Relaxed) + text_bytes > TEXT_BYTES_MAX {
            return Err(TarError::TooMuchText);
        }
        Ok(())
    }

    /// Gives `cost` back, of entries that are not kept.
    pub fn refund(&self, cost: Cost) {
        self.entries.fetch_sub(cost.entries, Ordering::Relaxed);
        self.text_bytes
            .fetch_sub(cost.text_bytes, Ordering::Relaxed);
    }
}

/// Reads one archive's entries; the data of files is passed over.
#[derive(Debug)]
pub struct TarReader<'a, I> {
    input: I,
    budget: &'a Budget,
    /// Data and padding of the last entry, still to be passed over.
    pending: u64,
    /// How much of that is data.
    stored: u64,
    ended: bool,
}

/// What precedes a header: PAX records and GNU long names, at most one of each.
#[derive(Debug, Default)]
struct Extensions {
    pax: Option<PaxRecords>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Extensions {
    /// Takes the extension header `header` with the data `bytes`, which lie at `offset`.
    fn take(&mut self, header: &Header, bytes: Vec<u8>, offset: u64) -> Result<(), TarError> {
        let twice = |first: bool| {
            if first {
                Ok(())
            } else {
                Err(ambiguous(header, TWO_EXTENSIONS))
            }
        };
        match header.entry_type() {
            EntryType::GNULongName => {
                twice(self.long_name.is_none())?;
                self.long_name = Some(until_nul(bytes));
            }
            EntryType::GNULongLink => {
                twice(self.long_link.is_none())?;
                self.long_link = Some(until_nul(bytes));
            }
            kind => {
                let mut records = PaxRecords::default();
                records.parse(&bytes).ok_or(TarError::BadPax { offset })?;
                if kind == EntryType::XHeader {
                    twice(self.pax.is_none())?;
                    self.pax = Some(records);
                } else if records.says_what() {
                    // Other global records describe the archive (git writes its commit there), as Docker has it.
                    return Err(ambiguous(
                        header,
                        "a global header names or measures all entries",
                    ));
                }
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

impl<'a, I: TarInput> TarReader<'a, I> {
    /// Reads from `input`, spending `budget`.
    #[must_use]
    pub fn new(input: I, budget: &'a Budget) -> Self {
        Self {
            input,
            budget,
            pending: 0,
            stored: 0,
            ended: false,
        }
    }

    /// The input, at the byte after the last thing read.
    pub fn input_mut(&mut self) -> &mut I {
        &mut self.input
    }

    /// The same, for good.
    #[must_use]
    pub fn into_input(self) -> I {
        self.input
    }

    /// The next entry; `None` at the end mark, or where the stream ends between entries.
    ///
    /// # Errors
    /// What is wrong with the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        while let Some(header) = self.next_header()? {
            if matches!(
                header.entry_type(),
                EntryType::XHeader
                    | EntryType::XGlobalHeader
                    | EntryType::GNULongName
                    | EntryType::GNULongLink
            ) {
                let offset = self.input.position();
                let bytes = self.extension(&header)?;
                extensions.take(&header, bytes, offset)?;
                continue;
            }
            let entry = self.entry(&header, extensions)?;
            self.budget.spend(Cost::of(&entry))?;
            return Ok(Some(entry));
        }
        if extensions.is_empty() {
            Ok(None)
        } else {
            Err(TarError::Truncated {
                offset: self.input.position(),
            })
        }
    }

    /// Reads data of the entry that came last, one extent after the other; 0 when all was read.
    ///
    /// # Errors
    /// [`TarError::Truncated`], and when the input cannot be read.
    pub fn read_content(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let room = u64::try_from(buf.len()).unwrap_or(u64::MAX);
        let length = self.stored.min(room);
        let buf = &mut buf[..usize::try_from(length).expect("no more than there is room for")];
        fill(&mut self.input, buf)?;
        self.stored -= length;
        self.pending -= length;
        Ok(buf.len())
    }

    fn next_header(&mut self) -> Result<Option<Header>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let pending = std::mem::take(&mut self.pending);
        self.stored = 0;
        if !self.input.skip(pending).map_err(TarError::Read)? {
            return Err(TarError::Truncated {
                offset: self.input.position(),
            });
        }
        let offset = self.input.position();
        let Some(block) = self.block()? else {
            self.ended = true;
            return Ok(None);
        };
        if is_zero(&block) {
            self.ended = true;
            // Two blocks of zeros are the end mark. One alone ends the archive for some programs and is passed
            // over by others, so nothing may follow it.
            return match self.block()? {
                Some(second) if !is_zero(&second) => Err(TarError::BadHeader { offset }),
                _ => Ok(None),
            };
        }
        let header = Header::from_byte_slice(&block);
        let stated = number(&header.as_old().cksum);
        if stated.is_some_and(|stated| is_checksum(stated, &block)) {
            Ok(Some(header.clone()))
        } else {
            Err(TarError::BadHeader { offset })
        }
    }

    /// The next block; `None` where the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let offset = self.input.position();
        let mut block = [0u8; BLOCK];
        match self.input.read_up_to(&mut block).map_err(TarError::Read)? {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(TarError::Truncated { offset }),
        }
    }

    /// The data of an extension header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let offset = self.input.position();
        let size = unsigned(&header.as_old().size).ok_or(TarError::BadHeader { offset })?;
        if size > TAR_EXTENSION_BYTES_MAX {
            return Err(TarError::ExtensionTooLong {
                offset,
                bytes: size,
            });
        }
        let mut bytes = vec![0u8; usize::try_from(size).expect("bounded above")];
        fill(&mut self.input, &mut bytes)?;
        self.pending = padding(size);
        Ok(bytes)
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, TarError> {
        let Extensions {
            pax,
            long_name,
            long_link,
        } = extensions;
        let pax = pax.unwrap_or_default();
        let is_sparse_pax = pax.sparse.is_present() && is_regular(header.entry_type());
        let sparse_name = pax.sparse.name.clone().filter(|_| is_sparse_pax);
        let own_name = match sparse_name {
            Some(name) => Some(name),
            None => one_of(pax.path.clone(), long_name, header, "it has two long names")?,
        };
        let name = own_name.unwrap_or_else(|| header.path_bytes().into_owned());
        let meta = meta(header, &pax, &name)?;
        let xattrs = xattrs(&pax, &name)?;
        let link = one_of(
            pax.link.clone(),
            long_link,
            header,
            "it has two long link targets",
        )?
        .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let kind = self.kind(header, pax, &name, link.as_deref().unwrap_or_default())?;
        Ok(Entry {
            path: normalise(&name)?,
            kind,
            meta,
            xattrs,
        })
    }

    fn kind(
        &mut self,
        header: &Header,
        pax: PaxRecords,
        name: &[u8],
        link: &[u8],
    ) -> Result<EntryKind, TarError> {
        let bad = |field| TarError::BadField {
            entry: shown(name),
            field,
        };
        Ok(match header.entry_type() {
            // Version 7 tar had no directories: a trailing slash says it.
            EntryType::Regular if header.as_bytes()[156] == 0 && name.ends_with(b"/") => {
                // It may have data, as any file of that time.
                self.content(header, pax, name)?;
                EntryKind::Directory
            }
            kind if is_regular(kind) => EntryKind::File(self.content(header, pax, name)?),
            EntryType::Link => EntryKind::HardLink {
                target: link_target(link, name)?,
            },
            EntryType::Symlink => EntryKind::Symlink {
                target: symlink_target(link, name)?,
            },
            EntryType::Directory => EntryKind::Directory,
            EntryType::Fifo => EntryKind::Fifo,
            kind @ (EntryType::Char | EntryType::Block) => {
                let device = header.as_ustar().map_or_else(
                    || header.as_gnu().map(|gnu| (gnu.dev_major, gnu.dev_minor)),
                    |ustar| Some((ustar.dev_major, ustar.dev_minor)),
                );
                let (major, minor) = device.ok_or_else(|| bad("device number"))?;
                let within = |field: &[u8], max| {
                    number(field)
                        .filter(|n| (0..=max).contains(n))
                        .and_then(|n| u32::try_from(n).ok())
                };
                let major = within(&major, MAJOR_MAX).ok_or_else(|| bad("device number"))?;
                let minor = within(&minor, MINOR_MAX).ok_or_else(|| bad("device number"))?;
                match kind {
                    EntryType::Char => EntryKind::CharDevice { major, minor },
                    _ => EntryKind::BlockDevice { major, minor },
                }
            }
            other => {
                let kind = other.as_byte().escape_ascii().to_string();
                return Err(TarError::UnsupportedKind {
                    entry: shown(name),
                    kind,
                });
            }
        })
    }

    fn content(
        &mut self,
        header: &Header,
        pax: PaxRecords,
        name: &[u8],
    ) -> Result<Content, TarError> {
        let bad = || TarError::BadField {
            entry: shown(name),
            field: "size",
        };
        let stated = unsigned(&header.as_old().size).ok_or_else(bad)?;
        let stored = match pax.size {
            // A size no header has room for: the field is filled up, in one way or the other.
            Some(size) if size > OCTAL_SIZE_MAX && [0, OCTAL_SIZE_MAX].contains(&stated) => size,
            Some(size) if size != stated => {
                return Err(TarError::Ambiguous {
                    entry: shown(name),
                    what: "its header and its PAX records state different sizes",
                });
            }
            _ => stated,
        };
        if stored > FILE_BYTES_MAX {
            return Err(TarError::FileTooLong {
                entry: shown(name),
                bytes: stored,
            });
        }
        let begin = self.input.position();
        let content = if header.entry_type() == EntryType::GNUSparse {
            let gnu = header
                .as_gnu()
                .ok_or_else(|| TarError::BadSparseMap { entry: shown(name) })?;
            let content = sparse::gnu_content(&mut self.input, gnu, stored, name)?;
            self.pending = stored + padding(stored);
            content
        } else {
            let content = if pax.sparse.is_present() {
                pax.sparse.content(&mut self.input, stored, name)?
            } else {
                Content::dense(begin, stored)
            };
            // A sparse map of version 1.0 was read from the data itself.
            self.pending = stored + padding(stored) - (self.input.position() - begin);
            content
        };
        self.stored = content.extents.iter().map(|extent| extent.len).sum();
        Ok(content)
    }
}

fn is_regular(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
    )
}

fn meta(header: &Header, pax: &PaxRecords, name: &[u8]) -> Result<Meta, TarError> {
    let bad = |field| TarError::BadField {
        entry: shown(name),
        field,
    };
    let old = header.as_old();
    let id = |pax: Option<u64>, field: &[u8], what| {
        let value = pax
            .or_else(|| unsigned(field))
            .and_then(|id| u32::try_from(id).ok());
        // The last one is what the kernel uses for "unchanged".
        value.filter(|id| *id != u32::MAX).ok_or_else(|| bad(what))
    };
    let mode = number(&old.mode).ok_or_else(|| bad("mode"))? & 0o7777;
    Ok(Meta {
        mode: u16::try_from(mode).map_err(|_| bad("mode"))?,
        uid: id(pax.uid, &old.uid, "user id")?,
        gid: id(pax.gid, &old.gid, "group id")?,
        mtime: match pax.mtime {
            Some(time) => time,
            None => (number(&old.mtime).ok_or_else(|| bad("time"))?, 0),
        },
    })
}

/// The attributes an image may carry. Those of overlayfs are dropped: the image is the lower layer of the
/// guest's own overlay, and its metadata must not come from outside.
fn xattrs(pax: &PaxRecords, entry: &[u8]) -> Result<Xattrs, TarError> {
    const NAMESPACES: [&str; 3] = ["user.", "trusted.", "security."];
    const ACLS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];
    const OVERLAY: [&str; 2] = ["trusted.overlay.", "user.overlay."];
    let mut kept = Vec::new();
    let mut bytes = 0;
    for (name, value) in &pax.xattrs {
        let bad = || TarError::BadXattr {
            entry: shown(entry),
        };
        let name = std::str::from_utf8(name).map_err(|_| bad())?;
        if name.contains('\0') {
            return Err(bad());
        }
        let known = NAMESPACES
            .iter()
            .any(|namespace| name.starts_with(namespace))
            || ACLS.contains(&name);
        if !known || OVERLAY.iter().any(|namespace| name.starts_with(namespace)) {
            continue;
        }
        // As ext4 counts: a 16-byte entry, the name and the value each padded to 4 bytes.
        let suffix = name.split_once('.').map_or(name, |(_, suffix)| suffix);
        bytes += 16 + suffix.len().next_multiple_of(4) + value.len().next_multiple_of(4);
        if suffix.is_empty() || suffix.len() > 255 {
            return Err(bad());
        }
        if bytes > XATTR_BYTES_MAX {
            return Err(TarError::XattrsTooLong {
                entry: shown(entry),
            });
        }
        kept.push((name.to_owned(), value.clone()));
    }
    kept.sort_unstable();
    Ok(kept.into())
}

fn link_target(link: &[u8], name: &[u8]) -> Result<Box<[u8]>, TarError> {
    let entry = || shown(name);
    let target = normalise(link).map_err(|error| match error {
        TarError::Escapes { .. } => TarError::Escapes { entry: entry() },
        TarError::NulInName { .. } => TarError::NulInName { entry: entry() },
        _ => TarError::BadLinkTarget { entry: entry() },
    })?;
    if target.is_empty() {
        Err(TarError::BadLinkTarget { entry: shown(name) })
    } else {
        Ok(target)
    }
}

fn symlink_target(link: &[u8], name: &[u8]) -> Result<Box<[u8]>, TarError> {
    without_nul(link, name)?;
    if link.is_empty() || link.len() > SYMLINK_BYTES_MAX {
        return Err(TarError::BadLinkTarget { entry: shown(name) });
    }
    Ok(link.into())
}

/// The one of two statements there is; an empty one is none. Two that differ are refused.
fn one_of(
    pax: Option<Vec<u8>>,
    gnu: Option<Vec<u8>>,
    header: &Header,
    what: &'static str,
) -> Result<Option<Vec<u8>>, TarError> {
    let gnu = gnu.filter(|gnu| !gnu.is_empty());
    match (&pax, &gnu) {
        (Some(one), Some(other)) if one != other => Err(ambiguous(header, what)),
        _ => Ok(pax.or(gnu)),
    }
}

/// The error of an entry about which nothing else is known yet.
fn ambiguous(header: &Header, what: &'static str) -> TarError {
    TarError::Ambiguous {
        entry: shown(&header.path_bytes()),
        what,
    }
}

/// A header number: octal text, or big-endian two's complement marked by the first bit; empty means 0.
fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // The mark's bit is not part of the value; the next one is its sign.
        let negative = first & 0x40 != 0;
        let head = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        let value = field[1..].iter().try_fold(head, |value, byte| {
            value
                .checked_mul(256)
                .map(|value| value + i128::from(*byte))
        })?;
        return i64::try_from(value).ok();
    }
    // Old programs let NULs and spaces stand on either side.
    let padding = |byte: &u8| *byte == 0 || *byte == b' ';
    let begin = field
        .iter()
        .position(|byte| !padding(byte))
        .unwrap_or(field.len());
    let text = field[begin..].split(padding).next()?;
    if text.is_empty() {
        return Some(0);
    }
    text.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

fn unsigned(field: &[u8]) -> Option<u64> {
    number(field).and_then(|value| u64::try_from(value).ok())
}

/// Whether `stated` is the sum of the header's bytes, those of the checksum itself taken as spaces; or the same
/// with signed bytes, as some old programs have it.
fn is_checksum(stated: i64, block: &[u8; BLOCK]) -> bool {
    let counted = || [&block[..148], &block[156..]];
    let spaces = 8 * i64::from(b' ');
    let sum = |of: fn(u8) -> i64| -> i64 {
        let part = |bytes: &[u8]| bytes.iter().map(|byte| of(*byte)).sum::<i64>();
        counted().map(part).iter().sum::<i64>() + spaces
    };
    sum(i64::from) == stated || sum(|byte| i64::from(byte.cast_signed())) == stated
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(nul) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(nul);
    }
    bytes
}
