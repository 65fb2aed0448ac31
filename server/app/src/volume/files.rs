//! The files of volumes. They are made under a name that is swept, and appear by rename; a volume whose record
//! is not there is swept too.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
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

/// What a disk takes of the host's; 0 where it is not there.
pub(super) fn allocated_bytes(disk: &Path) -> u64 {
    // stat(2): in units of 512 bytes, whatever the file system has.
    disk.metadata().map_or(0, |found| found.blocks() * 512)
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

#[cfg(test)]
mod tests {
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
        assert!(allocated_bytes(&disk) < 1 << 20);
        assert!(!needs_recovery(&disk).unwrap());
        assert_eq!(allocated_bytes(Path::new("/nonexistent")), 0);
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
