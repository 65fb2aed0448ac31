//! References, HEAD and index at a glance, without git.
//!
//! git writes none of these files in place: each gets a new one's name. So the same files are the same references, HEAD and
//! index. Other ones may be too, as where an index was only brought up to date: then git is asked.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::repository::small;

/// Directories of references within each other that are looked into: more than a name has room for.
const DEPTH_MAX: usize = 512;

/// The digest of what was seen.
pub(super) fn at(git_dir: &Path) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(small(&git_dir.join("HEAD")));
    which(&git_dir.join("index"), &mut digest);
    let common = small(&git_dir.join("commondir"));
    let common = common.strip_suffix(b"\n").unwrap_or(&common);
    let common = git_dir.join(Path::new(std::ffi::OsStr::from_bytes(common)));
    for one in ["packed-refs", "reftable/tables.list"] {
        which(&common.join(one), &mut digest);
    }
    loose(common.join("refs"), &mut digest);
    if common != git_dir {
        loose(git_dir.join("refs"), &mut digest);
    }
    digest.finalize().into()
}

/// Which file it is.
fn which(path: &Path, digest: &mut Sha256) {
    let Ok(found) = fs::metadata(path) else {
        return digest.update(b"none");
    };
    for number in [found.dev(), found.ino(), found.size()] {
        digest.update(number.to_le_bytes());
    }
    for time in [
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ] {
        digest.update(time.to_le_bytes());
    }
}

/// References in files of their own: their names and what they say.
fn loose(top: PathBuf, digest: &mut Sha256) {
    let mut ahead = vec![(top, 0)];
    while let Some((directory, depth)) = ahead.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let mut entries: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        entries.sort_unstable();
        for path in entries {
            digest.update(path.as_os_str().as_bytes());
            match path.is_dir() {
                true if depth < DEPTH_MAX => ahead.push((path, depth + 1)),
                true => {}
                false => digest.update(small(&path)),
            }
            digest.update([0]);
        }
    }
}
