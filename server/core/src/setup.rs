//! What a guest is set up with beyond its disks: who is process 1, and who its default user is to others.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Name;

/// The longest path in a guest, bytes.
pub const PATH_BYTES_MAX: usize = 4095;
/// The most files that a new VM is given.
pub const FILES_MAX: usize = 64;
/// The most bytes of all of them together.
pub const FILES_BYTES_MAX: usize = 1 << 20;
/// The most bytes of a git name, and of a git mail address.
pub const GIT_BYTES_MAX: usize = 256;
/// The most keys that may log in.
pub const SSH_KEYS_MAX: usize = 32;
/// The most bytes of one key with its comment: an RSA key of 16384 bits has 2800.
pub const SSH_KEY_BYTES_MAX: usize = 8192;
/// The most profiles of credentials of one VM.
pub const CREDENTIALS_MAX: usize = 8;

/// Who is process 1 in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitMode {
    /// The agent.
    #[default]
    Agent,
    /// The image's own init; the agent lives beside it.
    Image {
        /// Absolute; absent means where images have it.
        path: Option<String>,
    },
}

impl InitMode {
    /// Whether the agent is process 1.
    #[must_use]
    pub const fn is_agent(&self) -> bool {
        matches!(self, Self::Agent)
    }
}

/// Who a VM's default user is to others. The secrets themselves are nowhere in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VmIdentity {
    /// The name of git commits; empty means none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub git_name: String,
    /// The mail address of git commits; empty means none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub git_email: String,
    /// Public keys that may log in, each as `TYPE BASE64 [COMMENT]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_authorized_keys: Vec<String>,
    /// Profiles of the daemon's configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<Name>,
}

impl VmIdentity {
    /// Whether it is nobody's.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.git_name.is_empty()
            && self.git_email.is_empty()
            && self.ssh_authorized_keys.is_empty()
            && self.credentials.is_empty()
    }
}

/// Bytes that are never shown or stored.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Bytes);

impl Secret {
    /// Keeps `bytes` from being shown.
    #[must_use]
    pub const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes, for whoever they are meant for.
    #[must_use]
    pub const fn reveal(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_its_length_alone() {
        let secret = Secret::new(Bytes::from_static(b"token"));
        assert_eq!(format!("{secret:?}"), "Secret(5 bytes)");
    }

    #[test]
    fn modes_and_identities_survive_being_stored() {
        for mode in [
            InitMode::Agent,
            InitMode::Image { path: None },
            InitMode::Image {
                path: Some("/init".into()),
            },
        ] {
            let text = serde_json::to_string(&mode).unwrap();
            assert_eq!(serde_json::from_str::<InitMode>(&text).unwrap(), mode);
        }
        let identity = VmIdentity {
            credentials: vec!["claude".parse().unwrap()],
            ..VmIdentity::default()
        };
        let text = serde_json::to_string(&identity).unwrap();
        assert_eq!(text, r#"{"credentials":["claude"]}"#);
        assert_eq!(serde_json::from_str::<VmIdentity>(&text).unwrap(), identity);
    }
}
