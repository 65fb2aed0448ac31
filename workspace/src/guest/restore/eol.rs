//! Line ends of files that were there before.
//!
//! git takes a file for unchanged whose line ends are not those that it would write, where settings or attributes say that
//! it converts them. The sender's file is what git writes, or comes as an entry: so such files are written anew.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::command::Git;
use crate::guest::WorkError;
use crate::guest::look::records;
use crate::wire::IndexEntry;

/// Whether git may convert line ends of some file in a repository.
pub(super) fn may_convert(git: &Git, git_dir: &Path) -> Result<bool, WorkError> {
    let is_automatic = git.test(&[
        "config",
        "--local",
        "--get",
        "core.autocrlf",
        "^(true|input)$",
    ])?;
    if is_automatic || git_dir.join("info/attributes").exists() {
        return Ok(true);
    }
    let words = ["ls-files", "-z", "--", ":(glob)**/.gitattributes"];
    let mut has_attributes = false;
    records(git, &words, |_| {
        has_attributes = true;
        false
    })?;
    Ok(has_attributes)
}

/// Writes the files of the index anew whose line ends are not their objects', but for those in conflict, which come.
pub(super) fn write_anew(git: &Git, index: &[IndexEntry]) -> Result<(), WorkError> {
    let conflicts = index.iter().filter(|entry| entry.stage > 0);
    let conflicts: HashSet<&[u8]> = conflicts.map(|entry| &entry.path[..]).collect();
    let mut paths: Vec<Vec<u8>> = Vec::new();
    records(git, &["ls-files", "--eol", "-z"], |record| {
        if let Some(path) = differing(record)
            && !conflicts.contains(path)
        {
            paths.push(path.to_vec());
        }
        true
    })?;
    for path in &paths {
        let at = git.directory().join(OsStr::from_bytes(path));
        match fs::remove_file(&at) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(WorkError::file("removing", &at)(error));
            }
            _ => {}
        }
    }
    let feed = |to: &mut dyn Write| {
        let mut to = BufWriter::new(to);
        for path in &paths {
            to.write_all(path)?;
            to.write_all(b"\0")?;
        }
        to.flush()
    };
    let words = [
        "checkout-index",
        "--force",
        "--index",
        "--quiet",
        "-z",
        "--stdin",
    ];
    git.feed(&words, feed)?;
    Ok(())
}

/// The path of `i/lf w/crlf attr/… TAB path` where the first two are not alike and there is a file.
fn differing(record: &[u8]) -> Option<&[u8]> {
    let tab = record.iter().position(|&byte| byte == b'\t')?;
    let mut words = record[..tab].split(|&byte| byte == b' ');
    let index = words.next()?.strip_prefix(b"i/")?;
    let tree = words.find_map(|word| word.strip_prefix(b"w/"))?;
    (!tree.is_empty() && index != tree).then_some(&record[tab + 1..])
}
