//! git's index as a file: copied, and told the new times of files that got a second name.
//!
//! git takes a file for unchanged whose times, size and inode are those in the index, and reads it otherwise. A second name
//! changes the file's time of change and nothing else; without this, every look at a tree that was made from another one
//! would read all of it.
//!
//! The format is gitformat-index(5), versions 2 to 4. Anything else is left as it is: git then reads the files.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::Stat;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::wire::ObjectFormat;

const SIGNATURE: &[u8; 4] = b"DIRC";
/// Signature, version, count of entries.
const HEADER_BYTES: usize = 12;
/// Of an entry before the object's id: times, device, inode, mode, user, group, size.
const STAT_BYTES: usize = 40;
/// Where in an entry its inode is.
const INODE_AT: usize = 20;
/// The flag of an entry with two bytes more of flags.
const EXTENDED: u16 = 0x4000;
/// The part of the flags that is the length of the name, or this if it is longer.
const NAME_LENGTH: u16 = 0x0fff;
/// A larger one is left as it is.
const BYTES_MAX: u64 = 1 << 30;

/// A time as the index has it: seconds and nanoseconds, of each the lower half.
type Time = [u8; 8];

/// Files that got a second name: by their inodes, as the index has them, when they were changed before and after.
#[derive(Debug, Default)]
pub(super) struct Relinked(HashMap<u32, (Time, Time)>);

impl Relinked {
    /// Takes note of a file, as it was before and after.
    pub(super) fn insert(&mut self, before: &Stat, after: &Stat) {
        self.0
            .insert(lower(before.st_ino), (changed(before), changed(after)));
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the index has the lower half"
)]
const fn lower(number: u64) -> u32 {
    number as u32
}

fn changed(stat: &Stat) -> Time {
    let seconds = lower(stat.st_ctime.cast_unsigned()).to_be_bytes();
    let nanos = lower(stat.st_ctime_nsec).to_be_bytes();
    let mut time = Time::default();
    time[..4].copy_from_slice(&seconds);
    time[4..].copy_from_slice(&nanos);
    time
}

/// Copies an index with its time: git looks again at files that were changed when the index was written or later.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let modified = fs::symlink_metadata(from)?.modified()?;
    fs::copy(from, to)?;
    File::options()
        .write(true)
        .open(to)?
        .set_times(FileTimes::new().set_modified(modified))
}

/// Tells an index of the files that got a second name. An entry that was not up to date stays so. `written` is when the
/// index was written that it is a copy of.
pub(super) fn retime(
    index: &Path,
    format: ObjectFormat,
    relinked: &Relinked,
    written: std::time::SystemTime,
) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(index) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= BYTES_MAX => metadata,
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut bytes = fs::read(index)?;
    if retimed(&mut bytes, format, relinked).is_none() {
        return Ok(());
    }
    let fresh = index.with_extension("banger");
    let mut file = File::create(&fresh)?;
    file.set_permissions(metadata.permissions())?;
    file.write_all(&bytes)?;
    file.set_times(FileTimes::new().set_modified(written))?;
    fs::rename(&fresh, index)
}

/// Changes the times of the entries, and the digest at the end; none where the format is another.
fn retimed(bytes: &mut [u8], format: ObjectFormat, relinked: &Relinked) -> Option<()> {
    let id_bytes = match format {
        ObjectFormat::Sha256 => 32,
        ObjectFormat::Sha1 | ObjectFormat::Unspecified => 20,
    };
    let end = bytes.len().checked_sub(id_bytes)?;
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let (version, count) = (word(bytes, 4)?, word(bytes, 8)?);
    if !bytes.starts_with(SIGNATURE) || !(2..=4).contains(&version) {
        return None;
    }
    let mut at = HEADER_BYTES;
    for _ in 0..count {
        let entry = at;
        let inode = word(bytes, entry + INODE_AT)?;
        if let Some((before, after)) = relinked.0.get(&inode)
            && bytes.get(entry..entry + before.len())? == before
        {
            bytes[entry..entry + after.len()].copy_from_slice(after);
        }
        let flags_at = entry + STAT_BYTES + id_bytes;
        let flags = u16::from_be_bytes(bytes.get(flags_at..flags_at + 2)?.try_into().ok()?);
        let extended = usize::from(version > 2 && flags & EXTENDED != 0);
        let name_at = flags_at + 2 + 2 * extended;
        at = match version {
            // A number whose last byte has no highest bit, then the rest of the name, then a zero.
            4 => after_zero(bytes, number_end(bytes, name_at)?, end)?,
            _ => {
                let name_end = match flags & NAME_LENGTH {
                    NAME_LENGTH => after_zero(bytes, name_at, end)? - 1,
                    length => name_at + usize::from(length),
                };
                // One to eight zeros, so that the entry's length is a multiple of eight.
                entry + (name_end - entry + 8) / 8 * 8
            }
        };
        if at > end {
            return None;
        }
    }
    let (content, digest) = bytes.split_at_mut(end);
    match id_bytes {
        32 => digest.copy_from_slice(&Sha256::digest(content)),
        _ => digest.copy_from_slice(&Sha1::digest(content)),
    }
    Some(())
}

