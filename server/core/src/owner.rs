//! Who owns a resource: whoever asked for it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most bytes of an owner's word.
pub const OWNER_MAX: usize = 128;

/// A caller as the daemon knows it: `uid:<number>` for a peer of the unix socket, empty for the daemon itself
/// and for what was made before owners were kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner(String);

impl Owner {
    /// The user of a process on this host.
    #[must_use]
    pub fn of_uid(uid: u32) -> Self {
        Self(format!("uid:{uid}"))
    }

    /// The daemon itself.
    #[must_use]
    pub const fn daemon() -> Self {
        Self(String::new())
    }

    /// The user on this host, where it is one.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.0.strip_prefix("uid:")?.parse().ok()
    }

    /// The stored word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_one = text.len() <= OWNER_MAX && text.chars().all(|c| c.is_ascii_graphic());
        is_one
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| text.chars().take(OWNER_MAX).collect())
    }
}

impl TryFrom<String> for Owner {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_survives_text() {
        for owner in [Owner::of_uid(0), Owner::of_uid(u32::MAX), Owner::daemon()] {
            assert_eq!(owner.as_str().parse::<Owner>().unwrap(), owner);
        }
    }

    #[test]
    fn what_cannot_be_stored_or_shown_is_no_owner() {
        for text in ["a b", "a\n", "ä", &"x".repeat(OWNER_MAX + 1)] {
            assert!(text.parse::<Owner>().is_err(), "{text:?}");
        }
    }
}
