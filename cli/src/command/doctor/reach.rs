//! The one check that is the command's own: whether the daemon can be reached, and if not, why.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_sdk::{Client, Code, Error, Host, chain};

use crate::view::doctor::{Check, Status};

/// The check's id.
pub(super) const ID: &str = "DAEMON_REACHABLE";
const TITLE: &str = "The daemon answers";
/// How long a daemon may take to say who it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The name of a daemon's lock in its state directory.
const LOCK: &str = "bangerd.lock";
/// The socket of the system's daemon.
const SYSTEM_SOCKET: &str = "/run/banger/bangerd.sock";
/// The state directory of the system's daemon.
const SYSTEM_STATE: &str = "/var/lib/banger";

/// What was found, as the arguments of a check.
struct Found {
    status: Status,
    found: String,
    cause: String,
    remedy: String,
    command: String,
}

impl Found {
    fn problem(found: impl Into<String>, cause: impl Into<String>, remedy: &str) -> Self {
        Self {
            status: Status::Problem,
            found: found.into(),
            cause: cause.into(),
            remedy: remedy.to_owned(),
            command: String::new(),
        }
    }

    fn command(mut self, command: impl Into<String>) -> Self {
        self.command = command.into();
        self
    }

    fn check(self, took: Duration) -> Check {
        Check::own(ID, TITLE, self.status, took)
            .found(self.found)
            .cause(self.cause)
            .remedy(self.remedy, self.command)
    }
}

/// Asks the daemon who it is. The client is given back if it answers.
pub(super) async fn look(
    host: &Host,
    client: banger_sdk::Result<Client>,
) -> (Option<Client>, Check) {
    let begin = Instant::now();
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            return (None, not_connected(host, &error).check(begin.elapsed()));
        }
    };
    let info = tokio::time::timeout(ANSWER_WITHIN, client.host_info()).await;
    let own = env!("CARGO_PKG_VERSION");
    let found = match info {
        Err(_) => Found::problem(
            format!("{} takes connections and does not answer", place(host)),
            "The daemon's process is stopped, or the host is overloaded.",
            "Look at its process; if it is in state T, let it go on (kill -CONT), else start it anew: VMs run on.",
        )
        .command(restart_of(host)),
        Ok(Err(error)) => lost_words(host, &error),
        Ok(Ok(info)) if info.version != own => Found {
            status: Status::Warning,
            found: format!("bangerd {}, process {}; this is banger {own}", info.version, info.pid),
            cause: "What only one of them knows does not work.".into(),
            remedy: "Install banger and bangerd of the same release, and start the daemon anew: VMs run on.".into(),
            command: restart_of(host),
        },
        Ok(Ok(info)) => Found {
            status: Status::Ok,
            found: format!("bangerd {}, process {}, {}", info.version, info.pid, place(host)),
            cause: String::new(),
            remedy: String::new(),
            command: String::new(),
        },
    };
    let client = (!found.status.is_bad() || found.status == Status::Warning).then_some(client);
    (client, found.check(begin.elapsed()))
}

/// Whether the daemon went away while it was asked.
pub(super) fn is_lost(error: &Error) -> bool {
    error.is_connection_lost()
        || matches!(error, Error::ConnectionSilent { .. })
        || error.code() == Code::Unavailable
}

/// The daemon went away before it had told everything.
pub(super) fn lost(host: &Host, error: &Error) -> Check {
    lost_words(host, error).check(Duration::ZERO)
}

/// The socket, or the address of another host.
fn place(host: &Host) -> String {
    host.path()
        .map_or_else(|| host.to_string(), |path| path.display().to_string())
}

/// A daemon on another host is not started from here.
fn restart_of(host: &Host) -> String {
    host.path().map_or_else(String::new, restart)
}

fn lost_words(host: &Host, error: &Error) -> Found {
    Found::problem(
        "the daemon went away before it had answered",
        chain(error),
        "Look at its log, start it, and look again. VMs run on meanwhile.",
    )
    .command(restart_of(host))
}

