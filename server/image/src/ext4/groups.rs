//! What a disk's groups of blocks say of themselves: descriptors, bitmaps, tables of inodes, the journal, and the
//! superblock over all. It lies behind everything else, since how much it is depends on that.

use mkext4::csum;
use mkext4::spec::{
    BLOCK_SIZE, GroupDesc, INODE_SIZE, JOURNAL_INO, JournalSuperblock, Superblock, bg_flags,
    compat, incompat, ro_compat,
};

use super::directory::Seeds;
use super::error::Ext4Error;
use super::inode::Root;
use super::room::{
    BLOCK, BLOCKS_PER_GROUP, Bitmap, Blocks, Cursor, DESCRIPTOR_BLOCKS, has_superblock,
};
use super::sink::HoleySink;

/// The smallest journal; a read-only disk never uses it, and as a hole it takes no space.
pub(super) const JOURNAL_BLOCKS: u64 = 1024;
/// A disk has at least four journals.
const BLOCKS_MIN: u64 = 4 * JOURNAL_BLOCKS;
const INODES_PER_BLOCK: u64 = (BLOCK_SIZE / INODE_SIZE) as u64;
/// What one block of bitmap counts.
const INODES_PER_GROUP_MAX: u64 = 32_768;
const DESCRIPTOR_BYTES: usize = 32;
/// Bytes before the first superblock.
const BOOT_BYTES: usize = 1024;
/// The first inode that is not reserved.
const FIRST_INODE: u32 = 11;
/// "user attributes, access lists", as `mke2fs` has it.
const MOUNT_OPTIONS: u32 = 0x0c;
const HALF_MD4: u8 = 1;
const SIGNED_HASH: u32 = 1;
const CRC32C: u8 = 1;

/// Where the groups' own blocks are.
#[derive(Debug)]
pub(super) struct Groups {
    /// Of the whole disk.
    blocks: u64,
    count: u64,
    inodes_per_group: u64,
    /// Two for each group.
    bitmaps: Vec<u64>,
    /// The first block of each group's inodes.
    tables: Vec<u64>,
    journal: Blocks,
}

/// What the groups are told of what lies in them.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) uuid: [u8; 16],
    pub(super) seeds: Seeds,
    pub(super) bitmap: Bitmap,
    /// Inodes in use: all up to this one.
    pub(super) last_inode: u32,
    /// Inodes of directories, ascending.
    pub(super) directories: Vec<u32>,
    /// Where the journal's inode has the journal.
    pub(super) journal: Root,
}

impl Groups {
    /// For so many inodes, from where `cursor` is.
    pub(super) fn new(cursor: Cursor, inodes: u32) -> Result<Self, Ext4Error> {
        let mut count = 1;
        loop {
            let groups = Self::of(count, cursor, u64::from(inodes));
            if groups.descriptor_blocks() > DESCRIPTOR_BLOCKS {
                return Err(Ext4Error::Layout {
                    reason: "it has more than 512 GiB".into(),
                });
            }
            let needed = groups.blocks.div_ceil(BLOCKS_PER_GROUP);
            if needed <= count && groups.inodes_per_group <= INODES_PER_GROUP_MAX {
                return Ok(groups);
            }
            count = needed.max(count + 1);
        }
    }

    /// The same with `count` groups, which may be too few.
    fn of(count: u64, mut cursor: Cursor, inodes: u64) -> Self {
        let inodes_per_group = inodes.div_ceil(count).next_multiple_of(INODES_PER_BLOCK);
        let table_blocks = inodes_per_group / INODES_PER_BLOCK;
        let bitmaps = cursor.take(2 * count).runs();
        let bitmaps = bitmaps
            .flat_map(|(start, len)| start..start + len)
            .collect();
        let tables = (0..count).map(|_| cursor.take_together(table_blocks));
        let tables = tables.collect();
        let journal = cursor.take(JOURNAL_BLOCKS);
        // Many inodes with little in them want groups that hold nothing else; as holes they take no space.
        let least = BLOCKS_MIN.max((count - 1) * BLOCKS_PER_GROUP + BLOCKS_MIN);
        Self {
            blocks: cursor.end().max(least),
            count,
            inodes_per_group,
            bitmaps,
            tables,
            journal,
        }
    }

    /// The disk's length in bytes.
    pub(super) const fn disk_bytes(&self) -> u64 {
        self.blocks * BLOCK
    }

    pub(super) const fn journal(&self) -> Blocks {
        self.journal
    }

