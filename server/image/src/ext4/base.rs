//! The base disk: files' bytes first, then what says where they are.

use std::collections::BTreeMap;
use std::fs::File;

use mkext4::spec::{JOURNAL_INO, LINK_MAX, ROOT_INO, file_type, iflags};
use mkext4::{csum, dirhash};
use tokio_util::sync::CancellationToken;

use super::acl;
use super::directory::{Directory, Name, Seeds};
use super::error::Ext4Error;
use super::fill::{Filling, Hidden, Source, bytes_of, fill};
use super::groups::{Contents, Groups, JOURNAL_BLOCKS};
use super::inode::{Map, Record, Root, reserved};
use super::room::{BLOCK, Bitmap, Blocks, Cursor};
use super::sink::HoleySink;
use super::xattr::DiskXattrs;
use crate::flatten::{FlattenError, Inode, Node, Place, ROOT, Tree};
use crate::tar::Extent;
use crate::writeback::Flush;

/// Times ext4 can hold: 34 bits of seconds from 1901 on.
const MTIME_MIN: i64 = i32::MIN as i64;
const MTIME_MAX: i64 = 0x3_7fff_ffff;
/// The mode of every symbolic link on Linux, whatever an archive says.
const SYMLINK_MODE: u16 = 0o777;
/// The directory every ext4 has: its name, number, mode and blocks.
const LOST_FOUND: &[u8] = b"lost+found";
const LOST_FOUND_INODE: u32 = 11;
const LOST_FOUND_MODE: u16 = 0o700;
const LOST_FOUND_BLOCKS: usize = 4;
/// The first inode of the tree but its root.
const FIRST_INODE: u32 = 12;
/// So many are written between two looks at whether it is to go on.
const INODES_BETWEEN_LOOKS: u32 = 1024;
const JOURNAL_MODE: u16 = 0o600;
/// The longest target of a symbolic link that its inode has room for.
const TARGET_IN_INODE: usize = 59;

/// What a base disk is made of.
#[derive(Debug)]
pub(crate) struct BaseSpec<'a> {
    /// What is in it.
    pub(crate) tree: Tree,
    /// Where the files' bytes lie: one source per layer, by the numbers in the tree.
    pub(crate) sources: &'a [Source],
    /// The file system's id, derived from its content, so that the same content makes the same disk.
    pub(crate) uuid: [u8; 16],
    /// When it is to go to the host's disk.
    pub(crate) flush: Flush,
}

/// The files of a disk that is written.
#[derive(Debug)]
pub(crate) struct Placed {
    tree: Tree,
    seen: Vec<bool>,
}

impl Placed {
    /// Where on the disk the bytes of its files lie, in whole blocks; by layer and entry.
    pub(crate) fn into_places(self) -> impl Iterator<Item = Place> {
        let seen = self.seen;
        self.tree.into_places(move |number| seen[number])
    }
}

/// Writes the disk into `file`, which must be new, and empty but for files of layers in their places. Of hidden ones it has
/// what was placed, until that is cleared. `progress` is told how many bytes of files were copied. Blocks.
pub(crate) fn write_base(
    spec: BaseSpec<'_>,
    file: &File,
    cancel: &CancellationToken,
    progress: &dyn Fn(u64),
) -> Result<(Placed, Hidden), Ext4Error> {
    let BaseSpec {
        mut tree,
        sources,
        uuid,
        flush,
    } = spec;
    let lost_found = tree.child(ROOT, LOST_FOUND);
    if lost_found.is_some_and(|there| !is_empty_directory(&tree, there)) {
        return Err(FlattenError::LostFoundTaken.into());
    }
    let seen = tree.seen();
    let (mut cursor, mut bitmap) = (Cursor::new(), Bitmap::default());
    let files = place(&tree, &seen, &mut cursor);
    for filling in files.iter().filter(|filling| !filling.is_hidden) {
        bitmap.mark_all(filling.blocks);
    }
    let (to, watched) = ((file, flush), (cancel, progress));
    let hidden = fill(&mut tree, files, sources, to, watched, |tree, cancel| {
        Writing::new(tree, file, uuid, (cursor, bitmap), lost_found).write(file, cancel)
    })?;
    Ok((Placed { tree, seen }, hidden))
}

/// The bytes of files a tree's disk will hold, for progress.
pub(crate) fn content_bytes(tree: &Tree) -> u64 {
    let bytes = |inode: &Inode| match &inode.node {
        Node::File { content, .. } => bytes_of(content),
        _ => 0,
    };
    tree.visible().map(|(_, inode)| bytes(inode)).sum()
}

