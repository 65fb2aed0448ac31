//! How large a disk must be to hold a tree, and hardly more: it is never written again.

use super::content::kept_runs;
use crate::flatten::{Inode, Node};

const BLOCK: u64 = 4096;
const BLOCKS_PER_GROUP: u64 = 32_768;
const INODES_PER_BLOCK: u64 = 16;
/// What one block of bitmap counts.
const INODES_PER_GROUP_MAX: u64 = 32_768;
/// Bytes of directory entries in one block, less the checksum's tail.
const DIRECTORY_BYTES: u64 = 4084;
/// The longest directory entry.
const DIRENT_BYTES_MAX: u64 = 264;
/// Extents of one tree block.
const EXTENTS_PER_BLOCK: u64 = 340;
/// Inodes the file system keeps for itself, `lost+found` included.
pub(super) const RESERVED_INODES: u64 = 11;
const LOST_FOUND_BLOCKS: u64 = 4;
/// The smallest journal; a read-only disk never uses it, and as a hole it takes no space.
pub(super) const JOURNAL_BLOCKS: u64 = 1024;
/// Beyond what was counted, this part of it is left free; as a hole it takes no space.
const SPARE_PARTS: u64 = 64;
/// The writer wants a disk of at least four journals.
const BLOCKS_MIN: u64 = 4 * JOURNAL_BLOCKS;

/// What a tree needs, counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) inodes: u64,
    pub(super) blocks: u64,
}

impl Needs {
    /// Adds one inode, once however many names it has; `names` are the lengths of those in it.
    pub(super) fn add(&mut self, inode: &Inode, names: impl Iterator<Item = u64>) {
        self.inodes += 1;
        self.blocks += xattr_blocks(inode);
        self.blocks += match &inode.node {
            Node::Directory(_) => directory_blocks(names),
            Node::File { content, .. } => {
                let runs = kept_runs(content);
                let blocks: u64 = runs
                    .iter()
                    .map(|(begin, end)| (end - begin).div_ceil(BLOCK))
                    .sum();
                // A run is cut at every group's metadata and at the longest extent; four fit the inode.
                let extents = runs.len() as u64 + 2 * (blocks / BLOCKS_PER_GROUP + 1);
                blocks
                    + if extents > 4 {
                        extents.div_ceil(EXTENTS_PER_BLOCK) + 1
                    } else {
                        0
                    }
            }
            Node::Symlink(target) => u64::from(target.len() > 59),
            Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Fifo => 0,
        };
    }

    /// The disk's length in bytes.
    pub(super) fn size_bytes(self) -> u64 {
        let fixed = self.blocks + self.blocks / SPARE_PARTS + JOURNAL_BLOCKS + LOST_FOUND_BLOCKS;
        // Many inodes with little in them want groups that hold nothing else; as holes they take no space.
        let groups = (self.inodes + RESERVED_INODES).div_ceil(INODES_PER_GROUP_MAX);
        let least = BLOCKS_MIN.max(if groups > 1 {
            groups * BLOCKS_PER_GROUP
        } else {
            0
        });
        let mut blocks = least.max(fixed);
        // More blocks may mean one group more, which needs blocks itself: settles after a few rounds.
        for _ in 0..8 {
            blocks = least.max(fixed + self.overhead(blocks));
        }
        blocks * BLOCK
    }

    fn overhead(self, blocks: u64) -> u64 {
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let inodes_per_group = (self.inodes + RESERVED_INODES)
            .div_ceil(groups)
            .next_multiple_of(INODES_PER_BLOCK);
        let table = inodes_per_group / INODES_PER_BLOCK;
        let descriptors = (groups * 32).div_ceil(BLOCK);
        let backups = (1..groups).filter(|group| has_backup(*group)).count() as u64;
        (1 + backups) * (1 + descriptors) + groups * (2 + table)
    }
}

/// Whether a group holds a copy of the superblock (`sparse_super`): 1 and the powers of 3, 5 and 7.
fn has_backup(group: u64) -> bool {
    let power_of = |base: u64| {
        let mut rest = group;
        while rest.is_multiple_of(base) {
            rest /= base;
        }
        rest == 1
    };
    group == 1 || power_of(3) || power_of(5) || power_of(7)
}

fn directory_blocks(names: impl Iterator<Item = u64>) -> u64 {
    let bytes: u64 = names
        .map(|name| (8 + name).next_multiple_of(4))
        .sum::<u64>()
        + 24;
    if bytes <= DIRECTORY_BYTES - DIRENT_BYTES_MAX {
        return 1;
    }
    let leaves = bytes.div_ceil(DIRECTORY_BYTES - DIRENT_BYTES_MAX) + 1;
    leaves + 1 + leaves.div_ceil(EXTENTS_PER_BLOCK)
}

/// Attributes beyond what fits behind the inode take one block.
fn xattr_blocks(inode: &Inode) -> u64 {
    const IN_INODE_BYTES: usize = 92;
    if inode.xattrs.is_empty() {
        return 0;
    }
    let bytes: usize = inode
        .xattrs
        .iter()
        .map(|(name, value)| 16 + name.len().next_multiple_of(4) + value.len().next_multiple_of(4))
        .sum();
    u64::from(bytes + 4 > IN_INODE_BYTES)
}
