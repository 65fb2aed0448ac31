//! What git answers, taken apart.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The fields of an answer in which each ends with a zero byte.
pub(super) fn fields(answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    answer
        .split(|&byte| byte == 0)
        .filter(|field| !field.is_empty())
}

/// A name as text for people and errors: what is no text is escaped.
#[must_use]
pub fn shown(name: &[u8]) -> String {
    const SHOWN_MAX_BYTES: usize = 400;
    let name = &name[..name.len().min(SHOWN_MAX_BYTES)];
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character.is_control() || character == '\\' {
                true => text.extend(character.escape_default()),
                false => text.push(character),
            }
        }
        text.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    text
}

/// Bytes of a path as a path.
pub(super) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The path of an answer that is one line.
pub(super) fn line_path(answer: &[u8]) -> PathBuf {
    path(answer.strip_suffix(b"\n").unwrap_or(answer)).to_owned()
}

/// `name` beneath `prefix`, which may be empty.
pub(super) fn join(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    match prefix {
        b"" => name.to_vec(),
        prefix => [prefix, name].join(&b'/'),
    }
}

/// Bytes as text; of git's own answers, which are ASCII where this is asked for.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
