//! The command in a real terminal: raw mode, size, detaching, and the terminal given back.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use super::fake::Fake;
use super::*;

pub(super) struct Terminal {
    pub(super) master: Box<dyn MasterPty + Send>,
    writer: Box<dyn Write + Send>,
    pub(super) child: Box<dyn Child + Send + Sync>,
    shown: Arc<Mutex<Vec<u8>>>,
}

/// ISIG and ICANON of Linux (termios(3)).
const LINES_AND_SIGNALS: u32 = 0b11;
/// The ends of the other screen, reports of the mouse and bracketed paste, and a cursor.
const ENDED: [&str; 4] = ["\x1b[?1049l", "\x1b[?1000l", "\x1b[?2004l", "\x1b[?25h"];
pub(super) const SIZE: PtySize = PtySize {
    rows: 30,
    cols: 100,
    pixel_width: 0,
    pixel_height: 0,
};

impl Terminal {
    pub(super) fn start(fake: &Fake, arguments: &[&str]) -> Self {
        let pair = native_pty_system().openpty(SIZE).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_banger"));
        command.args(arguments);
        command.env("BANGER_HOST", fake.socket());
        command.env("TERM", "xterm");
        let child = pair.slave.spawn_command(command).unwrap();
        let (master, shown) = (pair.master, Arc::new(Mutex::new(Vec::new())));
        let (mut reader, seen) = (master.try_clone_reader().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                seen.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        let writer = master.take_writer().unwrap();
        Self {
            master,
            writer,
            child,
            shown,
        }
    }

    pub(super) fn wait_for(&self, wanted: &str) {
        wait_until(wanted, || {
            String::from_utf8_lossy(&self.shown.lock().unwrap()).contains(wanted)
        });
    }

    pub(super) fn type_keys(&mut self, keys: &[u8]) {
        self.writer.write_all(keys).unwrap();
        self.writer.flush().unwrap();
    }

    /// Whether the terminal shows what is typed and makes signals of keys.
    pub(super) fn is_cooked(&self) -> bool {
        let modes = self.master.get_termios().unwrap();
        modes.local_flags.bits() & LINES_AND_SIGNALS == LINES_AND_SIGNALS
    }

    pub(super) fn end(&mut self) -> u32 {
        self.child.wait().unwrap().exit_code()
    }
}

#[test]
fn a_terminal_is_found_out_raw_sized_and_given_back() {
    let fake = with_vm();
    let mut terminal = Terminal::start(&fake, &["vm", "exec", "web", "--", "terminal"]);
    terminal.wait_for("size 30 100");
    assert!(!terminal.is_cooked());
    let size = PtySize {
        rows: 40,
        cols: 120,
        ..SIZE
    };
    terminal.master.resize(size).unwrap();
    terminal.wait_for("size 40 120");
    terminal.type_keys(b"\x03\x1a"); // Ctrl-C and Ctrl-Z are the guest's
    terminal.wait_for("\x03\x1a");
    terminal.type_keys(b"q");
    assert_eq!(terminal.end(), 0);
    assert!(terminal.is_cooked());
    let shown = terminal.shown.lock().unwrap().clone();
    assert!(!String::from_utf8_lossy(&shown).contains("\x1b[?1049l"));
    let session = fake
        .state
        .sessions
        .lock()
        .unwrap()
        .values()
        .next()
        .unwrap()
        .clone();
    let spec = session.session.lock().unwrap().spec.clone().unwrap();
    assert_eq!(spec.env["TERM"], "xterm");
}

#[test]
fn explicit_options_win_over_what_is_found_out() {
    let fake = with_vm();
    let mut terminal = Terminal::start(&fake, &["vm", "exec", "-T", "web", "--", "terminal"]);
    terminal.wait_for("no terminal");
    assert_eq!(terminal.end(), 0);
    let asked = output(&fake, &["vm", "exec", "-t", "web", "--", "exit", "0"]);
    assert_eq!(code(&asked), 0);
    let asked = output_with_stdin(&fake, &["vm", "exec", "-t", "web", "--", "terminal"], b"q");
    assert!(text(&asked.stdout).starts_with("size 24 80\r\n"));
}

#[test]
fn the_detach_keys_leave_the_session_running() {
    let fake = with_vm();
    let started = output(
        &fake,
        &["session", "start", "-t", "-i", "web", "--", "terminal"],
    );
    let id = text(&started.stdout).trim().to_owned();
    let mut terminal = Terminal::start(&fake, &["session", "attach", &id]);
    terminal.wait_for("size 30 100");
    terminal.type_keys(b"hello\x10\x11");
    terminal.wait_for("detached");
    for mode in ENDED {
        terminal.wait_for(mode);
    }
    assert_eq!(terminal.end(), 0);
    assert!(terminal.is_cooked());
    let session = fake.state.sessions.lock().unwrap()[&id].clone();
    assert!(session.session.lock().unwrap().exit.is_none());
    assert_eq!(*session.input.lock().unwrap(), b"hello");

    let mut again = Terminal::start(&fake, &["session", "attach", &id]);
    again.wait_for("hello");
    again.type_keys(b"q");
    assert_eq!(again.end(), 0);
}

#[test]
fn one_who_only_looks_on_detaches_by_the_keys_and_sends_nothing() {
    for ending in [&b"\x10\x11"[..], b"\x03"] {
        let fake = with_vm();
        let started = output(
            &fake,
            &["session", "start", "-t", "-i", "web", "--", "terminal"],
        );
        let id = text(&started.stdout).trim().to_owned();
        let mut terminal = Terminal::start(
            &fake,
            &["session", "attach", "--read-only", "--offset", "0", &id],
        );
        terminal.wait_for("size 24 80");
        terminal.type_keys(b"hello");
        terminal.type_keys(ending);
        terminal.wait_for("detached");
        assert_eq!(terminal.end(), 0);
        assert!(terminal.is_cooked());
        let session = fake.state.sessions.lock().unwrap()[&id].clone();
        assert!(session.session.lock().unwrap().exit.is_none());
        assert!(session.input.lock().unwrap().is_empty());
        assert!(session.signals.lock().unwrap().is_empty());
    }
}

#[test]
fn a_terminated_command_gives_the_terminal_back_and_removes_the_vm() {
    let fake = Fake::start();
    let mut terminal = Terminal::start(&fake, &["run", "debian", "--", "terminal"]);
    terminal.wait_for("size 30 100");
    let pid = terminal.child.process_id().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(terminal.end(), 143);
    assert!(terminal.is_cooked());
    for mode in ENDED {
        terminal.wait_for(mode);
    }
    assert!(fake.state.vms.lock().unwrap().is_empty());
}

#[test]
fn a_diagnosis_is_coloured_on_a_terminal() {
    let fake = Fake::start();
    let mut terminal = Terminal::start(&fake, &["doctor"]);
    terminal.wait_for("\x1b[1;31mPROBLEM\x1b[0m");
    terminal.wait_for("\x1b[33mwarning\x1b[0m");
    assert_eq!(terminal.end(), 1);
}
