//! One layer on its way in: decompressed, checked and indexed in a single pass.
//!
//! ```text
//!            ┌→ blob writer: SHA-256, file in tmp/            (what is kept)
//!  chunks ───┤
//!            └→ decoder: inflate → SHA-256, spool → tar index (what the disk is made of)
//! ```
//! Both sides run on threads of their own while the bytes still arrive. The spool is a nameless file with
//! the plain tar stream, so that the disk's contents are copied, not decompressed again; it is never
//! synced, and gone with its last handle. There is none where the place of the layer's files is known: they go there as
//! they come. Of a layer of which that is told later, a bounded part waits in memory.

mod blob;
mod chunks;
mod decode;
mod error;
mod spool;
#[cfg(test)]
mod tests;

pub(crate) use blob::{BlobReader, BlobWriter, VerifiedBlob};
pub(crate) use chunks::{ChunkReader, ChunkSender, Gathered, Now, channel};
pub(crate) use decode::{
    Destination, IndexedLayer, Kept, LayerSource, READ_BYTES, SpooledArchive, To, index_layer,
    is_worth_ahead, spool_archive,
};
pub use error::LayerError;
