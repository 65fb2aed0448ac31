//! What is done for an image while layers of it still come: its files are copied from other images' disks, its tree is
//! made, and a damaged layer is found.
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use banger_core::operation::{NoProgress, Progress, StageKey};
use banger_core::{Digest, Explain as _};
use banger_image::{BuiltImage, ImageStore, PullOptions, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::disk::{SmallDisk, fsck};
use crate::support::{Answer, Registry, Tar, TestImage, Then, leftovers, noise};

/// Longer than any of these may take.
const LONG: Duration = Duration::from_secs(120);

/// Which stages have ended, and what they moved.
struct Stages(watch::Sender<BTreeMap<String, (u64, bool)>>);

impl Stages {
    fn new() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }

    /// Waits for the end of a stage: what it moved.
    async fn end_of(&self, stage: &str) -> u64 {
        let mut stages = self.0.subscribe();
        let ended = stages.wait_for(|stages| stages.get(stage).is_some_and(|(_, ended)| *ended));
        let ended = tokio::time::timeout(LONG, ended).await;
        ended.expect("it ends").unwrap()[stage].0
    }

    fn has(&self, stage: &str) -> bool {
        self.0.borrow().contains_key(stage)
    }
}

impl Progress for Stages {
    fn start(&self, key: &StageKey, _: Option<u64>) {
        self.0.send_modify(|stages| {
            stages.entry(key.name.clone()).or_default();
        });
    }

    fn advance(&self, key: &StageKey, delta_bytes: u64) {
        self.0
            .send_modify(|stages| stages.entry(key.name.clone()).or_default().0 += delta_bytes);
    }

    fn finish(&self, key: &StageKey) {
        self.0
            .send_modify(|stages| stages.entry(key.name.clone()).or_default().1 = true);
    }
}

/// A registry that serves one of the image's layers byte by byte, for as long as a test needs.
async fn slow(image: &TestImage, layer: usize) -> Registry {
    let (digest, slow) = (image.layers[layer], image.clone());
    let name = digest.to_string();
    let handler = move |request: &crate::support::Request| {
        request.path.ends_with(&name).then(|| Answer {
            then: Then::Trickle,
            ..Answer::ok(slow.blobs[&digest].clone())
        })
    };
    Registry::of(image.clone(), handler).await
}

