use banger_core::Explain;

use super::*;

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn manifest(layer_type: &str) -> String {
    let descriptor =
        |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{EMPTY}","size":3}}"#);
    format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        descriptor(super::super::OCI_CONFIG),
        descriptor(layer_type)
    )
}

fn reason(result: Result<Document, DocumentError>) -> &'static str {
    result.map_or_else(|error| error.reason(), |_| "fine")
}

#[test]
fn each_kind_of_layer_that_cannot_be_used_has_its_own_reason() {
    for (media_type, expected) in [
        ("application/vnd.oci.image.layer.v1.tar", "fine"),
        ("application/vnd.oci.image.layer.v1.tar+gzip", "fine"),
        ("application/vnd.oci.image.layer.v1.tar+zstd", "fine"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "fine"),
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "LAYER_FOREIGN",
        ),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "LAYER_FOREIGN",
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "LAYER_ENCRYPTED",
        ),
        (
            "application/vnd.oci.image.layer.v1.tar+lzma",
            "NOT_AN_IMAGE",
        ),
        ("application/vnd.oci.image.layer.v1.tarball", "NOT_AN_IMAGE"),
        ("application/vnd.wasm.content.layer.v1+wasm", "NOT_AN_IMAGE"),
        ("", "NOT_AN_IMAGE"),
    ] {
        let found = Document::parse(manifest(media_type).as_bytes());
        assert_eq!(reason(found), expected, "{media_type}");
    }
}

#[test]
fn schema_1_is_refused_by_its_name() {
    let old = br#"{"schemaVersion":1,"name":"x","fsLayers":[],"history":[],"signatures":[]}"#;
    assert_eq!(reason(Document::parse(old)), "IMAGE_SCHEMA1");
    let typed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    assert_eq!(reason(parse_served(b"anything", typed)), "IMAGE_SCHEMA1");
}

#[test]
fn a_registry_that_calls_a_document_by_another_type_is_refused() {
    let plain = manifest(OCI_LAYER);
    let named = plain.replace(
        "{\"schemaVersion\"",
        &format!("{{\"mediaType\":\"{OCI_MANIFEST}\",\"schemaVersion\""),
    );
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    for (text, served, expected) in [
        (plain.as_str(), OCI_MANIFEST, "fine"),
        (
            &plain,
            "application/vnd.docker.distribution.manifest.v2+json; charset=utf-8",
            "fine",
        ),
        (&plain, "", "fine"),
        (&plain, "application/json", "fine"),
        (&plain, "Text/HTML; charset=utf-8", "MANIFEST_CONTENT_TYPE"),
        (&plain, OCI_INDEX, "MANIFEST_AMBIGUOUS"),
        (&named, OCI_MANIFEST, "fine"),
        (&named, DOCKER_MANIFEST, "MANIFEST_AMBIGUOUS"),
        (index, OCI_INDEX, "fine"),
        (index, OCI_MANIFEST, "MANIFEST_AMBIGUOUS"),
    ] {
        assert_eq!(
            reason(parse_served(text.as_bytes(), served)),
            expected,
            "{served}: {text}"
        );
    }
}
