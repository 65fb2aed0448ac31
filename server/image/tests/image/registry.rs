//! Pulling from registries that lie, stall, break off and ask for credentials; and sharing the work.
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::disk::SmallDisk;
use crate::support::{Answer, Registry, Request, Tar, TestImage, Then, gzip, honest, leftovers};
use banger_core::operation::{NoProgress, Progress, StageKey};
use banger_core::{Digest, Explain, FailureKind};
use banger_image::{BuiltImage, ImageStore, Login, PullOptions, StoreError, Sweep};
use tokio_util::sync::CancellationToken;

fn options() -> PullOptions {
    PullOptions {
        stall_timeout: Duration::from_millis(300),
        platform: "linux/amd64".parse().unwrap(),
        ..PullOptions::default()
    }
}

async fn pull_with(
    store: &ImageStore,
    host: &str,
    options: &PullOptions,
) -> Result<BuiltImage, StoreError> {
    let reference = format!("{host}/test/image:1").parse().unwrap();
    store
        .pull(&reference, options, &NoProgress, &CancellationToken::new())
        .await
}

/// Pulls `image` from a registry with some other answers, into a new store; nothing may be left over.
async fn pull(
    image: TestImage,
    other: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
) -> Result<BuiltImage, StoreError> {
    let state = tempfile::tempdir().unwrap();
    let registry = Registry::of(image, other).await;
    let store = ImageStore::open(state.path()).unwrap();
    let result = pull_with(&store, &registry.host, &options()).await;
    assert_eq!(leftovers(state.path()), Vec::<std::path::PathBuf>::new());
    if result.is_err() {
        assert_eq!(
            std::fs::read_dir(state.path().join("rootfs"))
                .unwrap()
                .count(),
            0
        );
    }
    result
}

/// The reason for which a pull fails when the layer's blob is answered otherwise.
async fn layer_fails(
    image: TestImage,
    lie: impl Fn(Vec<u8>) -> Answer + Send + Sync + 'static,
) -> StoreError {
    let blob = image.blobs[&image.layers[0]].clone();
    let name = image.layers[0].to_string();
    pull(image, move |request| {
        request.path.ends_with(&name).then(|| lie(blob.clone()))
    })
    .await
    .unwrap_err()
}

#[tokio::test]
async fn an_honest_image_is_pulled_and_loaded_again() {
    let state = tempfile::tempdir().unwrap();
    let image = TestImage::simple(1, 100_000);
    let registry = Registry::of(image.clone(), |_| None).await;
    let store = ImageStore::open(state.path()).unwrap();
    let built = pull_with(&store, &registry.host, &options()).await.unwrap();
    assert_eq!(built.digest, Digest::of(&image.manifest));
    assert_eq!(built.config.cmd, ["/bin/sh"]);
    assert_eq!(built.config.env, [("A".to_owned(), "b".to_owned())]);
    assert_eq!(
        built.reference.as_deref(),
        Some(format!("{}/test/image:1", registry.host).as_str())
    );
    assert_eq!(registry.count("/blobs/"), 2);
    // A second pull asks for the manifest and its configuration, and no layer.
    let again = pull_with(&store, &registry.host, &options()).await.unwrap();
    assert_eq!(again, built);
    assert_eq!(registry.count(&image.layers[0].hex()), 1);
    let loaded = ImageStore::open(state.path())
        .unwrap()
        .load(built.digest)
        .unwrap();
    assert_eq!(
        BuiltImage {
            reference: built.reference.clone(),
            ..loaded
        },
        built
    );
}

#[tokio::test]
async fn a_wrong_blob_is_data_loss_and_each_way_to_be_wrong_has_its_name() {
    let image = || TestImage::simple(2, 50_000);
    let wrong = layer_fails(image(), |mut blob| {
        blob[20_000] ^= 1;
        Answer::ok(blob)
    });
    let short = layer_fails(image(), |blob| Answer::ok(&blob[..20_000]));
    let long = layer_fails(image(), |mut blob| {
        blob.extend([0; 100_000]);
        Answer::ok(blob)
    });
    for (error, reason) in [
        (wrong.await, "BLOB_DIGEST_MISMATCH"),
        (short.await, "BLOB_TOO_SHORT"),
        (long.await, "BLOB_TOO_LONG"),
    ] {
        assert_eq!(error.reason(), reason, "{error}");
        assert!(
            matches!(error.kind(), FailureKind::DataLoss { .. }),
            "{error}"
        );
        assert!(error.remedy().is_some());
    }
}

