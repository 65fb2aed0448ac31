//! Catalogs: added, refreshed, refused; images and kernels pulled from them.

use std::path::{Path, PathBuf};

use banger_catalog::{
    BundleEntry, Digest, FilePart, ImageManifest, Index, KernelEntry, KernelManifest, SecretKey,
};
use banger_proto::v1;
use banger_proto::v1::catalog_service_client::CatalogServiceClient;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::held::Held;
use crate::rig::{Rig, assert_refused, drain};

impl Rig {
    fn catalogs(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel.clone())
    }

    async fn add_catalog(&self, shelf: &Shelf) -> Result<v1::Catalog, Status> {
        self.add_as("", &shelf.url(), &shelf.key.public().to_string())
            .await
    }

    async fn add_as(&self, name: &str, url: &str, key: &str) -> Result<v1::Catalog, Status> {
        let request = v1::AddCatalogRequest {
            name: name.into(),
            url: url.into(),
            public_key: key.into(),
            ..Default::default()
        };
        let answer = self.catalogs().add_catalog(request).await?.into_inner();
        Ok(answer.catalog.unwrap())
    }

    async fn refresh(&self) -> Result<v1::Catalog, Status> {
        let request = v1::RefreshCatalogRequest {
            catalog: "acme".into(),
        };
        let answer = self.catalogs().refresh_catalog(request).await?.into_inner();
        Ok(answer.catalog.unwrap())
    }

    async fn refresh_refused(&self, reason: &str) {
        let refused = self.refresh().await.unwrap_err();
        assert_refused(&refused, Code::FailedPrecondition, reason, None);
    }

    async fn pull(&self, request: v1::PullImageRequest) -> Result<v1::Image, Status> {
        let answers = self.images().pull_image(request).await?.into_inner();
        let last = drain(answers).await?.pop().unwrap().message.unwrap();
        let v1::pull_image_response::Message::Image(image) = last else {
            panic!("no image: {last:?}");
        };
        Ok(image)
    }

    async fn pull_kernel(&self, kernel: &str) -> Result<v1::Kernel, Status> {
        let request = v1::PullKernelRequest {
            kernel: kernel.into(),
            ..Default::default()
        };
        let answers = self.kernels().pull_kernel(request).await?.into_inner();
        let last = drain(answers).await?.pop().unwrap().message.unwrap();
        let v1::pull_kernel_response::Message::Kernel(kernel) = last else {
            panic!("no kernel: {last:?}");
        };
        Ok(kernel)
    }

    async fn kernel_names(&self) -> Vec<String> {
        let request = v1::ListKernelsRequest::default();
        let answer = self.kernels().list_kernels(request).await.unwrap();
        answer
            .into_inner()
            .kernels
            .into_iter()
            .map(|kernel| kernel.name)
            .collect()
    }

    async fn export(&self, request: v1::ExportBundleRequest) -> Result<(Vec<u8>, Vec<u8>), Status> {
        use v1::export_bundle_response::Message;
        let answers = self.images().export_bundle(request).await?.into_inner();
        let (mut manifest, mut bytes) = (Vec::new(), Vec::new());
        for answer in drain(answers).await? {
            match answer.message.unwrap() {
                Message::Start(start) => manifest = start.manifest.to_vec(),
                Message::Chunk(chunk) => bytes.extend_from_slice(&chunk),
                Message::End(end) => assert_eq!(end.sha256, Digest::of(&bytes).hex()),
                Message::Heartbeat(_) => {}
            }
        }
        Ok((manifest, bytes))
    }

    async fn export_kernel(&self) -> (Vec<u8>, Vec<u8>) {
        use v1::export_kernel_response::Message;
        let request = v1::ExportKernelRequest { kernel: "k".into() };
        let answers = self
            .kernels()
            .export_kernel(request)
            .await
            .unwrap()
            .into_inner();
        let (mut manifest, mut bytes) = (Vec::new(), Vec::new());
        for answer in drain(answers).await.unwrap() {
            match answer.message.unwrap() {
                Message::Start(start) => manifest = start.manifest.to_vec(),
                Message::Chunk(chunk) => bytes.extend_from_slice(&chunk),
                Message::End(_) | Message::Heartbeat(_) => {}
            }
        }
        (manifest, bytes)
    }
}

