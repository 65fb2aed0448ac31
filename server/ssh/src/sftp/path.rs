//! Paths as clients give them. They are made absolute by their text alone; only the guest knows its links.

/// A path without `.`, `..` and empty names, from the user's home where it is relative.
pub(super) fn absolute(path: &[u8], home: &str) -> Vec<u8> {
    let from = if path.starts_with(b"/") { "" } else { home };
    below(from, path)
}

/// A path that may begin with `~`, for the user's own home.
pub(super) fn expanded(path: &[u8], home: &str) -> Vec<u8> {
    match path {
        b"~" => below(home, b""),
        [b'~', b'/', rest @ ..] => below(home, rest),
        path => absolute(path, home),
    }
}

/// What an absolute path is when what is at `from` has become `to`.
pub(super) fn moved(path: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    match path.strip_prefix(from) {
        Some(rest @ ([] | [b'/', ..])) => [to, rest].concat(),
        _ => path,
    }
}

fn below(from: &str, path: &[u8]) -> Vec<u8> {
    let names = [from.as_bytes(), path].into_iter();
    let names = names.flat_map(|part| part.split(|&byte| byte == b'/'));
    let mut kept: Vec<&[u8]> = Vec::new();
    for name in names {
        match name {
            b"" | b"." => {}
            b".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    [b"/", &kept.join(&b'/')[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute_by_their_text() {
        let text = |path: &str| String::from_utf8(absolute(path.as_bytes(), "/home/app")).unwrap();
        for (path, expected) in [
            ("", "/home/app"),
            (".", "/home/app"),
            ("a//b/./c", "/home/app/a/b/c"),
            ("../x", "/home/x"),
            ("/", "/"),
            ("/../..", "/"),
            ("/a/b/..", "/a"),
        ] {
            assert_eq!(text(path), expected, "{path}");
        }
        assert_eq!(absolute(b"/\xff", "/"), b"/\xff");
    }

    #[test]
    fn what_is_in_a_directory_moves_with_it() {
        for (path, expected) in [("/a", "/z"), ("/a/b", "/z/b"), ("/ab", "/ab"), ("/", "/")] {
            assert_eq!(moved(path.into(), b"/a", b"/z"), expected.as_bytes());
        }
    }

    #[test]
    fn a_tilde_is_the_home() {
        assert_eq!(expanded(b"~", "/root"), b"/root");
        assert_eq!(expanded(b"~/a", "/root"), b"/root/a");
        assert_eq!(expanded(b"~//a", "/root"), b"/root/a");
        assert_eq!(expanded(b"~other", "/root"), b"/root/~other");
    }
}
