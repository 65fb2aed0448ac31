//! The files of volumes. They are made under a name that is swept, and appear by rename; a volume whose record
//! is not there is swept too.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::error::VolumeError;
use crate::disk;

/// The name of a volume's disk in its directory.
pub(crate) const DISK: &str = "disk.ext4";

/// Where ext4 keeps its superblock, and in it its magic number and the word with `RECOVER`; see the kernel's
/// Documentation/filesystems/ext4/super.rst.
const SUPERBLOCK_AT: u64 = 1024;
const MAGIC_AT: usize = 0x38;
const MAGIC: [u8; 2] = [0x53, 0xef];
const INCOMPAT_AT: usize = 0x60;
const RECOVER: u8 = 0x4;
/// Blocks, by two words where the file system counts in 64 bits; and how large one is.
const BLOCKS_AT: usize = 0x4;
const BLOCKS_HIGH_AT: usize = 0x150;
const SIXTY_FOUR_BITS: u8 = 0x80;
const BLOCK_SIZE_AT: usize = 0x18;
/// The exponent of the smallest block, and of the largest there is.
const BLOCK_SIZE_MIN: u32 = 10;
const BLOCK_SIZE_MAX: u32 = 16;
/// Whether its kernel has seen errors in it.
const STATE_AT: usize = 0x3a;
const HAS_ERRORS: u8 = 0x2;

fn file(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::File { step, path, source }
}

/// Makes a volume's directory, which must not be there, with its disk: empty, or a copy of `seed`. `copied` is told
/// of each piece, and ends the copy by an error.
pub(super) fn make(
    dir: &Path,
    size_bytes: u64,
    seed: Option<&Path>,
    copied: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<(), VolumeError> {
    std::fs::create_dir(dir).map_err(file("make", dir))?;
    let disk = dir.join(DISK);
    match seed {
        None => banger_image::create_upper(&disk, size_bytes).map_err(VolumeError::Make)?,
        Some(seed) => {
            let from = File::open(seed).map_err(file("open", seed))?;
            disk::copy(&from, &disk, copied).map_err(file("copy the seed to", &disk))?;
        }
    }
    extend(&disk, size_bytes)?;
    sync(&disk)?;
    sync(dir)
}

/// Gives a finished directory its final name.
pub(super) fn publish(dir: &Path, to: &Path) -> Result<(), VolumeError> {
    std::fs::rename(dir, to).map_err(file("publish", to))?;
    to.parent().map_or(Ok(()), sync)
}

/// Makes a disk as large as it is to be; one that is larger stays so.
pub(super) fn extend(disk: &Path, size_bytes: u64) -> Result<(), VolumeError> {
    disk::extend(disk, size_bytes).map_err(file("extend", disk))
}

/// Makes what was written to a file, or to a directory's names, safe from a crash of the host.
pub(super) fn sync(path: &Path) -> Result<(), VolumeError> {
    let synced = File::open(path).and_then(|opened| opened.sync_all());
    synced.map_err(file("flush", path))
}

/// Whether a file system has a journal that must be written back before it can be read: its last writer was ended,
/// and did not unmount it. Two words are read of the disk and nothing is believed: a disk that lies is refused by the
/// guest that mounts it.
pub(super) fn needs_recovery(disk: &Path) -> Result<bool, VolumeError> {
    let mut superblock = [0; 1024];
    let opened = File::open(disk).map_err(file("open", disk))?;
    let read = opened.read_exact_at(&mut superblock, SUPERBLOCK_AT);
    read.map_err(file("read", disk))?;
    let is_ext4 = superblock[MAGIC_AT..MAGIC_AT + 2] == MAGIC;
    Ok(is_ext4 && superblock[INCOMPAT_AT] & RECOVER != 0)
}

/// Why a disk is not what a volume's should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    /// There is none.
    #[error("it is not there")]
    Missing,
    /// The host's file system does not give it.
    #[error("it cannot be read: {why}")]
    Unreadable {
        /// Why.
        why: io::ErrorKind,
    },
    /// No ext4.
    #[error("there is no file system on it")]
    NoFileSystem,
    /// It ends before its file system does.
    #[error("it has {has} bytes, and its file system {wants}")]
    Cut {
        /// Of the disk.
        has: u64,
        /// Of the file system.
        wants: u64,
    },
    /// A kernel that had it mounted has noted errors.
    #[error("its file system has errors")]
    Errors,
}

/// What is wrong with a volume's disk, as far as its superblock tells; it may be in use meanwhile. What it says comes
/// from a guest, and is compared with the disk's length and shown, no more.
pub(crate) fn damage(disk: &Path) -> Option<Damage> {
    look_at(disk).err()
}