#[tokio::test]
async fn a_registry_that_stalls_ends_in_a_named_deadline() {
    let error = layer_fails(TestImage::simple(3, 50_000), |blob| Answer {
        length: Some(blob.len() as u64),
        then: Then::Stall,
        ..Answer::ok(&blob[..10_000])
    });
    let error = tokio::time::timeout(Duration::from_secs(120), error);
    let error = error.await.expect("it is given up");
    assert_eq!(error.reason(), "REGISTRY_STALLED", "{error}");
    assert_eq!(error.kind(), FailureKind::DeadlineExceeded);
}

#[tokio::test]
async fn a_connection_that_breaks_is_resumed_where_it_broke() {
    let image = TestImage::simple(4, 200_000);
    let (whole, name, tries) = (
        image.clone(),
        image.layers[0].to_string(),
        AtomicUsize::new(0),
    );
    let built = pull(image, move |request| {
        let is_first = request.path.ends_with(&name) && tries.fetch_add(1, Ordering::SeqCst) == 0;
        is_first.then(|| {
            let blob = honest(&whole, request).body;
            Answer {
                length: Some(blob.len() as u64),
                ..Answer::ok(&blob[..70_000])
            }
        })
    });
    built.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_last_byte_is_not_resumed() {
    let image = TestImage::simple(4, 200_000);
    let (whole, name) = (image.clone(), image.layers[0].to_string());
    let built = pull(image, move |request| {
        if !request.path.ends_with(&name) {
            return None;
        }
        if request.head.to_lowercase().contains("\r\nrange:") {
            return Some(Answer::status(416));
        }
        // As many bytes as there are, of an answer that was to go on.
        let blob = honest(&whole, request).body;
        Some(Answer {
            length: Some(blob.len() as u64 + 1),
            ..Answer::ok(blob)
        })
    });
    built.await.unwrap();
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_again_from_the_start() {
    let image = TestImage::simple(5, 200_000);
    let (whole, name, tries) = (
        image.clone(),
        image.layers[0].to_string(),
        AtomicUsize::new(0),
    );
    let built = pull(image, move |request| {
        request.path.ends_with(&name).then(|| {
            let blob = whole.blobs[&whole.layers[0]].clone();
            match tries.fetch_add(1, Ordering::SeqCst) {
                0 => Answer {
                    length: Some(blob.len() as u64),
                    ..Answer::ok(&blob[..70_000])
                },
                _ => Answer::ok(blob),
            }
        })
    });
    built.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_always_breaks_is_given_up() {
    let error = layer_fails(TestImage::simple(6, 50_000), |blob| Answer {
        length: Some(blob.len() as u64),
        ..Answer::ok(&blob[..10])
    });
    let error = error.await;
    assert_eq!(error.reason(), "REGISTRY_UNREACHABLE", "{error}");
    assert!(matches!(error.kind(), FailureKind::Unavailable { .. }));
}

#[tokio::test]
async fn layers_that_are_whole_but_bad_are_told_from_transport() {
    let plain = Tar::new().file("a", &[7; 5000]).finish();
    let cut = gzip(&plain)[..40].to_vec();
    let evil = |path: &str| Tar::new().file(path, b"x").finish();
    let image = |blob: Vec<u8>, plain: &[u8]| TestImage::new(&[(blob, Digest::of(plain))]);
    for (image, reason) in [
        (image(cut, &plain), "LAYER_TRUNCATED"),
        (image(gzip(&plain), b"other"), "LAYER_DIFF_ID_MISMATCH"),
        (
            TestImage::of(&[evil("../../etc/passwd")]),
            "LAYER_ENTRY_ESCAPES",
        ),
        (
            TestImage::of(&[Tar::new()
                .add("l", b'1', 0o644, b"", "missing", &[])
                .finish()]),
            "LAYER_BAD_HARD_LINK",
        ),
        (
            TestImage::of(&[b"no archive".repeat(100)]),
            "LAYER_BAD_HEADER",
        ),
    ] {
        let error = pull(image, |_| None).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
    }
}

#[tokio::test]
async fn what_leads_elsewhere_stays_inside_the_image() {
    let lower = Tar::new()
        .add("out", b'2', 0o777, b"", "/../../tmp", &[])
        .finish();
    let marker = format!("banger-escape-{}", std::process::id());
    let upper = Tar::new()
        .file(&format!("out/{marker}"), b"x")
        .file(&format!("/abs/{marker}"), b"y")
        .finish();
    let image = TestImage::of(&[lower, upper]);
    pull(image, |_| None).await.unwrap();
    assert!(!Path::new("/tmp").join(&marker).exists());
    assert!(!Path::new("/abs").exists());
}

#[tokio::test]
async fn documents_are_bounded_and_verified() {
    let image = || TestImage::simple(7, 1000);
    let endless = pull(image(), |request| {
        let is_manifest = request.path.contains("/manifests/");
        is_manifest.then(|| Answer {
            then: Then::Repeat,
            ..Answer::ok(vec![b' '; 65_536])
        })
    });
    assert_eq!(endless.await.unwrap_err().reason(), "IMAGE_TOO_LARGE");
    let missing = pull(image(), |request| {
        request
            .path
            .contains("/manifests/")
            .then(|| Answer::status(404))
    });
    assert_eq!(missing.await.unwrap_err().reason(), "IMAGE_NOT_FOUND");
    let page = pull(image(), |request| {
        request
            .path
            .contains("/manifests/")
            .then(|| Answer::ok("<html>"))
    });
    assert_eq!(page.await.unwrap_err().reason(), "IMAGE_MALFORMED");
    let other = pull(image(), |request| {
        (request.path.contains("/blobs/") && request.head.contains("GET")).then(|| Answer::ok("{}"))
    });
    assert_eq!(other.await.unwrap_err().reason(), "BLOB_DIGEST_MISMATCH");
    // What is right by its digest may have another length than is said of it.
    let manifest = |image: &TestImage| String::from_utf8(image.manifest.clone()).unwrap();
    let mut longer = image();
    longer.manifest = manifest(&longer)
        .replacen("\"size\":", "\"size\":1", 1)
        .into_bytes();
    let longer = pull(longer, |_| None).await.unwrap_err();
    assert_eq!(longer.reason(), "BLOB_TOO_SHORT", "{longer}");
    for (size, reason) in [(1, "BLOB_TOO_LONG"), (1 << 20, "BLOB_TOO_SHORT")] {
        let (image, tag) = (image(), "/manifests/1");
        let digest = Digest::of(&image.manifest);
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
        );
        let lying = pull(image, move |request| {
            request.path.ends_with(tag).then(|| Answer {
                headers: "Content-Type: application/vnd.oci.image.index.v1+json\r\n".into(),
                ..Answer::ok(index.clone())
            })
        });
        let lying = lying.await.unwrap_err();
        assert_eq!(lying.reason(), reason, "{lying}");
    }
}

#[tokio::test]
async fn nobody_listening_is_unavailable() {
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let error = pull_with(&store, "127.0.0.1:1", &options())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "REGISTRY_UNREACHABLE");
}

#[tokio::test]
async fn the_whole_pull_has_a_deadline() {
    let state = tempfile::tempdir().unwrap();
    let registry = Registry::of(TestImage::simple(8, 50_000), |request| {
        let stall = Answer {
            length: Some(9),
            then: Then::Stall,
            ..Answer::ok("")
        };
        request.path.contains("/blobs/").then_some(stall)
    });
    let registry = registry.await;
    let options = PullOptions {
        stall_timeout: Duration::from_secs(60),
        deadline: Duration::from_millis(500),
        ..options()
    };
    let store = ImageStore::open(state.path()).unwrap();
    let error = pull_with(&store, &registry.host, &options)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "PULL_DEADLINE");
    assert!(leftovers(state.path()).is_empty());
}

