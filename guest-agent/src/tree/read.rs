//! Reads one entry: what stat and the extended attributes say of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use banger_proto::guest::v1::TreeEntry;
use banger_proto::guest::v1::tree_entry::Kind;
use bytes::Bytes;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::failed;
use crate::refusal::Refusal;

/// Longest value of an extended attribute, and longest list of names, as the kernel has it.
const XATTR_MAX_BYTES: usize = 64 << 10;
/// Tried first.
const XATTR_SHORT_BYTES: usize = 512;
/// What an image keeps: the rest belongs to one machine, or to the overlay.
const XATTRS_KEPT: [&str; 3] = ["security.capability", "user.", "system.posix_acl_"];

/// The path by which calls without a descriptor reach a name in an open directory.
pub(super) fn through(parent: &OwnedFd, name: &[u8]) -> PathBuf {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

/// An entry and what is known beside it.
pub(super) struct Read {
    pub(super) entry: TreeEntry,
    pub(super) stat: Stat,
    /// Whether it has extended attributes that are not kept.
    pub(super) drops_xattrs: bool,
}

/// What is at `name` in `parent`, called `path`.
pub(super) fn read(parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Read, Refusal> {
    let stat = rustix::fs::statat(parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| failed("reading", path, error))?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        // A socket is nothing without its process: no archive holds one.
        _ => Kind::Unspecified,
    };
    let mut entry = TreeEntry {
        path: Bytes::copy_from_slice(path),
        kind: kind.into(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Some(prost_types::Timestamp {
            seconds: stat.st_mtime,
            nanos: i32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        }),
        ..TreeEntry::default()
    };
    match kind {
        Kind::File => entry.size = stat.st_size,
        Kind::Symlink => {
            let link = rustix::fs::readlinkat(parent, OsStr::from_bytes(name), Vec::new())
                .map_err(|error| failed("reading the link", path, error))?;
            entry.link = link.into_bytes().into();
        }
        Kind::CharDevice | Kind::BlockDevice => {
            entry.major = rustix::fs::major(stat.st_rdev);
            entry.minor = rustix::fs::minor(stat.st_rdev);
        }
        _ => {}
    }
    let mut drops_xattrs = false;
    if matches!(kind, Kind::File | Kind::Directory) {
        (entry.xattrs, drops_xattrs) = xattrs(parent, name, path)?;
    }
    Ok(Read {
        entry,
        stat,
        drops_xattrs,
    })
}

/// The attributes that are kept, and whether there are others.
fn xattrs(
    parent: &OwnedFd,
    name: &[u8],
    path: &[u8],
) -> Result<(BTreeMap<String, Bytes>, bool), Refusal> {
    let node = through(parent, name);
    let list = sized(|buffer| rustix::fs::llistxattr(&node, buffer));
    let list = list.map_err(|error| failed("listing the attributes", path, error))?;
    let (mut found, mut has_others) = (BTreeMap::new(), false);
    let list = list.unwrap_or_default();
    let names = list.split(|&byte| byte == 0);
    for name in names.filter(|name| !name.is_empty()) {
        let kept = str::from_utf8(name).ok();
        let kept = kept.filter(|name| XATTRS_KEPT.iter().any(|kept| name.starts_with(kept)));
        let Some(name) = kept else {
            has_others = true;
            continue;
        };
        if let Some(value) = xattr(&node, name, path)? {
            found.insert(name.to_owned(), value);
        }
    }
    Ok((found, has_others))
}

/// The value of one attribute; none where there is none.
pub(super) fn xattr(
    node: &std::path::Path,
    name: &str,
    path: &[u8],
) -> Result<Option<Bytes>, Refusal> {
    let value = sized(|buffer| rustix::fs::lgetxattr(node, name, buffer));
    let value = value.map_err(|error| failed("reading an attribute", path, error))?;
    Ok(value.map(Bytes::from))
}

/// Most lists and values are short: a long buffer, which would have to be zeroed, is the exception.
fn sized(
    mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut short = [0; XATTR_SHORT_BYTES];
    match call(&mut short) {
        Ok(length) => return Ok(Some(short[..length].to_vec())),
        Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut long = vec![0; XATTR_MAX_BYTES];
    let length = call(&mut long)?;
    long.truncate(length);
    Ok(Some(long))
}
