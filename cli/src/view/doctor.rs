//! How a diagnosis looks: JSON, and for people a page of checks by subject.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use banger_sdk::types;
use serde::Serialize;

use crate::terminal;

/// The width of a page.
const WIDTH: usize = 100;
/// The least width that columns fit in.
const WIDTH_MIN: usize = 60;
/// Before the status.
const INDENT: usize = 2;
/// Of the status, with the space after it.
const STATUS_WIDTH: usize = 9;
/// Of the id, with the space after it: the longest has 24 letters.
const ID_WIDTH: usize = 26;
/// Before everything that belongs to a check.
const MARGIN: usize = INDENT + STATUS_WIDTH + ID_WIDTH;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
    Warning,
    Problem,
    Skipped,
    Fixed,
}

impl Status {
    const fn of(status: types::doctor_check::Status) -> Self {
        use types::doctor_check::Status as Told;
        match status {
            Told::Ok => Self::Ok,
            Told::Warning => Self::Warning,
            Told::Problem => Self::Problem,
            Told::Fixed => Self::Fixed,
            Told::Skipped | Told::Unspecified => Self::Skipped,
        }
    }

    /// Whether there is something to do about it.
    pub(crate) const fn is_bad(self) -> bool {
        matches!(self, Self::Warning | Self::Problem)
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "PROBLEM",
            Self::Skipped => "skipped",
            Self::Fixed => "fixed",
        }
    }

    /// Select Graphic Rendition (ECMA-48): green, yellow, bold red, dim, cyan.
    const fn colour(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Warning => "33",
            Self::Problem => "1;31",
            Self::Skipped => "2",
            Self::Fixed => "36",
        }
    }
}

/// A check and how it came out.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    id: String,
    subject: String,
    title: String,
    status: Status,
    found: String,
    cause: String,
    remedy: String,
    command: String,
    fixable: bool,
    changed: String,
    took_ms: u64,
    /// The command's own checks come first.
    #[serde(skip)]
    position: Option<i32>,
}

impl Check {
    /// A check of the command itself.
    pub(crate) fn own(id: &str, title: &str, status: Status, took: Duration) -> Self {
        Self {
            id: id.to_owned(),
            subject: "api".to_owned(),
            title: title.to_owned(),
            status,
            found: String::new(),
            cause: String::new(),
            remedy: String::new(),
            command: String::new(),
            fixable: false,
            changed: String::new(),
            took_ms: milliseconds(took),
            position: None,
        }
    }

    pub(crate) fn found(mut self, found: String) -> Self {
        self.found = found;
        self
    }

    pub(crate) fn cause(mut self, cause: String) -> Self {
        self.cause = cause;
        self
    }

    pub(crate) fn remedy(mut self, remedy: String, command: String) -> Self {
        self.remedy = remedy;
        self.command = command;
        self
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) const fn status(&self) -> Status {
        self.status
    }

    fn lines(&self, paper: &Paper) -> Vec<String> {
        let head = format!(
            "{:INDENT$}{}{:ID_WIDTH$}",
            "",
            paper.coloured(self.status, STATUS_WIDTH),
            self.id
        );
        let mut blocks = vec![self.found.clone()];
        let told = |label: &str, text: &str| (!text.is_empty()).then(|| format!("{label}{text}"));
        blocks.extend(told("changed: ", &self.changed));
        if self.status.is_bad() {
            blocks.extend(told("cause: ", &self.cause));
            blocks.extend(told("remedy: ", &self.remedy));
        }
        let mut lines: Vec<String> = blocks
            .iter()
            .flat_map(|block| wrap(block, paper.width.saturating_sub(MARGIN)))
            .collect();
        if self.status.is_bad() {
            // Not wrapped: it is copied.
            lines.extend(told("$ ", &self.command));
        }
        let margin = " ".repeat(MARGIN);
        let with_margin = |(index, line): (usize, &String)| match index {
            0 => format!("{head}{line}"),
            _ => format!("{margin}{line}"),
        };
        lines.iter().enumerate().map(with_margin).collect()
    }
}

impl From<types::DoctorCheck> for Check {
    fn from(check: types::DoctorCheck) -> Self {
        let took = check.took.and_then(|took| Duration::try_from(took).ok());
        Self {
            status: Status::of(check.status()),
            id: check.id,
            subject: check.subject,
            title: check.title,
            found: check.found,
            cause: check.cause,
            remedy: check.remedy,
            command: check.command,
            fixable: check.fixable,
            changed: check.changed,
            took_ms: milliseconds(took.unwrap_or_default()),
            position: Some(check.position),
        }
    }
}

fn milliseconds(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// How many checks came out how.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Summary {
    ok: usize,
    warning: usize,
    problem: usize,
    skipped: usize,
    fixed: usize,
    took_ms: u64,
}

/// All that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Diagnosis {
    checks: Vec<Check>,
    summary: Summary,
    #[serde(skip)]
    begin: Instant,
}