async fn pull(
    store: &ImageStore,
    registry: &Registry,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BuiltImage, StoreError> {
    let options = PullOptions {
        stall_timeout: LONG,
        platform: "linux/amd64".parse().unwrap(),
        ..PullOptions::default()
    };
    let reference = format!("{}/test/image:1", registry.host).parse().unwrap();
    let pulled = store.pull(&reference, &options, progress, cancel);
    let pulled = tokio::time::timeout(LONG, pulled).await;
    pulled.expect("it ends")
}

/// Without anybody who watches or cancels.
async fn pull_whole(store: &ImageStore, registry: &Registry) -> BuiltImage {
    let pulled = pull(store, registry, &NoProgress, &CancellationToken::new()).await;
    pulled.unwrap()
}

fn base(bytes: usize) -> Vec<u8> {
    Tar::new().file("base", &noise(21, bytes)).finish()
}

/// Something of its own on a common base.
fn upon(base: &[u8], number: u32) -> TestImage {
    let own = Tar::new().file("own", &noise(number, 20_000)).finish();
    TestImage::of(&[base.to_vec(), own])
}

/// A store with an image of `base` alone.
async fn store_with(directory: &Path, base: &[u8]) -> ImageStore {
    let store = ImageStore::open(directory).unwrap();
    let image = TestImage::of(&[base.to_vec()]);
    pull_whole(&store, &Registry::of(image, |_| None).await).await;
    store
}

fn disk_digest(image: &BuiltImage) -> Digest {
    fsck(&image.rootfs_path);
    Digest::of(&std::fs::read(&image.rootfs_path).unwrap())
}

#[tokio::test]
async fn what_another_disk_has_is_copied_while_layers_come_and_goes_with_a_cancelled_pull() {
    let state = tempfile::tempdir().unwrap();
    let base = base(3_000_000);
    let store = store_with(state.path(), &base).await;
    let slow = slow(&upon(&base, 1), 1).await;
    let (stages, cancel) = (Stages::new(), CancellationToken::new());
    let pulling = pull(&store, &slow, &stages, &cancel);
    let steps = async {
        assert_eq!(stages.end_of("copy").await, 3_000_000);
        assert!(!stages.has("convert"));
        assert!(!leftovers(state.path()).is_empty());
        cancel.cancel();
    };
    let (pulled, ()) = tokio::join!(pulling, steps);
    assert_eq!(pulled.unwrap_err().reason(), "CANCELLED");
    assert!(leftovers(state.path()).is_empty());
}

#[tokio::test]
async fn who_finds_no_place_among_the_early_makes_the_same_disk_and_places_come_back() {
    let state = tempfile::tempdir().unwrap();
    let base = base(300_000);
    let store = store_with(state.path(), &base).await;
    let cancel = CancellationToken::new();
    let mut early = Vec::new();
    // Of these numbers each makes another noise.
    for number in [1, 3, 5, 7] {
        early.push((slow(&upon(&base, number), 1).await, Stages::new()));
    }
    let pulls = early
        .iter()
        .map(|(registry, stages)| pull(&store, registry, stages, &cancel));
    let steps = async {
        for (_, stages) in &early {
            stages.end_of("copy").await;
        }
        let late = Stages::new();
        let image = upon(&base, 9);
        let registry = Registry::of(image.clone(), |_| None).await;
        let pulled = pull(&store, &registry, &late, &CancellationToken::new()).await;
        cancel.cancel();
        assert!(!late.has("copy"));
        let elsewhere = tempfile::tempdir().unwrap();
        let afresh = ImageStore::open(elsewhere.path()).unwrap();
        let afresh = pull_whole(&afresh, &registry).await;
        assert_eq!(disk_digest(&pulled.unwrap()), disk_digest(&afresh));
    };
    let (pulled, ()) = tokio::join!(futures::future::join_all(pulls), steps);
    for pulled in pulled {
        assert_eq!(pulled.unwrap_err().reason(), "CANCELLED");
    }
    let stages = Stages::new();
    let registry = Registry::of(upon(&base, 11), |_| None).await;
    let pulled = pull(&store, &registry, &stages, &CancellationToken::new()).await;
    pulled.unwrap();
    assert_eq!(stages.end_of("copy").await, 300_000);
    assert!(leftovers(state.path()).is_empty());
}

#[tokio::test]
async fn a_copy_that_has_no_room_ends_the_pull_though_a_layer_would_still_come() {
    let Some(small) = SmallDisk::mount("3m") else {
        return;
    };
    let base = base(1_200_000);
    let store = store_with(small.path(), &base).await;
    let slow = slow(&upon(&base, 1), 1).await;
    let pulled = pull(&store, &slow, &NoProgress, &CancellationToken::new()).await;
    assert_eq!(pulled.unwrap_err().reason(), "DISK_FULL");
    assert!(leftovers(small.path()).is_empty());
    store.drain().await;
    small.unmount();
}

#[tokio::test]
async fn a_damaged_layer_is_told_of_while_the_one_below_still_comes() {
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let lower = base(200_000);
    let upper = Tar::new().file("upper", &noise(22, 200_000)).finish();
    let mut damaged = crate::support::gzip(&upper);
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    let image = TestImage::new(&[
        (crate::support::gzip(&lower), Digest::of(&lower)),
        (damaged, Digest::of(&upper)),
    ]);
    let slow = slow(&image, 0).await;
    let pulled = pull(&store, &slow, &NoProgress, &CancellationToken::new()).await;
    assert_eq!(pulled.unwrap_err().reason(), "LAYER_DAMAGED");
    assert!(leftovers(state.path()).is_empty());
}
