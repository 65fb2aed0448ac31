//! Bundles from catalogs: servers that lie, break off and stall, and directories with links in them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use banger_catalog::BundleEntry;
use banger_core::operation::{NoProgress, StageKey};
use banger_core::{Explain, FailureKind};
use banger_image::{BuiltImage, CatalogSource, ImageStore, SourceOptions, StoreError};
use tokio_util::sync::CancellationToken;

use super::assert_empty;
use super::made::{Made, made};
use crate::support::{Answer, Registry as Server, Request, Then};

const DEADLINE: Duration = Duration::from_secs(60);

/// Soon out of patience, and then asks again.
fn source(address: &str) -> CatalogSource {
    source_with(address, Duration::from_millis(300))
}

fn source_with(address: &str, stall_timeout: Duration) -> CatalogSource {
    let options = SourceOptions {
        stall_timeout,
        ..SourceOptions::default()
    };
    CatalogSource::new(&address.parse().unwrap(), &options).unwrap()
}

async fn pull_entry(
    store: &ImageStore,
    address: &str,
    entry: &BundleEntry,
) -> Result<BuiltImage, StoreError> {
    let cancel = CancellationToken::new();
    store
        .pull_bundle(&source(address), entry, DEADLINE, &NoProgress, &cancel)
        .await
}

/// Pulls from a server that answers like this; what fails leaves nothing.
async fn pull(
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> (Result<BuiltImage, StoreError>, usize) {
    let server = Server::start(answer).await;
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let result = pull_entry(&store, &format!("http://{}/", server.host), &made().entry).await;
    if result.is_err() {
        assert_empty(state.path());
    }
    (result, server.count("noise"))
}

async fn reason(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> &'static str {
    let error = pull(answer).await.0.unwrap_err();
    assert!(error.remedy().is_some(), "{error}");
    error.reason()
}

fn from(request: &Request) -> usize {
    let range = request.header("range").map(|range| {
        let range = range
            .strip_prefix("bytes=")
            .and_then(|range| range.strip_suffix('-'));
        range.unwrap().parse().unwrap()
    });
    range.unwrap_or(0)
}

/// The rest from `from` on, of a file of `total` bytes.
fn part(bytes: &[u8], from: usize) -> Answer {
    Answer {
        status: 206,
        headers: format!(
            "Content-Range: bytes {from}-{}/{}\r\n",
            bytes.len() - 1,
            bytes.len()
        ),
        body: bytes[from..].to_vec(),
        ..Answer::default()
    }
}

/// The first answer breaks off in the middle.
fn cut(bytes: &[u8]) -> Answer {
    Answer {
        length: Some(bytes.len() as u64),
        ..Answer::ok(&bytes[..bytes.len() / 2])
    }
}

/// The first request is answered by half, the others by `then`.
fn broken_off(
    then: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> impl Fn(&Request) -> Answer {
    let asked = AtomicUsize::new(0);
    move |request| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => cut(&made().bundle),
        _ => then(request),
    }
}

#[tokio::test]
async fn a_bundle_is_pulled_once_and_then_known() {
    let Made { bundle, entry, .. } = made();
    let server = Server::start(|_| Answer::ok(bundle.clone())).await;
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let address = format!("http://{}/base", server.host);
    let image = pull_entry(&store, &address, entry).await.unwrap();
    assert_eq!(image.digest, entry.digest);
    assert_eq!(pull_entry(&store, &address, entry).await.unwrap(), image);
    assert_eq!(server.count("/base/images/noise-1.tar.zst"), 1);
}

#[tokio::test]
async fn a_bundle_that_takes_hours_to_unpack_ends_with_the_pulls_time() {
    let bundle = super::made::zeros(200 << 30);
    let mut entry = made().entry.clone();
    entry.rootfs_size_bytes = 200 << 30;
    entry.file.size_bytes = bundle.len() as u64;
    let server = Server::start(move |_| Answer::ok(bundle.clone())).await;
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let address = format!("http://{}/", server.host);
    let (source, deadline) = (source_with(&address, DEADLINE), Duration::from_secs(1));
    let cancel = CancellationToken::new();
    let error = store
        .pull_bundle(&source, &entry, deadline, &NoProgress, &cancel)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Deadline { .. }), "{error}");
    assert_empty(state.path());
}

