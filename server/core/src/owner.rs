//! Who owns a resource: whoever asked for it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most bytes of an owner's word.
pub const OWNER_MAX: usize = 128;

/// How the word of a certificate's owner begins.
const CERTIFICATE: &str = "cert:";

/// A caller as the daemon knows it: `uid:<number>` for a peer of the unix socket, `cert:<name>` for one that shows a
/// certificate, empty for the daemon itself and for what was made before owners were kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Owner(String);

impl Owner {
    /// The user of a process on this host.
    #[must_use]
    pub fn of_uid(uid: u32) -> Self {
        Self(format!("uid:{uid}"))
    }

    /// Whoever shows a certificate with this name, if an owner's word can hold it: printable ASCII without spaces, at
    /// most 123 bytes.
    #[must_use]
    pub fn of_certificate(name: &str) -> Option<Self> {
        let is_name = !name.is_empty();
        is_name.then(|| format!("{CERTIFICATE}{name}").parse().ok())?
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

    /// The name in the certificate, where it is one's.
    #[must_use]
    pub fn certificate(&self) -> Option<&str> {
        let name = self.0.strip_prefix(CERTIFICATE);
        name.filter(|name| !name.is_empty())
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
    fn a_certificate_cannot_be_a_user_of_the_host() {
        let name = |text| Owner::of_certificate(text).map(String::from);
        assert_eq!(name("ci").as_deref(), Some("cert:ci"));
        assert_eq!(name("uid:0").as_deref(), Some("cert:uid:0"));
        let sly = Owner::of_certificate("uid:0").unwrap();
        assert_eq!((sly.uid(), sly.certificate()), (None, Some("uid:0")));
        assert_eq!(Owner::of_uid(0).certificate(), None);
        assert_eq!(name(""), None);
        assert_eq!(name("a b"), None);
        assert_eq!(name(&"x".repeat(124)), None);
    }

    #[test]
    fn what_cannot_be_stored_or_shown_is_no_owner() {
        for text in ["a b", "a\n", "ä", &"x".repeat(OWNER_MAX + 1)] {
            assert!(text.parse::<Owner>().is_err(), "{text:?}");
        }
    }
}