fn is_empty_directory(tree: &Tree, inode: u32) -> bool {
    matches!(tree.inode(inode).node, Node::Directory(_)) && tree.names(inode).next().is_none()
}

/// Room for the files, in the order of their entries. Those have it too that others hide, which stays a hole: where a
/// layer's files lie must not depend on what comes after it.
fn place(tree: &Tree, seen: &[bool], cursor: &mut Cursor) -> Vec<Filling> {
    let mut files = Vec::new();
    for (number, content) in tree.files() {
        if content.extents.is_empty() {
            continue;
        }
        files.push(Filling {
            number,
            blocks: cursor.take_file(content),
            is_hidden: !seen[number as usize],
        });
    }
    files
}

/// A directory on the disk.
#[derive(Debug)]
struct DirectoryPlace {
    /// In the tree; absent for `lost+found`.
    tree: Option<u32>,
    number: u32,
    parent: u32,
    map: Map,
    blocks: u64,
    flags: u32,
    links: u32,
}

/// What is written of a disk, but for files' bytes.
struct Writing<'a> {
    tree: &'a Tree,
    uuid: [u8; 16],
    seeds: Seeds,
    sink: HoleySink<'a>,
    cursor: Cursor,
    bitmap: Bitmap,
    lost_found: Option<u32>,
    /// The disk's numbers by the tree's; 0 where there is none yet.
    numbers: Vec<u32>,
    /// The tree's numbers by the disk's, from [`FIRST_INODE`] on.
    order: Vec<u32>,
    /// Names beyond the first one, by number on the disk.
    more_links: BTreeMap<u32, u16>,
    /// What follows is by number on the disk, ascending.
    directories: Vec<DirectoryPlace>,
    maps: BTreeMap<u32, Map>,
    xattr_blocks: BTreeMap<u32, u64>,
}

impl<'a> Writing<'a> {
    fn new(
        tree: &'a Tree,
        file: &'a File,
        uuid: [u8; 16],
        (cursor, bitmap): (Cursor, Bitmap),
        lost_found: Option<u32>,
    ) -> Self {
        let seeds = Seeds {
            sums: csum::fs_seed(&uuid),
            names: dirhash::seed_from_uuid(&uuid),
        };
        Self {
            tree,
            uuid,
            seeds,
            sink: HoleySink::new(file),
            cursor,
            bitmap,
            lost_found,
            numbers: vec![0; tree.inode_count()],
            order: Vec::new(),
            more_links: BTreeMap::new(),
            directories: Vec::new(),
            maps: BTreeMap::new(),
            xattr_blocks: BTreeMap::new(),
        }
    }

    fn write(mut self, file: &'a File, cancel: &CancellationToken) -> Result<(), Ext4Error> {
        self.numbers[ROOT as usize] = ROOT_INO;
        self.xattr_block(ROOT_INO, ROOT, b"/")?;
        self.discover(Some(ROOT), ROOT_INO, ROOT_INO);
        self.discover(None, LOST_FOUND_INODE, ROOT_INO);
        // The list grows meanwhile.
        let mut next = 0;
        while next < self.directories.len() {
            Ext4Error::unless(cancel)?;
            self.directory(next)?;
            next += 1;
        }
        let last_inode = FIRST_INODE - 1 + u32::try_from(self.order.len()).expect("bounded");
        let groups = Groups::new(self.cursor, last_inode)?;
        file.set_len(groups.disk_bytes())
            .map_err(Ext4Error::Write)?;
        let journal = Map::small(&extents(groups.journal())).expect("it is short");
        let contents = Contents {
            uuid: self.uuid,
            seeds: self.seeds,
            bitmap: std::mem::take(&mut self.bitmap),
            last_inode,
            directories: self.directories.iter().map(|place| place.number).collect(),
            journal: journal.root,
        };
        let mut sink = std::mem::replace(&mut self.sink, HoleySink::new(file));
        let mut directories = std::mem::take(&mut self.directories).into_iter().peekable();
        let seed = self.seeds.sums;
        let inode = |number: u32| {
            if number.is_multiple_of(INODES_BETWEEN_LOOKS) {
                Ext4Error::unless(cancel)?;
            }
            let record = if let Some(place) = directories.next_if(|place| place.number == number) {
                self.directory_record(&place)?
            } else if number == JOURNAL_INO {
                journal_record(journal.root)
            } else if number < FIRST_INODE {
                return Ok(reserved(number, seed));
            } else {
                self.record(number)?
            };
            Ok(record.bytes(number, seed))
        };
        groups.write(contents, inode, &mut sink)?;
        sink.flush().map_err(Ext4Error::Write)
    }

