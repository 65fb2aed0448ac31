use super::*;
use banger_core::Explain;

#[test]
fn references_become_canonical() {
    for (text, canonical) in [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:12", "docker.io/library/debian:12"),
        ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
        ("127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1"),
    ] {
        assert_eq!(
            text.parse::<ImageReference>().unwrap().to_string(),
            canonical
        );
    }
}

#[test]
fn what_is_no_reference_is_an_invalid_argument() {
    for text in [
        "",
        "UPPER/case",
        "a b",
        "x:",
        "../../etc",
        "x@sha256:12",
        "x@sha512:00",
        "http://x/y",
    ] {
        let error = text.parse::<ImageReference>().unwrap_err();
        assert_eq!(error.reason(), "REFERENCE_INVALID", "{text}");
    }
}

#[test]
fn only_this_host_is_loopback() {
    let is_loopback = |text: &str| {
        let reference: ImageReference = text.parse().unwrap();
        crate::transport::is_loopback(reference.registry())
    };
    assert!(is_loopback("127.0.0.1:5000/x"));
    assert!(is_loopback("127.1.2.3/x"));
    assert!(is_loopback("localhost:5000/x"));
    assert!(!is_loopback("127.0.0.1.example.com/x"));
    assert!(!is_loopback("registry.example.com/x"));
    assert!(!is_loopback("debian"));
}

#[test]
fn a_password_is_never_shown() {
    let login = banger_registry_auth::Login::Password {
        username: "me".into(),
        password: "hunter2".into(),
    };
    assert!(!format!("{login:?}").contains("hunter2"));
    let options = PullOptions {
        login: Some(login),
        ..PullOptions::default()
    };
    assert!(!format!("{options:?}").contains("hunter2"));
}
