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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use banger_proto::guest::v1::TreePiece;
    use banger_proto::guest::v1::tree_piece::Piece;
    use rustix::fs::{FileType, Mode, OFlags, XattrFlags, mknodat, setxattr};

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    /// Upper and base directories, in memory because not every file system takes `trusted.` attributes;
    /// none where this process may not make whiteouts.
    fn scratch(rule: &str) -> Option<tempfile::TempDir> {
        let dir = tempfile::tempdir_in("/dev/shm").ok()?;
        for name in ["upper", "base"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let able = setxattr(dir.path(), OPAQUE, b"n", XattrFlags::empty()).is_ok()
            && remove(dir.path(), "probe").is_ok();
        if !able {
            eprintln!("SKIPPED {rule}: only root may write whiteouts");
        }
        able.then_some(dir)
    }

    fn remove(dir: &Path, name: &str) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(0);
        mknodat(open(dir), name, FileType::CharacterDevice, mode, 0)
    }

    fn told(dir: &Path) -> Result<Vec<(String, Kind, bool)>, Refusal> {
        let mut found = Vec::new();
        let mut deliver = |piece: TreePiece| {
            if let Some(Piece::Entry(entry)) = piece.piece {
                let path = String::from_utf8(entry.path.to_vec()).unwrap();
                found.push((path, entry.kind(), entry.is_opaque));
            }
            true
        };
        changes(
            &open(&dir.join("upper")),
            &open(&dir.join("base")),
            &mut deliver,
        )?;
        Ok(found)
    }

    #[test]
    fn removals_and_opaque_directories_are_told_as_the_overlay_marks_them() {
        let Some(dir) = scratch("removals_and_opaque_directories_are_told") else {
            return;
        };
        let upper = dir.path().join("upper");
        fs::create_dir(upper.join("etc")).unwrap();
        setxattr(upper.join("etc"), OPAQUE, b"y", XattrFlags::empty()).unwrap();
        fs::write(upper.join("etc/b"), "x").unwrap();
        fs::hard_link(upper.join("etc/b"), upper.join("etc/c")).unwrap();
        remove(&upper, "gone").unwrap();
        assert_eq!(
            told(dir.path()).unwrap(),
            [
                ("etc".to_owned(), Kind::Directory, true),
                ("etc/b".to_owned(), Kind::File, false),
                ("etc/c".to_owned(), Kind::HardLink, false),
                ("gone".to_owned(), Kind::Removed, false),
            ]
        );
    }

    #[test]
    fn the_mount_points_that_the_agent_made_are_not_told() {
        let Some(dir) = scratch("the_mount_points_that_the_agent_made_are_not_told") else {
            return;
        };
        let upper = dir.path().join("upper");
        for name in ["dev", "proc", "sys", "run", "tmp"] {
            fs::create_dir(upper.join(name)).unwrap();
        }
        // One that the image has was changed, and one is not empty.
        fs::create_dir(dir.path().join("base/run")).unwrap();
        fs::set_permissions(upper.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(upper.join("tmp/x"), "").unwrap();
        let names: Vec<String> = told(dir.path())
            .unwrap()
            .into_iter()
            .map(|told| told.0)
            .collect();
        assert_eq!(names, ["run", "tmp", "tmp/x"]);
    }

    #[test]
    fn a_mark_that_needs_the_image_is_refused() {
        let Some(dir) = scratch("a_mark_that_needs_the_image_is_refused") else {
            return;
        };
        let moved = dir.path().join("upper/moved");
        fs::create_dir(&moved).unwrap();
        setxattr(&moved, MARKS[0], b"/old", XattrFlags::empty()).unwrap();
        let refusal = told(dir.path()).unwrap_err();
        assert!(refusal.to_string().contains("redirect"), "{refusal}");
    }
}
