//! Walks a tree, in the order of the names' bytes, and hands out its entries with their contents.

use std::collections::{BinaryHeap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::{Bound, RangeBounds};
use std::os::unix::ffi::OsStrExt;

use banger_proto::guest::v1::omission::Reason;
use banger_proto::guest::v1::tree_entry::Kind;
use banger_proto::guest::v1::tree_piece::Piece;
use banger_proto::guest::v1::{Omission, Omissions, PathKind, TreePiece};
use bytes::Bytes;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;

use super::read::{Read, read};
use super::{PATH_MAX_BYTES, PIECE_BYTES, Root, failed, holes, names};
use crate::refusal::{Problem, Refusal};

/// Names in one directory: beyond it no image of ours can hold them either.
const NAMES_MAX: usize = 1 << 20;
/// Directories in each other: each is a descriptor and a part of the stack.
const DEPTH_MAX: usize = 256;
/// Omissions that are told one by one, which the host has as its bound too.
const OMISSIONS_TOLD: usize = 64;

/// Where pieces go; false when nobody wants more.
pub type Deliver<'a> = &'a mut dyn FnMut(TreePiece) -> bool;

/// What becomes of an entry.
pub(super) enum Verdict {
    /// It is handed out, and entered if it is a directory.
    Take,
    /// It is handed out, and not entered.
    TakeAlone,
    /// As if it were not there.
    Skip,
}

/// Judges an entry by its directory, its name and what was read of it, and may change it.
pub(super) type Judge<'a> = &'a dyn Fn(&OwnedFd, &[u8], &mut Read) -> Result<Verdict, Refusal>;

/// Whoever walked has gone: no failure.
pub(super) enum End {
    Gone,
    Failed(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(refusal)
    }
}

pub(super) struct Walker<'a> {
    pub(super) deliver: Deliver<'a>,
    pub(super) judge: Judge<'a>,
    /// Whether files with holes are told as such.
    pub(super) holes: Holes,
    /// Whether the tree is in use: what goes meanwhile is left out, and what becomes shorter is filled with zeros, as tar(1)
    /// does.
    pub(super) is_in_use: bool,
    /// What was not handed out, or not as it is.
    omissions: Omissions,
    /// The first path of each file that has several names.
    links: HashMap<(u64, u64), Bytes>,
}

/// How files with holes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holes {
    /// By where there is data.
    Told,
    /// As zeros.
    Filled,
}

fn too_deep(path: &[u8]) -> Refusal {
    Refusal::Path {
        problem: Problem::TooDeep,
        path: String::from_utf8_lossy(path).into_owned(),
        detail: format!("more than {DEPTH_MAX} directories in each other"),
    }
}

impl<'a> Walker<'a> {
    pub(super) fn new(deliver: Deliver<'a>, judge: Judge<'a>) -> Self {
        Self {
            deliver,
            judge,
            holes: Holes::Filled,
            is_in_use: false,
            omissions: Omissions::default(),
            links: HashMap::new(),
        }
    }

    fn hand(&mut self, piece: Piece) -> Result<(), End> {
        let wanted = (self.deliver)(TreePiece { piece: Some(piece) });
        if wanted { Ok(()) } else { Err(End::Gone) }
    }

    fn omit(&mut self, path: &[u8], reason: Reason) {
        self.omissions.count += 1;
        if self.omissions.first.len() < OMISSIONS_TOLD {
            self.omissions.first.push(Omission {
                path: Bytes::copy_from_slice(path),
                reason: reason.into(),
            });
        }
    }

    /// Hands out an entry as it was read.
    fn hand_entry(&mut self, read: Read) -> Result<(), End> {
        if read.drops_xattrs {
            self.omit(&read.entry.path, Reason::Attributes);
        }
        self.hand(Piece::Entry(read.entry))
    }

