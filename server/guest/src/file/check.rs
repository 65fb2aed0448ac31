//! What a guest says of files.

use banger_core::file::{ChangeKind, FileChange, FileInfo, FileKind, FileListing, WatchEvent};
use banger_core::guest::GuestError;
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::file_event::Kind;
use banger_proto::guest::v1::watch_files_response::Message;

use crate::convert::{offset, required};
use crate::judge::{bounded, broken};
use crate::limits::{OWNER_MAX_BYTES, PATH_MAX_BYTES, WATCHES_MAX};
use crate::tree::check_path;

/// A file, by the path that it was asked for.
pub(super) fn info(info: proto::FileInfo, path: Vec<u8>) -> Result<FileInfo, GuestError> {
    let kind = match info.kind() {
        proto::FileKind::File => FileKind::File,
        proto::FileKind::Directory => FileKind::Directory,
        proto::FileKind::Symlink => FileKind::Symlink,
        proto::FileKind::Fifo => FileKind::Fifo,
        proto::FileKind::Socket => FileKind::Socket,
        proto::FileKind::CharDevice => FileKind::CharDevice,
        proto::FileKind::BlockDevice => FileKind::BlockDevice,
        proto::FileKind::Unspecified => return Err(broken("a file has no kind")),
    };
    let mode = u16::try_from(info.mode).ok().filter(|&mode| mode <= 0o7777);
    let mtime = required(info.mtime, "a file's time")?;
    let nanos = u32::try_from(mtime.nanos)
        .ok()
        .filter(|&nanos| nanos < 1_000_000_000);
    let is_link = kind == FileKind::Symlink;
    if info.link_target.is_empty() == is_link
        || info.link_target.len() > PATH_MAX_BYTES
        || info.link_target.contains(&0)
    {
        return Err(broken("a link leads to an impossible place"));
    }
    if info.user.len().max(info.group.len()) > OWNER_MAX_BYTES {
        return Err(broken("an owner's name is too long"));
    }
    Ok(FileInfo {
        path,
        kind,
        mode: mode.ok_or_else(|| broken("a mode is impossible"))?,
        size_bytes: offset(info.size, "a file's length")?,
        allocated_bytes: offset(info.allocated, "what a file takes")?,
        uid: info.uid,
        gid: info.gid,
        user: bounded(&info.user),
        group: bounded(&info.group),
        mtime: (
            mtime.seconds,
            nanos.ok_or_else(|| broken("a time is malformed"))?,
        ),
        link_count: offset(info.links, "a file's names")?,
        link_target: info.link_target.into(),
        is_unreadable: info.is_unreadable && kind == FileKind::Directory,
    })
}

/// The names of a path: a directory comes before what is in it.
fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
}

/// A page of a list. Its order is what makes each page another one: a guest cannot have a list go on for ever.
pub(super) fn listed(
    answer: proto::ListFilesResponse,
    listing: &FileListing,
) -> Result<(Vec<FileInfo>, bool), GuestError> {
    if answer.files.len() > usize::try_from(listing.limit).unwrap_or(usize::MAX) {
        return Err(broken("a list is longer than was asked for"));
    }
    if answer.has_more && answer.files.is_empty() {
        return Err(broken("a list goes on without going on"));
    }
    let mut last = listing.after.clone();
    let depth = usize::try_from(listing.depth).unwrap_or(usize::MAX);
    let mut files = Vec::with_capacity(answer.files.len());
    for file in answer.files {
        let path = file.path.to_vec();
        check_path(&path)?;
        if path.is_empty() || names(&path).count() > depth {
            return Err(broken("a list has what was not asked for"));
        }
        if !last.is_empty() && names(&path).le(names(&last)) {
            return Err(broken("a list is out of order"));
        }
        last.clone_from(&path);
        files.push(info(file, path)?);
    }
    Ok((files, answer.has_more))
}

/// What happened to watched files; `is_first` says whether nothing came before.
pub(super) fn watched(
    answer: proto::WatchFilesResponse,
    is_first: bool,
) -> Result<WatchEvent, GuestError> {
    let message = required(answer.message, "an event")?;
    if matches!(message, Message::Started(_)) != is_first {
        return Err(broken("a watch begins in the wrong order"));
    }
    Ok(match message {
        Message::Started(started) if started.directories <= WATCHES_MAX => WatchEvent::Started {
            directories: started.directories,
        },
        Message::Started(_) => return Err(broken("too many directories are watched")),
        Message::Event(event) => WatchEvent::Changed(change(event)?),
        Message::Overflow(_) => WatchEvent::Overflow,
        Message::Heartbeat(_) => WatchEvent::Heartbeat,
    })
}

fn change(event: proto::FileEvent) -> Result<FileChange, GuestError> {
    check_path(&event.path)?;
    let kind = match event.kind() {
        Kind::Created => ChangeKind::Created,
        Kind::Modified => ChangeKind::Modified,
        Kind::Written => ChangeKind::Written,
        Kind::Attributes => ChangeKind::Attributes,
        Kind::Removed => ChangeKind::Removed,
        Kind::MovedFrom => ChangeKind::MovedFrom,
        Kind::MovedTo => ChangeKind::MovedTo,
        Kind::RootGone => ChangeKind::RootGone,
        Kind::Unspecified => return Err(broken("a change has no kind")),
    };
    Ok(FileChange {
        kind,
        path: event.path.into(),
        is_directory: event.is_directory,
        rename: event.rename,
    })
}
