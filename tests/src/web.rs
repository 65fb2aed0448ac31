//! A plain web server, as anybody would serve files with: busybox's, which knows ranges and entity tags.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::command::until;
use crate::scratch::{MARK, Scratch};

/// How long it may take to serve.
const START: Duration = Duration::from_secs(20);

/// A web server; dropping it ends it.
#[derive(Debug)]
pub struct WebServer {
    child: Child,
    /// What it serves is below this.
    pub url: String,
}

impl WebServer {
    /// Serves a directory on a free port of the loopback.
    #[must_use]
    pub fn serve(scratch: &Scratch, directory: &Path) -> Self {
        // Free a moment ago; the next moment is the only risk.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new("busybox")
            .args(["httpd", "-f", "-p", &address, "-h"])
            .arg(directory)
            .env(MARK, scratch.mark())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the web server serves", START, || {
            TcpStream::connect(&address).is_ok()
        });
        Self {
            child,
            url: format!("http://{address}/"),
        }
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
