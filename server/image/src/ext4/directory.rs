//! A directory's blocks: names one after another, and from about one block on in the order of their hashes, with an
//! index of those.

use mkext4::csum;
use mkext4::dirhash::{HashSeed, Signedness, half_md4};
use mkext4::spec::{BLOCK_SIZE, dirent, file_type, htree};

use super::error::Ext4Error;

/// The tail of a block: an entry without inode, of a type of its own, with the checksum.
const TAIL_BYTES: usize = 12;
const TAIL_TYPE: u8 = 0xde;
const USABLE_BYTES: usize = BLOCK_SIZE - TAIL_BYTES;
/// Bytes of names from which a directory has an index, as `e2fsck` has it.
const INDEX_BYTES: usize = BLOCK_SIZE - 24;
/// `half_md4`, and how long what is said of the index is.
const HASH_VERSION: u8 = 1;
const INFO_BYTES: u8 = 8;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) text: &'a [u8],
    pub(super) inode: u32,
    /// One of [`file_type`].
    pub(super) kind: u8,
}

/// A directory as the disk has it.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) bytes: Vec<u8>,
    pub(super) is_indexed: bool,
}

/// By what a disk's directories are hashed and summed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seeds {
    pub(super) sums: u32,
    pub(super) names: HashSeed,
}

impl Directory {
    /// Of the inode `own` in `parent`, with at least `blocks` blocks.
    pub(super) fn new(
        (own, parent): (u32, u32),
        names: &[Name<'_>],
        blocks: usize,
        seeds: &Seeds,
    ) -> Result<Self, Ext4Error> {
        let len: usize = names.iter().map(Name::bytes).sum();
        let is_indexed = len >= INDEX_BYTES;
        let mut bytes = Vec::new();
        if is_indexed {
            index(&mut bytes, (own, parent), names, seeds)?;
        } else {
            let dot = |text, inode| Name {
                text,
                inode,
                kind: file_type::DIR,
            };
            let dots = [dot(b".".as_slice(), own), dot(b"..".as_slice(), parent)];
            pack(&mut bytes, dots.iter().chain(names));
            while bytes.len() < blocks * BLOCK_SIZE {
                let begin = bytes.len();
                bytes.resize(begin + BLOCK_SIZE, 0);
                end(&mut bytes[begin..], 0);
            }
        }
        let seed = csum::inode_seed(seeds.sums, own, 0);
        for block in bytes.chunks_exact_mut(BLOCK_SIZE) {
            // Those of the index have their sums.
            if block[USABLE_BYTES + 7] == TAIL_TYPE && block[USABLE_BYTES..][..4] == [0; 4] {
                let sum = csum::dirent_block(seed, block);
                block[BLOCK_SIZE - 4..].copy_from_slice(&sum.to_le_bytes());
            }
        }
        Ok(Self { bytes, is_indexed })
    }
}

impl Name<'_> {
    fn bytes(&self) -> usize {
        dirent::rec_len_for(self.text.len())
    }
}

/// Adds blocks with these names in this order; returns how many each has.
fn pack<'a>(bytes: &mut Vec<u8>, names: impl Iterator<Item = &'a Name<'a>>) -> Vec<usize> {
    let mut counts: Vec<usize> = Vec::new();
    let (mut used, mut last) = (USABLE_BYTES, 0);
    for name in names {
        let len = name.bytes();
        if used + len > USABLE_BYTES {
            if !counts.is_empty() {
                let begin = bytes.len() - BLOCK_SIZE;
                end(&mut bytes[begin..], last);
            }
            bytes.resize(bytes.len() + BLOCK_SIZE, 0);
            counts.push(0);
            used = 0;
        }
        let begin = bytes.len() - BLOCK_SIZE + used;
        let record = &mut bytes[begin..begin + len];
        record[..4].copy_from_slice(&name.inode.to_le_bytes());
        record[4..6].copy_from_slice(&small(len));
        record[6] = u8::try_from(name.text.len()).expect("names are bounded");
        record[7] = name.kind;
        record[8..8 + name.text.len()].copy_from_slice(name.text);
        (last, used) = (used, used + len);
        *counts.last_mut().expect("begun above") += 1;
    }
    let begin = bytes.len() - BLOCK_SIZE;
    end(&mut bytes[begin..], last);
    counts
}

