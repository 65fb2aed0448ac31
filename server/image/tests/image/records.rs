//! A layer that an image in the store has is taken from that image's disk, and the new disk is the same to the byte.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::support::disk::fsck;
use crate::support::{Tar, TestImage, nasty, noise, special};
use banger_core::Digest;
use banger_core::operation::{NoProgress, Progress, StageKey};
use banger_image::{
    BuiltImage, ImageStore, KeptKind, RegisterOptions, RegisterSource, StoreError, Sweep,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A store and what is registered in it.
struct Stand {
    directory: TempDir,
    store: ImageStore,
}

impl Stand {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&directory.path().join("state")).unwrap();
        Self { directory, store }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The same files, as the next process finds them.
    fn reopened(self) -> Self {
        let store = ImageStore::open(&self.state()).unwrap();
        Self { store, ..self }
    }

    async fn register(&self, layers: &[Vec<u8>]) -> Result<BuiltImage, StoreError> {
        self.register_watched(layers, &NoProgress).await
    }

    async fn register_watched(
        &self,
        layers: &[Vec<u8>],
        progress: &dyn Progress,
    ) -> Result<BuiltImage, StoreError> {
        let layout = tempfile::tempdir_in(self.directory.path()).unwrap();
        TestImage::of(layers).write_layout(layout.path());
        let source = RegisterSource::OciLayout {
            path: layout.path().to_owned(),
            image: None,
        };
        let options = RegisterOptions {
            platform: "linux/amd64".parse().unwrap(),
        };
        self.store
            .register(source, &options, progress, &CancellationToken::new())
            .await
    }

    /// Makes nonsense of the blobs of these layers: whoever reads one fails.
    fn spoil(&self, layers: &[Vec<u8>]) {
        for layer in TestImage::of(layers).layers {
            let path = self.state().join("blobs/sha256").join(layer.hex());
            let len = fs::metadata(&path).unwrap().len();
            fs::write(&path, vec![0x55; usize::try_from(len).unwrap()]).unwrap();
        }
    }
}

fn small() -> Vec<u8> {
    Tar::new()
        .dir("etc/")
        .file("etc/second", b"second")
        .finish()
}

fn digest(image: &BuiltImage) -> Digest {
    Digest::of(&fs::read(&image.rootfs_path).unwrap())
}

fn record(image: &BuiltImage) -> PathBuf {
    image.rootfs_path.with_extension("layers")
}

/// What a store that knows nothing makes of it.
async fn afresh(layers: &[Vec<u8>]) -> Digest {
    digest(&Stand::new().register(layers).await.unwrap())
}

#[tokio::test]
async fn a_shared_layer_comes_from_the_other_images_disk_byte_for_byte() {
    let subjects = [
        Some(special::changes()),
        Some(special::names()),
        Some(special::metadata()),
        special::sparse(),
        Some(nasty::nasty()),
        Some(vec![Tar::new().file("large", &noise(7, 9 << 20)).finish()]),
    ];
    for lowest in subjects.into_iter().flatten() {
        // Only what nothing of the first image hides is sure to be on its disk.
        let first = vec![lowest[0].clone()];
        let second = vec![lowest[0].clone(), small()];
        let stand = Stand::new();
        let image = stand.register(&first).await.unwrap();
        let oldest = image.digest;
        assert!(record(&image).is_file());
        stand.spoil(&first);
        let image = stand.register(&second).await.unwrap();
        fsck(&image.rootfs_path);
        assert_eq!(digest(&image), afresh(&second).await);
        // And from that one's disk, which was made of the other's.
        let stand = stand.reopened();
        let third = vec![lowest[0].clone(), small(), Tar::new().dir("more/").finish()];
        stand.spoil(&second);
        stand.store.remove(oldest).unwrap();
        let image = stand.register(&third).await.unwrap();
        assert_eq!(digest(&image), afresh(&third).await);
        assert!(crate::support::leftovers(&stand.state()).is_empty());
    }
}

/// For each stage what it was to move, and what it moved.
#[derive(Default)]
struct Moved(Mutex<BTreeMap<String, (Option<u64>, u64)>>);

impl Progress for Moved {
    fn start(&self, key: &StageKey, total_bytes: Option<u64>) {
        let mut stages = self.0.lock().unwrap();
        stages.entry(key.name.to_string()).or_default().0 = total_bytes;
    }

    fn advance(&self, key: &StageKey, delta_bytes: u64) {
        let mut stages = self.0.lock().unwrap();
        stages.entry(key.name.to_string()).or_default().1 += delta_bytes;
    }

    fn finish(&self, _: &StageKey) {}
}

#[tokio::test]
async fn what_is_told_of_the_conversion_adds_up_wherever_the_files_come_from() {
    let large = Tar::new()
        .file("large", &noise(7, 3 << 20))
        .file("hidden", &noise(8, 1 << 20))
        .finish();
    let stand = Stand::new();
    // In their places already, and copied from the other disk, one of them hidden.
    let second = Tar::new().file(".wh.hidden", b"").finish();
    for (layers, bytes, copied) in [
        (vec![large.clone()], 4 << 20, None),
        (vec![large.clone(), second], 3 << 20, Some(4 << 20)),
    ] {
        let moved = Moved::default();
        stand.register_watched(&layers, &moved).await.unwrap();
        let stages = moved.0.into_inner().unwrap();
        assert_eq!(stages["convert"], (Some(bytes), bytes));
        let copied = copied.map(|bytes| (Some(bytes), bytes));
        assert_eq!(stages.get("copy").copied(), copied);
    }
}

