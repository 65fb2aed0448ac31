//! Files, both ways.

use banger_core::file::{
    ChangeKind, FileAttributes, FileChange, FileInfo, FileKind, FileListing, FilePlace, FileRange,
    FileWrite, TreeMoved, WatchEvent, WriteMode,
};
use banger_core::tree::{Omission, OmissionReason, Omissions};
use banger_proto::v1;
use banger_proto::v1::omission::Reason;
use banger_proto::v1::watch_files_response::Message as Watched;
use banger_proto::v1::write_file_start::Mode;
use bytes::Bytes;

use super::field::{int, natural};
use crate::grpc::request::RequestError;

/// Bytes of a path, as Linux has it.
const PATH_MAX: usize = 4095;
/// Bytes of the name of a user and a group.
const USER_MAX: usize = 256;
/// Directories that a list goes down.
const DEPTH_MAX: i32 = 64;
/// Entries of a page of which nobody says how long it is, and at most.
const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 1000;
/// The largest time that a file system takes: that of the year 9999.
const SECONDS_MAX: i64 = 253_402_300_799;

/// A path in a VM.
pub(crate) fn path(field: &'static str, path: &str) -> Result<Vec<u8>, RequestError> {
    let problem = match path {
        "" => return Err(RequestError::missing(field)),
        path if path.len() > PATH_MAX => format!("has more than {PATH_MAX} bytes"),
        path if path.contains('\0') => "has a zero byte".into(),
        path if path.split('/').any(|name| name == "..") => {
            "has `..`: give the path without it".into()
        }
        path => return Ok(path.as_bytes().to_vec()),
    };
    Err(RequestError::invalid(field, problem))
}

fn user(field: &'static str, user: String) -> Result<String, RequestError> {
    if user.len() > USER_MAX || user.contains(['\0', '\n']) {
        return Err(RequestError::invalid(field, "is no user"));
    }
    Ok(user)
}

/// A path, and as whom.
pub(crate) fn place(
    field: &'static str,
    path: &str,
    user: String,
) -> Result<FilePlace, RequestError> {
    Ok(FilePlace {
        user: self::user("user", user)?,
        path: self::path(field, path)?,
    })
}

/// Where a symbolic link is to lead: anything that a link can hold.
pub(crate) fn target(target: &str) -> Result<&[u8], RequestError> {
    let is_target = (1..=PATH_MAX).contains(&target.len()) && !target.contains('\0');
    match is_target {
        true => Ok(target.as_bytes()),
        false => Err(RequestError::invalid(
            "target",
            format!("is not 1 to {PATH_MAX} bytes without a zero byte"),
        )),
    }
}

/// Permission bits.
pub(crate) fn permissions(
    field: &'static str,
    bits: Option<u32>,
) -> Result<Option<u16>, RequestError> {
    let small = |bits: u32| u16::try_from(bits).ok().filter(|&bits| bits <= 0o7777);
    bits.map(|bits| {
        small(bits).ok_or_else(|| RequestError::invalid(field, "is more than twelve bits"))
    })
    .transpose()
}

