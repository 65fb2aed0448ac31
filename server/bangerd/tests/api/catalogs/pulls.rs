//! Images and kernels from catalogs: what comes along, what is refused, and what is left of a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use banger_catalog::Digest;
use banger_proto::v1;
use tonic::Code;

use super::{Shelf, files, pulled, remedy};
use crate::held::Held;
use crate::registry::{Registry, empty_layer};
use crate::rig::{PATIENCE, Rig, assert_refused, drain};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_from_a_catalog_with_the_kernel_it_is_meant_for() {
    let (shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    let added = rig.add_catalog(&shelf).await.unwrap();
    assert_eq!(
        (added.name.as_str(), added.version, added.entry_count),
        ("acme", 1, 3)
    );
    // Without a version the newest.
    let image = rig.pull(pulled("web")).await.unwrap();
    assert_eq!(image.digest, shelf.index.bundles[1].digest.to_string());
    assert_eq!(
        (image.kernel.as_str(), image.origin.as_str()),
        ("k", "catalog acme: web:2")
    );
    assert_eq!(image.references, ["docker.io/library/web:latest"]);
    assert_eq!(rig.kernel_names().await, ["k"]);
    assert_eq!(
        rig.pull(pulled("acme/web:1")).await.unwrap().origin,
        "catalog acme: web:1"
    );
    // What is here is not fetched again.
    shelf.break_file("web-2.tar.zst");
    assert_eq!(rig.pull(pulled("web")).await.unwrap().id, image.id);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_image_has_is_taken_over_only_if_it_may_be() {
    let (shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    rig.add_catalog(&shelf).await.unwrap();
    rig.furnish().await;
    let refused = rig.pull(pulled("web:1")).await.unwrap_err();
    assert_refused(&refused, Code::AlreadyExists, "REFERENCE_TAKEN", None);
    let request = v1::PullImageRequest {
        replace: true,
        ..pulled("web:1")
    };
    let image = rig.pull(request).await.unwrap();
    assert_eq!(image.digest, shelf.index.bundles[0].digest.to_string());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_over_by_an_import_or_a_registry_only_if_it_may_be() {
    let rig = Rig::start().await;
    rig.register("web:1").await.unwrap();
    let exists = Code::AlreadyExists;
    let import = |replace| v1::RegisterImageStart {
        reference: "web:1".into(),
        platform: "linux/s390x".into(),
        format: 3,
        replace,
        ..Default::default()
    };
    // The same again is no other image.
    rig.register("web:1").await.unwrap();
    let refused = rig
        .register_as(import(false), &[0; 1024])
        .await
        .unwrap_err();
    assert_refused(&refused, exists, "REFERENCE_TAKEN", None);
    let registry = Registry::serve().await;
    registry.push("1", ("a", "b"), &[empty_layer()]);
    let reference = registry.reference("1");
    rig.register(&reference).await.unwrap();
    let pull = |replace| v1::PullImageRequest {
        replace,
        ..pulled(&reference)
    };
    let refused = rig.pull(pull(false)).await.unwrap_err();
    assert_refused(&refused, exists, "REFERENCE_TAKEN", None);
    rig.pull(pull(true)).await.unwrap();
    rig.register_as(import(true), &[0; 1024]).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_while_an_image_comes_from_its_registry_is_not_taken_over() {
    let rig = Rig::start().await;
    let registry = Registry::serve().await;
    registry.push("1", ("a", "b"), &[empty_layer()]);
    let reference = registry.reference("1");
    let held = registry.hold("/blobs/");
    let take = async {
        held.asked.notified().await;
        rig.register(&reference).await.unwrap();
        held.go.cancel();
    };
    let pull = |replace| v1::PullImageRequest {
        replace,
        ..pulled(&reference)
    };
    let (refused, ()) = tokio::join!(rig.pull(pull(false)), take);
    let refused = refused.unwrap_err();
    assert_refused(&refused, Code::AlreadyExists, "REFERENCE_TAKEN", None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_while_a_bundle_comes_is_not_taken_over() {
    let (shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    let held = Held::serve(shelf.dir.path(), "/web-1.tar.zst").await;
    let key = shelf.key.public().to_string();
    rig.add_as("", &held.url, &key).await.unwrap();
    let take = async {
        held.asked.notified().await;
        rig.register("web:1").await.unwrap();
        held.go.notify_one();
    };
    let (refused, ()) = tokio::join!(rig.pull(pulled("web:1")), take);
    let refused = refused.unwrap_err();
    assert_refused(&refused, Code::AlreadyExists, "REFERENCE_TAKEN", None);
    let request = v1::ListImagesRequest::default();
    let images = rig.images().list_images(request).await.unwrap();
    let images = images.into_inner().images;
    assert_eq!(images.len(), 1, "{images:?}");
    assert_eq!(images[0].origin, "upload");
    assert_eq!(rig.kernel_names().await, Vec::<String>::new());
    // What had come goes with the refusal: then only the other image's disk and its record are there.
    let swept = async {
        while files(&rig, "rootfs") != 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(60), swept);
    in_time.await.expect("it is swept");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_pull_leaves_neither_image_nor_kernel() {
    let (shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    rig.add_catalog(&shelf).await.unwrap();
    shelf.break_file("web-1.tar.zst");
    let refused = rig.pull(pulled("web:1")).await.unwrap_err();
    assert_refused(&refused, Code::DataLoss, "BUNDLE_FILE_DIGEST", None);
    assert_eq!(rig.kernel_names().await, Vec::<String>::new());
    for directory in ["rootfs", "blobs/sha256", "kernels", "tmp/images"] {
        assert_eq!(files(&rig, directory), 0, "{directory}");
    }
    shelf.break_file("k.tar.zst");
    let refused = rig.pull(pulled("web:2")).await.unwrap_err();
    assert_refused(&refused, Code::DataLoss, "BUNDLE_FILE_DIGEST", None);
    assert_eq!(files(&rig, "rootfs"), 0);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_stays_when_its_pull_fails_and_another_image_counts_on_it() {
    let (shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    let fails = Held::serve(shelf.dir.path(), "/web-1.tar.zst").await;
    let waits = Held::serve(shelf.dir.path(), "/web-2.tar.zst").await;
    let key = shelf.key.public().to_string();
    rig.add_as("fails", &fails.url, &key).await.unwrap();
    rig.add_as("waits", &waits.url, &key).await.unwrap();
    shelf.break_file("web-1.tar.zst");
    let first = async {
        let refused = rig.pull(pulled("fails/web:1")).await.unwrap_err();
        assert_refused(&refused, Code::DataLoss, "BUNDLE_FILE_DIGEST", None);
        assert_eq!(rig.kernel_names().await, ["k"]);
        waits.go.notify_one();
    };
    let second = async {
        // The kernel has come with the first.
        fails.asked.notified().await;
        let let_go = async {
            waits.asked.notified().await;
            fails.go.notify_one();
        };
        tokio::join!(rig.pull(pulled("waits/web:2")), let_go).0
    };
    let ((), image) = tokio::join!(first, second);
    assert_eq!(image.unwrap().kernel, "k");
    assert_eq!(rig.kernel_names().await, ["k"]);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_as_listed_is_looked_for_in_a_newer_index() {
    let (mut shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    rig.add_catalog(&shelf).await.unwrap();
    let renamed = |shelf: &Shelf, old: &str, new: &str| {
        std::fs::rename(shelf.path(old), shelf.path(new)).unwrap();
        new.parse().unwrap()
    };
    shelf.index.bundles[0].file.path = renamed(&shelf, "web-1.tar.zst", "new-1.tar.zst");
    // There is no other index yet.
    let refused = rig.pull(pulled("web:1")).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "CATALOG_FILE_MISSING", None);
    shelf.index.version += 1;
    shelf.publish();
    let image = rig.pull(pulled("web:1")).await.unwrap();
    assert_eq!(image.origin, "catalog acme: web:1");
    shelf.index.kernels[0].file.path = renamed(&shelf, "k.tar.zst", "new-k.tar.zst");
    shelf.index.version += 1;
    shelf.publish();
    let request = v1::PullKernelRequest {
        kernel: "k".into(),
        name: "other".into(),
        ..Default::default()
    };
    let answers = rig.kernels().pull_kernel(request).await.unwrap();
    drain(answers.into_inner()).await.unwrap();
    assert_eq!(rig.kernel_names().await, ["other", "k"]);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_look_at_an_index_can_be_given_up() {
    use v1::pull_image_response::Message;
    let (shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    let held = Held::serve(shelf.dir.path(), "/catalog.json").await;
    held.go.notify_one();
    let added = rig.add_as("", &held.url, &shelf.public_key()).await;
    added.unwrap();
    held.asked.notified().await;
    shelf.break_file("web-1.tar.zst");
    let answers = rig.images().pull_image(pulled("web:1")).await.unwrap();
    let mut answers = answers.into_inner();
    let first = answers.message().await.unwrap().unwrap().message;
    let Some(Message::Operation(operation)) = first else {
        panic!("a pull begins with its operation")
    };
    held.asked.notified().await;
    let request = v1::CancelOperationRequest {
        operation: operation.id,
    };
    let mut operations = rig.operations();
    let cancelled = tokio::time::timeout(PATIENCE, operations.cancel_operation(request));
    cancelled.await.expect("it ends").unwrap();
    let error = drain(answers).await.unwrap_err();
    assert_refused(&error, Code::Cancelled, "OPERATION_CANCELLED", None);
    assert_eq!(rig.kernel_names().await, Vec::<String>::new());
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_any_kernel_is_refused_with_the_ways_to_get_one() {
    let (mut shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    shelf.index.kernels.clear();
    shelf.publish();
    rig.add_catalog(&shelf).await.unwrap();
    let refused = rig.pull(pulled("web:1")).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "KERNEL_NOT_FOUND", None);
    let request = v1::PullImageRequest {
        kernel: "none".into(),
        ..pulled("web:1")
    };
    let refused = rig.pull(request).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "KERNEL_NOT_FOUND", None);
    assert_eq!(files(&rig, "rootfs"), 0);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_names_no_kernel_needs_one_of_the_host() {
    let (mut shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    let maker = Rig::start().await;
    maker.register("bare:1").await.unwrap();
    let request = v1::ExportBundleRequest {
        image: "bare:1".into(),
        ..Default::default()
    };
    let (manifest, bytes) = maker.export(request).await.unwrap();
    maker.stopped().await;
    let file = shelf.put("bare-1.tar.zst", &bytes);
    shelf.add_bundle(&manifest, file);
    shelf.publish();
    rig.add_catalog(&shelf).await.unwrap();
    let refused = rig.pull(pulled("bare:1")).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "NO_KERNEL", None);
    let remedy = remedy(&refused);
    for way in [
        "banger kernel pull",
        "banger kernel import --debian-package",
        "banger kernel import FILE",
        "banger kernel build",
        "--kernel",
    ] {
        assert!(remedy.contains(way), "{way}: {remedy}");
    }
    assert_eq!(files(&rig, "rootfs"), 0);
    rig.pull_kernel("k").await.unwrap();
    let image = rig.pull(pulled("bare:1")).await.unwrap();
    assert_eq!(image.kernel, "");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_kernel_of_the_name_is_not_taken_for_the_images_own() {
    let (mut shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    // The same kernel, imported by hand, is as good.
    rig.furnish().await;
    rig.add_catalog(&shelf).await.unwrap();
    let image = rig.pull(pulled("acme/web:2")).await.unwrap();
    assert_eq!(image.kernel, "k");
    shelf.index.kernels[0].digest = Digest::of(b"another");
    shelf.index.version += 1;
    shelf.publish();
    rig.refresh().await.unwrap();
    let refused = rig.pull(pulled("acme/web:1")).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "KERNEL_DIFFERS", None);
    assert!(remedy(&refused).contains("--kernel k"), "{refused:?}");
    let request = v1::PullImageRequest {
        kernel: "k".into(),
        ..pulled("acme/web:1")
    };
    assert_eq!(rig.pull(request).await.unwrap().kernel, "k");
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_is_here_waits_for_no_kernel_that_comes() {
    let (shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    rig.furnish().await;
    rig.add_catalog(&shelf).await.unwrap();
    // Another catalog has a kernel that never comes.
    let silent = silent(&shelf).await;
    rig.add_as("silent", &silent.url, &shelf.key.public().to_string())
        .await
        .unwrap();
    let mut kernels = rig.kernels();
    let request = v1::PullKernelRequest {
        kernel: "silent/k".into(),
        name: "slow".into(),
        ..Default::default()
    };
    let waiting = kernels.pull_kernel(request).await.unwrap();
    silent.asked.notified().await;
    let image = rig.pull(pulled("acme/web:1")).await.unwrap();
    assert_eq!(image.kernel, "k");
    let other = v1::PullKernelRequest {
        kernel: "acme/k".into(),
        name: "other".into(),
        ..Default::default()
    };
    let answers = kernels.pull_kernel(other).await.unwrap().into_inner();
    drain(answers).await.unwrap();
    assert_eq!(rig.kernel_names().await, ["other", "k"]);
    drop(waiting);
    rig.stopped().await;
}

/// A server of a catalog that has its index, until it is mute, and of all else only that somebody asked.
pub(super) struct Silent {
    pub(super) url: String,
    pub(super) is_mute: Arc<AtomicBool>,
    pub(super) asked: Arc<tokio::sync::Notify>,
    /// Requests that were not answered.
    pub(super) unanswered: Arc<AtomicUsize>,
    _serving: tokio::task::JoinHandle<()>,
}

pub(super) async fn silent(shelf: &Shelf) -> Silent {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::new(tokio::sync::Notify::new());
    let (index, told) = (
        std::fs::read(shelf.path("catalog.json")).unwrap(),
        asked.clone(),
    );
    let is_mute = Arc::new(AtomicBool::default());
    let unanswered = Arc::new(AtomicUsize::default());
    let (mute, counted) = (is_mute.clone(), unanswered.clone());
    let serving = tokio_util::task::TaskTracker::new().spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            if line.contains("catalog.json") && !mute.load(Ordering::SeqCst) {
                let length = index.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&index).await.unwrap();
                stream.flush().await.unwrap();
            } else {
                counted.fetch_add(1, Ordering::SeqCst);
                told.notify_one();
            }
            kept.push(stream);
        }
    });
    Silent {
        url,
        is_mute,
        asked,
        unanswered,
        _serving: serving,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_catalog_has_is_asked_for_elsewhere_unless_told_otherwise() {
    let (shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    rig.add_catalog(&shelf).await.unwrap();
    for name in ["other", "web:9", "none/web"] {
        let request = v1::PullImageRequest {
            source: v1::pull_image_request::Source::Catalog.into(),
            ..pulled(name)
        };
        let refused = rig.pull(request).await.unwrap_err();
        assert_refused(&refused, Code::NotFound, "NOT_IN_CATALOG", None);
    }
    let refused = rig.pull_kernel("other").await.unwrap_err();
    assert_refused(&refused, Code::NotFound, "NOT_IN_CATALOG", None);
    // Nobody listens there: it was a registry that was asked.
    let refused = rig.pull(pulled("127.0.0.1:1/web:1")).await.unwrap_err();
    assert_refused(&refused, Code::Unavailable, "REGISTRY_UNREACHABLE", None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_comes_from_a_catalog_under_a_name_that_is_free() {
    let (shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    rig.add_catalog(&shelf).await.unwrap();
    let kernel = rig.pull_kernel("acme/k").await.unwrap();
    assert_eq!((kernel.name.as_str(), kernel.is_default), ("k", true));
    let taken = rig.pull_kernel("k").await.unwrap_err();
    assert_refused(&taken, Code::AlreadyExists, "NAME_TAKEN", None);
    assert_eq!(files(&rig, "kernels"), 1);
    rig.stopped().await;
}
