//! The base disk: a tree declared, laid out, and filled.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};

use mkext4::{FsBuilder, InodeCount, InodeHandle, Layout, Meta, Options, SpecialKind};
use tokio_util::sync::CancellationToken;

use super::acl;
use super::content::{ContentReader, kept_runs, segments};
use super::error::Ext4Error;
use super::geometry::{JOURNAL_BLOCKS, Needs, RESERVED_INODES};
use super::names::{FIRST_INODE, ForeignNames};
use super::sink::HoleySink;
use crate::flatten::{FlattenError, Inode, Node, ROOT, Tree};
use crate::tar::{Content, shown};

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
    /// Where the files' bytes lie: one archive per layer, by the numbers in the tree.
    pub(crate) archives: &'a [File],
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

/// Writes the disk into `file`, which must be new and empty; returns its length in bytes. `written` is told
/// how many bytes of files were copied. Blocks.
pub(crate) fn write_base(
    spec: BaseSpec<'_>,
    file: &File,
    cancel: &CancellationToken,
    written: &dyn Fn(u64),
) -> Result<u64, Ext4Error> {
    let (layout, Contents { files, foreign }) = lay_out(spec.tree, spec.uuid)?;
    file.set_len(layout.image_len()).map_err(Ext4Error::Write)?;
    let mut sink = HoleySink::new(file);
    let mut writer = layout.writer(&mut sink).map_err(Ext4Error::from_writer)?;
    for Filling {
        handle,
        layer,
        content,
    } in files
    {
        if cancel.is_cancelled() {
            return Err(Ext4Error::Cancelled);
        }
        let mut reader = Interruptible {
            inner: ContentReader::new(&spec.archives[layer as usize], &content),
            cancel,
        };
        writer
            .fill(handle, &mut reader)
            .map_err(|error| match error {
                _ if cancel.is_cancelled() => Ext4Error::Cancelled,
                other => Ext4Error::from_writer(other),
            })?;
        written(content.extents.iter().map(|extent| extent.len).sum());
    }
    writer.finish().map_err(Ext4Error::from_writer)?;
    sink.flush().map_err(Ext4Error::Write)?;
    foreign.put_right(file)?;
    Ok(layout.image_len())
}

/// The bytes of files a tree's disk will hold, for progress.
pub(crate) fn content_bytes(tree: &Tree) -> u64 {
    let mut total = 0;
    let mut seen = vec![false; tree.inode_count()];
    let mut todo = vec![ROOT];
    while let Some(number) = todo.pop() {
        if std::mem::replace(&mut seen[number as usize], true) {
            continue;
        }
        match &tree.inode(number).node {
            Node::Directory(children) => todo.extend(children.values().map(|dirent| dirent.inode)),
            Node::File { content, .. } => {
                total += content.extents.iter().map(|extent| extent.len).sum::<u64>();
            }
            _ => {}
        }
    }
    total
}

/// A file's place on the disk, and what is to come there.
struct Filling {
    handle: InodeHandle,
    layer: u32,
    content: Content,
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
    let contents = tree.into_contents(files.iter().map(|(_, number)| *number));
    let fill = |((handle, _), (layer, content)): ((InodeHandle, u32), (u32, Content))| Filling {
        handle,
        layer,
        content,
    };
    let files = files.into_iter().zip(contents).map(fill).collect();
    let layout = builder.seal().map_err(Ext4Error::from_writer)?;
    Ok((layout, Contents { files, foreign }))
}

fn count(tree: &Tree) -> Needs {
    let mut needs = Needs::default();
    let mut seen = vec![false; tree.inode_count()];
    let mut todo = vec![ROOT];
    while let Some(number) = todo.pop() {
        if std::mem::replace(&mut seen[number as usize], true) {
            continue;
        }
        let inode = tree.inode(number);
        needs.add(inode);
        if let Node::Directory(children) = &inode.node {
            todo.extend(children.values().map(|dirent| dirent.inode));
        }
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
        let Node::Directory(children) = &tree.inode(directory).node else {
            continue;
        };
        for (name, dirent) in children {
            let inode = tree.inode(dirent.inode);
            if directory == ROOT && &**name == LOST_FOUND {
                match &inode.node {
                    Node::Directory(inside) if inside.is_empty() => continue,
                    _ => return Err(FlattenError::LostFoundTaken.into()),
                }
            }
            let text = match std::str::from_utf8(name) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => Cow::Owned(declared.foreign.name(parent.number, name, children)),
            };
            if let Some(there) = placed[dirent.inode as usize] {
                declared
                    .builder
                    .hardlink(parent.handle, &text, there.handle)
                    .map_err(Ext4Error::from_writer)?;
                continue;
            }
            let place = declared.add(parent.handle, &text, dirent.inode, inode)?;
            placed[dirent.inode as usize] = Some(place);
            declared.xattrs(place.handle, inode, name)?;
            if matches!(inode.node, Node::Directory(_)) {
                todo.push((dirent.inode, place));
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

/// Stops reading when the work is cancelled.
struct Interruptible<'a> {
    inner: ContentReader<'a>,
    cancel: &'a CancellationToken,
}

impl Read for Interruptible<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        self.inner.read(buf)
    }
}
