//! Logins that somebody gives for several places at once.

use std::collections::BTreeMap;

use crate::{Login, Place};

/// Logins by what they are for, as the keys of an auth file: a registry, a repository in it, or a part of its path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logins(BTreeMap<String, Login>);

impl Logins {
    /// Who we are for `place`: by the nearest key.
    #[must_use]
    pub fn login(&self, place: &Place) -> Option<&Login> {
        let repositories = place.keys().map(Some).chain([None]);
        let named = |repository| {
            let mut logins = self.0.iter();
            logins.find(|(key, _)| place.is_named_by(key, repository))
        };
        repositories
            .filter_map(named)
            .map(|(_, login)| login)
            .next()
    }
}

impl FromIterator<(String, Login)> for Logins {
    fn from_iter<I: IntoIterator<Item = (String, Login)>>(logins: I) -> Self {
        Self(logins.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_counts_and_no_other_registry_gets_a_login() {
        let login = |name: &str| Login::IdentityToken(name.to_owned());
        let keys = [
            "reg:5000",
            "reg:5000/team",
            "reg:5000/team/app",
            "docker.io",
        ];
        let logins: Logins = keys
            .map(|key| (key.to_owned(), login(key)))
            .into_iter()
            .collect();
        for (registry, repository, expected) in [
            ("reg:5000", "other", Some("reg:5000")),
            ("REG:5000", "team/app", Some("reg:5000/team/app")),
            ("reg:5000", "team/other", Some("reg:5000/team")),
            ("reg:5000", "teams", Some("reg:5000")),
            ("index.docker.io", "library/debian", Some("docker.io")),
            ("reg", "team/app", None),
            ("reg:5001", "team/app", None),
        ] {
            let found = logins.login(&Place::new(registry, repository));
            let expected = expected.map(login);
            assert_eq!(found, expected.as_ref(), "{registry}/{repository}");
        }
    }
}
