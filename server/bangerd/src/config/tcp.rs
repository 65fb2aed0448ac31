//! The `[tcp]` table: where the API is served to other hosts, who is let in there, and what a crowd may take.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use banger_core::Role;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{DURATION_MAX, Mistake};
use crate::listen::rule::{Pattern, WILDCARD, is_name};

/// The key of the table.
const KEY: &str = "tcp";
/// What is told of every address without the files that TLS needs.
const NO_PLAIN: &str = "is missing: the API is served by TCP with mutual TLS only, on every address; `banger cert init` makes the files";

/// The daemon's TCP side. Served are `listen` and what the service manager hands over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TcpConfig {
    /// Addresses to serve on.
    pub listen: Vec<SocketAddr>,
    /// The daemon's certificate with its chain, PEM.
    pub cert_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
    /// Authorities whose certificates clients may show, PEM.
    pub client_ca_files: Vec<PathBuf>,
    /// Revoked certificates of these authorities, PEM.
    pub crl_files: Vec<PathBuf>,
    /// Whom certificates name, in this order; none means as `banger cert` issues them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<IdentityRule>,
    /// The most connections at once.
    pub connections_max: usize,
    /// The most from one address, before anything is known of who it is; of IPv6, from one /64.
    pub connections_per_address_max: usize,
    /// The most of one identity.
    pub connections_per_identity_max: usize,
    /// The most that have not shown yet who they are.
    pub handshakes_max: usize,
    /// Of these, the most of one address; of IPv6, of one /64.
    pub handshakes_per_address_max: usize,
    /// How often peers from one address may get nowhere in a minute; of IPv6, from one /64.
    pub misses_per_address_max: u32,
    /// For a new connection to show who it is.
    pub handshake_timeout: SignedDuration,
    /// From then to the first whole request.
    pub first_request_timeout: SignedDuration,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            client_ca_files: Vec::new(),
            crl_files: Vec::new(),
            identities: Vec::new(),
            connections_max: 4096,
            connections_per_address_max: 512,
            connections_per_identity_max: 256,
            handshakes_max: 512,
            handshakes_per_address_max: 64,
            misses_per_address_max: 120,
            handshake_timeout: SignedDuration::from_secs(10),
            first_request_timeout: SignedDuration::from_secs(30),
        }
    }
}

/// Whom the certificates name that fit: all that is given must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityRule {
    /// A URI among the certificate's alternative names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// A DNS name among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// The common name of its subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cn: Option<String>,
    /// An organisation of its subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// The name; `*` in it stands for what the `*` of the pattern was.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

impl IdentityRule {
    /// All that is given, by its key.
    #[must_use]
    pub fn patterns(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("uri", &self.uri),
            ("dns", &self.dns),
            ("cn", &self.cn),
            ("organisation", &self.organisation),
        ];
        all.into_iter()
            .filter_map(|(key, pattern)| Some((key, pattern.as_deref()?)))
            .collect()
    }
}

impl TcpConfig {
    /// All files that are read.
    #[must_use]
    pub fn files(&self) -> Vec<&Path> {
        let single = [&self.cert_file, &self.key_file];
        single
            .into_iter()
            .chain(&self.client_ca_files)
            .chain(&self.crl_files)
            .map(PathBuf::as_path)
            .collect()
    }

    /// Whether the files are named that TLS needs.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        let nothing = Path::new("");
        self.cert_file != nothing && self.key_file != nothing && !self.client_ca_files.is_empty()
    }
}

/// Takes what is wrong by itself out of the table.
pub(super) fn sift(table: &mut toml::Table) -> Vec<Mistake> {
    super::table::sift_one::<TcpConfig>(table, KEY)
}

/// What types cannot say.
pub(super) fn mistakes(tcp: &TcpConfig) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut refuse = |key: &str, wrong: bool, problem: &str| {
        if wrong {
            mistakes.push(Mistake::new(&format!("{KEY}.{key}"), problem));
        }
    };
    let nothing = Path::new("");
    // Who names one of the files wants TLS, and needs all.
    let is_wanted = !tcp.listen.is_empty() || tcp.files().iter().any(|file| *file != nothing);
    refuse("cert_file", is_wanted && tcp.cert_file == nothing, NO_PLAIN);
    refuse("key_file", is_wanted && tcp.key_file == nothing, NO_PLAIN);
    refuse(
        "client_ca_files",
        is_wanted && tcp.client_ca_files.is_empty(),
        NO_PLAIN,
    );
    for (key, files) in [
        ("cert_file", std::slice::from_ref(&tcp.cert_file)),
        ("key_file", std::slice::from_ref(&tcp.key_file)),
        ("client_ca_files", &tcp.client_ca_files),
        ("crl_files", &tcp.crl_files),
    ] {
        let is_relative = |file: &PathBuf| file != nothing && !file.is_absolute();
        refuse(
            key,
            files.iter().any(is_relative),
            "must be an absolute path",
        );
    }
    for (key, most) in [
        ("connections_max", tcp.connections_max),
        (
            "connections_per_address_max",
            tcp.connections_per_address_max,
        ),
        (
            "connections_per_identity_max",
            tcp.connections_per_identity_max,
        ),
        ("handshakes_max", tcp.handshakes_max),
        ("handshakes_per_address_max", tcp.handshakes_per_address_max),
    ] {
        refuse(key, most == 0, "must be at least 1");
    }
    refuse(
        "misses_per_address_max",
        tcp.misses_per_address_max == 0,
        "must be at least 1",
    );
    for (key, value) in [
        ("handshake_timeout", tcp.handshake_timeout),
        ("first_request_timeout", tcp.first_request_timeout),
    ] {
        let fits = value > SignedDuration::ZERO && value <= DURATION_MAX;
        refuse(key, !fits, "must be longer than nothing and at most a year");
    }
    for (index, rule) in tcp.identities.iter().enumerate() {
        let key = format!("identities[{index}]");
        if let Some(problem) = problem(rule) {
            refuse(&key, true, problem);
        }
    }
    mistakes
}

fn problem(rule: &IdentityRule) -> Option<&'static str> {
    let patterns = rule.patterns();
    let wild = patterns
        .iter()
        .filter(|(_, text)| text.contains(WILDCARD))
        .count();
    if patterns.is_empty() {
        return Some("fits every certificate: give uri, dns, cn or organisation");
    }
    if patterns.iter().any(|(_, text)| text.is_empty()) {
        return Some("has a pattern that is empty");
    }
    if !patterns.iter().all(|(_, text)| Pattern::is_one(text)) {
        return Some("has a pattern with more than one `*`");
    }
    if rule.name.contains(WILDCARD) {
        if rule.name.matches(WILDCARD).count() > 1 || wild != 1 {
            return Some(
                "has a name with `*`: then exactly one pattern has one too, and the name no second",
            );
        }
        return (!is_name(&rule.name.replace(WILDCARD, "x"))).then_some(NAME);
    }
    (!is_name(&rule.name)).then_some(NAME)
}

/// What a name must be.
const NAME: &str = "has a name that is none: 1 to 64 letters, digits and `.`, `_`, `-`, `@`";

#[cfg(test)]
mod tests;
