use std::io::Write as _;
use std::path::Path;

use banger_core::{Explain as _, FailureKind};
use banger_store::{Store, StoreError};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::support::{file_in, raw, vm};

/// A file system of two MiB that goes with its directory.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        mount(
            "tmpfs",
            dir.path(),
            "tmpfs",
            MountFlags::empty(),
            c"size=2m",
        )
        .ok()?;
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[0; 1024]).is_ok() {}
}

async fn write_until_refused(store: &Store) -> StoreError {
    for index in 0..10_000 {
        if let Err(error) = store.insert_vm(&vm(&format!("vm-{index}"))).await {
            return error;
        }
    }
    panic!("the disk never became full");
}

#[tokio::test]
async fn a_full_disk_is_exhausted_and_passes_when_space_is_freed() {
    let Some(disk) = SmallDisk::new() else {
        eprintln!(
            "SKIPPED disk_full::a_full_disk_is_exhausted_and_passes_when_space_is_freed: needs the right to mount a tmpfs"
        );
        return;
    };
    let store = Store::open(&file_in(disk.path())).await.unwrap();
    let before = vm("before");
    store.insert_vm(&before).await.unwrap();
    let filler = disk.path().join("filler");
    fill(&filler);
    for _ in 0..3 {
        let error = write_until_refused(&store).await;
        assert_eq!(error.reason(), "DISK_FULL", "{error:?}");
        assert!(matches!(
            error.kind(),
            FailureKind::ResourceExhausted { .. }
        ));
        assert!(error.remedy().is_some());
    }
    let read = store.get_vm(before.id).await.unwrap();
    assert_eq!(read, Some(before), "reading goes on");
    std::fs::remove_file(&filler).unwrap();
    store.insert_vm(&vm("after")).await.unwrap();
    store.close().await;
    let report: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut raw(&file_in(disk.path())).await)
        .await
        .unwrap();
    assert_eq!(report, "ok");
}

#[tokio::test]
async fn a_new_database_on_a_full_disk_is_exhausted() {
    let Some(disk) = SmallDisk::new() else {
        eprintln!(
            "SKIPPED disk_full::a_new_database_on_a_full_disk_is_exhausted: needs the right to mount a tmpfs"
        );
        return;
    };
    let filler = disk.path().join("filler");
    fill(&filler);
    let file = file_in(disk.path());
    let error = Store::open(&file).await.map(|_| ()).unwrap_err();
    assert_eq!(error.reason(), "DISK_FULL", "{error:?}");
    std::fs::remove_file(&filler).unwrap();
    Store::open(&file).await.unwrap().close().await;
}
