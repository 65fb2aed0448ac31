//! The host as checks see it: files below a root, and the settings that say what they should be.
//!
//! Everything that is read of `/proc`, `/sys`, `/dev`, `/etc` and `/run` goes through [`Host`], so that a test lays out
//! another host in a directory. The state directory and the socket are where the settings say, never below the root.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::AppConfig;

/// The most that is read of one file: `/proc/self/mountinfo` of a host with thousands of mounts.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Where programs of the host are.
const PROGRAM_DIRS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];
/// The most of what a program says that is shown.
const LAST_WORDS_MAX: usize = 300;
/// `CAP_NET_ADMIN` (capabilities(7)).
const CAP_NET_ADMIN: u32 = 12;

/// The host that checks look at.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    root: PathBuf,
    /// Whether this process is root, and so may change the host.
    pub(super) is_root: bool,
    pub(super) state_dir: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) socket_group: String,
    pub(super) listen: Vec<SocketAddr>,
    pub(super) max_vms: usize,
    pub(super) memory_reserve_mib: u64,
    pub(super) disk_reserve_mib: u64,
}

impl Host {
    /// The host below `root`, whose daemon has this configuration.
    pub(super) fn new(root: &Path, config: &AppConfig) -> Self {
        Self {
            root: root.to_owned(),
            is_root: rustix::process::geteuid().is_root(),
            state_dir: config.state_dir.clone(),
            socket: config.socket.clone(),
            socket_group: config.socket_group.clone(),
            listen: config.listen.clone(),
            max_vms: config.max_vms,
            memory_reserve_mib: config.memory_reserve_mib,
            disk_reserve_mib: config.disk_reserve_mib,
        }
    }

    /// Where an absolute path of the host is.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A text file.
    pub(super) fn read(&self, path: &str) -> io::Result<String> {
        let mut text = Vec::new();
        File::open(self.path(path))?
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// A file of one word; `None` where it is not there.
    pub(super) fn word(&self, path: &str) -> Option<String> {
        self.read(path).ok().map(|text| text.trim().to_owned())
    }

    /// A file of one number; `None` where there is none, or it says `max`.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.word(path)?.parse().ok()
    }

    /// The value of `key` in a file of lines `key: value` (`/proc/meminfo`, `/proc/cpuinfo`, `/proc/self/status`).
    pub(super) fn field(&self, path: &str, key: &str) -> Option<String> {
        let text = self.read(path).ok()?;
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    }

    /// A line of `/proc/meminfo`, in bytes.
    pub(super) fn memory(&self, key: &str) -> Option<u64> {
        let text = self.field("/proc/meminfo", key)?;
        let kib: u64 = text.trim_end_matches("kB").trim().parse().ok()?;
        kib.checked_mul(1024)
    }

    /// Whether the processor has all of `flags`.
    pub(super) fn has_cpu_flag(&self, flag: &str) -> bool {
        self.field("/proc/cpuinfo", "flags")
            .is_some_and(|flags| flags.split_whitespace().any(|word| word == flag))
    }

    /// Whether the daemon may make network interfaces and rules.
    pub(super) fn may_change_network(&self) -> bool {
        let capabilities = self.field("/proc/self/status", "CapEff");
        let bits = capabilities.and_then(|text| u64::from_str_radix(&text, 16).ok());
        bits.is_some_and(|bits| bits & (1 << CAP_NET_ADMIN) != 0)
    }

