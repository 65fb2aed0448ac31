//! The base disk: a tree declared, laid out, and filled.

use std::borrow::Cow;
use std::fs::File;

use mkext4::{FsBuilder, InodeCount, InodeHandle, Layout, Meta, Options, SpecialKind};
use tokio_util::sync::CancellationToken;

use super::acl;
use super::content::{kept_runs, segments};
use super::error::Ext4Error;
use super::fill::{Filling, Source, fill, sharing};
use super::geometry::{JOURNAL_BLOCKS, Needs, RESERVED_INODES};
use super::names::{FIRST_INODE, ForeignNames};
use super::sink::HoleySink;
use crate::flatten::{FlattenError, Inode, Node, Place, ROOT, Tree};
use crate::tar::shown;

/// Times ext4 can hold: 34 bits of seconds from 1901 on.
const MTIME_MIN: i64 = i32::MIN as i64;
const MTIME_MAX: i64 = 0x3_7fff_ffff;
/// The mode of every symbolic link on Linux, whatever an archive says.
const SYMLINK_MODE: u16 = 0o777;
/// The directory ext4 makes itself.
const LOST_FOUND: &[u8] = b"lost+found";
/// The root's number on the disk.
const ROOT_INODE: u32 = 2;

/// What a base disk is made of.
#[derive(Debug)]
pub(crate) struct BaseSpec<'a> {
    /// What is in it.
    pub(crate) tree: Tree,
    /// Where the files' bytes lie: one source per layer, by the numbers in the tree.
    pub(crate) sources: &'a [Source],
    /// The file system's id, derived from its content, so that the same content makes the same disk.
    pub(crate) uuid: [u8; 16],
}

/// A tree declared to the writer, and what it must still be given.
struct Declared {
    builder: FsBuilder,
    /// Files with content, by their numbers in the tree, in the order of declaration.
    files: Vec<(InodeHandle, u32)>,
    foreign: ForeignNames,
    /// The disk's number of the next inode.
    next_inode: u32,
}

/// An inode as the writer knows it, and its number on the disk.
#[derive(Debug, Clone, Copy)]
struct Placed {
    handle: InodeHandle,
    number: u32,
}

/// Writes the disk into `file`, which must be new and empty; returns where on it the bytes of its files lie, in whole
/// blocks. `progress` is told how many bytes of files were copied. Blocks.
pub(crate) fn write_base(
    spec: BaseSpec<'_>,
    file: &File,
    cancel: &CancellationToken,
    progress: &dyn Fn(u64),
) -> Result<Vec<Place>, Ext4Error> {
    let blocks = sharing(spec.sources, file).map_err(Ext4Error::Write)?;
    let (layout, Contents { mut files, foreign }) = lay_out(spec.tree, spec.uuid)?;
    file.set_len(layout.image_len()).map_err(Ext4Error::Write)?;
    let mut sink = HoleySink::new(file);
    // It writes everything but the files' bytes at once, and is done: those are ours to copy.
    layout.writer(&mut sink).map_err(Ext4Error::from_writer)?;
    sink.flush().map_err(Ext4Error::Write)?;
    let sources = (spec.sources, blocks);
    fill(&mut files, &layout, sources, file, cancel, progress)?;
    foreign.put_right(file)?;
    Ok(files.into_iter().map(|filling| filling.place).collect())
}

/// The bytes of files a tree's disk will hold, for progress.
pub(crate) fn content_bytes(tree: &Tree) -> u64 {
    let bytes = |inode: &Inode| match &inode.node {
        Node::File { content, .. } => content.extents.iter().map(|extent| extent.len).sum(),
        _ => 0,
    };
    tree.visible().map(|(_, inode)| bytes(inode)).sum()
}

/// What a layout must still be given.
struct Contents {
    files: Vec<Filling>,
    foreign: ForeignNames,
}

/// Lays the tree out. The writer's own account of it grows to its largest here, so that the tree is gone before,
/// but for the places of its files' bytes.
fn lay_out(tree: Tree, uuid: [u8; 16]) -> Result<(Layout, Contents), Ext4Error> {
    let needs = count(&tree);
    let Declared {
        builder,
        files,
        foreign,
        ..
    } = declare(&tree, uuid, needs)?;
    let places = tree.into_places(files.iter().map(|(_, number)| *number));
    let handles = files.into_iter().map(|(handle, _)| handle);
    let files = handles.zip(places);
    let files = files
        .map(|(handle, place)| Filling { handle, place })
        .collect();
    let layout = builder.seal().map_err(Ext4Error::from_writer)?;
    Ok((layout, Contents { files, foreign }))
}

fn count(tree: &Tree) -> Needs {
    let mut needs = Needs::default();
    for (number, inode) in tree.visible() {
        needs.add(inode, tree.names(number).map(|(name, _)| name.len() as u64));
    }
    needs
}

