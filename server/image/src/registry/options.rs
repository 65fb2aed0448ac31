//! What a pull may be told.

use std::fmt;
use std::time::Duration;

use banger_core::image::Platform;

/// A user name and password (or token) for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// The password; never shown.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// How an image is pulled.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Which variant of the image.
    pub platform: Platform,
    /// Registries (`host` or `host:port`) that are spoken to without TLS. Those on this host always are.
    pub plain_http: Vec<String>,
    /// For the registry, where it asks.
    pub credentials: Option<Credentials>,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest wait for an answer, or for the next byte of one.
    pub stall_timeout: Duration,
    /// The longest time for the whole pull.
    pub deadline: Duration,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            platform: Platform::host(),
            plain_http: Vec::new(),
            credentials: None,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(30 * 60),
        }
    }
}
