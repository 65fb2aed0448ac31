//! From nothing to a client on another host, by the commands alone: an authority, a daemon that serves TCP, a VM that is
//! used by it, and a certificate that is revoked while it is used.

use std::fs;
use std::path::Path;

use banger_e2e::command::until;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Run, Verdict};

use crate::suite::{LONG, Suite};

/// More than a window of HTTP/2 and not a multiple of anything.
const FILE_BYTES: usize = 5_000_001;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![Case {
        name: "another_host_uses_a_vm_by_its_certificate_until_that_is_revoked",
        lane: Lane::Own,
        test: remote,
    }]
}

/// `banger` as on a host without a daemon.
fn away(daemon: &Daemon, host: &str, bundle: &Path, words: &[&str]) -> Run {
    daemon
        .banger(words)
        .env("BANGER_HOST", host)
        .env("BANGER_CERT", bundle)
        .timeout(LONG)
}

/// Where the daemon serves TCP, by its log.
fn address(daemon: &Daemon) -> String {
    let log = fs::read_to_string(daemon.log_path()).unwrap();
    let (_, after) = log
        .split_once("127.0.0.1:")
        .unwrap_or_else(|| panic!("no address in {log}"));
    let port: String = after.chars().take_while(char::is_ascii_digit).collect();
    format!("127.0.0.1:{port}")
}

fn remote(suite: &Suite) -> Verdict {
    let place = suite.scratch.dir("own/certificates");
    let path = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let banger = |words: &[&str]| {
        suite
            .scratch
            .run(&suite.binaries.banger)
            .args(words)
            .timeout(LONG)
            .ok()
    };
    let (pki, tls, ci) = (path("pki"), path("tls"), path("ci"));
    banger(&["cert", "init", "--dir", &pki]);
    banger(&[
        "cert",
        "issue",
        "--server",
        "127.0.0.1",
        "--out",
        &tls,
        "--dir",
        &pki,
    ]);
    banger(&[
        "cert", "issue", "ci", "--role", "user", "--out", &ci, "--dir", &pki,
    ]);
    let config = format!(
        "[tcp]\nlisten = [\"127.0.0.1:0\"]\ncert_file = \"{tls}/server.crt\"\nkey_file = \"{tls}/server.key\"\nclient_ca_files = [\"{tls}/ca.crt\"]\ncrl_files = [\"{pki}/ca.crl\"]\n"
    );
    let options = DaemonOptions {
        config,
        ..DaemonOptions::default()
    };
    let daemon = suite.own_daemon("own/remote", options);
    let address = address(&daemon);
    let host = format!("https://{address}");
    let ci = Path::new(&ci);
    use_vm(suite, &daemon, &host, ci, &place);
    be_refused(suite, &daemon, &address, ci, &place);

    let mut held = away(
        &daemon,
        &host,
        ci,
        &[
            "vm",
            "exec",
            "far",
            "--",
            "sh",
            "-c",
            "touch /on; sleep 600",
        ],
    )
    .spawn();
    until("the command runs", LONG, || {
        let looked = daemon.banger(["vm", "exec", "far", "--", "test", "-e", "/on"]);
        looked.timeout(LONG).done().code() == 0
    });
    banger(&["cert", "revoke", "ci", "--dir", &pki]);
    until("the certificate is refused", LONG, || {
        let tried = away(&daemon, &host, ci, &["vm", "list", "--output", "json"]).done();
        tried.code() != 0 && tried.err().contains("TLS_CLIENT_REVOKED")
    });
    let ended = banger_e2e::command::ended(&mut held, LONG).expect("the command is cut off");
    assert_ne!(ended.code(), Some(0));
    daemon.clear();
    Verdict::Passed
}

/// All that has streams of its own: a creation, a command with input, files both ways.
fn use_vm(suite: &Suite, daemon: &Daemon, host: &str, ci: &Path, place: &Path) {
    let run = |words: &[&str]| away(daemon, host, ci, words);
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
fn be_refused(suite: &Suite, daemon: &Daemon, address: &str, ci: &Path, place: &Path) {
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
    let host = format!("https://{address}");
    let (_, port) = address.split_once(':').unwrap();
    let ours = ci.join("ca.crt");
    let list =
        |host: &str, bundle: &Path| away(daemon, host, bundle, &["vm", "list", "--output", "json"]);
    let reason = |run: Run| run.done().refused(125)["reason"].clone();
    assert_eq!(reason(list(&host, &other)), "TLS_SERVER_UNTRUSTED");
    let trusting = list(&host, &other).env("BANGER_CA", &ours);
    assert_eq!(reason(trusting), "TLS_CLIENT_UNTRUSTED");
    let by_name = format!("https://localhost:{port}");
    assert_eq!(reason(list(&by_name, ci)), "TLS_SERVER_NAME_WRONG");
    assert_eq!(reason(list(&host, Path::new(""))), "HOST_INVALID");
    assert_eq!(reason(list(&host, &ours)), "HOST_INVALID");
    assert_eq!(
        reason(list("https://127.0.0.1:1", ci)),
        "DAEMON_UNREACHABLE"
    );
}