#[tokio::test]
async fn two_callers_share_one_fetch() {
    let Made { bundle, entry, .. } = made();
    let server = Server::start(|_| Answer::ok(bundle.clone())).await;
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let address = format!("http://{}", server.host);
    let (one, other) = tokio::join!(
        pull_entry(&store, &address, entry),
        pull_entry(&store, &address, entry)
    );
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(server.count("noise"), 1);
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let (result, requests) = pull(broken_off(|request| {
        let at = from(request);
        assert!(at > 0);
        part(&made().bundle, at)
    }))
    .await;
    result.unwrap();
    assert_eq!(requests, 2);
}

#[tokio::test]
async fn a_server_without_ranges_sends_it_again() {
    let (result, requests) = pull(broken_off(|_| Answer::ok(made().bundle.clone()))).await;
    result.unwrap();
    assert_eq!(requests, 2);
}

#[tokio::test]
async fn a_file_that_is_replaced_meanwhile_is_noticed() {
    let tag = |mut answer: Answer, tag: &str| {
        answer.headers.push_str(&format!("ETag: \"{tag}\"\r\n"));
        answer
    };
    let asked = AtomicUsize::new(0);
    let tagged = reason(move |request| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => tag(cut(&made().bundle), "one"),
        _ => {
            assert_eq!(request.header("if-range"), Some("\"one\""));
            tag(Answer::ok(made().bundle.clone()), "two")
        }
    });
    assert_eq!(tagged.await, "CATALOG_FILE_CHANGED");
    // One that tells nothing is found out by its digest.
    let untold = reason(broken_off(|request| {
        let mut other = made().bundle.clone();
        let last = other.len() - 9;
        other[last] ^= 1;
        part(&other, from(request))
    }));
    assert_eq!(untold.await, "BUNDLE_FILE_DIGEST");
}