#[tokio::test]
async fn a_challenge_is_met_with_a_token_for_the_credentials() {
    let state = tempfile::tempdir().unwrap();
    let image = TestImage::simple(9, 1000);
    let registry = Registry::start(move |request| {
        if request.path.starts_with("/token") {
            let known = request.header("authorization") == Some("Basic bWU6c2VjcmV0");
            let scoped = request
                .path
                .contains("scope=repository%3Atest%2Fimage%3Apull");
            return if known && scoped {
                Answer::ok(r#"{"token":"t0k3n"}"#)
            } else {
                Answer::status(401)
            };
        }
        if request.header("authorization") == Some("Bearer t0k3n") {
            return honest(&image, request);
        }
        let host = request.header("host").unwrap();
        let challenge =
            format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"test\"\r\n");
        Answer {
            headers: challenge,
            ..Answer::status(401)
        }
    });
    let registry = registry.await;
    let store = ImageStore::open(state.path()).unwrap();
    let error = pull_with(&store, &registry.host, &options())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "REGISTRY_UNAUTHORIZED");
    let login = Some(Login::Password {
        username: "me".into(),
        password: "secret".into(),
    });
    pull_with(&store, &registry.host, &PullOptions { login, ..options() })
        .await
        .unwrap();
}

#[tokio::test]
async fn pulls_of_one_image_share_the_work() {
    let state = tempfile::tempdir().unwrap();
    let image = TestImage::simple(10, 500_000);
    let registry = Registry::of(image.clone(), |_| None).await;
    let store = ImageStore::open(state.path()).unwrap();
    let options = options();
    let pulls = (0..5).map(|_| pull_with(&store, &registry.host, &options));
    for result in futures::future::join_all(pulls).await {
        assert_eq!(result.unwrap().digest, Digest::of(&image.manifest));
    }
    assert_eq!(registry.count(&image.layers[0].hex()), 1);
}

