//! A VMM's own words: `vmm.log` in the VM's directory, appended to over restarts.
//!
//! The VMM writes there itself, so the file survives the daemon. It is emptied when it is found larger than its
//! bound, at each launch and adoption; between those a VMM has a few lines to say in its life.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Below the VM's directory.
const NAME: &str = "vmm.log";

/// Found larger than this, the log starts afresh.
const MAX_BYTES: u64 = 256 * 1024;

/// The most of its end that an error carries.
const MAX_TAIL: u64 = 1000;

/// The log for a new process, and where its words will start.
pub(crate) fn open(dir: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(dir.join(NAME))?;
    bound(&file)?;
    let start = file.metadata()?.len();
    Ok((file, start))
}

/// Empties the log of a living process if it has grown too large. It appends, so its next word is the first.
pub(crate) fn trim(dir: &Path) -> io::Result<()> {
    bound(&OpenOptions::new().append(true).open(dir.join(NAME))?)
}

/// Where the words of a living process go on.
pub(crate) fn end(dir: &Path) -> u64 {
    dir.join(NAME)
        .metadata()
        .map_or(0, |metadata| metadata.len())
}

/// The end of what was said since `start`, in one line; empty where there is nothing.
pub(crate) fn tail(dir: &Path, start: u64) -> String {
    let words = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(dir.join(NAME))?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(end.saturating_sub(MAX_TAIL).max(start)))?;
        let mut bytes = Vec::new();
        file.take(MAX_TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // No words are no reason to fail: the caller reports something else.
    let bytes = words().unwrap_or_default();
    let text: String = String::from_utf8_lossy(&bytes)
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    text.trim().to_owned()
}

fn bound(file: &File) -> io::Result<()> {
    if file.metadata()?.len() > MAX_BYTES {
        file.set_len(0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_tail_is_one_bounded_line_of_this_process_only() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, start) = open(dir.path()).unwrap();
        assert_eq!((start, tail(dir.path(), start).as_str()), (0, ""));
        file.write_all(b"of the former\n").unwrap();
        let (mut file, start) = open(dir.path()).unwrap();
        file.write_all(b"qemu: no\x1b[0m\nsuch file\n").unwrap();
        assert_eq!(tail(dir.path(), start), "qemu: no [0m such file");
        file.write_all(&[b'x'; 5000]).unwrap();
        assert_eq!(tail(dir.path(), start).len(), 1000);
    }

    #[test]
    fn a_log_that_grew_too_large_starts_afresh() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = open(dir.path()).unwrap();
        file.write_all(&vec![b'x'; 300 * 1024]).unwrap();
        trim(dir.path()).unwrap();
        file.write_all(b"later").unwrap();
        assert_eq!(tail(dir.path(), 0), "later");
        assert_eq!(open(dir.path()).unwrap().1, 5);
    }

    #[test]
    fn a_missing_log_has_no_tail() {
        assert_eq!(tail(Path::new("/nonexistent"), 0), "");
    }
}