#[tokio::test]
async fn each_lie_of_a_server_has_its_reason() {
    let whole = || made().bundle.clone();
    let longer = move || [whole(), vec![0; 100]].concat();
    assert_eq!(
        reason(move |_| Answer::ok(&whole()[..1000])).await,
        "CATALOG_FILE_SIZE"
    );
    assert_eq!(
        reason(move |_| Answer::ok(longer())).await,
        "CATALOG_FILE_SIZE"
    );
    let endless = move |_: &Request| Answer {
        then: Then::Repeat,
        ..Answer::ok(whole())
    };
    assert_eq!(reason(endless).await, "CATALOG_FILE_SIZE");
    assert_eq!(
        reason(broken_off(|_| Answer::status(416))).await,
        "CATALOG_FILE_SIZE"
    );
    assert_eq!(
        reason(broken_off(|_| part(&made().bundle, 7))).await,
        "CATALOG_RANGE_WRONG"
    );
    assert_eq!(
        reason(|_| part(&made().bundle, 0)).await,
        "CATALOG_RANGE_WRONG"
    );
    let longer_part = |request: &Request| {
        let mut answer = part(&made().bundle, from(request));
        answer.headers = answer
            .headers
            .replace(&format!("/{}", made().bundle.len()), "/999999999");
        answer
    };
    assert_eq!(reason(broken_off(longer_part)).await, "CATALOG_FILE_SIZE");
    let mut wrong = whole();
    wrong[5000] ^= 1;
    assert_eq!(
        reason(move |_| Answer::ok(wrong.clone())).await,
        "BUNDLE_FILE_DIGEST"
    );
    assert_eq!(
        reason(move |_| Answer::ok(vec![0; whole().len()])).await,
        "BUNDLE_FILE_DIGEST"
    );
    assert_eq!(
        reason(|_| Answer::status(404)).await,
        "CATALOG_FILE_MISSING"
    );
    assert_eq!(reason(|_| Answer::status(403)).await, "CATALOG_STATUS");
    for target in [
        "http://127.0.0.2:9/x",
        "http://example.com/x",
        "https://127.0.0.2:9/x",
        "https://example.com/x",
    ] {
        let away = move |_: &Request| Answer {
            headers: format!("Location: {target}\r\n"),
            ..Answer::status(302)
        };
        assert_eq!(reason(away).await, "CATALOG_REDIRECTED", "{target}");
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_not_for_ever() {
    let asked = AtomicUsize::new(0);
    let (result, _) = pull(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Answer::status(503),
        _ => Answer::ok(made().bundle.clone()),
    })
    .await;
    result.unwrap();
    let (result, requests) = pull(|_| Answer::status(503)).await;
    assert_eq!(result.unwrap_err().reason(), "CATALOG_STATUS");
    assert_eq!(requests, 4);
    let stalled = |_: &Request| Answer {
        then: Then::Stall,
        ..cut(&made().bundle)
    };
    let given_up = tokio::time::timeout(Duration::from_secs(120), reason(stalled));
    assert_eq!(given_up.await.expect("it is given up"), "CATALOG_STALLED");
}

#[tokio::test]
async fn an_index_and_a_bundle_that_disagree_are_refused() {
    let server = Server::start(|_| Answer::ok(made().bundle.clone())).await;
    let address = format!("http://{}", server.host);
    let changes: [fn(&mut BundleEntry); 6] = [
        |entry| entry.name = "other".parse().unwrap(),
        |entry| entry.version = "2".parse().unwrap(),
        |entry| entry.kernel = None,
        |entry| entry.platform.architecture = "arm64".into(),
        |entry| entry.digest = banger_core::Digest::of(b"other"),
        |entry| entry.rootfs_size_bytes += 4096,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut entry = made().entry.clone();
        change(&mut entry);
        let state = tempfile::tempdir().unwrap();
        let store = ImageStore::open(state.path()).unwrap();
        let error = pull_entry(&store, &address, &entry).await.unwrap_err();
        let expected = if number == 5 {
            "BUNDLE_ROOTFS_SIZE"
        } else {
            "BUNDLE_DISAGREES"
        };
        assert_eq!(error.reason(), expected, "{number}");
        assert_empty(state.path());
    }
}

#[tokio::test]
async fn a_pull_can_be_given_up_and_runs_out_of_time() {
    let stalled = |_: &Request| Answer {
        then: Then::Stall,
        ..cut(&made().bundle)
    };
    let server = Server::start(stalled).await;
    let address = format!("http://{}", server.host);
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let (cancel, from) = (CancellationToken::new(), source(&address));
    let short = Duration::from_millis(100);
    let pulling = store.pull_bundle(&from, &made().entry, DEADLINE, &NoProgress, &cancel);
    let (result, ()) = tokio::join!(pulling, async {
        tokio::time::sleep(short).await;
        cancel.cancel();
    });
    assert_eq!(result.unwrap_err().reason(), "CANCELLED");
    assert_empty(state.path());
    let cancel = CancellationToken::new();
    let late = store
        .pull_bundle(&from, &made().entry, short, &NoProgress, &cancel)
        .await;
    assert_eq!(late.unwrap_err().reason(), "PULL_DEADLINE");
    assert_empty(state.path());
}

/// Fetches the bundle as a file from a server that sends it byte by byte.
async fn fetch_trickle(stall: Duration, deadline: Duration) -> StoreError {
    let trickle = |_: &Request| Answer {
        then: Then::Trickle,
        ..Answer::ok(made().bundle.clone())
    };
    let server = Server::start(trickle).await;
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let from = source_with(&format!("http://{}", server.host), stall);
    let (stage, cancel) = (StageKey::new("fetch"), CancellationToken::new());
    let file = &made().entry.file;
    let fetched = store.fetch_file(&from, file, &stage, deadline, &NoProgress, &cancel);
    let error = fetched.await.unwrap_err();
    assert_empty(state.path());
    error
}

#[tokio::test]
async fn a_trickle_is_no_transfer() {
    let error = fetch_trickle(Duration::from_secs(2), Duration::from_secs(600)).await;
    assert_eq!(error.reason(), "CATALOG_TOO_SLOW", "{error}");
    assert_eq!(error.kind(), FailureKind::DeadlineExceeded);
}

#[tokio::test]
async fn a_file_that_is_fetched_whole_has_a_deadline() {
    let error = fetch_trickle(Duration::from_secs(600), Duration::from_millis(100)).await;
    assert_eq!(error.reason(), "PULL_DEADLINE", "{error}");
}

#[tokio::test]
async fn a_server_is_not_asked_again_before_it_wants_to_be() {
    let busy = |seconds: u32| Answer {
        headers: format!("Retry-After: {seconds}\r\n"),
        ..Answer::status(429)
    };
    let (begin, asked) = (Instant::now(), AtomicUsize::new(0));
    let (result, _) = pull(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => busy(2),
        _ => Answer::ok(made().bundle.clone()),
    })
    .await;
    result.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(2));
    // One that wants to be left alone for long is.
    let (result, requests) = pull(move |_| busy(3600)).await;
    let error = result.unwrap_err();
    assert_eq!((error.reason(), requests), ("CATALOG_STATUS", 1));
    let retry_after = Duration::from_secs(3600);
    assert_eq!(error.kind(), FailureKind::Unavailable { retry_after });
}