fn not_connected(host: &Host, error: &Error) -> Found {
    let Some(socket) = host.path() else {
        let remedy = error.remedy().unwrap_or_default();
        let found = format!("{host} cannot be connected to");
        return Found::problem(found, chain(error), &remedy);
    };
    let kind = match error {
        Error::Connect { source, .. } => source.kind(),
        _ => io::ErrorKind::Other,
    };
    let path = socket.display();
    let lock = lock_of(socket);
    match kind {
        io::ErrorKind::NotFound => missing(socket, lock.as_deref()),
        io::ErrorKind::ConnectionRefused => stale(socket, lock.as_deref()),
        io::ErrorKind::PermissionDenied => forbidden(socket),
        _ => Found::problem(
            format!("{path} cannot be connected to"),
            chain(error),
            "Name the daemon's socket with --host or BANGER_HOST, and look at the daemon's log.",
        ),
    }
}

fn missing(socket: &Path, lock: Option<&Path>) -> Found {
    let path = socket.display();
    if let Some(pid) = lock.and_then(holder) {
        return Found::problem(
            format!("{path} is not there, and bangerd runs as process {pid}"),
            "It is still taking up its state, serves on another socket, or its socket was removed.",
            "Wait a moment and look again; else name its socket with --host or BANGER_HOST, or start it anew: VMs run on.",
        )
        .command(restart(socket));
    }
    Found::problem(
        format!("{path} is not there"),
        "bangerd does not run, or serves on another socket.",
        "Start it, or name its socket with --host or BANGER_HOST.",
    )
    .command(start(socket))
}

fn stale(socket: &Path, lock: Option<&Path>) -> Found {
    let path = socket.display();
    let is_socket =
        std::fs::symlink_metadata(socket).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        return Found::problem(
            format!("{path} is not a socket"),
            "Another program made something in its place, and bangerd does not remove what is not its own.",
            "Look at it, remove it, and start bangerd.",
        );
    }
    if let Some(pid) = lock.and_then(holder) {
        return Found::problem(
            format!("nobody serves on {path}, and bangerd runs as process {pid}"),
            "The socket is an earlier daemon's: the present one is still taking up its state, or serves on another socket.",
            "Wait a moment and look again; else name its socket with --host or BANGER_HOST.",
        );
    }
    let last = lock.and_then(|lock| std::fs::read_to_string(lock).ok());
    let last = last
        .map(|pid| pid.trim().to_owned())
        .filter(|pid| !pid.is_empty());
    let who = last.map_or_else(String::new, |pid| format!(" (process {pid})"));
    Found::problem(
        format!("nobody serves on {path}: the socket is stale"),
        format!("The last daemon{who} ended without a farewell. The lock it left counts no more."),
        "Start bangerd: it replaces the socket and takes up the VMs that run.",
    )
    .command(start(socket))
}

fn forbidden(socket: &Path) -> Found {
    let path = socket.display();
    let Ok(metadata) = std::fs::metadata(socket) else {
        let dir = socket.parent().unwrap_or(socket).display();
        return Found::problem(
            format!("{path} may not be looked at"),
            format!("The directory {dir} is closed to you."),
            "Use the daemon as the user who runs it.",
        );
    };
    let mode = metadata.permissions().mode() & 0o777;
    let found = format!(
        "{path} may not be used by you (mode {mode:04o}, user {}, group {})",
        metadata.uid(),
        metadata.gid()
    );
    if mode & 0o020 == 0 {
        return Found::problem(
            found,
            "The socket is its owner's alone.",
            "Use the daemon as the user who runs it, or run one of your own.",
        )
        .command("sudo banger doctor");
    }
    let group = group_name(metadata.gid()).unwrap_or_else(|| metadata.gid().to_string());
    Found::problem(
        found,
        format!("You are not a member of the group `{group}`. Its members can do whatever the daemon can."),
        "Become a member and log in anew, or use sudo.",
    )
    .command(format!("sudo usermod -aG {group} \"$USER\""))
}

