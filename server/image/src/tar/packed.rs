//! Many entries in little room: one run of bytes, numbers in as many bytes as they need, paths without what they begin
//! like the one before.
//!
//! The same form is kept in memory and on disk; what comes from a disk is checked once, when it is taken over.

use banger_archive::{Content, Cost, Entry, EntryKind, Extent, Extents, Meta, Xattrs};

/// The first byte of an entry: its kind, and whether attributes follow.
const FILE: u8 = 0;
const HARD_LINK: u8 = 1;
const SYMLINK: u8 = 2;
const DIRECTORY: u8 = 3;
const CHAR_DEVICE: u8 = 4;
const BLOCK_DEVICE: u8 = 5;
const FIFO: u8 = 6;
const HAS_XATTRS: u8 = 0x80;
/// Seven bits of a number, and whether more follow.
const DIGIT: u64 = 0x7f;
const MORE: u8 = 0x80;
/// Each piece of a file takes at least this many bytes.
const EXTENT_BYTES_MIN: usize = 3;
/// Each attribute takes at least this many bytes.
const XATTR_BYTES_MIN: usize = 2;

/// A layer's entries, in the archive's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PackedEntries {
    bytes: Vec<u8>,
    /// The path of the last entry.
    last: Vec<u8>,
    cost: Cost,
}

impl PackedEntries {
    /// Adds an entry behind the others.
    pub(crate) fn push(&mut self, entry: &Entry) {
        let cost = Cost::of(entry);
        self.cost.entries += cost.entries;
        self.cost.text_bytes += cost.text_bytes;
        let mark = if entry.xattrs.is_empty() {
            0
        } else {
            HAS_XATTRS
        };
        self.bytes.push(kind(&entry.kind) | mark);
        let shared = self.last.iter().zip(&*entry.path);
        let shared = shared.take_while(|(last, next)| last == next).count();
        self.number(shared as u64);
        self.text(&entry.path[shared..]);
        self.last.clear();
        self.last.extend_from_slice(&entry.path);
        let Meta {
            mode,
            uid,
            gid,
            mtime: (seconds, nanos),
        } = entry.meta;
        for number in [
            mode.into(),
            uid.into(),
            gid.into(),
            zigzag(seconds),
            nanos.into(),
        ] {
            self.number(number);
        }
        match &entry.kind {
            EntryKind::File(content) => self.content(content),
            EntryKind::HardLink { target } | EntryKind::Symlink { target } => self.text(target),
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                self.number((*major).into());
                self.number((*minor).into());
            }
            EntryKind::Directory | EntryKind::Fifo => {}
        }
        if !entry.xattrs.is_empty() {
            self.number(entry.xattrs.len() as u64);
            for (name, value) in &entry.xattrs {
                self.text(name.as_bytes());
                self.text(value);
            }
        }
    }

    /// The entries, made anew one by one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry> {
        let (mut rest, mut last) = (self.bytes.as_slice(), Vec::new());
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            Some(entry(&mut rest, &mut last).expect("written by us, or checked"))
        })
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> u64 {
        self.cost.entries
    }

    /// Whether there are none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they take of a budget.
    pub(crate) const fn cost(&self) -> Cost {
        self.cost
    }

    /// Gives back the room nothing is in.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// As they are kept on a disk.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// From a disk; `None` when they are not what [`Self::as_bytes`] gave.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let (mut cost, mut last) = (Cost::default(), Vec::new());
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let next = Cost::of(&entry(&mut rest, &mut last)?);
            cost.entries += next.entries;
            cost.text_bytes += next.text_bytes;
        }
        Some(Self { bytes, last, cost })
    }

    fn number(&mut self, mut number: u64) {
        while number > DIGIT {
            self.bytes.push(low(number) | MORE);
            number >>= 7;
        }
        self.bytes.push(low(number));
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text);
    }

    fn content(&mut self, content: &Content) {
        self.number(content.size);
        self.number(content.extents.len() as u64);
        for extent in &content.extents {
            self.number(extent.logical);
            self.number(extent.offset);
            self.number(extent.len);
        }
    }
}

impl FromIterator<Entry> for PackedEntries {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Self {
        let mut packed = Self::default();
        for entry in entries {
            packed.push(&entry);
        }
        packed
    }
}

const fn kind(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::File(_) => FILE,
        EntryKind::HardLink { .. } => HARD_LINK,
        EntryKind::Symlink { .. } => SYMLINK,
        EntryKind::Directory => DIRECTORY,
        EntryKind::CharDevice { .. } => CHAR_DEVICE,
        EntryKind::BlockDevice { .. } => BLOCK_DEVICE,
        EntryKind::Fifo => FIFO,
    }
}

fn low(number: u64) -> u8 {
    u8::try_from(number & DIGIT).expect("seven bits")
}

