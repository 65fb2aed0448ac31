//! The log of a VM's serial console: bounded on disk, with offsets that stay valid over rotation and restarts.
//!
//! ```text
//! <vm dir>/console/00000000000000000000.log     the older segment, complete
//!                  00000000000000524288.log     the newest, still written
//! ```
//!
//! A segment's name is the offset of its first byte since the VM was made, so that every state a crash can
//! leave is a valid log. At most two segments exist; each holds at most half of the bound. What is evicted
//! is gone: a reader that asks for it gets the oldest byte that is left, and its offset.
//!
//! The VMM writes to a socket, never to a file of its own, since nothing would bound that file. While no
//! daemon runs, the VMM drops what the guest writes; the next daemon marks the gap in the log. Nothing here
//! ever lets a guest block because the host's disk is full: then output is dropped too.

mod reader;
mod writer;

pub use reader::ConsoleLog;
pub(crate) use writer::{ConsoleWriter, pump};

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Below a VM's directory.
const DIR: &str = "console";

/// Digits of an offset in a segment's name, so that names sort as numbers do.
const DIGITS: usize = 20;

/// Makes the log's directory where the VM's is there.
fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The segments that are there, oldest first, each with its first offset.
fn segments(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(start) = start_of(&path) {
            segments.push((start, path));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

fn start_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".log")?;
    (digits.len() == DIGITS).then(|| digits.parse().ok())?
}

fn segment_name(start: u64) -> String {
    format!("{start:0DIGITS$}.log")
}

#[cfg(test)]
mod tests;