fn pulled(reference: &str) -> v1::PullImageRequest {
    v1::PullImageRequest {
        reference: reference.into(),
        ..Default::default()
    }
}

/// A catalog in a directory.
struct Shelf {
    dir: TempDir,
    key: SecretKey,
    index: Index,
}

impl Shelf {
    /// With the image `web` in versions 1 and 2 and the kernel `k`, made by a daemon that has them.
    async fn furnished() -> Self {
        let rig = Rig::start().await;
        rig.furnish().await;
        let now = banger_core::Timestamp::now();
        let later = now + banger_core::SignedDuration::from_hours(1);
        let mut shelf = Self {
            dir: tempfile::tempdir().unwrap(),
            key: SecretKey::from_random(&[7; 32]),
            index: Index::new("acme".parse().unwrap(), 1, now, later),
        };
        for version in ["1", "2"] {
            let request = v1::ExportBundleRequest {
                image: "web:1".into(),
                version: version.into(),
                kernel: "k".into(),
                ..Default::default()
            };
            let (manifest, bytes) = rig.export(request).await.unwrap();
            let file = shelf.put(&format!("web-{version}.tar.zst"), &bytes);
            shelf.add_bundle(&manifest, file);
        }
        let (manifest, bytes) = rig.export_kernel().await;
        let file = shelf.put("k.tar.zst", &bytes);
        let parsed = KernelManifest::parse(&manifest).unwrap();
        shelf.index.kernels.push(KernelEntry {
            name: parsed.name,
            release: parsed.release,
            platform: parsed.platform,
            digest: Digest::of(&manifest),
            file,
            description: String::new(),
        });
        rig.stopped().await;
        shelf.publish();
        shelf
    }

    fn add_bundle(&mut self, manifest: &[u8], file: FilePart) {
        let parsed = ImageManifest::parse(manifest).unwrap();
        self.index.bundles.push(BundleEntry {
            name: parsed.name,
            version: parsed.version,
            platform: parsed.platform,
            digest: Digest::of(manifest),
            kernel: parsed.kernel,
            rootfs_size_bytes: parsed.rootfs.size_bytes,
            file,
            description: "A web server".into(),
        });
    }

    fn url(&self) -> String {
        self.dir.path().to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> FilePart {
        std::fs::write(self.path(name), bytes).unwrap();
        FilePart {
            path: name.parse().unwrap(),
            size_bytes: bytes.len() as u64,
            digest: Digest::of(bytes),
        }
    }

    fn publish(&self) {
        self.publish_with(&self.key);
    }

    fn publish_with(&self, key: &SecretKey) {
        let key = key.to_file().parse().unwrap();
        let bytes = banger_catalog::seal(&self.index, &[key]).unwrap();
        std::fs::write(self.path("catalog.json"), bytes).unwrap();
    }

    fn break_file(&self, name: &str) {
        let mut bytes = std::fs::read(self.path(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(self.path(name), bytes).unwrap();
    }
}

fn files(rig: &Rig, directory: &str) -> usize {
    let path: &Path = rig.dir.path();
    std::fs::read_dir(path.join("state").join(directory))
        .unwrap()
        .count()
}

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

/// A server of a catalog that has its index and, of all else, only that somebody asked.
struct Silent {
    url: String,
    asked: std::sync::Arc<tokio::sync::Notify>,
    _serving: tokio::task::JoinHandle<()>,
}

async fn silent(shelf: &Shelf) -> Silent {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = std::sync::Arc::new(tokio::sync::Notify::new());
    let (index, told) = (
        std::fs::read(shelf.path("catalog.json")).unwrap(),
        asked.clone(),
    );
    let serving = tokio_util::task::TaskTracker::new().spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            if line.contains("catalog.json") {
                let length = index.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&index).await.unwrap();
                stream.flush().await.unwrap();
            } else {
                told.notify_one();
            }
            kept.push(stream);
        }
    });
    Silent {
        url,
        asked,
        _serving: serving,
    }
}

