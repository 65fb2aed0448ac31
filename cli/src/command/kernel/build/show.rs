//! What a build shows of itself: one line per step, and a bar while it compiles.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a bar without news is drawn.
const TICK: Duration = Duration::from_millis(120);
/// How often a line tells how far it is, where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Where a build tells how far it is.
#[derive(Debug)]
pub(super) enum Show {
    /// Nowhere.
    Nothing,
    /// Lines on standard error.
    Lines,
    /// Bars on the terminal.
    Bars,
}

/// A step that is going on.
#[derive(Debug)]
pub(super) struct Step<'a> {
    show: &'a Show,
    name: String,
    begun: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Show {
    /// As the terminal allows; nothing if nobody wants to see it.
    pub(super) fn new(wanted: bool) -> Self {
        match (wanted, io::stderr().is_terminal()) {
            (false, _) => Self::Nothing,
            (true, true) => Self::Bars,
            (true, false) => Self::Lines,
        }
    }

    /// Begins a step; with `total` it is counted.
    pub(super) fn step(&self, name: impl Into<String>, total: Option<u64>) -> Step<'_> {
        let name = name.into();
        let bar = matches!(self, Self::Bars).then(|| bar(&name, total));
        Step {
            show: self,
            name,
            begun: Instant::now(),
            told: Instant::now(),
            bar,
        }
    }
}

impl Step<'_> {
    /// It is at `count` of `total`, and works on `item`.
    pub(super) fn at(&mut self, count: u64, total: u64, item: &str) {
        if let Some(bar) = &self.bar {
            // An estimate that was too low moves the end.
            bar.set_length(total.max(count));
            bar.set_position(count);
            bar.set_message(printable(item));
        } else if matches!(self.show, Show::Lines) && self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            let (name, item) = (&self.name, printable(item));
            self.line(&format!(
                "{name}: {count} of about {}, {item}",
                total.max(count)
            ));
        }
    }

    /// It has ended well.
    pub(super) fn done(self) {
        let took = HumanDuration(self.begun.elapsed());
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !matches!(self.show, Show::Nothing) {
            self.line(&format!("{:<12} {took}", self.name));
        }
    }

    fn line(&self, text: &str) {
        // Progress that cannot be shown is no fault.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(name: &str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{spinner} {prefix:12} {bar:30} {pos}/{len} {elapsed} {wide_msg}",
        None => "{spinner} {prefix:12} {elapsed}",
    };
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(TICK);
    bar
}

/// Without control characters, which would move the terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