fn group_name(id: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/group").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

/// The lock of the daemon that serves on `socket`, where it is at one of the usual places.
fn lock_of(socket: &Path) -> Option<PathBuf> {
    let state = if socket == Path::new(SYSTEM_SOCKET) {
        PathBuf::from(SYSTEM_STATE)
    } else {
        let set = |name: &str| {
            let value = std::env::var_os(name).map(PathBuf::from);
            value.filter(|path| path.is_absolute())
        };
        if socket != set("XDG_RUNTIME_DIR")?.join("banger/bangerd.sock") {
            return None;
        }
        let home = || set("HOME").map(|home| home.join(".local/state"));
        set("XDG_STATE_HOME").or_else(home)?.join("banger")
    };
    Some(state.join(LOCK))
}

/// Who holds a lock, without trying to take it: a daemon that starts at this moment must not find it taken.
fn holder(lock: &Path) -> Option<u32> {
    let metadata = std::fs::metadata(lock).ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, metadata.ino())
}

/// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF` (proc(5)): the process, then the file's device and inode. Device
/// numbers are not compared: on some file systems they are not those that stat(2) tells.
fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_flock = words.next()? == "FLOCK";
        let pid = words.nth(2)?.parse().ok()?;
        let found: u64 = words.next()?.rsplit(':').next()?.parse().ok()?;
        (is_flock && found == inode).then_some(pid)
    })
}

fn start(socket: &Path) -> String {
    with_manager(socket, "start").unwrap_or_else(|| "bangerd &".to_owned())
}

fn restart(socket: &Path) -> String {
    with_manager(socket, "restart").unwrap_or_else(|| "pgrep -a bangerd".to_owned())
}

/// The command by which the service manager does it, where it knows the daemon.
fn with_manager(socket: &Path, verb: &str) -> Option<String> {
    let is_system = socket == Path::new(SYSTEM_SOCKET);
    let (dirs, command) = if is_system {
        (
            ["/etc/systemd/system", "/usr/lib/systemd/system"],
            "systemctl",
        )
    } else {
        (
            ["/etc/systemd/user", "/usr/lib/systemd/user"],
            "systemctl --user",
        )
    };
    let home =
        std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/systemd/user"));
    let dirs = dirs
        .map(PathBuf::from)
        .into_iter()
        .chain(home.filter(|_| !is_system));
    let is_known = dirs
        .into_iter()
        .any(|dir| dir.join("bangerd.service").exists());
    is_known.then(|| format!("{command} {verb} bangerd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_without_taking_it() {
        let locks = "\
1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF
2: FLOCK  ADVISORY  WRITE 22 fe:00:77 0 EOF
2: -> FLOCK  ADVISORY  WRITE 33 fe:00:77 0 EOF
3: FLOCK  ADVISORY  WRITE 44 fe:00:78 0 EOF
";
        assert_eq!(holder_in(locks, 77), Some(22));
        assert_eq!(holder_in(locks, 79), None);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK);
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(holder(&path), None);
        file.lock().unwrap();
        assert_eq!(holder(&path), Some(std::process::id()));
    }

    #[test]
    fn why_a_daemon_cannot_be_reached_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let host = Host::socket(&socket);
        let error = |kind: io::ErrorKind| Error::Connect {
            path: socket.clone(),
            source: kind.into(),
        };
        let missing = not_connected(&host, &error(io::ErrorKind::NotFound));
        assert!(missing.found.ends_with("is not there"));
        assert_eq!(missing.command, "bangerd &");
        std::fs::write(&socket, "").unwrap();
        let other = not_connected(&host, &error(io::ErrorKind::ConnectionRefused));
        assert!(other.found.ends_with("is not a socket"));
        std::fs::remove_file(&socket).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let stale = not_connected(&host, &error(io::ErrorKind::ConnectionRefused));
        assert!(stale.found.ends_with("the socket is stale"));
        let mode = |mode| std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode));
        mode(0o600).unwrap();
        let own = not_connected(&host, &error(io::ErrorKind::PermissionDenied));
        assert!(own.cause.contains("owner's alone"));
        mode(0o660).unwrap();
        let group = not_connected(&host, &error(io::ErrorKind::PermissionDenied));
        assert!(group.command.starts_with("sudo usermod -aG "));
        let strange = not_connected(&host, &error(io::ErrorKind::TimedOut));
        assert!(strange.found.ends_with("cannot be connected to"));
    }
}
