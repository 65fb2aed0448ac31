//! Debian's `docker-registry` on loopback.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::command::until;
use crate::scratch::{MARK, Scratch};

/// How long it may take to serve.
const START: Duration = Duration::from_secs(20);

/// A registry; dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    log: PathBuf,
    /// `host:port`.
    pub address: String,
}

impl Registry {
    /// Starts one on a free port, open to everybody.
    #[must_use]
    pub fn start(scratch: &Scratch) -> Self {
        Self::serve(scratch, "registry", None)
    }

    /// Starts one on a free port that wants a user to log in: a line of `htpasswd -B`.
    #[must_use]
    pub fn with_login(scratch: &Scratch, name: &str, line: &str) -> Self {
        Self::serve(scratch, name, Some(line))
    }

    fn serve(scratch: &Scratch, name: &str, login: Option<&str>) -> Self {
        let directory = scratch.dir(name);
        let auth = login.map_or_else(String::new, |line| {
            let file = directory.join("htpasswd");
            fs::write(&file, format!("{line}\n")).unwrap();
            format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                file.display()
            )
        });
        // Free a moment ago; the next moment is the only risk.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '{address}'}}\n{auth}",
            directory.join("data").display()
        );
        fs::write(directory.join("config.yml"), config).unwrap();
        let log = directory.join("log");
        let file = File::create(&log).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve".as_ref(), directory.join("config.yml").as_os_str()])
            .env(MARK, scratch.mark())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        until("the registry serves", START, || {
            TcpStream::connect(&address).is_ok()
        });
        Self {
            child,
            log,
            address,
        }
    }

    /// The reference of an image in it.
    #[must_use]
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// How often a blob of a repository was fetched from it so far.
    #[must_use]
    pub fn fetches(&self, name: &str, digest: &str) -> usize {
        let request = format!("\"GET /v2/{name}/blobs/{digest}");
        let log = fs::read_to_string(&self.log).unwrap();
        log.lines().filter(|line| line.contains(&request)).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
