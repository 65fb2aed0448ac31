//! The tree and how an entry changes it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::FlattenError;
use super::whiteout::{Mark, mark};
use crate::limits::{NAME_BYTES_MAX, PATH_DEPTH_MAX, SYMLINK_HOPS_MAX};
use crate::tar::{Content, Entry, EntryKind, Meta, Xattrs, parent_and_name, shown};

/// The root's place in [`Tree::inodes`].
pub(crate) const ROOT: u32 = 0;
/// The most names of one file: ext4's `EXT4_LINK_MAX`.
const LINKS_MAX: u32 = 65_000;
/// What nobody declared.
const IMPLICIT: Meta = Meta {
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: (0, 0),
};

/// A file system tree made of layers.
#[derive(Debug)]
pub(crate) struct Tree {
    inodes: Vec<Inode>,
    layer: u32,
}

/// One file, directory, link or node. What no directory names any more stays, unseen.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) node: Node,
    pub(crate) meta: Meta,
    pub(crate) xattrs: Xattrs,
    links: u32,
}

/// What an inode is.
#[derive(Debug)]
pub(crate) enum Node {
    Directory(BTreeMap<Box<[u8]>, Dirent>),
    /// Its bytes lie in the layer of this number.
    File {
        layer: u32,
        content: Content,
    },
    Symlink(Box<[u8]>),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dirent {
    pub(crate) inode: u32,
    /// The layer that brought it, or last touched it or something below it.
    layer: u32,
}

/// What to do about a directory that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Stop,
}

impl Tree {
    /// Only a root.
    pub(crate) fn new() -> Self {
        let root = Inode {
            node: Node::Directory(BTreeMap::new()),
            meta: IMPLICIT,
            xattrs: Box::default(),
            links: 1,
        };
        Self {
            inodes: vec![root],
            layer: 0,
        }
    }

    /// An inode by its number.
    pub(crate) fn inode(&self, inode: u32) -> &Inode {
        &self.inodes[inode as usize]
    }

    /// How many inodes there are, those no longer named included: numbers are below this.
    pub(crate) fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    /// Where the bytes of these files lie: the layers' numbers and the places. The rest of the tree goes.
    pub(crate) fn into_contents(mut self, files: impl Iterator<Item = u32>) -> Vec<(u32, Content)> {
        let mut contents = Vec::with_capacity(files.size_hint().0);
        for number in files {
            let inode = &mut self.inodes[number as usize];
            match std::mem::replace(&mut inode.node, Node::Fifo) {
                Node::File { layer, content } => contents.push((layer, content)),
                _ => unreachable!("each is a file, and named once"),
            }
        }
        contents
    }

    /// Puts the next layer on top.
    pub(crate) fn apply(&mut self, entries: Vec<Entry>) -> Result<(), FlattenError> {
        for entry in entries {
            match mark(&entry.path) {
                Mark::None => self.place(entry)?,
                Mark::Ignored => {}
                Mark::Invalid => {
                    return Err(FlattenError::BadWhiteout {
                        entry: shown(&entry.path),
                    });
                }
                Mark::Opaque => {
                    if let Some(directory) = self.parent(&entry.path, Missing::Stop)? {
                        self.purge(directory);
                    }
                }
                Mark::Whiteout(hidden) => {
                    if let Some(directory) = self.parent(&entry.path, Missing::Stop)? {
                        self.hide(directory, hidden);
                    }
                }
            }
        }
        self.layer += 1;
        Ok(())
    }

    fn place(&mut self, entry: Entry) -> Result<(), FlattenError> {
        let Entry {
            path,
            kind,
            meta,
            xattrs,
        } = entry;
        if path.is_empty() {
            return self.place_root(&kind, meta, xattrs);
        }
        let parent = self
            .parent(&path, Missing::Make)?
            .expect("missing directories were made");
        let name = parent_and_name(&path).1;
        let layer = self.layer;
        if let (EntryKind::Directory, Some(there)) = (&kind, self.child(parent, name))
            && matches!(self.inode(there).node, Node::Directory(_))
        {
            self.children_mut(parent).insert(
                name.into(),
                Dirent {
                    inode: there,
                    layer,
                },
            );
            let inode = &mut self.inodes[there as usize];
            (inode.meta, inode.xattrs) = (meta, xattrs);
            return Ok(());
        }
        let node = match kind {
            EntryKind::HardLink { target } => return self.link(parent, &path, &target),
            EntryKind::Directory => Node::Directory(BTreeMap::new()),
            EntryKind::File(content) => Node::File { layer, content },
            EntryKind::Symlink { target } => Node::Symlink(target),
            EntryKind::CharDevice { major, minor } => Node::CharDevice { major, minor },
            EntryKind::BlockDevice { major, minor } => Node::BlockDevice { major, minor },
            EntryKind::Fifo => Node::Fifo,
        };
        let inode = self.add(Inode {
            node,
            meta,
            xattrs,
            links: 1,
        });
        self.children_mut(parent)
            .insert(name.into(), Dirent { inode, layer });
        Ok(())
    }

    fn place_root(
        &mut self,
        kind: &EntryKind,
        meta: Meta,
        xattrs: Xattrs,
    ) -> Result<(), FlattenError> {
        if *kind != EntryKind::Directory {
            return Err(FlattenError::RootNotDirectory);
        }
        let root = &mut self.inodes[ROOT as usize];
        (root.meta, root.xattrs) = (meta, xattrs);
        Ok(())
    }