    fn discover(&mut self, tree: Option<u32>, number: u32, parent: u32) {
        self.directories.push(DirectoryPlace {
            tree,
            number,
            parent,
            map: Map::small(&[]).expect("nothing is little"),
            blocks: 0,
            flags: Map::FLAGS,
            links: 2,
        });
    }

    /// Writes the names of a directory; what they lead to is discovered with it.
    fn directory(&mut self, place: usize) -> Result<(), Ext4Error> {
        let DirectoryPlace {
            tree: there,
            number,
            parent,
            ..
        } = self.directories[place];
        let (tree, mut links) = (self.tree, 2);
        let mut names = Vec::new();
        if there == Some(ROOT) {
            names.push(Name {
                text: LOST_FOUND,
                inode: LOST_FOUND_INODE,
                kind: file_type::DIR,
            });
            links += 1;
        }
        for (text, child) in there.into_iter().flat_map(|there| tree.children(there)) {
            if there == Some(ROOT) && Some(child) == self.lost_found {
                continue;
            }
            let kind = kind(&tree.inode(child).node);
            links += u32::from(kind == file_type::DIR);
            let inode = self.number(child, number, text)?;
            names.push(Name { text, inode, kind });
        }
        let least = if there.is_some() {
            1
        } else {
            LOST_FOUND_BLOCKS
        };
        let directory = Directory::new((number, parent), &names, least, &self.seeds)?;
        let count = directory.bytes.len() as u64 / BLOCK;
        let blocks = self.take(count);
        let mut bytes = directory.bytes.as_slice();
        for (offset, len) in blocks.ranges() {
            let (now, later) = bytes.split_at(usize::try_from(len).expect("it is in memory"));
            self.sink.write(offset, now).map_err(Ext4Error::Write)?;
            bytes = later;
        }
        let map = self.map(&extents(blocks), number)?;
        let done = &mut self.directories[place];
        (done.map, done.blocks, done.links) = (map, count, links);
        if directory.is_indexed {
            done.flags |= iflags::INDEX;
        }
        Ok(())
    }

    /// The disk's number of what a name in the directory `parent` leads to.
    fn number(&mut self, child: u32, parent: u32, name: &[u8]) -> Result<u32, Ext4Error> {
        let known = self.numbers[child as usize];
        if known != 0 {
            *self.more_links.entry(known).or_default() += 1;
            return Ok(known);
        }
        let number = FIRST_INODE + u32::try_from(self.order.len()).expect("bounded");
        self.numbers[child as usize] = number;
        self.order.push(child);
        self.xattr_block(number, child, name)?;
        match &self.tree.inode(child).node {
            Node::Directory(_) => self.discover(Some(child), number, parent),
            Node::File { content, .. } if Map::small(&content.extents).is_none() => {
                let map = self.map(&content.extents, number)?;
                self.maps.insert(number, map);
            }
            Node::Symlink(target) if target.len() > TARGET_IN_INODE => {
                let blocks = self.take(1);
                let map = self.map(&extents(blocks), number)?;
                self.maps.insert(number, map);
                let mut bytes = target.to_vec();
                bytes.resize(usize::try_from(BLOCK).expect("a small constant"), 0);
                self.sink
                    .write(blocks.first() * BLOCK, &bytes)
                    .map_err(Ext4Error::Write)?;
            }
            _ => {}
        }
        Ok(number)
    }

    /// Writes the attributes that the inode has no room for.
    fn xattr_block(&mut self, number: u32, inode: u32, entry: &[u8]) -> Result<(), Ext4Error> {
        let xattrs = DiskXattrs::new(self.tree.inode(inode), entry)?;
        if !xattrs.need_block() {
            return Ok(());
        }
        let place = self.take(1).first();
        if let Some(block) = xattrs.into_block(place, self.seeds.sums) {
            self.sink
                .write(place * BLOCK, &block)
                .map_err(Ext4Error::Write)?;
        }
        self.xattr_blocks.insert(number, place);
        Ok(())
    }

    fn take(&mut self, count: u64) -> Blocks {
        let blocks = self.cursor.take(count);
        self.bitmap.mark_all(blocks);
        blocks
    }

    fn map(&mut self, extents: &[Extent], number: u32) -> Result<Map, Ext4Error> {
        let room = (&mut self.cursor, &mut self.bitmap);
        Map::write(extents, number, self.seeds.sums, room, &mut self.sink)
    }

