//! Why a caller whom TLS let in is not served.

use std::time::Duration;

use banger_core::{Explain, FailureKind, Owner};

use super::rule::{Names, Unmapped};

/// How long to wait for a connection of one's own to end.
const SEAT_WAIT: Duration = Duration::from_secs(5);
/// How long to wait for calls of one's own to end.
const CALLS_WAIT: Duration = Duration::from_secs(1);
/// How long to wait for the host's name service to come back.
const GROUPS_WAIT: Duration = Duration::from_secs(5);
/// A wait is told in whole milliseconds, and never as none.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its certificate is trusted, and names nobody.
    #[error("no rule of the daemon says whom this certificate names ({names})")]
    NotMapped {
        /// What the certificate says.
        names: String,
    },
    /// It names somebody by what is no name.
    #[error("the certificate ({names}) gives `{name}` for a name, which is none")]
    NotAName {
        /// What the certificate says.
        names: String,
        /// The name, escaped.
        name: String,
    },
    /// The certificate cannot be read.
    #[error("the names in the certificate cannot be read")]
    Unreadable,
    /// The caller has as many connections as it may.
    #[error("{owner} has {most} connections, and may have no more")]
    TooManyConnections {
        /// Whose.
        owner: Owner,
        /// How many it may have.
        most: usize,
        /// The setting that says so.
        setting: &'static str,
    },
    /// The caller has as many calls under way as it may.
    #[error("{owner} has {most} calls under way, and may have no more")]
    TooManyCalls {
        /// Whose.
        owner: Owner,
        /// How many it may have.
        most: usize,
    },
    /// The host's name service does not tell which groups the caller is in, on which its role depends.
    #[error("the groups of user {uid} could not be looked up")]
    GroupsUnknown {
        /// Who.
        uid: u32,
    },
    /// The caller asks too fast.
    #[error("{owner} makes more requests than the {per_second} in a second that it may")]
    CallerTooFast {
        /// Who.
        owner: Owner,
        /// How many it may make.
        per_second: u32,
        /// When the next may come.
        wait: Duration,
    },
    /// All together ask too fast.
    #[error("the daemon gets more requests than the {per_second} in a second that it takes")]
    AllTooFast {
        /// How many it takes.
        per_second: u32,
        /// When the next may come.
        wait: Duration,
    },
}

impl Refusal {
    /// A certificate that names nobody.
    #[must_use]
    pub fn unmapped(names: &Names, why: &Unmapped) -> Self {
        let names = names.told();
        match why {
            Unmapped::NoRule => Self::NotMapped { names },
            Unmapped::NotAName(name) => Self::NotAName {
                names,
                name: name.chars().take(80).flat_map(char::escape_debug).collect(),
            },
        }
    }
}

impl Explain for Refusal {
    fn kind(&self) -> FailureKind {
        match self {
            Self::NotMapped { .. } | Self::NotAName { .. } | Self::Unreadable => {
                FailureKind::PermissionDenied
            }
            Self::TooManyConnections { owner, .. } => FailureKind::Throttled {
                subject: format!("connections/{owner}"),
                retry_after: SEAT_WAIT,
            },
            Self::TooManyCalls { owner, .. } => FailureKind::Throttled {
                subject: format!("calls/{owner}"),
                retry_after: CALLS_WAIT,
            },
            Self::GroupsUnknown { .. } => FailureKind::Unavailable {
                retry_after: GROUPS_WAIT,
            },
            Self::CallerTooFast { owner, wait, .. } => FailureKind::Throttled {
                subject: format!("requests/{owner}"),
                retry_after: (*wait).max(WAIT_MIN),
            },
            Self::AllTooFast { wait, .. } => FailureKind::Throttled {
                subject: "requests/all".to_owned(),
                retry_after: (*wait).max(WAIT_MIN),
            },
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NotMapped { .. } => "CERTIFICATE_NOT_MAPPED",
            Self::NotAName { .. } => "CERTIFICATE_NAME_INVALID",
            Self::Unreadable => "CERTIFICATE_UNREADABLE",
            Self::TooManyConnections { .. } => "TOO_MANY_CONNECTIONS",
            Self::TooManyCalls { .. } => "TOO_MANY_CALLS",
            Self::GroupsUnknown { .. } => "GROUPS_UNKNOWN",
            Self::CallerTooFast { .. } | Self::AllTooFast { .. } => "TOO_MANY_REQUESTS",
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::NotMapped { .. } | Self::Unreadable => {
                "Add a rule to [[tcp.identities]] of the daemon's configuration that gives such certificates a name and a role, or use a certificate of `banger cert issue`."
            }
            Self::NotAName { .. } => {
                "Give these certificates a fixed `name` in [[tcp.identities]] of the daemon's configuration: 1 to 64 letters, digits and `.`, `_`, `-`, `@`."
            }
            Self::TooManyConnections { setting, .. } => {
                return Some(format!(
                    "Use one connection for many calls, or raise {setting} in the daemon's configuration."
                ));
            }
            Self::TooManyCalls { .. } => {
                "End streams that are not needed any more, or raise limits.caller_calls_max in the daemon's configuration."
            }
            Self::GroupsUnknown { .. } => {
                "Look after the host's name service (nsswitch.conf, sssd, LDAP), and try again; a role by `[access.users]` of the daemon's configuration needs none."
            }
            Self::CallerTooFast { .. } => {
                "Wait as long as is told, or raise limits.caller_requests_per_second in the daemon's configuration."
            }
            Self::AllTooFast { .. } => {
                "Wait as long as is told, or raise limits.requests_per_second in the daemon's configuration."
            }
        };
        Some(text.to_owned())
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::NotMapped { names } => vec![("names", names.clone())],
            Self::NotAName { names, name } => {
                vec![("names", names.clone()), ("name", name.clone())]
            }
            Self::Unreadable => Vec::new(),
            Self::GroupsUnknown { uid } => vec![("uid", uid.to_string())],
            Self::TooManyConnections { owner, most, .. } | Self::TooManyCalls { owner, most } => {
                vec![("owner", owner.to_string()), ("most", most.to_string())]
            }
            Self::CallerTooFast {
                owner, per_second, ..
            } => vec![
                ("owner", owner.to_string()),
                ("per_second", per_second.to_string()),
            ],
            Self::AllTooFast { per_second, .. } => vec![("per_second", per_second.to_string())],
        }
    }
}
