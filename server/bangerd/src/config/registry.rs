//! The `[registries]` table: how each registry is reached.

use std::collections::BTreeMap;
use std::path::PathBuf;

use banger_app::config::{Registries, RegistrySettings};
use serde::{Deserialize, Serialize};

use super::{Mistake, table};

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

fn path(host: &str, key: &str) -> String {
    table::path(KEY, host, key)
}

/// What types cannot say.
pub(super) fn mistakes(registries: &BTreeMap<String, RegistryConfig>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for (host, config) in registries {
        let mut refuse = |key: &str, wrong: bool, problem: &str| {
            if wrong {
                mistakes.push(Mistake::new(&path(host, key), problem));
            }
        };
        let files = [
            ("ca_file", &config.ca_file),
            ("client_cert_file", &config.client_cert_file),
            ("client_key_file", &config.client_key_file),
        ];
        for (key, file) in files {
            let is_relative = file.as_ref().is_some_and(|path| !path.is_absolute());
            refuse(key, is_relative, "must be an absolute path");
        }
        refuse(
            "client_key_file",
            config.client_cert_file.is_some() && config.client_key_file.is_none(),
            "is missing: client_cert_file needs it",
        );
        refuse(
            "client_cert_file",
            config.client_key_file.is_some() && config.client_cert_file.is_none(),
            "is missing: client_key_file needs it",
        );
        refuse(
            "ca_file",
            config.insecure && config.ca_file.is_some(),
            "means nothing with insecure = true, which verifies nothing: remove one of the two",
        );
        refuse(
            "mirrors",
            !config.mirrors.iter().all(|mirror| is_place(mirror)),
            "must be written as host, host:port or host:port/path, without a scheme",
        );
        refuse(
            "mirrors",
            config.mirrors.contains(host),
            "names the registry itself",
        );
        if !is_host(host) {
            let at = format!("{KEY}.\"{host}\"");
            mistakes.push(Mistake::new(&at, "must be written as host or host:port"));
        }
    }
    mistakes
}

/// `host` or `host:port`; an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = !host.is_empty() && host.bytes().all(fits);
    let is_v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    (is_name || is_v6) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_place(text: &str) -> bool {
    let (host, path) = text.split_once('/').unwrap_or((text, "x"));
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._/".contains(&byte);
    is_host(host) && !path.is_empty() && !path.contains("//") && path.bytes().all(fits)
}

/// As pulls take them.
pub(super) fn settings(registries: &BTreeMap<String, RegistryConfig>) -> Registries {
    let settings = |config: &RegistryConfig| RegistrySettings {
        mirrors: config.mirrors.clone(),
        insecure: config.insecure,
        ca_file: config.ca_file.clone(),
        client_cert_file: config.client_cert_file.clone(),
        client_key_file: config.client_key_file.clone(),
    };
    registries
        .iter()
        .map(|(host, config)| (host.clone(), settings(config)))
        .collect()
}
