//! Layers whose compression is broken, or is not what it says.

use banger_core::Digest;

use super::{Case, served};
use crate::support::raw::Raw;
use crate::support::{Tar, TestImage, gzip, noise};

pub(crate) fn broken_streams() -> Vec<Case> {
    let plain = Tar::new().file("a", &noise(1, 50_000)).finish();
    let whole = gzip(&plain);
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    let mut checksum = whole.clone();
    let tail = checksum.len() - 6;
    checksum[tail] ^= 1;
    let zstd = zstd::encode_all(&*plain, 3).unwrap();
    let mut window = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    window.window_log(27).unwrap();
    std::io::Write::write_all(&mut window, &plain).unwrap();
    let window = window.finish().unwrap();
    vec![
        (
            "a gzip stream that ends early",
            served(whole[..40].to_vec()),
            "LAYER_TRUNCATED",
            "ends too early",
        ),
        (
            "a zstd stream that ends early",
            served(zstd[..zstd.len() / 2].to_vec()),
            "LAYER_TRUNCATED",
            "ends too early",
        ),
        (
            "a gzip stream with other bytes in it",
            served(damaged),
            "LAYER_DAMAGED",
            "is damaged",
        ),
        (
            "a gzip stream with a wrong checksum",
            served(checksum),
            "LAYER_DAMAGED",
            "is damaged",
        ),
        (
            "a zstd frame that wants much memory",
            served(window),
            "LAYER_DAMAGED",
            "is damaged",
        ),
        (
            "xz",
            served(b"\xfd7zXZ\0\0\x04".to_vec()),
            "LAYER_COMPRESSION_UNSUPPORTED",
            "with xz",
        ),
        (
            "bzip2",
            served(b"BZh91AY&SY".to_vec()),
            "LAYER_COMPRESSION_UNSUPPORTED",
            "with bzip2",
        ),
        (
            "another layer than the configuration names",
            TestImage::new(&[(whole, Digest::of(b"other"))]),
            "LAYER_DIFF_ID_MISMATCH",
            "but the image's configuration says",
        ),
        (
            "a bomb",
            served(bomb()),
            "LAYER_TOO_LARGE",
            "times its size",
        ),
    ]
}

/// A gigabyte of zeros and some more, as one file, in a few hundred KiB.
fn bomb() -> Vec<u8> {
    use std::io::{Read, Write};
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let size: u64 = (1 << 30) + (1 << 20);
    encoder
        .write_all(&Raw::new("bomb", b'0').size(size).header())
        .unwrap();
    std::io::copy(&mut std::io::repeat(0).take(size), &mut encoder).unwrap();
    encoder.finish().unwrap()
}
