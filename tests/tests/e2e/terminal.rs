//! Terminals: real ones on the client's side, real ones in the guest.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use banger_e2e::command::until;
use banger_e2e::{Case, Lane, Verdict};
use portable_pty::{CommandBuilder, PtySize, native_pty_system};

use crate::suite::{LONG, Suite, VM};

pub(crate) fn cases() -> Vec<Case<Suite>> {
    vec![
        Case {
            name: "a_shell_in_a_terminal_has_its_size_and_sees_it_change",
            lane: Lane::Shared,
            test: shell,
        },
        Case {
            name: "detaching_leaves_a_session_running_and_attaching_replays_it",
            lane: Lane::Shared,
            test: detach,
        },
        Case {
            name: "ctrl_c_in_a_terminal_is_the_guests",
            lane: Lane::Shared,
            test: interrupt,
        },
    ]
}

/// `banger` in a terminal of our own.
pub(crate) struct Terminal {
    pair: portable_pty::PtyPair,
    child: Box<dyn portable_pty::Child + Send + Sync>,
    writer: Box<dyn Write + Send>,
    screen: Arc<Mutex<Vec<u8>>>,
}

pub(crate) const fn size(rows: u16, cols: u16) -> PtySize {
    PtySize {
        rows,
        cols,
        pixel_width: 0,
        pixel_height: 0,
    }
}

impl Terminal {
    pub(crate) fn open(suite: &Suite, words: &[&str]) -> Self {
        suite.vm();
        let pair = native_pty_system().openpty(size(24, 80)).unwrap();
        let mut command = CommandBuilder::new(&suite.binaries.banger);
        command.args(words);
        command.env("BANGER_HOST", suite.daemon().host());
        command.env(banger_e2e::scratch::MARK, suite.scratch.mark());
        command.env("TERM", "xterm");
        let child = pair.slave.spawn_command(command).unwrap();
        let writer = pair.master.take_writer().unwrap();
        let mut reader = pair.master.try_clone_reader().unwrap();
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                shared.lock().unwrap().extend_from_slice(&chunk[..count]);
            }
        });
        Self {
            pair,
            child,
            writer,
            screen,
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).unwrap();
        self.writer.flush().unwrap();
    }

    pub(crate) fn see(&self, words: &str) {
        until(
            &format!("`{words}` on the terminal:\n{}", self.text()),
            LONG,
            || self.text().contains(words),
        );
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, size: PtySize) {
        self.pair.master.resize(size).unwrap();
    }

    /// Whether it shows what is typed and makes signals of keys (ISIG and ICANON of termios(3)).
    pub(crate) fn is_cooked(&self) -> bool {
        let modes = self.pair.master.get_termios().unwrap();
        modes.local_flags.bits() & 0b11 == 0b11
    }

    pub(crate) fn end(mut self) -> u32 {
        let mut status = None;
        until("banger ends", LONG, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().exit_code()
    }
}

fn shell(suite: &Suite) -> Verdict {
    let mut terminal = Terminal::open(suite, &["vm", "shell", VM]);
    terminal.type_in("echo size is $(stty size)\n");
    terminal.see("size is 24 80");
    terminal.resize(size(40, 123));
    terminal.type_in(
        "while test \"$(stty size)\" != '40 123'; do sleep 0.1; done; echo now $(stty size)\n",
    );
    terminal.see("now 40 123");
    terminal.type_in("exit 5\n");
    assert_eq!(terminal.end(), 5);
    Verdict::Passed
}

fn detach(suite: &Suite) -> Verdict {
    suite.vm();
    let words = [
        "session",
        "start",
        "--quiet",
        "-t",
        VM,
        "--",
        "sh",
        "-c",
        "echo first; read line; echo second $line",
    ];
    let id = suite.banger(words).ok().out();
    let mut terminal = Terminal::open(suite, &["session", "attach", &id]);
    terminal.see("first");
    terminal.type_in("\u{10}\u{11}");
    assert_eq!(terminal.end(), 0);
    let session = suite
        .banger(["session", "inspect", &id, "--output", "json"])
        .ok()
        .json();
    assert_eq!(session["state"], "running", "{session}");
    let mut terminal = Terminal::open(suite, &["session", "attach", &id]);
    terminal.see("first");
    terminal.type_in("time\n");
    terminal.see("second time");
    assert_eq!(terminal.end(), 0);
    suite.banger(["session", "remove", &id]).ok();
    Verdict::Passed
}

fn interrupt(suite: &Suite) -> Verdict {
    let mut terminal = Terminal::open(
        suite,
        &[
            "vm",
            "exec",
            "-t",
            VM,
            "--",
            "sh",
            "-c",
            "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done",
        ],
    );
    terminal.see("ready");
    terminal.type_in("\u{3}");
    terminal.see("caught");
    assert_eq!(terminal.end(), 9);
    Verdict::Passed
}
