//! Names that people type: DNS labels, so that a VM's name can also be a host name.

use std::fmt;
use std::str::FromStr;

/// The longest name, in bytes: the limit of a DNS label (RFC 1035 §2.3.4).
pub const NAME_MAX: usize = 63;

/// A DNS label: 1 to 63 of `a-z`, `0-9` and `-`, neither starting nor ending with `-`, and not a UUID.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or over [`NAME_MAX`] bytes.
    #[error("a name has 1 to {NAME_MAX} characters, not {length}")]
    Length {
        /// The length given, in bytes.
        length: usize,
    },
    /// A character outside the alphabet.
    #[error("a name consists of a-z, 0-9 and `-`, and `{character}` is none of them")]
    Character {
        /// The first offending character.
        character: char,
    },
    /// A hyphen at an end.
    #[error("a name neither starts nor ends with `-`")]
    Hyphen,
    /// The form that ids have, which would make `vm inspect X` ambiguous.
    #[error("a name must not look like an id")]
    LooksLikeId,
}

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.len() > NAME_MAX {
            return Err(NameError::Length { length: text.len() });
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if let Some(character) = text.chars().find(|&c| !allowed(c)) {
            return Err(NameError::Character { character });
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::Hyphen);
        }
        if text.len() == 36 && uuid::Uuid::try_parse(text).is_ok() {
            return Err(NameError::LooksLikeId);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_labels_are_names() {
        for text in ["a", "web-1", "0", &"x".repeat(63)] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        let cases = [
            ("", "a name has 1 to 63 characters, not 0"),
            (
                "Web",
                "a name consists of a-z, 0-9 and `-`, and `W` is none of them",
            ),
            (
                "a/b",
                "a name consists of a-z, 0-9 and `-`, and `/` is none of them",
            ),
            (
                "..",
                "a name consists of a-z, 0-9 and `-`, and `.` is none of them",
            ),
            ("-a", "a name neither starts nor ends with `-`"),
            ("a-", "a name neither starts nor ends with `-`"),
            (
                "01890a5d-ac96-774b-bcce-b302099a8057",
                "a name must not look like an id",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(
                text.parse::<Name>().unwrap_err().to_string(),
                message,
                "{text}"
            );
        }
        assert!("x".repeat(64).parse::<Name>().is_err());
    }
}
