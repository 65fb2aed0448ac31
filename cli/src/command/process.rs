//! What `run`, `vm exec` and `session start` share: how a process is started and how its end is told.

use std::time::Duration;

use banger_sdk::Command;
use banger_sdk::types::{self, exit::How};
use clap::Args;

use crate::failure::{EXIT_FAILURE, EXIT_TIMEOUT, Failure, signal_code};
use crate::terminal;
use crate::value;

/// The number of SIGKILL, which the out-of-memory killer sends.
const SIGKILL: i32 = 9;

/// Options of a process.
#[derive(Debug, Args)]
pub(crate) struct ProcessOptions {
    /// Set a variable; KEY alone takes its value from here
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = value::env)]
    pub(crate) env: Vec<(String, String)>,
    /// Run in this directory, an absolute path
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Run as this user: NAME, UID, NAME:GROUP or UID:GID
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Kill the command after this time, e.g. 90s or 5m
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Write standard error into standard output, in the order in which both are written
    #[arg(long)]
    pub(crate) merge_output: bool,
    /// Keep these permissions from new files, in octal; by itself 022
    #[arg(long, value_name = "OCTAL", value_parser = value::umask)]
    pub(crate) umask: Option<u16>,
    /// Limit a resource: cpu, fsize, data, stack, core, nofile, as, nproc or memlock; again for more
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = value::limit)]
    pub(crate) ulimit: Vec<value::Limit>,
}

/// Options of what a process is connected to. By itself banger gives the process a terminal when both
/// standard input and output are terminals, and forwards standard input when there is a terminal or when
/// standard input is not one (a pipe or a file).
#[derive(Debug, Args)]
pub(crate) struct StdioOptions {
    /// Forward standard input; by itself: unless it is a terminal and --tty is off
    #[arg(short, long, overrides_with = "no_stdin")]
    pub(crate) interactive: bool,
    /// Do not forward standard input
    #[arg(short = 'n', long, overrides_with = "interactive")]
    pub(crate) no_stdin: bool,
    /// Give the command a terminal; by itself: if standard input and output are terminals
    #[arg(short, long, overrides_with = "no_tty")]
    pub(crate) tty: bool,
    /// Give the command no terminal
    #[arg(short = 'T', long, overrides_with = "tty")]
    pub(crate) no_tty: bool,
}

/// What a process is connected to, decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stdio {
    /// It has a terminal.
    pub(crate) terminal: bool,
    /// Our standard input is forwarded.
    pub(crate) stdin: bool,
}

impl StdioOptions {
    /// Explicit options win; the rest follows from what we are connected to.
    pub(crate) fn decide(&self) -> Stdio {
        let terminal = self.tty || (!self.no_tty && !self.no_stdin && terminal::is_interactive());
        let automatic = terminal || !terminal::stdin_is_terminal();
        Stdio {
            terminal,
            stdin: self.interactive || (!self.no_stdin && automatic),
        }
    }
}

impl ProcessOptions {
    /// The command to run.
    pub(crate) fn command(&self, arguments: Vec<String>, stdio: Stdio) -> Command {
        let mut command = Command::new(arguments);
        if stdio.terminal {
            let (rows, columns) = terminal::size();
            command = command.terminal(rows, columns);
            if let Ok(term) = std::env::var("TERM") {
                command = command.env("TERM", term);
            }
        }
        if stdio.stdin {
            command = command.stdin();
        }
        for (key, value) in &self.env {
            command = command.env(key, value);
        }
        if let Some(directory) = &self.workdir {
            command = command.working_dir(directory);
        }
        if let Some(user) = &self.user {
            command = command.user(user);
        }
        if let Some(timeout) = self.timeout {
            command = command.timeout(timeout);
        }
        if self.merge_output {
            command = command.merge_output();
        }
        if let Some(umask) = self.umask {
            command = command.umask(umask);
        }
        for limit in &self.ulimit {
            command = command.limit(limit.resource, limit.soft, limit.hard);
        }
        command
    }
}

/// The exit code that tells of a process's end; what it cannot tell goes to standard error.
pub(crate) fn exit_code(exit: &types::Exit) -> Result<u8, Failure> {
    match exit.how {
        Some(How::Code(code)) => Ok(u8::try_from(code).unwrap_or(EXIT_FAILURE)),
        Some(How::Signal(signal)) => Ok(signal_code(signal)),
        Some(How::OutOfMemory(_)) => {
            eprintln!(
                "banger: the command was killed for want of memory; give the VM more with --memory"
            );
            Ok(signal_code(SIGKILL))
        }
        Some(How::Deadline(_)) => {
            eprintln!("banger: the command was killed: it ran longer than its --timeout");
            Ok(EXIT_TIMEOUT)
        }
        Some(How::VmGone(_)) | None => Err(Failure::VmGone),
    }
}
