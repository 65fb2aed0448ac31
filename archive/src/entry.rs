//! What a tar entry says, in the terms of a Linux file system.

use banger_core::tree::{TreeEntry, TreeKind};
use bytes::Bytes;

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Components joined by `/`, without `.`, `..` and a leading slash; empty for the root itself. Any bytes
    /// but NUL: Linux has no other rule for names.
    pub path: Box<[u8]>,
    /// What it is.
    pub kind: EntryKind,
    /// Owner, mode and time.
    pub meta: Meta,
    /// Extended attributes with their full names.
    pub xattrs: Xattrs,
}

/// Extended attributes: full names and values, sorted.
pub type Xattrs = Box<[(String, Vec<u8>)]>;

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File(Content),
    /// Another name for the file at this (normalised) path.
    HardLink {
        /// The path.
        target: Box<[u8]>,
    },
    /// The target is kept as it is: it means something only inside the guest.
    Symlink {
        /// Any bytes but NUL.
        target: Box<[u8]>,
    },
    /// A directory.
    Directory,
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
    /// A named pipe.
    Fifo,
}

/// Owner, mode and time of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
}

/// A regular file's length and where its bytes lie in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Length with holes.
    pub size: u64,
    /// Sorted by `logical`, disjoint, not empty; what is between them is a hole.
    pub extents: Extents,
}

/// The pieces of a file. Nearly every file has one, which takes no memory of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Extents {
    /// None at all.
    #[default]
    None,
    /// One.
    One([Extent; 1]),
    /// Several.
    Many(Box<[Extent]>),
}

impl std::ops::Deref for Extents {
    type Target = [Extent];

    fn deref(&self) -> &[Extent] {
        match self {
            Self::None => &[],
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl From<Vec<Extent>> for Extents {
    fn from(extents: Vec<Extent>) -> Self {
        match extents.as_slice() {
            [] => Self::None,
            [one] => Self::One([*one]),
            _ => Self::Many(extents.into()),
        }
    }
}

impl<'a> IntoIterator for &'a Extents {
    type Item = &'a Extent;
    type IntoIter = std::slice::Iter<'a, Extent>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file.
    pub logical: u64,
    /// Where in the archive.
    pub offset: u64,
    /// How long.
    pub len: u64,
}

impl Entry {
    /// The same as an entry of a tree, and a file's content. Holes are not told: [`TarPieces`](crate::TarPieces) does.
    #[must_use]
    pub fn into_tree(self) -> (TreeEntry, Option<Content>) {
        let mut content = None;
        let kind = match self.kind {
            EntryKind::File(found) => {
                let size = found.size;
                content = Some(found);
                TreeKind::File { size }
            }
            EntryKind::HardLink { target } => TreeKind::HardLink {
                target: target.into(),
            },
            EntryKind::Symlink { target } => TreeKind::Symlink {
                target: target.into(),
            },
            EntryKind::Directory => TreeKind::Directory,
            EntryKind::CharDevice { major, minor } => TreeKind::CharDevice { major, minor },
            EntryKind::BlockDevice { major, minor } => TreeKind::BlockDevice { major, minor },
            EntryKind::Fifo => TreeKind::Fifo,
        };
        let xattrs = self.xattrs.iter();
        let entry = TreeEntry {
            path: self.path.into(),
            kind,
            mode: self.meta.mode,
            uid: self.meta.uid,
            gid: self.meta.gid,
            mtime: self.meta.mtime,
            xattrs: xattrs
                .map(|(name, value)| (name.clone(), Bytes::copy_from_slice(value)))
                .collect(),
        };
        (entry, content)
    }

    /// The path as text; `None` when it is none.
    #[must_use]
    pub fn path_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.path).ok()
    }
}

impl Content {
    /// What stands for the place of bytes that are nowhere.
    const LOST: u64 = u64::MAX;

    /// The same file with its bytes, of which there are some, nowhere.
    #[must_use]
    pub fn lost(self) -> Self {
        let lost = |extent: &Extent| Extent {
            offset: Self::LOST,
            ..*extent
        };
        let extents: Vec<Extent> = self.extents.iter().map(lost).collect();
        Self {
            size: self.size,
            extents: extents.into(),
        }
    }

    /// Whether its bytes are nowhere.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        let first = self.extents.first();
        first.is_some_and(|extent| extent.offset == Self::LOST)
    }

    /// A file without holes.
    #[must_use]
    pub fn dense(offset: u64, len: u64) -> Self {
        let extents = if len == 0 {
            Extents::None
        } else {
            Extents::One([Extent {
                logical: 0,
                offset,
                len,
            }])
        };
        Self { size: len, extents }
    }
}
