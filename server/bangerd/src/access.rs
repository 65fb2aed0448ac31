//! Who is at the other end of the unix socket, and in which role.

mod groups;

use std::collections::BTreeMap;

use banger_core::Role;

use self::groups::Groups;
use crate::config::access::{AccessConfig, group, user};
use crate::listen::refusal::Refusal;

/// The roles of this host's users.
#[derive(Debug, Clone)]
pub struct Roles {
    daemon: u32,
    fallback: Role,
    users: BTreeMap<u32, Role>,
    groups: BTreeMap<u32, Role>,
    recorded: Groups,
}

impl Roles {
    /// As `access` says, for a daemon that runs as this process does. What names nobody is left out.
    #[must_use]
    pub fn new(access: &AccessConfig) -> Self {
        let numbered = |names: &BTreeMap<String, Role>, find: fn(&str) -> Option<u32>| {
            let found = names.iter();
            found
                .filter_map(|(name, role)| Some((find(name)?, *role)))
                .collect()
        };
        Self {
            daemon: rustix::process::geteuid().as_raw(),
            fallback: access.socket_role,
            users: numbered(&access.users, user),
            groups: numbered(&access.groups, group),
            recorded: Groups::default(),
        }
    }

    /// The role of a process of `uid`, whose own group is `gid`. The host's records are asked only where a role depends
    /// on them, and never by the thread of whoever waits.
    ///
    /// # Errors
    /// If it depends on them, and they do not tell in time.
    pub async fn of(&self, uid: u32, gid: u32) -> Result<Role, Refusal> {
        if uid == 0 || uid == self.daemon {
            return Ok(Role::Admin);
        }
        if let Some(role) = self.users.get(&uid) {
            return Ok(*role);
        }
        let of_groups = self.of_groups(uid, gid).await?;
        Ok(of_groups.unwrap_or(self.fallback))
    }

    /// The highest role of the groups of a user. The groups are those of the host's records, and the process' own.
    async fn of_groups(&self, uid: u32, gid: u32) -> Result<Option<Role>, Refusal> {
        if self.groups.is_empty() {
            return Ok(None);
        }
        let recorded = self.recorded.of(uid).await;
        let recorded = recorded.ok_or(Refusal::GroupsUnknown { uid })?;
        let all = recorded.iter().chain([&gid]);
        Ok(all
            .filter_map(|group| self.groups.get(group))
            .max()
            .copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(text: &str) -> Roles {
        let access: AccessConfig = toml::from_str(text).unwrap();
        Roles::new(&access)
    }

    /// Nobody of this host.
    const STRANGER: u32 = 3_999_999_999;

    #[tokio::test]
    async fn without_rules_who_may_connect_may_do_everything() {
        assert_eq!(roles("").of(STRANGER, STRANGER).await.unwrap(), Role::Admin);
    }

    #[tokio::test]
    async fn root_and_the_daemons_user_cannot_be_lowered() {
        let me = rustix::process::geteuid().as_raw();
        let text = format!("socket_role = 'viewer'\n[users]\n0 = 'viewer'\n{me} = 'viewer'");
        let roles = match me {
            0 => roles("socket_role = 'viewer'\n[users]\n0 = 'viewer'"),
            _ => roles(&text),
        };
        assert_eq!(roles.of(0, STRANGER).await.unwrap(), Role::Admin);
        assert_eq!(roles.of(me, STRANGER).await.unwrap(), Role::Admin);
        assert_eq!(roles.of(STRANGER, STRANGER).await.unwrap(), Role::Viewer);
    }

    #[tokio::test]
    async fn a_user_goes_before_its_groups_and_these_before_the_rest() {
        let roles = roles(
            "socket_role = 'viewer'\n[users]\n3999999998 = 'user'\n[groups]\n77777 = 'operator'\nroot = 'admin'",
        );
        assert_eq!(roles.of(3_999_999_998, 77777).await.unwrap(), Role::User);
        assert_eq!(roles.of(STRANGER, 77777).await.unwrap(), Role::Operator);
        assert_eq!(roles.of(STRANGER, 0).await.unwrap(), Role::Admin);
        assert_eq!(roles.of(STRANGER, 1).await.unwrap(), Role::Viewer);
    }

    #[tokio::test]
    async fn the_groups_of_the_hosts_records_count() {
        let roles = roles("socket_role = 'viewer'\n[groups]\ndaemon = 'operator'");
        let daemon = user("daemon").expect("every Linux host has the user");
        assert_eq!(roles.of(daemon, STRANGER).await.unwrap(), Role::Operator);
    }
}
