//! The rules of banger, tested with real virtual machines through the public API.
//!
//! `cargo test -p banger-e2e --test e2e -- [FILTER…]`, after `make test` or `scripts/build.sh dev target/dist-test`
//! made the programs. Without them every case is skipped, by name; with `BANGER_E2E=require` that is a failure,
//! and with `BANGER_E2E=done` nothing is run at all (the suite ran before).
#![allow(clippy::unwrap_used)] // a case fails by panicking

mod activation;
mod api;
mod bad_input;
mod build;
mod campaign;
mod catalog;
mod chaos;
mod console;
mod crowd;
mod doctor;
mod exec;
mod faults;
mod files;
mod firecracker;
mod grpcurl;
mod hostile;
mod image;
mod inside;
mod keep;
mod kernel;
mod ladder;
mod life;
mod limits;
mod observe;
mod registry;
mod remote;
mod roles;
mod run;
mod secret;
mod session;
mod setup;
mod ssh;
mod suite;
mod terminal;
mod torture;
mod tunnel;
mod user;
mod vm;
mod volume;
mod workspaces;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use banger_e2e::leftovers::Before;
use banger_e2e::{Binaries, Case};
use suite::Suite;

/// Every case, in the order in which a lane runs them.
fn cases() -> Vec<Case<Suite>> {
    let mut cases = Vec::new();
    for part in [
        kernel::cases,
        image::cases,
        keep::cases,
        registry::cases,
        build::cases,
        catalog::cases,
        exec::cases,
        files::cases,
        session::cases,
        terminal::cases,
        console::cases,
        observe::cases,
        tunnel::cases,
        ssh::cases,
        api::cases,
        doctor::cases,
        run::cases,
        bad_input::cases,
        hostile::cases,
        vm::cases,
        life::cases,
        ladder::cases,
        crowd::cases,
        volume::cases,
        setup::cases,
        user::cases,
        limits::cases,
        firecracker::cases,
        activation::cases,
        remote::cases,
        roles::cases,
        grpcurl::cases,
        workspaces::cases,
        faults::cases,
        campaign::cases,
        chaos::cases,
        torture::cases,
    ] {
        cases.extend(part());
    }
    cases
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<String> = arguments
        .iter()
        .filter(|word| !word.starts_with('-'))
        .cloned()
        .collect();
    let cases = cases();
    if arguments.iter().any(|word| word == "--list") {
        cases
            .iter()
            .for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let wish = std::env::var("BANGER_E2E").unwrap_or_default();
    if wish == "done" {
        return ExitCode::SUCCESS;
    }
    let binaries = match Binaries::find() {
        Ok(binaries) => binaries,
        Err(why) => return without_binaries(&cases, &why, wish == "require"),
    };
    let cache = std::env::current_exe()
        .unwrap()
        .ancestors()
        .nth(3)
        .unwrap()
        .join("e2e-cache");
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let before = Before::now();
    let mut suite = Suite::new(binaries, cache);
    let mut tally = banger_e2e::run(
        &suite,
        &cases,
        &filters,
        &|suite, lane| suite.check(lane),
        &|suite, lane| suite.recover(lane),
    );
    let closed = catch_unwind(AssertUnwindSafe(|| suite.close()));
    let left = before.left(&suite.scratch);
    left.iter().for_each(|line| println!("left behind: {line}"));
    let name = "nothing_is_left_behind";
    if closed.is_ok() && left.is_empty() {
        println!("e2e {name} ... ok");
        tally.passed += 1;
    } else {
        println!("e2e {name} ... FAILED");
        tally.failed.push(name.to_owned());
    }
    if !tally.failed.is_empty() {
        keep(&suite);
        banger_e2e::leftovers::kill(&suite.scratch);
    }
    tally
        .failed
        .iter()
        .for_each(|name| println!("e2e failed: {name}"));
    println!(
        "e2e: {} passed, {} failed, {} skipped",
        tally.passed,
        tally.failed.len(),
        tally.skipped.len()
    );
    if tally.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Keeps the daemons' logs of a run that failed.
fn keep(suite: &Suite) {
    let own = suite.scratch.path().join("own");
    let directories = [suite.scratch.path(), own.as_path()];
    for entry in directories
        .into_iter()
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten()
    {
        let log = entry.path().join("log");
        if log.is_file() {
            let copy = suite.cache.join(format!(
                "failed-{}.log",
                entry.file_name().to_string_lossy()
            ));
            let _ = std::fs::copy(log, copy);
        }
    }
    println!("e2e: logs are in {}", suite.cache.display());
}

fn without_binaries(cases: &[Case<Suite>], why: &str, is_required: bool) -> ExitCode {
    println!("e2e: {why}");
    let (failed, skipped) = if is_required {
        (cases.len(), 0)
    } else {
        (0, cases.len())
    };
    println!("e2e: 0 passed, {failed} failed, {skipped} skipped");
    if is_required {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
