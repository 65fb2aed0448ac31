//! What an authority knows of what it issued: the file index.json of its directory.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::view;

/// All of it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    /// The number of the last list of what was revoked: each next one is higher.
    pub(super) crl_number: u64,
    /// In the order in which they were issued.
    pub(super) certificates: Vec<Entry>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Hexadecimal.
    pub(super) serial: String,
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) kind: Kind,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoke_time: Option<Timestamp>,
}

/// Whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub(super) enum Kind {
    /// A client's.
    Client {
        /// What it may do.
        role: String,
    },
    /// A daemon's.
    Server,
}

impl Entry {
    /// Whether it is valid now, and no longer than `days`.
    pub(super) fn ends_within(&self, now: Timestamp, days: u32) -> bool {
        let within = SignedDuration::from_hours(24 * i64::from(days));
        self.state(now) == "valid" && self.not_after.duration_since(now) <= within
    }

    fn state(&self, now: Timestamp) -> &'static str {
        if self.revoke_time.is_some() {
            "revoked"
        } else if self.not_after < now {
            "expired"
        } else {
            "valid"
        }
    }

    pub(super) fn view(&self, now: Timestamp) -> view::Certificate {
        let (kind, role) = match &self.kind {
            Kind::Client { role } => ("client", role.clone()),
            Kind::Server => ("server", String::new()),
        };
        view::Certificate {
            serial: self.serial.clone(),
            name: self.name.clone(),
            kind,
            role,
            state: self.state(now),
            not_before: self.not_before,
            not_after: self.not_after,
            revoke_time: self.revoke_time,
        }
    }
}
