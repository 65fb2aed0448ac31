//! The blocks of a disk, handed out from its beginning to its end, and which of them are in use.
//!
//! What is handed out goes around the copies of the superblock, and leaves them room for the descriptors of the largest
//! disk: so that where the first files lie does not depend on how many there are.

use banger_archive::Content;

use super::content::kept_runs;

pub(super) const BLOCK: u64 = 4096;
pub(super) const BLOCKS_PER_GROUP: u64 = 32_768;
/// Room for descriptors behind each superblock: those of 512 GiB, which is more than an image's layers may have. What
/// is not needed stays a hole.
pub(super) const DESCRIPTOR_BLOCKS: u64 = 32;
/// The longest extent.
const EXTENT_BLOCKS_MAX: u64 = 32_768;

/// The next free block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    next: u64,
}

/// Blocks that follow each other, but for copies of the superblock between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocks {
    start: u64,
    count: u64,
}

impl Cursor {
    /// At the beginning of a disk.
    pub(crate) const fn new() -> Self {
        Self { next: 0 }
    }

    /// The same, `count` blocks later.
    pub(crate) fn behind(mut self, count: u64) -> Self {
        self.take(count);
        self
    }

    /// The block behind the last one handed out.
    pub(super) const fn end(self) -> u64 {
        self.next
    }

    /// The next `count` blocks.
    pub(super) fn take(&mut self, count: u64) -> Blocks {
        let blocks = Blocks {
            start: self.next,
            count,
        };
        self.next = blocks.runs().last().map_or(self.next, |(at, len)| at + len);
        blocks
    }

    /// The next one.
    pub(super) fn take_one(&mut self) -> u64 {
        self.take(1).first()
    }

    /// The next `count` blocks that nothing is between; fewer than a group has.
    pub(super) fn take_together(&mut self, count: u64) -> u64 {
        let tried = self.take(count);
        let mut runs = tried.runs();
        match (runs.next(), runs.next()) {
            (Some((start, _)), None) => start,
            // What follows a copy of the superblock has room for it.
            (_, Some((start, _))) => {
                self.next = start + count;
                start
            }
            (None, None) => self.next,
        }
    }

    /// Room for a file's bytes.
    pub(crate) fn take_file(&mut self, content: &Content) -> Blocks {
        self.take(Self::blocks_of(content))
    }

    /// How many blocks a file's bytes take.
    pub(crate) fn blocks_of(content: &Content) -> u64 {
        let runs = kept_runs(content).into_iter();
        runs.map(|(begin, end)| (end - begin).div_ceil(BLOCK)).sum()
    }
}

impl Blocks {
    /// The first of them, of some.
    pub(super) fn first(self) -> u64 {
        behind_superblock(self.start)
    }

    /// First block and length of each piece, none longer than an extent.
    pub(super) fn runs(self) -> impl Iterator<Item = (u64, u64)> {
        let Self {
            start: mut at,
            count: mut left,
        } = self;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let begin = behind_superblock(at);
            let next_group = begin / BLOCKS_PER_GROUP + 1;
            let until = if has_superblock(next_group) {
                next_group * BLOCKS_PER_GROUP - begin
            } else {
                EXTENT_BLOCKS_MAX
            };
            let len = left.min(until).min(EXTENT_BLOCKS_MAX);
            (at, left) = (begin + len, left - len);
            Some((begin, len))
        })
    }

    /// The same in bytes.
    pub(crate) fn ranges(self) -> Vec<(u64, u64)> {
        self.runs()
            .map(|(start, len)| (start * BLOCK, len * BLOCK))
            .collect()
    }
}

/// `block`, or the first one behind the superblock and the descriptors that lie there.
fn behind_superblock(block: u64) -> u64 {
    let (group, within) = (block / BLOCKS_PER_GROUP, block % BLOCKS_PER_GROUP);
    if within <= DESCRIPTOR_BLOCKS && has_superblock(group) {
        group * BLOCKS_PER_GROUP + 1 + DESCRIPTOR_BLOCKS
    } else {
        block
    }
}