    /// Writes all of it; `inode` makes the inodes in use, and is asked for one after the other.
    pub(super) fn write(
        &self,
        mut contents: Contents,
        mut inode: impl FnMut(u32) -> Result<[u8; INODE_SIZE], Ext4Error>,
        sink: &mut HoleySink<'_>,
    ) -> Result<(), Ext4Error> {
        let table_blocks = self.inodes_per_group / INODES_PER_BLOCK;
        let bitmap = &mut contents.bitmap;
        for group in (0..self.count).filter(|group| has_superblock(*group)) {
            bitmap.mark(group * BLOCKS_PER_GROUP, 1 + self.descriptor_blocks());
        }
        for block in &self.bitmaps {
            bitmap.mark(*block, 1);
        }
        for table in &self.tables {
            bitmap.mark(*table, table_blocks);
        }
        bitmap.mark_all(self.journal);

        let mut descriptors = Vec::new();
        let mut free_blocks = 0;
        let mut directories = contents.directories.iter().copied().peekable();
        for group in 0..self.count {
            let mut descriptor = self.describe(group, &contents, sink)?;
            let last = (group + 1) * self.inodes_per_group;
            while directories
                .next_if(|inode| u64::from(*inode) <= last)
                .is_some()
            {
                descriptor.used_dirs_count += 1;
            }
            free_blocks += u64::from(descriptor.free_blocks_count);
            let mut bytes = [0; DESCRIPTOR_BYTES];
            descriptor.encode32(&mut bytes);
            let number = small(group);
            descriptor.checksum = csum::group_desc(contents.seeds.sums, number, &bytes);
            descriptor.encode32(&mut bytes);
            descriptors.extend_from_slice(&bytes);
        }
        for group in 0..self.count {
            let first = group * self.inodes_per_group + 1;
            let end = (first + self.inodes_per_group).min(u64::from(contents.last_inode) + 1);
            let mut place = self.tables[index(group)] * BLOCK;
            for number in first..end {
                let bytes = inode(small(number))?;
                sink.write(place, &bytes).map_err(Ext4Error::Write)?;
                place += INODE_SIZE as u64;
            }
        }
        self.write_journal(contents.uuid, sink)?;
        self.write_superblocks(&contents, free_blocks, &descriptors, sink)
    }

    /// Writes a group's bitmaps. Its directories are still to be counted.
    fn describe(
        &self,
        group: u64,
        contents: &Contents,
        sink: &mut HoleySink<'_>,
    ) -> Result<GroupDesc, Ext4Error> {
        let seed = contents.seeds.sums;
        let blocks = (self.blocks - group * BLOCKS_PER_GROUP).min(BLOCKS_PER_GROUP);
        let (of_blocks, free) = contents.bitmap.group(group, blocks);
        let used = u64::from(contents.last_inode)
            .saturating_sub(group * self.inodes_per_group)
            .min(self.inodes_per_group);
        let mut of_inodes = vec![0; BLOCK_SIZE];
        if used > 0 {
            let beyond = self.inodes_per_group..8 * BLOCK;
            for bit in (0..used).chain(beyond) {
                of_inodes[index(bit / 8)] |= 1 << (bit % 8);
            }
        }
        let unused = small(self.inodes_per_group - used);
        let places = &self.bitmaps[index(2 * group)..][..2];
        for (place, bitmap) in places.iter().zip([&of_blocks, &of_inodes]) {
            sink.write(*place * BLOCK, bitmap)
                .map_err(Ext4Error::Write)?;
        }
        let uninit = if used == 0 { bg_flags::INODE_UNINIT } else { 0 };
        Ok(GroupDesc {
            block_bitmap: places[0],
            inode_bitmap: places[1],
            inode_table: self.tables[index(group)],
            free_blocks_count: small(free),
            free_inodes_count: unused,
            used_dirs_count: 0,
            flags: bg_flags::INODE_ZEROED | uninit,
            exclude_bitmap: 0,
            block_bitmap_csum: csum::block_bitmap(seed, &of_blocks).into(),
            inode_bitmap_csum: if used == 0 {
                0
            } else {
                csum::inode_bitmap(seed, &of_inodes, small(self.inodes_per_group)).into()
            },
            itable_unused: unused,
            checksum: 0,
        })
    }

    /// The rest of the journal is a hole.
    fn write_journal(&self, uuid: [u8; 16], sink: &mut HoleySink<'_>) -> Result<(), Ext4Error> {
        let journal = JournalSuperblock {
            blocktype: 4, // a superblock of version 2
            blocksize: small(BLOCK),
            maxlen: small(JOURNAL_BLOCKS),
            first: 1,
            sequence: 1,
            start: 0,
            errno: 0,
            feature_compat: 0,
            feature_incompat: 0,
            feature_ro_compat: 0,
            uuid,
            nr_users: 1,
            dynsuper: 0,
            max_transaction: 0,
            max_trans_data: 0,
            checksum_type: 0,
            num_fc_blocks: 0,
            head: 0,
            checksum: 0,
        };
        let mut bytes = vec![0; BLOCK_SIZE];
        journal.encode(&mut bytes);
        sink.write(self.journal.first() * BLOCK, &bytes)
            .map_err(Ext4Error::Write)
    }