/// Lets the last name of a block reach to its tail.
fn end(block: &mut [u8], last: usize) {
    block[last + 4..last + 6].copy_from_slice(&small(USABLE_BYTES - last));
    block[USABLE_BYTES + 4..USABLE_BYTES + 6].copy_from_slice(&small(TAIL_BYTES));
    block[USABLE_BYTES + 7] = TAIL_TYPE;
}

fn small(number: usize) -> [u8; 2] {
    let number = u16::try_from(number).expect("no more than a block");
    number.to_le_bytes()
}

/// The root of the index, the names, and what of the index the root has no room for.
fn index(
    bytes: &mut Vec<u8>,
    (own, parent): (u32, u32),
    names: &[Name<'_>],
    seeds: &Seeds,
) -> Result<(), Ext4Error> {
    let mut hashed: Vec<(u32, u32, usize)> = names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let (hash, minor) = half_md4(&seeds.names, Signedness::Signed, name.text);
            (hash, minor, number)
        })
        .collect();
    hashed.sort_unstable();
    bytes.resize(BLOCK_SIZE, 0);
    let counts = pack(bytes, hashed.iter().map(|(_, _, number)| &names[*number]));

    let mut leaves: Vec<(u32, u32)> = Vec::with_capacity(counts.len());
    let mut first = 0;
    for (number, count) in (1..).zip(&counts) {
        let hash = hashed[first].0;
        // A name of this hash may be in the block before too.
        let goes_on = first > 0 && hashed[first - 1].0 == hash;
        leaves.push((hash | u32::from(goes_on), number));
        first += count;
    }

    let seed = csum::inode_seed(seeds.sums, own, 0);
    let root_limit = usize::from(htree::root_limit(BLOCK_SIZE));
    let node_limit = usize::from(htree::node_limit(BLOCK_SIZE));
    let mut levels = 0;
    let mut top = leaves;
    if top.len() > root_limit {
        let mut above = Vec::new();
        for part in top.chunks(node_limit) {
            let begin = bytes.len();
            let number = u32::try_from(begin / BLOCK_SIZE).expect("directories are bounded");
            above.push((part[0].0, number));
            bytes.resize(begin + BLOCK_SIZE, 0);
            let block = &mut bytes[begin..];
            block[4..6].copy_from_slice(&small(BLOCK_SIZE));
            entries(block, htree::NODE_COUNT_OFFSET, node_limit, part, seed);
        }
        (levels, top) = (1, above);
        if top.len() > root_limit {
            return Err(Ext4Error::Layout {
                reason: "a directory has too many names".into(),
            });
        }
    }
    let root = &mut bytes[..BLOCK_SIZE];
    root[..4].copy_from_slice(&own.to_le_bytes());
    root[4..12].copy_from_slice(&[12, 0, 1, file_type::DIR, b'.', 0, 0, 0]);
    root[12..16].copy_from_slice(&parent.to_le_bytes());
    root[16..18].copy_from_slice(&small(BLOCK_SIZE - 12));
    root[18..22].copy_from_slice(&[2, file_type::DIR, b'.', b'.']);
    root[0x1c..0x1f].copy_from_slice(&[HASH_VERSION, INFO_BYTES, levels]);
    entries(root, htree::ROOT_COUNT_OFFSET, root_limit, &top, seed);
    Ok(())
}

/// The entries of a block of the index, and its sum. The first one's hash is the bound from below, and not written.
fn entries(block: &mut [u8], at: usize, limit: usize, blocks: &[(u32, u32)], seed: u32) {
    let [limit_low, limit_high] = small(limit);
    let [low, high] = small(blocks.len());
    block[at..at + 4].copy_from_slice(&[limit_low, limit_high, low, high]);
    for (place, (number, (hash, leaf))) in block[at..]
        .chunks_exact_mut(8)
        .zip(blocks.iter().enumerate())
    {
        if number > 0 {
            place[..4].copy_from_slice(&hash.to_le_bytes());
        }
        place[4..].copy_from_slice(&leaf.to_le_bytes());
    }
    let count = u16::from_le_bytes([low, high]);
    let sum = csum::dx_block(
        seed,
        block,
        at,
        count,
        u16::from_le_bytes([limit_low, limit_high]),
    );
    let tail = at + limit * 8;
    block[tail + 4..tail + 8].copy_from_slice(&sum.to_le_bytes());
}