/// Small numbers of either sign as small numbers.
const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// The next entry, after the one whose path is `last`.
fn entry(rest: &mut &[u8], last: &mut Vec<u8>) -> Option<Entry> {
    let first = take(rest, 1)?[0];
    let shared = usize::try_from(number(rest)?).ok()?;
    if shared > last.len() {
        return None;
    }
    last.truncate(shared);
    last.extend_from_slice(text(rest)?);
    let path = last.as_slice().into();
    let meta = Meta {
        mode: number(rest)?.try_into().ok()?,
        uid: small(rest)?,
        gid: small(rest)?,
        mtime: (unzigzag(number(rest)?), small(rest)?),
    };
    let kind = match first & !HAS_XATTRS {
        FILE => EntryKind::File(content(rest)?),
        HARD_LINK => EntryKind::HardLink {
            target: text(rest)?.into(),
        },
        SYMLINK => EntryKind::Symlink {
            target: text(rest)?.into(),
        },
        DIRECTORY => EntryKind::Directory,
        CHAR_DEVICE => EntryKind::CharDevice {
            major: small(rest)?,
            minor: small(rest)?,
        },
        BLOCK_DEVICE => EntryKind::BlockDevice {
            major: small(rest)?,
            minor: small(rest)?,
        },
        FIFO => EntryKind::Fifo,
        _ => return None,
    };
    let xattrs = if first & HAS_XATTRS == 0 {
        Xattrs::default()
    } else {
        xattrs(rest)?
    };
    Some(Entry {
        path,
        kind,
        meta,
        xattrs,
    })
}

fn content(rest: &mut &[u8]) -> Option<Content> {
    let size = number(rest)?;
    let count = count(rest, EXTENT_BYTES_MIN)?;
    if count == 1 {
        let extents = Extents::One([extent(rest)?]);
        return Some(Content { size, extents });
    }
    let extents: Option<Vec<Extent>> = (0..count).map(|_| extent(rest)).collect();
    Some(Content {
        size,
        extents: extents?.into(),
    })
}

fn extent(rest: &mut &[u8]) -> Option<Extent> {
    Some(Extent {
        logical: number(rest)?,
        offset: number(rest)?,
        len: number(rest)?,
    })
}

fn xattrs(rest: &mut &[u8]) -> Option<Xattrs> {
    let count = count(rest, XATTR_BYTES_MIN)?;
    let pair = |_| {
        let name = std::str::from_utf8(text(rest)?).ok()?.to_owned();
        Some((name, text(rest)?.to_owned()))
    };
    (0..count).map(pair).collect()
}

/// How many things of at least `bytes` bytes follow: no more than there is room for.
fn count(rest: &mut &[u8], bytes: usize) -> Option<usize> {
    let count = usize::try_from(number(rest)?).ok()?;
    (count.checked_mul(bytes)? <= rest.len()).then_some(count)
}

fn small(rest: &mut &[u8]) -> Option<u32> {
    number(rest)?.try_into().ok()
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = take(rest, 1)?[0];
        let digit = u64::from(byte & !MORE);
        number |= digit.checked_shl(shift).filter(|n| n >> shift == digit)?;
        if byte & MORE == 0 {
            return Some(number);
        }
    }
    None
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(number(rest)?).ok()?;
    take(rest, len)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), len)
    }

    fn kinds() -> impl Strategy<Value = EntryKind> {
        let extent =
            (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(logical, offset, len)| Extent {
                logical,
                offset,
                len,
            });
        let content =
            (any::<u64>(), prop::collection::vec(extent, 0..4)).prop_map(|(size, extents)| {
                Content {
                    size,
                    extents: extents.into(),
                }
            });
        prop_oneof![
            content.prop_map(EntryKind::File),
            text_of(0..300).prop_map(|target| EntryKind::HardLink {
                target: target.into()
            }),
            text_of(0..9).prop_map(|target| EntryKind::Symlink {
                target: target.into()
            }),
            Just(EntryKind::Directory),
            (any::<u32>(), any::<u32>())
                .prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
            (any::<u32>(), any::<u32>())
                .prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
            Just(EntryKind::Fifo),
        ]
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let meta = (
            any::<u16>(),
            any::<u32>(),
            any::<u32>(),
            any::<(i64, u32)>(),
        );
        let xattrs = prop::collection::vec((".{0,9}", text_of(0..40)), 0..3);
        (text_of(0..60), kinds(), meta, xattrs).prop_map(
            |(path, kind, (mode, uid, gid, mtime), xattrs)| Entry {
                path: path.into(),
                kind,
                meta: Meta {
                    mode,
                    uid,
                    gid,
                    mtime,
                },
                xattrs: xattrs.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_as_it_was(entries in prop::collection::vec(entries(), 0..6)) {
            let packed: PackedEntries = entries.iter().cloned().collect();
            prop_assert_eq!(packed.len(), entries.len() as u64);
            let again = PackedEntries::from_bytes(packed.as_bytes().to_vec());
            prop_assert_eq!(again.as_ref(), Some(&packed));
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), entries);
        }

        #[test]
        fn any_bytes_are_entries_or_refused(bytes in text_of(0..200)) {
            if let Some(packed) = PackedEntries::from_bytes(bytes) {
                prop_assert_eq!(packed.iter().count() as u64, packed.len());
            }
        }
    }
}
