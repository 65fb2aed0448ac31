//! A daemon whose fake VM has a real agent, in this process, and the clients of OpenSSH in front of it.
//!
//! The agent's files are those of a directory, with users of its own; its processes are the host's.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use banger_guest::{Connector, Deadlines};
use banger_proto::v1::vm_service_client::VmServiceClient;
use banger_sdk::{Client, Host, TunnelTarget};
use banger_store::{CasOutcome, Store};
use banger_vmm::FakeHost;
use bangerd::config::Config;
use bangerd::daemon::{self, DaemonError};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::real_agent::real_agent;
use crate::rig::{self, config, connect, creation, drain, furnish};

/// How long one client may take on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(120);
/// The VM, as a host of ssh.
pub(super) const HOST: &str = "web";
/// The user that logs in where a test names none.
pub(super) const USER: &str = "me";

pub(super) struct Ssh {
    pub(super) dir: TempDir,
    pub(super) client: Client,
    stop: CancellationToken,
    daemon: JoinHandle<Result<(), DaemonError>>,
    tasks: TaskTracker,
}

/// Why these tests cannot run here, if so.
fn hindrance() -> Option<&'static str> {
    let has = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).exists())
    };
    match rustix::process::geteuid().is_root() {
        false => Some("only root can be several users"),
        true if !["ssh", "scp", "sftp", "ssh-keygen"].into_iter().all(has) => {
            Some("openssh-client is not installed")
        }
        true => None,
    }
}

impl Ssh {
    /// A VM that knows the key `key`, or none where this machine cannot run it.
    pub(super) async fn start() -> Option<Self> {
        Self::start_with(true).await
    }

    /// The same, with or without a key of the VM.
    pub(super) async fn start_with(has_key: bool) -> Option<Self> {
        Self::start_configured(has_key, |_| {}).await
    }

