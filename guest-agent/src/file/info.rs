//! What is at a path, as it is told.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use banger_proto::guest::v1::{self as proto, FileKind};
use bytes::Bytes;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, OFlags, Stat};

use super::Here;
use crate::refusal::Refusal;
use crate::tree::failed;

/// Blocks of stat(2), whatever the file system's are.
const STAT_BLOCK_BYTES: i64 = 512;

/// What a mode says that a file is.
pub(super) fn kind(mode: u32) -> FileKind {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        _ => FileKind::Unspecified,
    }
}

impl Here {
    /// What is at `path`.
    pub(super) fn look(&self, path: &[u8], follow: bool) -> Result<proto::FileInfo, Refusal> {
        let mut flags = OFlags::PATH;
        if !follow {
            flags |= OFlags::NOFOLLOW;
        }
        let found = self.open(&self.inside(path)?, flags, path)?;
        self.describe(&found, b"", path)
    }

    /// What is at `name` in `parent`, or the open file itself; `path` is how it is called.
    pub(super) fn describe(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<proto::FileInfo, Refusal> {
        let at = OsStr::from_bytes(name);
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let stat = rustix::fs::statat(parent, at, flags)
            .map_err(|error| failed("reading", path, error))?;
        let mut info = self.info(&stat, path);
        if info.kind() == FileKind::Symlink {
            let target = rustix::fs::readlinkat(parent, at, Vec::new())
                .map_err(|error| failed("reading the link", path, error))?;
            info.link_target = target.into_bytes().into();
        }
        Ok(info)
    }

    pub(super) fn info(&self, stat: &Stat, path: &[u8]) -> proto::FileInfo {
        proto::FileInfo {
            path: Bytes::copy_from_slice(path),
            kind: kind(stat.st_mode).into(),
            mode: stat.st_mode & 0o7777,
            size: stat.st_size,
            allocated: stat.st_blocks.saturating_mul(STAT_BLOCK_BYTES),
            uid: stat.st_uid,
            gid: stat.st_gid,
            user: self.users.user_name(stat.st_uid),
            group: self.users.group_name(stat.st_gid),
            mtime: Some(prost_types::Timestamp {
                seconds: stat.st_mtime,
                nanos: i32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            }),
            links: i64::try_from(stat.st_nlink).unwrap_or(i64::MAX),
            link_target: Bytes::new(),
            is_unreadable: false,
        }
    }
}