fn number_end(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..)?.iter().position(|byte| byte & 0x80 == 0)?;
    Some(at + length + 1)
}

fn after_zero(bytes: &[u8], at: usize, end: usize) -> Option<usize> {
    let length = bytes.get(at..end)?.iter().position(|&byte| byte == 0)?;
    Some(at + length + 1)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::fs::{AtFlags, CWD, linkat, lstat};
    use tempfile::TempDir;

    use super::*;

    fn git(tree: &Path, words: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(tree)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(["-c", "core.trustctime=true"])
            .args(words)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A repository, and a tree beside it whose files are second names of its files; the index there is a copy.
    fn twins(format: &str, prepare: impl Fn(&Path)) -> (TempDir, Relinked) {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        let format = format!("--object-format={format}");
        git(&from, &["init", "-q", &format]);
        for name in ["a", "ab", "b", "changed", "name with spaces"] {
            fs::write(from.join(name), name).unwrap();
        }
        git(&from, &["add", "-A"]);
        prepare(&from);
        let copied = Command::new("cp").arg("-a").arg(&from).arg(&to).status();
        assert!(copied.unwrap().success());
        // Many a git looks at the seconds alone.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let mut relinked = Relinked::default();
        for entry in fs::read_dir(&from).unwrap() {
            let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
            if path.is_file() {
                let before = lstat(&path).unwrap();
                fs::remove_file(to.join(&name)).unwrap();
                linkat(CWD, &path, CWD, to.join(&name), AtFlags::empty()).unwrap();
                relinked.insert(&before, &lstat(to.join(&name)).unwrap());
            }
        }
        (dir, relinked)
    }

    /// What git takes for changed without having read a file.
    fn changed(tree: &Path) -> Vec<String> {
        let told = git(tree, &["diff-files", "--name-only"]);
        told.lines().map(str::to_owned).collect()
    }

    #[test]
    fn files_with_a_second_name_are_up_to_date_and_changed_ones_are_not() {
        let long = "long/".repeat(1000);
        for (format, version, of) in [
            ("sha1", "2", ObjectFormat::Sha1),
            ("sha1", "3", ObjectFormat::Sha1),
            ("sha1", "4", ObjectFormat::Sha1),
            ("sha256", "2", ObjectFormat::Sha256),
            ("sha256", "4", ObjectFormat::Sha256),
        ] {
            let (dir, relinked) = twins(format, |tree| {
                let empty = git(tree, &["hash-object", "-w", "-t", "blob", "/dev/null"]);
                let entry = format!("100644,{},{long}x", empty.trim());
                git(tree, &["update-index", "--add", "--cacheinfo", &entry]);
                git(
                    tree,
                    &["update-index", "--skip-worktree", &format!("{long}x")],
                );
                match version {
                    "3" => {}
                    other => drop(git(tree, &["update-index", "--index-version", other])),
                }
                fs::write(tree.join("changed"), "CHANGED").unwrap();
            });
            let tree = dir.path().join("to");
            let index = tree.join(".git/index");
            assert_eq!(changed(&tree).len(), 5, "{format} {version}");
            let written = fs::metadata(&index).unwrap().modified().unwrap();
            retime(&index, of, &relinked, written).unwrap();
            assert_eq!(changed(&tree), ["changed"], "{format} {version}");
            assert_eq!(fs::metadata(&index).unwrap().modified().unwrap(), written);
            git(&tree, &["fsck"]);
            assert_eq!(git(&tree, &["status", "--porcelain", "b"]), "A  b\n");
        }
    }

    #[test]
    fn what_is_no_such_index_is_left_as_it_is() {
        let (dir, relinked) = twins("sha1", |_| {});
        let index = dir.path().join("to/.git/index");
        let whole = fs::read(&index).unwrap();
        let now = std::time::SystemTime::now();
        let mut other = whole.clone();
        other[7] = 5;
        let mut many = whole.clone();
        many[8] = 0x7f;
        for bytes in [
            &whole[..40],
            &whole[..whole.len() - 60],
            &other,
            &many,
            b"",
            b"DIRC",
        ] {
            fs::write(&index, bytes).unwrap();
            retime(&index, ObjectFormat::Sha1, &relinked, now).unwrap();
            assert_eq!(fs::read(&index).unwrap(), bytes);
        }
        fs::remove_file(&index).unwrap();
        retime(&index, ObjectFormat::Sha1, &relinked, now).unwrap();
        assert!(!index.exists());
    }

    #[test]
    fn a_copy_has_the_time_of_what_it_is_a_copy_of() {
        let (dir, _) = twins("sha1", |_| {});
        let (from, to) = (dir.path().join("from/.git/index"), dir.path().join("copy"));
        let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 << 30);
        let times = FileTimes::new().set_modified(long_ago);
        File::options()
            .write(true)
            .open(&from)
            .unwrap()
            .set_times(times)
            .unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), long_ago);
        assert_eq!(fs::read(&to).unwrap(), fs::read(&from).unwrap());
    }
}
