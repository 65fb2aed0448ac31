//! A guest with a user, whose files are used through both ends of the guest protocol.
#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub
)] // each test binary uses its part
#![allow(clippy::unwrap_used)] // helpers of tests, outside of test functions

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use banger_core::file::{
    FileAttributes, FileInfo, FilePlace, FileProblem, FileRange, FileWrite, WriteMode,
};
use banger_core::guest::GuestError;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Rig, rig_in};

/// A guest's root with one user, `app`, whose home is /home/app.
pub struct Guest {
    pub root: tempfile::TempDir,
    pub rig: Rig,
}

/// Another user than the one that this test runs as, where there can be one.
pub const APP: u32 = 4242;

impl Guest {
    pub async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["etc", "home", "home/app", "srv", "tmp"] {
            fs::create_dir(root.path().join(dir)).unwrap();
        }
        let passwd = format!("root:x:0:0::/root:/bin/sh\napp:x:{APP}:{APP}::/home/app:/bin/sh\n");
        fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        fs::write(
            root.path().join("etc/group"),
            format!("app:x:{APP}:\nstaff:x:50:app\n"),
        )
        .unwrap();
        fs::write(root.path().join("etc/shadow"), "secret").unwrap();
        let only_root = fs::Permissions::from_mode(0o600);
        fs::set_permissions(root.path().join("etc/shadow"), only_root).unwrap();
        if is_root() {
            std::os::unix::fs::chown(root.path().join("home/app"), Some(APP), Some(APP)).unwrap();
        }
        let rig = rig_in(root.path()).await;
        Self { root, rig }
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub async fn write(
        &self,
        place: &FilePlace,
        mode: WriteMode,
        content: &'static str,
    ) -> Result<FileInfo, GuestError> {
        let write = FileWrite {
            mode,
            attributes: FileAttributes::default(),
            make_parents: false,
        };
        let source = stream::iter([Bytes::from_static(content.as_bytes())]).boxed();
        self.rig.guest.write_file(place, &write, source).await
    }

    pub async fn read(&self, place: &FilePlace, range: FileRange) -> Result<Vec<u8>, GuestError> {
        let (_, content) = self.rig.guest.read_file(place, range).await?;
        Ok(content.try_collect::<Vec<_>>().await?.concat())
    }

    /// Nothing unfinished is left anywhere.
    pub fn assert_nothing_unfinished(&self) {
        let mut left = vec![self.root.path().to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                let name = entry.file_name();
                assert!(!name.to_string_lossy().starts_with(".banger"), "{name:?}");
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                }
            }
        }
    }
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// As the user that this test runs as.
pub fn own(path: &str) -> FilePlace {
    let uid = fs::metadata("/proc/self").unwrap().uid();
    let gid = fs::metadata("/proc/self").unwrap().gid();
    FilePlace {
        user: if uid == 0 {
            String::new()
        } else {
            format!("{uid}:{gid}")
        },
        path: path.into(),
    }
}

pub fn app(path: &str) -> FilePlace {
    FilePlace {
        user: "app".into(),
        path: path.into(),
    }
}

pub fn problem<T: std::fmt::Debug>(result: Result<T, GuestError>) -> FileProblem {
    match result {
        Err(GuestError::File { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

pub fn skipped(rule: &str) -> bool {
    if !is_root() {
        eprintln!("SKIPPED {rule}: only root may act as another user");
    }
    !is_root()
}
