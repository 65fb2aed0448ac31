//! Which daemon to talk to.
//!
//! Parses what people write into `BANGER_HOST`; never connects.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The environment variable that names the daemon.
pub const HOST_VARIABLE: &str = "BANGER_HOST";
/// The socket of the system's daemon.
const SYSTEM_SOCKET: &str = "/run/banger/bangerd.sock";
/// The socket of a user's own daemon, under `$XDG_RUNTIME_DIR`.
const USER_SOCKET: &str = "banger/bangerd.sock";
/// The longest path of a unix socket that Linux takes (`sun_path`, unix(7)), without its end byte.
const SOCKET_PATH_MAX: usize = 107;

/// The environment variables that name what a client shows and believes: PEM files, or for the first a directory that
/// `banger cert issue` made, which has all three.
pub const CERTIFICATE_VARIABLES: [&str; 3] = ["BANGER_CERT", "BANGER_KEY", "BANGER_CA"];
/// The port of daemons where none is named.
pub const DEFAULT_PORT: u16 = 7443;

/// The address of a daemon: one socket, or the usual places in the order in which they are tried; or another host and
/// what is shown to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Sockets(Vec<PathBuf>),
    Network(Network, Option<Credentials>),
}

/// A daemon's place on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

/// What a client shows, and whom it believes: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The client's certificate, with its chain.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// The authorities whose word for the daemon counts.
    pub ca_file: PathBuf,
}

impl Credentials {
    /// These files.
    pub fn files(
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        ca: impl Into<PathBuf>,
    ) -> Self {
        Self {
            cert_file: cert.into(),
            key_file: key.into(),
            ca_file: ca.into(),
        }
    }

    /// Those in a directory that `banger cert issue` made.
    #[must_use]
    pub fn directory(path: &Path) -> Self {
        Self::files(
            path.join("client.crt"),
            path.join("client.key"),
            path.join("ca.crt"),
        )
    }

    /// What is given of them: all three, or a directory as the first, beside which the others still count. `None` where
    /// nothing is.
    ///
    /// # Errors
    /// If one is missing.
    pub fn given(
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
        ca: Option<PathBuf>,
    ) -> Result<Option<Self>, HostError> {
        let [cert, key, ca] =
            [cert, key, ca].map(|path| path.filter(|path| !path.as_os_str().is_empty()));
        if let Some(directory) = cert.as_ref().filter(|path| path.is_dir()) {
            let all = Self::directory(directory);
            return Ok(Some(Self {
                key_file: key.unwrap_or(all.key_file),
                ca_file: ca.unwrap_or(all.ca_file),
                cert_file: all.cert_file,
            }));
        }
        match (cert, key, ca) {
            (None, None, None) => Ok(None),
            (Some(cert), Some(key), Some(ca)) => Ok(Some(Self::files(cert, key, ca))),
            (cert, key, _) => Err(HostError::Incomplete {
                missing: match (cert, key) {
                    (None, _) => "certificate (--tls-cert)",
                    (_, None) => "key (--tls-key)",
                    _ => "authority (--tls-ca)",
                },
            }),
        }
    }

    /// What the environment gives of them.
    ///
    /// # Errors
    /// If one is missing.
    pub fn from_env() -> Result<Option<Self>, HostError> {
        let [cert, key, ca] =
            CERTIFICATE_VARIABLES.map(|name| std::env::var_os(name).map(PathBuf::from));
        Self::given(cert, key, ca)
    }
}

/// Why a text is not the address of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// A network address that is not `https://host:port`.
    #[error("`{text}` is not how a daemon on another host is written")]
    Network {
        /// What was given.
        text: String,
    },
    /// Nothing to show to the daemon of another host.
    #[error("{host} is to be reached by TLS, and no certificate is given to show to it")]
    NoCredentials {
        /// The daemon.
        host: String,
    },
    /// Part of it.
    #[error("the client's {missing} is missing")]
    Incomplete {
        /// Which.
        missing: &'static str,
    },
    /// No known form.
    #[error("`{text}` is not the address of a daemon")]
    Unknown {
        /// What was given.
        text: String,
    },
    /// Longer than a socket's path can be.
    #[error("the socket path `{text}` has more than {SOCKET_PATH_MAX} bytes")]
    TooLong {
        /// What was given.
        text: String,
    },
}

