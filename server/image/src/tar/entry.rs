//! What a tar entry says, in the terms of a Linux file system.

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Components joined by `/`, without `.`, `..` and a leading slash; empty for the root itself. Any bytes
    /// but NUL: Linux has no other rule for names.
    pub(crate) path: Box<[u8]>,
    /// What it is.
    pub(crate) kind: EntryKind,
    /// Owner, mode and time.
    pub(crate) meta: Meta,
    /// Extended attributes with their full names.
    pub(crate) xattrs: Xattrs,
}

/// Extended attributes: full names and values, sorted.
pub(crate) type Xattrs = Box<[(String, Vec<u8>)]>;

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File(Content),
    /// Another name for the file at this (normalised) path.
    HardLink {
        target: Box<[u8]>,
    },
    /// The target is kept as it is: it means something only inside the guest.
    Symlink {
        target: Box<[u8]>,
    },
    Directory,
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// Owner, mode and time of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub(crate) mtime: (i64, u32),
}

/// A regular file's length and where its bytes lie in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// Length with holes.
    pub(crate) size: u64,
    /// Sorted by `logical`, disjoint, not empty; what is between them is a hole.
    pub(crate) extents: Box<[Extent]>,
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where in the file.
    pub(crate) logical: u64,
    /// Where in the archive.
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Entry {
    /// The path as text; `None` when it is none.
    pub(crate) fn path_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.path).ok()
    }
}

impl Content {
    /// A file without holes.
    pub(crate) fn dense(offset: u64, len: u64) -> Self {
        let extents = if len == 0 {
            Box::default()
        } else {
            Box::from([Extent {
                logical: 0,
                offset,
                len,
            }])
        };
        Self { size: len, extents }
    }
}
