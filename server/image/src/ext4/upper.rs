//! The upper disk: an empty, journalled, sparse ext4 of any size, made in a few milliseconds.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mkext4::{FsBuilder, Options};

use super::error::Ext4Error;
use super::sink::HoleySink;

/// The smallest upper disk: below it the journal would leave no room.
pub(super) const UPPER_BYTES_MIN: u64 = 16 << 20;
/// The largest: 2³² blocks of 4 KiB, less one group.
pub(super) const UPPER_BYTES_MAX: u64 = (16 << 40) - (128 << 20);

/// Creates the disk `path` of `size_bytes`, readable by the owner alone. The file takes a few hundred KiB
/// until the guest writes.
///
/// Its file system id is that of the path's text, so disks of different VMs differ. Blocks for a few
/// milliseconds.
///
/// # Errors
/// A size outside the limits, a path that exists, a full disk. Nothing is left at `path` on failure,
/// except what was there before.
pub fn create_upper(path: &Path, size_bytes: u64) -> Result<(), Ext4Error> {
    if !(UPPER_BYTES_MIN..=UPPER_BYTES_MAX).contains(&size_bytes)
        || !size_bytes.is_multiple_of(4096)
    {
        return Err(Ext4Error::BadSize { size_bytes });
    }
    let create = |source| Ext4Error::Create {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(create)?;
    let result = format(&file, path, size_bytes);
    if result.is_err() {
        let _ = std::fs::remove_file(path); // the error that matters is the one above
    }
    result
}

fn format(file: &File, path: &Path, size_bytes: u64) -> Result<(), Ext4Error> {
    let digest = banger_core::Digest::of(path.as_os_str().as_encoded_bytes());
    let uuid = super::base_uuid(digest);
    let layout = FsBuilder::new(Options::new(size_bytes, uuid, 0))
        .and_then(FsBuilder::seal)
        .map_err(Ext4Error::from_writer)?;
    file.set_len(size_bytes).map_err(Ext4Error::Write)?;
    let mut sink = HoleySink::new(file);
    layout
        .writer(&mut sink)
        .and_then(mkext4::build::ImageWriter::finish)
        .map_err(Ext4Error::from_writer)?;
    sink.flush().map_err(Ext4Error::Write)
}