    /// The same, of a daemon that is configured otherwise.
    pub(super) async fn start_configured(
        has_key: bool,
        change: impl FnOnce(&mut Config),
    ) -> Option<Self> {
        if let Some(why) = hindrance() {
            eprintln!("SKIPPED ssh: {why}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        guest_files(&dir.path().join("guest"));
        for key in ["key", "other"] {
            keygen(&dir.path().join(key)).await;
        }
        let tasks = TaskTracker::new();
        let mut config = config(&dir);
        // The daemon of these tests ends only when its clients have.
        config.shutdown_grace = "5s".parse().unwrap();
        change(&mut config);
        fs::write(&config.agent, "an agent").unwrap();
        let host = FakeHost::new(real_agent(&dir.path().join("guest"), &tasks));
        let serve = |stop: &CancellationToken| {
            let connector = Arc::new(Connector::new(Deadlines::default()));
            let driver = Arc::new(host.driver());
            tasks.spawn(daemon::run(config.clone(), driver, connector, stop.clone()))
        };
        let mut stop = CancellationToken::new();
        let mut daemon = serve(&stop);
        create(&config.socket).await;
        if has_key {
            stop.cancel();
            daemon.await.unwrap().unwrap();
            let key = fs::read_to_string(dir.path().join("key.pub")).unwrap();
            authorize(&config.database(), key.trim()).await;
            stop = CancellationToken::new();
            daemon = serve(&stop);
            connect(&config.socket).await;
        }
        let client = Client::connect(Host::socket(&config.socket)).await.unwrap();
        let ssh = Self {
            dir,
            client,
            stop,
            daemon,
            tasks,
        };
        ssh.listen(HOST).await;
        Some(ssh)
    }

    /// Leads a port to the ssh server of a VM, and writes the configuration by which clients find it.
    async fn listen(&self, vm: &str) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = self.client.clone();
        let (named, stop) = (vm.to_owned(), self.stop.clone());
        let tasks = self.tasks.clone();
        self.tasks.spawn(stop.run_until_cancelled_owned(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let open = client.tunnels().open(named.clone(), TunnelTarget::Ssh);
                tasks.spawn(async move {
                    if let Ok(mut tunnel) = open.await {
                        // Who breaks off has said so to its client.
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut tunnel).await;
                    }
                });
            }
        }));
        let key = self.client.vms().ssh_host_key(vm).await.unwrap();
        fs::write(self.path("known"), format!("{vm} {key}\n")).unwrap();
        let dir = self.dir.path().display();
        let text = format!(
            "Host {vm}\n  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias {vm}\n  User {USER}\n  \
             IdentitiesOnly yes\n  UserKnownHostsFile {dir}/known\n  \
             GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  BatchMode yes\n  \
             UpdateHostKeys no\n  LogLevel ERROR\n"
        );
        fs::write(self.path("config"), text).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What is at this path of the guest.
    pub(super) fn guest(&self, path: &str) -> PathBuf {
        self.path("guest").join(path.trim_start_matches('/'))
    }

    /// A client with the configuration of this rig, and the VM's key.
    pub(super) fn client<W: AsRef<OsStr>>(&self, program: &str, words: &[W]) -> Command {
        self.client_with("key", program, words)
    }

    /// The same with another key; none is called so.
    pub(super) fn client_with<W: AsRef<OsStr>>(
        &self,
        key: &str,
        program: &str,
        words: &[W],
    ) -> Command {
        let key = match key {
            "none" => "none".into(),
            key => self.path(key).display().to_string(),
        };
        let mut command = Command::new(program);
        command
            .arg("-F")
            .arg(self.path("config"))
            .args(["-o", &format!("IdentityFile={key}")])
            .args(words)
            .env_remove("SSH_AUTH_SOCK")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// What `ssh` says that is given these words.
    pub(super) async fn ssh(&self, words: &[&str]) -> Output {
        ended(self.client("ssh", words)).await
    }

    /// The same, with this on standard input.
    pub(super) async fn ssh_with(&self, words: &[&str], input: Vec<u8>) -> Output {
        with_input(self.client("ssh", words), input).await
    }

    /// What a command in the VM prints, which must end well.
    pub(super) async fn said(&self, words: &[&str]) -> String {
        let output = self.ssh(words).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(super) async fn stopped(self) {
        self.stop.cancel();
        drop(self.client);
        let ended = tokio::time::timeout(rig::PATIENCE, self.daemon).await;
        ended.unwrap().unwrap().unwrap();
    }
}

/// What a client says to its end.
pub(super) async fn ended(mut command: Command) -> Output {
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    output.expect("the client ends").unwrap()
}

/// What a client says that reads this.
pub(super) async fn with_input(mut command: Command, input: Vec<u8>) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let write = async move {
        // Who does not read all of it has its reasons.
        let _ = stdin.write_all(&input).await;
    };
    let both = async { futures::join!(write, child.wait_with_output()).1 };
    let output = tokio::time::timeout(PATIENCE, both).await;
    output.expect("the client ends").unwrap()
}

/// The last line of what a client says is wrong.
pub(super) fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// Users, and directories that are the guest's and the host's.
fn guest_files(root: &Path) {
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("tmp")).unwrap();
    fs::create_dir_all(root.join("data")).unwrap();
    let users = "root:x:0:0:root:/root:/bin/sh\nme:x:0:0::/tmp:/bin/sh\napp:x:12345:12345::/nowhere:/bin/sh\n\
                 noshell:x:0:0::/tmp:/missing/sh\n";
    fs::write(root.join("etc/passwd"), users).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\napp:x:12345:\n").unwrap();
}

/// Makes the VM.
async fn create(socket: &Path) {
    let channel = connect(socket).await;
    furnish(&channel).await;
    let mut vms = VmServiceClient::new(channel);
    let answers = vms.create_vm(creation(HOST)).await.unwrap().into_inner();
    drain(answers).await.unwrap();
}

/// Gives the VM a key in its record alone, since its agent takes none for a machine that it does not own.
async fn authorize(database: &Path, key: &str) {
    let store = Store::open(database).await.unwrap();
    let mut vm = store.all_vms().await.unwrap().remove(0);
    vm.generation += 1;
    vm.spec.identity.ssh_authorized_keys = vec![key.to_owned()];
    assert_eq!(store.update_vm(&vm).await.unwrap(), CasOutcome::Updated);
    store.close().await;
}

async fn keygen(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path);
    assert!(ended(command).await.status.success());
}
