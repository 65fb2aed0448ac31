//! Figures, and the table they end in.

use std::fmt;
use std::time::Duration;

/// Measured values of one kind.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn add_ms(&mut self, took: Duration) {
        self.add(took.as_secs_f64() * 1e3);
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// The value below which this part of the values is.
    pub(crate) fn at(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to the count"
        )]
        let index = (last as f64 * part).round() as usize;
        sorted[index]
    }

    /// Median, and the range in brackets.
    pub(crate) fn text(&self, unit: &str) -> String {
        let digits = if self.median() < 10.0 {
            2
        } else {
            usize::from(self.median() < 100.0)
        };
        format!(
            "{:.digits$} {unit} ({:.digits$}–{:.digits$}, n={})",
            self.median(),
            self.at(0.0),
            self.at(1.0),
            self.0.len()
        )
    }
}

/// What was measured: a line each.
#[derive(Debug)]
pub(crate) struct Table {
    lines: Vec<[String; 4]>,
}

impl Table {
    pub(crate) fn new() -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name\t: "))
            .unwrap_or("unknown")
            .to_owned();
        let cores = cpu
            .lines()
            .filter(|line| line.starts_with("processor"))
            .count();
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: Vec<&str> = load.split(' ').take(3).collect();
        eprintln!("{cores} cores, {model}, load before: {}", load.join(" "));
        Self { lines: Vec::new() }
    }

    pub(crate) fn line(&mut self, what: &str, ours: String, theirs: String, ratio: String) {
        eprintln!("  {what}: {ours}; {theirs}; {ratio}");
        self.lines.push([what.to_owned(), ours, theirs, ratio]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | banger | beside it | ratio |\n|---|---|---|---|")?;
        for line in &self.lines {
            writeln!(f, "| {} |", line.join(" | "))?;
        }
        Ok(())
    }
}
