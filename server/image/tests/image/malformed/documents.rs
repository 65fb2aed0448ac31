//! Manifests, indexes and configurations that are none.

use super::{Case, layers};
use crate::support::Tar;

pub(crate) fn bad_documents() -> Vec<Case> {
    let with = |change: fn(&str) -> String| {
        let mut image = layers([Tar::new().file("a", b"x")]);
        let manifest = String::from_utf8(image.manifest.clone()).unwrap();
        image.manifest = change(&manifest).into_bytes();
        image
    };
    let configured =
        |change: fn(&str) -> String| layers([Tar::new().file("a", b"x")]).with_config(change);
    vec![
        (
            "a page",
            with(|_| "<html></html>".into()),
            "IMAGE_MALFORMED",
            "the manifest is malformed",
        ),
        (
            "a manifest that is cut off",
            with(|text| text[..text.len() / 2].into()),
            "IMAGE_MALFORMED",
            "the manifest is malformed",
        ),
        (
            "nothing",
            with(|_| "{}".into()),
            "NOT_AN_IMAGE",
            "neither an image's manifest nor an index",
        ),
        (
            "a manifest that is an index too",
            with(|text| text.replace("\"layers\"", "\"manifests\":[],\"layers\"")),
            "NOT_AN_IMAGE",
            "neither an image's manifest nor an index",
        ),
        (
            "a digest of another algorithm",
            with(|text| text.replace("sha256:", "sha512:")),
            "IMAGE_MALFORMED",
            "the manifest is malformed",
        ),
        (
            "a digest that is a path",
            with(|text| text.replace("sha256:", "sha256:../../")),
            "IMAGE_MALFORMED",
            "the manifest is malformed",
        ),
        (
            "a chart",
            with(|text| {
                text.replace(
                    "application/vnd.oci.image.config.v1+json",
                    "application/vnd.cncf.helm.config.v1+json",
                )
            }),
            "NOT_AN_IMAGE",
            "its configuration has the media type",
        ),
        (
            "a layer that is a program",
            with(|text| {
                text.replace(
                    "application/vnd.oci.image.layer.v1.tar+gzip",
                    "application/wasm",
                )
            }),
            "NOT_AN_IMAGE",
            "its layer has the media type",
        ),
        (
            "a negative size",
            with(|text| text.replace("\"size\":", "\"size\":-")),
            "IMAGE_MALFORMED",
            "the manifest is malformed",
        ),
        (
            "a layer of 2^63 bytes",
            with(|text| text.replacen("\"size\":", "\"size\":9223372036854775", 2)),
            "IMAGE_TOO_LARGE",
            "more than is allowed",
        ),
        (
            "a thousand layers",
            with(|text| {
                text.replace(
                    "\"layers\":[",
                    &format!(
                        "\"layers\":[{}",
                        format!("{},", layer_of(text)).repeat(1000)
                    ),
                )
            }),
            "IMAGE_TOO_LARGE",
            "layers, which is more",
        ),
        (
            "more layers than digests",
            with(|text| text.replace("\"layers\":[", &format!("\"layers\":[{},", layer_of(text)))),
            "IMAGE_LAYER_COUNT",
            "2 layers and the configuration 1",
        ),
        (
            "a configuration of another length",
            with(|text| text.replacen("\"size\":", "\"size\":1", 1)),
            "BLOB_TOO_SHORT",
            "sent a document of",
        ),
        (
            "a configuration that is no object",
            configured(|_| "[]".into()),
            "IMAGE_MALFORMED",
            "the configuration is malformed",
        ),
        (
            "a configuration without layers",
            configured(|text| text.replace("rootfs", "roots")),
            "IMAGE_MALFORMED",
            "the configuration is malformed",
        ),
        (
            "a configuration of another machine",
            configured(|text| text.replace("amd64", "s390x")),
            "IMAGE_PLATFORM_MISSING",
            "no variant for linux/amd64; it has linux/s390x",
        ),
    ]
}

/// The layer's descriptor out of a manifest.
fn layer_of(manifest: &str) -> String {
    let begin = manifest.find("\"layers\":[").unwrap() + 10;
    manifest[begin..manifest.rfind(']').unwrap()].to_owned()
}
