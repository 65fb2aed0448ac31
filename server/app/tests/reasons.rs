//! Proves that every reason an error can have is documented.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Below this, the scan has missed whole crates.
const REASONS_AT_LEAST: usize = 100;

fn server() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the sources are there") {
        let path = entry.expect("the sources are readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The words in `fn reason`, up to the end of the function.
fn reasons_of(source: &str) -> BTreeSet<String> {
    let bodies = source.split("fn reason(&self)").skip(1);
    let body = |text: &'_ str| {
        text.find("\n    }\n")
            .map_or(text, |end| &text[..end])
            .to_owned()
    };
    let is_reason = |word: &&str| {
        word.len() > 3
            && word
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    let words = bodies.map(|text| {
        body(text)
            .split('"')
            .filter(is_reason)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    words.flatten().collect()
}

#[test]
fn every_reason_is_documented() {
    let documented = fs::read_to_string(server().join("../docs/status-codes.md")).unwrap();
    let mut files = Vec::new();
    for layer in fs::read_dir(server()).unwrap() {
        let src = layer.unwrap().path().join("src");
        if src.is_dir() {
            sources(&src, &mut files);
        }
    }
    sources(&server().join("../catalog/src"), &mut files);
    files.retain(|path| !path.ends_with("tests.rs"));
    let texts = files.iter().map(|path| fs::read_to_string(path).unwrap());
    // The sample error beside the trait itself is in a test module.
    let reasons: BTreeSet<String> = texts
        .map(|text| {
            text.split("#[cfg(test)]")
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .flat_map(|text| reasons_of(&text))
        .collect();
    assert!(
        reasons.len() >= REASONS_AT_LEAST,
        "only {} reasons were found",
        reasons.len()
    );
    let missing: Vec<_> = reasons
        .iter()
        .filter(|reason| !documented.contains(&format!("`{reason}`")))
        .collect();
    assert!(missing.is_empty(), "docs/status-codes.md lacks {missing:?}");
}
