//! Hosts as addresses and settings name them.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// The settings of `host`, which may have a port: its own, or those of the host whatever the port.
pub(crate) fn settings_of<'a, T>(settings: &'a BTreeMap<String, T>, host: &str) -> Option<&'a T> {
    settings
        .get(host)
        .or_else(|| settings.get(without_port(host)))
}

/// A host without its port; an IPv6 address keeps its brackets.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    }
}

/// Whether `host`, which may have a port, is this host.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = without_port(host).trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
