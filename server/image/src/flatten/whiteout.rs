//! The names by which a layer says what of the layers below it hides.

use crate::tar::parent_and_name;

/// What an entry's name says beside naming it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// An ordinary entry.
    None,
    /// Hides this name of the same directory.
    Whiteout(&'a [u8]),
    /// Hides everything the directory has from below.
    Opaque,
    /// Bookkeeping of AUFS, which means nothing any more.
    Ignored,
    /// A whiteout of nothing, of `.` or of `..`.
    Invalid,
}

/// Whether an entry with this path becomes a file of the tree, if it is a file.
pub(crate) fn names_a_file(path: &[u8]) -> bool {
    mark(path) == Mark::None
}

const PREFIX: &[u8] = b".wh.";
const META_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What the last component of `path` says.
pub(super) fn mark(path: &[u8]) -> Mark<'_> {
    let (parent, name) = parent_and_name(path);
    if name == OPAQUE {
        return Mark::Opaque;
    }
    if name.starts_with(META_PREFIX)
        || parent
            .split(|byte| *byte == b'/')
            .any(|component| component.starts_with(META_PREFIX))
    {
        return Mark::Ignored;
    }
    match name.strip_prefix(PREFIX) {
        None => Mark::None,
        Some(b"" | b"." | b"..") => Mark::Invalid,
        Some(hidden) => Mark::Whiteout(hidden),
    }
}
