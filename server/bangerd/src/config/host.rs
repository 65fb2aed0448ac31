//! What the tables of other hosts have in common: how hosts are written, and their TLS.

use banger_app::config::TlsSettings;

use super::{Mistake, table};

/// What is wrong with the name of a table under `key`.
pub(super) fn of_name(key: &str, host: &str) -> Option<Mistake> {
    let at = format!("{key}.\"{host}\"");
    (!is_host(host)).then(|| Mistake::new(&at, "must be written as host or host:port"))
}

/// What is wrong with the TLS of a host.
pub(super) fn of_tls(key: &str, host: &str, tls: &TlsSettings) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut refuse = |setting: &str, wrong: bool, problem: &str| {
        if wrong {
            mistakes.push(Mistake::new(&table::path(key, host, setting), problem));
        }
    };
    let files = [
        ("ca_file", &tls.ca_file),
        ("client_cert_file", &tls.client_cert_file),
        ("client_key_file", &tls.client_key_file),
    ];
    for (setting, file) in files {
        let is_relative = file.as_ref().is_some_and(|path| !path.is_absolute());
        refuse(setting, is_relative, "must be an absolute path");
    }
    refuse(
        "client_key_file",
        tls.client_cert_file.is_some() && tls.client_key_file.is_none(),
        "is missing: client_cert_file needs it",
    );
    refuse(
        "client_cert_file",
        tls.client_key_file.is_some() && tls.client_cert_file.is_none(),
        "is missing: client_key_file needs it",
    );
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

/// A host, or a path on one.
pub(super) fn is_place(text: &str) -> bool {
    let (host, path) = text.split_once('/').unwrap_or((text, "x"));
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._/".contains(&byte);
    is_host(host) && !path.is_empty() && !path.contains("//") && path.bytes().all(fits)
}