#[tokio::test]
async fn a_directory_serves_too_and_no_link_leads_out_of_it() {
    let Made { bundle, entry, .. } = made();
    let catalog = tempfile::tempdir().unwrap();
    let images = catalog.path().join("images");
    std::fs::create_dir(&images).unwrap();
    let file = images.join("noise-1.tar.zst");
    let address = catalog.path().to_str().unwrap();
    let state = tempfile::tempdir().unwrap();
    let store = ImageStore::open(state.path()).unwrap();
    let reason = async || {
        pull_entry(&store, address, entry)
            .await
            .unwrap_err()
            .reason()
    };
    assert_eq!(reason().await, "CATALOG_FILE_MISSING");
    let outside = state.path().join("outside");
    std::fs::write(&outside, bundle).unwrap();
    std::os::unix::fs::symlink(&outside, &file).unwrap();
    assert_eq!(reason().await, "CATALOG_UNREADABLE");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(reason().await, "CATALOG_UNREADABLE");
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, &bundle[..500]).unwrap();
    assert_eq!(reason().await, "CATALOG_FILE_SIZE");
    std::fs::write(&file, [bundle.as_slice(), b"x"].concat()).unwrap();
    assert_eq!(reason().await, "CATALOG_FILE_SIZE");
    std::fs::remove_file(&outside).unwrap();
    assert_empty(state.path());
    std::fs::write(&file, bundle).unwrap();
    assert_eq!(
        pull_entry(&store, address, entry).await.unwrap().digest,
        entry.digest
    );
}

#[tokio::test]
async fn an_index_beyond_reason_is_not_read() {
    let server = Server::start(|_| Answer {
        then: Then::Repeat,
        ..Answer::ok(vec![b' '; 1 << 20])
    })
    .await;
    // A busy host must not look like a server that stalls: one request is what is counted.
    let source = source_with(&format!("http://{}", server.host), Duration::from_secs(30));
    let error = source.catalog_json().await.unwrap_err();
    assert_eq!(error.reason(), "CATALOG_TOO_LARGE");
    assert_eq!(server.count("/catalog.json"), 1);
}

#[tokio::test]
async fn an_index_may_take_longer_than_it_may_be_silent() {
    // A thousand pieces, and a pause after each.
    let index = vec![b' '; 8 << 20];
    let server = Server::start(move |request| match request.path.contains("stalls") {
        true => Answer {
            then: Then::Stall,
            length: Some(2),
            ..Answer::ok(" ")
        },
        false => Answer {
            then: Then::Slowly,
            ..Answer::ok(index.clone())
        },
    })
    .await;
    let bounded = |place: &str, silence, timeout| {
        let options = SourceOptions {
            stall_timeout: Duration::from_secs(60),
            index_silence: silence,
            index_timeout: timeout,
            ..SourceOptions::default()
        };
        let address = format!("http://{}/{place}", server.host);
        CatalogSource::new(&address.parse().unwrap(), &options).unwrap()
    };
    let (short, long) = (Duration::from_secs(1), Duration::from_secs(60));
    let come = bounded("", short, long).catalog_json().await.unwrap();
    assert_eq!(come.len(), 8 << 20);
    let slow = bounded("", long, short).catalog_json().await.unwrap_err();
    assert_eq!(slow.reason(), "CATALOG_TOO_SLOW", "{slow}");
    let silent = bounded("stalls/", short, long);
    let silent = silent.catalog_json().await.unwrap_err();
    assert_eq!(silent.reason(), "CATALOG_STALLED", "{silent}");
}
