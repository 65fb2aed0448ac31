//! A `bangerd` of its own: directory, configuration, socket, log; started, killed, started again.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use banger_sdk::{Client, Host};
use rustix::process::{Pid, Signal, kill_process};

use crate::binaries::Binaries;
use crate::command::{Run, ended};
use crate::scratch::{MARK, Scratch};

/// How long a daemon may take to serve.
const START: Duration = Duration::from_secs(30);
/// How long a daemon may take to stop.
const STOP: Duration = Duration::from_secs(60);
/// What is kept of a log in a message.
const LOG_TAIL_LINES: usize = 40;
/// Becomes the program of its arguments, which finds its standard input and output as the sockets of a service manager
/// (`sd_listen_fds(3)`).
const HAND_OVER: &str = "export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\" 3<&0 4>&1 </dev/null >&2";

/// How a daemon is started.
#[derive(Debug, Default)]
pub struct DaemonOptions {
    /// Lines added to its configuration.
    pub config: String,
    /// Another state directory than the one in its own directory.
    pub state_dir: Option<PathBuf>,
    /// Another user than ours: user and group number.
    pub user: Option<(u32, u32)>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// A TCP socket that it is handed over, and with it a Unix one at the place of its own, as by a service manager.
    pub handed_over: Option<TcpListener>,
}

/// A daemon and its directory. Dropping it kills the daemon, but no VM: stop those first.
#[derive(Debug)]
pub struct Daemon {
    binaries: Binaries,
    home: PathBuf,
    mark: String,
    directory: PathBuf,
    /// Where it keeps everything.
    pub state: PathBuf,
    socket: PathBuf,
    /// Where it is handed over, and not the daemon's.
    unix: Option<UnixListener>,
    options: DaemonOptions,
    child: Mutex<Option<Child>>,
}

impl Daemon {
    /// Starts one in a directory of this name, and waits until it serves.
    pub fn start(
        scratch: &Scratch,
        binaries: &Binaries,
        name: &str,
        options: DaemonOptions,
    ) -> Self {
        let directory = scratch.dir(name);
        let socket = directory.join("s");
        let handed_over = options.handed_over.as_ref();
        let daemon = Self {
            binaries: binaries.clone(),
            home: scratch.path().join("home"),
            mark: scratch.mark().to_owned(),
            state: options
                .state_dir
                .clone()
                .unwrap_or_else(|| directory.join("state")),
            unix: handed_over.map(|_| UnixListener::bind(&socket).unwrap()),
            socket,
            directory,
            options,
            child: Mutex::new(None),
        };
        if let Some((uid, gid)) = daemon.options.user {
            std::os::unix::fs::chown(&daemon.directory, Some(uid), Some(gid)).unwrap();
        }
        let config = format!(
            "agent = {:?}\nlog_level = \"info\"\ndisk_reserve_mib = 64\n{}{}\n",
            daemon.binaries.agent,
            firecracker(),
            daemon.options.config
        );
        // A line added by the caller replaces ours.
        std::fs::write(daemon.config(), last_wins(&config)).unwrap();
        daemon.start_again();
        daemon
    }

    fn config(&self) -> PathBuf {
        self.directory.join("bangerd.toml")
    }

    /// What starts it.
    fn command(&self) -> Command {
        let program = &self.binaries.bangerd;
        let mut command = if self.unix.is_some() {
            let mut shell = Command::new("sh");
            shell.args(["-c", HAND_OVER, "sh"]).arg(program);
            shell
        } else {
            Command::new(program)
        };
        command.arg("--config").arg(self.config());
        command
            .arg("--state-dir")
            .arg(&self.state)
            .arg("--socket")
            .arg(&self.socket);
        command.env(MARK, &self.mark).env("HOME", &self.home);
        for name in [
            "XDG_RUNTIME_DIR",
            "XDG_STATE_HOME",
            "XDG_CONFIG_HOME",
            "RUST_LOG",
        ] {
            command.env_remove(name);
        }
        command.envs(self.options.env.iter().map(|(key, value)| (key, value)));
        if let Some((uid, gid)) = self.options.user {
            command.uid(uid).gid(gid);
        }
        command.current_dir("/").process_group(0);
        command
    }

    /// What its standard input and output are.
    fn streams(&self, log: &File) -> (Stdio, Stdio) {
        let Some((unix, tcp)) = self.unix.as_ref().zip(self.options.handed_over.as_ref()) else {
            return (Stdio::null(), log.try_clone().unwrap().into());
        };
        let sockets: [OwnedFd; 2] = [
            unix.try_clone().unwrap().into(),
            tcp.try_clone().unwrap().into(),
        ];
        let [unix, tcp] = sockets.map(Stdio::from);
        (unix, tcp)
    }

