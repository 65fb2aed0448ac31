//! Results on standard output: a table, JSON, or names.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use futures::{Stream, StreamExt};
use serde::Serialize;

use crate::args::Format;
use crate::failure::Failure;

/// Something that can be printed in every form.
pub(crate) trait Row: Serialize {
    /// The headings of the table.
    const HEADINGS: &'static [&'static str];

    /// The line of the table.
    fn cells(&self) -> Vec<String>;

    /// What `--quiet` prints.
    fn name(&self) -> String;

    /// All of it, for people: name and value of each property.
    fn details(&self) -> Vec<(&'static str, String)>;
}

/// Prints results in the form that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    format: Format,
    quiet: bool,
}

impl Printer {
    pub(crate) const fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// Whether ids or names only are wanted.
    pub(crate) const fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Whether JSON is wanted.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints a whole list.
    pub(crate) async fn list<M, R: Row>(
        self,
        mut items: impl Stream<Item = banger_sdk::Result<M>> + Unpin,
        view: impl Fn(M) -> R,
    ) -> Result<u8, Failure> {
        let mut rows = Vec::new();
        while let Some(item) = items.next().await {
            rows.push(view(item?));
        }
        match (self.quiet, self.format) {
            (true, _) => lines(rows.iter().map(Row::name))?,
            (false, Format::Json) => json(&rows)?,
            (false, Format::Table) => table(R::HEADINGS, rows.iter().map(Row::cells))?,
        }
        Ok(0)
    }

    /// Prints one thing, all of it.
    pub(crate) fn one<R: Row>(self, row: &R) -> Result<u8, Failure> {
        match (self.quiet, self.format) {
            (true, _) => lines([row.name()])?,
            (false, Format::Json) => json(row)?,
            (false, Format::Table) => {
                let pairs = row
                    .details()
                    .into_iter()
                    .filter(|(_, value)| !value.is_empty());
                table(
                    &[],
                    pairs.map(|(key, value)| vec![format!("{key}:"), value]),
                )?;
            }
        }
        Ok(0)
    }

    /// Prints what a change made: its name, or as JSON all of it.
    pub(crate) fn changed<R: Row>(self, row: &R) -> Result<u8, Failure> {
        match (self.quiet, self.format) {
            (false, Format::Json) => json(row)?,
            _ => lines([row.name()])?,
        }
        Ok(0)
    }

    /// Prints the name of what a change removed.
    pub(crate) fn removed(self, name: &str) -> Result<(), Failure> {
        match (self.quiet, self.format) {
            (true, _) => Ok(()),
            (false, Format::Json) => json_line(&serde_json::json!({ "removed": name })),
            (false, Format::Table) => lines([name.to_owned()]),
        }
    }

    /// Prints an item of a stream.
    pub(crate) fn item<R: Row>(self, row: &R) -> Result<(), Failure> {
        match (self.quiet, self.format) {
            (true, _) => lines([row.name()]),
            (false, Format::Json) => json_line(row),
            (false, Format::Table) => lines([row.cells().join("  ")]),
        }
    }
}

/// A table to standard output.
pub(crate) fn table(
    headings: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> Result<(), Failure> {
    lines(
        format_table(headings, rows)
            .lines()
            .map(|line| line.trim_end().to_owned()),
    )
}

/// A table as text.
pub(crate) fn format_table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if !headings.is_empty() {
        table.set_header(headings);
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    if table.is_empty() && headings.is_empty() {
        String::new()
    } else {
        table.to_string()
    }
}

/// Lines to standard output.
pub(crate) fn lines(lines: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}").map_err(Failure::write)?;
    }
    out.flush().map_err(Failure::write)
}

/// One document to standard output.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).expect("a view is JSON");
    lines([text])
}

/// One line of a stream to standard output.
pub(crate) fn json_line<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string(value).expect("a view is JSON");
    lines([text])
}