#[tokio::test]
async fn a_file_that_the_other_image_hides_comes_from_the_blob() {
    let lower = Tar::new()
        .file("hidden", &noise(1, 50_000))
        .file("seen", &noise(2, 50_000))
        .finish();
    let hiding = Tar::new().file(".wh.hidden", b"").finish();
    let stand = Stand::new();
    stand
        .register(&[lower.clone(), hiding.clone()])
        .await
        .unwrap();
    let wanted = [lower.clone()];
    let image = stand.register(&wanted).await.unwrap();
    assert_eq!(digest(&image), afresh(&wanted).await);
    // Now one image has them all: the other's record is not looked at.
    stand.spoil(&[lower.clone(), hiding.clone()]);
    let wanted = [lower.clone(), small()];
    let image = stand.register(&wanted).await.unwrap();
    assert_eq!(digest(&image), afresh(&wanted).await);
    // What is hidden again need not be anywhere.
    let wanted = [lower, hiding, small()];
    let image = stand.register(&wanted).await.unwrap();
    assert_eq!(digest(&image), afresh(&wanted).await);
}

#[tokio::test]
async fn of_a_file_that_is_copied_and_then_found_hidden_nothing_is_left() {
    let lower = Tar::new()
        .file("one", &noise(1, 200_000))
        .file("two", &noise(2, 200_000))
        .finish();
    let hiding = |name: &str| Tar::new().file(&format!(".wh.{name}"), b"").finish();
    let stand = Stand::new();
    let first = [lower.clone(), hiding("one")];
    stand.register(&first).await.unwrap();
    // `two` is on the way from the first disk when it turns out that `one` is not there.
    let second = [lower.clone(), hiding("two")];
    let image = stand.register(&second).await.unwrap();
    assert_eq!(digest(&image), afresh(&second).await);
    // All that is needed is there.
    let third = [lower, small(), hiding("one"), hiding("two")];
    let image = stand.register(&third).await.unwrap();
    assert_eq!(digest(&image), afresh(&third).await);
    assert!(crate::support::leftovers(&stand.state()).is_empty());
}

fn touch(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    file.set_modified(long_ago).unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_record_that_is_not_what_it_was_is_not_believed() {
    let base = Tar::new().file("file", &noise(3, 100_000)).finish();
    let harms: [fn(&BuiltImage); 6] = [
        |image| fs::remove_file(record(image)).unwrap(),
        |image| fs::write(record(image), b"").unwrap(),
        |image| flip(&record(image), 0),
        // Among the entries, and in the table.
        |image| flip(&record(image), 20),
        |image| {
            let len = usize::try_from(fs::metadata(record(image)).unwrap().len()).unwrap();
            flip(&record(image), len - 100);
        },
        // Whoever touched the disk may have changed it.
        |image| touch(&image.rootfs_path),
    ];
    for (number, harm) in harms.iter().enumerate() {
        let stand = Stand::new();
        let image = stand.register(std::slice::from_ref(&base)).await.unwrap();
        harm(&image);
        let stand = stand.reopened();
        let wanted = [base.clone(), small()];
        let image = stand.register(&wanted).await.unwrap();
        assert_eq!(digest(&image), afresh(&wanted).await, "{number}");
        // Nothing but the blob was read, as its loss shows. A magic that nobody looks at is no harm.
        let stand = Stand::new();
        let image = stand.register(std::slice::from_ref(&base)).await.unwrap();
        harm(&image);
        stand.spoil(std::slice::from_ref(&base));
        let result = stand.reopened().register(&wanted).await;
        assert_eq!(result.is_err(), number != 2, "{number}");
    }
}

#[tokio::test]
async fn the_same_archive_in_another_compression_is_fetched() {
    let plain = Tar::new().file("file", &noise(4, 10_000)).finish();
    let stand = Stand::new();
    stand.register(std::slice::from_ref(&plain)).await.unwrap();
    // A blob of this digest was never seen: that it holds the same has to be shown.
    let other = TestImage::new(&[(b"no archive".to_vec(), Digest::of(&plain))]);
    let layout = stand.directory.path().join("other");
    other.write_layout(&layout);
    let source = RegisterSource::OciLayout {
        path: layout,
        image: None,
    };
    let options = RegisterOptions {
        platform: "linux/amd64".parse().unwrap(),
    };
    let result = stand
        .store
        .register(source, &options, &NoProgress, &CancellationToken::new())
        .await;
    assert!(result.is_err());
}

#[tokio::test]
async fn a_record_is_counted_kept_and_removed_with_its_image() {
    let stand = Stand::new();
    let base = Tar::new().file("file", &noise(5, 10_000)).finish();
    let (one, two) = ([base.clone()], [base.clone(), small()]);
    let first = stand.register(&one).await.unwrap();
    let second = stand.register(&two).await.unwrap();
    let kept = stand.store.files_of(first.digest).kept;
    let kept = kept
        .iter()
        .find(|file| file.path == record(&first))
        .unwrap();
    assert_eq!(kept.kind, KeptKind::Rootfs);
    assert!(kept.bytes > 0);

    let all = [first.digest, second.digest].into();
    let pruned = stand.store.prune(&all, Sweep::Remove).unwrap();
    assert_eq!(pruned.files, 0);
    assert!(record(&first).is_file() && record(&second).is_file());
    stand.store.remove(first.digest).unwrap();
    assert!(!record(&first).exists());
    let pruned = stand.store.prune(&[].into(), Sweep::Remove).unwrap();
    assert!(pruned.files > 0);
    let rootfs = stand.state().join("rootfs");
    assert_eq!(fs::read_dir(rootfs).unwrap().count(), 0);
}
