//! Registries and repositories, as references and the keys of auth files name them.

use std::fmt;

/// Docker Hub, by its name in references.
const HUB: &str = "docker.io";
/// What Docker Hub is called elsewhere.
const HUB_ALIASES: [&str; 3] = [HUB, "index.docker.io", "registry-1.docker.io"];
/// What Docker's files and helpers call Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// A repository of a registry: what credentials are looked up for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    registry: String,
    repository: String,
}

impl Place {
    /// `registry` is a host, with or without a port; `repository` a path in it.
    #[must_use]
    pub fn new(registry: &str, repository: &str) -> Self {
        Self {
            registry: canonical(registry),
            repository: repository.trim_matches('/').to_owned(),
        }
    }

    /// The registry and the repositories that hold this one, the nearest first.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let whole = self.repository.as_str();
        let mut next = Some(whole).filter(|path| !path.is_empty());
        std::iter::from_fn(move || {
            let path = next?;
            next = path.rsplit_once('/').map(|(above, _)| above);
            Some(path)
        })
    }

    /// The registry's host and port.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Whether a key of a file names the registry and exactly `repository` in it (none: the registry alone).
    pub(crate) fn is_named_by(&self, key: &str, repository: Option<&str>) -> bool {
        let bare = without_scheme(key);
        // What begins with a scheme is one of Docker's old keys: its path (`/v1/`) means nothing.
        let (host, path) = match bare.split_once('/') {
            Some((host, path)) if bare.len() == key.len() => (host, path.trim_end_matches('/')),
            Some((host, _)) => (host, ""),
            None => (bare, ""),
        };
        canonical(host) == self.registry && path == repository.unwrap_or_default()
    }

    /// What a credential helper knows the registry by.
    pub(crate) fn for_helpers(&self) -> &str {
        if self.registry == HUB {
            HUB_KEY
        } else {
            &self.registry
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

fn without_scheme(key: &str) -> &str {
    key.strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key)
}

fn canonical(registry: &str) -> String {
    let registry = registry.to_ascii_lowercase();
    if HUB_ALIASES.contains(&registry.as_str()) {
        HUB.to_owned()
    } else {
        registry
    }
}

/// The place of an image reference, by the rule that all tools share: a first component with a dot, a colon,
/// or `localhost` is a registry, anything else is on Docker Hub. Whether it is a reference at all is for the
/// daemon to say.
#[must_use]
pub fn registry_and_repository(reference: &str) -> Place {
    let bare = reference.split('@').next().unwrap_or_default();
    let (registry, rest) = match bare.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (HUB, bare),
    };
    let repository = match rest.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => rest,
    };
    let place = Place::new(registry, repository);
    if place.registry == HUB && !repository.contains('/') {
        return Place::new(HUB, &format!("library/{repository}"));
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_their_place() {
        for (reference, registry, repository) in [
            ("debian", "docker.io", "library/debian"),
            ("debian:12@sha256:00", "docker.io", "library/debian"),
            ("me/app:1", "docker.io", "me/app"),
            ("index.docker.io/me/app", "docker.io", "me/app"),
            ("ghcr.io/a/b/c:1", "ghcr.io", "a/b/c"),
            ("Registry:5000/x", "registry:5000", "x"),
            ("localhost/x:1", "localhost", "x"),
        ] {
            let expected = Place::new(registry, repository);
            assert_eq!(registry_and_repository(reference), expected, "{reference}");
        }
    }

    #[test]
    fn a_key_names_a_registry_or_a_part_of_it() {
        let place = Place::new("reg:5000", "a/b/c");
        assert_eq!(place.keys().collect::<Vec<_>>(), ["a/b/c", "a/b", "a"]);
        for (key, repository, names) in [
            ("reg:5000", None, true),
            ("https://reg:5000", None, true),
            ("https://reg:5000/v1/", None, true),
            ("reg:5000/a", Some("a"), true),
            ("reg:5000/a/b", Some("a/b"), true),
            ("reg:5000/a", None, false),
            ("reg:5000", Some("a"), false),
            ("reg", None, false),
            ("reg:5000.evil.example", None, false),
            ("reg:5000/ab", Some("a"), false),
        ] {
            assert_eq!(
                place.is_named_by(key, repository),
                names,
                "{key} {repository:?}"
            );
        }
        assert!(Place::new("docker.io", "").is_named_by(HUB_KEY, None));
    }
}
