//! Trees between host and guest. What comes out of a guest is checked piece by piece: paths that stay
//! inside, lengths that hold, bounds on everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use banger_core::file::{FilePlace, TreeOwners};
use banger_core::guest::{DownloadPieces, GuestError, TreePieces};
use banger_core::tree::{
    DataRange, DownloadPiece, Naming, OMISSIONS_TOLD_MAX, Omission, OmissionReason, Omissions,
    PathKind, TreeEntry, TreeKind, TreePiece, TreePlace, are_ranges,
};
use banger_proto::guest::v1 as proto;
use banger_proto::guest::v1::omission::Reason;
use banger_proto::guest::v1::put_tree_request::Message;
use banger_proto::guest::v1::tree_entry::Kind;
use banger_proto::guest::v1::tree_piece::Piece;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tonic::Streaming;

use crate::judge::{Call, broken, judge};
use crate::limits::{
    FILE_BYTES_MAX, NAMES_MAX, PATH_MAX_BYTES, TREE_BYTES_MAX, TREE_ENTRIES_MAX, XATTRS_MAX,
    XATTRS_MAX_BYTES,
};
use crate::link::{Link, Waits};

/// Longest name in a directory, as Linux has it.
const NAME_MAX_BYTES: usize = 255;

pub(crate) fn start(place: &TreePlace) -> proto::PutTreeRequest {
    message(Message::Start(proto::PutTreeStart {
        path: Bytes::copy_from_slice(&place.path),
        names_entry: place.naming == Naming::Entry,
        uid: place.owner.0,
        gid: place.owner.1,
        user: None,
    }))
}

/// Of a tree that a user puts.
pub(crate) fn start_as_user(
    place: &FilePlace,
    names_entry: bool,
    owners: TreeOwners,
) -> proto::PutTreeRequest {
    message(Message::Start(proto::PutTreeStart {
        path: Bytes::copy_from_slice(&place.path),
        names_entry,
        uid: 0,
        gid: 0,
        user: Some(proto::TreeUser {
            name: place.user.clone(),
            keep_owners: owners == TreeOwners::Kept,
        }),
    }))
}

pub(crate) fn put(piece: TreePiece) -> proto::PutTreeRequest {
    let piece = match piece {
        TreePiece::Entry(entry) => Piece::Entry(to_proto(*entry)),
        TreePiece::Data(data) => Piece::Data(data),
    };
    message(Message::Piece(proto::TreePiece { piece: Some(piece) }))
}

fn message(message: Message) -> proto::PutTreeRequest {
    proto::PutTreeRequest {
        message: Some(message),
    }
}

fn to_proto(entry: TreeEntry) -> proto::TreeEntry {
    let mut sent = proto::TreeEntry {
        path: entry.path.into(),
        mode: entry.mode.into(),
        uid: entry.uid,
        gid: entry.gid,
        mtime: Some(prost_types::Timestamp {
            seconds: entry.mtime.0,
            nanos: i32::try_from(entry.mtime.1).unwrap_or_default(),
        }),
        xattrs: entry.xattrs,
        ..proto::TreeEntry::default()
    };
    let kind = match entry.kind {
        TreeKind::File { size } => {
            sent.size = crate::convert::signed(size);
            Kind::File
        }
        TreeKind::SparseFile { size, ranges } => {
            sent.size = crate::convert::signed(size);
            sent.is_sparse = true;
            let range = |range: DataRange| proto::DataRange {
                offset: crate::convert::signed(range.offset),
                length: crate::convert::signed(range.length),
            };
            sent.ranges = ranges.into_iter().map(range).collect();
            Kind::File
        }
        TreeKind::Directory => Kind::Directory,
        TreeKind::OpaqueDirectory => {
            sent.is_opaque = true;
            Kind::Directory
        }
        TreeKind::Symlink { target } => {
            sent.link = target.into();
            Kind::Symlink
        }
        TreeKind::HardLink { target } => {
            sent.link = target.into();
            Kind::HardLink
        }
        TreeKind::Fifo => Kind::Fifo,
        TreeKind::CharDevice { major, minor } => {
            (sent.major, sent.minor) = (major, minor);
            Kind::CharDevice
        }
        TreeKind::BlockDevice { major, minor } => {
            (sent.major, sent.minor) = (major, minor);
            Kind::BlockDevice
        }
        TreeKind::Removed => Kind::Removed,
    };
    sent.kind = kind.into();
    sent
}

