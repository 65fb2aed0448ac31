//! The names of all directories of a tree, in few and large pieces of memory.
//!
//! A name of a directory has one slot for ever: what removes it only marks it, what brings it back finds it. Slots are
//! found by a keyed hash of directory and name, so that nobody can choose names that collide, and their order
//! reaches nothing that is written: [`Names::sorted`] is by name.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// No slot, no inode.
const NONE: u32 = u32::MAX;

/// A name of a directory.
#[derive(Debug, Clone, Copy)]
struct Slot {
    directory: u32,
    /// What it names; [`NONE`] when nothing does now.
    inode: u32,
    /// The layer that brought it, or last touched it or something below it.
    layer: u32,
    text: u32,
    /// The next slot with the same hash.
    same: u32,
    /// The next slot of the same directory.
    sibling: u32,
    len: u8,
}

/// The first of a directory's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Children(u32);

impl Children {
    /// Of a directory that has none yet.
    pub(super) const NONE: Self = Self(NONE);
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dirent {
    pub(super) inode: u32,
    pub(super) layer: u32,
}

/// The names of a tree's directories.
#[derive(Debug, Default)]
pub(super) struct Names {
    slots: Vec<Slot>,
    text: Vec<u8>,
    /// The first slot of each hash.
    index: HashMap<u64, u32>,
    keys: RandomState,
}

impl Names {
    /// Room for so many more names.
    pub(super) fn reserve(&mut self, more: usize) {
        self.slots.reserve_exact(more);
        self.index.reserve(more);
    }

    /// What `name` leads to in `directory`.
    pub(super) fn get(&self, directory: u32, name: &[u8]) -> Option<Dirent> {
        let slot = &self.slots[self.find(directory, name)? as usize];
        (slot.inode != NONE).then_some(Dirent {
            inode: slot.inode,
            layer: slot.layer,
        })
    }

    /// Lets `name` lead to `dirent` in `directory`, whose first slot is `children`.
    pub(super) fn insert(
        &mut self,
        directory: u32,
        children: &mut Children,
        name: &[u8],
        dirent: Dirent,
    ) {
        let number = match self.find(directory, name) {
            Some(there) => there,
            None => self.add(directory, children, name),
        };
        let slot = &mut self.slots[number as usize];
        (slot.inode, slot.layer) = (dirent.inode, dirent.layer);
    }

    /// Lets `name` lead to nothing.
    pub(super) fn remove(&mut self, directory: u32, name: &[u8]) {
        if let Some(number) = self.find(directory, name) {
            self.slots[number as usize].inode = NONE;
        }
    }

    /// Removes what layers other than `layer` brought; returns what is kept.
    pub(super) fn keep(&mut self, children: Children, layer: u32) -> Vec<u32> {
        let mut kept = Vec::new();
        let mut next = children.0;
        while let Some(slot) = self.slots.get_mut(next as usize) {
            next = slot.sibling;
            if slot.layer != layer {
                slot.inode = NONE;
            } else if slot.inode != NONE {
                kept.push(slot.inode);
            }
        }
        kept
    }

    /// The names that lead somewhere and where, in no order that means anything.
    pub(super) fn of(&self, children: Children) -> impl Iterator<Item = (&[u8], u32)> {
        let mut next = children.0;
        std::iter::from_fn(move || {
            loop {
                let slot = self.slots.get(next as usize)?;
                next = slot.sibling;
                if slot.inode != NONE {
                    return Some((self.name(slot), slot.inode));
                }
            }
        })
    }

    /// The same, by name.
    pub(super) fn sorted(&self, children: Children) -> Vec<(&[u8], u32)> {
        let mut sorted: Vec<_> = self.of(children).collect();
        sorted.sort_unstable();
        sorted
    }

    fn name(&self, slot: &Slot) -> &[u8] {
        let begin = slot.text as usize;
        &self.text[begin..begin + usize::from(slot.len)]
    }

    fn find(&self, directory: u32, name: &[u8]) -> Option<u32> {
        let mut next = *self.index.get(&self.hash(directory, name))?;
        loop {
            let slot = self.slots.get(next as usize)?;
            if slot.directory == directory && self.name(slot) == name {
                return Some(next);
            }
            next = slot.same;
        }
    }

    fn add(&mut self, directory: u32, children: &mut Children, name: &[u8]) -> u32 {
        let number = place(self.slots.len());
        let first = self.index.insert(self.hash(directory, name), number);
        self.slots.push(Slot {
            directory,
            inode: NONE,
            layer: 0,
            text: place(self.text.len()),
            same: first.unwrap_or(NONE),
            sibling: children.0,
            len: u8::try_from(name.len()).expect("names are bounded"),
        });
        self.text.extend_from_slice(name);
        *children = Children(number);
        number
    }

    fn hash(&self, directory: u32, name: &[u8]) -> u64 {
        self.keys.hash_one((directory, name))
    }
}

/// A place in something that is far from 4 GiB: a tree's inodes and their names are bounded.
fn place(place: usize) -> u32 {
    u32::try_from(place).expect("a tree is bounded")
}