    /// Another name; the file keeps its own owner, mode and times, as GNU tar has it.
    fn link(&mut self, parent: u32, path: &[u8], target: &[u8]) -> Result<(), FlattenError> {
        let name = parent_and_name(path).1;
        self.children_mut(parent).remove(name);
        let directory = self.parent_for(target, path, Missing::Stop)?;
        let last = parent_and_name(target).1;
        let Some(inode) = directory.and_then(|directory| self.child(directory, last)) else {
            return Err(FlattenError::MissingLinkTarget {
                entry: shown(path),
                target: shown(target),
            });
        };
        if matches!(self.inode(inode).node, Node::Directory(_)) {
            return Err(FlattenError::LinkToDirectory {
                entry: shown(path),
                target: shown(target),
            });
        }
        let links = &mut self.inodes[inode as usize].links;
        *links += 1;
        if *links > LINKS_MAX {
            return Err(FlattenError::TooManyLinks { entry: shown(path) });
        }
        let layer = self.layer;
        self.children_mut(parent)
            .insert(name.into(), Dirent { inode, layer });
        Ok(())
    }

    /// Removes what lower layers brought under `name`.
    fn hide(&mut self, directory: u32, name: &[u8]) {
        let layer = self.layer;
        let Some(dirent) = self
            .children(directory)
            .and_then(|children| children.get(name))
            .copied()
        else {
            return;
        };
        if dirent.layer != layer {
            self.children_mut(directory).remove(name);
        } else if matches!(self.inode(dirent.inode).node, Node::Directory(_)) {
            self.purge(dirent.inode);
        }
    }

    /// Removes what lower layers brought into `directory`, at any depth; its depth is bounded by
    /// [`PATH_DEPTH_MAX`], so the recursion is too.
    fn purge(&mut self, directory: u32) {
        let layer = self.layer;
        let children = self.children_mut(directory);
        children.retain(|_, dirent| dirent.layer == layer);
        let kept: Vec<u32> = children.values().map(|dirent| dirent.inode).collect();
        for inode in kept {
            if matches!(self.inode(inode).node, Node::Directory(_)) {
                self.purge(inode);
            }
        }
    }

    /// The directory `path` lies in.
    fn parent(&mut self, path: &[u8], missing: Missing) -> Result<Option<u32>, FlattenError> {
        self.parent_for(path, path, missing)
    }

    /// The directory `path` lies in, followed inside the tree; errors name `entry`.
    fn parent_for(
        &mut self,
        path: &[u8],
        entry: &[u8],
        missing: Missing,
    ) -> Result<Option<u32>, FlattenError> {
        let slash = |byte: &u8| *byte == b'/';
        let directory = parent_and_name(path).0;
        let mut todo: Vec<Cow<'_, [u8]>> = directory.rsplit(slash).map(Cow::Borrowed).collect();
        let (mut here, mut above, mut hops) = (ROOT, Vec::new(), 0);
        while let Some(name) = todo.pop() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    here = above.pop().unwrap_or(ROOT);
                    continue;
                }
                _ => {}
            }
            let Some(child) = self.child(here, &name) else {
                if missing == Missing::Stop {
                    return Ok(None);
                }
                if name.len() > NAME_BYTES_MAX || above.len() >= PATH_DEPTH_MAX {
                    return Err(FlattenError::TooDeep {
                        entry: shown(entry),
                    });
                }
                above.push(here);
                here = self.make_directory(here, &name);
                continue;
            };
            match &self.inode(child).node {
                Node::Directory(_) => {
                    if missing == Missing::Make {
                        self.touch(here, &name);
                    }
                    above.push(here);
                    here = child;
                }
                Node::Symlink(target) => {
                    hops += 1;
                    if hops > SYMLINK_HOPS_MAX {
                        return Err(FlattenError::SymlinkLoop {
                            entry: shown(entry),
                        });
                    }
                    if target.starts_with(b"/") {
                        above.clear();
                        here = ROOT;
                    }
                    todo.extend(target.rsplit(slash).map(|name| Cow::Owned(name.to_owned())));
                }
                _ if missing == Missing::Stop => return Ok(None),
                _ => {
                    return Err(FlattenError::ParentNotDirectory {
                        entry: shown(entry),
                        parent: shown(&name),
                    });
                }
            }
        }
        Ok(Some(here))
    }

    fn make_directory(&mut self, parent: u32, name: &[u8]) -> u32 {
        let node = Node::Directory(BTreeMap::new());
        let inode = self.add(Inode {
            node,
            meta: IMPLICIT,
            xattrs: Box::default(),
            links: 1,
        });
        let layer = self.layer;
        self.children_mut(parent)
            .insert(name.into(), Dirent { inode, layer });
        inode
    }

    fn touch(&mut self, directory: u32, name: &[u8]) {
        let layer = self.layer;
        if let Some(dirent) = self.children_mut(directory).get_mut(name) {
            dirent.layer = layer;
        }
    }

    fn add(&mut self, inode: Inode) -> u32 {
        let number = u32::try_from(self.inodes.len()).expect("the number of entries is bounded");
        self.inodes.push(inode);
        number
    }

    fn child(&self, directory: u32, name: &[u8]) -> Option<u32> {
        self.children(directory)?
            .get(name)
            .map(|dirent| dirent.inode)
    }

    fn children(&self, inode: u32) -> Option<&BTreeMap<Box<[u8]>, Dirent>> {
        match &self.inode(inode).node {
            Node::Directory(children) => Some(children),
            _ => None,
        }
    }

    fn children_mut(&mut self, directory: u32) -> &mut BTreeMap<Box<[u8]>, Dirent> {
        match &mut self.inodes[directory as usize].node {
            Node::Directory(children) => children,
            _ => unreachable!("only directories are walked into"),
        }
    }
}