/// The guest's answer about a directory.
pub(crate) fn path_kind(answer: proto::ListDirectoryResponse) -> Result<PathKind, GuestError> {
    let kind = answer.kind();
    if answer.names.len() > NAMES_MAX {
        return Err(broken("a directory has too many names"));
    }
    match kind {
        proto::PathKind::Unspecified => Ok(PathKind::Missing),
        proto::PathKind::Other => Ok(PathKind::Other),
        proto::PathKind::Directory => {
            let names = answer.names.into_iter().map(|name| {
                check_name(&name)?;
                Ok(name.to_vec())
            });
            Ok(PathKind::Directory(names.collect::<Result<_, _>>()?))
        }
    }
}

/// What the first entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Top {
    /// The tree itself, by an empty path.
    Entry,
    /// What is in a directory; the directory does not come.
    Directory,
}

/// The checked pieces of a tree of which nothing may be left out; after an error nothing follows that counts.
pub(crate) fn pieces(
    messages: Streaming<proto::TreePiece>,
    top: Top,
    waits: Waits,
    link: &Arc<Link>,
) -> TreePieces {
    let pieces = download(messages, top, waits, link);
    let whole = |piece| match piece? {
        DownloadPiece::Tree(piece) => Ok(piece),
        DownloadPiece::Omissions(_) => Err(broken("a tree tells what was not asked for")),
    };
    pieces.map(whole).boxed()
}

/// The checked pieces of a tree, and what it lacks; after an error nothing follows.
pub(crate) fn download(
    messages: Streaming<proto::TreePiece>,
    top: Top,
    waits: Waits,
    link: &Arc<Link>,
) -> DownloadPieces {
    let checker = Checker::new(top);
    let state = Some((messages, checker, Arc::clone(link)));
    stream::unfold(state, move |state| async move {
        let (mut messages, mut checker, link) = state?;
        let is_beat =
            |message: &proto::TreePiece| matches!(&message.piece, Some(Piece::Data(data)) if data.is_empty());
        let piece = match link.content(&mut messages, waits, is_beat).await {
            Err(limit) => Err(GuestError::Deadline {
                during: "tree",
                limit,
            }),
            Ok(Ok(None)) => match checker.end() {
                Ok(()) => return None,
                Err(error) => Err(error),
            },
            Ok(Ok(Some(message))) => checker.check(message),
            Ok(Err(_)) if link.has_ended() => Err(GuestError::Lost { during: "tree" }),
            Ok(Err(status)) => Err(judge(&status, &TREE)),
        };
        let next = piece.is_ok().then_some((messages, checker, link));
        Some((piece, next))
    })
    .boxed()
}

const TREE: Call = Call {
    during: "tree",
    session: None,
    asked: None,
};

/// Checks the pieces of one tree.
#[derive(Debug)]
struct Checker {
    top: Top,
    entries: u64,
    bytes: u64,
    /// Of the last file, still to come.
    left: u64,
    /// Whether it was told what the tree lacks, after which nothing may come.
    is_over: bool,
}

impl Checker {
    const fn new(top: Top) -> Self {
        Self {
            top,
            entries: 0,
            bytes: 0,
            left: 0,
            is_over: false,
        }
    }