#[tokio::test]
async fn images_with_a_common_layer_fetch_it_once() {
    let state = tempfile::tempdir().unwrap();
    let common = Tar::new().file("common", &[1; 300_000]).finish();
    let own = |name: &str| TestImage::of(&[common.clone(), Tar::new().file(name, b"own").finish()]);
    let (one, two) = (own("one"), own("two"));
    let (first, second) = (
        Registry::of(one.clone(), |_| None).await,
        Registry::of(two, |_| None).await,
    );
    let store = ImageStore::open(state.path()).unwrap();
    let options = options();
    let (a, b) = tokio::join!(
        pull_with(&store, &first.host, &options),
        pull_with(&store, &second.host, &options)
    );
    let (a, b) = (a.unwrap(), b.unwrap());
    let shared = one.layers[0].hex();
    assert_eq!(first.count(&shared) + second.count(&shared), 1);

    // What only the removed one needed goes, what the other needs stays.
    store.remove(a.digest).unwrap();
    assert_eq!(
        store.load(a.digest).unwrap_err().reason(),
        "IMAGE_NOT_FOUND"
    );
    let pruned = store
        .prune(&HashSet::from([b.digest]), Sweep::Remove)
        .unwrap();
    assert_eq!(pruned.files, 2, "its configuration and its own layer");
    store.load(b.digest).unwrap();
}

