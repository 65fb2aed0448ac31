//! The `[registries]` table: how each registry is reached.

use std::collections::BTreeMap;
use std::path::PathBuf;

use banger_app::config::{Registries, RegistrySettings, TlsSettings};
use serde::{Deserialize, Serialize};

use super::{Mistake, host, table};

/// The key of the table.
pub(super) const KEY: &str = "registries";

/// How one registry is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Asked before the registry itself: `host[:port][/path]`.
    pub mirrors: Vec<String>,
    /// TLS without verification, or plain HTTP where there is no TLS.
    pub insecure: bool,
    /// Authorities trusted beside the host's own, PEM.
    pub ca_file: Option<PathBuf>,
    /// This host's certificate for the registry, PEM.
    pub client_cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub client_key_file: Option<PathBuf>,
}

impl RegistryConfig {
    fn tls(&self) -> TlsSettings {
        TlsSettings {
            ca_file: self.ca_file.clone(),
            client_cert_file: self.client_cert_file.clone(),
            client_key_file: self.client_key_file.clone(),
        }
    }
}

/// What types cannot say.
pub(super) fn mistakes(registries: &BTreeMap<String, RegistryConfig>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (host, config) in registries {
        mistakes.extend(host::of_tls(KEY, host, &config.tls()));
        let mut refuse = |key: &str, wrong: bool, problem: &str| {
            if wrong {
                mistakes.push(Mistake::new(&table::path(KEY, host, key), problem));
            }
        };
        refuse(
            "ca_file",
            config.insecure && config.ca_file.is_some(),
            "means nothing with insecure = true, which verifies nothing: remove one of the two",
        );
        refuse(
            "mirrors",
            !config.mirrors.iter().all(|mirror| host::is_place(mirror)),
            "must be written as host, host:port or host:port/path, without a scheme",
        );
        refuse(
            "mirrors",
            config.mirrors.contains(host),
            "names the registry itself",
        );
        mistakes.extend(host::of_name(KEY, host));
    }
    mistakes
}

/// As pulls take them.
pub(super) fn settings(registries: &BTreeMap<String, RegistryConfig>) -> Registries {
    let settings = |config: &RegistryConfig| RegistrySettings {
        mirrors: config.mirrors.clone(),
        insecure: config.insecure,
        tls: config.tls(),
    };
    registries
        .iter()
        .map(|(host, config)| (host.clone(), settings(config)))
        .collect()
}
