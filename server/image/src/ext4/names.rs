//! Names and link targets that are not UTF-8.
//!
//! The writer takes text. So it is given stand-ins that take the same room on the disk, and once the disk is
//! written each is replaced where it lies, with the checksums of what holds it. A directory that has a hash
//! index loses it, because the index is by name: it is then searched block by block, as every directory of
//! one block is.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;

use mkext4::csum;
use mkext4::reader::Fs;
use mkext4::spec::{BLOCK_SIZE, INODE_SIZE, dirent, iflags};

use super::error::Ext4Error;
use crate::limits::NAME_BYTES_MAX;
use crate::tar::shown;

/// The number of the first inode that is declared; the others follow in the order of their declaration. That
/// it is so is checked: a directory without its stand-ins is an error.
pub(super) const FIRST_INODE: u32 = 12;
/// The tail of a directory's block: an entry without inode, of a type of its own, with the checksum.
const TAIL_BYTES: usize = 12;
const TAIL_TYPE: u8 = 0xde;
/// The two entries a directory's first block begins with.
const DOTS_BYTES: usize = 24;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Names by what stands for them.
type StandIns = HashMap<Box<[u8]>, Box<[u8]>>;

/// What the writer was not told.
#[derive(Debug, Default)]
pub(super) struct ForeignNames {
    /// By the number of the directory's inode.
    names: BTreeMap<u32, StandIns>,
    /// Numbers of the symbolic links' inodes, and their targets.
    targets: Vec<(u32, Box<[u8]>)>,
}

impl ForeignNames {
    /// What the writer is to be told instead of `name`: none that `is_taken`, and of the same length on the disk,
    /// where names are padded to four bytes.
    pub(super) fn name(
        &mut self,
        directory: u32,
        name: &[u8],
        is_taken: impl Fn(&[u8]) -> bool,
    ) -> String {
        let names = self.names.entry(directory).or_default();
        let width = name.len().next_multiple_of(4).min(NAME_BYTES_MAX);
        let mut number = names.len();
        loop {
            let stand_in = digits(number, width);
            let bytes = stand_in.as_bytes();
            if !is_taken(bytes) && !names.contains_key(bytes) {
                names.insert(bytes.into(), name.into());
                return stand_in;
            }
            number += 1;
        }
    }

    /// What the writer is to be told instead of `target`, of the same length.
    pub(super) fn target(&mut self, link: u32, target: &[u8]) -> String {
        self.targets.push((link, target.into()));
        "x".repeat(target.len())
    }

    /// Replaces the stand-ins in the disk `file`, which must be whole.
    pub(super) fn put_right(&self, file: &File) -> Result<(), Ext4Error> {
        if self.names.is_empty() && self.targets.is_empty() {
            return Ok(());
        }
        let disk = Disk {
            fs: Fs::open(file).map_err(Ext4Error::from_writer)?,
            file,
        };
        for (directory, names) in &self.names {
            disk.rename(*directory, names)?;
        }
        for (link, target) in &self.targets {
            disk.retarget(*link, target)?;
        }
        Ok(())
    }
}

/// `number` in `width` digits: of four there are more than an image has entries.
fn digits(mut number: usize, width: usize) -> String {
    let mut text = vec![DIGITS[0]; width];
    for digit in text.iter_mut().rev() {
        *digit = DIGITS[number % DIGITS.len()];
        number /= DIGITS.len();
    }
    text.into_iter().map(char::from).collect()
}

/// A disk that is changed in place.
struct Disk<'a> {
    fs: Fs<&'a File>,
    file: &'a File,
}