    fn directory_record(&self, place: &DirectoryPlace) -> Result<Record, Ext4Error> {
        let record = match place.tree {
            Some(inode) => self.of_tree(place.number, self.tree.inode(inode))?,
            None => Record {
                mode: S_IFDIR | LOST_FOUND_MODE,
                ..Record::default()
            },
        };
        Ok(Record {
            size: place.blocks * BLOCK,
            blocks: place.blocks + place.map.blocks,
            // With more the count says nothing (`dir_nlink`).
            links: if place.links > LINK_MAX {
                1
            } else {
                u16::try_from(place.links).expect("seen above")
            },
            flags: place.flags,
            root: place.map.root,
            ..record
        })
    }

    /// What is no directory.
    fn record(&self, number: u32) -> Result<Record, Ext4Error> {
        let inode = self.tree.inode(self.order[(number - FIRST_INODE) as usize]);
        let mut record = self.of_tree(number, inode)?;
        record.links = 1 + self.more_links.get(&number).copied().unwrap_or_default();
        let map = self.maps.get(&number).copied();
        match &inode.node {
            Node::Directory(_) => unreachable!("each has its place"),
            Node::File { content, .. } => {
                let map = map.or_else(|| Map::small(&content.extents));
                let map = map.expect("the others were written");
                let blocks = content
                    .extents
                    .iter()
                    .map(|extent| extent.len.div_ceil(BLOCK));
                record.size = content.size;
                record.blocks = blocks.sum::<u64>() + map.blocks;
                (record.flags, record.root) = (Map::FLAGS, map.root);
            }
            Node::Symlink(target) => {
                record.size = target.len() as u64;
                if let Some(map) = map {
                    (record.flags, record.root, record.blocks) = (Map::FLAGS, map.root, 1);
                } else {
                    record.root.0[..target.len()].copy_from_slice(target);
                }
            }
            Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
                record.root = device(*major, *minor);
            }
            Node::Fifo => {}
        }
        Ok(record)
    }

    /// What all kinds have.
    fn of_tree(&self, number: u32, inode: &Inode) -> Result<Record, Ext4Error> {
        let meta = inode.meta;
        let (seconds, nanos) = meta.mtime;
        let clamped = seconds.clamp(MTIME_MIN, MTIME_MAX);
        let mode = match inode.node {
            Node::Symlink(_) => SYMLINK_MODE,
            _ => acl::effective_mode(meta.mode, &inode.xattrs) & 0o7777,
        };
        Ok(Record {
            mode: type_bits(&inode.node) | mode,
            owner: (meta.uid, meta.gid),
            mtime: (clamped, if clamped == seconds { nanos } else { 0 }),
            xattr_block: self.xattr_blocks.get(&number).copied().unwrap_or_default(),
            // What is wrong with them was told before.
            xattrs: DiskXattrs::new(inode, b"")?.in_inode,
            ..Record::default()
        })
    }
}

const S_IFDIR: u16 = 0o040_000;
const S_IFREG: u16 = 0o100_000;

fn type_bits(node: &Node) -> u16 {
    match node {
        Node::Directory(_) => S_IFDIR,
        Node::File { .. } => S_IFREG,
        Node::Symlink(_) => 0o120_000,
        Node::CharDevice { .. } => 0o020_000,
        Node::BlockDevice { .. } => 0o060_000,
        Node::Fifo => 0o010_000,
    }
}

/// What a name says of what it leads to.
fn kind(node: &Node) -> u8 {
    match node {
        Node::Directory(_) => file_type::DIR,
        Node::File { .. } => file_type::REG,
        Node::Symlink(_) => file_type::SYMLINK,
        Node::CharDevice { .. } => file_type::CHR,
        Node::BlockDevice { .. } => file_type::BLK,
        Node::Fifo => file_type::FIFO,
    }
}

/// Small numbers in the first word, as they were once, others in the second.
fn device(major: u32, minor: u32) -> Root {
    let mut root = Root::default();
    if major < 256 && minor < 256 {
        root.0[..4].copy_from_slice(&(major << 8 | minor).to_le_bytes());
    } else {
        let number = minor & 0xff | major << 8 | (minor & !0xff) << 12;
        root.0[4..8].copy_from_slice(&number.to_le_bytes());
    }
    root
}

fn journal_record(root: Root) -> Record {
    Record {
        mode: S_IFREG | JOURNAL_MODE,
        size: JOURNAL_BLOCKS * BLOCK,
        blocks: JOURNAL_BLOCKS,
        links: 1,
        flags: Map::FLAGS,
        root,
        ..Record::default()
    }
}

/// Blocks as the pieces of a file.
fn extents(blocks: Blocks) -> Vec<Extent> {
    let mut logical = 0;
    let extent = |(offset, len)| {
        let extent = Extent {
            logical,
            offset,
            len,
        };
        logical += len;
        extent
    };
    blocks.ranges().into_iter().map(extent).collect()
}
