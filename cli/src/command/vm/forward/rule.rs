//! What is forwarded where, as people write it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use banger_sdk::{TargetError, TunnelTarget};

/// From where to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Whoever connects to this address.
    pub(super) listen: SocketAddr,
    /// Is led there.
    pub(super) target: TunnelTarget,
}

impl Rule {
    /// `[[ADDRESS:]PORT:]TARGET`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (address, rest) = address(text);
        let (port, target) = rest.split_once(':').unwrap_or((rest, rest));
        let port = port.parse().map_err(|_| {
            format!("`{port}` is no port: write PORT:TARGET, such as 8080:80 or 8080:/run/app.sock")
        })?;
        let target = target.parse();
        Ok(Self {
            listen: SocketAddr::new(address, port),
            target: target.map_err(|error: TargetError| error.to_string())?,
        })
    }
}

/// The address at the beginning of a rule, and the rest; without one, the loopback.
fn address(text: &str) -> (IpAddr, &str) {
    if let Some((address, rest)) = text
        .strip_prefix('[')
        .and_then(|text| text.split_once("]:"))
        && let Ok(address) = address.parse::<Ipv6Addr>()
    {
        return (address.into(), rest);
    }
    match text.split_once(':') {
        Some(("localhost", rest)) => (Ipv4Addr::LOCALHOST.into(), rest),
        Some((address, rest)) if address.parse::<Ipv4Addr>().is_ok() => {
            let address = address.parse().unwrap_or(Ipv4Addr::LOCALHOST);
            (address.into(), rest)
        }
        _ => (Ipv4Addr::LOCALHOST.into(), text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> (String, String) {
        let rule = Rule::parse(text).unwrap();
        (rule.listen.to_string(), rule.target.to_string())
    }

    #[test]
    fn rules_are_read_from_where_to_where() {
        for (text, listen, target) in [
            ("8080:80", "127.0.0.1:8080", "localhost:80"),
            ("8080", "127.0.0.1:8080", "localhost:8080"),
            ("0:80", "127.0.0.1:0", "localhost:80"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080", "localhost:80"),
            ("localhost:8080:80", "127.0.0.1:8080", "localhost:80"),
            ("10.0.0.1:8080", "10.0.0.1:8080", "localhost:8080"),
            ("[::]:8080:80", "[::]:8080", "localhost:80"),
            ("8080:10.0.2.15:80", "127.0.0.1:8080", "10.0.2.15:80"),
            ("8080:[::1]:80", "127.0.0.1:8080", "[::1]:80"),
            ("[::1]:1:[::1]:2", "[::1]:1", "[::1]:2"),
            ("8080:/run/a:b", "127.0.0.1:8080", "/run/a:b"),
            ("127.0.0.1:1:/run/x", "127.0.0.1:1", "/run/x"),
        ] {
            assert_eq!(rule(text), (listen.to_owned(), target.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_an_example() {
        for text in [
            "",
            "0",
            "x",
            "8080:",
            "8080:0",
            "web:80",
            "65536:80",
            "8080:run/x",
            "::1:80",
        ] {
            let refused = Rule::parse(text).unwrap_err();
            assert!(refused.contains("write "), "{text}: {refused}");
        }
    }
}
