//! Archives of files: tar streams, read entry by entry and written from entries.
//!
//! Reading takes ustar, PAX and GNU, and tells where each entry's bytes lie. Header fields are the `tar` crate's; what is around them is not, because a layer needs what that crate
//! does not give: PAX records whose binary values hold newlines, PAX sparse maps, times before 1970, and a
//! parser that only ever moves forward, so that it can run while the stream is still arriving.
//!
//! Where programs are known to read an archive in different ways (two sizes or two names for one entry, a lone
//! block of zeros with more behind it, a default name for all entries) it is refused: what was scanned
//! elsewhere and what is booted here must be the same files.
//!
//! Nothing here touches a host path: an entry is data.

#![forbid(unsafe_code)]

mod entry;
mod error;
mod input;
pub mod limits;
mod path;
mod pax;
mod pieces;
mod reader;
mod sparse;
#[cfg(test)]
mod tests;
mod writer;

pub use entry::{Content, Entry, EntryKind, Extent, Extents, Meta, Xattrs};
pub use error::{TarError, shown};
pub use input::{FileInput, StreamInput, TarInput, read_up_to};
pub use path::{normalise, parent_and_name};
pub use pieces::TarPieces;
pub use reader::{Budget, Cost, TarReader};
pub use writer::TarWriter;
