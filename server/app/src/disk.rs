//! Files of disks: copied without their holes, sharing their blocks where the file system can; and made larger.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

/// Between two looks at whether the copy is still wanted.
const COPY_BYTES: u64 = 64 << 20;
/// What is read at once where the kernel cannot copy by itself.
const PIECE_BYTES: usize = 1 << 20;

/// Copies a disk to `to`, which must not be there. `copied` is told of each piece, and ends the copy by an error.
///
/// # Errors
/// Of the files, or what `copied` says. What is at `to` then is of no use.
pub(crate) fn copy(
    from: &File,
    to: &Path,
    copied: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    let to = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    if ioctl_ficlone(&to, from).is_ok() {
        return Ok(());
    }
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut at = 0;
    while at < length {
        let begin = match seek(from, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(from, SeekFrom::Hole(begin))?;
        copy_range(from, &to, begin, end, copied)?;
        at = end;
    }
    Ok(())
}

/// Makes a disk as large as it is to be, and safe from a crash of the host; one that is larger stays so.
///
/// # Errors
/// Of the file.
pub(crate) fn extend(disk: &Path, size_bytes: u64) -> io::Result<()> {
    let opened = File::options().write(true).open(disk)?;
    if opened.metadata()?.len() >= size_bytes {
        return Ok(());
    }
    opened.set_len(size_bytes)?;
    opened.sync_all()
}

fn copy_range(
    from: &File,
    to: &File,
    begin: u64,
    end: u64,
    copied: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    let (mut read_at, mut write_at) = (begin, begin);
    while read_at < end {
        let want = usize::try_from((end - read_at).min(COPY_BYTES)).map_err(io::Error::other)?;
        match copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), want) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => copied(bytes as u64)?,
            // Not every pair of file systems can.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_bytes(from, to, read_at, end, copied);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_bytes(
    from: &File,
    to: &File,
    begin: u64,
    end: u64,
    copied: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = begin;
    while at < end {
        let want = usize::try_from(end - at)
            .unwrap_or(PIECE_BYTES)
            .min(PIECE_BYTES);
        from.read_exact_at(&mut piece[..want], at)?;
        to.write_all_at(&piece[..want], at)?;
        at += want as u64;
        copied(want as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// 1 MiB at each end of 64 MiB of nothing.
    fn sparse(path: &Path) -> File {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
        file.write_all_at(&vec![2; 1 << 20], 63 << 20).unwrap();
        file
    }

    #[test]
    fn a_copy_is_as_sparse_as_what_it_was_made_of() {
        let dir = tempfile::tempdir().unwrap();
        let from = sparse(&dir.path().join("from"));
        let to = dir.path().join("to");
        let mut bytes = 0;
        copy(&from, &to, &mut |more| {
            bytes += more;
            Ok(())
        })
        .unwrap();
        // Nothing is told where the blocks are shared.
        assert!(bytes == 0 || bytes == 2 << 20, "{bytes}");
        let content = std::fs::read(&to).unwrap();
        assert_eq!(
            (content.len(), content[0], content[64 << 20 >> 1]),
            (64 << 20, 1, 0)
        );
        assert_eq!(content[(64 << 20) - 1], 2);
        assert!(to.metadata().unwrap().blocks() * 512 < 4 << 20);
        assert!(
            copy(&from, &to, &mut |_| Ok(())).is_err(),
            "what is there stays"
        );
    }

    #[test]
    fn a_disk_only_grows() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        File::create_new(&disk).unwrap().set_len(7).unwrap();
        for (wanted, has) in [(3, 7), (9, 9)] {
            extend(&disk, wanted).unwrap();
            assert_eq!(disk.metadata().unwrap().len(), has);
        }
        assert!(extend(&dir.path().join("missing"), 1).is_err());
    }

    #[test]
    fn a_copy_that_is_not_wanted_any_more_ends() {
        let dir = tempfile::tempdir().unwrap();
        let from = sparse(&dir.path().join("from"));
        let to = File::create_new(dir.path().join("to")).unwrap();
        let mut pieces = 0;
        let ended = copy_bytes(&from, &to, 0, 64 << 20, &mut |_| {
            pieces += 1;
            Err(io::ErrorKind::Interrupted.into())
        });
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(pieces, 1);
    }
}