    fn check(&mut self, message: proto::TreePiece) -> Result<DownloadPiece, GuestError> {
        if self.is_over {
            return Err(broken("a tree goes on after its end"));
        }
        match message.piece {
            Some(Piece::Entry(entry)) if self.left == 0 => {
                let entry = from_proto(entry)?;
                let is_first = self.entries == 0 && self.top == Top::Entry;
                if entry.path.is_empty() != is_first {
                    return Err(broken("a tree begins with the wrong entry"));
                }
                self.entries += 1;
                self.left = entry.kind.stored_bytes();
                self.bytes = self.bytes.saturating_add(self.left);
                if self.entries > TREE_ENTRIES_MAX || self.bytes > TREE_BYTES_MAX {
                    return Err(broken("a tree is too large"));
                }
                Ok(DownloadPiece::Tree(TreePiece::Entry(Box::new(entry))))
            }
            Some(Piece::Data(data)) if !data.is_empty() && data.len() as u64 <= self.left => {
                self.left -= data.len() as u64;
                Ok(DownloadPiece::Tree(TreePiece::Data(data)))
            }
            Some(Piece::Omissions(omissions)) if self.left == 0 => {
                self.is_over = true;
                Ok(DownloadPiece::Omissions(check_omissions(omissions)?))
            }
            _ => Err(broken(
                "a file does not have the length it was said to have",
            )),
        }
    }

    fn end(&self) -> Result<(), GuestError> {
        // Of a socket there is nothing but that.
        let is_empty = self.entries == 0 && !self.is_over;
        if self.left > 0 || (self.top == Top::Entry && is_empty) {
            return Err(broken("a tree is cut short"));
        }
        Ok(())
    }
}

fn check_omissions(told: proto::Omissions) -> Result<Omissions, GuestError> {
    let count = crate::convert::offset(told.count, "how much a tree lacks")?;
    if told.first.len() > OMISSIONS_TOLD_MAX || (told.first.len() as u64) > count {
        return Err(broken("what a tree lacks is impossible"));
    }
    let omission = |told: proto::Omission| {
        check_path(&told.path)?;
        let reason = match told.reason() {
            Reason::Socket => OmissionReason::Socket,
            Reason::Vanished => OmissionReason::Vanished,
            Reason::MountPoint => OmissionReason::MountPoint,
            Reason::Attributes => OmissionReason::Attributes,
            Reason::Shrank => OmissionReason::Shrank,
            Reason::Unspecified => return Err(broken("a tree lacks something for no reason")),
        };
        Ok(Omission {
            path: told.path.into(),
            reason,
        })
    };
    let first = told.first.into_iter().map(omission);
    Ok(Omissions {
        count,
        first: first.collect::<Result<_, _>>()?,
    })
}

fn from_proto(entry: proto::TreeEntry) -> Result<TreeEntry, GuestError> {
    check_path(&entry.path)?;
    let mtime = entry.mtime.unwrap_or_default();
    let nanos = u32::try_from(mtime.nanos)
        .ok()
        .filter(|&nanos| nanos < 1_000_000_000);
    let kind = kind(&entry)?;
    check_xattrs(&entry.xattrs)?;
    Ok(TreeEntry {
        kind,
        mode: u16::try_from(entry.mode)
            .ok()
            .filter(|&mode| mode <= 0o7777)
            .ok_or_else(|| broken("a mode is impossible"))?,
        uid: entry.uid,
        gid: entry.gid,
        mtime: (
            mtime.seconds,
            nanos.ok_or_else(|| broken("a time is malformed"))?,
        ),
        xattrs: entry.xattrs,
        path: entry.path.into(),
    })
}

fn kind(entry: &proto::TreeEntry) -> Result<TreeKind, GuestError> {
    let (major, minor) = (entry.major, entry.minor);
    let link = || {
        let is_target = !entry.link.is_empty() && entry.link.len() < PATH_MAX_BYTES;
        if is_target && !entry.link.contains(&0) {
            Ok(entry.link.to_vec())
        } else {
            Err(broken("a link leads to an impossible place"))
        }
    };
    Ok(match entry.kind() {
        Kind::File if entry.is_sparse => sparse(entry)?,
        Kind::File => TreeKind::File {
            size: crate::convert::offset(entry.size, "a file's length")?,
        },
        Kind::Directory if entry.is_opaque => TreeKind::OpaqueDirectory,
        Kind::Directory => TreeKind::Directory,
        Kind::Symlink => TreeKind::Symlink { target: link()? },
        Kind::HardLink => {
            check_path(&entry.link)?;
            TreeKind::HardLink { target: link()? }
        }
        Kind::Fifo => TreeKind::Fifo,
        Kind::CharDevice => TreeKind::CharDevice { major, minor },
        Kind::BlockDevice => TreeKind::BlockDevice { major, minor },
        Kind::Removed => TreeKind::Removed,
        Kind::Unspecified => return Err(broken("an entry has no kind")),
    })
}

