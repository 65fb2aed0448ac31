//! Tunnels to sockets in real VMs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use banger_e2e::command::{ended, until};
use banger_e2e::{Case, Lane, Run, Verdict};
use banger_sdk::{Client, TunnelTarget};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::suite::{LONG, Suite, VM, block, refused};

/// Connections at once.
const MANY: usize = 100;
/// What goes through one connection, each way.
const LARGE: usize = 8 << 20;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_page_is_read_through_a_forward_without_any_network",
            lane: Lane::Shared,
            test: page,
        },
        Case {
            name: "half_ends_of_a_tunnel_are_kept_with_every_byte",
            lane: Lane::Shared,
            test: halves,
        },
        Case {
            name: "a_hundred_tunnels_at_once_each_have_their_own_bytes",
            lane: Lane::Shared,
            test: many,
        },
        Case {
            name: "what_goes_through_a_tunnel_is_the_same_on_both_sides",
            lane: Lane::Shared,
            test: large,
        },
        Case {
            name: "a_tunnel_leads_to_a_unix_socket_and_from_standard_input",
            lane: Lane::Shared,
            test: unix,
        },
        Case {
            name: "what_a_tunnel_cannot_reach_is_told_by_reason",
            lane: Lane::Shared,
            test: unreached,
        },
        Case {
            name: "a_forward_outlives_a_restart_of_its_vm_and_ends_with_it",
            lane: Lane::Shared,
            test: restart,
        },
    ]
}

