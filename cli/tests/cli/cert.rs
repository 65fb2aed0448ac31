//! `banger cert`, for which no daemon is needed.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{code, text};

/// `banger cert` with the authority in this directory.
fn cert(authority: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_banger"));
    command.arg("cert").args(words).arg("--dir").arg(authority);
    command.env("BANGER_HOST", "unix:///nowhere/s");
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(code(&output), 0, "{words:?}: {}", text(&output.stderr));
    output
}

/// The names and states that `cert list` tells with these options.
fn listed(authority: &Path, options: &[&str]) -> Vec<(String, String)> {
    let words = [&["list", "--output", "json"], options].concat();
    let rows: Value = serde_json::from_slice(&cert(authority, &words).stdout).unwrap();
    let word = |row: &Value, key| row[key].as_str().unwrap().to_owned();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| (word(row, "name"), word(row, "state")))
        .collect()
}

/// As if the certificate of this name had ended long ago: none is issued that has.
fn let_end(authority: &Path, name: &str) {
    let path = authority.join("index.json");
    let mut index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let certificates = index["certificates"].as_array_mut().unwrap();
    let certificate = certificates.iter_mut().find(|entry| entry["name"] == name);
    certificate.unwrap()["not_after"] = "2020-01-01T00:00:00Z".into();
    std::fs::write(path, index.to_string()).unwrap();
}

#[test]
fn those_that_end_soon_are_listed_alone() {
    let dir = tempfile::tempdir().unwrap();
    let authority = dir.path().join("pki");
    cert(&authority, &["init"]);
    for (name, days) in [("soon", "10"), ("later", "100"), ("gone", "10")] {
        let words = ["issue", name, "--role", "user", "--days", days];
        cert(&authority, &words);
    }
    let server = ["issue", "--server", "example.com", "--days", "20"];
    cert(&authority, &server);
    cert(&authority, &["issue", "over", "--role", "user"]);
    cert(&authority, &["revoke", "gone"]);
    let_end(&authority, "over");

    let told = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        let owned = |&(name, state): &(&str, &str)| (name.to_owned(), state.to_owned());
        pairs.iter().map(owned).collect()
    };
    let all = [
        ("over", "expired"),
        ("example.com", "valid"),
        ("gone", "revoked"),
        ("later", "valid"),
        ("soon", "valid"),
    ];
    assert_eq!(listed(&authority, &[]), told(&all));
    for (days, expected) in [
        ("200", &[all[1], all[3], all[4]][..]),
        ("30", &[all[1], all[4]]),
        ("15", &[all[4]]),
        ("5", &[]),
        ("0", &[]),
    ] {
        let found = listed(&authority, &["--expiring", days]);
        assert_eq!(found, told(expected), "within {days} days");
    }
    let table = cert(&authority, &["ls", "--expiring", "15"]);
    let table = text(&table.stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines.len() == 2 && lines[1].contains(" soon ") && lines[1].contains(" user "),
        "{table}"
    );
}
