//! Files that a new VM is given, once, before it is running. They are in memory for as long as the creation goes on,
//! and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path};

use banger_core::Timestamp;
use banger_core::guest::{Guest, GuestError};
use banger_core::setup::{FILES_BYTES_MAX, FILES_MAX, PATH_BYTES_MAX};
use banger_core::tree::{Naming, TreeEntry, TreeKind, TreePiece, TreePlace};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;

use crate::error::AppError;

/// The highest mode: permission bits with setuid, setgid and sticky.
const MODE_MAX: u16 = 0o7777;
/// The longest word for an owner, bytes.
const OWNER_BYTES_MAX: usize = 256;
/// The field's path in the request.
const FIELD: &str = "files";

/// A file for a new VM.
#[derive(Clone, PartialEq, Eq)]
pub struct VmFile {
    /// Absolute in the guest.
    pub path: String,
    /// All of it.
    pub content: Bytes,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Whose it is, by the guest's own databases; empty means root's.
    pub owner: String,
}

/// The content may be secret.
impl fmt::Debug for VmFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmFile")
            .field("path", &self.path)
            .field("length", &self.content.len())
            .field("mode", &self.mode)
            .field("owner", &self.owner)
            .finish()
    }
}

/// Whether a path leads from the guest's root to something in it, without a way up.
pub(super) fn is_plain_path(path: &str) -> bool {
    let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    path.starts_with('/')
        && path.len() <= PATH_BYTES_MAX
        && !path.contains('\0')
        && !path.ends_with('/')
        && Path::new(path).components().all(is_plain)
        && Path::new(path).file_name().is_some()
}

/// Checks the files of a request.
pub(super) fn check(files: &[VmFile]) -> Result<(), AppError> {
    let invalid = |problem: String| {
        Err(AppError::Invalid {
            field: FIELD,
            problem,
        })
    };
    if files.len() > FILES_MAX {
        return invalid(format!(
            "has {} entries, and may have {FILES_MAX}",
            files.len()
        ));
    }
    let bytes: usize = files.iter().map(|file| file.content.len()).sum();
    if bytes > FILES_BYTES_MAX {
        return invalid(format!(
            "has {bytes} bytes of content, and may have {FILES_BYTES_MAX}"
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    for file in files {
        let shown = file.path.chars().take(PATH_BYTES_MAX).collect::<String>();
        if !is_plain_path(&file.path) {
            return invalid(format!(
                "has the path {shown:?}, which is not an absolute path of a file without `..`"
            ));
        }
        if file.mode > MODE_MAX {
            return invalid(format!("has a mode above {MODE_MAX:04o} for {shown:?}"));
        }
        if file.owner.len() > OWNER_BYTES_MAX {
            return invalid(format!(
                "has an owner of more than {OWNER_BYTES_MAX} bytes for {shown:?}"
            ));
        }
        if !seen.insert(&file.path) {
            return invalid(format!("has {shown:?} twice"));
        }
    }
    Ok(())
}

/// Writes them, one after the other.
pub(super) async fn write(guest: &dyn Guest, files: &[VmFile]) -> Result<(), AppError> {
    let mut ids = BTreeMap::new();
    for file in files {
        let failed = |source| match source {
            // What is said of this file; the rest is said of the guest.
            source @ (GuestError::File { .. } | GuestError::UnknownUser { .. }) => {
                AppError::WriteFile {
                    path: file.path.clone(),
                    source,
                }
            }
            source => AppError::Configure { source },
        };
        let owner = match ids.get(&file.owner) {
            Some(owner) => *owner,
            None => {
                let owner = guest.resolve_user(&file.owner).await.map_err(failed)?;
                ids.insert(&file.owner, owner);
                owner
            }
        };
        let (place, pieces) = tree(file, owner);
        let source = stream::iter(pieces).boxed();
        guest.put_tree(&place, source).await.map_err(failed)?;
    }
    Ok(())
}

/// A file as a tree of one entry in its directory.
fn tree(file: &VmFile, owner: (u32, u32)) -> (TreePlace, Vec<TreePiece>) {
    let (directory, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let now = Timestamp::now();
    let entry = TreeEntry {
        path: name.into(),
        kind: TreeKind::File {
            size: file.content.len() as u64,
        },
        mode: file.mode,
        uid: owner.0,
        gid: owner.1,
        mtime: (
            now.as_second(),
            u32::try_from(now.subsec_nanosecond()).unwrap_or(0),
        ),
        xattrs: BTreeMap::new(),
    };
    let place = TreePlace {
        path: format!("{directory}/").into(),
        naming: Naming::Directory,
        owner,
    };
    let mut pieces = vec![TreePiece::Entry(Box::new(entry))];
    let data = file.content.chunks(PIECE_BYTES);
    pieces.extend(data.map(|data| TreePiece::Data(file.content.slice_ref(data))));
    (place, pieces)
}

/// Content is sent in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> VmFile {
        VmFile {
            path: path.into(),
            content: Bytes::from_static(b"x"),
            mode: 0o644,
            owner: String::new(),
        }
    }

    #[test]
    fn paths_lead_to_a_file_beneath_the_root() {
        for good in ["/a", "/a/b", "/a/..b", "//a/./b"] {
            assert!(check(&[file(good)]).is_ok(), "{good}");
        }
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX));
        for bad in ["", "/", "a", "/a/", "/../a", "/a/..", "/a\0b", "./a", &long] {
            assert!(check(&[file(bad)]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn their_number_and_bytes_are_bounded() {
        let many: Vec<_> = (0..=FILES_MAX).map(|n| file(&format!("/{n}"))).collect();
        assert!(check(&many[1..]).is_ok());
        assert_eq!(
            check(&many).unwrap_err().to_string(),
            "files has 65 entries, and may have 64"
        );
        let large = VmFile {
            content: vec![0; FILES_BYTES_MAX].into(),
            ..file("/large")
        };
        assert!(check(std::slice::from_ref(&large)).is_ok());
        assert!(check(&[large, file("/more")]).is_err());
        assert!(check(&[file("/a"), file("/a")]).is_err());
        assert!(
            check(&[VmFile {
                mode: 0o10000,
                ..file("/a")
            }])
            .is_err()
        );
    }

    #[test]
    fn content_is_not_shown() {
        let secret = VmFile {
            content: Bytes::from_static(b"secret"),
            ..file("/a")
        };
        assert!(!format!("{secret:?}").contains("secret"));
    }

    #[test]
    fn a_file_is_one_entry_in_its_directory() {
        let large = VmFile {
            content: vec![7; PIECE_BYTES + 1].into(),
            ..file("/opt/tool/run")
        };
        let (place, pieces) = tree(&large, (5, 6));
        assert_eq!(
            (place.path.as_slice(), place.owner),
            (&b"/opt/tool/"[..], (5, 6))
        );
        let lengths: Vec<usize> = pieces
            .iter()
            .map(|piece| match piece {
                TreePiece::Entry(entry) => entry.path.len(),
                TreePiece::Data(data) => data.len(),
            })
            .collect();
        assert_eq!(lengths, [3, PIECE_BYTES, 1]);
        assert_eq!(tree(&file("/a"), (0, 0)).0.path, b"/");
    }
}