fn sparse(entry: &proto::TreeEntry) -> Result<TreeKind, GuestError> {
    let size = crate::convert::offset(entry.size, "a file's length")?;
    let range = |range: &proto::DataRange| {
        Ok(DataRange {
            offset: crate::convert::offset(range.offset, "a range's offset")?,
            length: crate::convert::offset(range.length, "a range's length")?,
        })
    };
    let ranges: Vec<DataRange> = entry.ranges.iter().map(range).collect::<Result<_, _>>()?;
    if size > FILE_BYTES_MAX || !are_ranges(&ranges, size) {
        return Err(broken("the ranges of a file are impossible"));
    }
    Ok(TreeKind::SparseFile { size, ranges })
}

fn check_xattrs(xattrs: &BTreeMap<String, Bytes>) -> Result<(), GuestError> {
    let bytes: usize = xattrs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let is_name = |name: &String| {
        (1..=NAME_MAX_BYTES).contains(&name.len()) && !name.contains(['\0', '=', '\n'])
    };
    if xattrs.len() > XATTRS_MAX || bytes > XATTRS_MAX_BYTES || !xattrs.keys().all(is_name) {
        return Err(broken("an entry's attributes are impossible"));
    }
    Ok(())
}

pub(crate) fn check_path(path: &[u8]) -> Result<(), GuestError> {
    if path.len() > PATH_MAX_BYTES {
        return Err(broken("a path is too long"));
    }
    if path.is_empty() {
        return Ok(());
    }
    path.split(|&byte| byte == b'/').try_for_each(check_name)
}

