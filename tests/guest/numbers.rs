//! Pseudo-random bytes of which any part can be made alone: the words of `splitmix64`, one after the other.

/// `length` bytes from `offset` on.
pub(super) fn bytes(seed: u64, offset: u64, length: u64) -> Vec<u8> {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut made = Vec::with_capacity(size(length) + 16);
    for index in offset / 8..(offset + length).div_ceil(8) {
        made.extend_from_slice(&word(seed, index).to_le_bytes());
    }
    made.drain(..size(offset % 8));
    made.truncate(size(length));
    made
}

fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
