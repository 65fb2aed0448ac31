//! Catalogs that are added and refreshed only if they are believed.

use std::sync::atomic::Ordering;

use banger_catalog::SecretKey;
use banger_proto::v1;
use tonic::Code;

use super::pulls::{Silent, silent};
use super::{Shelf, pulled};
use crate::rig::{PATIENCE, Rig, assert_refused, drain};

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

/// A daemon whose catalog has expired, and that catalog's server, which answers nothing any more.
async fn left_alone(shelf: &mut Shelf, stall: &str) -> (Rig, Silent) {
    let rig = Rig::start_with(|config| config.pull_stall_timeout = stall.parse().unwrap()).await;
    shelf.index.expire_time =
        banger_core::Timestamp::now() + banger_core::SignedDuration::from_secs(5);
    shelf.publish();
    let silent = silent(shelf).await;
    let key = shelf.key.public().to_string();
    rig.add_as("", &silent.url, &key).await.unwrap();
    silent.is_mute.store(true, Ordering::SeqCst);
    // Time is what this is about.
    tokio::time::sleep(std::time::Duration::from_millis(5100)).await;
    (rig, silent)
}

/// Pulls at the same time.
const PULLS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn pulls_that_wait_for_a_catalog_can_be_given_up_and_hold_up_no_other() {
    use v1::pull_image_response::Message;
    let mut shelf = Shelf::furnished().await;
    let (rig, silent) = left_alone(&mut shelf, "1m").await;
    let mut pulls = Vec::new();
    for _ in 0..PULLS {
        let answers = rig.images().pull_image(pulled("web:1")).await;
        let mut answers = answers.unwrap().into_inner();
        let first = answers.message().await.unwrap().unwrap().message;
        let Some(Message::Operation(operation)) = first else {
            panic!("a pull begins with its operation")
        };
        pulls.push((operation.id, answers));
    }
    silent.asked.notified().await;
    let other = Shelf::furnished().await;
    let (url, key) = (other.url(), other.key.public().to_string());
    let added = rig.add_as("other", &url, &key);
    let in_time = tokio::time::timeout(PATIENCE, added).await;
    in_time.expect("another is added meanwhile").unwrap();
    for (operation, answers) in pulls {
        let request = v1::CancelOperationRequest { operation };
        rig.operations().cancel_operation(request).await.unwrap();
        let cancelled = drain(answers).await.unwrap_err();
        assert_eq!(cancelled.code(), Code::Cancelled, "{cancelled:?}");
    }
    rig.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_that_wait_for_a_catalog_take_what_came_of_it() {
    /// Of one request that nobody answers.
    const TRIES: usize = 4;
    let mut shelf = Shelf::furnished().await;
    let (rig, silent) = left_alone(&mut shelf, "500ms").await;
    let pulls = (0..PULLS).map(|_| rig.pull(pulled("web:1")));
    for refused in futures::future::join_all(pulls).await {
        let refused = refused.unwrap_err();
        assert_refused(&refused, Code::FailedPrecondition, "CATALOG_EXPIRED", None);
    }
    let asked = silent.unanswered.load(Ordering::SeqCst);
    assert!(asked < PULLS * TRIES, "asked {asked} times");
    rig.stopped().await;
}
