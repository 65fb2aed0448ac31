//! From nothing to a client on another host, by the commands alone: an authority, a daemon that serves TCP, a VM that is
//! used by it, and a certificate that is revoked while it is used.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use banger_e2e::command::until;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Pki, Run, Verdict};

use tokio::net::TcpSocket;

use crate::suite::{LONG, Suite};

/// More than a window of HTTP/2 and not a multiple of anything.
const FILE_BYTES: usize = 5_000_001;
/// Connections at once.
const CROWD: u64 = 10_000;
/// Descriptors that the suite needs beside them.
const OTHERS: u64 = 1_000;
/// The most descriptors that the daemon spends on a crowd: more than one address may have, by far less than there are.
const DESCRIPTORS_MAX: usize = 600;
/// What the daemon may have more open afterwards, of its own.
const OWN_DESCRIPTORS: usize = 50;
/// The most memory that it spends on them.
const CROWD_KIB_MAX: i64 = 64 << 10;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "another_host_uses_a_vm_by_its_certificate_until_that_is_revoked",
            lane: Lane::Own,
            test: remote,
        },
        Case {
            name: "ten_thousand_connections_cost_the_daemon_little_and_keep_nobody_out",
            lane: Lane::Own,
            test: crowd,
        },
    ]
}

fn remote(suite: &Suite) -> Verdict {
    let pki = Pki::make(&suite.scratch, &suite.binaries, "own/certificates");
    let ci = pki.client("ci", "user");
    let options = DaemonOptions {
        config: pki.config(),
        ..DaemonOptions::default()
    };
    let daemon = suite.own_daemon("own/remote", options);
    let run = |words: &[&str]| daemon.banger_from_afar(&ci, words).timeout(LONG);
    use_vm(suite, &run, pki.place());
    be_refused(suite, &daemon, &ci, pki.place());

    let mut held = run(&[
        "vm",
        "exec",
        "far",
        "--",
        "sh",
        "-c",
        "touch /on; sleep 600",
    ])
    .spawn();
    until("the command runs", LONG, || {
        let looked = daemon.banger(["vm", "exec", "far", "--", "test", "-e", "/on"]);
        looked.timeout(LONG).done().code() == 0
    });
    pki.cert(&["revoke", "ci"]);
    until("the certificate is refused", LONG, || {
        let tried = run(&["vm", "list", "--output", "json"]).done();
        tried.code() != 0 && tried.err().contains("TLS_CLIENT_REVOKED")
    });
    let ended = banger_e2e::command::ended(&mut held, LONG).expect("the command is cut off");
    assert_ne!(ended.code(), Some(0));
    daemon.clear();
    Verdict::Passed
}

/// What the daemon holds: KiB of memory that are its own, and descriptors.
fn held(daemon: &Daemon) -> (i64, usize) {
    let process = PathBuf::from(format!("/proc/{}", daemon.pid().as_raw_nonzero()));
    let status = fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let memory = line.and_then(|line| line.split_whitespace().nth(1));
    let descriptors = fs::read_dir(process.join("fd")).unwrap().count();
    (memory.unwrap().parse().unwrap(), descriptors)
}

fn crowd(suite: &Suite) -> Verdict {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX).min(CROWD + OTHERS);
    if most < CROWD / 10 + OTHERS {
        return Verdict::Skipped(format!("only {most} files may be open here"));
    }
    let raised = Rlimit {
        current: Some(most.max(limit.current.unwrap_or(u64::MAX))),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let pki = Pki::make(&suite.scratch, &suite.binaries, "own/crowd-pki");
    let ci = pki.client("ci", "viewer");
    let options = DaemonOptions {
        config: format!("{}{}", suite.tried(), pki.config()),
        ..DaemonOptions::default()
    };
    let daemon = suite.bare_daemon("own/crowd", options);
    let (memory, descriptors) = held(&daemon);
    let list = || {
        daemon
            .banger_from_afar(&ci, ["vm", "list"])
            .timeout(LONG)
            .ok();
        daemon.banger(["vm", "list"]).timeout(LONG).ok();
    };
    list();
    let address: SocketAddr = daemon.tcp_address().parse().unwrap();
    let connections = stand_outside(address, most - OTHERS);
    list();
    let (more_memory, more_descriptors) = held(&daemon);
    // Those of one address that may be open, and what the daemon opens by itself.
    assert!(
        more_descriptors < descriptors + DESCRIPTORS_MAX,
        "{descriptors} descriptors, then {more_descriptors}"
    );
    assert!(
        more_memory < memory + CROWD_KIB_MAX,
        "{memory} KiB, then {more_memory} KiB"
    );
    println!(
        "  {} connections: {memory} KiB and {descriptors} descriptors, then {more_memory} KiB and {more_descriptors}",
        connections.len()
    );
    drop(connections);
    until("what they held is free", LONG, || {
        held(&daemon).1 <= descriptors + OWN_DESCRIPTORS
    });
    list();
    daemon.stop();
    Verdict::Passed
}

