//! Tar archives as images have them: what `banger-archive` reads, and the entries of a layer in little room.

mod packed;

#[cfg(test)]
pub(crate) use banger_archive::Extents;
pub use banger_archive::TarError;
pub(crate) use banger_archive::{
    Budget, Content, Cost, Entry, EntryKind, Extent, FileInput, Meta, TarInput, TarReader, Xattrs,
    normalise, parent_and_name, read_up_to, shown,
};
pub(crate) use packed::PackedEntries;
