//! Looking for secrets where none may be.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Whether `text` holds `part`.
pub(crate) fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// A secret as it is, and in every form that base64 gives it behind one, two or three bytes.
pub(crate) fn forms(secret: &str) -> Vec<Vec<u8>> {
    let encoded = |before: usize| {
        let text = STANDARD.encode(format!("{}{secret}", "x".repeat(before)));
        // What the bytes before and behind have no part in.
        text.as_bytes()[4..text.len() - 4].to_vec()
    };
    vec![secret.into(), encoded(0), encoded(1), encoded(2)]
}

/// Looks into every file below `directory` whose name is not `except`; returns how many there were.
pub(crate) fn is_nowhere_in(directory: &Path, secret: &[u8], except: &str) -> usize {
    let mut looked_at = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        if path.is_dir() {
            looked_at += is_nowhere_in(&path, secret, except);
        } else if path.is_file() && entry.file_name() != except {
            looked_at += 1;
            let content = fs::read(&path).unwrap();
            assert!(!has(&content, secret), "in {}", path.display());
        }
    }
    looked_at
}
