//! Names of files and references, judged without a file system.

use super::limits::{DEPTH_MAX, NAME_MAX_BYTES, PATH_MAX_BYTES, REF_NAME_MAX_BYTES};

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing, or nothing between two slashes.
    #[error("a name is empty")]
    Empty,
    /// Longer than a file system takes.
    #[error("a name is too long")]
    TooLong,
    /// `.` or `..`.
    #[error("a name leads elsewhere")]
    Elsewhere,
    /// A zero byte.
    #[error("a name has a zero byte")]
    Zero,
    /// A name that git, or a file system that folds names, takes for `.git`.
    #[error("a name is one of git's own")]
    Git,
    /// Not a reference's.
    #[error("a name is none of a reference")]
    Reference,
}

/// Judges a path beneath a workspace: names between single slashes, and none that leads out of it or into a repository.
///
/// # Errors
/// What is wrong.
pub fn check(path: &[u8]) -> Result<(), BadName> {
    if path.is_empty() {
        return Err(BadName::Empty);
    }
    if path.len() > PATH_MAX_BYTES {
        return Err(BadName::TooLong);
    }
    for (depth, name) in path.split(|&byte| byte == b'/').enumerate() {
        if depth == DEPTH_MAX {
            return Err(BadName::TooLong);
        }
        check_name(name)?;
    }
    Ok(())
}

fn check_name(name: &[u8]) -> Result<(), BadName> {
    match name {
        b"" => Err(BadName::Empty),
        b"." | b".." => Err(BadName::Elsewhere),
        name if name.len() > NAME_MAX_BYTES => Err(BadName::TooLong),
        name if name.contains(&0) => Err(BadName::Zero),
        name if is_git(name) => Err(BadName::Git),
        _ => Ok(()),
    }
}

/// Whether a name is `.git` to git, to HFS+ (which passes over some characters) or to NTFS (which passes over dots and
/// spaces at the end, knows short names, and takes what follows a colon for a stream): git's `verify_dotfile`,
/// `is_hfs_dotgit` and `is_ntfs_dotgit`.
#[must_use]
pub fn is_git(name: &[u8]) -> bool {
    let visible = without_ignored(name);
    // A backslash is a separator there.
    visible.split(|&byte| byte == b'\\').any(|name| {
        let name = name.split(|&byte| byte == b':').next().unwrap_or(name);
        let end = name.iter().rposition(|byte| !matches!(byte, b'.' | b' '));
        let name = &name[..end.map_or(0, |end| end + 1)];
        name.eq_ignore_ascii_case(b".git") || name.eq_ignore_ascii_case(b"git~1")
    })
}

/// The name without the characters that HFS+ passes over.
fn without_ignored(name: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(name) else {
        return name.to_vec();
    };
    let ignored = |character: char| {
        matches!(character, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{206a}'..='\u{206f}' | '\u{feff}')
    };
    text.chars()
        .filter(|&character| !ignored(character))
        .collect::<String>()
        .into_bytes()
}

/// Judges a reference's name by git-check-ref-format(1): beneath `refs/`.
///
/// # Errors
/// What is wrong.
pub fn check_ref(name: &[u8]) -> Result<(), BadName> {
    let beneath = name.strip_prefix(b"refs/").ok_or(BadName::Reference)?;
    if name.len() > REF_NAME_MAX_BYTES {
        return Err(BadName::TooLong);
    }
    let is_bad = |byte: &u8| {
        *byte < 0x21 || matches!(byte, 0x7f | b'~' | b'^' | b':' | b'?' | b'*' | b'[' | b'\\')
    };
    let pair = |pair: &[u8]| pair == b".." || pair == b"@{";
    if beneath.iter().any(is_bad) || beneath.windows(2).any(pair) || beneath.ends_with(b".") {
        return Err(BadName::Reference);
    }
    let bad_part =
        |part: &[u8]| part.is_empty() || part.starts_with(b".") || part.ends_with(b".lock");
    match beneath.split(|&byte| byte == b'/').any(bad_part) {
        true => Err(BadName::Reference),
        false => Ok(()),
    }
}

/// Whether this is an object's id: 40 or 64 lower-case hexadecimal digits.
#[must_use]
pub fn is_object_id(id: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    matches!(id.len(), 40 | 64) && id.bytes().all(is_digit)
}

/// Whether `path` lies beneath `directory`, which is empty for the workspace itself.
#[must_use]
pub fn is_beneath(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty()
        || path
            .strip_prefix(directory)
            .is_some_and(|rest| rest.first() == Some(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_git_are_seen_in_every_disguise() {
        for name in [
            &b".git"[..],
            b".GIT",
            b".Git",
            b"git~1",
            b"GIT~1",
            b".git.",
            b".git ",
            b".git . .",
            b".git:x",
            b".git::$INDEX_ALLOCATION",
            b"a\\.git",
            b".git\\hooks",
            b"git~1.",
            ".g\u{200c}it".as_bytes(),
            "\u{feff}.git".as_bytes(),
            ".gi\u{206f}T".as_bytes(),
        ] {
            assert!(is_git(name), "{}", String::from_utf8_lossy(name));
            assert_eq!(check(&[b"a/", name].concat()), Err(BadName::Git));
        }
        for name in [
            &b".gitignore"[..],
            b".gitmodules",
            b"git",
            b"git~2",
            b".git2",
            b"a.git",
            b"\xff.git",
        ] {
            assert!(!is_git(name), "{}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn paths_lead_nowhere_else() {
        for path in [&b""[..], b"/", b"/a", b"a/", b"a//b"] {
            assert_eq!(check(path), Err(BadName::Empty));
        }
        for path in [&b".."[..], b"a/../b", b".", b"a/."] {
            assert_eq!(check(path), Err(BadName::Elsewhere));
        }
        assert_eq!(check(b"a\0b"), Err(BadName::Zero));
        assert_eq!(check(&[b'a'; 256]), Err(BadName::TooLong));
        assert_eq!(check(&b"a/".repeat(300)[..599]), Err(BadName::TooLong));
        for path in [&b"a"[..], b"a/b", b"...", b"\xff\xfe", b" ", b"a\nb"] {
            assert_eq!(check(path), Ok(()));
        }
    }

    #[test]
    fn references_are_those_of_git() {
        for name in [
            &b"refs/heads/main"[..],
            b"refs/tags/v1.0",
            b"refs/heads/a/b-c",
            b"refs/stash",
            b"refs/heads/\xc3\xa9",
        ] {
            assert_eq!(check_ref(name), Ok(()), "{}", String::from_utf8_lossy(name));
        }
        for name in [
            &b"HEAD"[..],
            b"refs/",
            b"refs/heads/",
            b"refs/heads//a",
            b"refs/heads/.a",
            b"refs/heads/a.lock",
            b"refs/heads/a..b",
            b"refs/heads/a b",
            b"refs/heads/a~b",
            b"refs/heads/a.",
            b"refs/heads/a@{1}",
            b"refs/../config",
            b"refs/heads/a\nb",
            b"refs/heads/a:b",
        ] {
            assert!(
                check_ref(name).is_err(),
                "{}",
                String::from_utf8_lossy(name)
            );
        }
    }
}