impl Disk<'_> {
    fn rename(&self, directory: u32, names: &StandIns) -> Result<(), Ext4Error> {
        let inode = self.fs.inode(directory).map_err(Ext4Error::from_writer)?;
        let extents = self
            .fs
            .extents(directory, &inode)
            .map_err(Ext4Error::from_writer)?;
        let seed = csum::inode_seed(self.fs.fs_seed(), directory, inode.generation);
        let is_indexed = inode.flags & iflags::INDEX != 0;
        let mut renamed = 0;
        for logical in 0..inode.size / BLOCK_SIZE as u64 {
            let place = self.fs.file_block(&extents, logical);
            let place = place.ok_or_else(|| astray("a directory has a hole"))?;
            let mut block = self.fs.read_block(place).map_err(Ext4Error::from_writer)?;
            if is_indexed && logical == 0 {
                without_entries(&mut block, DOTS_BYTES);
            } else if is_indexed && is_index(&block) {
                without_entries(&mut block, 0);
            } else {
                renamed += rename_in(&mut block, names)?;
            }
            let sum = csum::dirent_block(seed, &block);
            block[BLOCK_SIZE - 4..].copy_from_slice(&sum.to_le_bytes());
            self.write(place * BLOCK_SIZE as u64, &block)?;
        }
        if renamed != names.len() {
            return Err(astray("a directory lacks a stand-in"));
        }
        if is_indexed {
            let flags = inode.flags & !iflags::INDEX;
            self.change_inode(directory, |raw| {
                raw[0x20..0x24].copy_from_slice(&flags.to_le_bytes());
            })?;
        }
        Ok(())
    }

    fn retarget(&self, link: u32, target: &[u8]) -> Result<(), Ext4Error> {
        let inode = self.fs.inode(link).map_err(Ext4Error::from_writer)?;
        if inode.size != target.len() as u64 {
            return Err(astray("a symbolic link lacks its stand-in"));
        }
        if inode.fast_symlink_target().is_some() {
            return self.change_inode(link, |raw| {
                raw[0x28..0x28 + target.len()].copy_from_slice(target);
            });
        }
        let extents = self
            .fs
            .extents(link, &inode)
            .map_err(Ext4Error::from_writer)?;
        let place = self.fs.file_block(&extents, 0);
        let place = place.ok_or_else(|| astray("a symbolic link has no block"))?;
        self.write(place * BLOCK_SIZE as u64, target)
    }

    /// Changes an inode's bytes, and its checksum with them.
    fn change_inode(&self, inode: u32, change: impl FnOnce(&mut [u8])) -> Result<(), Ext4Error> {
        let mut raw = self.fs.inode_raw(inode).map_err(Ext4Error::from_writer)?;
        change(&mut raw);
        let generation = u32::from_le_bytes(raw[0x64..0x68].try_into().expect("four bytes"));
        let sum = csum::inode(self.fs.fs_seed(), inode, generation, &raw).to_le_bytes();
        raw[0x7c..0x7e].copy_from_slice(&sum[..2]);
        raw[0x82..0x84].copy_from_slice(&sum[2..]);
        let per_group = self.fs.superblock().inodes_per_group;
        let (group, index) = ((inode - 1) / per_group, (inode - 1) % per_group);
        let table = self
            .fs
            .group_desc(u64::from(group))
            .map_err(Ext4Error::from_writer)?
            .inode_table;
        let offset = table * BLOCK_SIZE as u64 + u64::from(index) * INODE_SIZE as u64;
        self.write(offset, &raw)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Ext4Error> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(Ext4Error::Write)
    }
}

/// A disk that is not what the writer was told: a defect, but never a wrong disk.
fn astray(what: &'static str) -> Ext4Error {
    Ext4Error::Layout {
        reason: what.to_owned(),
    }
}

/// Whether a block of an indexed directory is a part of the index: one entry without inode over all of it.
fn is_index(block: &[u8]) -> bool {
    let record = usize::from(u16::from_le_bytes([block[4], block[5]]));
    block[..4] == [0; 4] && record == BLOCK_SIZE
}

/// Makes an ordinary block of one of the index, with nothing behind the first `kept` bytes; those end with the
/// entry `..`, if there are any.
fn without_entries(block: &mut [u8], kept: usize) {
    block[kept..].fill(0);
    let last = kept.saturating_sub(DOTS_BYTES / 2);
    let record = u16::try_from(BLOCK_SIZE - TAIL_BYTES - last).expect("a block is small");
    block[last + 4..last + 6].copy_from_slice(&record.to_le_bytes());
    let tail = BLOCK_SIZE - TAIL_BYTES;
    block[tail + 4] = 12;
    block[tail + 7] = TAIL_TYPE;
}

/// Replaces the stand-ins in one block; returns how many there were.
fn rename_in(block: &mut [u8], names: &StandIns) -> Result<usize, Ext4Error> {
    let (mut at, mut renamed) = (0, 0);
    while at < BLOCK_SIZE - TAIL_BYTES {
        let record = usize::from(u16::from_le_bytes([block[at + 4], block[at + 5]]));
        let len = usize::from(block[at + 6]);
        if record < dirent::rec_len_for(len) || at + record > BLOCK_SIZE {
            return Err(astray("a directory's block is malformed"));
        }
        if let Some(name) = names.get(&block[at + 8..at + 8 + len]) {
            if dirent::rec_len_for(name.len()) != dirent::rec_len_for(len) {
                return Err(Ext4Error::Layout {
                    reason: format!("there is no room for the name `{}`", shown(name)),
                });
            }
            block[at + 6] = u8::try_from(name.len()).expect("names are bounded");
            block[at + 8..at + dirent::rec_len_for(len)].fill(0);
            block[at + 8..at + 8 + name.len()].copy_from_slice(name);
            renamed += 1;
        }
        at += record;
    }
    Ok(renamed)
}