    /// Starts it after it was stopped or killed.
    pub fn start_again(&self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let mut command = self.command();
        let (input, output) = self.streams(&log);
        command.stdin(input).stdout(output).stderr(log);
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + START;
        while !self.is_served_by(&child) {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("bangerd ended at its start: {status}\n{}", self.log());
            }
            assert!(
                Instant::now() < deadline,
                "bangerd does not serve\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        *self.child.lock().unwrap() = Some(child);
    }

    /// Not by a copy of the socket that a killed one was just handing to a program.
    fn is_served_by(&self, child: &Child) -> bool {
        if self.unix.is_some() {
            // Whoever comes to a socket that is handed over waits for its daemon.
            return true;
        }
        let Ok(connection) = UnixStream::connect(&self.socket) else {
            return false;
        };
        rustix::net::sockopt::socket_peercred(&connection)
            .is_ok_and(|peer| peer.pid == Pid::from_child(child))
    }

    /// Runs a second one on the same state directory, to its end.
    #[must_use]
    pub fn second(&self) -> crate::Done {
        Run::new(&self.binaries.bangerd)
            .env(MARK, &self.mark)
            .args(["--config".as_ref(), self.config().as_os_str()])
            .args(["--state-dir".as_ref(), self.state.as_os_str()])
            .args([
                "--socket".as_ref(),
                self.directory.join("second").as_os_str(),
            ])
            .timeout(START)
            .done()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(
            self.child
                .lock()
                .unwrap()
                .as_ref()
                .expect("the daemon runs"),
        )
    }

    /// Asks it to stop, and waits for it.
    pub fn stop(&self) {
        self.end(Signal::TERM);
    }

    /// Kills it with SIGKILL.
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    fn end(&self, signal: Signal) {
        let Some(mut child) = self.child.lock().unwrap().take() else {
            return;
        };
        kill_process(Pid::from_child(&child), signal).unwrap();
        if ended(&mut child, STOP).is_none() {
            let _ = child.kill();
            let _ = child.wait();
            panic!("bangerd did not stop within {STOP:?}\n{}", self.log());
        }
    }

    /// The `banger` command, talking to this daemon.
    pub fn banger<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        let run = Run::new(&self.binaries.banger)
            .env(MARK, &self.mark)
            .env("HOME", &self.home);
        let run = run
            .env("BANGER_HOST", self.host())
            .without_env("XDG_RUNTIME_DIR");
        run.args(arguments)
    }

    /// What `BANGER_HOST` must be to reach it.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Where it serves TCP on the loopback, by its log.
    #[must_use]
    pub fn tcp_address(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap();
        let (_, after) = log
            .split_once("127.0.0.1:")
            .unwrap_or_else(|| panic!("no address in {log}"));
        let port: String = after.chars().take_while(char::is_ascii_digit).collect();
        format!("127.0.0.1:{port}")
    }

    /// The `banger` command as on a host without a daemon, with a client's certificate, by TCP.
    pub fn banger_from_afar<S: AsRef<std::ffi::OsStr>>(
        &self,
        bundle: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> Run {
        self.banger(arguments)
            .env("BANGER_HOST", format!("https://{}", self.tcp_address()))
            .env("BANGER_CERT", bundle)
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A client of the SDK.
    pub async fn client(&self) -> Client {
        Client::connect(Host::socket(&self.socket)).await.unwrap()
    }

    /// Where its log is.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        let text = std::fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("-- end of bangerd's log\n{}", tail.join("\n"))
    }

    /// The names of its VMs.
    #[must_use]
    pub fn vms(&self) -> Vec<String> {
        let out = self.banger(["vm", "list", "--quiet"]).ok().out();
        out.lines().map(str::to_owned).collect()
    }

    /// Removes its VMs and stops it.
    pub fn clear(&self) {
        for vm in self.vms() {
            self.banger(["vm", "remove", &vm]).ok();
        }
        self.stop();
    }

    /// What is below a directory of its state.
    #[must_use]
    pub fn entries(&self, directory: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.state.join(directory)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The base disks in its state, by name.
    #[must_use]
    pub fn disks(&self) -> Vec<String> {
        let mut names = self.entries("rootfs");
        names.retain(|name| name.ends_with(".ext4"));
        names
    }

    /// Files, not directories, that are anywhere below `tmp`.
    #[must_use]
    pub fn temporary(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut ahead = vec![self.state.join("tmp")];
        while let Some(directory) = ahead.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => ahead.push(entry.path()),
                    _ => found.push(entry.path()),
                }
            }
        }
        found
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self
            .child
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where `BANGER_TEST_FIRECRACKER` names a Firecracker, and `BANGER_TEST_JAILER` its jailer: the lines by which a
/// daemon runs its VMs under it, if it can here: those of cases that ask for no network of QEMU's. No lines where there is
/// none.
fn firecracker() -> String {
    let named = |variable: &str| std::env::var(variable).ok();
    named("BANGER_TEST_FIRECRACKER").map_or_else(String::new, |program| {
        let jailer = named("BANGER_TEST_JAILER").unwrap_or_default();
        format!("driver = \"auto\"\nfirecracker = {program:?}\njailer = {jailer:?}\ndefault_network = \"none\"\n")
    })
}

/// The lines of a flat TOML text, of each key the last.
fn last_wins(text: &str) -> String {
    let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let kept = lines
        .iter()
        .enumerate()
        .filter(|(at, line)| !lines[at + 1..].iter().any(|later| key(later) == key(line)));
    kept.map(|(_, line)| format!("{line}\n")).collect()
}
