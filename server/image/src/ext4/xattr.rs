//! Extended attributes: those that fit behind their inode there, the rest in one block.

use mkext4::csum;
use mkext4::spec::{BLOCK_SIZE, INODE_SIZE, XATTR_MAGIC};

use super::acl;
use super::error::Ext4Error;
use super::inode::EXTRA_BYTES;
use super::room::BLOCK;
use crate::flatten::{Inode, Node};
use crate::tar::shown;

/// What is left of an inode behind its fields.
const IN_INODE_BYTES: usize = INODE_SIZE - 128 - EXTRA_BYTES as usize;
const HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 16;
const MAGIC_BYTES: usize = 4;
/// What ends the entries.
const END_BYTES: usize = 4;

/// One attribute: the number that stands for what its name begins with, the rest of the name, the value.
type Attribute<'a> = (u8, &'a [u8], std::borrow::Cow<'a, [u8]>);

/// An inode's attributes as the disk has them.
#[derive(Debug, Default)]
pub(super) struct DiskXattrs {
    /// What stands behind the inode; empty when nothing does.
    pub(super) in_inode: Vec<u8>,
    /// The block with the others, without the sum, which is of its place too.
    block: Option<Vec<u8>>,
}

impl DiskXattrs {
    /// Of `inode`, which errors call `entry`.
    pub(super) fn new(inode: &Inode, entry: &[u8]) -> Result<Self, Ext4Error> {
        if inode.xattrs.is_empty() {
            return Ok(Self::default());
        }
        let mut attributes = attributes(inode, entry)?;
        attributes.sort_by(|a, b| (a.0, a.1.len(), a.1).cmp(&(b.0, b.1.len(), b.1)));
        let (mut used, mut fit) = (MAGIC_BYTES + END_BYTES, 0);
        for attribute in &attributes {
            used += bytes(attribute);
            if used > IN_INODE_BYTES {
                break;
            }
            fit += 1;
        }
        let (near, far) = attributes.split_at(fit);
        let far_bytes: usize = far.iter().map(bytes).sum();
        if HEADER_BYTES + far_bytes + END_BYTES > BLOCK_SIZE {
            return Err(Ext4Error::Layout {
                reason: format!(
                    "the attributes of `{}` take more than a block",
                    shown(entry)
                ),
            });
        }
        let mut in_inode = Vec::new();
        if !near.is_empty() {
            in_inode.resize(IN_INODE_BYTES, 0);
            in_inode[..MAGIC_BYTES].copy_from_slice(&XATTR_MAGIC.to_le_bytes());
            render(&mut in_inode[MAGIC_BYTES..], near, None);
        }
        let block = (!far.is_empty()).then(|| {
            let mut block = vec![0; BLOCK_SIZE];
            block[..4].copy_from_slice(&XATTR_MAGIC.to_le_bytes());
            (block[4], block[8]) = (1, 1); // one inode's, one block
            let hashes = render(&mut block[HEADER_BYTES..], far, Some(HEADER_BYTES));
            let hash = csum::xattr_block_hash(hashes);
            block[12..16].copy_from_slice(&hash.to_le_bytes());
            block
        });
        Ok(Self { in_inode, block })
    }

    /// Whether some need a block.
    pub(super) const fn need_block(&self) -> bool {
        self.block.is_some()
    }

    /// The block with the others, for this place.
    pub(super) fn into_block(self, place: u64, seed: u32) -> Option<Vec<u8>> {
        let mut block = self.block?;
        debug_assert_eq!(block.len() as u64, BLOCK);
        let sum = csum::xattr_block(seed, place, &block);
        block[16..20].copy_from_slice(&sum.to_le_bytes());
        Some(block)
    }
}

fn attributes<'a>(inode: &'a Inode, entry: &[u8]) -> Result<Vec<Attribute<'a>>, Ext4Error> {
    let mut attributes = Vec::with_capacity(inode.xattrs.len());
    for (name, value) in &inode.xattrs {
        let mut value = std::borrow::Cow::Borrowed(value.as_slice());
        if acl::is_acl(name) {
            let may_have = match inode.node {
                Node::Directory(_) => true,
                Node::Symlink(_) => false,
                _ => name != acl::DEFAULT,
            };
            let list = acl::to_disk(name, &value).filter(|_| may_have);
            let list = list.ok_or_else(|| Ext4Error::BadAcl {
                entry: shown(entry),
            })?;
            let Some(list) = list.value else { continue };
            value = list.into();
        }
        let (prefix, rest) = prefix(name).ok_or_else(|| Ext4Error::Layout {
            reason: format!("ext4 has no attributes like `{name}`"),
        })?;
        attributes.push((prefix, rest.as_bytes(), value));
    }
    Ok(attributes)
}

/// What stands for the beginning of a name, and what follows it.
fn prefix(name: &str) -> Option<(u8, &str)> {
    match name {
        acl::ACCESS => Some((2, "")),
        acl::DEFAULT => Some((3, "")),
        _ => [("user.", 1), ("trusted.", 4), ("security.", 6)]
            .into_iter()
            .find_map(|(prefix, number)| Some((number, name.strip_prefix(prefix)?))),
    }
}

fn bytes((_, name, value): &Attribute<'_>) -> usize {
    ENTRY_BYTES + name.len().next_multiple_of(4) + value.len().next_multiple_of(4)
}

/// Entries from the beginning of `region`, values from its end; a block's region lies `in_block` bytes behind its
/// beginning, and its entries have hashes, which are returned.
fn render(region: &mut [u8], attributes: &[Attribute<'_>], in_block: Option<usize>) -> Vec<u32> {
    let (mut at, mut values) = (0, region.len());
    let mut hashes = Vec::with_capacity(attributes.len());
    for (prefix, name, value) in attributes {
        values -= value.len().next_multiple_of(4);
        region[values..values + value.len()].copy_from_slice(value);
        let hash = in_block.map_or(0, |_| csum::xattr_entry_hash(name, value));
        let offset = u16::try_from(in_block.unwrap_or(0) + values).expect("within a block");
        let len = u32::try_from(value.len()).expect("within a block");
        let entry = &mut region[at..at + ENTRY_BYTES + name.len()];
        entry[0] = u8::try_from(name.len()).expect("names are bounded");
        entry[1] = *prefix;
        entry[2..4].copy_from_slice(&offset.to_le_bytes());
        entry[8..12].copy_from_slice(&len.to_le_bytes());
        entry[12..16].copy_from_slice(&hash.to_le_bytes());
        entry[ENTRY_BYTES..].copy_from_slice(name);
        at += ENTRY_BYTES + name.len().next_multiple_of(4);
        hashes.push(hash);
    }
    hashes
}
