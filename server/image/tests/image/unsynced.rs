//! What a pull did not wait for: synced by whoever comes next while the host runs on, and not believed after it did not.
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Registry, Tar, TestImage, noise};
use banger_core::operation::NoProgress;
use banger_core::{Digest, Explain};
use banger_image::{
    BuiltImage, ImageStore, LossCause, PullOptions, RegisterOptions, RegisterSource, StoreError,
    Sweep,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A state directory, and a registry beside it.
struct Stand {
    directory: TempDir,
    runtime: Runtime,
    registry: Registry,
    image: TestImage,
}

impl Stand {
    fn new() -> Self {
        let layers = [
            Tar::new().file("lower", &noise(3, 300_000)).finish(),
            Tar::new().file("upper", &noise(5, 200_000)).finish(),
        ];
        let image = TestImage::of(&layers);
        let runtime = Runtime::new().unwrap();
        let registry = runtime.block_on(Registry::of(image.clone(), |_| None));
        Self {
            directory: tempfile::tempdir().unwrap(),
            runtime,
            registry,
            image,
        }
    }

    fn state(&self) -> &Path {
        self.directory.path()
    }

    fn open(&self) -> ImageStore {
        ImageStore::open(self.state()).unwrap()
    }

    async fn pull(&self, store: &ImageStore) -> Result<BuiltImage, StoreError> {
        let reference = format!("{}/test/image:1", self.registry.host);
        let options = PullOptions {
            platform: "linux/amd64".parse().unwrap(),
            ..PullOptions::default()
        };
        let cancel = CancellationToken::new();
        store
            .pull(&reference.parse().unwrap(), &options, &NoProgress, &cancel)
            .await
    }

    /// A pull by a daemon that dies when it has answered.
    fn pull_and_die(&self) -> BuiltImage {
        let daemon = Runtime::new().unwrap();
        let store = self.open();
        let built = daemon.block_on(self.pull(&store)).unwrap();
        daemon.shutdown_background();
        built
    }

    /// The boot of the host, as the marks have it.
    fn boot(&self) -> PathBuf {
        let boots: Vec<_> = fs::read_dir(self.state().join("unsynced"))
            .unwrap()
            .collect();
        assert_eq!(boots.len(), 1, "{boots:?}");
        boots.into_iter().next().unwrap().unwrap().path()
    }

    fn marks(&self) -> HashSet<String> {
        let marks = fs::read_dir(self.boot()).unwrap();
        let name = |mark: fs::DirEntry| mark.file_name().into_string().unwrap();
        marks.map(|mark| name(mark.unwrap())).collect()
    }

    /// Has the host be another one, or started anew.
    fn boot_anew(&self) {
        fs::rename(self.boot(), self.state().join("unsynced/another-boot")).unwrap();
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.state().join("blobs/sha256").join(digest.hex())
    }
}

/// What a disk makes of a file that it did not take: it is as long, and empty.
fn empty(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(0).unwrap();
    file.set_len(len).unwrap();
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn what_the_host_did_not_keep_is_gone_and_is_pulled_again() {
    let stand = Stand::new();
    let built = stand.pull_and_die();
    let disk = fs::read(&built.rootfs_path).unwrap();
    let layers = stand.image.layers.iter();
    let mut expected: HashSet<_> = layers.map(Digest::hex).collect();
    expected.insert(name(&built.rootfs_path));
    assert_eq!(stand.marks(), expected);

    stand.boot_anew();
    empty(&built.rootfs_path);
    for layer in &stand.image.layers {
        empty(&stand.blob(*layer));
    }
    let store = stand.open();
    let lost = store.take_losses().pop().unwrap();
    assert_eq!(lost.digest, built.digest);
    assert!(matches!(lost.cause, LossCause::HostEnded), "{lost:?}");
    assert_eq!(
        store.load(built.digest).unwrap_err().reason(),
        "IMAGE_NOT_FOUND"
    );
    assert!(!built.rootfs_path.with_extension("layers").exists());
    assert_eq!(stand.marks(), HashSet::new());

    let again = stand.runtime.block_on(stand.pull(&store)).unwrap();
    assert!(fs::read(&again.rootfs_path).unwrap() == disk);
    stand.runtime.block_on(store.drain());
    assert_eq!(stand.marks(), HashSet::new());
    // From now on no start of the host matters.
    drop(store);
    stand.boot_anew();
    let store = stand.open();
    store.load(built.digest).unwrap();
    assert!(store.take_losses().is_empty());
}

#[test]
fn what_only_the_daemon_did_not_survive_is_kept_and_synced() {
    let stand = Stand::new();
    let built = stand.pull_and_die();
    assert_eq!(stand.marks().len(), 3);
    let store = stand.open();
    store.load(built.digest).unwrap();
    assert_eq!(stand.marks().len(), 3);
    stand.runtime.block_on(async {
        store.sync_soon();
        store.drain().await;
    });
    assert_eq!(stand.marks(), HashSet::new());
    store.load(built.digest).unwrap();
    assert!(store.take_losses().is_empty());
}

#[test]
fn a_mark_of_a_file_that_never_came_tells_of_no_loss() {
    let stand = Stand::new();
    let absent = Digest::of(b"absent");
    drop(stand.open());
    let mark = |of: String| fs::write(stand.boot().join(of), "").unwrap();
    mark(absent.hex());
    mark(format!("{}-v3.ext4", absent.hex()));
    drop(stand.open());
    assert_eq!(stand.marks(), HashSet::new(), "nobody writes them any more");
    mark(format!("{}-v3.ext4", absent.hex()));
    stand.boot_anew();
    let store = stand.open();
    assert!(store.take_losses().is_empty());
    assert_eq!(stand.marks(), HashSet::new());
}

#[test]
fn what_cannot_be_fetched_again_is_on_the_disk_when_it_is_told_to_be_here() {
    let stand = Stand::new();
    let layout = tempfile::tempdir().unwrap();
    stand.image.write_layout(layout.path());
    let source = RegisterSource::OciLayout {
        path: layout.path().to_owned(),
        image: None,
    };
    let options = RegisterOptions {
        platform: "linux/amd64".parse().unwrap(),
    };
    // A pull of the same has not synced it.
    let pulled = stand.pull_and_die();
    let store = stand.open();
    let cancel = CancellationToken::new();
    let registering = store.register(source, &options, &NoProgress, &cancel);
    let registered = stand.runtime.block_on(registering).unwrap();
    assert_eq!(registered.digest, pulled.digest);
    assert_eq!(stand.marks(), HashSet::new());
}

#[test]
fn the_marks_of_what_is_removed_go_with_it() {
    let stand = Stand::new();
    stand.pull_and_die();
    let store = stand.open();
    store.prune(&HashSet::new(), Sweep::Remove).unwrap();
    assert_eq!(stand.marks(), HashSet::new());
    let again = stand.pull_and_die();
    assert_eq!(stand.marks().len(), 3);
    store.load(again.digest).unwrap();
}

#[test]
fn a_pull_that_fails_leaves_marks_of_what_came_alone() {
    let stand = Stand::new();
    let mut image = stand.image.clone();
    let bad = image.layers[1];
    image.blobs.insert(bad, b"something else".to_vec());
    let registry = stand.runtime.block_on(Registry::of(image, |_| None));
    let stand = Stand { registry, ..stand };
    let daemon = Runtime::new().unwrap();
    let store = stand.open();
    daemon.block_on(stand.pull(&store)).unwrap_err();
    daemon.shutdown_background();
    let came = stand.marks();
    assert!(!came.contains(&bad.hex()));
    assert!(
        came.iter()
            .all(|mark| stand.state().join("blobs/sha256").join(mark).is_file())
    );
}
