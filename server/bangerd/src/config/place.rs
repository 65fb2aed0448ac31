//! Where things are by default: below `/etc`, `/var/lib` and `/run` for root, by the XDG base directories for
//! everybody else.

use std::path::{Path, PathBuf};

/// The agent's name beside the daemon.
const AGENT: &str = "banger-agent";
/// Where packages put it.
const AGENT_INSTALLED: &str = "/usr/lib/banger/banger-agent";

/// The default places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The configuration file, which need not exist.
    pub config: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The socket.
    pub socket: PathBuf,
}

impl Place {
    /// The places of root.
    #[must_use]
    pub fn system() -> Self {
        Self {
            config: "/etc/banger/bangerd.toml".into(),
            state_dir: "/var/lib/banger".into(),
            socket: "/run/banger/bangerd.sock".into(),
        }
    }

    /// The places of an ordinary user, from `variable`, a look into the environment.
    #[must_use]
    pub fn user(uid: u32, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        // XDG Base Directory Specification: relative paths are invalid and ignored.
        let set = |name: &str| variable(name).filter(|path| path.is_absolute());
        let home = set("HOME").unwrap_or_else(|| PathBuf::from("/"));
        let config = set("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        let state = set("XDG_STATE_HOME").unwrap_or_else(|| home.join(".local/state"));
        let runtime = set("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{uid}").into());
        Self {
            config: config.join("banger/bangerd.toml"),
            state_dir: state.join("banger"),
            socket: runtime.join("banger/bangerd.sock"),
        }
    }

    /// The places of whoever runs this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        let uid = rustix::process::geteuid();
        if uid.is_root() {
            Self::system()
        } else {
            Self::user(uid.as_raw(), |name| {
                std::env::var_os(name).map(PathBuf::from)
            })
        }
    }

    /// The configuration file, if it exists.
    #[must_use]
    pub fn config_file(&self) -> Option<&Path> {
        self.config.exists().then_some(self.config.as_path())
    }
}

/// The agent: as configured, else beside the daemon, else where packages put it.
pub(super) fn agent(configured: &Path) -> PathBuf {
    if configured != Path::new("") {
        return configured.to_owned();
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(AGENT)));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| AGENT_INSTALLED.into())
}