fn check_name(name: &[u8]) -> Result<(), GuestError> {
    let is_name = (1..=NAME_MAX_BYTES).contains(&name.len())
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
    if is_name {
        Ok(())
    } else {
        Err(broken("a path has an impossible name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, size: i64) -> proto::TreePiece {
        let entry = proto::TreeEntry {
            path: Bytes::copy_from_slice(path.as_bytes()),
            kind: Kind::File.into(),
            size,
            ..proto::TreeEntry::default()
        };
        proto::TreePiece {
            piece: Some(Piece::Entry(entry)),
        }
    }

    fn sparse(size: i64, ranges: &[(i64, i64)]) -> proto::TreePiece {
        let Some(Piece::Entry(mut entry)) = entry("a", size).piece else {
            unreachable!()
        };
        entry.is_sparse = true;
        let range = |&(offset, length): &(i64, i64)| proto::DataRange { offset, length };
        entry.ranges = ranges.iter().map(range).collect();
        proto::TreePiece {
            piece: Some(Piece::Entry(entry)),
        }
    }

    #[test]
    fn a_file_with_holes_has_the_data_of_its_ranges_and_no_others() {
        let mut checker = Checker::new(Top::Directory);
        checker
            .check(sparse(1 << 40, &[(0, 512), (900, 1)]))
            .unwrap();
        checker.check(data(512)).unwrap();
        assert!(checker.end().is_err());
        assert!(checker.check(data(2)).is_err());
        checker.check(data(1)).unwrap();
        checker.end().unwrap();
        for (size, ranges) in [
            (3, &[(0, 4)][..]),
            (9, &[(2, 2), (1, 1)]),
            (9, &[(-1, 2)]),
            (9, &[(1, -2)]),
            (9, &[(0, 0)]),
            (9, &[(0, 2), (4, 1)]),
            (-1, &[]),
            (i64::MAX, &[]),
        ] {
            let checked = Checker::new(Top::Directory).check(sparse(size, ranges));
            assert!(checked.is_err(), "{size} {ranges:?}");
        }
    }

    fn data(length: usize) -> proto::TreePiece {
        proto::TreePiece {
            piece: Some(Piece::Data(vec![0; length].into())),
        }
    }

    fn omissions(count: i64, first: &[(&str, Reason)]) -> proto::TreePiece {
        let omission = |&(path, reason): &(&str, Reason)| proto::Omission {
            path: Bytes::copy_from_slice(path.as_bytes()),
            reason: reason.into(),
        };
        let first = first.iter().map(omission).collect();
        proto::TreePiece {
            piece: Some(Piece::Omissions(proto::Omissions { count, first })),
        }
    }

    #[test]
    fn what_a_tree_lacks_is_told_once_at_its_end_and_within_bounds() {
        let told = |count, first: &[_]| {
            let mut checker = Checker::new(Top::Directory);
            checker.check(entry("a", 1)).unwrap();
            let too_soon = checker.check(omissions(1, &[])).is_err();
            checker.check(data(1)).unwrap();
            let told = checker.check(omissions(count, first));
            checker.end().unwrap();
            let goes_on = [entry("b", 0), omissions(1, &[])].map(|piece| checker.check(piece));
            assert!(too_soon && goes_on.iter().all(Result::is_err));
            told
        };
        let first = [("x/y", Reason::Socket), ("", Reason::Shrank)];
        let expected = [
            ("x/y", OmissionReason::Socket),
            ("", OmissionReason::Shrank),
        ];
        let expected = expected.map(|(path, reason)| Omission {
            path: path.into(),
            reason,
        });
        let omissions = Omissions {
            count: 7,
            first: expected.into(),
        };
        assert_eq!(
            told(7, &first).unwrap(),
            DownloadPiece::Omissions(omissions)
        );
        let most = vec![("x", Reason::Vanished); OMISSIONS_TOLD_MAX];
        told(i64::MAX, &most).unwrap();
        for (count, first) in [
            (-1, &[][..]),
            (1, &first[..]),
            (100, &vec![("x", Reason::Vanished); OMISSIONS_TOLD_MAX + 1]),
            (1, &[("../x", Reason::Socket)]),
            (1, &[("/x", Reason::Socket)]),
            (1, &[("x", Reason::Unspecified)]),
        ] {
            assert!(told(count, first).is_err(), "{count} {first:?}");
        }
    }

    #[test]
    fn of_what_no_archive_holds_a_tree_has_nothing_else() {
        let mut checker = Checker::new(Top::Entry);
        assert!(checker.end().is_err());
        checker
            .check(omissions(1, &[("", Reason::Socket)]))
            .unwrap();
        checker.end().unwrap();
    }

    #[test]
    fn paths_that_leave_the_tree_are_refused() {
        for path in ["..", "a/../b", "/a", "a//b", "a/", ".", "a/./b", "a\0b"] {
            let checked = Checker::new(Top::Directory).check(entry(path, 0));
            assert!(checked.is_err(), "{path:?}");
        }
        assert!(
            Checker::new(Top::Directory)
                .check(entry("a/.b/..c", 0))
                .is_ok()
        );
    }

    #[test]
    fn a_file_has_the_length_it_was_said_to_have() {
        let mut checker = Checker::new(Top::Directory);
        assert!(checker.check(data(1)).is_err());
        checker.check(entry("a", 3)).unwrap();
        checker.check(data(2)).unwrap();
        assert!(checker.end().is_err());
        assert!(checker.check(entry("b", 0)).is_err());
        assert!(checker.check(data(2)).is_err());
        checker.check(data(1)).unwrap();
        checker.end().unwrap();
        assert!(checker.check(entry("c", -1)).is_err());
    }

    #[test]
    fn only_the_first_entry_may_be_the_tree_itself() {
        assert!(Checker::new(Top::Directory).check(entry("", 0)).is_err());
        let mut checker = Checker::new(Top::Entry);
        assert!(checker.end().is_err());
        assert!(checker.check(entry("a", 0)).is_err());
        checker.check(entry("", 0)).unwrap();
        assert!(checker.check(entry("", 0)).is_err());
    }

    #[test]
    fn a_tree_is_bounded() {
        let mut checker = Checker::new(Top::Directory);
        let size = i64::try_from(TREE_BYTES_MAX).unwrap() + 1;
        assert!(checker.check(entry("a", size)).is_err());
        let mut checker = Checker::new(Top::Directory);
        checker.entries = TREE_ENTRIES_MAX;
        assert!(checker.check(entry("a", 0)).is_err());
    }
}
