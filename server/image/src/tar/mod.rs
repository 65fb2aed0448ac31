//! Reading tar streams: ustar, PAX and GNU, entry by entry, with where each entry's bytes lie.
//!
//! Header fields are the `tar` crate's; what is around them is not, because a layer needs what that crate
//! does not give: PAX records whose binary values hold newlines, PAX sparse maps, times before 1970, and a
//! parser that only ever moves forward, so that it can run while the stream is still arriving.
//!
//! Where programs are known to read an archive in different ways (two sizes or two names for one entry, a lone
//! block of zeros with more behind it, a default name for all entries) it is refused: what was scanned
//! elsewhere and what is booted here must be the same files.
//!
//! Nothing here touches a host path: an entry is data.

mod entry;
mod error;
mod input;
mod path;
mod pax;
mod reader;
mod sparse;
#[cfg(test)]
mod tests;

pub(crate) use entry::{Content, Entry, EntryKind, Extent, Meta, Xattrs};
pub use error::TarError;
pub(crate) use error::shown;
pub(crate) use input::{FileInput, TarInput, read_up_to};
pub(crate) use path::{normalise, parent_and_name};
pub(crate) use reader::{Budget, TarReader};