impl HostError {
    /// What to write instead.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Network { .. } | Self::Unknown { .. } => {
                "Give unix:///path/to/bangerd.sock, or the path alone; for another host, https://HOST:PORT with a client certificate."
            }
            Self::NoCredentials { .. } | Self::Incomplete { .. } => {
                "Give --tls-cert, --tls-key and --tls-ca (BANGER_CERT, BANGER_KEY, BANGER_CA), or as --tls-cert alone the directory that `banger cert issue` made."
            }
            Self::TooLong { .. } => {
                "Give the socket a shorter path, or reach it by a symbolic link."
            }
        }
    }
}

impl Host {
    /// The daemon on this socket.
    pub fn socket(path: impl Into<PathBuf>) -> Self {
        Self {
            place: Place::Sockets(vec![path.into()]),
        }
    }

    /// The daemon of another host, with what is shown to it. For a daemon on a socket it changes nothing.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        match self.place {
            Place::Network(network, _) => Self {
                place: Place::Network(network, Some(credentials)),
            },
            place @ Place::Sockets(_) => Self { place },
        }
    }

    /// The daemon of this machine: the system's for root; for others their own, or the system's where
    /// they run none.
    #[must_use]
    pub fn local() -> Self {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        Self::usual(
            rustix::process::geteuid().is_root(),
            runtime.map(PathBuf::from).as_deref(),
        )
    }

    /// The daemon that `BANGER_HOST` names, with what [`CERTIFICATE_VARIABLES`] do, or this machine's.
    ///
    /// # Errors
    /// When a variable holds nothing usable.
    pub fn from_env() -> Result<Self, HostError> {
        let host: Self = match std::env::var(HOST_VARIABLE) {
            Ok(text) if !text.is_empty() => text.parse()?,
            _ => return Ok(Self::local()),
        };
        if host.is_local() {
            return Ok(host);
        }
        Ok(match Credentials::from_env()? {
            Some(credentials) => host.with_credentials(credentials),
            None => host,
        })
    }

    fn usual(root: bool, runtime_dir: Option<&Path>) -> Self {
        let system = PathBuf::from(SYSTEM_SOCKET);
        let candidates = match runtime_dir {
            Some(dir) if !root => vec![dir.join(USER_SOCKET), system],
            _ => vec![system],
        };
        Self {
            place: Place::Sockets(candidates),
        }
    }

    /// The socket to connect to: the first that exists, else the first. `None` for a daemon of another host.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        let Place::Sockets(candidates) = &self.place else {
            return None;
        };
        let found = candidates.iter().find(|path| path.exists());
        found.or(candidates.first()).map(PathBuf::as_path)
    }

    /// Whether it is a socket of this host.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        matches!(self.place, Place::Sockets(_))
    }

    /// What is shown to a daemon of another host.
    #[must_use]
    pub const fn credentials(&self) -> Option<&Credentials> {
        match &self.place {
            Place::Network(_, credentials) => credentials.as_ref(),
            Place::Sockets(_) => None,
        }
    }

    pub(crate) const fn network(&self) -> Option<&Network> {
        match &self.place {
            Place::Network(network, _) => Some(network),
            Place::Sockets(_) => None,
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let path = match text.split_once("://") {
            Some(("unix", path)) => path,
            Some(("https", place)) => {
                let network = network(place).ok_or_else(|| HostError::Network {
                    text: text.to_owned(),
                })?;
                return Ok(Self {
                    place: Place::Network(network, None),
                });
            }
            Some(_) => {
                return Err(HostError::Network {
                    text: text.to_owned(),
                });
            }
            None => text.strip_prefix("unix:").unwrap_or(text),
        };
        if path.is_empty() {
            return Err(HostError::Unknown {
                text: text.to_owned(),
            });
        }
        if !path.contains('/') && path.contains(':') {
            return Err(HostError::Network {
                text: text.to_owned(),
            });
        }
        if path.len() > SOCKET_PATH_MAX {
            return Err(HostError::TooLong {
                text: path.to_owned(),
            });
        }
        Ok(Self::socket(path))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Network(network, _) => network.fmt(f),
            Place::Sockets(_) => {
                let path = self.path().unwrap_or(Path::new(SYSTEM_SOCKET));
                write!(f, "unix://{}", path.display())
            }
        }
    }
}

