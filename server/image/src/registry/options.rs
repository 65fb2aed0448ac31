//! What a pull may be told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use banger_core::image::Platform;
use banger_registry_auth::{AuthFiles, Login};

use crate::transport::TlsSettings;

/// How one registry is reached. The default is TLS with the certificates this host trusts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistrySettings {
    /// Asked first, in this order: `host[:port][/path]`, each reached by the settings of its own host.
    pub mirrors: Vec<String>,
    /// TLS without verification, or plain HTTP where there is no TLS.
    pub insecure: bool,
    /// Whom TLS trusts, and who this host is.
    pub tls: TlsSettings,
}

/// The settings of registries, by `host:port`, or by `host` for every port of it.
pub type Registries = BTreeMap<String, RegistrySettings>;

/// How an image is pulled.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Which variant of the image.
    pub platform: Platform,
    /// Settings of registries. One on this host's loopback that has none is spoken to in plain HTTP.
    pub registries: Arc<Registries>,
    /// For the reference's registry, where it asks; never for a mirror.
    pub login: Option<Login>,
    /// Where to look for a registry's or mirror's login otherwise.
    pub auth_files: AuthFiles,
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
            registries: Arc::default(),
            login: None,
            auth_files: AuthFiles::default(),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(30 * 60),
        }
    }
}
