//! The `banger` command: a thin shell around `banger-sdk`.
//!
//! Owns words, tables and terminals; every rule about VMs is the daemon's. `main` reads the arguments,
//! runs one command on a single-threaded runtime, and ends with its exit code.
#![forbid(unsafe_code)]

mod args;
mod bridge;
mod command;
mod complete;
mod context;
mod detach;
mod failure;
mod interrupt;
mod long;
mod output;
mod place;
mod progress;
mod received;
mod terminal;
mod value;
mod view;

use std::io;

use clap::{CommandFactory, FromArgMatches};
use clap_complete::CompleteEnv;

use crate::args::Cli;
use crate::context::Context;
use crate::failure::{EXIT_FAILURE, Failure};

fn main() {
    CompleteEnv::with_factory(Cli::command)
        .var(complete::VARIABLE)
        .complete();
    terminal::restore_on_panic();
    std::process::exit(i32::from(run()));
}

/// The exit code of the command.
fn run() -> u8 {
    let parsed = Cli::command()
        .try_get_matches()
        .and_then(|m| Cli::from_arg_matches(&m));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let context = Context::new(&cli.global);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(source) => return context.report(&Failure::Runtime { source }),
    };
    let result = runtime.block_on(command::run(&context, cli.command));
    // A read of standard input cannot be called back: leave it behind.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(failure) => context.report(&failure),
    }
}

/// Prints help, the version, or what is wrong with the arguments.
fn usage(error: &clap::Error) -> u8 {
    match error.print() {
        Err(print) if print.kind() != io::ErrorKind::BrokenPipe => EXIT_FAILURE,
        _ if error.use_stderr() => EXIT_FAILURE,
        _ => 0,
    }
}
