//! Whether a tree still is what it was: a number of all that is in it, without reading it.
//!
//! A sum over its entries, in whatever order they come: their paths, kinds, permissions, and of files which they are, how long,
//! and when they were written. What git keeps is not in it, which the look at a repository knows better. A tree with another
//! number may be the same to git (files that it ignores), and is looked at then.

use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

/// Directories within each other that are looked into: more than a path has room for.
const DEPTH_MAX: usize = 2048;

/// A sum over entries.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally(u64);

/// What is at a path, as a number.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct At(u64);

impl At {
    /// The path of an entry in the directory that is here.
    pub(super) fn entry(self, name: &CStr) -> Self {
        Self(hash(&(self.0, name)))
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

impl Tally {
    /// Adds an entry.
    pub(super) fn add(&mut self, at: At, stat: &Stat) {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        // A second name, here or elsewhere, changes nothing of this.
        let file = match is_directory {
            true => None,
            false => Some((stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec)),
        };
        self.0 = self.0.wrapping_add(hash(&(at.0, stat.st_mode, file)));
    }

    /// Of what is in a directory, as far as it can be read.
    pub(super) fn of(directory: &OwnedFd) -> rustix::io::Result<Self> {
        let mut tally = Self::default();
        tally.walk(directory, At::default(), DEPTH_MAX)?;
        Ok(tally)
    }

    fn walk(&mut self, directory: &OwnedFd, at: At, depth: usize) -> rustix::io::Result<()> {
        let mut entries = Dir::read_from(directory)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name();
            if is_passed(name) {
                continue;
            }
            let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            let at = at.entry(name);
            self.add(at, &stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && depth > 0 {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(inner) = openat(directory.as_fd(), name, flags, Mode::empty()) {
                    self.walk(&inner, at, depth - 1)?;
                }
            }
        }
        Ok(())
    }
}

/// What is no part of the sum: a directory itself, the one around it, and git's.
pub(super) fn is_passed(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b".." | b".git")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn of(path: &Path) -> Tally {
        Tally::of(&crate::beneath::open(path).unwrap()).unwrap()
    }

    #[test]
    fn what_is_done_to_a_tree_is_seen_and_a_second_name_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().join("top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::create_dir_all(top.join(".git")).unwrap();
        fs::write(top.join("a/b/file"), "one").unwrap();
        fs::write(top.join("other"), "two").unwrap();
        let first = of(&top);
        fs::hard_link(top.join("other"), scratch.path().join("second")).unwrap();
        fs::write(top.join(".git/HEAD"), "changed").unwrap();
        assert_eq!(of(&top), first);
        let mut seen = vec![first];
        let mut differs = |what: &str| {
            let now = of(&top);
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        fs::write(top.join("a/b/file"), "longer").unwrap();
        differs("a file that was written");
        fs::write(top.join("a/new"), "").unwrap();
        differs("a new file");
        fs::rename(top.join("a/new"), top.join("a/b/new")).unwrap();
        differs("a file that was moved");
        fs::rename(top.join("a"), top.join("c")).unwrap();
        differs("a directory that was renamed");
        fs::write(scratch.path().join("two"), "two").unwrap();
        fs::rename(scratch.path().join("two"), top.join("other")).unwrap();
        differs("a file that was replaced by one like it");
        fs::remove_file(top.join("c/b/file")).unwrap();
        differs("a file that was removed");
        std::os::unix::fs::symlink("other", top.join("link")).unwrap();
        differs("a new link");
    }
}