/// Owner, permissions and time, in fields with these names.
pub(crate) fn attributes(
    fields: [&'static str; 3],
    bits: Option<u32>,
    owner: String,
    mtime: Option<prost_types::Timestamp>,
) -> Result<FileAttributes, RequestError> {
    let [in_permissions, in_owner, in_mtime] = fields;
    let stamp = |time: prost_types::Timestamp| {
        let nanos = u32::try_from(time.nanos)
            .ok()
            .filter(|&n| n < 1_000_000_000);
        let is_time = (-SECONDS_MAX..=SECONDS_MAX).contains(&time.seconds);
        let wrong = || RequestError::invalid(in_mtime, "is no time of a file");
        match nanos {
            Some(nanos) if is_time => Ok((time.seconds, nanos)),
            _ => Err(wrong()),
        }
    };
    Ok(FileAttributes {
        permissions: permissions(in_permissions, bits)?,
        owner: user(in_owner, owner)?,
        mtime: mtime.map(stamp).transpose()?,
    })
}

/// Which part of a file is read.
pub(crate) fn range(offset: i64, length: Option<i64>) -> Result<FileRange, RequestError> {
    Ok(FileRange {
        offset,
        length: length.map(|length| natural("length", length)).transpose()?,
    })
}

/// Which file is written, and how.
pub(crate) fn write(start: v1::WriteFileStart) -> Result<(FilePlace, FileWrite), RequestError> {
    let mode = match start.mode() {
        Mode::Unspecified | Mode::Replace => WriteMode::Replace,
        Mode::Create => WriteMode::Create,
        Mode::Append => WriteMode::Append,
        Mode::At => WriteMode::At {
            offset: natural("start.offset", start.offset)?,
            truncate: start.truncate,
        },
    };
    if start.mode() != Mode::At && (start.offset != 0 || start.truncate) {
        let problem = "is for MODE_AT alone";
        return Err(RequestError::invalid("start.offset", problem));
    }
    let fields = ["start.permissions", "start.owner", "start.mtime"];
    let write = FileWrite {
        mode,
        attributes: attributes(fields, start.permissions, start.owner, start.mtime)?,
        make_parents: start.make_parents,
    };
    Ok((place("start.path", &start.path, start.user)?, write))
}

/// Which page of a list is wanted. A token is the last path of the page before, in hexadecimal.
pub(crate) fn listing(depth: i32, size: i32, token: &str) -> Result<FileListing, RequestError> {
    if !(0..=DEPTH_MAX).contains(&depth) {
        let problem = format!("is {depth}, and may be 0 to {DEPTH_MAX}");
        return Err(RequestError::invalid("depth", problem));
    }
    let limit = match natural("page_size", size)? {
        0 => PAGE_DEFAULT,
        size => PAGE_MAX.min(size),
    };
    let no_token = || RequestError::invalid("page_token", "is not the token of a page");
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    };
    let is_hex = token.len().is_multiple_of(2) && token.len() <= 2 * PATH_MAX;
    let after: Option<Vec<u8>> = token.as_bytes().chunks(2).map(byte).collect();
    let after = after.filter(|after| is_hex && !after.contains(&0));
    Ok(FileListing {
        depth: depth.max(1).unsigned_abs(),
        limit,
        after: after.ok_or_else(no_token)?,
    })
}