    /// Hands out all that is in `directory`, whose own path is `path`.
    pub(super) fn children(&mut self, directory: &OwnedFd, path: &[u8]) -> Result<(), End> {
        for name in list(directory, path)? {
            let path = match path {
                b"" => name.clone(),
                path => [path, &name].join(&b'/'),
            };
            if path.len() > PATH_MAX_BYTES {
                return Err(failed("reading", &path, Errno::NAMETOOLONG).into());
            }
            match self.one(directory, &name, &path) {
                Err(End::Failed(refusal)) if self.is_in_use && has_gone(&refusal) => {
                    self.omit(&path, Reason::Vanished);
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Hands out one entry and what is beneath it; nothing of what has gone meanwhile.
    pub(super) fn one(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), End> {
        let mut read = read(parent, name, path)?;
        let verdict = (self.judge)(parent, name, &mut read)?;
        if matches!(verdict, Verdict::Skip) {
            return Ok(());
        }
        match read.entry.kind() {
            Kind::Directory if matches!(verdict, Verdict::Take) => {
                if path.iter().filter(|byte| **byte == b'/').count() >= DEPTH_MAX {
                    return Err(too_deep(path).into());
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let directory = open(parent, name, path, flags)?;
                self.hand_entry(read)?;
                self.children(&directory, path)
            }
            Kind::Directory => {
                self.omit(path, Reason::MountPoint);
                self.hand_entry(read)
            }
            Kind::Unspecified => {
                self.omit(path, Reason::Socket);
                Ok(())
            }
            _ if self.links_to_another(&mut read) => self.hand(Piece::Entry(read.entry)),
            Kind::File => match open(parent, name, path, OFlags::RDONLY) {
                Ok(file) => self.file(&File::from(file), path, read),
                Err(refusal) => {
                    // Another name of it may be there.
                    self.links.remove(&(read.stat.st_dev, read.stat.st_ino));
                    Err(refusal.into())
                }
            },
            _ => self.hand(Piece::Entry(read.entry)),
        }
    }

    /// Turns a name of a file that came before into a link.
    fn links_to_another(&mut self, read: &mut Read) -> bool {
        if read.stat.st_nlink < 2 || read.entry.kind() == Kind::Removed {
            return false;
        }
        let key = (read.stat.st_dev, read.stat.st_ino);
        if let Some(first) = self.links.get(&key) {
            read.entry.link = first.clone();
            read.entry.kind = Kind::HardLink.into();
            read.entry.size = 0;
            return true;
        }
        self.links.insert(key, read.entry.path.clone());
        false
    }

    fn file(&mut self, file: &File, path: &[u8], read: Read) -> Result<(), End> {
        let size = u64::try_from(read.entry.size).unwrap_or_default();
        self.content(file, path, read, size)?;
        let is_shorter = file.metadata().is_ok_and(|now| now.len() < size);
        if self.is_in_use && is_shorter {
            self.omit(path, Reason::Shrank);
        }
        Ok(())
    }

    fn content(
        &mut self,
        mut file: &File,
        path: &[u8],
        mut read: Read,
        size: u64,
    ) -> Result<(), End> {
        let ranges = match self.holes {
            Holes::Told => holes::ranges(file, size),
            Holes::Filled => None,
        };
        let Some(ranges) = ranges else {
            self.hand_entry(read)?;
            return self.range(file, path, size);
        };
        read.entry.is_sparse = true;
        read.entry.ranges.clone_from(&ranges);
        self.hand_entry(read)?;
        for range in ranges {
            let (offset, length) = (range.offset.unsigned_abs(), range.length.unsigned_abs());
            file.seek(SeekFrom::Start(offset))
                .map_err(|error| failed("seeking", path, error))?;
            self.range(file, path, length)?;
        }
        Ok(())
    }

    /// Hands out the next `left` bytes of a file.
    fn range(&mut self, file: &File, path: &[u8], mut left: u64) -> Result<(), End> {
        while left > 0 {
            let want = usize::try_from(left)
                .unwrap_or(PIECE_BYTES)
                .min(PIECE_BYTES);
            let mut piece = Vec::with_capacity(want);
            let taken = file.take(want as u64).read_to_end(&mut piece);
            taken.map_err(|error| failed("reading", path, error))?;
            // It became shorter while it was read.
            if piece.is_empty() && self.is_in_use {
                piece.resize(want, 0);
            } else if piece.is_empty() {
                return Err(failed("reading", path, Errno::STALE).into());
            }
            left -= piece.len() as u64;
            self.hand(Piece::Data(piece.into()))?;
        }
        Ok(())
    }
}

/// Whether what was to be read is not there.
fn has_gone(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Path {
            problem: Problem::NotFound,
            ..
        }
    )
}

/// Opens `name` in `parent`, called `path`; no link is followed, and no pipe waited for.
pub(crate) fn open(
    parent: &OwnedFd,
    name: &[u8],
    path: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Refusal> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::empty();
    rustix::fs::openat(parent, OsStr::from_bytes(name), flags, mode)
        .map_err(|error| failed("opening", path, error))
}

/// The names in a directory, sorted.
pub(crate) fn list(directory: &OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let mut found = Vec::new();
    each_name(directory, path, |name| found.push(name.to_vec()))?;
    found.sort_unstable();
    Ok(found)
}

/// The first `most` names of a directory from the bound on, in order.
pub(crate) fn list_from(
    directory: &OwnedFd,
    path: &[u8],
    from: Bound<&[u8]>,
    most: usize,
) -> Result<Vec<Vec<u8>>, Refusal> {
    let range = (from, Bound::Unbounded);
    // The greatest is on top, to give way to a smaller one.
    let mut found: BinaryHeap<Vec<u8>> = BinaryHeap::new();
    each_name(directory, path, |name| {
        if !RangeBounds::<[u8]>::contains(&range, name) {
            return;
        }
        if found.len() < most {
            found.push(name.to_vec());
        } else if let Some(mut greatest) = found.peek_mut().filter(|greatest| name < &greatest[..])
        {
            *greatest = name.to_vec();
        }
    })?;
    Ok(found.into_sorted_vec())
}

fn each_name(directory: &OwnedFd, path: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Refusal> {
    let entries = Dir::read_from(directory).map_err(|error| failed("reading", path, error))?;
    let mut count = 0;
    for entry in entries {
        let entry = entry.map_err(|error| failed("reading", path, error))?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        count += 1;
        if count > NAMES_MAX {
            return Err(failed("reading", path, Errno::OVERFLOW));
        }
        each(name);
    }
    Ok(())
}

/// Whether a directory is empty.
pub(super) fn is_empty(parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<bool, Refusal> {
    let directory = open(parent, name, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    Ok(list(&directory, path)?.is_empty())
}

/// The names in the directory at `path`, and what the path is.
///
/// # Errors
/// A path that is malformed or cannot be read.
pub fn list_directory(root: &Root, path: &[u8]) -> Result<(Vec<Vec<u8>>, PathKind), Refusal> {
    let inside = names(path)?.join(&b'/');
    match root.at(&inside, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(directory) => Ok((list(&directory, path)?, PathKind::Directory)),
        Err(Errno::NOTDIR) => match root.at(&inside, OFlags::PATH) {
            Ok(_) => Ok((Vec::new(), PathKind::Other)),
            // Something on the way is no directory.
            Err(_) => Ok((Vec::new(), PathKind::Unspecified)),
        },
        Err(Errno::NOENT) => Ok((Vec::new(), PathKind::Unspecified)),
        Err(error) => Err(failed("opening", path, error)),
    }
}

/// Hands out what is at `path`, its last link followed, with all that is beneath it on the same file system, as far as it is
/// there when its turn comes; tells what was omitted.
///
/// # Errors
/// A path that is malformed, does not exist or cannot be read.
pub fn get_tree(
    root: &Root,
    path: &[u8],
    holes: Holes,
    deliver: Deliver<'_>,
) -> Result<Omissions, Refusal> {
    let inside = names(path)?.join(&b'/');
    let found = root
        .at(&inside, OFlags::PATH)
        .map_err(|error| failed("opening", path, error))?;
    let stat = rustix::fs::fstat(&found).map_err(|error| failed("reading", path, error))?;
    let device = stat.st_dev;
    let judge = |_: &OwnedFd, _: &[u8], read: &mut Read| {
        let is_directory = read.entry.kind() == Kind::Directory;
        Ok(if is_directory && read.stat.st_dev != device {
            Verdict::TakeAlone
        } else {
            Verdict::Take
        })
    };
    let mut walker = Walker::new(deliver, &judge);
    walker.holes = holes;
    walker.is_in_use = true;
    let walked = if FileType::from_raw_mode(stat.st_mode).is_dir() {
        let directory = root
            .at(&inside, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| failed("opening", path, error))?;
        self_of(&directory, path).and_then(|read| {
            walker.hand_entry(read)?;
            walker.children(&directory, b"")
        })
    } else {
        // Where the last link leads is known by the kernel alone.
        let (parent, name) = resolved(root, &found)?;
        walker.one(&parent, &name, b"").map(drop)
    };
    settle(walked)?;
    Ok(walker.omissions)
}

/// The directory itself, as the root of its tree.
fn self_of(directory: &OwnedFd, path: &[u8]) -> Result<Read, End> {
    let mut read = read(directory, b".", path)?;
    read.entry.path = Bytes::new();
    Ok(read)
}

/// The directory and the name under which an open file is known.
pub(crate) fn resolved(root: &Root, found: &OwnedFd) -> Result<(OwnedFd, Vec<u8>), Refusal> {
    let link = |fd: &OwnedFd| {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
        rustix::fs::readlink(path.as_str(), Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|error| failed("finding", path.as_bytes(), error))
    };
    let top = root
        .at(b"", OFlags::PATH)
        .map_err(|error| failed("opening", b"/", error))?;
    let (path, top) = (link(found)?, link(&top)?);
    let top = top.strip_suffix(b"/").unwrap_or(&top);
    let inside = path.strip_prefix(top).unwrap_or(&path);
    let inside = inside.strip_prefix(b"/").unwrap_or(inside);
    let (parent, name) = match inside.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&inside[..at], &inside[at + 1..]),
        None => (&b""[..], inside),
    };
    let directory = root
        .at(parent, OFlags::PATH | OFlags::DIRECTORY)
        .map_err(|error| failed("opening", inside, error))?;
    let same = |stat: rustix::fs::Stat| {
        rustix::fs::fstat(found.as_fd())
            .is_ok_and(|own| (own.st_dev, own.st_ino) == (stat.st_dev, stat.st_ino))
    };
    match rustix::fs::statat(
        &directory,
        OsStr::from_bytes(name),
        AtFlags::SYMLINK_NOFOLLOW,
    ) {
        Ok(stat) if same(stat) => Ok((directory, name.to_vec())),
        _ => Err(failed("finding", inside, Errno::STALE)),
    }
}

/// Nobody waiting is no failure.
pub(super) fn settle(walked: Result<(), End>) -> Result<(), Refusal> {
    match walked {
        Ok(()) | Err(End::Gone) => Ok(()),
        Err(End::Failed(refusal)) => Err(refusal),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_goes_or_shrinks_while_a_tree_is_read_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let size = 4 * PIECE_BYTES;
        fs::write(at("a"), "first").unwrap();
        fs::write(at("gone"), "x").unwrap();
        fs::create_dir(at("left")).unwrap();
        fs::write(at("left/x"), "x").unwrap();
        fs::write(at("shrinks"), vec![7; size]).unwrap();
        let (mut names, mut content) = (Vec::new(), Vec::new());
        let mut deliver = |piece: TreePiece| {
            match piece.piece.unwrap() {
                Piece::Entry(entry) => {
                    let name = String::from_utf8(entry.path.to_vec()).unwrap();
                    if name == "a" {
                        fs::remove_file(at("gone")).unwrap();
                        fs::remove_dir_all(at("left")).unwrap();
                    }
                    names.push(name);
                }
                Piece::Data(data) if names.last().unwrap() == "shrinks" => {
                    let file = fs::OpenOptions::new().write(true).open(at("shrinks"));
                    file.unwrap().set_len(1).unwrap();
                    content.extend_from_slice(&data);
                }
                Piece::Data(_) | Piece::Omissions(_) => {}
            }
            true
        };
        let root = Root::open(dir.path()).unwrap();
        let omissions = get_tree(&root, b"/", Holes::Told, &mut deliver).unwrap();
        assert_eq!(names, ["", "a", "shrinks"]);
        let told = [
            ("gone", Reason::Vanished),
            ("left", Reason::Vanished),
            ("shrinks", Reason::Shrank),
        ];
        assert_eq!(
            first(&omissions),
            told.map(|(path, why)| (path.into(), why))
        );
        assert_eq!(content.len(), size);
        assert_eq!((content[0], content[size - 1]), (7, 0));
        // What was asked for itself must be there.
        assert!(get_tree(&root, b"/gone", Holes::Told, &mut |_| true).is_err());
    }

    fn first(omissions: &Omissions) -> Vec<(String, Reason)> {
        let told = |told: &Omission| {
            let path = String::from_utf8(told.path.to_vec()).unwrap();
            (path, told.reason())
        };
        omissions.first.iter().map(told).collect()
    }

    #[test]
    fn what_no_archive_holds_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        let got = || get_tree(&root, b"/", Holes::Told, &mut |_| true).unwrap();
        assert_eq!(got(), Omissions::default());
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        assert_eq!(first(&got()), [("socket".to_owned(), Reason::Socket)]);
        // One that was asked for itself, too.
        let socket = get_tree(&root, b"/socket", Holes::Told, &mut |_| true);
        assert_eq!(first(&socket.unwrap()), [(String::new(), Reason::Socket)]);
        for number in 0..100 {
            let path = dir.path().join(number.to_string());
            drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        }
        assert_eq!(got().count, 101);
        assert_eq!(got().first.len(), OMISSIONS_TOLD);
    }

    #[test]
    fn a_directory_on_which_something_is_mounted_comes_empty_and_is_told() {
        let root = Root::open(std::path::Path::new("/")).unwrap();
        let of = |path: &str| {
            fs::metadata(path).map(|found| std::os::unix::fs::MetadataExt::dev(&found))
        };
        if !matches!((of("/dev"), of("/dev/shm")), (Ok(dev), Ok(shm)) if dev != shm) {
            eprintln!("SKIPPED a_directory_on_which_something_is_mounted: /dev/shm is not mounted");
            return;
        }
        let mut names = Vec::new();
        let mut deliver = |piece: TreePiece| {
            if let Some(Piece::Entry(entry)) = piece.piece {
                names.push(entry.path);
            }
            true
        };
        let omissions = get_tree(&root, b"/dev", Holes::Told, &mut deliver).unwrap();
        assert!(first(&omissions).contains(&("shm".to_owned(), Reason::MountPoint)));
        assert!(names.contains(&"shm".into()));
        assert!(!names.iter().any(|name| name.starts_with(b"shm/")));
    }

    #[test]
    fn the_first_names_from_a_bound_on_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<Vec<u8>> = (0..300).map(|n| format!("{n:03}").into_bytes()).collect();
        for name in names.iter().rev() {
            fs::write(dir.path().join(OsStr::from_bytes(name)), "").unwrap();
        }
        let directory = OwnedFd::from(File::open(dir.path()).unwrap());
        let from = |bound: Bound<&[u8]>, most| list_from(&directory, b"", bound, most).unwrap();
        assert_eq!(list(&directory, b"").unwrap(), names);
        assert_eq!(from(Bound::Unbounded, 7), names[..7]);
        assert_eq!(from(Bound::Included(b"007"), 100), names[7..107]);
        assert_eq!(from(Bound::Excluded(b"007"), 100), names[8..108]);
        assert_eq!(from(Bound::Excluded(b"007x"), 1000), names[8..]);
        assert!(from(Bound::Excluded(b"299"), 7).is_empty());
    }

    #[test]
    fn attributes_that_are_not_kept_are_told() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        fs::hard_link(&file, dir.path().join("other")).unwrap();
        let set =
            |name: &str| rustix::fs::setxattr(&file, name, b"x", rustix::fs::XattrFlags::empty());
        let root = Root::open(dir.path()).unwrap();
        let got = || get_tree(&root, b"/", Holes::Told, &mut |_| true).unwrap();
        let _ = set("user.kept");
        assert_eq!(got(), Omissions::default());
        if set("trusted.lost").is_err() {
            eprintln!("SKIPPED attributes_that_are_not_kept_are_told: only root may set one");
            return;
        }
        assert_eq!(first(&got()), [("file".to_owned(), Reason::Attributes)]);
    }
}
