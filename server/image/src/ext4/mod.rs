//! Writing ext4: an image's read-only base disk from a tree and its layers, and a VM's empty upper disk.
//!
//! Everything goes straight into one sparse file: no root, no mount, no extraction. `mkext4` knows how each structure
//! is written and summed, and makes the upper disk; where things lie on the base disk is decided here. The same tree
//! makes the same bytes. Files are written where the caller says; publishing them is its work.
//!
//! ```text
//! base disk   superblock · bytes of the bottom layer's files · of the others' · directories, links, attributes ·
//!             bitmaps · inodes · journal                      (copies of the superblock between them)
//! ```
//! Files' bytes come first, so that they can be written while their layer is still read.

mod acl;
mod base;
mod content;
mod copy;
mod directory;
mod error;
mod fill;
mod groups;
mod inode;
mod pipe;
mod room;
mod sink;
mod stream;
#[cfg(test)]
mod tests;
mod upper;
mod xattr;

pub(crate) use base::{BaseSpec, content_bytes, write_base};
pub(crate) use copy::Runs;
pub use error::Ext4Error;
pub(crate) use fill::{Hidden, Source};
pub(crate) use pipe::Pipe;
pub(crate) use room::Cursor;
pub(crate) use stream::{Arriving, file_blocks};
pub use upper::create_upper;

/// A file system id made of a digest: version 8 (RFC 9562), so that it never meets a random one.
pub(crate) fn base_uuid(digest: banger_core::Digest) -> [u8; 16] {
    let mut uuid = [0u8; 16];
    for (byte, pair) in uuid.iter_mut().zip(digest.hex().as_bytes().chunks_exact(2)) {
        let text = std::str::from_utf8(pair).expect("hexadecimal digits");
        *byte = u8::from_str_radix(text, 16).expect("hexadecimal digits");
    }
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}
