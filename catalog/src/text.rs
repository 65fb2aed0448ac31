//! The texts of a catalog that end in references, paths and addresses.

use std::fmt;
use std::str::FromStr;

use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, VERSION_BYTES_MAX};

/// A text that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct TextError {
    /// What was given, cut.
    pub text: String,
    /// What a right one looks like.
    pub wanted: &'static str,
}

macro_rules! text_type {
    ($(#[$meta:meta])* $name:ident, $check:path, $wanted:literal) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// As text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = TextError;

            fn from_str(text: &str) -> Result<Self, TextError> {
                if $check(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(TextError {
                    text: text.chars().take(80).collect(),
                    wanted: $wanted,
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = TextError;

            fn try_from(text: String) -> Result<Self, TextError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

text_type!(
    /// A bundle's name: lower-case words of `a-z` and `0-9` with single `-`, `_` or `.` between them, so that
    /// `name:version` is an image reference too.
    BundleName,
    is_name,
    "a bundle's name (a-z and 0-9, with single `-`, `_` or `.` between them)"
);

text_type!(
    /// A bundle's version: what an image's tag may be.
    BundleVersion,
    is_version,
    "a version (a-z, A-Z, 0-9, `_`, `-` and `.`, not beginning with `-` or `.`)"
);

text_type!(
    /// Where an artifact lies below its catalog: relative, without `.` or `..`, of characters that mean nothing
    /// to a shell, a URL or a file system.
    ArtifactPath,
    is_path,
    "a relative path of plain words (a-z, A-Z, 0-9, `_`, `-`, `+` and `.`, none beginning with `.`)"
);

fn is_name(text: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    text.len() <= NAME_BYTES_MAX && text.split(['-', '_', '.']).all(word)
}

fn is_version(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=VERSION_BYTES_MAX).contains(&text.len())
        && !text.starts_with(['-', '.'])
        && text.bytes().all(plain)
}

fn is_path(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+' | b'.');
    let component =
        |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain);
    text.len() <= PATH_BYTES_MAX && text.split('/').all(component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_words_that_make_a_reference() {
        for text in ["debian", "debian-slim", "a.b_c-1", "0"] {
            assert_eq!(text.parse::<BundleName>().unwrap().as_str(), text);
        }
        for text in [
            "", "Debian", "a--b", "-a", "a-", "a/b", "a:1", "..", "a b", "ä", "a\0",
        ] {
            assert!(text.parse::<BundleName>().is_err(), "{text}");
        }
        assert!(
            "x".repeat(NAME_BYTES_MAX + 1)
                .parse::<BundleName>()
                .is_err()
        );
    }

    #[test]
    fn a_version_is_what_a_tag_may_be() {
        for text in ["1", "12.5-slim", "_x", "V2"] {
            assert_eq!(text.parse::<BundleVersion>().unwrap().as_str(), text);
        }
        for text in ["", ".1", "-1", "1/2", "1:2", "1 2", "1@2"] {
            assert!(text.parse::<BundleVersion>().is_err(), "{text}");
        }
        assert!(
            "1".repeat(VERSION_BYTES_MAX + 1)
                .parse::<BundleVersion>()
                .is_err()
        );
    }

    #[test]
    fn a_path_stays_beneath_its_catalog() {
        for text in ["a.tar.zst", "x/y/z-1+b.tar.zst"] {
            assert_eq!(text.parse::<ArtifactPath>().unwrap().as_str(), text);
        }
        for text in [
            "", "/a", "a/", "a//b", "..", "../a", "a/../b", "./a", "a/.", ".hidden", "a\\b",
            "a\0b", "a?b", "a#b", "a%2e", "http://x", "a b", "ä",
        ] {
            assert!(text.parse::<ArtifactPath>().is_err(), "{text}");
        }
        assert!("a/".repeat(128).parse::<ArtifactPath>().is_err());
        assert!("a".repeat(256).parse::<ArtifactPath>().is_err());
    }
}
