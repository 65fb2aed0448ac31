//! Images that come while others are removed and pruned; and files that went without anybody's doing.

use banger_proto::v1;
use banger_proto::v1::pull_image_response::Message;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code, Streaming};

use crate::images::FILES_OF_A_DISK;
use crate::rig::{PATIENCE, Rig, assert_refused, drain};

/// Rounds of images that come and go at the same time.
const ROUNDS: usize = 15;

/// A pull that goes on until it is given up: its registry takes the connection and never answers.
struct Pull {
    operation: String,
    answers: Streaming<v1::PullImageResponse>,
    _registry: TcpListener,
    _connection: TcpStream,
}

impl Pull {
    async fn begin(rig: &Rig) -> Self {
        let registry = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pull = v1::PullImageRequest {
            reference: format!("{}/app:1", registry.local_addr().unwrap()),
            ..Default::default()
        };
        let mut answers = rig.images().pull_image(pull).await.unwrap().into_inner();
        let Some(Message::Operation(operation)) = answers.message().await.unwrap().unwrap().message
        else {
            panic!("a pull begins with its operation")
        };
        let accepted = tokio::time::timeout(PATIENCE, registry.accept()).await;
        let (connection, _) = accepted.unwrap().unwrap();
        Self {
            operation: operation.id,
            answers,
            _registry: registry,
            _connection: connection,
        }
    }

    async fn end(self, rig: &Rig) {
        let request = v1::CancelOperationRequest {
            operation: self.operation,
        };
        rig.operations().cancel_operation(request).await.unwrap();
        drain(self.answers).await.unwrap_err();
    }
}

fn all() -> v1::PruneImagesRequest {
    v1::PruneImagesRequest {
        all: true,
        ..Default::default()
    }
}

impl Rig {
    async fn all_images(&self) -> Vec<v1::Image> {
        let request = v1::ListImagesRequest::default();
        let answer = self.images().list_images(request).await.unwrap();
        answer.into_inner().images
    }

    /// Checks that every image's base disk and manifest are there.
    async fn assert_images_load(&self) {
        let state = self.dir.path().join("state");
        for image in self.all_images().await {
            let hex = image.digest.strip_prefix("sha256:").unwrap();
            let disk = state.join(format!("rootfs/{hex}-v3.ext4"));
            let manifest = state.join("blobs/sha256").join(hex);
            assert!(disk.is_file(), "{image:?} has no {}", disk.display());
            assert!(manifest.is_file(), "{image:?} has no manifest");
        }
    }

    /// Waits until nothing is left of any image.
    async fn emptied(&self) {
        let gone = async {
            while self.files_below("rootfs") + self.files_below("blobs/sha256") > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), gone).await;
        in_time.expect("what was put off is swept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_beside_a_pull_goes_when_the_pull_ends() {
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    let blobs = rig.files_below("blobs/sha256");
    let pull = Pull::begin(&rig).await;
    let removed = rig.remove_image("web:1").await.unwrap();
    assert!(removed.image_removed && removed.deferred, "{removed:?}");
    assert_eq!(removed.freed_bytes, 0);
    let pruned = rig.prune(all()).await;
    assert!(pruned.deferred && pruned.removed_files == 0, "{pruned:?}");
    // Another pull of the same image may have found them.
    assert_eq!(
        (rig.files_below("rootfs"), rig.files_below("blobs/sha256")),
        (FILES_OF_A_DISK, blobs)
    );
    pull.end(&rig).await;
    rig.emptied().await;
    assert!(!rig.prune(all()).await.deferred);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_told_of_is_not_swept_later() {
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    let state = rig.dir.path().join("state");
    std::fs::write(state.join("blobs/sha256/stray"), "stray").unwrap();
    let pull = Pull::begin(&rig).await;
    let dry = v1::PruneImagesRequest {
        dry_run: true,
        ..all()
    };
    assert!(rig.prune(dry.clone()).await.deferred);
    pull.end(&rig).await;
    // Told of again, when it can be: then whatever the pull's end began is over too.
    let told = async {
        while rig.prune(dry.clone()).await.deferred {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told)
        .await
        .expect("the pull has ended");
    assert!(state.join("blobs/sha256/stray").is_file());
    assert_eq!(rig.files_below("rootfs"), FILES_OF_A_DISK);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_removed_beside_it_an_image_that_is_told_to_be_here_is_here() {
    let rig = Rig::start().await;
    let digest = {
        rig.register("web:1").await.unwrap();
        rig.all_images().await[0].digest.clone()
    };
    for _ in 0..ROUNDS {
        let register = async |name: &str| {
            if let Err(error) = rig.register(name).await {
                // It came, and was removed before it could be told of.
                assert_refused(&error, Code::NotFound, "IMAGE_NOT_FOUND", None);
            }
        };
        let remove = async || {
            // Another may have removed it already.
            let _ = rig.remove_image(&digest).await;
        };
        let prune = async || rig.prune(all()).await;
        tokio::join!(
            register("web:1"),
            remove(),
            prune(),
            register("web:2"),
            remove(),
            register("web:3"),
            prune(),
        );
        rig.assert_images_load().await;
        rig.register("web:1").await.unwrap();
        rig.assert_images_load().await;
    }
    rig.remove_image(&digest).await.unwrap();
    rig.emptied().await;
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_manifest_is_gone_keeps_no_daemon_from_serving() {
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    let image = rig.all_images().await.pop().unwrap();
    let state = rig.dir.path().join("state");
    let manifest = {
        let hex = image.digest.strip_prefix("sha256:").unwrap();
        state.join("blobs/sha256").join(hex)
    };
    let strays = ["blobs/sha256/stray", "rootfs/stray.ext4"].map(|stray| state.join(stray));
    for stray in &strays {
        std::fs::write(stray, "stray").unwrap();
    }
    std::fs::remove_file(&manifest).unwrap();
    let (dir, host) = rig.stopped().await;
    let rig = Rig::start_in(dir, host).await;
    // Which blobs the image needs is not known: all stay. Which disk is its own is.
    assert_eq!(
        strays.each_ref().map(|stray| stray.is_file()),
        [true, false]
    );
    let usage = rig.usage().await;
    assert!(usage.images[0].rootfs_bytes > 0, "{usage:?}");
    assert_eq!(usage.images[0].blob_bytes, 0, "{usage:?}");
    assert!(
        rig.prune(v1::PruneImagesRequest::default())
            .await
            .images
            .is_empty()
    );

    // It comes again, and is whole.
    rig.register("web:1").await.unwrap();
    assert!(manifest.is_file());
    assert!(rig.usage().await.images[0].blob_bytes > 0);
    rig.prune(v1::PruneImagesRequest::default()).await;
    assert!(!strays[0].exists());

    // A damaged one is as good as none, and is mended too.
    std::fs::write(&manifest, "{}").unwrap();
    rig.register("web:1").await.unwrap();
    assert_ne!(std::fs::read(&manifest).unwrap(), b"{}");

    std::fs::remove_file(&manifest).unwrap();
    assert!(rig.remove_image("web:1").await.unwrap().image_removed);
    rig.emptied().await;
    rig.stopped().await;
}
