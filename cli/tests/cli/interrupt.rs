//! Signals to the command: what was begun is ended, what was made is removed.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use rustix::process::Signal;

use super::fake::Fake;
use super::*;

fn spawn(fake: &Fake, arguments: &[&str]) -> Child {
    let mut command = banger(fake, arguments);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts a command in a VM and waits until it runs.
fn running(fake: &Fake, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = spawn(fake, arguments);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, stdout)
}

#[test]
fn ctrl_c_while_the_vm_is_made_removes_it() {
    for image in ["slow", "late"] {
        let fake = Fake::start();
        let child = spawn(&fake, &["run", image, "--", "sleep"]);
        wait_until("the call", || {
            fake.state.called(&format!("CreateVm {image}")) > 0
        });
        signal(&child, Signal::INT);
        let run = child.wait_with_output().unwrap();
        assert_eq!(code(&run), 130, "{}", text(&run.stderr));
        assert!(fake.state.called("DeleteVm") > 0, "{image}");
        assert!(fake.state.vms.lock().unwrap().is_empty(), "{image}");
    }
}

#[test]
fn ctrl_c_while_it_runs_is_the_commands_and_the_vm_is_removed() {
    let fake = Fake::start();
    let (mut child, _stdout) = running(&fake, &["run", "debian", "--", "sleep"]);
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(fake.state.vms.lock().unwrap().is_empty());
}

#[test]
fn a_second_ctrl_c_kills_what_ignores_the_first() {
    let fake = Fake::start();
    let (mut child, mut stdout) = running(&fake, &["run", "debian", "--", "sleep", "trap"]);
    signal(&child, Signal::INT);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "signal 2\n");
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(fake.state.vms.lock().unwrap().is_empty());
}

#[test]
fn terminating_banger_removes_the_vm() {
    for (sent, expected) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::QUIT, 131)] {
        let fake = Fake::start();
        let (mut child, _stdout) = running(&fake, &["run", "debian", "--", "sleep"]);
        signal(&child, sent);
        assert_eq!(child.wait().unwrap().code(), Some(expected));
        assert!(fake.state.vms.lock().unwrap().is_empty());
    }
}

#[test]
fn terminating_an_exec_ends_the_process_and_keeps_the_vm() {
    let fake = with_vm();
    let (mut child, mut stdout) = running(&fake, &["vm", "exec", "web", "--", "sleep"]);
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    stdout.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(fake.state.vms.lock().unwrap().len(), 1);
    let session = fake
        .state
        .sessions
        .lock()
        .unwrap()
        .values()
        .next()
        .unwrap()
        .clone();
    wait_until("the kill", || *session.signals.lock().unwrap() == [9]);
}

#[test]
fn ctrl_c_of_one_who_only_looks_on_detaches_and_the_process_hears_nothing() {
    let fake = with_vm();
    let started = output(&fake, &["session", "start", "web", "--", "sleep"]);
    let id = text(&started.stdout).trim().to_owned();
    let (child, _stdout) = running(&fake, &["session", "attach", "--read-only", &id]);
    signal(&child, Signal::INT);
    let attached = child.wait_with_output().unwrap();
    assert_eq!(code(&attached), 0, "{}", text(&attached.stderr));
    let session = fake.state.sessions.lock().unwrap()[&id].clone();
    assert!(session.signals.lock().unwrap().is_empty());
    assert!(session.session.lock().unwrap().exit.is_none());
}