#[tokio::test]
async fn one_caller_leaving_takes_nothing_from_the_others_and_the_last_leaves_nothing() {
    let state = tempfile::tempdir().unwrap();
    let image = TestImage::simple(11, 400_000);
    let (whole, name) = (image.clone(), image.layers[0].to_string());
    let registry = Registry::of(image, move |request| {
        // Byte by byte: the pull is under way, and gets on, for as long as the test needs.
        request.path.ends_with(&name).then(|| Answer {
            then: Then::Trickle,
            ..Answer::ok(whole.blobs[&whole.layers[0]].clone())
        })
    });
    let registry = registry.await;
    let store = ImageStore::open(state.path()).unwrap();
    let options = PullOptions {
        stall_timeout: Duration::from_secs(600),
        ..options()
    };
    let reference = format!("{}/test/image:1", registry.host).parse().unwrap();
    let (left, has_left) = tokio::sync::oneshot::channel();
    let (first, last) = (CancellationToken::new(), CancellationToken::new());
    let watch = Watch::default();
    let one = async {
        let ended = store.pull(&reference, &options, &NoProgress, &first);
        let ended = ended.await;
        left.send(()).unwrap();
        ended
    };
    let two = store.pull(&reference, &options, &watch, &last);
    let steps = async {
        watch.more_than(0).await;
        first.cancel();
        has_left.await.unwrap();
        // The other one's work goes on.
        watch.more_than(watch.bytes.load(Ordering::SeqCst)).await;
        assert!(!leftovers(state.path()).is_empty());
        last.cancel();
    };
    let (one, two, ()) = tokio::join!(one, two, steps);
    assert_eq!(
        (one.unwrap_err().reason(), two.unwrap_err().reason()),
        ("CANCELLED", "CANCELLED")
    );
    assert!(leftovers(state.path()).is_empty());
}

#[tokio::test]
async fn what_a_killed_daemon_left_is_swept_and_no_image_is_half_there() {
    let state = tempfile::tempdir().unwrap();
    ImageStore::open(state.path()).unwrap();
    std::fs::write(state.path().join("tmp/images/rootfs-abc"), "half").unwrap();
    let image = TestImage::simple(14, 1000);
    let blobs = state.path().join("blobs/sha256");
    // Documents without their disk: the daemon died before the last step.
    for (digest, bytes) in &image.blobs {
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
    }
    let digest = Digest::of(&image.manifest);
    std::fs::write(blobs.join(digest.hex()), &image.manifest).unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    assert!(leftovers(state.path()).is_empty());
    assert_eq!(store.load(digest).unwrap_err().reason(), "IMAGE_NOT_FOUND");
    // The next pull finishes the work without fetching the layer again.
    let registry = Registry::of(image.clone(), |_| None).await;
    pull_with(&store, &registry.host, &options()).await.unwrap();
    assert_eq!(registry.count(&image.layers[0].hex()), 0);
}

#[derive(Default)]
struct Watch {
    bytes: AtomicUsize,
}

impl Watch {
    /// Waits until more bytes than these have come.
    async fn more_than(&self, bytes: usize) {
        let come = async {
            while self.bytes.load(Ordering::SeqCst) <= bytes {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(120), come);
        in_time.await.expect("bytes come");
    }
}

impl Progress for Watch {
    fn start(&self, _: &StageKey, _: Option<u64>) {}

    fn advance(&self, key: &StageKey, delta_bytes: u64) {
        assert_eq!(key.name, "fetch");
        self.bytes
            .fetch_add(usize::try_from(delta_bytes).unwrap(), Ordering::SeqCst);
    }

    fn finish(&self, _: &StageKey) {}
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing() {
    let Some(small) = SmallDisk::mount("2m") else {
        return;
    };
    let (tight, roomy) = (
        TestImage::simple(12, 4_000_000),
        TestImage::simple(13, 1_300_000),
    );
    let mut reasons = Vec::new();
    for image in [tight, roomy] {
        let registry = Registry::of(image, |_| None).await;
        let store = ImageStore::open(small.path()).unwrap();
        let error = pull_with(&store, &registry.host, &options())
            .await
            .unwrap_err();
        reasons.push((
            error.reason(),
            matches!(error.kind(), FailureKind::ResourceExhausted { .. }),
            error.remedy().is_some(),
        ));
        assert!(leftovers(small.path()).is_empty());
        store.prune(&HashSet::new(), Sweep::Remove).unwrap();
    }
    small.unmount();
    assert_eq!(reasons, [("DISK_FULL", true, true); 2]);
}