/// A page of a list.
pub(crate) fn listed(files: &[FileInfo], has_more: bool) -> v1::ListFilesResponse {
    let last = files.last().filter(|_| has_more);
    let hex = |file: &FileInfo| file.path.iter().map(|byte| format!("{byte:02x}")).collect();
    v1::ListFilesResponse {
        next_page_token: last.map_or_else(String::new, hex),
        files: files.iter().map(info).collect(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file as the API has it.
pub(crate) fn info(file: &FileInfo) -> v1::FileInfo {
    use v1::file_info::Kind;
    let kind = match file.kind {
        FileKind::File => Kind::File,
        FileKind::Directory => Kind::Directory,
        FileKind::Symlink => Kind::Symlink,
        FileKind::Fifo => Kind::Fifo,
        FileKind::Socket => Kind::Socket,
        FileKind::CharDevice => Kind::CharDevice,
        FileKind::BlockDevice => Kind::BlockDevice,
    };
    let is_text = std::str::from_utf8(&file.path).is_ok();
    v1::FileInfo {
        path: text(&file.path),
        kind: kind.into(),
        mode: file.mode.into(),
        size_bytes: int(file.size_bytes),
        allocated_bytes: int(file.allocated_bytes),
        uid: file.uid,
        gid: file.gid,
        user: file.user.clone(),
        group: file.group.clone(),
        mtime: Some(prost_types::Timestamp {
            seconds: file.mtime.0,
            nanos: i32::try_from(file.mtime.1).unwrap_or_default(),
        }),
        link_count: int(file.link_count),
        link_target: text(&file.link_target),
        is_unreadable: file.is_unreadable,
        raw_path: match is_text {
            true => Bytes::new(),
            false => Bytes::copy_from_slice(&file.path),
        },
    }
}

/// What a watcher is told.
pub(crate) fn watched(event: WatchEvent) -> v1::WatchFilesResponse {
    let message = match event {
        WatchEvent::Started { directories } => Watched::Started(v1::WatchStarted {
            directory_count: i32::try_from(directories).unwrap_or(i32::MAX),
        }),
        WatchEvent::Changed(change) => Watched::Event(self::change(&change)),
        WatchEvent::Overflow => Watched::Overflow(v1::WatchOverflow {}),
        WatchEvent::Heartbeat => Watched::Heartbeat(v1::Heartbeat {}),
    };
    v1::WatchFilesResponse {
        message: Some(message),
    }
}

fn change(change: &FileChange) -> v1::FileEvent {
    use v1::file_event::Kind;
    let kind = match change.kind {
        ChangeKind::Created => Kind::Created,
        ChangeKind::Modified => Kind::Modified,
        ChangeKind::Written => Kind::Written,
        ChangeKind::Attributes => Kind::Attributes,
        ChangeKind::Removed => Kind::Removed,
        ChangeKind::MovedFrom => Kind::MovedFrom,
        ChangeKind::MovedTo => Kind::MovedTo,
        ChangeKind::RootGone => Kind::RootGone,
    };
    v1::FileEvent {
        kind: kind.into(),
        path: text(&change.path),
        is_directory: change.is_directory,
        rename_id: change.rename.into(),
    }
}

/// How much a tree had.
pub(crate) fn moved(moved: TreeMoved) -> v1::FilesMoved {
    v1::FilesMoved {
        entry_count: int(moved.entries),
        content_bytes: int(moved.bytes),
        omissions: None,
    }
}

/// What was downloaded, and what that lacks.
pub(crate) fn downloaded(done: TreeMoved, omissions: Omissions) -> v1::FilesMoved {
    let omission = |omission: Omission| v1::Omission {
        path: text(&omission.path),
        reason: match omission.reason {
            OmissionReason::Socket => Reason::Socket,
            OmissionReason::Vanished => Reason::Vanished,
            OmissionReason::MountPoint => Reason::MountPoint,
            OmissionReason::Attributes => Reason::Attributes,
            OmissionReason::Shrank => Reason::Shrank,
        }
        .into(),
    };
    v1::FilesMoved {
        omissions: (omissions.count > 0).then(|| v1::Omissions {
            count: int(omissions.count),
            first: omissions.first.into_iter().map(omission).collect(),
        }),
        ..moved(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_nowhere_but_down() {
        for good in ["/", "/etc/hosts", "~", "a/b", "...", "/..a/b.."] {
            assert_eq!(path("path", good).unwrap(), good.as_bytes());
        }
        for bad in [
            "",
            "..",
            "/..",
            "a/../b",
            "/a/..",
            "/a\0b",
            &"x".repeat(4096),
        ] {
            assert!(path("path", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_the_last_path_and_nothing_else() {
        let file = FileInfo {
            path: b"a/\xff".to_vec(),
            kind: FileKind::File,
            mode: 0o644,
            size_bytes: 1,
            allocated_bytes: 4096,
            uid: 0,
            gid: 0,
            user: String::new(),
            group: String::new(),
            mtime: (0, 0),
            link_count: 1,
            link_target: Vec::new(),
            is_unreadable: false,
        };
        let page = listed(&[file], true);
        assert_eq!(page.next_page_token, "612fff");
        assert_eq!(&page.files[0].raw_path[..], b"a/\xff");
        let listing = super::listing(0, 0, &page.next_page_token).unwrap();
        assert_eq!((listing.depth, listing.limit), (1, 100));
        assert_eq!(listing.after, b"a/\xff");
        for bad in ["x", "6", "zz", "00", &"61".repeat(4096)] {
            assert!(super::listing(0, 0, bad).is_err(), "{bad}");
        }
        assert!(super::listing(-1, 0, "").is_err());
        assert!(super::listing(65, 0, "").is_err());
    }

    #[test]
    fn an_offset_is_for_writing_into_a_file_alone() {
        let start = |mode: Mode, offset| v1::WriteFileStart {
            path: "/x".into(),
            mode: mode.into(),
            offset,
            ..v1::WriteFileStart::default()
        };
        assert!(write(start(Mode::Replace, 0)).is_ok());
        assert!(write(start(Mode::Replace, 1)).is_err());
        assert!(write(start(Mode::At, -1)).is_err());
        let (_, told) = write(start(Mode::At, 7)).unwrap();
        let at = WriteMode::At {
            offset: 7,
            truncate: false,
        };
        assert_eq!(told.mode, at);
    }
}