    /// The first one, and its copies.
    fn write_superblocks(
        &self,
        contents: &Contents,
        free_blocks: u64,
        descriptors: &[u8],
        sink: &mut HoleySink<'_>,
    ) -> Result<(), Ext4Error> {
        let mut superblock = self.superblock(contents, free_blocks);
        for group in (0..self.count).filter(|group| has_superblock(*group)) {
            superblock.block_group_nr = u16::try_from(group).expect("a disk is bounded");
            let at = if group == 0 { BOOT_BYTES } else { 0 };
            let mut bytes = vec![0; BLOCK_SIZE];
            let place = &mut bytes[at..at + Superblock::LEN];
            superblock.checksum = 0;
            superblock.encode(place);
            superblock.checksum = csum::superblock(place);
            superblock.encode(place);
            bytes.extend_from_slice(descriptors);
            bytes.resize(bytes.len().next_multiple_of(BLOCK_SIZE), 0);
            sink.write(group * BLOCKS_PER_GROUP * BLOCK, &bytes)
                .map_err(Ext4Error::Write)?;
        }
        Ok(())
    }

    fn superblock(&self, contents: &Contents, free_blocks: u64) -> Superblock {
        let inodes = small(self.inodes_per_group * self.count);
        let per_group = small(BLOCKS_PER_GROUP);
        let mut journal = [0; 17];
        for (word, bytes) in journal.iter_mut().zip(contents.journal.0.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        journal[16] = small(JOURNAL_BLOCKS * BLOCK);
        Superblock {
            inodes_count: inodes,
            blocks_count: self.blocks,
            r_blocks_count: 0,
            free_blocks_count: free_blocks,
            free_inodes_count: inodes - contents.last_inode,
            first_data_block: 0,
            log_block_size: 2,
            log_cluster_size: 2,
            blocks_per_group: per_group,
            clusters_per_group: per_group,
            inodes_per_group: small(self.inodes_per_group),
            mtime: 0,
            wtime: 0,
            mnt_count: 0,
            max_mnt_count: u16::MAX,
            state: 1,  // clean
            errors: 1, // go on
            minor_rev_level: 0,
            lastcheck: 0,
            checkinterval: 0,
            creator_os: 0,
            rev_level: 1,
            def_resuid: 0,
            def_resgid: 0,
            first_ino: FIRST_INODE,
            inode_size: u16::try_from(INODE_SIZE).expect("a small constant"),
            block_group_nr: 0,
            feature_compat: compat::WRITER,
            feature_incompat: incompat::WRITER,
            feature_ro_compat: ro_compat::WRITER,
            uuid: contents.uuid,
            volume_name: [0; 16],
            last_mounted: [0; 64],
            reserved_gdt_blocks: 0,
            journal_uuid: [0; 16],
            journal_inum: JOURNAL_INO,
            journal_dev: 0,
            last_orphan: 0,
            hash_seed: contents.seeds.names,
            def_hash_version: HALF_MD4,
            jnl_backup_type: 1,
            desc_size: 0,
            default_mount_opts: MOUNT_OPTIONS,
            first_meta_bg: 0,
            mkfs_time: 0,
            jnl_blocks: journal,
            min_extra_isize: super::inode::EXTRA_BYTES,
            want_extra_isize: super::inode::EXTRA_BYTES,
            flags: SIGNED_HASH,
            log_groups_per_flex: 4,
            checksum_type: CRC32C,
            kbytes_written: contents.bitmap.used * (BLOCK / 1024),
            overhead_clusters: small(self.overhead()),
            lpf_ino: 0,
            checksum_seed: 0,
            checksum: 0,
        }
    }

    fn descriptor_blocks(&self) -> u64 {
        (self.count * DESCRIPTOR_BYTES as u64).div_ceil(BLOCK)
    }

    /// Blocks that can never hold anything of a file.
    fn overhead(&self) -> u64 {
        let superblocks = (0..self.count)
            .filter(|group| has_superblock(*group))
            .count() as u64;
        superblocks * (1 + self.descriptor_blocks())
            + self.count * (2 + self.inodes_per_group / INODES_PER_BLOCK)
            + JOURNAL_BLOCKS
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).expect("a disk is bounded")
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("a disk is bounded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_as_large_as_it_must_be_and_has_no_more_groups_than_there_is_room_for() {
        let mut cursor = Cursor::new();
        cursor.take(100 << 20 >> 12);
        let small = Groups::new(cursor, 100).unwrap();
        assert_eq!(small.count, 1);
        assert!(small.disk_bytes() < 110 << 20);
        // Inodes alone may want groups.
        assert_eq!(Groups::new(cursor, 100_000).unwrap().count, 4);
        cursor.take(500 << 30 >> 12);
        Groups::new(cursor, 100).unwrap();
        cursor.take(12 << 30 >> 12);
        assert!(matches!(
            Groups::new(cursor, 100),
            Err(Ext4Error::Layout { .. })
        ));
    }
}
