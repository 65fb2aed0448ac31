//! What was changed since the image: the upper directory of the overlay, read as the overlay writes it.
//!
//! A character device 0/0 stands for a removal, and `trusted.overlay.opaque` for a directory that hides the
//! image's (kernel documentation, "Overlay Filesystem"). A directory that was renamed by a mark instead of
//! a copy cannot be told without the image: build guests mount without such marks.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use banger_proto::guest::v1::tree_entry::Kind;
use rustix::fd::OwnedFd;
use rustix::fs::AtFlags;

use super::read::{Read, through, xattr};
use super::walk::{Deliver, Verdict, Walker, is_empty, settle};
use crate::refusal::Refusal;

/// Directories that the agent makes where an image has none: mount points and `/tmp`.
const OWN: [&[u8]; 5] = [b"dev", b"proc", b"run", b"sys", b"tmp"];
const OPAQUE: &str = "trusted.overlay.opaque";
/// Marks that mean something only together with the image.
const MARKS: [&str; 2] = ["trusted.overlay.redirect", "trusted.overlay.metacopy"];

/// Hands out what `upper` changes of `base`.
///
/// # Errors
/// What cannot be read, or is told by a mark alone.
pub fn changes(upper: &OwnedFd, base: &OwnedFd, deliver: Deliver<'_>) -> Result<(), Refusal> {
    let judge = |parent: &OwnedFd, name: &[u8], read: &mut Read| judge(base, parent, name, read);
    settle(Walker::new(deliver, &judge).children(upper, b""))
}

/// Hands out everything that is in `root`, without what is mounted there.
///
/// # Errors
/// What cannot be read.
pub fn everything(root: &OwnedFd, deliver: Deliver<'_>) -> Result<(), Refusal> {
    let device = rustix::fs::fstat(root)
        .map_err(|error| super::failed("reading", b"/", error))?
        .st_dev;
    let judge = |_: &OwnedFd, _: &[u8], read: &mut Read| {
        let is_mount = read.entry.kind() == Kind::Directory && read.stat.st_dev != device;
        Ok(if is_mount {
            Verdict::TakeAlone
        } else {
            Verdict::Take
        })
    };
    settle(Walker::new(deliver, &judge).children(root, b""))
}

fn judge(
    base: &OwnedFd,
    parent: &OwnedFd,
    name: &[u8],
    read: &mut Read,
) -> Result<Verdict, Refusal> {
    let path = read.entry.path.clone();
    match read.entry.kind() {
        Kind::CharDevice if (read.entry.major, read.entry.minor) == (0, 0) => {
            read.entry.kind = Kind::Removed.into();
        }
        Kind::Directory => {
            if OWN.contains(&&*path) && !has(base, &path) && is_empty(parent, name, &path)? {
                return Ok(Verdict::Skip);
            }
            let node = through(parent, name);
            read.entry.is_opaque =
                xattr(&node, OPAQUE, &path)?.is_some_and(|value| &*value == b"y");
            refuse_marks(&node, &path)?;
        }
        Kind::File => refuse_marks(&through(parent, name), &path)?,
        _ => {}
    }
    Ok(Verdict::Take)
}

fn refuse_marks(node: &std::path::Path, path: &[u8]) -> Result<(), Refusal> {
    for mark in MARKS {
        if xattr(node, mark, path)?.is_some() {
            return Err(Refusal::File {
                path: String::from_utf8_lossy(path).into_owned(),
                detail: format!("the overlay tells of it only by `{mark}`"),
            });
        }
    }
    Ok(())
}

fn has(base: &OwnedFd, path: &[u8]) -> bool {
    rustix::fs::statat(base, OsStr::from_bytes(path), AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
