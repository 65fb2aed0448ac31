//! The tree and how an entry changes it.

use std::borrow::Cow;

use super::FlattenError;
use super::names::{Children, Dirent, Names};
use super::whiteout::{Mark, mark};
use crate::limits::{
    INODES_MAX, NAME_BYTES_MAX, NAMES_FOLLOWED_MAX, PATH_DEPTH_MAX, SYMLINK_HOPS_MAX,
};
use crate::tar::{Content, Entry, EntryKind, Meta, PackedEntries, Xattrs, parent_and_name, shown};

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
    names: Names,
    layer: u32,
    /// Names in targets of symbolic links that were followed.
    followed: usize,
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
    /// With its names.
    Directory(Children),
    /// Its bytes lie in the layer of this number.
    File {
        layer: u32,
        /// Which of the layer's entries it is.
        number: u32,
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

/// Where a file's bytes lie.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) layer: u32,
    /// Which of the layer's entries it is.
    pub(crate) number: u32,
    pub(crate) content: Content,
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
            node: Node::Directory(Children::NONE),
            meta: IMPLICIT,
            xattrs: Box::default(),
            links: 1,
        };
        Self {
            inodes: vec![root],
            names: Names::default(),
            layer: 0,
            followed: 0,
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

    /// The names in a directory and where they lead, by name; nothing for what is no directory.
    pub(crate) fn children(&self, inode: u32) -> Vec<(&[u8], u32)> {
        match self.inode(inode).node {
            Node::Directory(children) => self.names.sorted(children),
            _ => Vec::new(),
        }
    }

    /// The same, in no order that means anything.
    pub(crate) fn names(&self, inode: u32) -> impl Iterator<Item = (&[u8], u32)> {
        let children = match self.inode(inode).node {
            Node::Directory(children) => children,
            _ => Children::NONE,
        };
        self.names.of(children)
    }

    /// Where `name` leads in a directory.
    pub(crate) fn child(&self, directory: u32, name: &[u8]) -> Option<u32> {
        match self.inode(directory).node {
            Node::Directory(_) => Some(self.names.get(directory, name)?.inode),
            _ => None,
        }
    }

    /// Each inode that a name leads to, once.
    pub(crate) fn visible(&self) -> impl Iterator<Item = (u32, &Inode)> {
        let mut seen = vec![false; self.inode_count()];
        let mut todo = vec![ROOT];
        std::iter::from_fn(move || {
            while let Some(number) = todo.pop() {
                if !std::mem::replace(&mut seen[number as usize], true) {
                    todo.extend(self.names(number).map(|(_, inode)| inode));
                    return Some((number, self.inode(number)));
                }
            }
            None
        })
    }

    /// Whether a name leads to each inode.
    pub(crate) fn seen(&self) -> Vec<bool> {
        let mut seen = vec![false; self.inode_count()];
        for (number, _) in self.visible() {
            seen[number as usize] = true;
        }
        seen
    }

    /// All files, named or not, by layer and entry: number and content.
    pub(crate) fn files(&self) -> impl Iterator<Item = (u32, &Content)> {
        (0..)
            .zip(&self.inodes)
            .filter_map(move |(number, inode)| match &inode.node {
                Node::File { content, .. } => Some((number, content)),
                _ => None,
            })
    }

    /// A file's layer and content.
    pub(crate) fn file_mut(&mut self, number: u32) -> (u32, &mut Content) {
        match &mut self.inodes[number as usize].node {
            Node::File { layer, content, .. } => (*layer, content),
            _ => unreachable!("asked for files alone"),
        }
    }

    /// Where the bytes of the files lie that are `wanted`, by layer and entry. The rest of the tree goes.
    pub(crate) fn into_places(self, wanted: impl Fn(usize) -> bool) -> impl Iterator<Item = Place> {
        let inodes = self.inodes.into_iter().enumerate();
        inodes.filter_map(move |(number, inode)| match inode.node {
            Node::File {
                layer,
                number: entry,
                content,
            } if wanted(number) && !content.extents.is_empty() => Some(Place {
                layer,
                number: entry,
                content,
            }),
            _ => None,
        })
    }

    /// Puts the next layer on top.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn apply(&mut self, entries: &PackedEntries) -> Result<(), FlattenError> {
        self.apply_while(entries, || true).map(drop)
    }

    /// The same, as long as it is to go on: an archive of some MiB can have links that take hours to follow. False where
    /// it was given up, after which the tree is nothing.
    pub(crate) fn apply_while(
        &mut self,
        entries: &PackedEntries,
        go_on: impl Fn() -> bool,
    ) -> Result<bool, FlattenError> {
        // At least this much is needed, and no more in an archive that declares its directories.
        let more = usize::try_from(entries.len()).unwrap_or(usize::MAX);
        self.inodes.reserve_exact(more);
        self.names.reserve(more);
        for (number, entry) in (0..).zip(entries.iter()) {
            if !go_on() {
                return Ok(false);
            }
            match mark(&entry.path) {
                Mark::None => self.place(entry, number)?,
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
        Ok(true)
    }

    fn place(&mut self, entry: Entry, number: u32) -> Result<(), FlattenError> {
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
        if let (EntryKind::Directory, Some(there)) = (&kind, self.child(parent, name))
            && matches!(self.inode(there).node, Node::Directory(_))
        {
            self.insert(parent, name, there);
            let inode = &mut self.inodes[there as usize];
            (inode.meta, inode.xattrs) = (meta, xattrs);
            return Ok(());
        }
        let node = match kind {
            EntryKind::HardLink { target } => return self.link(parent, &path, &target),
            EntryKind::Directory => Node::Directory(Children::NONE),
            EntryKind::File(content) => Node::File {
                layer: self.layer,
                number,
                content,
            },
            EntryKind::Symlink { target } => Node::Symlink(target),
            EntryKind::CharDevice { major, minor } => Node::CharDevice { major, minor },
            EntryKind::BlockDevice { major, minor } => Node::BlockDevice { major, minor },
            EntryKind::Fifo => Node::Fifo,
        };
        let inode = Inode {
            node,
            meta,
            xattrs,
            links: 1,
        };
        let inode = self.add(inode, &path)?;
        self.insert(parent, name, inode);
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
        self.names.remove(parent, name);
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
        self.insert(parent, name, inode);
        Ok(())
    }

    /// Removes what lower layers brought under `name`.
    fn hide(&mut self, directory: u32, name: &[u8]) {
        let Some(dirent) = self.names.get(directory, name) else {
            return;
        };
        if dirent.layer != self.layer {
            self.names.remove(directory, name);
        } else {
            self.purge(dirent.inode);
        }
    }

    /// Removes what lower layers brought into `directory`, at any depth; its depth is bounded by
    /// [`PATH_DEPTH_MAX`], so the recursion is too. What is no directory has nothing to remove.
    fn purge(&mut self, directory: u32) {
        if let Node::Directory(children) = self.inode(directory).node {
            for inode in self.names.keep(children, self.layer) {
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
                here = self.make_directory(here, &name, entry)?;
                continue;
            };
            match &self.inode(child).node {
                Node::Directory(_) => {
                    if missing == Missing::Make {
                        self.insert(here, &name, child);
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
                    let names = target.rsplit(slash);
                    let names = names.filter(|name| !matches!(*name, b"" | b"."));
                    let before = todo.len();
                    todo.extend(names.map(|name| Cow::Owned(name.to_owned())));
                    self.followed += todo.len() - before;
                    if self.followed > NAMES_FOLLOWED_MAX {
                        return Err(FlattenError::TooWinding {
                            entry: shown(entry),
                        });
                    }
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

    fn make_directory(
        &mut self,
        parent: u32,
        name: &[u8],
        entry: &[u8],
    ) -> Result<u32, FlattenError> {
        let inode = Inode {
            node: Node::Directory(Children::NONE),
            meta: IMPLICIT,
            xattrs: Box::default(),
            links: 1,
        };
        let inode = self.add(inode, entry)?;
        self.insert(parent, name, inode);
        Ok(inode)
    }

    /// Links can make one entry stand for many directories that no layer declares, so these are counted too.
    fn add(&mut self, inode: Inode, entry: &[u8]) -> Result<u32, FlattenError> {
        let number = u32::try_from(self.inodes.len())
            .ok()
            .filter(|number| *number < INODES_MAX)
            .ok_or_else(|| FlattenError::TooManyFiles {
                entry: shown(entry),
            })?;
        self.inodes.push(inode);
        Ok(number)
    }

    /// Lets `name` lead to `inode`, as this layer has it.
    fn insert(&mut self, directory: u32, name: &[u8], inode: u32) {
        let dirent = Dirent {
            inode,
            layer: self.layer,
        };
        match &mut self.inodes[directory as usize].node {
            Node::Directory(children) => self.names.insert(directory, children, name, dirent),
            _ => unreachable!("only directories are walked into"),
        }
    }
}
