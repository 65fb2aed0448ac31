//! The built command against a daemon without VMs: what people see and what scripts rely on.
#![allow(clippy::unwrap_used, clippy::too_many_lines)]

#[path = "../../../sdk-rust/tests/sdk/fake/mod.rs"]
mod fake;

mod cert;
mod doctor;
mod forward;
mod help;
mod interrupt;
mod kernel_build;
mod observe;
mod read;
mod run;
mod session;
mod ssh;
mod terminal;

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fake::Fake;

/// How long a test waits for what must happen.
const LIMIT: Duration = Duration::from_secs(20);

/// The command, aimed at `fake`, with nothing of this environment that changes it.
fn banger(fake: &Fake, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_banger"));
    command
        .args(arguments)
        .env("BANGER_HOST", fake.socket())
        .env_remove("TERM");
    command.env_remove("COLUMNS").stdin(Stdio::null());
    command
}

/// Runs it to its end.
fn output(fake: &Fake, arguments: &[&str]) -> Output {
    banger(fake, arguments).output().unwrap()
}

/// Runs it to its end with this standard input.
fn output_with_stdin(fake: &Fake, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = banger(fake, arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // The command may end without reading all of it.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// A VM called `web` to run things in.
fn with_vm() -> Fake {
    let fake = Fake::start();
    let made = output(&fake, &["vm", "create", "debian", "--name", "web", "-q"]);
    assert_eq!(text(&made.stdout), "web\n");
    fake
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Waits until `reached`, which is a state and not a moment.
fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < LIMIT, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a child.
fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}
