//! Files that came along though git ignores them: what is done to them is told as of any other.
//!
//! Their names are kept in git's directory of their repository, each with a zero byte behind it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;

use super::look::{ignored_of, small};
use super::{Place, WorkError, stage};
use crate::wire::path::is_beneath;
use crate::wire::{Entry, EntryKind};

/// The file of names.
const FILE: &str = "banger-included";

/// The names in a repository, in the directory of which this is git's; bounded.
pub(super) fn names(git_dir: &Path) -> Vec<Vec<u8>> {
    let listed = small(&git_dir.join(FILE));
    let names = listed.split_inclusive(|&byte| byte == 0);
    // One that was cut off has no end.
    let names = names.filter_map(|name| name.strip_suffix(b"\0"));
    names.map(<[u8]>::to_vec).collect()
}

/// Keeps the names of the files and links among `entries` that the repositories at `places` ignore.
pub(super) fn keep(staged: &Place, places: &[Bytes], entries: &[Entry]) -> Result<(), WorkError> {
    for place in places {
        let directory = match &place[..] {
            b"" => staged.path.clone(),
            place => staged.path.join(OsStr::from_bytes(place)),
        };
        let git_dir = directory.join(".git");
        if !git_dir.is_dir() {
            continue;
        }
        let file = git_dir.join(FILE);
        stage::remove(&file).map_err(WorkError::file("removing", &file))?;
        let deeper = |path: &[u8]| {
            let mut others = places.iter().filter(|other| other.len() > place.len());
            others.any(|other| is_beneath(other, place) && is_beneath(path, other))
        };
        let here = entries.iter().filter(|entry| {
            matches!(entry.kind(), EntryKind::File | EntryKind::Symlink)
                && is_beneath(&entry.path, place)
                && !deeper(&entry.path)
        });
        let skipped = if place.is_empty() { 0 } else { place.len() + 1 };
        let asked: Vec<&[u8]> = here.map(|entry| &entry.path[skipped..]).collect();
        if asked.is_empty() {
            continue;
        }
        let ignored = ignored_of(&staged.git(&directory), &asked)?;
        if !ignored.is_empty() {
            write(&file, &ignored).map_err(WorkError::file("writing", &file))?;
        }
    }
    Ok(())
}

fn write(file: &Path, names: &[Vec<u8>]) -> io::Result<()> {
    let mut to = BufWriter::new(fs::File::create_new(file)?);
    for name in names {
        to.write_all(name)?;
        to.write_all(b"\0")?;
    }
    to.flush()
}