fn look_at(disk: &Path) -> Result<(), Damage> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Damage::Missing,
        io::ErrorKind::UnexpectedEof => Damage::NoFileSystem,
        why => Damage::Unreadable { why },
    };
    let mut superblock = [0; 1024];
    let opened = File::open(disk).map_err(failed)?;
    let has = opened.metadata().map_err(failed)?.len();
    let read = opened.read_exact_at(&mut superblock, SUPERBLOCK_AT);
    read.map_err(failed)?;
    if superblock[MAGIC_AT..MAGIC_AT + 2] != MAGIC {
        return Err(Damage::NoFileSystem);
    }
    let word = |at: usize| {
        let bytes = superblock[at..at + 4].first_chunk();
        u32::from_le_bytes(*bytes.expect("four bytes"))
    };
    let high = match superblock[INCOMPAT_AT] & SIXTY_FOUR_BITS {
        0 => 0,
        _ => word(BLOCKS_HIGH_AT),
    };
    let blocks = u64::from(high) << 32 | u64::from(word(BLOCKS_AT));
    let exponent = BLOCK_SIZE_MIN.saturating_add(word(BLOCK_SIZE_AT));
    if exponent > BLOCK_SIZE_MAX {
        return Err(Damage::NoFileSystem);
    }
    let wants = blocks.saturating_mul(1 << exponent);
    if wants > has {
        return Err(Damage::Cut { has, wants });
    }
    match superblock[STATE_AT] & HAS_ERRORS {
        0 => Ok(()),
        _ => Err(Damage::Errors),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    const SIZE: u64 = 64 << 20;

    fn made(dir: &Path, name: &str, seed: Option<&Path>, size: u64) -> Result<(), VolumeError> {
        make(&dir.join(name), size, seed, &mut |_| Ok(()))
    }

    #[test]
    fn a_volume_is_an_ext4_that_takes_little() {
        let dir = tempfile::tempdir().unwrap();
        made(dir.path(), "a", None, SIZE).unwrap();
        let to = dir.path().join("final");
        publish(&dir.path().join("a"), &to).unwrap();
        let disk = to.join(DISK);
        assert_eq!(disk.metadata().unwrap().len(), SIZE);
        assert!(disk.metadata().unwrap().blocks() * 512 < 1 << 20);
        assert!(!needs_recovery(&disk).unwrap());
    }

    #[test]
    fn a_clone_has_its_seeds_content_and_may_be_larger() {
        let dir = tempfile::tempdir().unwrap();
        made(dir.path(), "a", None, SIZE).unwrap();
        let seed = dir.path().join("a").join(DISK);
        let before = std::fs::read(&seed).unwrap();
        made(dir.path(), "b", Some(&seed), 2 * SIZE).unwrap();
        let clone = std::fs::read(dir.path().join("b").join(DISK)).unwrap();
        assert_eq!(clone.len() as u64, 2 * SIZE);
        assert!(clone.starts_with(&before));
        assert!(
            made(dir.path(), "b", None, SIZE).is_err(),
            "what is there stays"
        );
    }

    #[test]
    fn what_is_wrong_with_a_disk_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("a").join(DISK);
        assert_eq!(damage(&disk), Some(Damage::Missing));
        made(dir.path(), "a", None, SIZE).unwrap();
        assert_eq!(damage(&disk), None);
        let opened = File::options().read(true).write(true).open(&disk).unwrap();
        let set = |at: usize, bytes: &[u8]| {
            opened
                .write_all_at(bytes, SUPERBLOCK_AT + at as u64)
                .unwrap();
        };
        opened.set_len(SIZE / 2).unwrap();
        let (has, wants) = (SIZE / 2, SIZE);
        assert_eq!(damage(&disk), Some(Damage::Cut { has, wants }));
        opened.set_len(SIZE).unwrap();
        set(STATE_AT, &[HAS_ERRORS]);
        assert_eq!(damage(&disk), Some(Damage::Errors));
        set(BLOCK_SIZE_AT, &[0xff; 4]);
        assert_eq!(damage(&disk), Some(Damage::NoFileSystem));
        opened.set_len(10).unwrap();
        assert_eq!(damage(&disk), Some(Damage::NoFileSystem));
    }

    #[test]
    fn a_journal_that_was_not_written_back_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        made(dir.path(), "a", None, SIZE).unwrap();
        let disk = dir.path().join("a").join(DISK);
        let opened = File::options().read(true).write(true).open(&disk).unwrap();
        let at = SUPERBLOCK_AT + INCOMPAT_AT as u64;
        let mut word = [0];
        opened.read_exact_at(&mut word, at).unwrap();
        opened.write_all_at(&[word[0] | RECOVER], at).unwrap();
        assert!(needs_recovery(&disk).unwrap());
        opened
            .write_all_at(&[0; 2], SUPERBLOCK_AT + MAGIC_AT as u64)
            .unwrap();
        assert!(
            !needs_recovery(&disk).unwrap(),
            "what is no ext4 says nothing"
        );
    }
}