    /// Where a program of the host is.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        PROGRAM_DIRS
            .iter()
            .map(|dir| self.path(dir).join(name))
            .find(|path| path.is_file())
    }

    /// Loads a module into the host's kernel. Blocks.
    pub(super) fn load_module(&self, module: &'static str) -> Result<String, MendError> {
        let program = self.program("modprobe").ok_or(MendError::NoProgram {
            program: "modprobe",
            package: "kmod",
        })?;
        let output = Command::new(program)
            .arg(module)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| MendError::Step {
                step: format!("run modprobe {module}"),
                source,
            })?;
        if output.status.success() {
            return Ok(format!("loaded the kernel module {module}"));
        }
        let words = String::from_utf8_lossy(&output.stderr);
        Err(MendError::Refused {
            what: format!("modprobe {module}"),
            words: words.trim().chars().take(LAST_WORDS_MAX).collect(),
        })
    }

    /// Sets one of the host kernel's settings: a file below `/proc/sys`.
    pub(super) fn set(&self, path: &str, value: u64) -> Result<(), MendError> {
        std::fs::write(self.path(path), value.to_string()).map_err(|source| MendError::Step {
            step: format!("write {value} to {path}"),
            source,
        })
    }
}

/// Why something was not mended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MendError {
    /// A step failed.
    #[error("could not {step}")]
    Step {
        /// As the end of the sentence.
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program is not there.
    #[error("`{program}` is not installed (apt-get install {package})")]
    NoProgram {
        /// Which.
        program: &'static str,
        /// What has it.
        package: &'static str,
    },
    /// A program did not do it.
    #[error("`{what}` failed: {words}")]
    Refused {
        /// What was run.
        what: String,
        /// What it said, bounded.
        words: String,
    },
    /// There is nothing that could be changed.
    #[error("{why}")]
    Hopeless {
        /// Why.
        why: &'static str,
    },
    /// A service refused.
    #[error(transparent)]
    Service(#[from] crate::AppError),
}

/// Another host, laid out in a directory.
#[cfg(test)]
pub(super) mod laid_out {
    use super::*;

    /// A host with these files, whose state directory and socket are inside the directory too.
    pub(crate) fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            write(dir.path(), path, text);
        }
        let state_dir = dir.path().join("state");
        std::fs::create_dir_all(&state_dir).unwrap();
        let config = AppConfig {
            socket: dir.path().join("run/s"),
            socket_group: "banger".into(),
            ..AppConfig::new(state_dir, dir.path().join("agent"))
        };
        let host = Host::new(dir.path(), &config);
        (dir, host)
    }

    pub(crate) fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Makes a program of the host that is a shell script.
    pub(crate) fn program(root: &Path, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = format!("/usr/sbin/{name}");
        write(root, &path, &format!("#!/bin/sh\n{script}\n"));
        let path = root.join(path.trim_start_matches('/'));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::laid_out::{host, program};

    #[test]
    fn files_are_read_below_the_root() {
        let (_dir, host) = host(&[
            (
                "/proc/meminfo",
                "MemTotal:  2048 kB\nMemAvailable: 1024 kB\n",
            ),
            ("/proc/cpuinfo", "flags\t: fpu vmx sse2\n"),
            ("/proc/sys/kernel/pid_max", "32768\n"),
            ("/proc/self/status", "Name:\tx\nCapEff:\t0000000000001000\n"),
        ]);
        assert_eq!(host.memory("MemAvailable"), Some(1 << 20));
        assert!(host.has_cpu_flag("vmx") && !host.has_cpu_flag("svm") && !host.has_cpu_flag("vm"));
        assert_eq!(host.number("/proc/sys/kernel/pid_max"), Some(32768));
        assert_eq!(host.number("/proc/meminfo"), None);
        assert!(host.may_change_network());
    }

    #[test]
    fn a_module_is_loaded_or_what_modprobe_said_is_told() {
        let (dir, host) = host(&[]);
        let missing = host.load_module("tun").unwrap_err();
        assert_eq!(
            missing.to_string(),
            "`modprobe` is not installed (apt-get install kmod)"
        );
        program(
            dir.path(),
            "modprobe",
            "echo \"no such module: $1\" >&2; exit 1",
        );
        let refused = host.load_module("tun").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`modprobe tun` failed: no such module: tun"
        );
        program(dir.path(), "modprobe", "exit 0");
        assert_eq!(
            host.load_module("tun").unwrap(),
            "loaded the kernel module tun"
        );
    }
}
