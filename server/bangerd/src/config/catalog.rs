//! The `[catalogs]` table: how the servers of catalogs are reached.

use std::collections::BTreeMap;
use std::path::PathBuf;

use banger_app::config::{CatalogHosts, TlsSettings};
use serde::{Deserialize, Serialize};

use super::{Mistake, host};

/// The key of the table.
pub(super) const KEY: &str = "catalogs";

/// How one server of catalogs is reached. There is no way around its certificate: an index proves itself, but what a
/// host asks for is nobody else's business.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogConfig {
    /// Authorities trusted beside the host's own, PEM.
    pub ca_file: Option<PathBuf>,
    /// This host's certificate for the server, PEM.
    pub client_cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub client_key_file: Option<PathBuf>,
}

impl CatalogConfig {
    fn tls(&self) -> TlsSettings {
        TlsSettings {
            ca_file: self.ca_file.clone(),
            client_cert_file: self.client_cert_file.clone(),
            client_key_file: self.client_key_file.clone(),
        }
    }
}

/// What types cannot say.
pub(super) fn mistakes(catalogs: &BTreeMap<String, CatalogConfig>) -> Vec<Mistake> {
    let of_one = |(name, config): (&String, &CatalogConfig)| {
        let mut mistakes = host::of_tls(KEY, name, &config.tls());
        mistakes.extend(host::of_name(KEY, name));
        mistakes
    };
    catalogs.iter().flat_map(of_one).collect()
}

/// As pulls take them.
pub(super) fn settings(catalogs: &BTreeMap<String, CatalogConfig>) -> CatalogHosts {
    let tls = catalogs
        .iter()
        .map(|(host, config)| (host.clone(), config.tls()));
    tls.collect()
}
