//! What catalogs offer, and how bundles are named.

use banger_catalog::ImageManifest;
use banger_proto::v1;
use tonic::Code;

use super::Shelf;
use crate::rig::{Rig, assert_refused};

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
    for reference in ["my-web:1", "web:2"] {
        let tag = v1::TagImageRequest {
            image: "web:1".into(),
            reference: reference.into(),
            ..Default::default()
        };
        rig.images().tag_image(tag).await.unwrap();
    }
    for image in ["web:1", "my-web:1", "docker.io/library/web:2"] {
        let request = v1::ExportBundleRequest {
            image: image.into(),
            ..Default::default()
        };
        let (manifest, _) = rig.export(request).await.unwrap();
        assert!(image.ends_with(&name(&manifest)), "{image}");
        assert_eq!(name(&manifest).contains("my-"), image.contains("my-"));
    }
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
