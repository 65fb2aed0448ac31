//! Trees of files on their way between host and guest, entry by entry, each file's content after its entry.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A file, directory, link or device, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Names joined by `/`, without `.`, `..` and a leading slash; empty for the root of the tree. Not
    /// necessarily UTF-8.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: TreeKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<String, Bytes>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeKind {
    /// A regular file; as many bytes follow.
    File {
        /// Its length.
        size: u64,
    },
    /// A regular file with holes; only what lies in the ranges follows, the rest is zeros.
    SparseFile {
        /// Its length, holes included.
        size: u64,
        /// Ascending, apart, not empty.
        ranges: Vec<DataRange>,
    },
    /// A directory.
    Directory,
    /// A directory that hides all that the image has in it.
    OpaqueDirectory,
    /// A symbolic link.
    Symlink {
        /// Where it leads, as it stands.
        target: Vec<u8>,
    },
    /// Another name of a file that came before.
    HardLink {
        /// That file's path.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// What the image has here was removed.
    Removed,
}

impl TreeKind {
    /// How many bytes follow.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        match self {
            Self::File { size } => *size,
            Self::SparseFile { ranges, .. } => ranges
                .iter()
                .fold(0, |sum, range| sum.saturating_add(range.length)),
            _ => 0,
        }
    }
}

/// A range of a file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataRange {
    /// Of its first byte.
    pub offset: u64,
    /// At least one byte.
    pub length: u64,
}

/// The most ranges of one file. One with more is told whole, its holes as zeros.
pub const RANGES_MAX: usize = 16_384;

/// All ranges but the last are of whole blocks of this size. Programs read archives with other ones in different ways.
pub const RANGE_BLOCK_BYTES: u64 = 512;

/// Whether `ranges` are those of a file of `size` bytes: ascending, apart, not empty, within it, in whole blocks, and
/// not too many.
#[must_use]
pub fn are_ranges(ranges: &[DataRange], size: u64) -> bool {
    let mut end = 0;
    let mut holds = |range: &DataRange| {
        let is_next = range.length > 0 && range.offset >= end;
        let next = range.offset.checked_add(range.length);
        end = next.unwrap_or(u64::MAX);
        is_next && next.is_some_and(|next| next <= size)
    };
    let before_the_last = &ranges[..ranges.len().saturating_sub(1)];
    let is_whole = |range: &DataRange| range.length.is_multiple_of(RANGE_BLOCK_BYTES);
    ranges.len() <= RANGES_MAX
        && ranges.iter().all(&mut holds)
        && before_the_last.iter().all(is_whole)
}

/// A piece of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreePiece {
    /// The next entry.
    Entry(Box<TreeEntry>),
    /// The next bytes of the file that came last.
    Data(Bytes),
}

/// A part of a tree that somebody downloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownloadPiece {
    /// The next piece.
    Tree(TreePiece),
    /// What the tree lacks; the last, where there is something to tell.
    Omissions(Omissions),
}

/// What a tree lacks of what is in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Omissions {
    /// How many there are.
    pub count: u64,
    /// The first of them, at most [`OMISSIONS_TOLD_MAX`].
    pub first: Vec<Omission>,
}

/// The most omissions that are told one by one.
pub const OMISSIONS_TOLD_MAX: usize = 64;

/// Something that a tree lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Omission {
    /// As an entry has it.
    pub path: Vec<u8>,
    /// Why.
    pub reason: OmissionReason,
}

/// Why a tree lacks something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OmissionReason {
    /// It is a socket.
    Socket,
    /// It was gone when its turn came.
    Vanished,
    /// Another file system is mounted on the directory, which came empty.
    MountPoint,
    /// It came without some of its extended attributes.
    Attributes,
    /// It became shorter while it was read, and came with zeros at its end.
    Shrank,
}

/// Where a tree is put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreePlace {
    /// Absolute, in the guest.
    pub path: Vec<u8>,
    /// What the path means.
    pub naming: Naming,
    /// Owner and group of directories that are made on the way.
    pub owner: (u32, u32),
}

/// What the path of a [`TreePlace`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// A directory, made where it is missing.
    Directory,
    /// The one entry that comes, unless it is a directory already, in which the entry then lies by its name.
    Entry,
}

/// What a path of a guest is, its last link followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathKind {
    /// Nothing is there.
    Missing,
    /// A directory with these names, in no order.
    Directory(Vec<Vec<u8>>),
    /// Anything else.
    Other,
}

/// Which files of a guest are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// What was changed since the image.
    SinceImage,
    /// All of them, the image's own included.
    Everything,
}

/// What is done to the writes of a guest's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskWrites {
    /// All are flushed, and new ones wait.
    Hold,
    /// They go on.
    Release,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_ascend_and_stay_within_the_file() {
        let ranges = |pairs: &[(u64, u64)]| -> Vec<DataRange> {
            let range = |&(offset, length): &(u64, u64)| DataRange { offset, length };
            pairs.iter().map(range).collect()
        };
        assert!(are_ranges(&[], 5));
        assert!(are_ranges(
            &ranges(&[(0, 512), (512, 1024), (1600, 1)]),
            1601
        ));
        assert!(!are_ranges(&ranges(&[(0, 2), (512, 1)]), 1601));
        for wrong in [
            &[(0, 0)][..],
            &[(4, 2)],
            &[(0, 3), (2, 1)],
            &[(3, 1), (0, 1)],
            &[(u64::MAX, 2)],
        ] {
            assert!(!are_ranges(&ranges(wrong), 5), "{wrong:?}");
        }
        assert!(!are_ranges(
            &vec![
                DataRange {
                    offset: 0,
                    length: 1
                };
                RANGES_MAX + 1
            ],
            5
        ));
    }
}
