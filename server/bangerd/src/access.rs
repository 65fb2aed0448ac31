//! Who is at the other end of the unix socket, and in which role.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::sync::Arc;

use banger_core::{Identity, Role};
use nix::unistd::{Gid, Uid, User};
use tokio::net::UnixStream;

use crate::config::access::{AccessConfig, group, user};
use crate::connection::Connection;

/// The roles of this host's users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    daemon: u32,
    fallback: Role,
    users: BTreeMap<u32, Role>,
    groups: BTreeMap<u32, Role>,
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
        }
    }

    /// The role of a process of `uid`, whose own group is `gid`.
    #[must_use]
    pub fn of(&self, uid: u32, gid: u32) -> Role {
        if uid == 0 || uid == self.daemon {
            return Role::Admin;
        }
        if let Some(role) = self.users.get(&uid) {
            return *role;
        }
        self.of_groups(uid, gid).unwrap_or(self.fallback)
    }

    /// The highest role of the groups of a user. The groups are those of the host's records, and the process' own.
    fn of_groups(&self, uid: u32, gid: u32) -> Option<Role> {
        if self.groups.is_empty() {
            return None;
        }
        let recorded = groups_of(uid).into_iter().chain([gid]);
        recorded
            .filter_map(|group| self.groups.get(&group).copied())
            .max()
    }
}

/// The groups that the host's records give a user; none where they know no such user.
fn groups_of(uid: u32) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return Vec::new();
    };
    let Ok(name) = CString::new(user.name) else {
        return Vec::new();
    };
    let found = nix::unistd::getgrouplist(&name, user.gid);
    found.map_or_else(
        |_| Vec::new(),
        |groups| groups.into_iter().map(Gid::as_raw).collect(),
    )
}

/// The connection of a peer of the unix socket.
///
/// # Errors
/// If the kernel does not tell who it is: then it is nobody, and not served. The error is of a kind that ends no server.
pub fn unix(stream: UnixStream, roles: &Roles) -> io::Result<Connection> {
    let unknown = |error| io::Error::new(io::ErrorKind::ConnectionAborted, error);
    let peer = stream.peer_cred().map_err(unknown)?;
    let role = roles.of(peer.uid(), peer.gid());
    let identity = Identity::of_uid(peer.uid(), role);
    Ok(Connection::new(stream, Arc::new(identity)))
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

    #[test]
    fn without_rules_who_may_connect_may_do_everything() {
        assert_eq!(roles("").of(STRANGER, STRANGER), Role::Admin);
    }

    #[test]
    fn root_and_the_daemons_user_cannot_be_lowered() {
        let me = rustix::process::geteuid().as_raw();
        let text = format!("socket_role = 'viewer'\n[users]\n0 = 'viewer'\n{me} = 'viewer'");
        let roles = match me {
            0 => roles("socket_role = 'viewer'\n[users]\n0 = 'viewer'"),
            _ => roles(&text),
        };
        assert_eq!(roles.of(0, STRANGER), Role::Admin);
        assert_eq!(roles.of(me, STRANGER), Role::Admin);
        assert_eq!(roles.of(STRANGER, STRANGER), Role::Viewer);
    }

    #[test]
    fn a_user_goes_before_its_groups_and_these_before_the_rest() {
        let roles = roles(
            "socket_role = 'viewer'\n[users]\n3999999998 = 'user'\n[groups]\n77777 = 'operator'\nroot = 'admin'",
        );
        assert_eq!(roles.of(3_999_999_998, 77777), Role::User);
        assert_eq!(roles.of(STRANGER, 77777), Role::Operator);
        assert_eq!(roles.of(STRANGER, 0), Role::Admin);
        assert_eq!(roles.of(STRANGER, 1), Role::Viewer);
    }

    #[test]
    fn the_groups_of_the_hosts_records_count() {
        let roles = roles("socket_role = 'viewer'\n[groups]\ndaemon = 'operator'");
        let daemon = user("daemon").expect("every Linux host has the user");
        assert_eq!(roles.of(daemon, STRANGER), Role::Operator);
    }
}
