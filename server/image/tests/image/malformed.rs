//! Images no honest tool makes, each refused with a reason and a text of its own, and with nothing left of it.
mod archives;
mod documents;
mod streams;
mod trees;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::support::{Tar, TestImage};
use banger_core::operation::NoProgress;
use banger_core::{Digest, Explain, FailureKind, chain};
use banger_image::{ImageStore, RegisterOptions, RegisterSource, StoreError};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

/// What is wrong, the image, the reason, and what the text must say.
type Case = (&'static str, TestImage, &'static str, &'static str);

/// Most of the time goes into waiting for the host's disk.
const AT_ONCE: usize = 8;

/// An image of one layer, served as it is.
fn served(blob: Vec<u8>) -> TestImage {
    TestImage::new(&[(blob, Digest::of(b""))])
}

/// An image of these entries, put behind each other without any end mark.
fn entries(parts: &[Vec<u8>]) -> TestImage {
    TestImage::of(&[parts.concat()])
}

fn layers<const COUNT: usize>(layers: [Tar; COUNT]) -> TestImage {
    TestImage::of(&layers.map(Tar::finish))
}

#[tokio::test]
async fn every_malformed_image_is_refused_with_its_own_reason_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let store = ImageStore::open(&state).unwrap();
    let cases = [
        streams::broken_streams(),
        archives::broken_archives(),
        archives::ambiguous_archives(),
        trees::bad_entries(),
        trees::layers_that_do_not_fit(),
        documents::bad_documents(),
    ]
    .concat();
    assert!(cases.len() >= 40, "{}", cases.len());
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let refused = cases.into_iter().enumerate().map(|(number, case)| {
        let layout = directory.path().join(number.to_string());
        refused(&store, layout, case)
    });
    let mut refused = futures::stream::iter(refused).buffer_unordered(AT_ONCE);
    while let Some((reason, what)) = refused.next().await {
        reasons.entry(reason).or_default().push(what);
    }
    assert!(crate::support::leftovers(&state).is_empty());
    assert!(reasons.len() >= 30, "{reasons:#?}");
    assert_eq!(std::fs::read_dir(state.join("rootfs")).unwrap().count(), 0);
}

/// Sees an image refused as it should be.
async fn refused(store: &ImageStore, layout: PathBuf, case: Case) -> (&'static str, &'static str) {
    let (what, image, reason, text) = case;
    image.write_layout(&layout);
    let error = register(store, layout).await.expect_err(what);
    let said = chain(&error);
    assert_eq!(error.reason(), reason, "{what}: {said}");
    assert!(said.contains(text), "{what}: {said}");
    assert!(error.remedy().is_some(), "{what}: {said}");
    assert!(
        !matches!(error.kind(), FailureKind::Internal),
        "{what}: {said}"
    );
    (reason, what)
}

#[tokio::test]
async fn a_manifest_of_another_length_than_its_index_says_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&directory.path().join("state")).unwrap();
    let layout = directory.path().join("layout");
    layers([Tar::new().file("a", b"x")]).write_layout(&layout);
    let index = layout.join("index.json");
    let said = std::fs::read_to_string(&index).unwrap();
    for (size, reason) in [
        ("\"size\":1", "BLOB_TOO_SHORT"),
        ("\"size\":1,\"was\":", "BLOB_TOO_LONG"),
    ] {
        std::fs::write(&index, said.replacen("\"size\":", size, 1)).unwrap();
        let error = register(&store, layout.clone()).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
    }
    std::fs::write(&index, said).unwrap();
    register(&store, layout).await.unwrap();
}

async fn register(
    store: &ImageStore,
    path: PathBuf,
) -> Result<banger_image::BuiltImage, StoreError> {
    let options = RegisterOptions {
        platform: "linux/amd64".parse().unwrap(),
    };
    let source = RegisterSource::OciLayout { path, image: None };
    store
        .register(source, &options, &NoProgress, &CancellationToken::new())
        .await
}