/// What an error says to do.
fn remedy(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    let details = status.get_error_details();
    details.error_info().unwrap().metadata["remedy"].clone()
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

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_is_added_only_if_it_is_believed() {
    let (shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    let key = shelf.key.public().to_string();
    let other = SecretKey::from_random(&[8; 32]).public().to_string();
    let wrong = rig.add_as("", &shelf.url(), &other).await.unwrap_err();
    assert_refused(&wrong, Code::FailedPrecondition, "CATALOG_WRONG_KEY", None);
    for (name, url, key, field) in [
        ("", "http://example.com", key.as_str(), "url"),
        ("", "relative", &key, "url"),
        ("", &shelf.url(), "ed25519:x", "public_key"),
        ("", &shelf.url(), shelf.key.to_file().as_str(), "public_key"),
        ("Not A Name", &shelf.url(), &key, "name"),
    ] {
        let refused = rig.add_as(name, url, key).await.unwrap_err();
        let reason = if url.starts_with('/') {
            "INVALID_FIELD"
        } else {
            "CATALOG_ADDRESS_INVALID"
        };
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert_refused(&refused, Code::InvalidArgument, reason, Some(field));
        assert!(!refused.message().contains("secret:"), "{refused:?}");
    }
    let missing = rig.add_as("", "/nowhere", &key).await.unwrap_err();
    assert_refused(&missing, Code::NotFound, "CATALOG_FILE_MISSING", None);
    rig.add_as("mine", &shelf.url(), &key).await.unwrap();
    let taken = rig.add_as("mine", &shelf.url(), &key).await.unwrap_err();
    assert_refused(&taken, Code::AlreadyExists, "NAME_TAKEN", None);
    let request = v1::ListCatalogsRequest::default();
    let listed = rig
        .catalogs()
        .list_catalogs(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.catalogs.len(), 1);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_fails_leaves_what_was_there_and_says_so() {
    let (mut shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    shelf.index.version = 5;
    shelf.publish();
    rig.add_catalog(&shelf).await.unwrap();
    shelf.index.version = 4;
    shelf.publish();
    rig.refresh_refused("CATALOG_ROLLED_BACK").await;
    shelf.index.version = 5;
    let removed = shelf.index.bundles.pop().unwrap();
    shelf.publish();
    rig.refresh_refused("CATALOG_EQUIVOCATES").await;
    shelf.index.version = 6;
    shelf.publish_with(&SecretKey::from_random(&[8; 32]));
    rig.refresh_refused("CATALOG_WRONG_KEY").await;
    shelf.index.name = "other".parse().unwrap();
    shelf.publish();
    rig.refresh_refused("CATALOG_OTHER").await;
    std::fs::write(shelf.path("catalog.json"), "{}").unwrap();
    rig.refresh_refused("CATALOG_MALFORMED").await;

    let request = v1::GetCatalogRequest {
        catalog: "acme".into(),
    };
    let kept = rig
        .catalogs()
        .get_catalog(request)
        .await
        .unwrap()
        .into_inner()
        .catalog
        .unwrap();
    assert_eq!((kept.version, kept.entry_count), (5, 3));
    assert!(kept.refresh_error.unwrap().message.contains("acme"));
    // And it is used.
    rig.pull(pulled(&format!("web:{}", removed.version)))
        .await
        .unwrap();
    shelf.index.name = "acme".parse().unwrap();
    shelf.publish();
    let refreshed = rig.refresh().await.unwrap();
    assert_eq!((refreshed.version, refreshed.refresh_error), (6, None));
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_has_expired_is_refreshed_or_refused_and_never_passed_over() {
    let (mut shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    let expire_time = shelf.index.expire_time;
    shelf.index.expire_time =
        banger_core::Timestamp::now() + banger_core::SignedDuration::from_secs(5);
    shelf.publish();
    rig.add_catalog(&shelf).await.unwrap();
    // Time is what this is about.
    tokio::time::sleep(std::time::Duration::from_millis(5100)).await;
    let refused = rig.pull(pulled("web:1")).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "CATALOG_EXPIRED", None);
    let all = v1::ListCatalogEntriesRequest::default();
    let listed = rig
        .catalogs()
        .list_catalog_entries(all.clone())
        .await
        .unwrap();
    assert!(listed.into_inner().entries.is_empty());
    let one = v1::ListCatalogEntriesRequest {
        catalog: "acme".into(),
        ..all
    };
    let refused = rig.catalogs().list_catalog_entries(one).await.unwrap_err();
    assert_refused(&refused, Code::FailedPrecondition, "CATALOG_EXPIRED", None);
    // A newer one that is there already is taken.
    shelf.index.version = 2;
    shelf.index.expire_time = expire_time;
    shelf.publish();
    rig.pull(pulled("web:1")).await.unwrap();
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_searched_and_come_in_pages() {
    let (shelf, rig) = (Shelf::furnished().await, Rig::start().await);
    rig.add_catalog(&shelf).await.unwrap();
    let search = async |request: v1::ListCatalogEntriesRequest| {
        let page = rig
            .catalogs()
            .list_catalog_entries(request)
            .await
            .unwrap()
            .into_inner();
        let names = page
            .entries
            .iter()
            .map(|entry| format!("{}:{}", entry.name, entry.version));
        (names.collect::<Vec<_>>(), page.next_page_token)
    };
    let all = v1::ListCatalogEntriesRequest::default();
    let (names, _) = search(all.clone()).await;
    assert_eq!(&names[..2], ["web:1", "web:2"]);
    assert_eq!(names.len(), 3);
    let query = |query: &str| v1::ListCatalogEntriesRequest {
        query: query.into(),
        ..all.clone()
    };
    assert_eq!(search(query("SERVER web")).await.0, ["web:1", "web:2"]);
    assert!(search(query("server kernel")).await.0.is_empty());
    let kernels = v1::ListCatalogEntriesRequest {
        kind: v1::catalog_entry::Kind::Kernel.into(),
        ..all.clone()
    };
    assert_eq!(search(kernels).await.0.len(), 1);
    let first = v1::ListCatalogEntriesRequest {
        page_size: 2,
        ..all.clone()
    };
    let (names, token) = search(first.clone()).await;
    assert_eq!(names.len(), 2);
    let second = v1::ListCatalogEntriesRequest {
        page_token: token,
        ..first
    };
    assert_eq!(search(second).await.0.len(), 1);
    let request = v1::RemoveCatalogRequest {
        catalog: "acme".into(),
        ..Default::default()
    };
    rig.catalogs()
        .remove_catalog(request.clone())
        .await
        .unwrap();
    assert!(search(all).await.0.is_empty());
    let gone = rig.catalogs().remove_catalog(request).await.unwrap_err();
    assert_refused(&gone, Code::NotFound, "CATALOG_NOT_FOUND", None);
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_named_after_the_image_or_as_told() {
    let rig = Rig::start().await;
    rig.furnish().await;
    let name = |manifest: &[u8]| {
        let manifest = ImageManifest::parse(manifest).unwrap();
        format!("{}:{}", manifest.name, manifest.version)
    };
    let request = v1::ExportBundleRequest {
        image: "web:1".into(),
        ..Default::default()
    };
    let (manifest, first) = rig.export(request.clone()).await.unwrap();
    assert_eq!(name(&manifest), "web:1");
    assert_eq!(rig.export(request.clone()).await.unwrap().1, first);
    let named = v1::ExportBundleRequest {
        name: "other".into(),
        version: "7".into(),
        ..request.clone()
    };
    assert_eq!(name(&rig.export(named).await.unwrap().0), "other:7");
    for (field, bad) in [
        (
            "name",
            v1::ExportBundleRequest {
                name: "a/b".into(),
                ..request.clone()
            },
        ),
        (
            "version",
            v1::ExportBundleRequest {
                version: "../1".into(),
                ..request.clone()
            },
        ),
        (
            "kernel",
            v1::ExportBundleRequest {
                kernel: "a/b".into(),
                ..request.clone()
            },
        ),
    ] {
        let refused = rig.export(bad).await.unwrap_err();
        assert_refused(
            &refused,
            Code::InvalidArgument,
            "INVALID_FIELD",
            Some(field),
        );
    }
    rig.stopped().await;
}
