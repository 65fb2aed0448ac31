//! What a session's terminal shows, kept so that who attaches sees it at once.
//!
//! The program is hostile: its terminal may be of any size, and what it writes anything. The picture has a bound of its
//! own, all of them together have another, and a terminal beyond either has no picture.

use std::num::NonZeroU16;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use rustix::termios::Winsize;
use vt100::Parser;

/// Characters of one picture.
pub const CELLS_MAX: usize = 1 << 15;
/// Characters of all pictures: of 64 bytes each, with the other screen that programs switch to.
pub const ALL_CELLS_MAX: usize = 1 << 18;
/// The longest text that draws a picture. One whose every character has colours of its own may need more, and is not
/// drawn.
const DRAWN_MAX_BYTES: usize = 512 << 10;
/// Switches to the other screen, which full-screen programs use (xterm's control sequences, DECSET 1049).
const OTHER_SCREEN: &str = "\x1b[?1049h";

/// Characters of the pictures of all sessions.
#[derive(Debug, Default)]
pub struct Cells(AtomicUsize);

impl Cells {
    fn take(&self, count: usize) -> bool {
        let taken = |all: usize| all.checked_add(count).filter(|&all| all <= ALL_CELLS_MAX);
        let order = Ordering::Relaxed;
        self.0.fetch_update(order, order, taken).is_ok()
    }

    fn give_back(&self, count: usize) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }
}

/// The picture of one terminal.
pub struct Screen {
    cells: Arc<Cells>,
    /// What it takes of them.
    count: usize,
    parser: Option<Parser>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

fn area(size: Winsize) -> Option<(NonZeroU16, NonZeroU16, usize)> {
    let (rows, columns) = (NonZeroU16::new(size.ws_row)?, NonZeroU16::new(size.ws_col)?);
    let count = usize::from(size.ws_row) * usize::from(size.ws_col);
    (count <= CELLS_MAX).then_some((rows, columns, count))
}

impl Screen {
    /// The empty picture of a terminal of this size.
    #[must_use]
    pub fn new(size: Winsize, cells: Arc<Cells>) -> Self {
        let fits = area(size).filter(|(.., count)| cells.take(*count));
        Self {
            cells,
            count: fits.map_or(0, |(.., count)| count),
            parser: fits.map(|(rows, columns, _)| Parser::new(rows, columns, 0)),
        }
    }

    /// The program wrote this.
    pub fn write(&mut self, data: &[u8]) {
        self.change(|parser| parser.process(data));
    }

    /// The terminal has another size.
    pub fn resize(&mut self, size: Winsize) {
        if self.parser.is_none() {
            return;
        }
        let fits = area(size).filter(|(.., count)| {
            let more = count.saturating_sub(self.count);
            more == 0 || self.cells.take(more)
        });
        let Some((rows, columns, count)) = fits else {
            return self.give_up();
        };
        self.cells.give_back(self.count.saturating_sub(count));
        self.count = count;
        self.change(|parser| parser.set_size(rows, columns));
    }

    /// What makes a cleared terminal show the same; nothing where it is not known.
    #[must_use]
    pub fn draw(&self) -> Bytes {
        let Some(parser) = &self.parser else {
            return Bytes::new();
        };
        let screen = parser.screen();
        let other = if screen.alternate_screen() {
            OTHER_SCREEN
        } else {
            ""
        };
        let drawn = catch_unwind(AssertUnwindSafe(|| screen.state_formatted()));
        let drawn = drawn.map(|drawn| Bytes::from(format!("{other}{drawn}")));
        let drawn = drawn.ok().filter(|drawn| drawn.len() <= DRAWN_MAX_BYTES);
        drawn.unwrap_or_default()
    }

    /// A picture that what was written breaks is given up: the session goes on.
    fn change(&mut self, change: impl FnOnce(&mut Parser)) {
        let Some(parser) = &mut self.parser else {
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| change(parser))).is_err() {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.parser = None;
        self.cells.give_back(std::mem::take(&mut self.count));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.cells.give_back(self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(rows: u16, columns: u16) -> Winsize {
        Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }
    }

    /// What another terminal shows once it was drawn.
    fn shown(screen: &Screen) -> (String, bool) {
        let (rows, columns) = (NonZeroU16::new(4).unwrap(), NonZeroU16::new(20).unwrap());
        let mut other = Parser::new(rows, columns, 0);
        other.process(&screen.draw());
        let screen = other.screen();
        (screen.contents(), screen.alternate_screen())
    }

    #[test]
    fn a_full_screen_program_is_drawn_as_it_is() {
        let mut screen = Screen::new(size(4, 20), Arc::default());
        screen.write(b"$ edit\r\n\x1b[?1049h\x1b[2J\x1b[1;1Hline one\x1b[2;1Hli");
        // In two pieces, the second of which begins within a sequence.
        screen.write(b"ne two\x1b[4;");
        screen.write(b"1H-- INSERT --");
        assert_eq!(
            shown(&screen),
            ("line one\nline two\n\n-- INSERT --".into(), true)
        );
    }

    #[test]
    fn a_size_beyond_the_bounds_has_no_picture_and_costs_nothing() {
        let cells = Arc::<Cells>::default();
        let huge = Screen::new(size(65535, 65535), Arc::clone(&cells));
        assert!(huge.draw().is_empty());
        let mut grown = Screen::new(size(4, 20), Arc::clone(&cells));
        assert_eq!(cells.0.load(Ordering::Relaxed), 80);
        grown.resize(size(10, 20));
        assert_eq!(cells.0.load(Ordering::Relaxed), 200);
        grown.resize(size(65535, 65535));
        assert!(grown.draw().is_empty());
        assert_eq!(cells.0.load(Ordering::Relaxed), 0);
        let side = 128;
        let all: Vec<_> = (0..100)
            .map(|_| Screen::new(size(side, side), Arc::clone(&cells)))
            .collect();
        assert!(cells.0.load(Ordering::Relaxed) <= ALL_CELLS_MAX);
        drop(all);
        assert_eq!(cells.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn whatever_is_written_the_picture_stays_bounded() {
        let mut screen = Screen::new(size(4, 20), Arc::default());
        let mut state = 1_u64;
        for _ in 0..2000 {
            let piece: Vec<u8> = (0..64)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let byte = state.to_be_bytes()[0];
                    // Many beginnings of sequences, and numbers in them.
                    if byte < 60 {
                        b"\x1b[]P;0123456789mHJKhlr?"[usize::from(byte % 23)]
                    } else {
                        byte
                    }
                })
                .collect();
            screen.write(&piece);
            screen.resize(size(1 + u16::from(piece[0] % 40), 1 + u16::from(piece[1])));
        }
        screen.write(b"\x1b]0;");
        screen.write(&vec![b'x'; 1 << 20]);
        assert!(screen.draw().len() <= DRAWN_MAX_BYTES);
    }
}
