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

/// The address of a daemon: one socket, or the usual places in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    candidates: Vec<PathBuf>,
}

/// Why a text is not the address of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// A network address.
    #[error("`{text}` is a network address, and this version reaches daemons by unix socket alone")]
    Network {
        /// What was given.
        text: String,
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
                "Give unix:///path/to/bangerd.sock, or the path alone. For another machine, forward its socket: ssh -L /tmp/banger.sock:/run/banger/bangerd.sock HOST"
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
            candidates: vec![path.into()],
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

    /// The daemon that `BANGER_HOST` names, or this machine's.
    ///
    /// # Errors
    /// When the variable holds no usable address.
    pub fn from_env() -> Result<Self, HostError> {
        match std::env::var(HOST_VARIABLE) {
            Ok(text) if !text.is_empty() => text.parse(),
            _ => Ok(Self::local()),
        }
    }

    fn usual(root: bool, runtime_dir: Option<&Path>) -> Self {
        let system = PathBuf::from(SYSTEM_SOCKET);
        let candidates = match runtime_dir {
            Some(dir) if !root => vec![dir.join(USER_SOCKET), system],
            _ => vec![system],
        };
        Self { candidates }
    }

    /// The socket to connect to: the first that exists, else the first.
    #[must_use]
    pub fn path(&self) -> &Path {
        let found = self.candidates.iter().find(|path| path.exists());
        found
            .or(self.candidates.first())
            .map_or(Path::new(SYSTEM_SOCKET), PathBuf::as_path)
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let path = match text.split_once("://") {
            Some(("unix", path)) => path,
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
        write!(f, "unix://{}", self.path().display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_plain_paths_name_a_socket() {
        for text in ["unix:///tmp/a.sock", "unix:/tmp/a.sock", "/tmp/a.sock"] {
            assert_eq!(
                text.parse::<Host>().unwrap().path(),
                Path::new("/tmp/a.sock"),
                "{text}"
            );
        }
        assert_eq!(
            "./a.sock".parse::<Host>().unwrap().path(),
            Path::new("./a.sock")
        );
    }

    #[test]
    fn network_addresses_are_refused_with_what_to_do() {
        for text in ["tcp://h:1", "https://h", "h:7777"] {
            let error = text.parse::<Host>().unwrap_err();
            assert!(matches!(error, HostError::Network { .. }), "{text}");
            assert!(error.remedy().contains("unix:///"), "{text}");
        }
        assert!(matches!("".parse::<Host>(), Err(HostError::Unknown { .. })));
        assert!(matches!(
            "unix://".parse::<Host>(),
            Err(HostError::Unknown { .. })
        ));
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
            own,
            "where there is neither, the message names the user's"
        );
        assert_eq!(host.candidates[1], Path::new(SYSTEM_SOCKET));
        assert_eq!(
            Host::usual(true, Some(dir.path())).path(),
            Path::new(SYSTEM_SOCKET)
        );
        assert_eq!(Host::usual(false, None).path(), Path::new(SYSTEM_SOCKET));
    }
}