/// Connections from another address of this host's than clients have, that say nothing.
fn stand_outside(address: SocketAddr, count: u64) -> Vec<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..count {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            let connected = tokio::time::timeout(LONG, socket.connect(address));
            let connection = connected.await.expect("it is taken in time").unwrap();
            connections.push(connection.into_std().unwrap());
        }
        connections
    })
}

/// All that has streams of its own: a creation, a command with input, files both ways.
fn use_vm(suite: &Suite, run: &dyn Fn(&[&str]) -> Run, place: &Path) {
    let reference = suite.reference();
    run(&[
        "vm", "create", &reference, "--name", "far", "--memory", "256M",
    ])
    .ok();
    let shown = run(&["vm", "inspect", "far", "--output", "json"])
        .ok()
        .json();
    assert_eq!(shown["owner"], "cert:ci", "{shown}");
    let said = run(&["vm", "exec", "far", "--", "sh", "-c", "cat; exit 3"])
        .stdin("hello from afar")
        .done();
    assert_eq!((said.code(), said.out().as_str()), (3, "hello from afar"));
    let bytes: Vec<u8> = (0..=250).cycle().take(FILE_BYTES).collect();
    let (up, down) = (place.join("up"), place.join("down"));
    fs::write(&up, &bytes).unwrap();
    run(&["cp", up.to_str().unwrap(), "far:/root/file"]).ok();
    run(&["cp", "far:/root/file", down.to_str().unwrap()]).ok();
    assert!(
        fs::read(&down).unwrap() == bytes,
        "the file came back changed"
    );
}

/// Every mistake says which it is.
fn be_refused(suite: &Suite, daemon: &Daemon, ci: &Path, place: &Path) {
    let other = place.join("other");
    let other_pki = place.join("other-pki");
    let other_pki = other_pki.to_str().unwrap();
    for words in [
        vec!["cert", "init", "--name", "another", "--dir", other_pki],
        vec![
            "cert",
            "issue",
            "eve",
            "--role",
            "admin",
            "--dir",
            other_pki,
            "--out",
            other.to_str().unwrap(),
        ],
    ] {
        suite.scratch.run(&suite.binaries.banger).args(words).ok();
    }
    let ours = ci.join("ca.crt");
    let list = |bundle: &Path| {
        let words = ["vm", "list", "--output", "json"];
        daemon.banger_from_afar(bundle, words).timeout(LONG)
    };
    let at = |host: &str| list(ci).env("BANGER_HOST", host);
    let reason = |run: Run| run.done().refused(125)["reason"].clone();
    assert_eq!(reason(list(&other)), "TLS_SERVER_UNTRUSTED");
    let trusting = list(&other).env("BANGER_CA", &ours);
    assert_eq!(reason(trusting), "TLS_CLIENT_UNTRUSTED");
    let address = daemon.tcp_address();
    let (_, port) = address.split_once(':').unwrap();
    assert_eq!(
        reason(at(&format!("https://localhost:{port}"))),
        "TLS_SERVER_NAME_WRONG"
    );
    assert_eq!(reason(list(Path::new(""))), "HOST_INVALID");
    assert_eq!(reason(list(&ours)), "HOST_INVALID");
    assert_eq!(reason(at("https://127.0.0.1:1")), "DAEMON_UNREACHABLE");
}
