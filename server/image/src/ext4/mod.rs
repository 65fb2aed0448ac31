//! Writing ext4: an image's read-only base disk from a tree and its layers, and a VM's empty upper disk.
//!
//! Everything goes straight into one sparse file through `mkext4`: no root, no mount, no extraction. The
//! same tree makes the same bytes. Files are written where the caller says; publishing them is its work.

mod acl;
mod base;
mod content;
mod error;
mod fill;
mod geometry;
mod names;
mod sink;
#[cfg(test)]
mod tests;
mod upper;

pub(crate) use base::{BaseSpec, content_bytes, write_base};
pub use error::Ext4Error;
pub(crate) use fill::Source;
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
