//! Where a registry may lead us by redirects and token servers, and a catalog by redirects.
//!
//! A registry is hostile, and banger stands where it cannot: inside the host and its network. So a registry
//! leads only to places as public as itself: one on the Internet to the Internet, one in a private network
//! there too, one on this host anywhere. A host with settings of its own in the configuration is one the
//! operator knows, and may always be led to. Names are judged by the addresses they resolve to, at the moment
//! the connection is made, so a name that changes its address between check and use gains nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Action, Attempt, Policy};

/// Redirects followed for one request.
const REDIRECTS_MAX: usize = 5;
/// The variables that name proxies; where one is used, it and not this host resolves names.
const PROXY_VARIABLES: [&str; 6] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];

/// How far from everybody's reach an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// The Internet.
    Public,
    /// A private network.
    Private,
    /// This host and its link: loopback, link-local (where clouds keep their metadata), and what is no
    /// host's address.
    Local,
}

impl Reach {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => {
                let first = v6.segments()[0];
                if v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || first & 0xffc0 == 0xfe80
                {
                    Self::Local
                } else if first & 0xfe00 == 0xfc00 {
                    Self::Private
                } else {
                    Self::Public
                }
            }
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [first, second, ..] = address.octets();
        let is_shared = first == 100 && second & 0xc0 == 64; // RFC 6598
        if address.is_loopback()
            || address.is_link_local()
            || address.is_multicast()
            || address.is_broadcast()
            || first == 0
        {
            Self::Local
        } else if address.is_private() || is_shared {
            Self::Private
        } else {
            Self::Public
        }
    }

    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Public,
            1 => Self::Private,
            _ => Self::Local,
        }
    }
}

/// Why a way is closed. `to` is an origin: paths and queries of redirects hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Closed {
    #[error("it leads on and on ({REDIRECTS_MAX} redirects were followed)")]
    TooMany,
    #[error("it leads from TLS to {to}, which is without")]
    Downgrade { to: String },
    #[error("it leads to {to}, which is no place of HTTP")]
    Scheme { to: String },
    #[error("it leads to {to}, which is less public than itself")]
    Inwards { to: String },
}

/// What one registry may lead to.
pub(crate) struct Fence {
    /// The registry's host, without port.
    own: String,
    /// Whether plain HTTP is allowed: the registry itself is not reached by TLS.
    is_plain: bool,
    /// Hosts that may be led to wherever they are: `host` or `host:port`.
    known: BTreeSet<String>,
    /// How public the registry itself is.
    reach: AtomicU8,
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

impl Fence {
    /// For the registry `own` (a host without port). Until its name is resolved it counts as public.
    pub(crate) fn new(own: &str, is_plain: bool, known: BTreeSet<String>) -> Self {
        let reach = literal(own).map_or(Reach::Public, Reach::of);
        Self {
            own: own.to_ascii_lowercase(),
            is_plain,
            known,
            reach: AtomicU8::new(reach as u8),
        }
    }

    fn reach(&self) -> Reach {
        Reach::from_number(self.reach.load(Ordering::Relaxed))
    }

    /// Whether `url` may be asked. A name is judged once more when it is resolved.
    pub(crate) fn check(&self, url: &Url) -> Result<(), Closed> {
        let origin = || url.origin().ascii_serialization();
        match url.scheme() {
            "https" => {}
            "http" if self.is_plain => {}
            "http" => return Err(Closed::Downgrade { to: origin() }),
            scheme => {
                return Err(Closed::Scheme {
                    to: format!("{scheme}:"),
                });
            }
        }
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let is_known = self.is_known(host) || self.known.contains(&format!("{host}:{port}"));
        match literal(host) {
            Some(address) if !is_known && Reach::of(address) > self.reach() => {
                Err(Closed::Inwards { to: origin() })
            }
            _ => Ok(()),
        }
    }

    /// By its name alone; a port of it that is known is enough, since a resolver sees no ports.
    fn is_known(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        host == self.own
            || self.known.iter().any(|known| {
                *known == host || super::without_port(known) == host && literal(&host).is_none()
            })
    }

