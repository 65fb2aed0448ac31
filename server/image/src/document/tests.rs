use super::*;

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn descriptor(media_type: &str, extra: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{EMPTY}","size":3{extra}}}"#)
}

fn manifest() -> String {
    let layer = descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", "");
    format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{layer}]}}"#,
        descriptor(OCI_CONFIG, "")
    )
}

#[test]
fn a_document_that_could_be_both_is_neither() {
    assert!(matches!(
        Document::parse(manifest().as_bytes()),
        Ok(Document::Manifest(_))
    ));
    let both = manifest().replace("\"layers\"", "\"manifests\":[],\"layers\"");
    assert!(matches!(
        Document::parse(both.as_bytes()),
        Err(DocumentError::NotAnImage { .. })
    ));
    let lying = manifest().replace(
        "{\"schemaVersion\"",
        &format!("{{\"mediaType\":\"{OCI_INDEX}\",\"schemaVersion\""),
    );
    assert!(matches!(
        Document::parse(lying.as_bytes()),
        Err(DocumentError::NotAnImage { .. })
    ));
    assert!(matches!(
        Document::parse(b"{}"),
        Err(DocumentError::NotAnImage { .. })
    ));
    assert!(matches!(
        Document::parse(b"<html>"),
        Err(DocumentError::Malformed { .. })
    ));
}

#[test]
fn an_artifact_is_not_an_image() {
    let chart = manifest().replace(OCI_CONFIG, "application/vnd.cncf.helm.config.v1+json");
    let error = Document::parse(chart.as_bytes()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("this is not a container image"),
        "{error}"
    );
}

#[test]
fn digests_of_other_algorithms_are_refused() {
    let other = manifest().replace("sha256:", "sha512:");
    assert!(matches!(
        Document::parse(other.as_bytes()),
        Err(DocumentError::Malformed { .. })
    ));
}

#[test]
fn the_platform_decides_in_an_index() {
    let entry = |architecture: &str, variant: &str| {
        let platform =
            format!(r#","platform":{{"os":"linux","architecture":"{architecture}"{variant}}}"#);
        serde_json::from_str::<Descriptor>(&descriptor(OCI_MANIFEST, &platform)).unwrap()
    };
    let index = [
        entry("arm", r#","variant":"v7""#),
        entry("arm64", r#","variant":"v8""#),
        entry("amd64", ""),
    ];
    let position = |text: &str| {
        let chosen = choose(&index, &text.parse().unwrap());
        chosen.map(|found| {
            index
                .iter()
                .position(|entry| std::ptr::eq(entry, found))
                .unwrap()
        })
    };
    assert_eq!(position("linux/amd64").unwrap(), 2);
    assert_eq!(position("linux/arm64").unwrap(), 1);
    assert_eq!(position("linux/arm/v7").unwrap(), 0);
    assert!(position("linux/arm/v6").is_err());
    let error = position("linux/s390x").unwrap_err().to_string();
    assert_eq!(
        error,
        "the image has no variant for linux/s390x; it has linux/arm/v7, linux/arm64/v8, linux/amd64"
    );
}

#[test]
fn a_configuration_may_have_nulls_where_go_writes_them() {
    let text = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":null,"Cmd":["sh"],"Labels":null,"ExposedPorts":{{"80/tcp":{{}}}},"User":null}},"rootfs":{{"type":"layers","diff_ids":["{EMPTY}"]}},"history":[]}}"#
    );
    let parsed = ParsedConfig::parse(text.as_bytes()).unwrap();
    assert_eq!(parsed.config.cmd, ["sh"]);
    assert!(parsed.config.exposed_ports.contains("80/tcp"));
    assert!(matches!(
        parsed.check(2, &Platform::host()),
        Err(DocumentError::LayerCount {
            layers: 2,
            diff_ids: 1
        })
    ));
    let bare = r#"{"rootfs":{"type":"layers","diff_ids":null},"config":null}"#;
    assert!(
        ParsedConfig::parse(bare.as_bytes())
            .unwrap()
            .check(0, &Platform::host())
            .is_ok()
    );
}

#[test]
fn a_configuration_survives_its_own_json() {
    let parsed = ParsedConfig {
        platform: Platform::host(),
        config: ImageConfig {
            env: vec![("A".into(), "1=2".into()), ("B".into(), String::new())],
            user: "1000:1000".into(),
            working_dir: "/srv".into(),
            entrypoint: vec!["/init".into()],
            cmd: vec!["-x".into()],
            exposed_ports: ["53/udp".to_owned()].into(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            stop_signal: "SIGINT".into(),
        },
        diff_ids: vec![Digest::of(b"x")],
    };
    assert_eq!(ParsedConfig::parse(&parsed.to_json()).unwrap(), parsed);
    assert_eq!(parsed.to_json(), parsed.to_json());
}
