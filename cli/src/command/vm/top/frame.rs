//! What the live table shows: lines that fit on the screen.

use std::time::Duration;

use banger_sdk::Round;

use super::{CTRL_C, Pressed, Sort};
use crate::output::{Row, format_table};
use crate::view::VmStats;

/// The keys, for the last line.
const KEYS: &str = "c cpu  m memory  d disk  i I/O  n name  q quit";
/// Reverse video, and back.
const REVERSE: (&str, &str) = ("\x1b[7m", "\x1b[0m");
/// To the top left; the rest of a line; the rest of the screen.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The table and how it is sorted.
#[derive(Debug)]
pub(super) struct Frame {
    sort: Sort,
    interval: Duration,
    /// None before the first measurement.
    rows: Option<Vec<VmStats>>,
}

impl Frame {
    pub(super) const fn new(sort: Sort, interval: Duration) -> Self {
        Self {
            sort,
            interval,
            rows: None,
        }
    }

    /// A new measurement.
    pub(super) fn set(&mut self, round: Round) {
        self.rows = Some(self.sort.rows(round));
    }

    /// Keys were pressed; none means that the terminal is gone.
    pub(super) fn press(&mut self, keys: &[u8]) -> Pressed {
        if keys.is_empty() || keys.iter().any(|key| matches!(*key, b'q' | CTRL_C)) {
            return Pressed::Quit;
        }
        if let Some(sort) = keys.iter().rev().find_map(|key| Sort::of_key(*key)) {
            self.sort = sort;
            if let Some(rows) = &mut self.rows {
                sort.sort(rows);
            }
        }
        Pressed::Other
    }

    /// What is written to a screen of so many rows and columns.
    pub(super) fn draw(&self, (rows, columns): (u16, u16)) -> String {
        let (rows, columns) = (usize::from(rows), usize::from(columns));
        let mut lines = vec![cut(&self.status(), columns)];
        let table = self.table();
        let mut table = table.lines().map(|line| cut(line, columns));
        if let Some(headings) = table.next() {
            lines.push(format!("{}{headings:columns$}{}", REVERSE.0, REVERSE.1));
        }
        // The last line is the keys'.
        let room = rows.saturating_sub(lines.len() + 1);
        let all: Vec<String> = table.collect();
        if all.len() > room {
            let shown = room.saturating_sub(1);
            lines.extend(all.iter().take(shown).cloned());
            lines.push(cut(&format!("… and {} more", all.len() - shown), columns));
        } else {
            lines.extend(all);
        }
        lines.push(cut(KEYS, columns));
        lines.truncate(rows);
        // A newline after the last row would scroll.
        let text = lines.join(&format!("{CLEAR_LINE}\r\n"));
        format!("{HOME}{text}{CLEAR_LINE}{CLEAR_BELOW}")
    }

    fn status(&self) -> String {
        let Some(rows) = &self.rows else {
            return "banger: measuring …".to_owned();
        };
        let running = rows.iter().filter(|row| row.is_running()).count();
        format!(
            "banger: {} VMs, {running} running; every {:?}; sorted by {}",
            rows.len(),
            self.interval,
            self.sort.word()
        )
    }

    fn table(&self) -> String {
        match &self.rows {
            Some(rows) => format_table(VmStats::HEADINGS, rows.iter().map(Row::cells)),
            None => String::new(),
        }
    }
}

/// So much of a line as fits, without spaces at its end. Names are ASCII: a character is a column.
fn cut(line: &str, columns: usize) -> String {
    let line: String = line.chars().take(columns).collect();
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use banger_sdk::types;

    use super::*;

    fn stats(name: &str, cpu_percent: f64, rss_bytes: i64) -> types::VmStats {
        let host = types::HostStats {
            cpu_percent: Some(cpu_percent),
            rss_bytes,
            ..types::HostStats::default()
        };
        types::VmStats {
            name: name.into(),
            state: types::vm::State::Running.into(),
            host: Some(host),
            ..types::VmStats::default()
        }
    }

    fn frame() -> Frame {
        let mut frame = Frame::new(Sort::Cpu, Duration::from_secs(1));
        frame.set(vec![
            stats("b", 1.0, 300),
            stats("a", 1.0, 100),
            stats("c", 90.0, 200),
        ]);
        frame
    }

    /// The lines of the screen, without what moves and colours.
    fn lines(frame: &Frame, size: (u16, u16)) -> Vec<String> {
        let mut text = frame.draw(size);
        for code in [HOME, CLEAR_LINE, CLEAR_BELOW, REVERSE.0, REVERSE.1] {
            text = text.replace(code, "");
        }
        assert!(!text.contains('\x1b'), "{text:?}");
        text.split("\r\n").map(str::to_owned).collect()
    }

    fn names(frame: &Frame) -> String {
        let lines = lines(frame, (24, 100));
        let rows = &lines[2..lines.len() - 1];
        rows.iter().map(|line| &line[..1]).collect()
    }

    #[test]
    fn rows_are_sorted_by_what_was_asked_then_by_name() {
        let mut frame = frame();
        assert_eq!(names(&frame), "cab");
        assert_eq!(frame.press(b"m"), Pressed::Other);
        assert_eq!(names(&frame), "bca");
        assert_eq!(frame.press(b"n"), Pressed::Other);
        assert_eq!(names(&frame), "abc");
        assert!(lines(&frame, (24, 100))[0].ends_with("3 running; every 1s; sorted by name"));
    }

    #[test]
    fn nothing_is_wider_or_higher_than_the_screen() {
        let frame = frame();
        for size in [(1, 1), (2, 10), (4, 20), (5, 200), (24, 80), (0, 0)] {
            let lines = lines(&frame, size);
            assert!(lines.len() <= usize::from(size.0.max(1)), "{size:?}");
            for line in &lines {
                assert!(
                    line.chars().count() <= usize::from(size.1),
                    "{size:?} {line:?}"
                );
            }
        }
        assert!(lines(&frame, (5, 100))[3].starts_with("… and 2 more"));
    }

    #[test]
    fn q_and_ctrl_c_and_the_end_of_the_terminal_end_it() {
        for keys in [&b"q"[..], b"\x03", b"xq", b""] {
            assert_eq!(frame().press(keys), Pressed::Quit, "{keys:?}");
        }
        assert_eq!(frame().press(b"xyz\x1b[A"), Pressed::Other);
    }

    #[test]
    fn before_the_first_measurement_there_is_no_table() {
        let frame = Frame::new(Sort::Cpu, Duration::from_secs(1));
        let lines = lines(&frame, (24, 80));
        assert_eq!(lines, ["banger: measuring …", KEYS]);
    }
}
