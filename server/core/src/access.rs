//! Who calls, and what they may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Owner;

/// What a caller may do. Each may do what those before it may, except that a user knows of its own things only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads what there is of everybody's, but no contents; changes nothing.
    Viewer,
    /// Makes and uses VMs, volumes and sessions of its own, and knows of no others.
    User,
    /// Uses and changes everybody's.
    Operator,
    /// And images, kernels, catalogs, and the host.
    Admin,
}

impl Role {
    /// All, from the least to the most.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::User, Self::Operator, Self::Admin];

    /// Whether it is shown the values of environments.
    #[must_use]
    pub const fn secrets(self) -> Secrets {
        match self {
            Self::Viewer => Secrets::Hidden,
            Self::User | Self::Operator | Self::Admin => Secrets::Shown,
        }
    }

    /// The word in configuration, messages and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| text.to_owned())
    }
}

/// By what a caller is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Via {
    /// The user of the process at the unix socket's other end.
    Unix {
        /// Its number.
        uid: u32,
    },
    /// A client's certificate.
    Certificate {
        /// Its serial number, hexadecimal, as its authority gave it.
        serial: String,
    },
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid } => write!(f, "unix:{uid}"),
            Self::Certificate { serial } => write!(f, "certificate:{serial}"),
        }
    }
}

/// A caller. Known once, when its connection is accepted, and the same for all calls on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its name: who owns what it makes.
    pub owner: Owner,
    /// What it may do.
    pub role: Role,
    /// By what it is known.
    pub via: Via,
}

/// Whose things a caller knows of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Scope {
    /// Everybody's.
    #[default]
    Everybody,
    /// Its own alone: to it, those of others do not exist.
    Own(Owner),
}

impl Scope {
    /// Whether what belongs to `owner` exists, as far as the caller knows.
    #[must_use]
    pub fn sees(&self, owner: &Owner) -> bool {
        match self {
            Self::Everybody => true,
            Self::Own(own) => own == owner,
        }
    }

    /// The one owner whose things are seen.
    #[must_use]
    pub const fn only(&self) -> Option<&Owner> {
        match self {
            Self::Everybody => None,
            Self::Own(own) => Some(own),
        }
    }
}

/// Whether a caller is shown what VMs are given to keep to themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// As it is.
    Shown,
    /// Without its values.
    Hidden,
}

impl Identity {
    /// Whose things it knows of.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self.role {
            Role::User => Scope::Own(self.owner.clone()),
            Role::Viewer | Role::Operator | Role::Admin => Scope::Everybody,
        }
    }

    /// A user of this host, at the unix socket.
    #[must_use]
    pub fn of_uid(uid: u32, role: Role) -> Self {
        Self {
            owner: Owner::of_uid(uid),
            role,
            via: Via::Unix { uid },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_and_survive_text() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>(), Ok(role));
        }
        assert_eq!("root".parse::<Role>(), Err("root".to_owned()));
    }

    #[test]
    fn a_user_knows_of_its_own_alone() {
        let (own, other) = (Owner::of_uid(7), Owner::of_uid(8));
        for role in Role::ALL {
            let scope = Identity::of_uid(7, role).scope();
            assert!(scope.sees(&own));
            assert_eq!(scope.sees(&other), role != Role::User, "{role}");
            assert_eq!(scope.only().is_some(), role == Role::User, "{role}");
        }
    }

    #[test]
    fn how_a_caller_is_known_is_told() {
        assert_eq!(Via::Unix { uid: 7 }.to_string(), "unix:7");
        let serial = "0a1b".to_owned();
        assert_eq!(Via::Certificate { serial }.to_string(), "certificate:0a1b");
    }
}
