//! The figures of `docs/performance.md`, measured: banger beside what it is built on, in turns, in one run.
//!
//! `make bench` builds what it needs and runs it. `bench [PART…]` runs parts: boot, exec, bulk, key, files,
//! workspace, pull, pull-large, pull-many, bundle, list, parallel, delete, adopt, unary, idle.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a measurement that cannot be made ends by panicking
#![allow(clippy::cast_precision_loss)] // figures for people

mod adopt;
mod bare;
mod boot;
mod channel;
mod delete;
mod files;
mod fleet;
mod idle;
mod images;
mod key;
mod parallel;
mod stand;
mod table;
mod unary;
mod workspace;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use stand::Stand;
use table::Table;

/// A part of the measurements.
type Part = (&'static str, fn(&Stand, &mut Table));

const PARTS: [Part; 16] = [
    ("boot", boot::measure),
    ("exec", channel::exec),
    ("bulk", channel::bulk),
    ("key", key::measure),
    ("files", files::measure),
    ("workspace", workspace::measure),
    ("pull", images::pull::usual),
    ("pull-large", images::pull::large),
    ("pull-many", images::pull::many_files),
    ("bundle", images::bundle::measure),
    ("list", images::list::measure),
    ("parallel", parallel::measure),
    ("delete", delete::measure),
    ("adopt", adopt::measure),
    ("unary", unary::measure),
    ("idle", idle::measure),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let stand = Stand::new();
    let mut table = Table::new();
    let mut failed = Vec::new();
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            eprintln!("measuring: {name}");
            // What it panicked of is told already; the figures of the others are of worth without it.
            let measured = catch_unwind(AssertUnwindSafe(|| measure(&stand, &mut table)));
            if measured.is_err() {
                failed.push(name);
            }
        }
    }
    stand.close();
    println!("{table}");
    if !failed.is_empty() {
        eprintln!("not measured: {}", failed.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
