//! The terminal we run in: raw while a guest's is shown in it, and always given back.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr,
    tcgetwinsize, tcsetattr,
};

use crate::failure::Failure;

/// How the terminal was before it was made raw.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether the whole screen was taken.
static SCREEN_TAKEN: AtomicBool = AtomicBool::new(false);
/// The other screen, without a cursor (xterm's control sequences, DECSET 1049 and 25).
const TAKE_SCREEN: &str = "\x1b[?1049h\x1b[?25l";
/// The cursor and the screen that was there before.
const GIVE_SCREEN: &str = "\x1b[?25h\x1b[?1049l";

/// Whether a guest's terminal is shown in ours.
static GUEST_SHOWN: AtomicBool = AtomicBool::new(false);
/// Ends what full-screen programs begin (xterm's control sequences). The cursor is saved first: the end of the other
/// screen, and of the margins, would move it where nothing had been begun.
const END_GUEST: &str = concat!(
    "\x1b7\x1b[?1049l\x1b7\x1b[r\x1b8", // the other screen; margins
    "\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1015l", // the mouse
    "\x1b[?1004l\x1b[?2004l\x1b[>4m",   // focus, bracketed paste, keys with modifiers
    "\x1b[?1l\x1b>\x1b[?7h\x1b[4l",     // arrow keys and keypad; wrapping, inserting
    "\x0f\x1b(B\x1b[m\x1b[?25h",        // characters, colours, the cursor
);

/// A raw terminal; it is as it was before when this is dropped.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    /// Makes the terminal of standard input raw.
    pub(crate) fn enter() -> Result<Self, Failure> {
        Self::change(Termios::make_raw)
    }

    /// The same, and a guest's terminal is shown in it: what that has begun is ended with it.
    pub(crate) fn showing_guest(self) -> Self {
        let is_terminal = rustix::termios::isatty(rustix::stdio::stdout());
        GUEST_SHOWN.store(is_terminal, Ordering::Release);
        self
    }

    /// The guest's program has ended by itself, and with it what it had begun.
    pub(crate) fn guest_ended(self) {
        GUEST_SHOWN.store(false, Ordering::Release);
    }

    /// Makes the terminal of standard input give each key at once and unseen. Ctrl-C stays a signal to us.
    /// `draws`: a guest's terminal is shown in it.
    pub(crate) fn watch_keys(draws: bool) -> Result<Self, Failure> {
        Self::change(|modes| {
            modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN;
            modes.input_modes -= InputModes::IXON;
            modes.special_codes[SpecialCodeIndex::VMIN] = 1;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
            if draws {
                modes.output_modes -= OutputModes::OPOST;
            }
        })
    }

    fn change(make: impl FnOnce(&mut Termios)) -> Result<Self, Failure> {
        let stdin = rustix::stdio::stdin();
        let saved = tcgetattr(stdin).map_err(|error| Failure::Terminal(error.into()))?;
        let mut raw = saved.clone();
        make(&mut raw);
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        let guard = Self(());
        tcsetattr(stdin, OptionalActions::Now, &raw)
            .map_err(|error| Failure::Terminal(error.into()))?;
        Ok(guard)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back, if it was taken.
fn restore() {
    if SCREEN_TAKEN.swap(false, Ordering::AcqRel) {
        // Past the lock of standard output, which whoever panics may hold. A terminal that is gone needs nothing.
        let _ = rustix::io::write(rustix::stdio::stdout(), GIVE_SCREEN.as_bytes());
    }
    if GUEST_SHOWN.swap(false, Ordering::AcqRel) {
        let _ = rustix::io::write(rustix::stdio::stdout(), END_GUEST.as_bytes());
    }
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(saved) = saved {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &saved);
    }
}

/// The whole terminal for one picture, without the lines that were there; all is as it was before when this is
/// dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    _raw: Raw,
}

impl Screen {
    /// Takes the terminal of standard input and output.
    pub(crate) fn enter() -> Result<Self, Failure> {
        let raw = Raw::enter()?;
        SCREEN_TAKEN.store(true, Ordering::Release);
        let screen = Self { _raw: raw };
        screen.show(TAKE_SCREEN)?;
        Ok(screen)
    }

    /// Writes to it.
    pub(crate) fn show(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(Failure::write)
    }
}

/// A panic's message is printed to a terminal that is as it was.
pub(crate) fn restore_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        print(panic);
    }));
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Whether standard input and output are both terminals.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Rows and columns of the terminal; 24 and 80 where there is none.
pub(crate) fn size() -> (u16, u16) {
    let size =
        tcgetwinsize(rustix::stdio::stdout()).or_else(|_| tcgetwinsize(rustix::stdio::stdin()));
    match size {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        _ => (24, 80),
    }
}
