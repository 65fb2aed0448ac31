//! Inodes as the disk has them.

use mkext4::csum;
use mkext4::spec::{
    BLOCK_SIZE, Extent as DiskExtent, ExtentHeader, ExtentIdx, INODE_SIZE, Inode, iflags,
};

use super::error::Ext4Error;
use super::room::{BLOCK, Bitmap, Cursor};
use super::sink::HoleySink;
use crate::tar::Extent;

/// What the inode itself has room for of a file's pieces or a link's target.
const ROOT_BYTES: usize = 60;
const EXTENTS_IN_INODE: usize = 4;
/// Units in which an inode counts what it takes.
const SECTORS_PER_BLOCK: u64 = 8;
/// Bytes of the fields behind the first 128.
pub(super) const EXTRA_BYTES: u16 = 32;

/// What is said of one inode.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// With the kind of file.
    pub(super) mode: u16,
    pub(super) owner: (u32, u32),
    pub(super) mtime: (i64, u32),
    pub(super) size: u64,
    /// Blocks it takes, those that say where the others are included.
    pub(super) blocks: u64,
    pub(super) links: u16,
    pub(super) flags: u32,
    pub(super) root: Root,
    /// The block of its attributes, or 0.
    pub(super) xattr_block: u64,
    pub(super) xattrs: Vec<u8>,
}

/// Where an inode's bytes lie, or what stands there instead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root(pub(super) [u8; ROOT_BYTES]);

impl Default for Root {
    fn default() -> Self {
        Self([0; ROOT_BYTES])
    }
}

impl Record {
    /// The inode of this number; `seed` is that of the disk's checksums.
    pub(super) fn bytes(self, number: u32, seed: u32) -> [u8; INODE_SIZE] {
        let (mtime, mtime_extra) = Inode::encode_timestamp(self.mtime.0, self.mtime.1);
        let mut inode = Inode {
            mode: self.mode,
            uid: self.owner.0,
            gid: self.owner.1,
            size: self.size,
            atime: mtime,
            ctime: mtime,
            mtime,
            dtime: 0,
            links_count: self.links,
            blocks: (self.blocks + u64::from(self.xattr_block != 0)) * SECTORS_PER_BLOCK,
            flags: self.flags,
            version: 0,
            block: self.root.0,
            generation: 0,
            file_acl: self.xattr_block,
            extra_isize: EXTRA_BYTES,
            checksum: 0,
            ctime_extra: mtime_extra,
            mtime_extra,
            atime_extra: mtime_extra,
            crtime: mtime,
            crtime_extra: mtime_extra,
            projid: 0,
            ibody: self.xattrs,
        };
        let mut bytes = [0; INODE_SIZE];
        inode.encode(&mut bytes);
        inode.checksum = csum::inode(seed, number, 0, &bytes);
        inode.encode(&mut bytes);
        bytes
    }
}

/// One that is in use and says nothing, as the first numbers are.
pub(super) fn reserved(number: u32, seed: u32) -> [u8; INODE_SIZE] {
    let mut bytes = [0; INODE_SIZE];
    let [low, high, ..] = csum::inode(seed, number, 0, &bytes).to_le_bytes();
    (bytes[0x7c], bytes[0x7d]) = (low, high);
    bytes
}

/// Where the blocks of an inode are said to lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map {
    pub(super) root: Root,
    /// Blocks that say so themselves.
    pub(super) blocks: u64,
}

impl Map {
    pub(super) const FLAGS: u32 = iflags::EXTENTS;

    /// A map that the inode has room for.
    pub(super) fn small(extents: &[Extent]) -> Option<Self> {
        (extents.len() <= EXTENTS_IN_INODE).then(|| {
            let mut root = Root::default();
            header(&mut root.0, extents.len(), EXTENTS_IN_INODE, 0);
            for (place, extent) in places(&mut root.0).zip(extents) {
                on_disk(extent).encode(place);
            }
            Self { root, blocks: 0 }
        })
    }

    /// A map of the inode `number`, in blocks of its own where the inode has no room for it.
    pub(super) fn write(
        extents: &[Extent],
        number: u32,
        seed: u32,
        (cursor, bitmap): (&mut Cursor, &mut Bitmap),
        sink: &mut HoleySink<'_>,
    ) -> Result<Self, Ext4Error> {
        if let Some(map) = Self::small(extents) {
            return Ok(map);
        }
        let seed = csum::inode_seed(seed, number, 0);
        let room = ExtentIdx::node_capacity(BLOCK_SIZE);
        let mut blocks = 0;
        // First logical block and place of each block of the level below.
        let mut level: Vec<(u32, u64)> = Vec::new();
        let mut put = |depth: u16, count: usize, fill: &mut dyn FnMut(&mut [u8])| {
            let mut bytes = vec![0; BLOCK_SIZE];
            header(&mut bytes, count, room, depth);
            fill(&mut bytes);
            let sum = csum::extent_block(seed, &bytes);
            bytes[BLOCK_SIZE - 4..].copy_from_slice(&sum.to_le_bytes());
            let place = cursor.take_one();
            bitmap.mark(place, 1);
            blocks += 1;
            sink.write(place * BLOCK, &bytes).map(|()| place)
        };
        for part in extents.chunks(room) {
            let place = put(0, part.len(), &mut |bytes| {
                for (place, extent) in places(bytes).zip(part) {
                    on_disk(extent).encode(place);
                }
            });
            level.push((logical(&part[0]), place.map_err(Ext4Error::Write)?));
        }
        let mut depth = 1;
        while level.len() > EXTENTS_IN_INODE {
            let mut above = Vec::new();
            for part in level.chunks(room) {
                let place = put(depth, part.len(), &mut |bytes| index(bytes, part));
                above.push((part[0].0, place.map_err(Ext4Error::Write)?));
            }
            (level, depth) = (above, depth + 1);
        }
        let mut root = Root::default();
        header(&mut root.0, level.len(), EXTENTS_IN_INODE, depth);
        index(&mut root.0, &level);
        Ok(Self { root, blocks })
    }
}

fn header(bytes: &mut [u8], entries: usize, max: usize, depth: u16) {
    let small = |count: usize| u16::try_from(count).expect("a block has few entries");
    ExtentHeader {
        entries: small(entries),
        max: small(max),
        depth,
        generation: 0,
    }
    .encode(bytes);
}

fn places(bytes: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    bytes[ExtentHeader::LEN..].chunks_exact_mut(ExtentHeader::ENTRY_LEN)
}

fn index(bytes: &mut [u8], below: &[(u32, u64)]) {
    for (place, (logical, leaf)) in places(bytes).zip(below) {
        let (logical, leaf) = (*logical, *leaf);
        ExtentIdx { logical, leaf }.encode(place);
    }
}

fn on_disk(extent: &Extent) -> DiskExtent {
    DiskExtent {
        logical: logical(extent),
        raw_len: u16::try_from(extent.len.div_ceil(BLOCK)).expect("extents are cut"),
        start: extent.offset / BLOCK,
    }
}

fn logical(extent: &Extent) -> u32 {
    u32::try_from(extent.logical / BLOCK).expect("files are bounded")
}
