//! Forwarding: what is printed, what connections carry, and what ends it.

use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{ChildStdout, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use super::fake::Fake;
use super::*;

/// A forwarding command that prints JSON.
struct Forwarding {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Forwarding {
    fn start(fake: &Fake, rules: &[&str]) -> Self {
        let words = [&["vm", "forward", "web"], rules, &["--output", "json"]].concat();
        let mut command = banger(fake, &words);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
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

    /// Where it listens, as its next line says.
    fn connect(&mut self) -> TcpStream {
        let line = self.line();
        assert_eq!(line["type"], "listening", "{line}");
        let port = u16::try_from(line["port"].as_u64().unwrap()).unwrap();
        let stream = TcpStream::connect((line["address"].as_str().unwrap(), port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// The exit code after a signal, and the last line of standard error.
    fn end(mut self, sent: Option<Signal>) -> (i32, String) {
        if let Some(sent) = sent {
            signal(&self.child, sent);
        }
        let mut errors = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut errors).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        (code, errors.lines().last().unwrap_or_default().to_owned())
    }
}

#[test]
fn a_connection_is_carried_both_ways_and_keeps_its_half_ends() {
    let fake = with_vm();
    let mut forwarding = Forwarding::start(&fake, &["0:7"]);
    let mut stream = forwarding.connect();
    let sent: Vec<u8> = (0..1 << 20)
        .map(|index: u32| index.to_le_bytes()[1])
        .collect();
    let mut reader = stream.try_clone().unwrap();
    let received = std::thread::spawn(move || {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        received
    });
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(received.join().unwrap() == sent);
    assert_eq!(forwarding.end(Some(Signal::INT)), (130, String::new()));
}

#[test]
fn several_are_forwarded_side_by_side_and_people_are_told_where() {
    let fake = with_vm();
    let mut command = banger(
        &fake,
        &["vm", "forward", "web", "0:7", "localhost:0:10.0.2.15:80"],
    );
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for target in ["localhost:7", "10.0.2.15:80"] {
        let line = lines.next().unwrap().unwrap();
        let (address, told) = line.split_once(" -> ").unwrap();
        assert!(address.starts_with("127.0.0.1:"), "{line}");
        assert_eq!(told, target);
    }
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn a_connection_that_nobody_accepts_is_reset_and_told() {
    let fake = with_vm();
    let mut forwarding = Forwarding::start(&fake, &["0:9"]);
    let mut stream = forwarding.connect();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let line = forwarding.line();
    assert_eq!(
        (&line["type"], &line["reason"]),
        (&"failed".into(), &"TUNNEL_REFUSED".into())
    );
    assert_eq!(line["peer"], stream.local_addr().unwrap().to_string());
    forwarding.end(Some(Signal::INT));
}

#[test]
fn a_reset_in_the_vm_is_a_reset_here() {
    let fake = with_vm();
    let mut forwarding = Forwarding::start(&fake, &["0:13"]);
    let mut stream = forwarding.connect();
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    forwarding.end(Some(Signal::INT));
}

#[test]
fn a_reset_here_is_a_reset_in_the_vm() {
    let fake = with_vm();
    let mut forwarding = Forwarding::start(&fake, &["0:7"]);
    let mut stream = forwarding.connect();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    wait_until("the reset", || fake.state.called("Forward reset") == 1);
    assert_eq!(fake.state.called("Forward end"), 0);
    forwarding.end(Some(Signal::INT));
}

#[test]
fn standard_input_and_output_carry_one_connection() {
    let fake = with_vm();
    let input: Vec<u8> = (0..1 << 20)
        .map(|index: u32| index.to_le_bytes()[1])
        .collect();
    let done = output_with_stdin(&fake, &["vm", "forward", "web", "-:7"], &input);
    assert_eq!(code(&done), 0, "{}", text(&done.stderr));
    assert!(done.stdout == input);
    let refused = output_with_stdin(&fake, &["vm", "forward", "web", "-:9"], b"");
    assert_eq!(code(&refused), 125);
    assert!(text(&refused.stderr).contains("nobody listens"));
    let reset = output_with_stdin(&fake, &["vm", "forward", "web", "-:13"], b"");
    assert_eq!((code(&reset), text(&reset.stdout)), (125, "hi"));
    let reset = output_with_stdin(&fake, &["vm", "forward", "web", "-:14"], b"x");
    assert_eq!((code(&reset), text(&reset.stdout)), (125, ""));
}

#[test]
fn the_end_of_the_vm_is_told_and_ends_it() {
    let fake = with_vm();
    let mut forwarding = Forwarding::start(&fake, &["0:7"]);
    drop(forwarding.connect());
    assert_eq!(code(&output(&fake, &["vm", "stop", "web"])), 0);
    let line = forwarding.line();
    assert_eq!(
        (&line["type"], &line["name"]),
        (&"vm".into(), &"web".into())
    );
    assert_ne!(line["state"], "running");
    assert_eq!(code(&output(&fake, &["vm", "remove", "web"])), 0);
    let (code, error) = forwarding.end(None);
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!((code, &error["reason"]), (125, &"VM_REMOVED".into()));
}

#[test]
fn what_cannot_be_forwarded_is_refused_before_anything_listens() {
    let fake = with_vm();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let taken_rule = format!("{port}:80");
    for (words, reason) in [
        (vec!["web", taken_rule.as_str()], "NOT_LISTENING"),
        (vec!["nobody", "0:80"], "VM_NOT_FOUND"),
    ] {
        let words = [&["vm", "forward"], words.as_slice(), &["--output", "json"]].concat();
        let refused = output(&fake, &words);
        assert_eq!(
            (code(&refused), text(&refused.stdout)),
            (125, ""),
            "{words:?}"
        );
        let error: Value = serde_json::from_slice(&refused.stderr).unwrap();
        assert_eq!(error["reason"], reason, "{words:?}");
    }
    for words in [&["0:80", "-:80"][..], &["-:80", "0:80"], &[]] {
        let words = [&["vm", "forward", "web"], words].concat();
        assert_eq!(code(&output(&fake, &words)), 125, "{words:?}");
    }
    let wrong = output(&fake, &["vm", "forward", "web", "x:80"]);
    assert_eq!(code(&wrong), 125);
    assert!(
        text(&wrong.stderr).contains("8080:80"),
        "{}",
        text(&wrong.stderr)
    );
}