fn declare(tree: &Tree, uuid: [u8; 16], needs: Needs) -> Result<Declared, Ext4Error> {
    let mut options = Options::new(needs.size_bytes(), uuid, 0);
    options.inodes =
        InodeCount::Exact(u32::try_from(needs.inodes + RESERVED_INODES).unwrap_or(u32::MAX));
    options.reserved_percent = 0;
    options.journal_blocks = Some(u32::try_from(JOURNAL_BLOCKS).expect("a small constant"));
    let builder = FsBuilder::new(options).map_err(Ext4Error::from_writer)?;
    let mut declared = Declared {
        builder,
        files: Vec::new(),
        foreign: ForeignNames::default(),
        next_inode: FIRST_INODE,
    };
    let root = tree.inode(ROOT);
    declared
        .builder
        .set_meta(mkext4::ROOT, meta(root))
        .map_err(Ext4Error::from_writer)?;
    declared.xattrs(mkext4::ROOT, root, b"/")?;

    let mut placed: Vec<Option<Placed>> = vec![None; tree.inode_count()];
    let place = Placed {
        handle: mkext4::ROOT,
        number: ROOT_INODE,
    };
    let mut todo = vec![(ROOT, place)];
    while let Some((directory, parent)) = todo.pop() {
        for (name, child) in tree.children(directory) {
            let inode = tree.inode(child);
            if directory == ROOT && name == LOST_FOUND {
                match &inode.node {
                    Node::Directory(_) if tree.names(child).next().is_none() => continue,
                    _ => return Err(FlattenError::LostFoundTaken.into()),
                }
            }
            let text = match std::str::from_utf8(name) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => {
                    let is_taken = |name: &[u8]| tree.child(directory, name).is_some();
                    Cow::Owned(declared.foreign.name(parent.number, name, is_taken))
                }
            };
            if let Some(there) = placed[child as usize] {
                declared
                    .builder
                    .hardlink(parent.handle, &text, there.handle)
                    .map_err(Ext4Error::from_writer)?;
                continue;
            }
            let place = declared.add(parent.handle, &text, child, inode)?;
            placed[child as usize] = Some(place);
            declared.xattrs(place.handle, inode, name)?;
            if matches!(inode.node, Node::Directory(_)) {
                todo.push((child, place));
            }
        }
    }
    Ok(declared)
}

impl Declared {
    fn add(
        &mut self,
        parent: InodeHandle,
        name: &str,
        number: u32,
        inode: &Inode,
    ) -> Result<Placed, Ext4Error> {
        let meta = meta(inode);
        let place = self.next_inode;
        let builder = &mut self.builder;
        let handle = match &inode.node {
            Node::Directory(_) => builder.mkdir(parent, name, meta),
            Node::Symlink(target) => {
                let text = match std::str::from_utf8(target) {
                    Ok(text) => Cow::Borrowed(text),
                    Err(_) => Cow::Owned(self.foreign.target(place, target)),
                };
                builder.symlink(parent, name, &text, meta)
            }
            Node::Fifo => builder.mknod(parent, name, meta, SpecialKind::Fifo),
            Node::CharDevice { major, minor } => builder.mknod(
                parent,
                name,
                meta,
                SpecialKind::Char {
                    major: *major,
                    minor: *minor,
                },
            ),
            Node::BlockDevice { major, minor } => builder.mknod(
                parent,
                name,
                meta,
                SpecialKind::Block {
                    major: *major,
                    minor: *minor,
                },
            ),
            Node::File { content, .. } => match segments(content) {
                None => builder.file(parent, name, meta, content.size),
                Some(segments) => builder.file_sparse(parent, name, meta, &segments),
            },
        }
        .map_err(Ext4Error::from_writer)?;
        if let Node::File { content, .. } = &inode.node
            && !kept_runs(content).is_empty()
        {
            self.files.push((handle, number));
        }
        self.next_inode += 1;
        Ok(Placed {
            handle,
            number: place,
        })
    }

    fn xattrs(
        &mut self,
        handle: InodeHandle,
        inode: &Inode,
        entry: &[u8],
    ) -> Result<(), Ext4Error> {
        for (name, value) in &inode.xattrs {
            let converted;
            let value = if acl::is_acl(name) {
                let bad = || Ext4Error::BadAcl {
                    entry: shown(entry),
                };
                let may_have = match inode.node {
                    Node::Directory(_) => true,
                    Node::Symlink(_) => false,
                    _ => name != acl::DEFAULT,
                };
                let list = acl::to_disk(name, value)
                    .filter(|_| may_have)
                    .ok_or_else(bad)?;
                let Some(list) = list.value else { continue };
                converted = list;
                &converted
            } else {
                value
            };
            self.builder
                .set_xattr(handle, name, value)
                .map_err(Ext4Error::from_writer)?;
        }
        Ok(())
    }
}

fn meta(inode: &Inode) -> Meta {
    let meta = inode.meta;
    let (seconds, nanos) = meta.mtime;
    let clamped = seconds.clamp(MTIME_MIN, MTIME_MAX);
    let mode = match inode.node {
        Node::Symlink(_) => SYMLINK_MODE,
        _ => acl::effective_mode(meta.mode, &inode.xattrs),
    };
    Meta::new(
        mode,
        meta.uid,
        meta.gid,
        (clamped, if clamped == seconds { nanos } else { 0 }),
    )
}
