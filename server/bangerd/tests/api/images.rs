//! Images: named, removed, pruned, counted; pulls given up.

use std::path::PathBuf;

use banger_proto::v1;
use banger_proto::v1::pull_image_response::Message;
use tonic::{Code, Status};

use crate::builds::files_below;
use crate::catalogs::pulled;
use crate::registry::{Registry, empty_layer};
use crate::rig::{PATIENCE, Rig, assert_refused, drain};

impl Rig {
    async fn tag(&self, image: &str, reference: &str, replace: bool) -> Result<v1::Image, Status> {
        let request = v1::TagImageRequest {
            image: image.into(),
            reference: reference.into(),
            replace,
            ..Default::default()
        };
        let answer = self.images().tag_image(request).await?.into_inner();
        Ok(answer.image.unwrap())
    }

    pub(crate) async fn remove_image(
        &self,
        image: &str,
    ) -> Result<v1::DeleteImageResponse, Status> {
        let request = v1::DeleteImageRequest {
            image: image.into(),
            ..Default::default()
        };
        Ok(self.images().delete_image(request).await?.into_inner())
    }

    pub(crate) async fn prune(&self, prune: v1::PruneImagesRequest) -> v1::PruneImagesResponse {
        self.images()
            .prune_images(prune)
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn usage(&self) -> v1::ListImageUsageResponse {
        let request = v1::ListImageUsageRequest::default();
        self.images()
            .list_image_usage(request)
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) fn files_below(&self, directory: &str) -> usize {
        let path = self.dir.path().join("state").join(directory);
        std::fs::read_dir(path).unwrap().count()
    }
}

/// A base disk, and the record of the layers on it.
pub(crate) const FILES_OF_A_DISK: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn an_image_has_as_many_references_as_it_is_given() {
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    let tagged = rig.tag("web:1", "web:latest", false).await.unwrap();
    let both = ["docker.io/library/web:1", "docker.io/library/web:latest"];
    assert_eq!(tagged.references, both);
    let digest = format!("web@{}", tagged.digest);
    let refused = rig.tag("web:1", &digest, false).await.unwrap_err();
    assert_refused(
        &refused,
        Code::InvalidArgument,
        "INVALID_FIELD",
        Some("reference"),
    );
    let missing = rig.tag("none:1", "web:2", false).await.unwrap_err();
    assert_refused(&missing, Code::NotFound, "IMAGE_NOT_FOUND", None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_reference_leaves_the_image_until_the_last_one() {
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    rig.tag("web:1", "web:2", false).await.unwrap();
    let first = rig.remove_image("web:1").await.unwrap();
    assert_eq!(first.removed_references, ["docker.io/library/web:1"]);
    assert_eq!((first.image_removed, first.freed_bytes), (false, 0));
    assert_eq!(rig.files_below("rootfs"), FILES_OF_A_DISK);
    let last = rig.remove_image("web:2").await.unwrap();
    assert!(last.image_removed && last.freed_bytes > 0, "{last:?}");
    assert_eq!(
        (rig.files_below("rootfs"), rig.files_below("blobs/sha256")),
        (0, 0)
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_by_its_digest_an_image_goes_with_all_references() {
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    let image = rig.tag("web:1", "web:2", false).await.unwrap();
    let removed = rig.remove_image(&image.digest).await.unwrap();
    assert_eq!(removed.removed_references.len(), 2);
    assert!(removed.image_removed);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_a_vm_uses_stays_and_the_vm_is_named() {
    let rig = Rig::start().await;
    rig.furnish().await;
    rig.create("web").await.unwrap();
    let refused = rig.remove_image("web:1").await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "IN_USE", None);
    assert!(refused.message().contains("VM `web`"), "{refused:?}");
    let all = v1::PruneImagesRequest {
        all: true,
        ..Default::default()
    };
    for prune in [
        all.clone(),
        v1::PruneImagesRequest {
            dry_run: true,
            ..all
        },
    ] {
        assert!(rig.prune(prune).await.images.is_empty());
    }
    assert_eq!(rig.usage().await.images[0].vms, ["web"]);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_tells_first_and_removes_only_what_has_no_reference() {
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    let kept = rig.prune(v1::PruneImagesRequest::default()).await;
    assert!(kept.images.is_empty());
    let dry = v1::PruneImagesRequest {
        all: true,
        dry_run: true,
        ..Default::default()
    };
    let told = rig.prune(dry.clone()).await;
    assert_eq!(told.images.len(), 1);
    assert!(told.freed_bytes > 0);
    assert_eq!(rig.files_below("rootfs"), FILES_OF_A_DISK);
    let young = v1::PruneImagesRequest {
        older_than_seconds: 3600,
        ..dry.clone()
    };
    assert!(rig.prune(young).await.images.is_empty());
    let done = rig
        .prune(v1::PruneImagesRequest {
            dry_run: false,
            ..dry
        })
        .await;
    assert_eq!(
        (done.freed_bytes, done.removed_files),
        (told.freed_bytes, told.removed_files)
    );
    assert_eq!(
        (rig.files_below("rootfs"), rig.files_below("blobs/sha256")),
        (0, 0)
    );
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_tells_what_removing_frees() {
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    let usage = rig.usage().await;
    let image = &usage.images[0];
    assert_eq!(image.references, ["docker.io/library/web:1"]);
    assert_eq!(
        image.reclaimable_bytes,
        usage.total_rootfs_bytes + usage.total_blob_bytes
    );
    assert_eq!((image.shared_bytes, usage.unreferenced_bytes), (0, 0));
    let removed = rig.remove_image("web:1").await.unwrap();
    assert_eq!(removed.freed_bytes, image.reclaimable_bytes);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_pull_says_so_to_its_caller_and_leaves_nothing() {
    let rig = Rig::start().await;
    // A registry that takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reference = format!("{}/app:1", silent.local_addr().unwrap());
    let pull = v1::PullImageRequest {
        reference,
        ..Default::default()
    };
    let mut pulling = rig.images().pull_image(pull).await.unwrap().into_inner();
    let first = pulling.message().await.unwrap().unwrap().message.unwrap();
    let Message::Operation(operation) = first else {
        panic!("{first:?}")
    };
    let (_connection, _) = tokio::time::timeout(PATIENCE, silent.accept())
        .await
        .unwrap()
        .unwrap();
    let cancel = || v1::CancelOperationRequest {
        operation: operation.id.clone(),
    };
    let ended = rig.operations().cancel_operation(cancel()).await.unwrap();
    let ended = ended.into_inner().operation.unwrap();
    assert_eq!(ended.state(), v1::operation::State::Failed);
    let refused = drain(pulling).await.unwrap_err();
    assert_refused(&refused, Code::Cancelled, "OPERATION_CANCELLED", None);
    // Once more changes nothing.
    let again = rig.operations().cancel_operation(cancel()).await.unwrap();
    let again = again.into_inner().operation.unwrap();
    // The error's metadata is a map, which has no order.
    assert_eq!(
        (again.state(), again.end_time, again.stages),
        (ended.state(), ended.end_time, ended.stages)
    );
    assert_eq!(rig.files_below("tmp/images"), 0);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_is_on_the_disk_when_its_daemon_has_stopped() {
    let rig = Rig::start().await;
    let registry = Registry::serve().await;
    registry.push("1", ("a", "b"), &[empty_layer()]);
    let request = pulled(&registry.reference("1"));
    let answers = rig.images().pull_image(request).await.unwrap();
    drain(answers.into_inner()).await.unwrap();
    // It did not wait for the disk.
    let marks = rig.dir.path().join("state/unsynced");
    assert_ne!(files_below(&marks), Vec::<PathBuf>::new());
    let (_dir, _host) = rig.stopped().await;
    assert_eq!(files_below(&marks), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_not_there_cannot_be_cancelled() {
    let rig = Rig::start().await;
    let request = v1::CancelOperationRequest {
        operation: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
    };
    let refused = rig
        .operations()
        .cancel_operation(request)
        .await
        .unwrap_err();
    assert_refused(&refused, Code::NotFound, "OPERATION_NOT_FOUND", None);
    rig.stopped().await;
}