/// A forwarding command, ended when it is dropped.
struct Forward {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Forward {
    fn start(suite: &Suite, words: &[&str]) -> Self {
        let mut child = Command::new(&suite.binaries.banger)
            .args(["vm", "forward", "--output", "json"])
            .args(words)
            .env("BANGER_HOST", suite.daemon().socket())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    /// The port it listens on, as its next line says.
    fn port(&mut self) -> u16 {
        let line = self.line();
        assert_eq!(line["type"], "listening", "{line}");
        u16::try_from(line["port"].as_u64().unwrap()).unwrap()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// All that comes after this was sent and ended.
fn ask(port: u16, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = connect(port);
    stream.write_all(question)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// The program `tests/guest/serve.rs`.
fn server(suite: &Suite) -> &'static [u8] {
    static SERVER: OnceLock<Vec<u8>> = OnceLock::new();
    SERVER.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/serve.rs");
        let program = suite.scratch.path().join("serve");
        let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        Run::new(compiler)
            .args([
                "--edition",
                "2024",
                "-O",
                "-C",
                "target-feature=+crt-static",
            ])
            .args(["-C", "panic=abort", "-C", "strip=symbols", "-o"])
            .args([&program, &source])
            .ok();
        std::fs::read(program).unwrap()
    })
}

/// Starts the server in a VM, and waits until it listens.
fn serve(suite: &Suite, vm: &str, mode: &str, place: &str) -> String {
    let exec = |script: &str| suite.banger(["vm", "exec", vm, "--", "sh", "-c", script]);
    exec(
        "test -x /tmp/serve || { cat > /tmp/new && chmod +x /tmp/new && mv /tmp/new /tmp/serve; }",
    )
    .stdin(server(suite))
    .ok();
    let words = [
        "session",
        "start",
        "--quiet",
        vm,
        "--",
        "/tmp/serve",
        mode,
        place,
    ];
    let session = suite.banger(words).ok().out();
    let listens = match place.parse() {
        Ok(port) => listens(port),
        Err(_) => format!("test -S {place}"),
    };
    until("the server listens", LONG, || {
        exec(&listens).done().code() == 0
    });
    session
}

/// A shell's test whether somebody listens on this TCP port.
fn listens(port: u16) -> String {
    format!("grep -q ':{port:04X} 00000000:0000 0A' /proc/net/tcp /proc/net/tcp6")
}

fn client(suite: &Suite) -> impl Future<Output = Client> {
    let host = banger_sdk::Host::socket(suite.daemon().socket());
    async move { Client::connect(host).await.unwrap() }
}

fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

fn page(suite: &Suite) -> Verdict {
    let reference = suite.reference();
    suite.vm();
    let create = ["vm", "create", &reference, "--name", "offline"];
    let rest = ["--memory", "256M", "--network", "none"];
    suite.banger(create.into_iter().chain(rest)).ok();
    let script = "mkdir -p /tmp/www && echo through > /tmp/www/index.html && \
                  exec busybox httpd -f -p 127.0.0.1:8080 -h /tmp/www";
    suite
        .banger([
            "session", "start", "-q", "offline", "--", "sh", "-c", script,
        ])
        .ok();
    until("the web server listens", LONG, || {
        let words = ["vm", "exec", "offline", "--", "sh", "-c", &listens(8080)];
        suite.banger(words).done().code() == 0
    });
    let mut forward = Forward::start(suite, &["offline", "0:8080"]);
    let port = forward.port();
    let answer = ask(port, b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"),
        "{answer}"
    );
    assert!(answer.ends_with("through\n"), "{answer}");
    drop(forward);
    suite.banger(["vm", "remove", "offline"]).ok();
    Verdict::Passed
}

fn halves(suite: &Suite) -> Verdict {
    suite.vm();
    // The guest ends first, and goes on reading.
    let session = serve(suite, VM, "first", "8101");
    let mut forward = Forward::start(suite, &[VM, "0:8101"]);
    let mut stream = connect(forward.port());
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    assert_eq!(said, b"before\n");
    let sent = bytes(300_000, 1);
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    until("the guest has heard the end", LONG, || {
        suite.sh("test -e /tmp/heard").done().code() == 0
    });
    let sum = suite.sh("sha256sum < /tmp/heard").ok().out();
    assert_eq!(sum.split(' ').next().unwrap(), hex(&sent));
    suite.banger(["session", "remove", &session]).ok();
    // We end first, and the guest goes on writing.
    let session = serve(suite, VM, "echo", "8102");
    let mut forward = Forward::start(suite, &[VM, "0:8102"]);
    let answer = ask(forward.port(), &sent).unwrap();
    assert!(answer == sent);
    suite.banger(["session", "remove", &session]).ok();
    Verdict::Passed
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn many(suite: &Suite) -> Verdict {
    suite.vm();
    let session = serve(suite, VM, "echo", "8103");
    let client = client(suite);
    block(async {
        let client = client.await;
        // All are open before the first ends.
        let all_open = std::sync::Arc::new(tokio::sync::Barrier::new(MANY));
        let mut tasks = JoinSet::new();
        for index in 0..MANY {
            let (tunnels, all_open) = (client.tunnels(), all_open.clone());
            tasks.spawn(async move {
                let mut tunnel = tunnels.open(VM, TunnelTarget::port(8103)).await.unwrap();
                all_open.wait().await;
                let sent = bytes(10_000, index as u64);
                tunnel.write_all(&sent).await.unwrap();
                tunnel.shutdown().await.unwrap();
                let mut received = Vec::new();
                tunnel.read_to_end(&mut received).await.unwrap();
                assert!(received == sent, "tunnel {index}");
            });
        }
        tasks.join_all().await;
    });
    suite.banger(["session", "remove", &session]).ok();
    Verdict::Passed
}

fn large(suite: &Suite) -> Verdict {
    suite.vm();
    let session = serve(suite, VM, "echo", "8104");
    let mut forward = Forward::start(suite, &[VM, "0:8104"]);
    let mut writer = connect(forward.port());
    let mut reader = writer.try_clone().unwrap();
    let sent = bytes(LARGE, 2);
    let expected = hex(&sent);
    let writing = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    reader.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert_eq!((received.len(), hex(&received)), (LARGE, expected));
    suite.banger(["session", "remove", &session]).ok();
    Verdict::Passed
}

fn unix(suite: &Suite) -> Verdict {
    suite.vm();
    let path = "/tmp/echo.sock";
    let session = serve(suite, VM, "echo", path);
    let rule = format!("-:{path}");
    let sent = bytes(200_000, 3);
    let done = suite
        .banger(["vm", "forward", VM, &rule])
        .stdin(sent.clone())
        .ok();
    assert!(done.stdout == sent);
    suite.banger(["session", "remove", &session]).ok();
    Verdict::Passed
}

fn unreached(suite: &Suite) -> Verdict {
    suite.vm();
    let forward = |rule: &str| -> Run { suite.banger(["vm", "forward", VM, rule]) };
    refused(forward("-:9"), 125, "TUNNEL_REFUSED");
    refused(
        forward("-:/run/nothing.sock"),
        125,
        "TUNNEL_SOCKET_NOT_FOUND",
    );
    refused(forward("-:/etc/passwd"), 125, "TUNNEL_REFUSED");
    let mut forward = Forward::start(suite, &[VM, "0:9"]);
    let error = connect(forward.port()).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let line = forward.line();
    assert_eq!(line["reason"], "TUNNEL_REFUSED", "{line}");
    Verdict::Passed
}

fn restart(suite: &Suite) -> Verdict {
    let reference = suite.reference();
    suite.vm();
    let create = ["vm", "create", &reference, "--name", "again"];
    let rest = ["--memory", "256M", "--network", "none"];
    suite.banger(create.into_iter().chain(rest)).ok();
    serve(suite, "again", "echo", "8105");
    let mut forward = Forward::start(suite, &["again", "0:8105"]);
    let port = forward.port();
    let mut open = connect(port);
    open.write_all(b"x").unwrap();
    open.read_exact(&mut [0]).unwrap();
    suite.banger(["vm", "kill", "again"]).ok();
    let error = open.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    suite.banger(["vm", "start", "again"]).ok();
    serve(suite, "again", "echo", "8105");
    assert_eq!(ask(port, b"again").unwrap(), b"again");
    suite.banger(["vm", "remove", "again"]).ok();
    let ended = ended(&mut forward.child, LONG).and_then(|status| status.code());
    assert_eq!(ended, Some(125));
    let mut told = Vec::new();
    while let Ok(line) = serde_json::from_str::<Value>(&{
        let mut line = String::new();
        forward.lines.read_line(&mut line).unwrap();
        line
    }) {
        told.push(line);
    }
    let states: Vec<&str> = told
        .iter()
        .filter_map(|line| line["state"].as_str())
        .collect();
    assert!(states.contains(&"running") && states.len() >= 2, "{told:?}");
    let is_told = told.iter().any(|line| line["reason"] == "TUNNEL_VM_GONE");
    assert!(is_told, "{told:?}");
    Verdict::Passed
}