impl Default for Diagnosis {
    fn default() -> Self {
        Self {
            checks: Vec::new(),
            summary: Summary::default(),
            begin: Instant::now(),
        }
    }
}

impl Diagnosis {
    /// Takes a check up, in whatever order they end.
    pub(crate) fn add(&mut self, check: Check) {
        let counter = match check.status {
            Status::Ok => &mut self.summary.ok,
            Status::Warning => &mut self.summary.warning,
            Status::Problem => &mut self.summary.problem,
            Status::Skipped => &mut self.summary.skipped,
            Status::Fixed => &mut self.summary.fixed,
        };
        *counter += 1;
        self.checks.push(check);
    }

    /// Puts the checks in order: nothing more comes.
    pub(crate) fn end(&mut self) {
        self.checks.sort_by_key(|check| check.position);
        self.summary.took_ms = milliseconds(self.begin.elapsed());
    }

    pub(crate) fn len(&self) -> usize {
        self.checks.len()
    }

    /// The checks about which there is something to do.
    pub(crate) fn bad(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.status.is_bad())
    }

    /// The page for people.
    pub(crate) fn lines(&self, paper: &Paper) -> Vec<String> {
        let mut lines = Vec::new();
        let mut subject = None;
        for check in &self.checks {
            if subject != Some(&check.subject) {
                lines.extend(subject.map(|_| String::new()));
                lines.push(check.subject.clone());
                subject = Some(&check.subject);
            }
            lines.extend(check.lines(paper));
        }
        let s = &self.summary;
        let counts = [
            (s.ok, "ok"),
            (s.fixed, "fixed"),
            (s.warning, "with warnings"),
            (s.problem, "with problems"),
            (s.skipped, "skipped"),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        lines.push(String::new());
        lines.push(format!("{} checks: {}", self.len(), counts.join(", ")));
        let fixable = self.checks.iter().filter(|check| check.fixable).count();
        if fixable > 0 {
            lines.push(format!("{fixable} may be mended by: banger doctor --fix"));
        }
        lines
    }
}

/// What a page is printed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paper {
    width: usize,
    is_coloured: bool,
}

impl Paper {
    /// Standard output: colours where it is a terminal that has them and the user wants them.
    pub(crate) fn of_stdout() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self {
                width: WIDTH,
                is_coloured: false,
            };
        }
        let (_, columns) = terminal::size();
        // <https://no-color.org>: any value but an empty one.
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            width: usize::from(columns).clamp(WIDTH_MIN, WIDTH),
            is_coloured: !is_set("NO_COLOR") && !is_dumb,
        }
    }

    fn coloured(self, status: Status, width: usize) -> String {
        let word = status.word();
        let space = " ".repeat(width.saturating_sub(word.len()));
        if self.is_coloured {
            format!("\x1b[{}m{word}\x1b[0m{space}", status.colour())
        } else {
            format!("{word}{space}")
        }
    }
}

/// Breaks a text at spaces into lines of at most `width` letters; a longer word has a line of its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        let length = line.chars().count();
        if length == 0 {
            line.push_str(word);
        } else if length + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: &str, status: Status, position: i32) -> Check {
        let mut check = Check::own(id, "t", status, Duration::ZERO)
            .found("what was found".into())
            .cause("why ".repeat(30))
            .remedy("Do it.".into(), "do it".into());
        check.position = Some(position);
        check
    }

    const PLAIN: Paper = Paper {
        width: WIDTH,
        is_coloured: false,
    };

    #[test]
    fn a_page_is_in_order_and_keeps_its_width() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.add(check("LEFTOVER_TEMPORARY_FILES", Status::Warning, 2));
        diagnosis.add(check("A", Status::Ok, 1));
        diagnosis.add(Check::own("FIRST", "t", Status::Ok, Duration::ZERO));
        diagnosis.end();
        let lines = diagnosis.lines(&PLAIN);
        assert_eq!(lines[0], "api");
        assert!(
            lines[1].contains("FIRST")
                && lines[2].contains("A  ")
                && lines[3].contains("LEFTOVER_TEMPORARY_FILES  what")
        );
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:#?}");
        assert!(lines[4].trim_start().starts_with("cause: why"));
        assert!(lines.iter().any(|line| line.trim() == "$ do it"));
        assert_eq!(lines.last().unwrap(), "3 checks: 2 ok, 1 with warnings");
        assert!(!lines[2].contains("why"), "what is ok needs no cause");
    }

    #[test]
    fn colours_take_no_width() {
        let coloured = Paper {
            is_coloured: true,
            ..PLAIN
        };
        let bare = PLAIN.coloured(Status::Ok, STATUS_WIDTH);
        let with = coloured.coloured(Status::Ok, STATUS_WIDTH);
        assert_eq!(with.replace("\x1b[32m", "").replace("\x1b[0m", ""), bare);
        assert!(with.contains("\x1b[32mok\x1b[0m"));
    }

    #[test]
    fn long_words_stand_alone() {
        assert_eq!(wrap("a bb cccccc d", 4), ["a bb", "cccccc", "d"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