/// Whether a group holds a superblock (`sparse_super`): the first two, and the powers of 3, 5 and 7.
pub(super) fn has_superblock(group: u64) -> bool {
    let power_of = |base: u64| {
        let mut rest = group;
        while rest.is_multiple_of(base) {
            rest /= base;
        }
        rest == 1
    };
    group <= 1 || power_of(3) || power_of(5) || power_of(7)
}

/// Which blocks are in use.
#[derive(Debug, Default)]
pub(super) struct Bitmap {
    bytes: Vec<u8>,
    pub(super) used: u64,
}

impl Bitmap {
    /// These are.
    pub(super) fn mark(&mut self, start: u64, count: u64) {
        let end = usize::try_from((start + count).div_ceil(8)).expect("a disk is bounded");
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        for block in start..start + count {
            let byte = usize::try_from(block / 8).expect("a disk is bounded");
            let bit = 1 << (block % 8);
            debug_assert_eq!(self.bytes[byte] & bit, 0, "block {block} is used twice");
            self.bytes[byte] |= bit;
        }
        self.used += count;
    }

    /// These are.
    pub(super) fn mark_all(&mut self, blocks: Blocks) {
        for (start, len) in blocks.runs() {
            self.mark(start, len);
        }
    }

    /// A group's block of it, where only the first `blocks` exist; and how many of those are free.
    pub(super) fn group(&self, group: u64, blocks: u64) -> (Vec<u8>, u64) {
        let bytes = usize::try_from(BLOCKS_PER_GROUP / 8).expect("a small constant");
        let begin = usize::try_from(group).expect("a disk is bounded") * bytes;
        let mut block = vec![0; bytes];
        let there = self.bytes.get(begin..).unwrap_or_default();
        let there = &there[..there.len().min(bytes)];
        block[..there.len()].copy_from_slice(there);
        let used: u64 = block.iter().map(|byte| u64::from(byte.count_ones())).sum();
        for missing in blocks..BLOCKS_PER_GROUP {
            let byte = usize::try_from(missing / 8).expect("a small number");
            block[byte] |= 1 << (missing % 8);
        }
        (block, blocks - used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_out_goes_around_the_superblocks() {
        let mut cursor = Cursor::new();
        let first = cursor.take(BLOCKS_PER_GROUP);
        // The second group has a copy.
        let before = BLOCKS_PER_GROUP - 33;
        let behind = BLOCKS_PER_GROUP + 33;
        let runs: Vec<_> = first.runs().collect();
        assert_eq!(runs, [(33, before), (behind, 33)]);
        assert_eq!((first.first(), cursor.end()), (33, behind + 33));
        // The third has none, and the longest extent ends where the fourth begins.
        let runs: Vec<_> = cursor.take(3 * BLOCKS_PER_GROUP).runs().collect();
        assert_eq!(runs[0], (behind + 33, BLOCKS_PER_GROUP));
        assert_eq!(runs[1], (behind + 33 + BLOCKS_PER_GROUP, before - 33));
        assert_eq!(runs[2].0, 3 * BLOCKS_PER_GROUP + 33);
    }

    #[test]
    fn what_must_lie_together_does() {
        let mut cursor = Cursor::new();
        cursor.take(BLOCKS_PER_GROUP - 33 - 7);
        let place = cursor.take_together(8);
        assert_eq!(place, BLOCKS_PER_GROUP + 33);
        assert_eq!(cursor.take_one(), place + 8);
    }

    #[test]
    fn blocks_that_do_not_exist_are_in_use_and_not_free() {
        let mut bitmap = Bitmap::default();
        bitmap.mark(0, 3);
        let (block, free) = bitmap.group(0, 10);
        assert_eq!((block[0], block[1], free), (0b111, 0b1111_1100, 7));
        assert!(block[2..].iter().all(|byte| *byte == 0xff));
        assert_eq!(bitmap.group(1, BLOCKS_PER_GROUP).1, BLOCKS_PER_GROUP);
    }
}
