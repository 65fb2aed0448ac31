//! Sockets that a service manager holds: the daemon serves those instead of its own, and they outlive it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use banger_e2e::command::ended;
use banger_e2e::{Case, Daemon, DaemonOptions, Lane, Pki, Run, Verdict};

use crate::suite::{LONG, Suite};

/// What `/proc/PID/fdinfo` says of a descriptor that no program which is started gets (octal, `fcntl.h`).
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "sockets_that_are_handed_over_are_served_to_both_kinds_of_callers_and_outlive_the_daemon",
            lane: Lane::Own,
            test: handed_over,
        },
        Case {
            name: "sockets_that_are_another_programs_are_not_taken",
            lane: Lane::Own,
            test: of_another,
        },
    ]
}

fn handed_over(suite: &Suite) -> Verdict {
    let pki = Pki::make(&suite.scratch, &suite.binaries, "own/activation-pki");
    let ci = pki.client("ci", "user");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let options = DaemonOptions {
        // No address of the daemon's own: certificates are for what it is handed, too.
        config: format!("{}{}", suite.tried(), pki.tls()),
        handed_over: Some(tcp),
        ..DaemonOptions::default()
    };
    let daemon = suite.bare_daemon("own/activation", options);
    let near = || daemon.banger(["vm", "list"]).timeout(LONG);
    let far = || daemon.banger_from_afar(&ci, ["vm", "list"]).timeout(LONG);
    near().ok();
    far().ok();
    assert_eq!(daemon.tcp_address(), address.to_string());
    let may_not = daemon.banger_from_afar(&ci, ["host", "audit", "--output", "json"]);
    assert_eq!(may_not.done().refused(125)["reason"], "ROLE_TOO_LOW");
    daemon.banger(["host", "audit"]).ok();
    for number in [3, 4] {
        assert!(
            is_closed_on_exec(&daemon, number),
            "VMs would hold descriptor {number}"
        );
    }

    daemon.stop();
    // Nobody is there, and nobody is refused.
    UnixStream::connect(daemon.socket()).unwrap();
    TcpStream::connect(address).unwrap();
    let waiting = [near(), far()].map(Run::spawn);
    daemon.start_again();
    for mut waiting in waiting {
        let answered = ended(&mut waiting, LONG).expect("it is answered");
        assert_eq!(answered.code(), Some(0));
    }
    daemon.stop();
    assert!(daemon.socket().exists(), "it is the service manager's");
    Verdict::Passed
}

fn is_closed_on_exec(daemon: &Daemon, number: u32) -> bool {
    let process = Path::new("/proc").join(daemon.pid().as_raw_nonzero().to_string());
    let about = fs::read_to_string(process.join(format!("fdinfo/{number}"))).unwrap();
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
    flags & CLOSE_ON_EXEC != 0
}

/// What a service manager said to a program that started this one.
fn of_another(suite: &Suite) -> Verdict {
    let options = DaemonOptions {
        config: suite.tried(),
        env: [("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        ..DaemonOptions::default()
    };
    let daemon = suite.bare_daemon("own/not-handed", options);
    daemon.banger(["vm", "list"]).ok();
    daemon.stop();
    assert!(!daemon.socket().exists(), "it was the daemon's own");
    Verdict::Passed
}