    fn admit(&self, host: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Closed> {
        let reach = |address: &SocketAddr| Reach::of(address.ip());
        if host.eq_ignore_ascii_case(&self.own) {
            // The most public address counts: one private address among them opens nothing.
            if let Some(most_public) = addresses.iter().map(reach).min() {
                self.reach.store(most_public as u8, Ordering::Relaxed);
            }
            return Ok(addresses);
        }
        if self.is_known(host) {
            return Ok(addresses);
        }
        let allowed = self.reach();
        let open: Vec<_> = addresses
            .into_iter()
            .filter(|address| reach(address) <= allowed)
            .collect();
        if open.is_empty() {
            return Err(Closed::Inwards {
                to: host.to_owned(),
            });
        }
        Ok(open)
    }

    /// The policy for redirects.
    pub(crate) fn policy(self: &Arc<Self>) -> Policy {
        let fence = Arc::clone(self);
        Policy::custom(move |attempt| fence.judge(attempt))
    }

    /// Follows one redirect, or refuses to.
    pub(crate) fn judge(&self, attempt: Attempt<'_>) -> Action {
        if attempt.previous().len() > REDIRECTS_MAX {
            return attempt.error(Closed::TooMany);
        }
        match self.check(attempt.url()) {
            Ok(()) => attempt.follow(),
            Err(closed) => attempt.error(closed),
        }
    }
}

/// Resolves names as the host does, and judges what comes of it.
pub(crate) struct FencedResolver(pub(crate) Arc<Fence>);

impl Resolve for FencedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let fence = Arc::clone(&self.0);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let open = fence.admit(name.as_str(), found)?;
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}

/// The hosts of the proxies that the environment names: they may be anywhere.
pub(crate) fn proxies(variable: impl Fn(&str) -> Option<String>) -> impl Iterator<Item = String> {
    let found: Vec<_> = PROXY_VARIABLES
        .iter()
        .filter_map(|name| variable(name))
        .filter_map(|text| {
            let url = Url::parse(&text)
                .ok()
                .filter(Url::has_host)
                .or_else(|| Url::parse(&format!("http://{text}")).ok())?;
            url.host_str().map(str::to_owned)
        })
        .collect();
    found.into_iter()
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fence: &Fence, url: &str) -> Result<(), Closed> {
        fence.check(&Url::parse(url).unwrap())
    }

    fn fence(own: &str, is_plain: bool, known: &[&str]) -> Fence {
        Fence::new(
            own,
            is_plain,
            known.iter().map(|&text| text.to_owned()).collect(),
        )
    }

    #[test]
    fn a_public_registry_leads_nowhere_private() {
        let public = fence("registry.example", false, &["10.0.0.9:9000"]);
        assert!(check(&public, "https://93.184.216.34/x").is_ok());
        assert!(check(&public, "https://cdn.example/x").is_ok());
        assert!(check(&public, "https://10.0.0.9:9000/x").is_ok());
        for inwards in [
            "https://127.0.0.1/x",
            "https://10.0.0.9/x",
            "https://10.0.0.9:9001/x",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/x",
            "https://[::ffff:127.0.0.1]/x",
            "https://[fd00::1]/x",
            "https://0.0.0.0/x",
            "https://100.64.1.1/x",
            "https://2130706433/x",
        ] {
            let closed = check(&public, inwards).unwrap_err();
            assert!(
                matches!(closed, Closed::Inwards { .. }),
                "{inwards}: {closed}"
            );
        }
    }

    #[test]
    fn names_are_judged_by_what_they_resolve_to() {
        let public = fence("registry.example", false, &["minio.corp:9000"]);
        let at = |text: &str| vec![SocketAddr::new(text.parse().unwrap(), 0)];
        public
            .admit("registry.example", at("93.184.216.34"))
            .unwrap();
        assert!(public.admit("evil.example", at("127.0.0.1")).is_err());
        assert!(public.admit("minio.corp", at("10.1.1.1")).is_ok());
        let both = [at("10.1.1.1"), at("93.184.216.34")].concat();
        assert_eq!(
            public.admit("both.example", both).unwrap(),
            at("93.184.216.34")
        );

        let private = fence("registry.corp", false, &[]);
        private.admit("registry.corp", at("10.1.1.1")).unwrap();
        assert!(private.admit("store.corp", at("10.1.1.2")).is_ok());
        assert!(private.admit("evil.example", at("127.0.0.1")).is_err());
        assert!(check(&private, "https://169.254.169.254/").is_err());
        assert!(check(&private, "https://10.1.1.2/").is_ok());
    }

    #[test]
    fn tls_is_never_left_and_only_http_is_spoken() {
        let tls = fence("registry.example", false, &["plain.example"]);
        for url in ["http://registry.example/x", "http://plain.example/x"] {
            assert!(
                matches!(check(&tls, url), Err(Closed::Downgrade { .. })),
                "{url}"
            );
        }
        let plain = fence("127.0.0.1", true, &[]);
        assert!(check(&plain, "http://127.0.0.1:9/x").is_ok());
        for url in [
            "file:///etc/passwd",
            "ftp://127.0.0.1/x",
            "gopher://127.0.0.1/",
        ] {
            assert!(
                matches!(check(&plain, url), Err(Closed::Scheme { .. })),
                "{url}"
            );
        }
    }

    #[test]
    fn proxies_of_the_environment_are_known() {
        let found = proxies(|name| match name {
            "HTTPS_PROXY" => Some("http://proxy.corp:3128".into()),
            "all_proxy" => Some("10.0.0.1:3128".into()),
            _ => None,
        });
        assert_eq!(found.collect::<Vec<_>>(), ["10.0.0.1", "proxy.corp"]);
    }
}
