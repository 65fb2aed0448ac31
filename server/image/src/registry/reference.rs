//! Image references: `[registry/]repository[:tag][@digest]`.

use std::fmt;
use std::str::FromStr;

use banger_core::Digest;
use oci_spec::distribution::Reference;

use super::RegistryError;

/// A reference in its canonical form: with registry, and with a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    inner: Reference,
    digest: Option<Digest>,
}

impl ImageReference {
    /// Does what the first reference that is read would wait for: its grammar, which has Unicode's letters, takes tens of
    /// milliseconds to compile. Blocks.
    pub fn warm_up() {
        let _ = Self::from_str("a"); // only for what it leaves behind
    }

    /// Host and port, e.g. `docker.io` or `127.0.0.1:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        self.inner.registry()
    }

    /// e.g. `library/debian`.
    #[must_use]
    pub fn repository(&self) -> &str {
        self.inner.repository()
    }

    /// The digest, where it names one; it then decides, whatever the tag.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The tag, where it names one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.inner.tag()
    }

    /// The host that serves the registry: Docker Hub's differs from its name.
    pub(super) fn host(&self) -> &str {
        self.inner.resolve_registry()
    }

    /// What a manifest is asked for by.
    pub(super) fn tag_or_digest(&self) -> String {
        self.digest.map_or_else(
            || self.inner.tag().unwrap_or("latest").to_owned(),
            |digest| digest.to_string(),
        )
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.whole())
    }
}

impl FromStr for ImageReference {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let bad = || RegistryError::BadReference {
            text: text.chars().take(300).collect(),
        };
        let inner = Reference::try_from(text).map_err(|_| bad())?;
        // The parser takes an upper-case first component for a host, then for part of the repository.
        if inner
            .repository()
            .bytes()
            .any(|byte| byte.is_ascii_uppercase())
        {
            return Err(bad());
        }
        let digest = inner
            .digest()
            .map(Digest::from_str)
            .transpose()
            .map_err(|_| bad())?;
        Ok(Self { inner, digest })
    }
}
