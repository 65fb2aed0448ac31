//! The `[access]` table: which role who has at the unix socket.

use std::collections::BTreeMap;

use banger_core::Role;
use serde::{Deserialize, Serialize};

use super::Mistake;

/// The key of the table.
pub(super) const KEY: &str = "access";

/// Roles at the unix socket. Root and the daemon's own user are admins whatever stands here: they own its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// Of who may connect and is named nowhere below.
    pub socket_role: Role,
    /// Of users, by name or number; goes before what their groups have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, Role>,
    /// Of the members of groups, by name or number; who is in several has the highest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Role>,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            socket_role: Role::Admin,
            users: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }
}

/// Takes what is wrong by itself out of the table.
pub(super) fn sift(table: &mut toml::Table) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    if let Some(toml::Value::Table(settings)) = table.get_mut(KEY) {
        settings.retain(|key, value| {
            let alone = toml::Table::from_iter([(key.to_owned(), value.clone())]);
            let wrong = alone.try_into::<AccessConfig>().err();
            let told = wrong.as_ref();
            mistakes.extend(told.map(|error| Mistake::of_key(&format!("{KEY}.{key}"), error)));
            wrong.is_none()
        });
    }
    mistakes
}

/// What types cannot say: a name without a user would be a rule for nobody, and a mistype of a rule for somebody.
pub(super) fn mistakes(access: &AccessConfig) -> Vec<Mistake> {
    let users = access.users.keys().filter(|name| user(name).is_none());
    let users = users.map(|name| {
        let path = format!("{KEY}.users.\"{name}\"");
        Mistake::new(&path, "is neither a user of this host nor a user's number")
    });
    let groups = access.groups.keys().filter(|name| group(name).is_none());
    let groups = groups.map(|name| {
        let path = format!("{KEY}.groups.\"{name}\"");
        Mistake::new(
            &path,
            "is neither a group of this host nor a group's number",
        )
    });
    users.chain(groups).collect()
}

/// The number of a user, by name or number.
pub(crate) fn user(named: &str) -> Option<u32> {
    named.parse().ok().or_else(|| {
        let found = nix::unistd::User::from_name(named).ok().flatten();
        found.map(|user| user.uid.as_raw())
    })
}

/// The number of a group, by name or number.
pub(crate) fn group(named: &str) -> Option<u32> {
    named.parse().ok().or_else(|| {
        let found = nix::unistd::Group::from_name(named).ok().flatten();
        found.map(|group| group.gid.as_raw())
    })
}
