use super::*;
use crate::index::tests::{bundle, index};
use banger_core::Explain;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_random(&[seed; 32])
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOW: &str = "2026-02-01T00:00:00Z";

fn opened(bytes: &[u8]) -> Result<OpenedIndex, CatalogError> {
    open(bytes, &key(1).public(), None, at(NOW))
}

fn reason(result: Result<OpenedIndex, CatalogError>) -> &'static str {
    result.unwrap_err().reason()
}

/// The envelope as JSON, changed.
fn changed(change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    let mut value = serde_json::from_slice(&seal(&index(1), &[key(1)]).unwrap()).unwrap();
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}

#[test]
fn the_message_is_the_standards() {
    // The example of DSSE's protocol.md.
    assert_eq!(
        pre_authentication("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

#[test]
fn what_was_sealed_is_opened_by_any_of_its_keys() {
    let bytes = seal(&index(1), &[key(1), key(2)]).unwrap();
    for seed in [1, 2] {
        let opened = open(&bytes, &key(seed).public(), None, at(NOW)).unwrap();
        assert_eq!(opened.index, index(1));
    }
    assert_eq!(
        reason(open(&bytes, &key(3).public(), None, at(NOW))),
        "CATALOG_WRONG_KEY"
    );
}

#[test]
fn a_signature_without_a_key_id_still_counts() {
    let bytes = changed(|value| value["signatures"][0]["keyid"] = "".into());
    assert!(opened(&bytes).is_ok());
}

#[test]
fn each_way_not_to_be_signed_has_its_reason() {
    let payload = |bytes: Vec<u8>| STANDARD.encode(bytes);
    let evil = {
        let mut index = index(1);
        index.bundles.push(bundle("evil", "1"));
        index.to_bytes().unwrap()
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            changed(|value| value["signatures"] = serde_json::json!([])),
            "CATALOG_UNSIGNED",
        ),
        (
            changed(|value| {
                value.as_object_mut().unwrap().remove("signatures");
            }),
            "CATALOG_UNSIGNED",
        ),
        (seal(&index(1), &[key(2)]).unwrap(), "CATALOG_WRONG_KEY"),
        (
            changed(|value| value["payload"] = payload(evil.clone()).into()),
            "CATALOG_TAMPERED",
        ),
        (
            changed(|value| {
                let sig = STANDARD.encode([0; 64]);
                value["signatures"][0]["sig"] = sig.into();
            }),
            "CATALOG_TAMPERED",
        ),
        (
            changed(|value| value["payloadType"] = "text/plain".into()),
            "CATALOG_MALFORMED",
        ),
        (
            changed(|value| value["payload"] = "!".into()),
            "CATALOG_MALFORMED",
        ),
        (
            changed(|value| value["signatures"][0]["sig"] = "!".into()),
            "CATALOG_MALFORMED",
        ),
        (
            changed(|value| {
                let one = value["signatures"][0].clone();
                value["signatures"] = vec![one; 17].into();
            }),
            "CATALOG_MALFORMED",
        ),
        (b"<html>".to_vec(), "CATALOG_MALFORMED"),
        (b"".to_vec(), "CATALOG_MALFORMED"),
        (vec![b' '; 33 << 20], "CATALOG_TOO_LARGE"),
    ];
    for (number, (bytes, expected)) in cases.into_iter().enumerate() {
        assert_eq!(reason(opened(&bytes)), expected, "case {number}");
    }
}

#[test]
fn what_is_signed_and_still_no_index_is_invalid() {
    let message = pre_authentication(PAYLOAD_TYPE, b"{}");
    let envelope = serde_json::json!({
        "payloadType": PAYLOAD_TYPE,
        "payload": STANDARD.encode(b"{}"),
        "signatures": [{ "sig": STANDARD.encode(key(1).sign(&message)) }],
    });
    assert_eq!(
        reason(opened(envelope.to_string().as_bytes())),
        "CATALOG_INVALID"
    );
    let mut twice = index(1);
    twice.bundles.push(bundle("debian", "12.9"));
    assert_eq!(
        seal(&twice, &[key(1)]).unwrap_err().reason(),
        "CATALOG_INVALID"
    );
    assert_eq!(
        seal(&index(1), &[]).unwrap_err().reason(),
        "CATALOG_UNSIGNED"
    );
}

#[test]
fn an_index_expires_to_the_second() {
    let bytes = seal(&index(1), &[key(1)]).unwrap();
    let open_at = |now: &str| open(&bytes, &key(1).public(), None, at(now));
    assert!(open_at("2026-03-31T23:59:59Z").is_ok());
    let error = open_at("2026-04-01T00:00:00Z").unwrap_err();
    assert_eq!(error.reason(), "CATALOG_EXPIRED");
    assert_eq!(
        error.to_string(),
        "the catalog's index expired at 2026-04-01T00:00:00Z"
    );
}

#[test]
fn an_index_never_goes_back() {
    let sealed = |version| seal(&index(version), &[key(1)]).unwrap();
    let seen = opened(&sealed(5)).unwrap().seen();
    let again = |bytes: &[u8]| open(bytes, &key(1).public(), Some(&seen), at(NOW));
    assert!(again(&sealed(5)).is_ok());
    assert!(again(&sealed(6)).is_ok());
    assert_eq!(reason(again(&sealed(4))), "CATALOG_ROLLED_BACK");
    let mut other = index(5);
    other.bundles.pop();
    assert_eq!(
        reason(again(&seal(&other, &[key(1)]).unwrap())),
        "CATALOG_EQUIVOCATES"
    );
    let mut foreign = index(6);
    foreign.name = "other".parse().unwrap();
    assert_eq!(
        reason(again(&seal(&foreign, &[key(1)]).unwrap())),
        "CATALOG_OTHER"
    );
}

#[test]
fn every_error_says_what_to_do() {
    for bytes in [
        seal(&index(1), &[key(2)]).unwrap(),
        b"x".to_vec(),
        vec![b' '; 33 << 20],
    ] {
        let error = opened(&bytes).unwrap_err();
        assert!(error.remedy().is_some(), "{error}");
    }
}