/// `host`, `host:port` or `[address]:port`, with nothing behind it but a slash.
fn network(place: &str) -> Option<Network> {
    let place = place.strip_suffix('/').unwrap_or(place);
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (
                host,
                port.strip_prefix(':').or(port.is_empty().then_some(""))?,
            )
        }
        None => place.split_once(':').unwrap_or((place, "")),
    };
    let is_written = place.starts_with('[')
        || host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let port = match port {
        "" => DEFAULT_PORT,
        port => port.parse().ok().filter(|&port| port > 0)?,
    };
    (is_written && !host.is_empty()).then(|| Network {
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_plain_paths_name_a_socket() {
        for text in ["unix:///tmp/a.sock", "unix:/tmp/a.sock", "/tmp/a.sock"] {
            assert_eq!(
                text.parse::<Host>().unwrap().path(),
                Some(Path::new("/tmp/a.sock")),
                "{text}"
            );
        }
        assert_eq!(
            "./a.sock".parse::<Host>().unwrap().path(),
            Some(Path::new("./a.sock"))
        );
    }

    #[test]
    fn a_daemon_of_another_host_is_an_https_url() {
        for (text, shown) in [
            ("https://h.example:7000", "https://h.example:7000"),
            ("https://h.example", "https://h.example:7443"),
            ("https://10.0.0.1:1/", "https://10.0.0.1:1"),
            ("https://[2001:db8::1]:7000", "https://[2001:db8::1]:7000"),
            ("https://[::1]", "https://[::1]:7443"),
        ] {
            let host: Host = text.parse().unwrap();
            assert_eq!(host.to_string(), shown);
            assert_eq!((host.path(), host.is_local()), (None, false));
            let shown = Credentials::files("/c", "/k", "/a");
            let host = host.with_credentials(shown.clone());
            assert_eq!(host.credentials(), Some(&shown));
        }
    }

    #[test]
    fn other_network_addresses_are_refused_with_what_to_do() {
        for text in [
            "tcp://h:1",
            "http://h",
            "h:7777",
            "https://",
            "https://h:0",
            "https://h:99999",
            "https://h/path",
            "https://u@h",
            "https://[h]:1",
            "https://[::1]x",
            "https://::1",
        ] {
            let error = text.parse::<Host>().unwrap_err();
            assert!(matches!(error, HostError::Network { .. }), "{text}");
            assert!(error.remedy().contains("https://HOST:PORT"), "{text}");
        }
        assert!(matches!("".parse::<Host>(), Err(HostError::Unknown { .. })));
        assert!(matches!(
            "unix://".parse::<Host>(),
            Err(HostError::Unknown { .. })
        ));
    }

    #[test]
    fn credentials_are_three_files_or_a_directory_with_them() {
        let path = |text: &str| Some(PathBuf::from(text));
        let given = Credentials::given;
        assert_eq!(given(None, None, None), Ok(None));
        assert_eq!(
            given(path("/c"), path("/k"), path("/a")),
            Ok(Some(Credentials::files("/c", "/k", "/a")))
        );
        for (cert, key, ca, missing) in [
            (None, path("/k"), path("/a"), "certificate (--tls-cert)"),
            (path("/c"), None, path("/a"), "key (--tls-key)"),
            (path("/c"), path("/k"), path(""), "authority (--tls-ca)"),
        ] {
            assert_eq!(given(cert, key, ca), Err(HostError::Incomplete { missing }));
        }
        let dir = tempfile::tempdir().unwrap();
        let all = given(Some(dir.path().into()), None, None).unwrap().unwrap();
        assert_eq!(all, Credentials::directory(dir.path()));
        let other = given(Some(dir.path().into()), None, path("/a")).unwrap();
        assert_eq!(other.unwrap().ca_file, Path::new("/a"));
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_before_the_system_does() {
        let long = format!("/tmp/{}", "x".repeat(200));
        assert!(matches!(
            long.parse::<Host>(),
            Err(HostError::TooLong { .. })
        ));
    }

    #[test]
    fn a_user_without_a_daemon_gets_the_systems() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("banger/bangerd.sock");
        let host = Host::usual(false, Some(dir.path()));
        assert_eq!(
            host.path(),
            Some(own.as_path()),
            "where there is neither, the message names the user's"
        );
        let system = Some(Path::new(SYSTEM_SOCKET));
        assert_eq!(Host::usual(true, Some(dir.path())).path(), system);
        assert_eq!(Host::usual(false, None).path(), system);
    }
}
